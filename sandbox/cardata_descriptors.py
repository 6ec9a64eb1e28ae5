"""What a car has said of a descriptor by some time, as the REST API and as the stream word it."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from sandbox.cardata_cars import Moment, Timeline
from sandbox.cardata_time import iso_s

Value = str | float | bool | None
"""int counts as float."""


class Missing(Enum):
    """The car does not have this key at all."""

    ABSENT = "absent"


ABSENT: Final = Missing.ABSENT


class When(Enum):
    """When a car measures something."""

    ALWAYS = "with every report"
    DRIVES = "with the reports of a drive"
    STARTS = "at the start of a drive"


@dataclass(frozen=True, slots=True)
class Descriptor:
    """One key of the catalogue."""

    key: str
    unit: str | None
    of: Callable[[Moment], Value | Missing]
    when: When = When.ALWAYS
    streamed: bool = True
    ahead_s: Callable[[Moment], float] = lambda _moment: 0.0
    """How far in the future its timestamp lies."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a car has last said of a descriptor."""

    value: Value
    unit: str | None
    timestamp: str | None
    """When it was measured; None with a value that never was."""

    def rest(self) -> dict[str, str | None]:
        """As the REST API words it: values are strings or null."""
        return {"timestamp": self.timestamp, "unit": self.unit, "value": _text(self.value)}

    def streamed(self) -> dict[str, object]:
        """As the stream words it: native values, and no unit where there is none."""
        unit = {} if self.unit is None else {"unit": self.unit}
        return {"timestamp": self.timestamp, "value": self.value, **unit}


def reading(timeline: Timeline, descriptor: Descriptor, at_s: float) -> Reading | None:
    """What the car has said by ``at_s``; None where it says nothing of it."""
    measured_s = measured_at_s(timeline, descriptor.when, at_s)
    if measured_s is None:
        return None
    moment = timeline.at(measured_s)
    value = descriptor.of(moment)
    if isinstance(value, Missing):
        return None
    if value is None:
        return Reading(None, None, None)
    return Reading(value, descriptor.unit, iso_s(measured_s + descriptor.ahead_s(moment)))


def measured_at_s(timeline: Timeline, when: When, at_s: float) -> float | None:
    """When what the car has said by ``at_s`` was measured; None where it never was."""
    report_s = timeline.last_report_s(at_s)
    if when is When.ALWAYS:
        return report_s
    drive = timeline.last_drive_s(at_s)
    if drive is None:
        return None
    start_s, end_s = drive
    return start_s if when is When.STARTS else min(report_s, end_s)


def _text(value: Value) -> str | None:
    match value:
        case None:
            return None
        case bool():
            return "true" if value else "false"
        case _:
            return str(value)
