"""Tokens of which nobody knows whether they were traded in, and new ones that the store does not take."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from common.clock import ManualClock
from common.deadline import Deadline
from common.errors import StoreUnavailable, UpstreamError
from common.retry import ReadRetry, RetryBudget
from common.stores.documents import Documents, open_documents
from functions.tokens import (
    LEASE_S,
    TAKEOVER_PAUSE_S,
    RenewalInDoubt,
    RenewalPending,
    TokenKeeper,
    TokenSet,
)
from tests.support.skipping_loop import SkippingLoop, skip
from tests.support.tapped_documents import TappedDocuments, When, failing
from tests.support.token_keeping import ACCOUNT, KEY, Kept, Maker, keeper_on, never, stored

# --- who does not know whether the token was traded in ----------------------------------------------------------------


async def silent(_old: TokenSet) -> TokenSet:
    raise RenewalInDoubt(UpstreamError())


async def test_a_renewal_in_doubt_keeps_its_lease_and_tells_how_long(
    kept: Kept, other: Kept, tapped: TappedDocuments, tokens_maker: Maker
) -> None:
    await kept.expired(tokens_maker)
    with pytest.raises(UpstreamError) as failed:
        await kept.keeper.usable(ACCOUNT, silent)
    assert failed.value.retry_after_s == LEASE_S
    assert kept.outcomes == ["failed"]
    assert (await stored(tapped)).body["lease"] is not None
    for instance in (kept, other):
        with pytest.raises(RenewalPending):
            await instance.keeper.usable(ACCOUNT, never)


async def test_a_read_is_not_retried_while_it_is_in_doubt_whether_the_maker_took_the_token(
    kept: Kept, tokens_maker: Maker, clock: ManualClock
) -> None:
    await kept.expired(tokens_maker)
    retry = ReadRetry(budget=RetryBudget(clock), attempts=3)
    asked = 0

    async def in_doubt(old: TokenSet) -> TokenSet:
        nonlocal asked
        asked += 1
        return await silent(old)

    with pytest.raises(UpstreamError):
        await retry.run(lambda: kept.keeper.usable(ACCOUNT, in_doubt), deadline=Deadline(clock, 20))
    assert asked == 1
    assert kept.slept_s == []


async def test_a_renewal_that_ends_with_its_process_leaves_its_lease(
    kept: Kept, tapped: TappedDocuments, tokens_maker: Maker
) -> None:
    await kept.expired(tokens_maker)
    asked = asyncio.Event()

    async def hang(_old: TokenSet) -> TokenSet:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    call = asyncio.create_task(kept.keeper.usable(ACCOUNT, hang))
    await asked.wait()
    [flight] = kept.keeper._flights.values()
    flight.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (await stored(tapped)).body["lease"] is not None


async def test_whoever_takes_over_a_lease_waits_for_its_holder_to_come_back_to_the_store(
    kept: Kept, documents: Documents, tapped: TappedDocuments, tokens_maker: Maker
) -> None:
    await kept.expired(tokens_maker)

    async def fail_from_now_on() -> None:
        tapped.tap = failing(1_000, "replace", KEY)

    tokens_maker.before = fail_from_now_on
    with pytest.raises(StoreUnavailable):
        await kept.keeper.usable(ACCOUNT, tokens_maker.refresh)
    kept.clock.advance(LEASE_S)
    tapped.tap = failing(0, "")

    async def pause(seconds: float) -> None:
        assert seconds == TAKEOVER_PAUSE_S
        await kept.keeper.flush()

    taking = TokenKeeper(documents, kept.clock, sleep=pause)
    assert (await taking.usable(ACCOUNT, never)).access_token == "access-1"
    assert (tokens_maker.asked, tokens_maker.dead) == (1, False)


async def test_a_lease_whose_holder_does_not_come_back_is_taken_over(
    kept: Kept, other: Kept, tokens_maker: Maker
) -> None:
    await kept.expired(tokens_maker)
    with pytest.raises(UpstreamError):
        await kept.keeper.usable(ACCOUNT, silent)
    kept.clock.advance(LEASE_S)
    assert (await other.keeper.usable(ACCOUNT, tokens_maker.refresh)).access_token == "access-1"


# --- tokens that could not be written ---------------------------------------------------------------------------------


@dataclass
class Outage:
    """A keeper with tokens in hand that the store has not taken, and pauses that end when they are told to."""

    keeper: TokenKeeper
    tapped: TappedDocuments
    maker: Maker
    go_on: asyncio.Semaphore
    pauses: asyncio.Semaphore

    def end(self) -> None:
        self.tapped.tap = failing(0, "")

    async def round(self) -> None:
        """Let the background have a try."""
        self.go_on.release()
        await self.pauses.acquire()


@pytest.fixture
async def outage(tapped: TappedDocuments, clock: ManualClock, tokens_maker: Maker) -> AsyncIterator[Outage]:
    go_on, pauses = asyncio.Semaphore(0), asyncio.Semaphore(0)

    async def at_once(_seconds: float) -> None:
        pass

    async def rest(_seconds: float) -> None:
        pauses.release()
        await go_on.acquire()

    keeper = TokenKeeper(tapped, clock, sleep=at_once, rest=rest)
    for account in ("acc_1", "acc_2"):
        await keeper.save(account, tokens_maker.tokens(life_s=0))

    async def fail_from_now_on() -> None:
        tapped.tap = failing(1_000, "replace")

    tokens_maker.before = fail_from_now_on
    with pytest.raises(StoreUnavailable):
        await keeper.usable(ACCOUNT, tokens_maker.refresh)
    await pauses.acquire()
    yield Outage(keeper, tapped, tokens_maker, go_on, pauses)
    await keeper.aclose()


async def test_tokens_that_could_not_be_written_are_written_when_the_store_is_back_though_nobody_asks(
    outage: Outage, other: Kept
) -> None:
    await outage.round()
    with pytest.raises(RenewalPending):
        await other.keeper.usable(ACCOUNT, never)
    outage.end()
    announced = asyncio.Event()

    async def announce(_account_id: str) -> None:
        announced.set()

    outage.keeper._announce = announce
    outage.go_on.release()
    await announced.wait()
    assert (await other.keeper.usable(ACCOUNT, never)).access_token == "access-1"


async def test_any_request_writes_what_could_not_be_written_of_whichever_account(outage: Outage, other: Kept) -> None:
    await outage.keeper.flush()
    with pytest.raises(RenewalPending):
        await other.keeper.usable(ACCOUNT, never)
    outage.end()
    await outage.keeper.flush()
    assert (await other.keeper.usable(ACCOUNT, never)).access_token == "access-1"


async def test_what_was_written_is_not_written_again(outage: Outage) -> None:
    outage.end()
    await outage.keeper.flush()
    outage.go_on.release()
    assert outage.keeper._unsaved._writer is not None
    await outage.keeper._unsaved._writer
    outage.tapped.seen.clear()
    await outage.keeper.flush()
    assert outage.tapped.seen == []


def test_a_request_waits_only_so_long_for_others_tokens(
    clock: ManualClock, database: Path, tokens_maker: Maker
) -> None:
    async def scenario() -> None:
        tapped = TappedDocuments(open_documents(f"sqlite:///{database}"))
        kept = keeper_on(tapped, clock)
        await kept.expired(tokens_maker)

        async def fail_from_now_on() -> None:
            tapped.tap = failing(1_000, "replace", KEY)

        tokens_maker.before = fail_from_now_on
        with pytest.raises(StoreUnavailable):
            await kept.keeper.usable(ACCOUNT, tokens_maker.refresh)
        trying, answer = asyncio.Event(), asyncio.Event()

        async def hang(_when: When, _operation: str, _key: str) -> None:
            trying.set()
            await answer.wait()

        tapped.tap = hang
        requests = [asyncio.create_task(kept.keeper.flush()) for _ in range(3)]
        await trying.wait()
        skip(1.5)
        await asyncio.gather(*requests)
        answer.set()
        await kept.keeper.aclose()
        assert (await keeper_on(tapped, clock).keeper.usable(ACCOUNT, never)).access_token == "access-1"
        await tapped.aclose()

    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        runner.run(scenario())


async def test_the_end_of_a_process_writes_what_could_not_be_written(outage: Outage, other: Kept) -> None:
    outage.end()
    await outage.keeper.aclose()
    assert (await other.keeper.usable(ACCOUNT, never)).access_token == "access-1"


async def test_the_end_of_a_process_waits_for_a_renewal_that_has_begun(
    kept: Kept, other: Kept, tokens_maker: Maker
) -> None:
    await kept.expired(tokens_maker)
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        asked.set()
        await answer.wait()

    tokens_maker.before = slow
    call = asyncio.create_task(kept.keeper.usable(ACCOUNT, tokens_maker.refresh))
    await asked.wait()
    closing = asyncio.create_task(kept.keeper.aclose())
    answer.set()
    await closing
    assert (await other.keeper.usable(ACCOUNT, never)).access_token == "access-1"
    await call
