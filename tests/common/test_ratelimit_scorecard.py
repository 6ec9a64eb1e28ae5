"""What a decision about a limit costs."""

from common.clock import SystemClock
from common.ratelimit import Decision, Standing, parse_limit
from common.ratelimit_fixed import FixedLimiter
from tests.support.costs import times_as_much


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

    # This finds a wait or a scan, not a slow neighbour.
    assert times_as_much(decide, make_the_decision) < 20
