"""Moving windows in this process's memory."""

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.clock import ManualClock, SystemClock
from common.ratelimit import Decision, Limit, parse_limit
from common.ratelimit_moving import MovingLimiter


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


async def spend(limiter: MovingLimiter, limit: Limit, times: int = 1, key: str = "me") -> list[bool]:
    return [(await limiter.take(limit, key)).allowed for _ in range(times)]


async def test_a_moving_window_has_no_boundary_to_double_around(clock: ManualClock) -> None:
    limiter, limit = MovingLimiter(clock), parse_limit("x", "3/minute")
    clock.advance(59)
    assert await spend(limiter, limit, 3) == [True] * 3
    clock.advance(2)
    refused = await limiter.take(limit, "me")
    assert (refused.allowed, refused.refused_by, refused.retry_after_s) == (False, limit.windows[0], 58.0)


async def test_the_time_to_wait_is_exact(clock: ManualClock) -> None:
    limiter, limit = MovingLimiter(clock), parse_limit("x", "2/minute")
    await spend(limiter, limit)
    clock.advance(20)
    await spend(limiter, limit)
    wait_s = (await limiter.take(limit, "me")).retry_after_s
    assert wait_s == 40.0
    clock.advance(39.5)
    assert await spend(limiter, limit) == [False]
    clock.advance(0.5)
    assert await spend(limiter, limit, 2) == [True, False]


async def test_standings_count_what_was_just_let_in_and_tell_when_the_oldest_leaves(clock: ManualClock) -> None:
    limiter, limit = MovingLimiter(clock), parse_limit("x", "2/minute;5/hour")
    await spend(limiter, limit)
    clock.advance(15)
    decision = await limiter.take(limit, "me")
    assert [(s.remaining, s.reset_s) for s in decision.standings] == [(0, 45.0), (3, 3_585.0)]


async def test_of_several_windows_the_longest_wait_is_told_and_nothing_is_counted(clock: ManualClock) -> None:
    limiter, limit = MovingLimiter(clock), parse_limit("x", "1/minute;2/hour")
    await spend(limiter, limit)
    clock.advance(60)
    await spend(limiter, limit)
    refused = await limiter.take(limit, "me")
    assert (refused.refused_by, refused.retry_after_s) == (limit.windows[1], 3_540.0)
    clock.advance(3_540)
    assert await spend(limiter, limit) == [True]


async def test_an_amount_of_none_refuses_everything(clock: ManualClock) -> None:
    refused = await MovingLimiter(clock).take(parse_limit("x", "0/hour"), "me")
    assert (refused.allowed, refused.retry_after_s) == (False, 3_600.0)


async def test_a_flood_of_keys_forgets_the_least_recently_used(clock: ManualClock) -> None:
    limiter, limit = MovingLimiter(clock, max_keys=3), parse_limit("x", "2/hour")
    for key in ("a", "b", "a", "c", "d"):
        await spend(limiter, limit, key=key)
    assert len(limiter) == 3
    assert await spend(limiter, limit, key="a") == [False]
    assert await spend(limiter, limit, 2, key="b") == [True, True]


def test_many_threads_never_get_more_than_the_amount() -> None:
    limiter, limit = MovingLimiter(SystemClock()), parse_limit("x", "50/hour")
    allowed: list[bool] = []
    barrier = threading.Barrier(8)

    def run() -> None:
        barrier.wait()
        allowed.extend(asyncio.run(spend(limiter, limit, 20)))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(allowed) == 50


@given(st.lists(st.integers(0, 40), max_size=60))
async def test_no_stretch_of_a_windows_length_ever_holds_more_than_its_amount(pauses: list[int]) -> None:
    clock = ManualClock()
    limiter, limit = MovingLimiter(clock), parse_limit("x", "3/minute;5/3 minutes")
    let_in: list[float] = []
    for pause in pauses:
        clock.advance(pause)
        before = list(let_in)
        decision: Decision = await limiter.take(limit, "me")
        if decision.allowed:
            let_in.append(clock.monotonic())
        for window in limit.windows:
            start = clock.monotonic() - window.length_s
            assert sum(at > start for at in let_in) <= window.amount
        # Nor is anybody refused without need.
        room = all(sum(at > clock.monotonic() - w.length_s for at in before) < w.amount for w in limit.windows)
        assert decision.allowed is room
