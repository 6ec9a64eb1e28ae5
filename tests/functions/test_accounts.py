"""Linking accounts, and finding the link that a request means."""

import asyncio
import builtins
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.clock import ManualClock
from common.errors import (
    AccountNotFound,
    AuthenticationFailed,
    CaptchaRequired,
    CircuitOpen,
    NotSupported,
    ProviderBlocked,
    RateLimitExceeded,
    RelinkRequired,
    StoreUnavailable,
    UpstreamError,
)
from common.loops import LoopThread
from common.passwords import hash_password, verify_password
from common.stores.documents import Documents, open_documents
from functions.links import Link
from functions.providers.port import Command, CommandName, Provider
from functions.tokens import InvalidGrant, TokenSet
from tests.support.fake_provider import PASSWORD, USERNAME, FakeMaker
from tests.support.tapped_documents import TappedDocuments, When, failing
from tests.support.world import ME, STRANGER, World, build_world, form

WRONG = "wrong-password"


@pytest.fixture
def second(tapped: TappedDocuments, clock: ManualClock, maker: FakeMaker) -> World:
    """Another instance, with the same store and maker."""
    return build_world(tapped, clock, maker)


async def kill_tokens(world: World, account_id: str) -> None:
    async def refuse(_old: TokenSet) -> TokenSet:
        raise InvalidGrant

    held = await world.tokens.usable(account_id, refuse)
    with pytest.raises(RelinkRequired):
        await world.tokens.usable(account_id, refuse, refused=held.access_token)


# --- connect ----------------------------------------------------------------------------------------------------------


async def test_connecting_links_the_account_with_its_tokens(world: World, clock: ManualClock) -> None:
    link = await world.linked()
    assert (link.principal, link.label, link.created_at) == (ME, "o***@e***.com", clock.utc())
    assert await world.accounts.by_id(ME, link.account.id) == link
    assert await world.accounts.of_caller(ME) == [link]
    health = await world.accounts.health(link)
    assert health is not None
    assert not health.needs_relink


async def test_connecting_again_renews_the_same_link(world: World, maker: FakeMaker, clock: ManualClock) -> None:
    first = await world.linked()
    clock.advance(60)
    again = await world.linked(captcha="captcha-2")
    assert (again.account, again.created_at) == (first.account, first.created_at)
    assert again.password_hash != first.password_hash
    assert maker.calls["forget"] == 2
    assert (await world.tokens.usable(again.account.id, _never)).access_token == "access-2"
    assert maker.calls["log_in"] == 2


async def _never(_old: TokenSet) -> TokenSet:
    raise AssertionError("the maker was asked")


async def test_connecting_without_a_captcha_finds_what_is_linked_without_the_maker(
    world: World, maker: FakeMaker
) -> None:
    link = await world.linked()
    assert (await world.accounts.connect(ME, "mybmw", form())).account == link.account
    assert maker.calls["log_in"] == 1


@pytest.mark.parametrize("password", [PASSWORD, WRONG])
async def test_connecting_without_a_captcha_asks_the_maker_where_that_is_not_enough(
    world: World, maker: FakeMaker, password: str
) -> None:
    link = await world.linked()
    if password == PASSWORD:
        await kill_tokens(world, link.account.id)
    with pytest.raises(CaptchaRequired):
        await world.accounts.connect(ME, "mybmw", form(password=password))
    assert maker.calls["log_in"] == 2


async def test_a_refused_login_links_nothing(world: World, documents: Documents) -> None:
    with pytest.raises(AuthenticationFailed):
        await world.accounts.connect(ME, "mybmw", form(password=WRONG, captcha="captcha-1"))
    # Nothing but the failures themselves: the identity's and the caller's.
    assert {key.partition("/")[0] for key in await documents.list("")} == {"lockouts"}


async def test_a_refused_login_leaves_the_link_that_was_there(world: World) -> None:
    link = await world.linked()
    with pytest.raises(AuthenticationFailed):
        await world.accounts.connect(ME, "mybmw", form(password=WRONG, captcha="captcha-2"))
    assert await world.accounts.of_caller(ME) == [link]
    assert (await world.tokens.usable(link.account.id, _never)).access_token == "access-1"


async def test_a_login_is_never_repeated_by_itself_because_a_captcha_works_once(world: World, maker: FakeMaker) -> None:
    maker.then("log_in", UpstreamError())
    with pytest.raises(UpstreamError):
        await world.linked()
    assert maker.calls["log_in"] == 1


async def test_many_identical_logins_at_once_are_one_with_one_captcha(world: World, maker: FakeMaker) -> None:
    links = await asyncio.gather(*(world.linked() for _ in range(20)))
    assert len({link.account.id for link in links}) == 1
    assert (maker.calls["log_in"], maker.captchas) == (1, ["captcha-1"])


async def test_a_failed_login_fails_for_all_who_waited_and_may_be_tried_again(world: World, maker: FakeMaker) -> None:
    maker.then("log_in", ProviderBlocked(retry_after_s=0))
    outcomes = await asyncio.gather(*(world.linked() for _ in range(5)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ProviderBlocked] * 5
    world.breakers.get(("mybmw", "rest_of_world", "auth")).reset()
    assert (await world.linked()).principal == ME


async def test_logins_with_different_passwords_do_not_share_one(world: World, maker: FakeMaker) -> None:
    wrong = world.accounts.connect(ME, "mybmw", form(password=WRONG, captcha="captcha-2"))
    outcomes = await asyncio.gather(world.linked(), wrong, return_exceptions=True)
    assert isinstance(outcomes[1], AuthenticationFailed)
    assert not isinstance(outcomes[0], BaseException)
    assert maker.calls["log_in"] == 2


async def test_a_caller_that_hangs_up_does_not_lose_the_login_that_spent_his_captcha(
    world: World, maker: FakeMaker
) -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        asked.set()
        await answer.wait()

    maker.before["log_in"] = slow
    caller = asyncio.create_task(world.linked())
    await asked.wait()
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    answer.set()
    link = await world.linked()
    assert await world.accounts.of_caller(ME) == [link]
    assert maker.calls["log_in"] == 1


async def test_wrong_passwords_close_the_road_to_nobody_but_who_tries_them(world: World, maker: FakeMaker) -> None:
    for number in range(3):
        with pytest.raises(AuthenticationFailed):
            await world.accounts.connect(STRANGER, "mybmw", form(password=WRONG, captcha=f"stranger-{number}"))
    for number in range(3, 12):
        with pytest.raises(RateLimitExceeded) as locked:
            await world.accounts.connect(STRANGER, "mybmw", form(password=WRONG, captcha=f"stranger-{number}"))
        assert locked.value.retry_after_s is not None
    assert maker.calls["log_in"] == 3
    assert (await world.linked()).principal == ME


async def test_a_locked_form_is_refused_before_its_password_costs_anything(world: World, clock: ManualClock) -> None:
    await world.linked()
    for _ in range(3):
        with pytest.raises(CaptchaRequired):
            await world.accounts.by_credentials(ME, "mybmw", form(password=WRONG))
    with pytest.raises(RateLimitExceeded):
        await world.accounts.by_credentials(ME, "mybmw", form(password=WRONG))
    # Whoever has proved himself on this instance before is not locked out by the guesses.
    assert (await world.accounts.by_credentials(ME, "mybmw", form())).principal == ME
    clock.advance(31)
    with pytest.raises(CaptchaRequired):
        await world.accounts.by_credentials(ME, "mybmw", form(password=WRONG))


async def test_two_hundred_identical_forms_at_once_are_one_try(world: World, clock: ManualClock) -> None:
    link = await world.linked()
    other = build_world(world.documents, clock, world.maker)
    found = await asyncio.gather(*(other.accounts.by_credentials(ME, "mybmw", form()) for _ in range(200)))
    assert {one.account for one in found} == {link.account}


async def test_a_failing_maker_is_left_alone(world: World, maker: FakeMaker) -> None:
    maker.then("log_in", *[UpstreamError() for _ in range(5)])
    for _ in range(5):
        with pytest.raises(UpstreamError):
            await world.linked()
    with pytest.raises(CircuitOpen):
        await world.linked()
    assert maker.calls["log_in"] == 5


async def test_a_store_out_of_reach_is_noticed_before_a_captcha_is_spent(
    world: World, tapped: TappedDocuments, maker: FakeMaker
) -> None:
    tapped.tap = failing(100, "list")
    with pytest.raises(StoreUnavailable):
        await world.linked()
    assert maker.captchas == []


async def test_a_maker_without_password_login_is_not_supported(documents: Documents, clock: ManualClock) -> None:
    maker = FakeMaker(clock)
    world = build_world(documents, clock, maker, provider=replace(maker.provider(), log_in=None))
    with pytest.raises(NotSupported, match="mybmw has no password login"):
        await world.linked()
    with pytest.raises(NotSupported, match="does not offer cardata"):
        await world.accounts.connect(ME, "cardata", form(captcha="captcha-1"))


# --- credentials on every request -------------------------------------------------------------------------------------


async def test_a_form_logs_in_once_and_is_then_answered_from_the_link(world: World, maker: FakeMaker) -> None:
    first = await world.accounts.by_credentials(ME, "mybmw", form(captcha="captcha-1"))
    again = await world.accounts.by_credentials(ME, "mybmw", form())
    assert again.account == first.account
    assert maker.calls["log_in"] == 1


def test_a_known_form_is_answered_from_memory_on_the_callers_own_thread(database: Path, clock: ManualClock) -> None:
    loop = LoopThread()
    world = build_world(open_documents(f"sqlite:///{database}"), clock)
    try:
        linked = loop.run(world.accounts.by_credentials(ME, "mybmw", form(captcha="captcha-1")))
        with pytest.raises(StopIteration) as done:
            world.accounts.by_credentials(ME, "mybmw", form()).send(None)
        assert done.value.value.account == linked.account
        loop.run(world.documents.aclose())
    finally:
        loop.close()


async def test_another_instance_checks_the_password_against_the_stored_hash_once(
    world: World, second: World, maker: FakeMaker, tapped: TappedDocuments
) -> None:
    link = await world.linked()
    assert (await second.accounts.by_credentials(ME, "mybmw", form())).account == link.account
    assert maker.calls["log_in"] == 1
    await second.accounts.by_id(ME, link.account.id)
    tapped.seen.clear()
    assert (await second.accounts.by_credentials(ME, "mybmw", form())).account == link.account
    assert tapped.seen == []


@pytest.mark.parametrize("warm", [True, False], ids=["known here", "known to another instance"])
async def test_a_wrong_password_never_gets_the_session(
    world: World, second: World, maker: FakeMaker, warm: bool
) -> None:
    await world.linked()
    instance = world if warm else second
    with pytest.raises(CaptchaRequired):
        await instance.accounts.by_credentials(ME, "mybmw", form(password=WRONG))
    with pytest.raises(AuthenticationFailed):
        await instance.accounts.by_credentials(ME, "mybmw", form(password=WRONG, captcha="captcha-2"))
    assert (await instance.accounts.by_credentials(ME, "mybmw", form())).principal == ME


async def test_a_wrong_password_for_a_linked_account_and_for_no_account_fail_alike(world: World) -> None:
    await world.linked()
    failures = []
    for username in (USERNAME, "nobody@example.com"):
        with pytest.raises(CaptchaRequired) as failed:
            await world.accounts.by_credentials(ME, "mybmw", form(username=username, password=WRONG))
        failures.append((failed.value.message, failed.value.details))
    assert failures[0] == failures[1]


async def test_the_right_password_in_another_callers_mouth_logs_in_for_himself(world: World) -> None:
    mine = await world.linked()
    with pytest.raises(CaptchaRequired):
        await world.accounts.by_credentials(STRANGER, "mybmw", form())
    his = await world.accounts.by_credentials(STRANGER, "mybmw", form(captcha="captcha-2"))
    assert his.account.id != mine.account.id
    assert await world.accounts.of_caller(ME) == [mine]


async def test_a_captcha_that_is_not_needed_is_not_spent(world: World, second: World, maker: FakeMaker) -> None:
    link = await world.linked()
    for instance in (world, second, second):
        found = await instance.accounts.by_credentials(ME, "mybmw", form(captcha="captcha-2"))
        assert found.account == link.account
    assert maker.captchas == ["captcha-1"]


async def test_a_captcha_renews_a_dead_link_even_where_the_password_is_known(
    world: World, second: World, maker: FakeMaker
) -> None:
    link = await world.linked()
    await second.accounts.by_credentials(ME, "mybmw", form())
    await kill_tokens(world, link.account.id)
    assert (await world.accounts.by_credentials(ME, "mybmw", form())).account == link.account
    assert maker.calls["log_in"] == 1
    renewed = await world.accounts.by_credentials(ME, "mybmw", form(captcha="captcha-2"))
    assert renewed.account == link.account
    assert maker.captchas == ["captcha-1", "captcha-2"]
    health = await second.accounts.health(link)
    assert health is not None
    assert not health.needs_relink


async def test_a_session_whose_link_has_gone_elsewhere_is_not_served(
    world: World, second: World, clock: ManualClock
) -> None:
    link = await world.linked()
    await second.accounts.disconnect(link)
    clock.advance(31)
    with pytest.raises(CaptchaRequired):
        await world.accounts.by_credentials(ME, "mybmw", form())


class Recorder(ThreadPoolExecutor):
    """Threads that remember what they were given to do."""

    def __init__(self) -> None:
        super().__init__(max_workers=2)
        self.given: list[object] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        self.given.extend(getattr(fn, "args", ()))
        return super().submit(fn, *args, **kwargs)


async def test_password_hashing_never_holds_up_the_loop(world: World, second: World) -> None:
    threads = Recorder()
    asyncio.get_running_loop().set_default_executor(threads)
    await world.linked()
    assert hash_password in threads.given
    await second.accounts.by_credentials(ME, "mybmw", form())
    assert threads.given.count(verify_password) == 1
    await second.accounts.connect(ME, "mybmw", form())
    assert threads.given.count(verify_password) == 2


async def test_neither_password_nor_user_name_is_ever_stored(
    world: World, maker: FakeMaker, documents: Documents, database: Path
) -> None:
    link = await world.linked()
    vehicle = await world.vehicles.find(link, None)
    await world.commands.send(link, vehicle, Command(CommandName.LOCK), wait_s=5, key="a-key", code=None)
    await world.accounts.by_credentials(ME, "mybmw", form())
    await documents.aclose()
    stored = b"".join(path.read_bytes() for path in sorted(database.parent.glob(f"{database.name}*")))
    assert link.account.id.encode() in stored
    for secret in (PASSWORD, USERNAME, USERNAME.partition("@")[0], "captcha-1"):
        assert secret.encode() not in stored
        assert secret.encode().hex().encode() not in stored


# --- whose it is ------------------------------------------------------------------------------------------------------


async def test_anothers_account_and_nobodys_fail_alike(world: World) -> None:
    link = await world.linked()
    failures = []
    for account_id in (link.account.id, "acc_" + "A" * 22):
        for _ in range(2):
            with pytest.raises(AccountNotFound) as failed:
                await world.accounts.by_id(STRANGER, account_id)
            failures.append((failed.value.message, failed.value.details, failed.value.retry_after_s))
    assert len({repr(failure) for failure in failures}) == 1


async def test_the_cache_of_links_is_by_caller(world: World) -> None:
    link = await world.linked()
    assert await world.accounts.by_id(ME, link.account.id) == link
    with pytest.raises(AccountNotFound):
        await world.accounts.by_id(STRANGER, link.account.id)
    assert await world.accounts.of_caller(STRANGER) == []


# --- disconnect -------------------------------------------------------------------------------------------------------


async def test_disconnecting_leaves_no_document_behind(world: World, documents: Documents) -> None:
    link = await world.linked()
    vehicle = await world.vehicles.find(link, None)
    for name in (CommandName.LOCK, CommandName.UNLOCK):
        await world.commands.send(link, vehicle, Command(name), wait_s=5, key=f"key-{name}", code=None)
    await world.accounts.disconnect(link)
    assert await world.traces() == []
    assert not world.tokens.holds(link.account.id)
    with pytest.raises(AccountNotFound):
        await world.accounts.by_id(ME, link.account.id)
    with pytest.raises(CaptchaRequired):
        await world.accounts.by_credentials(ME, "mybmw", form())


async def test_disconnecting_touches_nobody_elses(world: World, documents: Documents) -> None:
    mine = await world.linked()
    his = await world.linked(STRANGER, "captcha-2")
    await world.accounts.disconnect(mine)
    assert await world.accounts.of_caller(STRANGER) == [his]
    assert (await world.tokens.usable(his.account.id, _never)).access_token == "access-2"
    assert len(await documents.list("")) == 3


class ShortLists(TappedDocuments):
    """Lists at most three keys at a time, as every store does from some number on."""

    async def list(self, prefix: str, *, limit: int = 3, after: str | None = None) -> builtins.list[str]:
        return await super().list(prefix, limit=min(limit, 3), after=after)


async def test_disconnecting_finds_any_number_of_documents(documents: Documents, clock: ManualClock) -> None:
    world = build_world(ShortLists(documents), clock)
    link = await world.linked()
    for number in range(10):
        await documents.create(f"commands/{link.account.id}/cmd_{number}", {})
    await world.accounts.disconnect(link)
    assert await documents.list("") == []


async def test_nobody_finds_the_account_from_the_first_moment_of_its_end(world: World, tapped: TappedDocuments) -> None:
    link = await world.linked()
    await world.accounts.by_id(ME, link.account.id)
    tapped.tap = failing(1, "delete")
    with pytest.raises(StoreUnavailable):
        await world.accounts.disconnect(link)
    with pytest.raises(AccountNotFound):
        await world.accounts.by_id(ME, link.account.id)
    assert await world.accounts.of_caller(ME) == []
    assert await tapped.list("") == []


async def test_disconnecting_twice_is_not_found(world: World) -> None:
    link = await world.linked()
    await world.accounts.disconnect(link)
    with pytest.raises(AccountNotFound):
        await world.accounts.disconnect(link)


async def test_a_login_while_the_account_ends_gives_a_new_one_that_stays(
    world: World, second: World, tapped: TappedDocuments
) -> None:
    old = await world.linked()
    relinked: list[Link] = []

    async def relink_meanwhile(when: When, operation: str, key: str) -> None:
        if (when, operation) == (When.BEFORE, "delete") and key.startswith("tokens/"):
            tapped.tap = failing(0, "")
            relinked.append(await second.linked(captcha="captcha-2"))

    tapped.tap = relink_meanwhile
    await world.accounts.disconnect(old)
    (new,) = relinked
    assert await world.accounts.of_caller(ME) == [new]
    assert new.account.id != old.account.id
    assert (await world.accounts.by_credentials(ME, "mybmw", form())).account == new.account
    assert (await second.tokens.usable(new.account.id, _never)).access_token == "access-2"


async def test_an_account_of_a_maker_without_login_can_still_be_disconnected(
    documents: Documents, clock: ManualClock, maker: FakeMaker, world: World
) -> None:
    link = await world.linked()
    provider: Provider = replace(maker.provider(), log_in=None)
    without = build_world(documents, clock, maker, provider=provider)
    await without.accounts.disconnect(link)
    assert await documents.list("") == []
