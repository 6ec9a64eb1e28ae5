"""What a car streams over a span of time: a pure function of the car and the span."""

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import orjson

from sandbox.cardata_catalogue import DESCRIPTORS, LATITUDE, LONGITUDE
from sandbox.cardata_customers import Car
from sandbox.cardata_descriptors import Reading
from sandbox.cardata_time import iso_ms

_NAMESPACE: Final = uuid.UUID("6a1b0b53-0a1f-4f0e-8a43-7a2f4f2c9d11")
_ON_THE_WAY_S: Final = 0.25
"""Between two messages of one report, and before the first."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the stream."""

    vin: str
    sent_s: float
    payload: bytes


def messages(
    car: Car, streamed: Iterable[str], after_s: float, until_s: float, *, split_position: bool
) -> Iterator[Message]:
    """What the car sends after ``after_s`` and until ``until_s``, in order.

    Of each report the values that have changed since the last; all of them where the car begins or ends something.
    """
    keys = [key for key in DESCRIPTORS if key in frozenset(streamed)]
    said, doing = _readings(car, keys, after_s), car.timeline.at(after_s).doing
    for report_s in car.reports(after_s, until_s):
        before, said = said, _readings(car, keys, report_s)
        began, doing = doing != car.timeline.at(report_s).doing, car.timeline.at(report_s).doing
        changed = {key: new for key, new in said.items() if _differs(before.get(key), new, in_time=began)}
        for number, data in enumerate(_split(changed) if split_position else [changed], start=1):
            if data:
                yield _message(car.vin, report_s + number * _ON_THE_WAY_S, data)


def _readings(car: Car, keys: list[str], at_s: float) -> dict[str, Reading]:
    said = ((key, car.said(DESCRIPTORS[key], at_s)) for key in keys)
    return {key: reading for key, reading in said if reading is not None}


def _differs(old: Reading | None, new: Reading, *, in_time: bool) -> bool:
    return old is None or old.value != new.value or (in_time and old.timestamp != new.timestamp)


def _split(changed: dict[str, Reading]) -> list[dict[str, Reading]]:
    """Latitude and longitude apart, with something else in between."""
    apart = [{key: changed[key]} if key in changed else {} for key in (LATITUDE, LONGITUDE)]
    rest = {key: reading for key, reading in changed.items() if key not in (LATITUDE, LONGITUDE)}
    return [apart[0], rest, apart[1]]


def _message(vin: str, sent_s: float, data: dict[str, Reading]) -> Message:
    document: dict[str, Any] = {
        "vin": vin,
        "entityId": str(uuid.uuid5(_NAMESPACE, vin)),
        "topic": vin,
        "timestamp": iso_ms(sent_s),
        "data": {key: reading.streamed() for key, reading in data.items()},
    }
    return Message(vin, sent_s, orjson.dumps(document))
