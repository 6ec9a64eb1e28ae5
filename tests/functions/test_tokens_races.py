"""Tokens when several instances want them at once, and when one of them is killed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from common.clock import ManualClock, SystemClock
from common.errors import RelinkRequired
from common.stores.documents import Documents, open_documents
from functions.tokens import LEASE_S, RenewalPending, TokenKeeper
from tests.support.token_racers import FileMaker, die, race

ACCOUNT = "acc_1"


@pytest.fixture
def maker(tmp_path: Path) -> FileMaker:
    return FileMaker(tmp_path)


@pytest.fixture
async def instances(database: Path) -> AsyncIterator[list[TokenKeeper]]:
    """Five instances, each with a connection of its own to one store."""
    async with AsyncExitStack() as stack:
        keepers = []
        for _ in range(5):
            documents = open_documents(f"sqlite:///{database}")
            stack.push_async_callback(documents.aclose)
            keepers.append(TokenKeeper(documents, SystemClock()))
        yield keepers


async def test_of_many_callers_of_many_instances_one_renews(instances: list[TokenKeeper], maker: FileMaker) -> None:
    await instances[0].save(ACCOUNT, maker.open_account(ACCOUNT))
    calls = [keeper.usable(ACCOUNT, maker.refresh) for keeper in instances for _ in range(10)]
    got = await asyncio.gather(*calls)
    assert {tokens.access_token for tokens in got} == {f"access-{ACCOUNT}-1"}
    assert maker.state(ACCOUNT) == (1, False)


async def test_two_hundred_callers_in_four_processes_renew_each_account_once(
    documents: Documents, database: Path, tmp_path: Path, maker: FileMaker
) -> None:
    keeper = TokenKeeper(documents, SystemClock())
    accounts = [f"acc_{number}" for number in range(5)]
    for account in accounts:
        await keeper.save(account, maker.open_account(account))
    got = await race(f"sqlite:///{database}", tmp_path, 4, 50, accounts)
    assert sorted(got) == sorted(f"access-{account}-1" for account in accounts for _ in range(200))
    assert [maker.state(account) for account in accounts] == [(1, False)] * 5
    health = [await keeper.health(account) for account in accounts]
    assert not any(known is None or known.needs_relink for known in health)


async def test_an_instance_killed_before_the_maker_answered_holds_the_account_up_for_a_lease_and_no_longer(
    documents: Documents, database: Path, tmp_path: Path, maker: FileMaker
) -> None:
    await TokenKeeper(documents, SystemClock()).save(ACCOUNT, maker.open_account(ACCOUNT))
    await die(f"sqlite:///{database}", tmp_path, "before", ACCOUNT)
    clock = ManualClock(wall=datetime.now(UTC))

    async def sleep(seconds: float) -> None:
        clock.advance(seconds)

    survivor = TokenKeeper(documents, clock, sleep=sleep)
    with pytest.raises(RenewalPending):
        await survivor.usable(ACCOUNT, maker.refresh)
    assert maker.state(ACCOUNT) == (0, False)
    clock.advance(LEASE_S)
    assert (await survivor.usable(ACCOUNT, maker.refresh)).access_token == f"access-{ACCOUNT}-1"
    assert maker.state(ACCOUNT) == (1, False)


async def test_an_instance_killed_with_the_new_tokens_in_hand_costs_the_link_and_says_so(
    documents: Documents, database: Path, tmp_path: Path, maker: FileMaker
) -> None:
    await TokenKeeper(documents, SystemClock()).save(ACCOUNT, maker.open_account(ACCOUNT))
    await die(f"sqlite:///{database}", tmp_path, "after", ACCOUNT)
    clock = ManualClock(wall=datetime.now(UTC))
    clock.advance(LEASE_S)

    async def at_once(_seconds: float) -> None:
        pass

    survivor = TokenKeeper(documents, clock, sleep=at_once)
    with pytest.raises(RelinkRequired):
        await survivor.usable(ACCOUNT, maker.refresh)
    known = await survivor.health(ACCOUNT)
    assert known is not None
    assert known.needs_relink
