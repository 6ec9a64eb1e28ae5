"""When a guess has to wait."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions import lockout
from functions.lockout import BUSY_S, PENDING_S, Tries, Try, Wait

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def failures(count: int, last_s_ago: float = 0) -> Tries:
    return tuple(Try(str(number), ago(last_s_ago + count - 1 - number), failed=True) for number in range(count))


@pytest.mark.parametrize(
    ("count", "expected_s"), [(0, 0), (2, 0), (3, 30), (4, 60), (5, 120), (9, 1_920), (10, 3_600), (5_000, 3_600)]
)
def test_after_three_free_tries_each_failure_locks_twice_as_long_up_to_an_hour(count: int, expected_s: float) -> None:
    assert lockout.lock_s(count) == expected_s


@pytest.mark.parametrize(
    ("tries", "expected"),
    [
        ((), None),
        (failures(2), None),
        (failures(3), Wait(30, 3)),
        (failures(3, last_s_ago=29), Wait(1, 3)),
        (failures(3, last_s_ago=30), None),
        (failures(4, last_s_ago=30), Wait(30, 4)),
        (failures(12, last_s_ago=3_000), Wait(600, 12)),
        (failures(12, last_s_ago=3_600), None),
    ],
)
def test_a_lock_counts_from_the_last_failure(tries: Tries, expected: Wait | None) -> None:
    assert lockout.wait_for(tries, NOW) == expected


def test_as_many_may_try_at_once_as_have_free_tries_and_then_one_by_one() -> None:
    pending = (Try("a", NOW), Try("b", NOW), Try("c", NOW))
    assert lockout.wait_for(pending[:2], NOW) is None
    assert lockout.wait_for(pending, NOW) == Wait(BUSY_S, 0)
    assert lockout.wait_for((*failures(2), *pending[:1]), NOW) == Wait(BUSY_S, 0)
    long_ago = failures(5, last_s_ago=600)
    assert lockout.wait_for(long_ago, NOW) is None
    assert lockout.wait_for((*long_ago, *pending[:1]), NOW) == Wait(BUSY_S, 0)


def test_a_try_that_nobody_settled_counts_as_failed_in_time() -> None:
    dead = tuple(Try(name, ago(PENDING_S)) for name in "abcd")
    assert lockout.wait_for(dead, NOW - timedelta(seconds=1)) == Wait(BUSY_S, 0)
    assert lockout.wait_for((*dead, Try("e", NOW, failed=True)), NOW) == Wait(120, 5)


def test_a_day_without_a_failure_is_forgotten() -> None:
    assert lockout.remembered(failures(9, last_s_ago=86_399), NOW) == failures(9, last_s_ago=86_399)
    assert lockout.remembered((*failures(9, last_s_ago=86_400), Try("now", NOW)), NOW) == (Try("now", NOW),)


def test_a_failure_locks_from_when_it_is_known() -> None:
    tries = lockout.begun(failures(2, last_s_ago=5), "mine", ago(45))
    assert lockout.wait_for(lockout.failed(tries, "mine", NOW), NOW) == Wait(30, 3)


def test_what_says_nothing_about_the_password_is_as_if_it_had_not_been() -> None:
    before = failures(4, last_s_ago=100)
    assert lockout.withdrawn(lockout.begun(before, "mine", NOW), "mine") == before


@given(st.integers(0, 200))
def test_no_number_of_failures_fills_the_store_or_shortens_the_lock(count: int) -> None:
    tries: Tries = ()
    for number in range(count):
        tries = lockout.failed(lockout.begun(tries, str(number), NOW), str(number), NOW)
    assert len(tries) <= 17
    wait = lockout.wait_for(tries, NOW)
    assert (wait.seconds if wait else 0.0) == lockout.lock_s(count)


def test_only_an_hours_failures_of_other_identities_count_against_the_next_one() -> None:
    failed_at = {"a": ago(3_600), "b": ago(3_000), "c": ago(600)}
    assert lockout.next_identity_in_s(failed_at, "new", 0, 3, NOW) == 0
    assert lockout.next_identity_in_s(failed_at, "new", 0, 2, NOW) == 600
    assert lockout.next_identity_in_s(failed_at, "new", 0, 1, NOW) == 3_000
    assert lockout.next_identity_in_s(failed_at, "c", 0, 2, NOW) == 0


def test_identities_that_are_being_tried_count_until_it_is_known_how_they_end() -> None:
    assert lockout.next_identity_in_s({"b": ago(60)}, "new", 1, 3, NOW) == 0
    assert lockout.next_identity_in_s({"b": ago(60)}, "new", 2, 3, NOW) == BUSY_S
