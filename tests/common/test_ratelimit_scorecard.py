"""What a decision about a limit costs."""

import timeit
from collections.abc import Callable

from common.clock import SystemClock
from common.ratelimit import Decision, Standing, parse_limit
from common.ratelimit_fixed import FixedLimiter


def test_a_decision_costs_little_more_than_making_the_objects_that_tell_it() -> None:
    limiter, limit = FixedLimiter(SystemClock()), parse_limit("x", "1000000/minute;100000000/hour")

    def decide() -> None:
        try:
            limiter.take(limit, "me").send(None)
        except StopIteration:
            return
        raise AssertionError("it waited")

    def make_the_decision() -> None:
        Decision(True, tuple(Standing(window, 1, 1.0) for window in limit.windows))

    def best_s(function: Callable[[], None]) -> float:
        return min(timeit.repeat(function, number=500, repeat=20))

    # This finds a wait or a scan, not a slow neighbour.
    assert best_s(decide) < 20 * best_s(make_the_decision)
