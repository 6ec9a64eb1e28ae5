"""Tokens: kept, renewed once, never lost."""

import asyncio
import gc
from datetime import timedelta
from pathlib import Path

import pytest

from common.clock import ManualClock
from common.errors import CaptchaRequired, RelinkRequired, StoreUnavailable, UpstreamError, UpstreamTimeout, Vote
from common.stores.documents import Documents, open_documents
from functions.tokens import (
    LEASE_S,
    REFRESH_TIMEOUT_S,
    WAIT_FOR_OTHERS_S,
    InvalidGrant,
    RenewalPending,
    TokenKeeper,
    TokenSet,
)
from tests.support.skipping_loop import SkippingLoop, skip
from tests.support.tapped_documents import TappedDocuments, When, failing
from tests.support.token_keeping import ACCOUNT, KEY, Kept, Maker, dead_refresh, keeper_on, never, stored

# --- what is held -----------------------------------------------------------------------------------------------------


async def test_tokens_just_saved_are_used_from_memory(kept: Kept, tokens_maker: Maker, tapped: TappedDocuments) -> None:
    saved = tokens_maker.tokens()
    await kept.keeper.save(ACCOUNT, saved)
    before = list(tapped.seen)
    assert await kept.keeper.usable(ACCOUNT, never) is saved
    assert tapped.seen == before


def test_tokens_in_memory_are_given_without_a_loop(clock: ManualClock, database: Path, tokens_maker: Maker) -> None:
    async def save() -> TokenKeeper:
        documents = open_documents(f"sqlite:///{database}")
        keeper = TokenKeeper(documents, clock)
        await keeper.save(ACCOUNT, tokens_maker.tokens())
        await documents.aclose()
        return keeper

    keeper = asyncio.run(save())
    with pytest.raises(StopIteration) as done:
        keeper.usable(ACCOUNT, never).send(None)
    assert done.value.value == tokens_maker.tokens()


async def test_another_instance_reads_them_from_the_store(kept: Kept, other: Kept, tokens_maker: Maker) -> None:
    saved = tokens_maker.tokens()
    await kept.keeper.save(ACCOUNT, saved)
    assert await other.keeper.usable(ACCOUNT, never) == saved
    assert other.outcomes == ["reused"]


async def test_saving_again_replaces(kept: Kept, other: Kept, tokens_maker: Maker) -> None:
    await kept.keeper.save(ACCOUNT, tokens_maker.tokens(1))
    await other.keeper.save(ACCOUNT, tokens_maker.tokens(2))
    kept.keeper.forget(ACCOUNT)
    assert (await kept.keeper.usable(ACCOUNT, never)).access_token == "access-2"


async def test_two_that_save_at_once_both_succeed(
    kept: Kept, tapped: TappedDocuments, other: Kept, tokens_maker: Maker
) -> None:
    raced: list[str] = []

    async def overtake(when: When, operation: str, _key: str) -> None:
        if when is When.BEFORE and operation in ("create", "replace") and len(raced) < 2:
            raced.append(operation)
            await other.keeper.save(ACCOUNT, tokens_maker.tokens(len(raced)))

    tapped.tap = overtake
    await kept.keeper.save(ACCOUNT, tokens_maker.tokens(9))
    assert raced == ["create", "replace"]
    assert (await stored(tapped)).body["access_token"] == "access-9"


async def test_an_account_without_tokens_must_be_linked(kept: Kept) -> None:
    with pytest.raises(RelinkRequired):
        await kept.keeper.usable(ACCOUNT, never)
    assert await kept.keeper.health(ACCOUNT) is None


async def test_deleting_leaves_nothing_in_memory_or_store(
    kept: Kept, tapped: TappedDocuments, tokens_maker: Maker
) -> None:
    await kept.keeper.save(ACCOUNT, tokens_maker.tokens())
    await kept.keeper.delete(ACCOUNT)
    assert await tapped.list("") == []
    assert not kept.keeper.holds(ACCOUNT)
    with pytest.raises(RelinkRequired):
        await kept.keeper.usable(ACCOUNT, never)


async def test_health_tells_times_and_nothing_else(kept: Kept, tokens_maker: Maker, clock: ManualClock) -> None:
    await kept.keeper.save(ACCOUNT, tokens_maker.tokens())
    known = await kept.keeper.health(ACCOUNT)
    assert known is not None
    assert (known.expires_at, known.rotated_at) == (clock.utc() + timedelta(hours=1), clock.utc())
    assert known.needs_relink is False
    assert "access-" not in repr(known)


def test_tokens_do_not_show_themselves(tokens_maker: Maker) -> None:
    shown = repr(tokens_maker.tokens())
    assert "access-" not in shown
    assert "refresh-" not in shown
    assert "gcid" not in shown


async def test_holds_tells_whether_there_is_something_usable_in_memory(kept: Kept, tokens_maker: Maker) -> None:
    assert not kept.keeper.holds(ACCOUNT)
    await kept.keeper.save(ACCOUNT, tokens_maker.tokens(life_s=100))
    assert kept.keeper.holds(ACCOUNT)
    kept.clock.advance(50)
    assert not kept.keeper.holds(ACCOUNT)


@pytest.mark.parametrize(("life_s", "fresh"), [(60, False), (60.001, True), (0, False), (-1, False), (3_600, True)])
def test_a_token_is_fresh_until_a_minute_before_its_end(
    clock: ManualClock, tokens_maker: Maker, life_s: float, fresh: bool
) -> None:
    assert tokens_maker.tokens(life_s=life_s).is_fresh(clock.utc()) is fresh


# --- renewing ---------------------------------------------------------------------------------------------------------


async def test_a_dying_token_is_renewed_stored_and_then_used_from_memory(
    kept: Kept, other: Kept, tokens_maker: Maker
) -> None:
    await kept.expired(tokens_maker)
    renewed = await kept.keeper.usable(ACCOUNT, tokens_maker.refresh)
    assert renewed.access_token == "access-1"
    assert await kept.keeper.usable(ACCOUNT, never) == renewed
    assert await other.keeper.usable(ACCOUNT, never) == renewed
    assert kept.outcomes == ["rotated"]
    assert tokens_maker.asked == 1


async def test_renewing_keeps_what_the_maker_ties_to_the_session(kept: Kept, other: Kept, tokens_maker: Maker) -> None:
    await kept.expired(tokens_maker)
    await kept.keeper.usable(ACCOUNT, tokens_maker.refresh)
    assert (await other.keeper.usable(ACCOUNT, never)).extra == {"gcid": "g", "session_id": "s"}


async def test_fifty_callers_at_once_renew_once(kept: Kept, tokens_maker: Maker) -> None:
    await kept.expired(tokens_maker)
    got = await asyncio.gather(*(kept.keeper.usable(ACCOUNT, tokens_maker.refresh) for _ in range(50)))
    assert {tokens.access_token for tokens in got} == {"access-1"}
    assert tokens_maker.asked == 1
    await asyncio.sleep(0)
    assert kept.keeper._flights == {}


async def test_a_token_that_the_maker_refused_is_renewed_although_it_looks_fresh(
    kept: Kept, tokens_maker: Maker
) -> None:
    await kept.keeper.save(ACCOUNT, tokens_maker.tokens())
    renewed = await asyncio.gather(
        *(kept.keeper.usable(ACCOUNT, tokens_maker.refresh, refused="access-0") for _ in range(20))
    )
    assert {tokens.access_token for tokens in renewed} == {"access-1"}
    assert tokens_maker.asked == 1


async def test_a_refusal_of_an_older_token_than_the_held_one_changes_nothing(kept: Kept, tokens_maker: Maker) -> None:
    await kept.keeper.save(ACCOUNT, tokens_maker.tokens(5))
    assert (await kept.keeper.usable(ACCOUNT, never, refused="access-4")).access_token == "access-5"


async def test_a_refused_caller_never_gets_the_refused_token_from_a_renewal_begun_without_that_knowledge(
    kept: Kept, tokens_maker: Maker, tapped: TappedDocuments
) -> None:
    await kept.keeper.save(ACCOUNT, tokens_maker.tokens())
    kept.keeper.forget(ACCOUNT)
    reading, go_on = asyncio.Event(), asyncio.Event()

    async def hold(when: When, operation: str, _key: str) -> None:
        if (when, operation) == (When.BEFORE, "get") and not go_on.is_set():
            reading.set()
            await go_on.wait()

    tapped.tap = hold
    unaware = asyncio.create_task(kept.keeper.usable(ACCOUNT, tokens_maker.refresh))
    await reading.wait()
    refused = [
        asyncio.create_task(kept.keeper.usable(ACCOUNT, tokens_maker.refresh, refused="access-0")) for _ in range(10)
    ]
    await asyncio.sleep(0)
    go_on.set()
    assert (await unaware).access_token == "access-0"
    assert {tokens.access_token for tokens in await asyncio.gather(*refused)} == {"access-1"}
    assert tokens_maker.asked == 1


async def test_a_maker_that_gives_the_refused_token_again_does_not_make_us_turn_in_circles(
    kept: Kept, tokens_maker: Maker
) -> None:
    same = tokens_maker.tokens()
    await kept.keeper.save(ACCOUNT, same)
    asked = 0

    async def stubborn(_old: TokenSet) -> TokenSet:
        nonlocal asked
        asked += 1
        return same

    assert await kept.keeper.usable(ACCOUNT, stubborn, refused="access-0") == same
    assert asked == 1


async def test_a_failed_renewal_is_the_callers_error_and_frees_the_lease_at_once(
    kept: Kept, other: Kept, tokens_maker: Maker
) -> None:
    await kept.expired(tokens_maker)

    async def fail(_old: TokenSet) -> TokenSet:
        raise UpstreamError

    with pytest.raises(UpstreamError):
        await kept.keeper.usable(ACCOUNT, fail)
    assert kept.outcomes == ["failed"]
    assert (await other.keeper.usable(ACCOUNT, tokens_maker.refresh)).access_token == "access-1"
    assert other.slept_s == []


@pytest.mark.parametrize("failure", [CaptchaRequired(), KeyError("defect")])
async def test_any_failure_of_a_renewal_comes_through_unchanged(
    kept: Kept, tokens_maker: Maker, failure: Exception
) -> None:
    await kept.expired(tokens_maker)

    async def fail(_old: TokenSet) -> TokenSet:
        raise failure

    with pytest.raises(type(failure)) as raised:
        await kept.keeper.usable(ACCOUNT, fail)
    assert raised.value is failure


async def test_a_lease_that_cannot_be_given_back_does_not_hide_the_failure(
    kept: Kept, tapped: TappedDocuments, tokens_maker: Maker, clock: ManualClock
) -> None:
    await kept.expired(tokens_maker)

    async def fail(_old: TokenSet) -> TokenSet:
        tapped.tap = failing(1, "replace")
        raise UpstreamError

    with pytest.raises(UpstreamError):
        await kept.keeper.usable(ACCOUNT, fail)
    with pytest.raises(RenewalPending):
        await kept.keeper.usable(ACCOUNT, tokens_maker.refresh)
    clock.advance(LEASE_S)
    assert (await kept.keeper.usable(ACCOUNT, tokens_maker.refresh)).access_token == "access-1"


async def test_a_lease_is_given_back_only_by_its_holder(kept: Kept, other: Kept, tokens_maker: Maker) -> None:
    await kept.expired(tokens_maker)

    async def fail_late(_old: TokenSet) -> TokenSet:
        await other.keeper.save(ACCOUNT, tokens_maker.tokens(7))
        raise UpstreamError

    with pytest.raises(UpstreamError):
        await kept.keeper.usable(ACCOUNT, fail_late)
    assert (await kept.keeper.usable(ACCOUNT, never)).access_token == "access-7"


def test_a_maker_that_never_answers_is_given_up_while_the_lease_still_holds(
    clock: ManualClock, database: Path, tokens_maker: Maker
) -> None:
    assert REFRESH_TIMEOUT_S < LEASE_S

    async def scenario() -> None:
        documents = open_documents(f"sqlite:///{database}")
        kept = keeper_on(documents, clock)
        await kept.expired(tokens_maker)
        asked = asyncio.Event()

        async def hang(_old: TokenSet) -> TokenSet:
            asked.set()
            await asyncio.Event().wait()
            raise AssertionError

        call = asyncio.create_task(kept.keeper.usable(ACCOUNT, hang))
        await asked.wait()
        skip(REFRESH_TIMEOUT_S)
        with pytest.raises(UpstreamTimeout):
            await call
        assert kept.outcomes == ["failed"]
        # The maker may have taken the token: nobody tries it again before the lease has ended.
        assert (await stored(documents)).body["lease"] is not None
        await documents.aclose()

    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        runner.run(scenario())


# --- two instances ----------------------------------------------------------------------------------------------------


async def test_an_instance_waits_for_anothers_renewal_and_uses_its_tokens(
    kept: Kept, other: Kept, tokens_maker: Maker
) -> None:
    await kept.expired(tokens_maker)
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        asked.set()
        await answer.wait()

    tokens_maker.before = slow
    renewing = asyncio.create_task(kept.keeper.usable(ACCOUNT, tokens_maker.refresh))
    await asked.wait()
    waiting = asyncio.create_task(other.keeper.usable(ACCOUNT, never))
    await other.pausing.wait()
    answer.set()
    assert await waiting == await renewing
    assert other.outcomes == ["reused"]


async def test_waiting_for_another_ends_and_counts_against_nobody(
    kept: Kept, other: Kept, tokens_maker: Maker, clock: ManualClock
) -> None:
    await kept.expired(tokens_maker)
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        asked.set()
        await answer.wait()

    tokens_maker.before = slow
    renewing = asyncio.create_task(kept.keeper.usable(ACCOUNT, tokens_maker.refresh))
    await asked.wait()
    began = clock.utc()
    with pytest.raises(RenewalPending) as pending:
        await other.keeper.usable(ACCOUNT, never)
    assert (clock.utc() - began).total_seconds() == WAIT_FOR_OTHERS_S
    assert (pending.value.vote, pending.value.retry_after_s) == (Vote.NONE, 5)
    answer.set()
    await renewing


async def test_of_two_that_take_the_lease_at_once_one_gets_it(
    kept: Kept, tapped: TappedDocuments, other: Kept, tokens_maker: Maker
) -> None:
    await kept.expired(tokens_maker)
    raced = False

    async def overtake(when: When, operation: str, _key: str) -> None:
        nonlocal raced
        if (when, operation) == (When.BEFORE, "replace") and not raced:
            raced = True
            await other.keeper.usable(ACCOUNT, tokens_maker.refresh)

    tapped.tap = overtake
    assert (await kept.keeper.usable(ACCOUNT, never)).access_token == "access-1"
    assert tokens_maker.asked == 1


async def test_a_dead_grant_is_looked_at_twice_because_another_may_have_renewed_it(
    kept: Kept, other: Kept, tokens_maker: Maker
) -> None:
    await kept.expired(tokens_maker)

    async def too_late(_old: TokenSet) -> TokenSet:
        await other.keeper.save(ACCOUNT, tokens_maker.tokens(1))
        raise InvalidGrant

    assert (await kept.keeper.usable(ACCOUNT, too_late)).access_token == "access-1"
    assert kept.outcomes == ["reused"]
    known = await kept.keeper.health(ACCOUNT)
    assert known is not None
    assert not known.needs_relink


async def test_a_dead_grant_is_remembered_by_everybody_until_the_next_login(
    kept: Kept, other: Kept, tokens_maker: Maker
) -> None:
    await kept.expired(tokens_maker)
    with pytest.raises(RelinkRequired):
        await kept.keeper.usable(ACCOUNT, dead_refresh)
    assert kept.outcomes == ["invalid_grant"]
    for keeper in (kept.keeper, other.keeper):
        with pytest.raises(RelinkRequired):
            await keeper.usable(ACCOUNT, never)
        known = await keeper.health(ACCOUNT)
        assert known is not None
        assert known.needs_relink
    await kept.keeper.save(ACCOUNT, tokens_maker.tokens(2))
    assert (await other.keeper.usable(ACCOUNT, never)).access_token == "access-2"


async def test_a_token_that_turns_out_dead_is_not_held_any_more(kept: Kept, other: Kept, tokens_maker: Maker) -> None:
    await kept.keeper.save(ACCOUNT, tokens_maker.tokens())
    await other.keeper.usable(ACCOUNT, never)
    with pytest.raises(RelinkRequired):
        await kept.keeper.usable(ACCOUNT, dead_refresh, refused="access-0")
    assert not kept.keeper.holds(ACCOUNT)
    assert other.keeper.holds(ACCOUNT)
    with pytest.raises(RelinkRequired):
        await other.keeper.usable(ACCOUNT, never, refused="access-0")
    assert not other.keeper.holds(ACCOUNT)


async def test_a_dead_grant_is_noted_even_if_somebody_writes_in_between(
    kept: Kept, tapped: TappedDocuments, documents: Documents, tokens_maker: Maker
) -> None:
    await kept.expired(tokens_maker)
    writes = 0

    async def touch(when: When, operation: str, _key: str) -> None:
        nonlocal writes
        if (when, operation) == (When.BEFORE, "replace"):
            writes += 1
            if writes == 2:
                document = await stored(documents)
                await documents.replace(document, document.body)

    tapped.tap = touch
    with pytest.raises(RelinkRequired):
        await kept.keeper.usable(ACCOUNT, dead_refresh)
    assert writes == 3
    assert (await stored(documents)).body["needs_relink"] is True


# --- nothing is lost --------------------------------------------------------------------------------------------------


async def test_a_caller_that_hangs_up_does_not_stop_the_renewal(kept: Kept, other: Kept, tokens_maker: Maker) -> None:
    await kept.expired(tokens_maker)
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        asked.set()
        await answer.wait()

    tokens_maker.before = slow
    callers = [asyncio.create_task(kept.keeper.usable(ACCOUNT, tokens_maker.refresh)) for _ in range(3)]
    await asked.wait()
    for caller in callers:
        caller.cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    answer.set()
    assert (await kept.keeper.usable(ACCOUNT, never)).access_token == "access-1"
    assert (await other.keeper.usable(ACCOUNT, never)).access_token == "access-1"


async def test_a_renewal_that_fails_when_nobody_waits_any_more_complains_to_nobody(
    kept: Kept, other: Kept, tapped: TappedDocuments, tokens_maker: Maker
) -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
    await kept.expired(tokens_maker)
    asked, answer, released = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def watch(when: When, operation: str, _key: str) -> None:
        if (when, operation) == (When.AFTER, "replace") and answer.is_set():
            released.set()

    tapped.tap = watch

    async def fail(_old: TokenSet) -> TokenSet:
        asked.set()
        await answer.wait()
        raise UpstreamError

    caller = asyncio.create_task(kept.keeper.usable(ACCOUNT, fail))
    await asked.wait()
    caller.cancel()
    answer.set()
    await released.wait()
    assert (await other.keeper.usable(ACCOUNT, tokens_maker.refresh)).access_token == "access-1"
    gc.collect()
    assert complaints == []


@pytest.mark.parametrize("when", list(When))
@pytest.mark.parametrize("times", range(1, 8))
async def test_a_store_that_fails_while_new_tokens_are_written_is_tried_again(
    kept: Kept, other: Kept, tapped: TappedDocuments, tokens_maker: Maker, times: int, when: When
) -> None:
    await kept.expired(tokens_maker)

    async def fail_from_now_on() -> None:
        tapped.tap = failing(times, "replace", KEY, when)

    tokens_maker.before = fail_from_now_on
    assert (await kept.keeper.usable(ACCOUNT, tokens_maker.refresh)).access_token == "access-1"
    assert (await other.keeper.usable(ACCOUNT, never)).access_token == "access-1"
    assert tokens_maker.asked == 1
    assert kept.slept_s == sorted(kept.slept_s)


async def test_reading_back_may_fail_too(kept: Kept, other: Kept, tapped: TappedDocuments, tokens_maker: Maker) -> None:
    await kept.expired(tokens_maker)

    async def fail_from_now_on() -> None:
        lost, unread = failing(1, "replace", KEY, When.AFTER), failing(3, "get", KEY)

        async def both(when: When, operation: str, key: str) -> None:
            await lost(when, operation, key)
            await unread(when, operation, key)

        tapped.tap = both

    tokens_maker.before = fail_from_now_on
    assert (await kept.keeper.usable(ACCOUNT, tokens_maker.refresh)).access_token == "access-1"
    assert (await other.keeper.usable(ACCOUNT, never)).access_token == "access-1"


async def test_tokens_that_could_not_be_written_are_written_by_the_next_call_and_the_old_one_is_never_used_again(
    kept: Kept, other: Kept, tapped: TappedDocuments, tokens_maker: Maker
) -> None:
    await kept.expired(tokens_maker)

    async def fail_from_now_on() -> None:
        tapped.tap = failing(1_000, "replace", KEY)

    tokens_maker.before = fail_from_now_on
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await kept.keeper.usable(ACCOUNT, tokens_maker.refresh)
    kept.keeper.forget(ACCOUNT)
    tapped.tap = failing(0, "")
    assert (await kept.keeper.usable(ACCOUNT, tokens_maker.refresh)).access_token == "access-1"
    assert (await other.keeper.usable(ACCOUNT, never)).access_token == "access-1"
    assert (tokens_maker.asked, tokens_maker.dead) == (1, False)


async def test_tokens_that_could_not_be_written_do_not_replace_those_of_a_later_login(
    kept: Kept, other: Kept, tapped: TappedDocuments, tokens_maker: Maker
) -> None:
    await kept.expired(tokens_maker)

    async def fail_from_now_on() -> None:
        tapped.tap = failing(1_000, "replace", KEY)

    tokens_maker.before = fail_from_now_on
    with pytest.raises(StoreUnavailable):
        await kept.keeper.usable(ACCOUNT, tokens_maker.refresh)
    tapped.tap = failing(0, "")
    await other.keeper.save(ACCOUNT, tokens_maker.tokens(7))
    assert (await kept.keeper.usable(ACCOUNT, never)).access_token == "access-7"


async def test_a_login_during_a_renewal_wins(
    kept: Kept, other: Kept, tapped: TappedDocuments, tokens_maker: Maker
) -> None:
    await kept.expired(tokens_maker)

    async def log_in_elsewhere() -> None:
        await other.keeper.save(ACCOUNT, tokens_maker.tokens(7))

    tokens_maker.before = log_in_elsewhere
    assert (await kept.keeper.usable(ACCOUNT, tokens_maker.refresh)).access_token == "access-7"
    assert (await stored(tapped)).body["access_token"] == "access-7"


async def test_a_login_here_forgets_what_could_not_be_written(
    kept: Kept, tapped: TappedDocuments, tokens_maker: Maker
) -> None:
    await kept.expired(tokens_maker)

    async def fail_from_now_on() -> None:
        tapped.tap = failing(1_000, "replace", KEY)

    tokens_maker.before = fail_from_now_on
    with pytest.raises(StoreUnavailable):
        await kept.keeper.usable(ACCOUNT, tokens_maker.refresh)
    tapped.tap = failing(0, "")
    await kept.keeper.save(ACCOUNT, tokens_maker.tokens(7))
    kept.keeper.forget(ACCOUNT)
    tapped.seen.clear()
    assert (await kept.keeper.usable(ACCOUNT, never)).access_token == "access-7"
    assert tapped.seen == [f"get {KEY}"]


async def test_a_disconnect_during_a_renewal_leaves_nothing_behind(
    kept: Kept, other: Kept, tapped: TappedDocuments, tokens_maker: Maker
) -> None:
    await kept.expired(tokens_maker)

    async def disconnect_elsewhere() -> None:
        await other.keeper.delete(ACCOUNT)

    tokens_maker.before = disconnect_elsewhere
    await kept.keeper.usable(ACCOUNT, tokens_maker.refresh)
    assert await tapped.list("") == []
    assert not kept.keeper.holds(ACCOUNT)
    with pytest.raises(RelinkRequired):
        await kept.keeper.usable(ACCOUNT, never)


async def test_a_disconnect_forgets_what_could_not_be_written(
    kept: Kept, tapped: TappedDocuments, tokens_maker: Maker
) -> None:
    await kept.expired(tokens_maker)

    async def fail_from_now_on() -> None:
        tapped.tap = failing(1_000, "replace", KEY)

    tokens_maker.before = fail_from_now_on
    with pytest.raises(StoreUnavailable):
        await kept.keeper.usable(ACCOUNT, tokens_maker.refresh)
    tapped.tap = failing(0, "")
    await kept.keeper.delete(ACCOUNT)
    with pytest.raises(RelinkRequired):
        await kept.keeper.usable(ACCOUNT, never)
    assert await tapped.list("") == []


async def test_an_unreachable_store_is_said_to_be_so(kept: Kept, tapped: TappedDocuments, tokens_maker: Maker) -> None:
    await kept.expired(tokens_maker)
    tapped.tap = failing(1, "get")
    with pytest.raises(StoreUnavailable):
        await kept.keeper.usable(ACCOUNT, never)
    tapped.tap = failing(1, "replace")
    with pytest.raises(StoreUnavailable):
        await kept.keeper.usable(ACCOUNT, never)


async def test_a_lease_whose_acknowledgement_was_lost_ends_by_itself(
    kept: Kept, tapped: TappedDocuments, tokens_maker: Maker, clock: ManualClock
) -> None:
    await kept.expired(tokens_maker)
    tapped.tap = failing(1, "replace", KEY, When.AFTER)
    with pytest.raises(StoreUnavailable):
        await kept.keeper.usable(ACCOUNT, never)
    clock.advance(LEASE_S)
    assert (await kept.keeper.usable(ACCOUNT, tokens_maker.refresh)).access_token == "access-1"


async def test_each_rotation_comes_after_the_one_before_whatever_the_clock_says(
    kept: Kept, tapped: TappedDocuments, tokens_maker: Maker
) -> None:
    await kept.expired(tokens_maker)
    orders = [(await stored(tapped)).body["order"]]
    for step_s in (60, -3_600, 0):
        kept.clock.step_wall(step_s)
        await kept.keeper.usable(ACCOUNT, tokens_maker.refresh, refused=f"access-{tokens_maker.generation}")
        orders.append((await stored(tapped)).body["order"])
    kept.clock.step_wall(-3_600)
    await kept.keeper.save(ACCOUNT, tokens_maker.tokens())
    orders.append((await stored(tapped)).body["order"])
    assert orders == sorted(set(orders))


async def test_a_login_replaces_what_cannot_be_understood(
    kept: Kept, tapped: TappedDocuments, tokens_maker: Maker
) -> None:
    await tapped.create(KEY, {"nonsense": True})
    await kept.keeper.save(ACCOUNT, tokens_maker.tokens())
    assert (await stored(tapped)).body["access_token"] == "access-0"
