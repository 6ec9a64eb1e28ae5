"""Lockouts for logins, on a real store."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from common.clock import ManualClock
from common.errors import (
    AuthenticationFailed,
    CaptchaRequired,
    RateLimitExceeded,
    StoreUnavailable,
    UpstreamTimeout,
)
from common.loops import LoopThread
from common.stores.documents import Documents, open_documents
from functions.login_guard import LoginGuard
from tests.support.tapped_documents import TappedDocuments, When, failing

ROOT = Path(__file__).parents[2]
MINE, THEIRS = "a" * 64, "b" * 64


@pytest.fixture
def guard(tapped: TappedDocuments, clock: ManualClock) -> LoginGuard:
    return LoginGuard(tapped, clock)


async def log_in(
    guard: LoginGuard,
    outcome: Exception | None = None,
    *,
    principal: str = "me",
    identity: str = MINE,
    linked: bool = False,
    mismatch: bool = False,
) -> None:
    async with guard.attempt(principal, identity, linked=linked) as attempt:
        if mismatch:
            attempt.mismatch()
        if outcome is not None:
            raise outcome


async def fail(guard: LoginGuard, times: int = 1, principal: str = "me", identity: str = MINE) -> None:
    for _ in range(times):
        with pytest.raises(AuthenticationFailed):
            await log_in(guard, AuthenticationFailed(), principal=principal, identity=identity)


async def refusal(guard: LoginGuard, principal: str = "me", identity: str = MINE) -> RateLimitExceeded:
    with pytest.raises(RateLimitExceeded) as caught:
        await log_in(guard, AssertionError("the login was made"), principal=principal, identity=identity)
    return caught.value


async def test_three_failures_are_free_and_then_each_locks_twice_as_long_up_to_an_hour(
    guard: LoginGuard, clock: ManualClock
) -> None:
    await fail(guard, 3)
    locked_s = []
    for _ in range(9):
        refused = await refusal(guard)
        assert refused.details == {"limit": "login-failures", "reason": "too_many_failed_logins"}
        assert refused.retry_after_s is not None
        locked_s.append(refused.retry_after_s)
        clock.advance(refused.retry_after_s - 0.001)
        await refusal(guard)
        clock.advance(0.001)
        await fail(guard)
    assert locked_s == [30, 60, 120, 240, 480, 960, 1_920, 3_600, 3_600]


async def test_a_success_forgets_all_failures(guard: LoginGuard, documents: Documents) -> None:
    await fail(guard, 2)
    await log_in(guard)
    assert await documents.list("lockouts") == []
    await fail(guard, 3)


async def test_a_day_without_a_failure_forgets_all(guard: LoginGuard, clock: ManualClock) -> None:
    await fail(guard, 3)
    clock.advance(86_400)
    await fail(guard, 3)


async def test_lockouts_hold_over_instances_and_their_restarts(
    guard: LoginGuard, documents: Documents, clock: ManualClock
) -> None:
    await fail(guard, 2)
    await fail(LoginGuard(documents, clock))
    assert (await refusal(LoginGuard(documents, clock))).retry_after_s == 30


async def test_a_stranger_who_guesses_locks_out_only_himself(guard: LoginGuard) -> None:
    # The digest of an identity holds its caller: the same e-mail address is another identity for a stranger.
    await fail(guard, 3, principal="stranger", identity=THEIRS)
    await refusal(guard, principal="stranger", identity=THEIRS)
    await log_in(guard)


@pytest.mark.parametrize("error", [CaptchaRequired(), UpstreamTimeout(), StoreUnavailable(), RuntimeError("a defect")])
async def test_what_says_nothing_about_the_password_gives_the_try_back(
    guard: LoginGuard, documents: Documents, clock: ManualClock, error: Exception
) -> None:
    for _ in range(5):
        with pytest.raises(type(error)):
            await log_in(guard, error)
    assert await documents.list("lockouts") == []
    await fail(guard, 3)
    clock.advance(30)
    with pytest.raises(type(error)):
        await log_in(guard, error)
    await fail(guard)


async def test_a_password_that_we_know_to_be_wrong_has_failed_whatever_the_maker_says(guard: LoginGuard) -> None:
    for _ in range(3):
        with pytest.raises(CaptchaRequired):
            await log_in(guard, CaptchaRequired(), linked=True, mismatch=True)
    await refusal(guard)


async def test_a_new_password_that_the_maker_accepts_has_not_failed(guard: LoginGuard, documents: Documents) -> None:
    await log_in(guard, linked=True, mismatch=True)
    assert await documents.list("lockouts") == []


async def test_of_a_hundred_guesses_at_once_three_are_made(guard: LoginGuard, clock: ManualClock) -> None:
    known, guesses = asyncio.Event(), 0

    async def guess() -> None:
        nonlocal guesses
        async with guard.attempt("me", MINE):
            guesses += 1
            await known.wait()
            raise AuthenticationFailed

    tasks = [asyncio.create_task(guess()) for _ in range(100)]
    while sum(task.done() for task in tasks) < 97:
        await asyncio.wait([task for task in tasks if not task.done()], return_when=asyncio.FIRST_COMPLETED)
    refused = [task.exception() for task in tasks if task.done()]
    assert all(isinstance(error, RateLimitExceeded) and error.retry_after_s == 2 for error in refused)
    assert {error.details["reason"] for error in refused if isinstance(error, RateLimitExceeded)} == {"login_under_way"}
    known.set()
    await asyncio.wait(tasks)
    assert guesses == 3
    assert (await refusal(guard)).retry_after_s == 30


async def test_a_failure_known_after_a_success_is_forgotten_with_the_others(
    guard: LoginGuard, documents: Documents
) -> None:
    begun, known = asyncio.Event(), asyncio.Event()

    async def guess() -> None:
        async with guard.attempt("me", MINE, linked=True):
            begun.set()
            await known.wait()
            raise AuthenticationFailed

    guessing = asyncio.create_task(guess())
    await begun.wait()
    await log_in(guard, linked=True)
    known.set()
    with pytest.raises(AuthenticationFailed):
        await guessing
    assert await documents.list("lockouts") == []


async def test_guesses_at_two_instances_share_the_free_tries(documents: Documents, clock: ManualClock) -> None:
    made = 0

    async def guess(guard: LoginGuard) -> None:
        nonlocal made
        async with guard.attempt("me", MINE, linked=True):
            made += 1
            raise AuthenticationFailed

    guards = [LoginGuard(documents, clock) for _ in range(2)]
    outcomes = await asyncio.gather(*(guess(guard) for guard in guards for _ in range(20)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {AuthenticationFailed, RateLimitExceeded}
    assert made == 3


async def test_a_locked_login_is_refused_before_its_body_and_writes_nothing(
    guard: LoginGuard, tapped: TappedDocuments
) -> None:
    await fail(guard, 3)
    tapped.seen.clear()
    await refusal(guard)
    assert {operation.partition(" ")[0] for operation in tapped.seen} == {"get"}


async def test_a_cancelled_login_stays_counted(guard: LoginGuard, clock: ManualClock) -> None:
    begun = asyncio.Event()

    async def hang() -> None:
        async with guard.attempt("me", MINE):
            begun.set()
            await asyncio.Event().wait()

    await fail(guard, 2)
    task = asyncio.create_task(hang())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await refusal(guard)).details["reason"] == "login_under_way"
    clock.advance(120)
    await fail(guard)
    assert (await refusal(guard)).retry_after_s == 60


def test_a_process_killed_in_a_login_has_used_up_its_try(tmp_path: Path, clock: ManualClock) -> None:
    program = """
import asyncio, os, signal, sys
from common.clock import ManualClock
from common.stores.documents import open_documents
from functions.login_guard import LoginGuard
async def main():
    async with LoginGuard(open_documents(sys.argv[1]), ManualClock()).attempt("me", sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    url = f"sqlite:///{tmp_path}/documents.db"
    for _ in range(3):
        killed = subprocess.run([sys.executable, "-c", program, url, MINE], cwd=ROOT, check=False)
        assert killed.returncode == -signal.SIGKILL

    async def look() -> RateLimitExceeded:
        documents = open_documents(url)
        refused = await refusal(LoginGuard(documents, clock))
        await documents.aclose()
        return refused

    assert asyncio.run(look()).details["reason"] == "login_under_way"


async def test_logins_that_fail_for_ever_new_identities_are_held_up(documents: Documents, clock: ManualClock) -> None:
    guard = LoginGuard(documents, clock, distinct_failing_per_hour=3)
    for name in ("one", "two", "three"):
        await fail(guard, identity=name)
        clock.advance(60)
    refused = await refusal(LoginGuard(documents, clock, distinct_failing_per_hour=3), identity="four")
    assert refused.details == {"limit": "login-accounts", "reason": "too_many_failing_accounts"}
    assert refused.retry_after_s == 3_600 - 180
    # One that failed before may be tried again, a linked account too, and everybody else.
    await fail(guard, identity="two")
    await log_in(guard, identity="four", linked=True)
    await log_in(guard, identity="four", principal="somebody else")
    clock.advance(3_600 - 180)
    await fail(guard, identity="four")


async def test_an_identity_that_succeeds_after_all_does_not_count_as_failing(
    documents: Documents, clock: ManualClock
) -> None:
    guard = LoginGuard(documents, clock, distinct_failing_per_hour=2)
    for name in ("one", "two"):
        await fail(guard, identity=name)
    await log_in(guard, identity="one")
    await fail(guard, identity="three")
    await log_in(guard, identity="two")
    await log_in(guard, identity="three")
    assert await documents.list("lockouts") == []


async def test_a_linked_accounts_failures_do_not_count_as_failing_identities(
    documents: Documents, clock: ManualClock
) -> None:
    guard = LoginGuard(documents, clock, distinct_failing_per_hour=1)
    for name in ("one", "two"):
        with pytest.raises(AuthenticationFailed):
            await log_in(guard, AuthenticationFailed(), identity=name, linked=True)
    await log_in(guard, identity="three")


async def test_of_a_hundred_identities_at_once_ten_are_tried(guard: LoginGuard) -> None:
    known, tried = asyncio.Event(), 0

    async def guess(identity: str) -> None:
        nonlocal tried
        async with guard.attempt("me", identity):
            tried += 1
            await known.wait()
            raise AuthenticationFailed

    tasks = [asyncio.create_task(guess(f"identity-{number}")) for number in range(100)]
    while sum(task.done() for task in tasks) < 90:
        await asyncio.wait([task for task in tasks if not task.done()], return_when=asyncio.FIRST_COMPLETED)
    known.set()
    await asyncio.wait(tasks)
    assert tried == 10
    assert (await refusal(guard, identity="another")).retry_after_s == 3_600


async def test_a_success_that_cannot_be_written_down_is_a_success_all_the_same(
    guard: LoginGuard, tapped: TappedDocuments
) -> None:
    tapped.tap = failing(1, "delete")
    await log_in(guard)


async def test_a_failure_that_cannot_be_written_down_is_told_and_counts_in_time(
    guard: LoginGuard, tapped: TappedDocuments, clock: ManualClock
) -> None:
    async def fail_unwritten() -> None:
        async with guard.attempt("me", MINE, linked=True):
            tapped.tap = failing(1, "replace")
            raise AuthenticationFailed

    for _ in range(3):
        with pytest.raises(AuthenticationFailed):
            await fail_unwritten()
    assert (await refusal(guard)).details["reason"] == "login_under_way"
    clock.advance(120)
    await fail(guard)
    assert (await refusal(guard)).retry_after_s == 60


async def test_no_login_is_made_that_cannot_be_counted(guard: LoginGuard, tapped: TappedDocuments) -> None:
    tapped.tap = failing(1, "create", when=When.BEFORE)
    with pytest.raises(StoreUnavailable):
        await log_in(guard, AssertionError("the login was made"))


async def test_nothing_stored_names_a_caller(guard: LoginGuard, documents: Documents) -> None:
    await fail(guard, principal="issuer|me")
    keys = await documents.list("lockouts")
    assert len(keys) == 2
    for key in keys:
        held = await documents.get(key)
        assert held is not None
        assert "issuer" not in f"{key} {held.body}"


async def test_an_account_that_ends_takes_its_failures_along(guard: LoginGuard, documents: Documents) -> None:
    with pytest.raises(AuthenticationFailed):
        await log_in(guard, AuthenticationFailed(), linked=True)
    await guard.forget(MINE)
    assert await documents.list("lockouts") == []


def test_a_guarded_login_may_begin_on_a_servers_thread(tmp_path: Path, clock: ManualClock) -> None:
    loop, documents = LoopThread(), open_documents(f"sqlite:///{tmp_path}/documents.db")
    guard = LoginGuard(documents, clock)
    loop.run(log_in(guard))
    with pytest.raises(AuthenticationFailed):
        loop.run(log_in(guard, AuthenticationFailed()))
    loop.submit(documents.aclose()).result(5)
    loop.close()
