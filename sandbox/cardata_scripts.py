"""Models of cars, and scripts of what they do: when a car drives, charges, warms its cabin, stands unlocked, sleeps.

A script covers a period that repeats for ever: by default a week of two drives to work and back a day.
"""

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

DAY_S: Final = 86_400
WEEK_S: Final = 7 * DAY_S


class Kind(StrEnum):
    """What a car can be doing. Several at once, but it does not drive while it charges."""

    DRIVE = "drive"
    CHARGE = "charge"
    """Plugged in; the battery fills up to its target."""
    CLIMATE = "climate"
    UNLOCKED = "unlocked"
    SLEEP = "sleep"
    """It reports nothing."""


@dataclass(frozen=True, slots=True)
class Model:
    """A kind of car. No tank: ``tank_l`` 0; no battery: ``battery_kwh`` 0."""

    key: str
    name: str
    series: str
    drive_train: str
    """CONV, BEV or PHEV."""
    tank_l: float = 0.0
    fuel_l_per_100km: float = 0.0
    battery_kwh: float = 0.0
    electric_kwh_per_100km: float = 0.0
    charge_kw: float = 0.0
    target_percent: int = 0


MODELS: Final = {
    model.key: model
    for model in (
        Model("x1", "X1 sDrive18i", "X1", "CONV", tank_l=49.0, fuel_l_per_100km=6.5),
        Model(
            "i4",
            "i4 eDrive40",
            "4",
            "BEV",
            battery_kwh=81.0,
            electric_kwh_per_100km=18.0,
            charge_kw=11.0,
            target_percent=80,
        ),
        Model(
            "x3",
            "X3 30e xDrive",
            "X3",
            "PHEV",
            tank_l=50.0,
            fuel_l_per_100km=7.5,
            battery_kwh=19.7,
            electric_kwh_per_100km=25.0,
            charge_kw=3.7,
            target_percent=100,
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Phase:
    """The car does ``kind`` from ``start_s`` until before ``end_s`` of each period; a drive covers ``km``."""

    kind: Kind
    start_s: float
    end_s: float
    km: float = 0.0


@dataclass(frozen=True, slots=True)
class Script:
    """Phases, over a period that repeats. Raises ValueError where they leave it or contradict each other."""

    period_s: float
    phases: tuple[Phase, ...]

    def __post_init__(self) -> None:
        if not self.period_s > 0:
            raise ValueError("a period is longer than 0 s")
        for phase in self.phases:
            if not 0 <= phase.start_s < phase.end_s <= self.period_s:
                raise ValueError(f"a {phase.kind} begins, ends and lies within the period")
            if phase.km < 0 or (phase.km and phase.kind is not Kind.DRIVE):
                raise ValueError("only a drive covers km, and none are negative")
        for kinds in ({Kind.DRIVE, Kind.CHARGE, Kind.SLEEP}, {Kind.CLIMATE}, {Kind.UNLOCKED}):
            spans = sorted((phase.start_s, phase.end_s) for phase in self.phases if phase.kind in kinds)
            if any(later[0] < earlier[1] for earlier, later in itertools.pairwise(spans)):
                raise ValueError(f"phases of {', '.join(sorted(kinds))} overlap")


def _hours(hours: float) -> float:
    return hours * 3600


def _workday(day: int) -> Iterator[Phase]:
    start = day * DAY_S
    for kind, from_h, to_h, km in (
        (Kind.SLEEP, 5.0, 6.5, 0.0),
        (Kind.CLIMATE, 6.5, 6.75, 0.0),
        (Kind.UNLOCKED, 6.75, 7.0, 0.0),
        (Kind.DRIVE, 7.0, 7.5, 20.0),
        (Kind.UNLOCKED, 7.5, 7.55, 0.0),
        (Kind.SLEEP, 8.0, 17.0, 0.0),
        (Kind.DRIVE, 17.0, 17.75, 20.0),
        (Kind.UNLOCKED, 17.75, 17.8, 0.0),
        (Kind.SLEEP, 18.25, 22.0, 0.0),
    ):
        yield Phase(kind, start + _hours(from_h), start + _hours(to_h), km)


def _weekend() -> Iterator[Phase]:
    saturday, sunday = 5 * DAY_S, 6 * DAY_S
    yield Phase(Kind.SLEEP, saturday + _hours(5), saturday + _hours(10))
    yield Phase(Kind.DRIVE, saturday + _hours(10), saturday + _hours(11), 60.0)
    yield Phase(Kind.DRIVE, saturday + _hours(15), saturday + _hours(16), 60.0)
    yield Phase(Kind.SLEEP, saturday + _hours(16.5), saturday + _hours(22))
    yield Phase(Kind.SLEEP, sunday + _hours(5), sunday + _hours(22))


@functools.cache
def default_script(*, plugs_in: bool) -> Script:
    """A week of work: drives at 7:00 and 17:00 UTC, a trip on Saturday; plugged in from 22:00 to 5:00."""
    phases = [phase for day in range(5) for phase in _workday(day)] + list(_weekend())
    night = Kind.CHARGE if plugs_in else Kind.SLEEP
    nights = [(0.0, 5.0), *((day * 24 + 22.0, day * 24 + 29.0) for day in range(6)), (6 * 24 + 22.0, 7 * 24.0)]
    phases += [Phase(night, _hours(from_h), _hours(to_h)) for from_h, to_h in nights]
    return Script(WEEK_S, tuple(phases))
