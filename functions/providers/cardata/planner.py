"""Whether a read is worth a request of the customer's day. Pure.

The day's requests are shared evenly over what is left of it and the customer's cars: that is the *pace*. A car that
charges is read five times as often as the pace, because its state of charge is what an owner looks at; the others wait
a little longer, and keep back :data:`KEPT_FOR_CHARGING` for each car that may yet begin; one that has charged today
waits longest. Nothing is read more often than is useful, and the reserve is for forced reads alone, so that an owner
who asks for it gets a fresh answer in the evening, too.

The shares below were found by simulating days with two cars that each charge for three hours at any time:
``tests/providers/cardata/test_planner_day.py`` prints what they achieve.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from functions.providers.cardata.quota import Spending, seconds_to_midnight
from functions.providers.port import ReadPlan

CHARGING_S: Final = 18 * 60.0
"""How old the data of a charging car may grow at best."""
CHARGING_AT_MOST_S: Final = 35 * 60.0
"""How old they may grow at worst, while any requests are left."""
IDLE_S: Final = 60 * 60.0
"""How old the data of any other car may grow at best."""
IDLE_AT_MOST_S: Final = 4 * 3600.0
STREAMED_S: Final = 6 * 3600.0
"""While the stream is up, a request only brings what is not streamed: locks, warnings, services."""
RETRY_S: Final = 10 * 60.0
"""After a request that failed: it was charged, and the next one would be, too."""
RETRY_UNKNOWN_S: Final = 2 * 60.0
"""The same for a car of which nothing is known yet."""
KEPT_FOR_CHARGING: Final = 2
_CHARGE_S: Final = 3 * 3600.0
"""A usual charge: less of the day is left, less is kept for it."""
_CHARGING_SHARE: Final = 0.2
_IDLE_SHARE: Final = 1.2
_CHARGED_SHARE: Final = 2.5
_LEAST_IDLE_PART: Final = 0.3
"""Of what is left, this much is never kept back."""


@dataclass(frozen=True, slots=True)
class Situation:
    """What the decision rests on."""

    now: datetime
    spending: Spending
    cars: int
    """How many cars the customer has; they share the day."""
    read_at: datetime | None
    """When the car was last asked by a request; ``None`` where never."""
    is_charging: bool = False
    """Whether it charges, as far as is known."""
    charged_today: bool = False
    """Whether it has charged today and has ended."""
    streams_until: datetime | None = None
    """The stream of this car is up, and is known to be until then."""
    failed_at: datetime | None = None
    """When the last request about this car failed; ``None`` where it has succeeded since."""


def decide(at: Situation, *, forced: bool) -> ReadPlan:
    """What a read should do."""
    spending = at.spending.on(at.now)
    max_age_s = acceptable_age_s(at)
    if spending.left(is_forced=forced) < 1:
        why = "today's requests are used up" if forced else "what is left of today's requests is kept for fresh reads"
        return ReadPlan(_held_source(at), 0, seconds_to_midnight(at.now), f"The BMW customer's quota: {why}.")
    if forced:
        return ReadPlan("poll", 1, 0.0, "A fresh read was asked for.")
    if at.failed_at is not None:
        wait_s = (RETRY_UNKNOWN_S if at.read_at is None else RETRY_S) - (at.now - at.failed_at).total_seconds()
        if wait_s > 0:
            why = f"The last request failed and was charged all the same; the next is worth it in {round(wait_s)} s."
            return ReadPlan(_held_source(at), 0, max_age_s, why)
    return _by_age(at, max_age_s, spending.left(is_forced=False))


def _by_age(at: Situation, max_age_s: float, left: int) -> ReadPlan:
    if at.read_at is None:
        return ReadPlan("poll", 1, max_age_s, "Nothing is known of this vehicle yet.")
    age_s = (at.now - at.read_at).total_seconds()
    if age_s >= max_age_s:
        why = f"The last reading is {_minutes(age_s)} old, and after {_minutes(max_age_s)} another one is worth it."
        return ReadPlan("poll", 1, max_age_s, why)
    if _streams(at):
        return ReadPlan("stream", 0, max_age_s, "The vehicle's stream brings every change as it happens.")
    why = (
        f"The last reading is {_minutes(age_s)} old; with {left} requests left today for {at.cars} vehicle(s) "
        f"another one is worth it after {_minutes(max_age_s)}."
    )
    return ReadPlan("cache", 0, max_age_s, why)


def acceptable_age_s(at: Situation) -> float:
    """How old data may grow before a request is worth it."""
    if _streams(at):
        return STREAMED_S
    left = at.spending.on(at.now).left(is_forced=False)
    if left == 0:
        return seconds_to_midnight(at.now)
    rest_s, cars = seconds_to_midnight(at.now), max(1, at.cars)
    if at.is_charging:
        return min(max(CHARGING_S, rest_s * cars / left * _CHARGING_SHARE), CHARGING_AT_MOST_S)
    may_charge = cars - 1 if at.charged_today else cars
    kept = KEPT_FOR_CHARGING * may_charge * min(1.0, rest_s / _CHARGE_S)
    pace_s = rest_s * cars / max(left - kept, left * _LEAST_IDLE_PART)
    return min(max(IDLE_S, pace_s * (_CHARGED_SHARE if at.charged_today else _IDLE_SHARE)), IDLE_AT_MOST_S)


def _streams(at: Situation) -> bool:
    return at.streams_until is not None and at.now <= at.streams_until


def _held_source(at: Situation) -> Literal["cache", "stream"]:
    return "stream" if _streams(at) else "cache"


def _minutes(seconds: float) -> str:
    return str(timedelta(minutes=round(seconds / 60)))[:-3] + " h"
