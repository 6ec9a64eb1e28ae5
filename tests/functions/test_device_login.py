"""Linking by code: what a killed process or a lost answer leaves behind."""

from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest

from common.clock import ManualClock
from common.errors import ConnectNotFound, RelinkRequired
from common.stores.documents import Documents
from functions.device_login import Waiting
from functions.links import Link
from functions.providers.port import DeviceGrant, DevicePending
from functions.tokens import TokenSet
from tests.support.fake_provider import FakeMaker
from tests.support.tapped_documents import TappedDocuments, When
from tests.support.world import ME, STRANGER, World, build_world

INTERVAL_S, CODE_LIVES_S = 5.0, 300.0


class Killed(BaseException):
    """The process is no more."""


@dataclass
class Confirmed:
    """A maker's login by code whose owner confirms at once; a code works once."""

    clock: ManualClock
    used: set[str] = field(default_factory=set)

    async def begin(self, client_id: str) -> DeviceGrant:
        expires_at = self.clock.utc() + timedelta(seconds=CODE_LIVES_S)
        code = f"code-{self.clock.monotonic()}"
        return DeviceGrant(code, "https://maker.example", None, expires_at, INTERVAL_S, {"code": code})

    async def poll(self, grant: DeviceGrant) -> TokenSet | DevicePending:
        if grant.user_code in self.used:
            raise RelinkRequired
        self.used.add(grant.user_code)
        ends_at = self.clock.utc() + timedelta(hours=1)
        return TokenSet(f"access-{len(self.used)}", "refresh", ends_at, {"gcid": "gcid"})

    async def forget(self, account_id: str) -> None:
        pass


@pytest.fixture
def world(tapped: TappedDocuments, clock: ManualClock, maker: FakeMaker) -> World:
    offered = replace(maker.provider(), log_in=None, device=Confirmed(clock))
    return build_world(tapped, clock, maker, provider=offered)


async def begun(world: World) -> str:
    waiting = await world.services.logins.begin(ME, "mybmw", "client")
    world.clock.advance(INTERVAL_S)
    return waiting.connect_id


async def linked(world: World) -> Link:
    found = await world.services.logins.ask(ME, await begun(world))
    assert not isinstance(found, Waiting)
    return found


def kill_after(tapped: TappedDocuments, operation: str, key: str) -> None:
    """Kill whoever has done this next."""

    async def tap(when: When, name: str, of: str) -> None:
        if when is When.AFTER and name == operation and of.startswith(key):
            raise Killed

    tapped.tap = tap


async def nobody(_when: When, _operation: str, _key: str) -> None:
    pass


async def test_a_login_by_code_brings_nothing_back_of_an_account_whose_end_was_cut_short(
    world: World, tapped: TappedDocuments, documents: Documents
) -> None:
    ended = await linked(world)
    kill_after(tapped, "replace", "links/")
    with pytest.raises(Killed):
        await world.accounts.disconnect(ended)
    tapped.tap = nobody

    again = await linked(world)

    assert again.account.id != ended.account.id
    assert [link.account.id for link in await world.accounts.of_caller(ME)] == [again.account.id]
    assert not [key for key in await documents.list("") if ended.account.id in key]


async def test_whoever_never_got_the_answer_is_told_again_that_he_is_linked(world: World) -> None:
    connect_id = await begun(world)
    link = await world.services.logins.ask(ME, connect_id)

    assert await world.services.logins.ask(ME, connect_id) == link
    with pytest.raises(ConnectNotFound):
        await world.services.logins.ask(STRANGER, connect_id)


@pytest.mark.parametrize("later_s", [INTERVAL_S, CODE_LIVES_S])
async def test_a_login_that_was_killed_when_all_was_done_is_no_dead_code(
    world: World, tapped: TappedDocuments, later_s: float
) -> None:
    connect_id = await begun(world)
    kill_after(tapped, "create", "links/")
    with pytest.raises(Killed):
        await world.services.logins.ask(ME, connect_id)
    tapped.tap = nobody
    world.clock.advance(later_s)

    found = await world.services.logins.ask(ME, connect_id)

    assert [link.account for link in await world.accounts.of_caller(ME)] == [getattr(found, "account", None)]


async def test_who_has_disconnected_is_not_linked_by_asking_again(world: World) -> None:
    connect_id = await begun(world)
    link = await world.services.logins.ask(ME, connect_id)
    assert isinstance(link, Link)
    await world.accounts.disconnect(link)

    with pytest.raises(ConnectNotFound):
        await world.services.logins.ask(ME, connect_id)
