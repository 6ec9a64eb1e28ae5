"""Limits as rows, and quotas from this process's memory."""

import contextlib
import threading
import tracemalloc
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

import pytest

from common.clock import ManualClock
from common.ratelimit import Decision, Limit, Standing, parse_limit, policy_header, state_header
from common.ratelimit_fixed import FixedLimiter

T = TypeVar("T")


def stepped(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end without an event loop, as a server's thread does; fails where it waits for anything."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("it waited")


def take(limiter: FixedLimiter, limit: Limit, key: str = "me") -> Decision:
    return stepped(limiter.take(limit, key))


def left(decision: Decision) -> list[int]:
    return [standing.remaining for standing in decision.standings]


@pytest.fixture
def limiter(clock: ManualClock) -> FixedLimiter:
    return FixedLimiter(clock)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def test_a_limit_is_read_from_the_librarys_notation_with_the_shortest_window_first() -> None:
    limit = parse_limit("caller-read", "10000/hour;600/minute")
    assert [(w.name, w.amount, w.length_s) for w in limit.windows] == [
        ("caller-read", 600, 60),
        ("caller-read-3600s", 10_000, 3_600),
    ]


@pytest.mark.parametrize("notation", ["", "many", "600", "600/fortnight", "-1/minute"])
def test_what_is_not_the_notation_is_refused(notation: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_limit("caller-read", notation)


def test_two_windows_of_one_length_contradict_each_other() -> None:
    with pytest.raises(ValueError, match="same length"):
        parse_limit("caller-read", "5/minute;6/60 seconds")


def test_headers_are_structured_lists_with_the_reset_rounded_up() -> None:
    minute, hour = parse_limit("caller-read", "600/minute;10000/hour").windows
    standings = [Standing(minute, 599, 31.2), Standing(hour, 9_999, 3_591.0)]
    assert policy_header(standings) == '"caller-read";q=600;w=60, "caller-read-3600s";q=10000;w=3600'
    assert state_header(standings) == '"caller-read";r=599;t=32, "caller-read-3600s";r=9999;t=3591'


def test_a_key_gets_its_amount_and_then_nothing_until_the_window_ends(
    limiter: FixedLimiter, clock: ManualClock
) -> None:
    limit = parse_limit("x", "3/minute")
    clock.advance(10)
    assert [left(take(limiter, limit)) for _ in range(3)] == [[2], [1], [0]]
    refused = take(limiter, limit)
    assert (refused.allowed, refused.refused_by, refused.retry_after_s) == (False, limit.windows[0], 50.0)
    clock.advance(49.999)
    assert not take(limiter, limit).allowed
    clock.advance(0.001)
    assert left(take(limiter, limit)) == [2]


def test_an_allowed_request_is_told_nothing_to_wait_for(limiter: FixedLimiter) -> None:
    decision = take(limiter, parse_limit("x", "3/minute"))
    assert (decision.allowed, decision.refused_by, decision.retry_after_s) == (True, None, None)


def test_the_whole_amount_can_be_spent_whatever_the_size_of_a_slice(limiter: FixedLimiter) -> None:
    for amount in (1, 19, 20, 21, 59, 600):
        limit = parse_limit(f"x{amount}", f"{amount}/minute")
        assert [take(limiter, limit).allowed for _ in range(amount + 1)] == [True] * amount + [False]


def test_of_several_windows_all_must_have_room_and_the_longest_wait_is_told(
    limiter: FixedLimiter, clock: ManualClock
) -> None:
    limit = parse_limit("x", "2/minute;4/hour")
    clock.advance(1)
    assert [take(limiter, limit).allowed for _ in range(3)] == [True, True, False]
    clock.advance(60)
    assert [take(limiter, limit).allowed for _ in range(2)] == [True, True]
    refused = take(limiter, limit)
    assert (refused.refused_by, refused.retry_after_s) == (limit.windows[1], 3_539.0)


def test_what_is_refused_costs_nothing_in_any_window(limiter: FixedLimiter, clock: ManualClock) -> None:
    limit = parse_limit("x", "1/minute;3/hour")
    for _ in range(5):
        take(limiter, limit)
    clock.advance(60)
    assert left(take(limiter, limit)) == [0, 1]


def test_an_amount_of_none_refuses_everything(limiter: FixedLimiter) -> None:
    refused = take(limiter, parse_limit("x", "0/minute"))
    assert (refused.allowed, left(refused)) == (False, [0])


def test_keys_and_limits_are_apart(limiter: FixedLimiter) -> None:
    one, other = parse_limit("one", "1/minute"), parse_limit("other", "1/minute")
    assert take(limiter, one, "a").allowed
    assert take(limiter, one, "b").allowed
    assert take(limiter, other, "a").allowed
    assert not take(limiter, one, "a").allowed


def test_windows_are_aligned_to_the_wall_clock_and_measured_by_the_one_that_never_steps() -> None:
    clock = ManualClock(wall=datetime(2026, 1, 1, 12, 0, 45, tzinfo=UTC))
    limiter, limit = FixedLimiter(clock), parse_limit("x", "1/minute")
    assert take(limiter, limit).standings[0].reset_s == 15.0
    clock.step_wall(-3_600)
    assert take(limiter, limit).retry_after_s == 15.0
    clock.advance(15)
    assert take(limiter, limit).allowed


@dataclass
class MeetingClock(ManualClock):
    """Holds whoever asks for the wall clock until all have asked, or the first one loses patience."""

    meeting: threading.Barrier = field(default_factory=lambda: threading.Barrier(8))

    def utc(self) -> datetime:
        with contextlib.suppress(threading.BrokenBarrierError):
            self.meeting.wait(0.1)
        return super().utc()


def test_many_threads_never_get_more_than_the_amount() -> None:
    # The wall clock is asked while a window is opened: eight that were let in there together would open it eight times.
    limiter, limit = FixedLimiter(MeetingClock()), parse_limit("x", "100/hour")
    allowed: list[bool] = []

    def spend() -> None:
        allowed.extend([take(limiter, limit).allowed for _ in range(50)])

    threads = [threading.Thread(target=spend) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(allowed) == 100


def test_a_flood_of_keys_is_held_in_bounded_memory(clock: ManualClock) -> None:
    limit = parse_limit("x", "600/minute;10000/hour")
    limiter = FixedLimiter(clock, max_keys=1_000)
    tracemalloc.start()
    for number in range(5_000):
        take(limiter, limit, f"issuer|{number}")
    held_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(limiter) == 1_000
    assert held_bytes < 2_000_000


def test_a_flood_does_not_make_a_busy_key_forgotten(clock: ManualClock) -> None:
    limiter, limit = FixedLimiter(clock, max_keys=10), parse_limit("x", "20/minute")
    for number in range(20):
        assert take(limiter, limit).allowed
        take(limiter, limit, f"stranger {number}")
    assert not take(limiter, limit).allowed


def test_keys_whose_windows_have_ended_make_room_by_themselves(clock: ManualClock) -> None:
    limiter, limit = FixedLimiter(clock), parse_limit("x", "1/minute")
    for number in range(100):
        take(limiter, limit, f"early {number}")
    clock.advance(60)
    for number in range(60):
        take(limiter, limit, f"late {number}")
    assert len(limiter) == 60
