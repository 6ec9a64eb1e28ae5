"""What is true of a car at any time: a pure function of time, its model and its script.

A :class:`Timeline` follows a script once, so that the state at any second, past or future, is one look-up. Nothing is
kept: ask twice, and the answer is the same.
"""

import functools
import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from sandbox.cardata_scripts import MODELS, Kind, Model, Script, default_script

_FIRST_MONDAY_S: Final = 1_704_067_200
"""2024-01-01: where the period numbered 0 begins."""
_FLOOR: Final = 0.05
"""The share of its energy that a battery keeps."""
_REFUEL_AT: Final = 0.8
"""The share of a tank that is used before it is filled again, on the way."""
_SETTLES_WITHIN: Final = 1000
DRIVING_REPORT_S: Final = 60
IDLE_REPORT_S: Final = 300
"""How often a car reports while it moves, and while it only is awake."""


@dataclass(frozen=True, slots=True)
class Moment:
    """All that is true of a car at one time."""

    model: Model
    at_s: float
    doing: frozenset[Kind]
    travelled_km: float
    fuel_l: float
    battery_kwh: float

    @property
    def moving(self) -> bool:
        """It drives."""
        return Kind.DRIVE in self.doing

    @property
    def plugged(self) -> bool:
        """It hangs on a cable, charging or full."""
        return Kind.CHARGE in self.doing

    @property
    def target_kwh(self) -> float:
        """Where charging ends."""
        return self.model.battery_kwh * self.model.target_percent / 100

    @property
    def charging(self) -> bool:
        """Its battery is filling."""
        return self.plugged and self.battery_kwh < self.target_kwh - 1e-6

    @property
    def soc_percent(self) -> float:
        """State of charge of the drive battery."""
        return 100 * self.battery_kwh / self.model.battery_kwh

    @property
    def electric_range_km(self) -> float:
        """What the battery is good for."""
        return 100 * self.battery_kwh / self.model.electric_kwh_per_100km

    @property
    def fuel_range_km(self) -> float:
        """What the tank is good for."""
        return 100 * self.fuel_l / self.model.fuel_l_per_100km

    @property
    def minutes_to_target(self) -> int:
        """How long charging takes from here."""
        return math.ceil((self.target_kwh - self.battery_kwh) / self.model.charge_kw * 60)


@dataclass(frozen=True, slots=True)
class _Point:
    """Totals since the start of the period."""

    at_s: float
    km: float
    fuel_l: float
    kwh: float


class Timeline:
    """The life of a model under a script. ``shift_s`` delays it, so that not all cars do all at once."""

    def __init__(self, model: Model, script: Script, shift_s: float = 0.0, start_km: float = 0.0) -> None:
        self.model = model
        self.script = script
        self._start_km = start_km
        self._origin_s = _FIRST_MONDAY_S + shift_s
        self._edges = sorted({0.0, *(edge for phase in script.phases for edge in (phase.start_s, phase.end_s))})
        if self._edges[-1] == script.period_s:
            del self._edges[-1]
        self._doing = [
            frozenset(phase.kind for phase in script.phases if phase.start_s <= edge < phase.end_s)
            for edge in self._edges
        ]
        self._points = _settled(model, script, self._edges, self._doing)
        self._point_times = [point.at_s for point in self._points]

    def at(self, at_s: float) -> Moment:
        """The state at ``at_s``, seconds since 1970."""
        periods, within = self._within(at_s)
        after = max(1, min(bisect_right(self._point_times, within), len(self._points) - 1))
        a, b = self._points[after - 1], self._points[after]
        share = (within - a.at_s) / (b.at_s - a.at_s)
        fuel_l = periods * self._points[-1].fuel_l + a.fuel_l + share * (b.fuel_l - a.fuel_l)
        return Moment(
            self.model,
            at_s,
            self._doing[self._segment(within)],
            self._start_km + periods * self._points[-1].km + a.km + share * (b.km - a.km),
            self.model.tank_l - fuel_l % (self.model.tank_l * _REFUEL_AT or 1.0),
            a.kwh + share * (b.kwh - a.kwh),
        )

    def last_report_s(self, at_s: float) -> float:
        """When the car last spoke, at ``at_s`` or before: on every change, then regularly until it sleeps."""
        periods, within = self._within(at_s)
        segment = self._segment(within)
        edge, cadence_s = self._edges[segment], self._cadence_s(segment)
        silent = 0.0 if cadence_s is None else (within - edge) // cadence_s * cadence_s
        return self._absolute(periods, edge + silent)

    def reports(self, after_s: float, until_s: float) -> Iterator[float]:
        """When the car speaks, after ``after_s`` and until ``until_s``, in order."""
        at_s = self.last_report_s(after_s)
        while (at_s := self._next_report_s(at_s)) <= until_s:
            if at_s > after_s:
                yield at_s

    def last_drive_s(self, at_s: float) -> tuple[float, float] | None:
        """Start and end of the latest drive that began by ``at_s``; one under way has its end in the future."""
        return next(iter(self._latest(Kind.DRIVE, at_s)), None)

    def charges(self, from_s: float, until_s: float) -> list[tuple[float, float]]:
        """Start and end of each charge that lay within the two times, newest first."""
        found = []
        for start_s, end_s in self._latest(Kind.CHARGE, until_s):
            if start_s < from_s:
                break
            if end_s <= until_s and self.at(start_s).charging:
                found.append((start_s, end_s))
        return found

    def _latest(self, kind: Kind, at_s: float) -> Iterator[tuple[float, float]]:
        phases = sorted((phase for phase in self.script.phases if phase.kind is kind), key=lambda p: -p.start_s)
        periods, _ = self._within(at_s)
        while phases:
            for phase in phases:
                if (start_s := self._absolute(periods, phase.start_s)) <= at_s:
                    yield start_s, self._absolute(periods, phase.end_s)
            periods -= 1

    def _next_report_s(self, report_s: float) -> float:
        # Half a second beyond a report lies in the segment that the report opened, whatever rounding has done.
        periods, within = self._within(report_s + 0.5)
        segment = self._segment(within)
        edge, cadence_s = self._edges[segment], self._cadence_s(segment)
        end = self._edges[segment + 1] if segment + 1 < len(self._edges) else self.script.period_s
        turn = end if cadence_s is None else edge + ((within - edge) // cadence_s + 1) * cadence_s
        return self._absolute(periods, min(turn, end))

    def _cadence_s(self, segment: int) -> int | None:
        doing = self._doing[segment]
        if Kind.SLEEP in doing:
            return None
        return DRIVING_REPORT_S if Kind.DRIVE in doing else IDLE_REPORT_S

    def _segment(self, within: float) -> int:
        return bisect_right(self._edges, within) - 1

    def _within(self, at_s: float) -> tuple[int, float]:
        periods, within = divmod(at_s - self._origin_s, self.script.period_s)
        return int(periods), within

    def _absolute(self, periods: int, within: float) -> float:
        return self._origin_s + periods * self.script.period_s + within


def _settled(model: Model, script: Script, edges: list[float], doing: list[frozenset[Kind]]) -> list[_Point]:
    """One period whose battery ends as it began, so that periods fit together."""
    kwh = model.battery_kwh * model.target_percent / 100
    for _ in range(_SETTLES_WITHIN):
        points = _follow(model, script, edges, doing, kwh)
        if abs(points[-1].kwh - kwh) < 1e-6:
            return points
        kwh = points[-1].kwh
    raise ValueError("the battery never ends a period as it began it")


def _follow(model: Model, script: Script, edges: list[float], doing: list[frozenset[Kind]], kwh: float) -> list[_Point]:
    points = [_Point(0.0, 0.0, 0.0, kwh)]
    speeds = {
        phase.start_s: phase.km / (phase.end_s - phase.start_s) for phase in script.phases if phase.kind is Kind.DRIVE
    }
    speed = 0.0
    for start_s, end_s, kinds in zip(edges, [*edges[1:], script.period_s], doing, strict=True):
        speed = speeds.get(start_s, speed) if Kind.DRIVE in kinds else 0.0
        while points[-1].at_s < end_s:
            points.append(_step(model, kinds, speed, points[-1], end_s))
    return points


def _step(model: Model, doing: frozenset[Kind], km_per_s: float, before: _Point, end_s: float) -> _Point:
    """The next point at which something changes its pace: the end of the phase, or a battery that is full or empty."""
    left_s = end_s - before.at_s
    floor_kwh, target_kwh = model.battery_kwh * _FLOOR, model.battery_kwh * model.target_percent / 100
    kwh_per_s = fuel_per_s = 0.0
    if Kind.DRIVE in doing:
        electric = before.kwh > floor_kwh + 1e-9
        kwh_per_s = -km_per_s * model.electric_kwh_per_100km / 100 if electric else 0.0
        fuel_per_s = 0.0 if electric else km_per_s * model.fuel_l_per_100km / 100
    elif Kind.CHARGE in doing and before.kwh < target_kwh - 1e-9:
        kwh_per_s = model.charge_kw / 3600
    if kwh_per_s:
        limit_kwh = target_kwh if kwh_per_s > 0 else floor_kwh
        left_s = min(left_s, (limit_kwh - before.kwh) / kwh_per_s)
    at_s = end_s if left_s == end_s - before.at_s else before.at_s + left_s
    return _Point(
        at_s, before.km + km_per_s * left_s, before.fuel_l + fuel_per_s * left_s, before.kwh + kwh_per_s * left_s
    )


@functools.lru_cache(maxsize=4096)
def default_timeline(model_key: str, shift_s: float = 0.0, start_km: float = 0.0) -> Timeline:
    """The timeline of a model under the week of work."""
    model = MODELS[model_key]
    return Timeline(model, default_script(plugs_in=model.battery_kwh > 0), shift_s, start_km)
