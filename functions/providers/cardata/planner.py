"""Whether a read is worth a request of the customer's day. Pure.

A charge is what an owner looks at, so requests go where one may be seen. A car that charges shares what is left of the
day with those that charge too. Of the others, those that may yet begin are asked at an even pace through the rest of
the day, after :data:`KEPT_FOR_CHARGING` was put aside for each of them; one that has charged today, or cannot charge,
is asked five times less often. Nothing is read more often than is useful, and the reserve is for forced reads alone,
so that an owner who asks for it gets a fresh answer in the evening, too.

The numbers below were found by simulating days with two cars that each charge for three hours at any time:
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
KEPT_FOR_CHARGING: Final = 6
"""Requests that are put aside for each charge that may yet begin."""
_KEPT_WHILE_CHARGING: Final = 5
"""The same for one that goes on."""
_CHARGE_S: Final = 3 * 3600.0
"""A usual charge: with less of the day left, less is put aside for one."""
_CHARGING_SHARE: Final = 0.5
_OTHERS_SHARE: Final = 0.2
"""How often a car is asked that will hardly charge today, beside one that may."""
_LEAST_IDLE_PART: Final = 0.3
"""Of what is left, this much is never put aside."""


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
    will_hardly_charge: bool = False
    """It has charged today and has ended, or has no battery to charge."""
    others_charging: int = 0
    """Of the customer's other cars, those that charge."""
    others_hardly: int = 0
    """Of the customer's other cars, those that will hardly charge today."""
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
        why = f"The BMW customer's quota: {why}."
        wait_s = spending.resumes_in_s(at.now)
        return ReadPlan(_held_source(at), 0, wait_s, why, because="used_up", retry_after_s=wait_s)
    if forced:
        return ReadPlan("poll", 1, 0.0, "A fresh read was asked for.")
    if at.failed_at is not None:
        wait_s = (RETRY_UNKNOWN_S if at.read_at is None else RETRY_S) - (at.now - at.failed_at).total_seconds()
        if wait_s > 0:
            why = f"The last request failed and was charged all the same; the next is worth it in {round(wait_s)} s."
            return ReadPlan(_held_source(at), 0, max_age_s, why, because="failed", retry_after_s=wait_s)
    return _by_age(at, max_age_s, spending.left(is_forced=False))


def _by_age(at: Situation, max_age_s: float, left: int) -> ReadPlan:
    if at.read_at is None:
        return ReadPlan("poll", 1, max_age_s, "Nothing is known of this vehicle yet.")
    age_s = (at.now - at.read_at).total_seconds()
    if age_s >= max_age_s:
        why = f"The last reading is {_minutes(age_s)} old, and after {_minutes(max_age_s)} another one is worth it."
        return ReadPlan("poll", 1, max_age_s, why)
    if _streams(at):
        why = "The vehicle's stream brings every change as it happens."
        return ReadPlan("stream", 0, max_age_s, why, retry_after_s=max_age_s - age_s)
    why = (
        f"The last reading is {_minutes(age_s)} old; with {left} requests left today for {at.cars} vehicle(s) "
        f"another one is worth it after {_minutes(max_age_s)}."
    )
    return ReadPlan("cache", 0, max_age_s, why, retry_after_s=max_age_s - age_s)


def acceptable_age_s(at: Situation) -> float:
    """How old data may grow before a request is worth it."""
    if _streams(at):
        return STREAMED_S
    left = at.spending.on(at.now).left(is_forced=False)
    if left == 0:
        return seconds_to_midnight(at.now)
    rest_s = seconds_to_midnight(at.now)
    charging = at.others_charging + at.is_charging
    if at.is_charging:
        return min(max(CHARGING_S, _CHARGE_S * charging / left * _CHARGING_SHARE), CHARGING_AT_MOST_S)
    hardly = at.others_hardly + at.will_hardly_charge
    may_charge = max(0, max(1, at.cars) - charging - hardly)
    kept = KEPT_FOR_CHARGING * may_charge * min(1.0, rest_s / _CHARGE_S) + _KEPT_WHILE_CHARGING * charging
    pace_s = rest_s * (may_charge + _OTHERS_SHARE * hardly) / max(left - kept, left * _LEAST_IDLE_PART)
    return min(max(IDLE_S, pace_s / _OTHERS_SHARE if at.will_hardly_charge else pace_s), IDLE_AT_MOST_S)


def _streams(at: Situation) -> bool:
    return at.streams_until is not None and at.now <= at.streams_until


def _held_source(at: Situation) -> Literal["cache", "stream"]:
    return "stream" if _streams(at) else "cache"


def _minutes(seconds: float) -> str:
    return str(timedelta(minutes=round(seconds / 60)))[:-3] + " h"
