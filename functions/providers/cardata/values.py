"""Reading one signal's value: what it says, or in which of four ways it says nothing.

BMW tells four kinds of nothing apart and so do we: a descriptor that is *absent*, one that is present with *null*,
one whose value is a word for not knowing (``INVALID``, ``-NA-`` ...), and one that cannot be understood. None of them
is ever turned into ``False`` or 0.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final, Generic, TypeVar

import orjson

from functions.providers.cardata.signals import Signal, moment_of

T = TypeVar("T")


class Nothing(Enum):
    """Why there is no value; the text is for the caller."""

    ABSENT = "the car did not report it"
    NULL = "the car reported it without a value"
    INVALID = "the car reported that it does not know"
    MALFORMED = "the maker sent something that cannot be understood"


@dataclass(frozen=True, slots=True)
class Reading(Generic[T]):
    """A value, or why there is none, and the signal that said so."""

    value: T | None
    nothing: Nothing | None
    signal: Signal | None


_UNKNOWING: Final = frozenset({"", "-", "-NA-", "NA", "N/A", "NULL", "NONE", "INVALID", "UNKNOWN", "ASN_ISUNKNOWN"})
_TRUE: Final = frozenset({"TRUE", "ASN_ISTRUE", "OPEN", "CONNECTED"})
_FALSE: Final = frozenset({"FALSE", "ASN_ISFALSE", "CLOSED", "DISCONNECTED"})
_UNITS: Final[Mapping[str, Mapping[str, float]]] = {
    "km": {"km": 1, "m": 0.001, "mi": 1.609344, "miles": 1.609344},
    "l": {"l": 1, "liter": 1, "litre": 1, "liters": 1, "litres": 1, "ml": 0.001},
    "kpa": {"kpa": 1, "pa": 0.001, "hpa": 0.1, "mbar": 0.1, "bar": 100, "psi": 6.894757},
    "%": {"%": 1, "percent": 1, "percentage": 1},
    "min": {"min": 1, "minute": 1, "minutes": 1, "s": 1 / 60, "sec": 1 / 60, "h": 60},
    "a": {"a": 1, "ampere": 1, "amperes": 1, "ma": 0.001},
    "degrees": {"degrees": 1, "degree": 1, "deg": 1, "°": 1},
}
"""By the unit that we want, in lower case: BMW's units and what to multiply them by."""
_GERMAN: Final = re.compile(r"(\d{2})\.(\d{2})\.(\d{4})(?: (\d{2}):(\d{2}):(\d{2}))?(?: UTC)?", re.ASCII)
_NUMBER: Final = re.compile(r"[+-]?\d{1,15}(?:\.\d{1,15})?(?:[eE][+-]?\d{1,2})?", re.ASCII)
_MAX_WORD_CHARS: Final = 64


def number(signal: Signal | None, unit: str, least: float, most: float) -> Reading[float]:
    """A number in ``unit`` from ``least`` to ``most``. A signal without a unit is in the wanted one."""
    raw, nothing = _raw(signal)
    if signal is None or nothing is not None:
        return Reading(None, nothing, signal)
    value = _number(raw)
    factor = 1.0 if signal.unit is None or unit == "" else _UNITS[unit].get(signal.unit.strip().lower())
    if value is None or factor is None or not least <= value * factor <= most:
        return Reading(None, Nothing.MALFORMED, signal)
    return Reading(value * factor, None, signal)


def whole(signal: Signal | None, unit: str, least: int, most: int) -> Reading[int]:
    """The same, rounded."""
    read = number(signal, unit, least, most)
    return Reading(None if read.value is None else round(read.value), read.nothing, signal)


def flag(signal: Signal | None) -> Reading[bool]:
    """A boolean in any of BMW's spellings; ``OPEN`` and ``CONNECTED`` are true."""
    raw, nothing = _raw(signal)
    if nothing is not None or isinstance(raw, bool):
        return Reading(raw if isinstance(raw, bool) else None, nothing, signal)
    spelt = raw.strip().upper() if isinstance(raw, str) else None
    if spelt in _TRUE or spelt in _FALSE:
        return Reading(spelt in _TRUE, None, signal)
    return Reading(None, Nothing.MALFORMED, signal)


def word(signal: Signal | None) -> Reading[str]:
    """A word of an enumeration, in upper case and with underscores."""
    raw, nothing = _raw(signal)
    if nothing is not None:
        return Reading(None, nothing, signal)
    if isinstance(raw, str) and len(raw) <= _MAX_WORD_CHARS:
        return Reading(raw.strip().upper().replace("-", "_"), None, signal)
    return Reading(None, Nothing.MALFORMED, signal)


def moment(signal: Signal | None) -> Reading[datetime]:
    """A time, as ISO 8601 or as ``17.01.2027 00:00:00 UTC``."""
    raw, nothing = _raw(signal)
    if nothing is not None:
        return Reading(None, nothing, signal)
    found = _german(raw) if isinstance(raw, str) and _GERMAN.fullmatch(raw.strip()) else moment_of(raw)
    return Reading(found, Nothing.MALFORMED if found is None else None, signal)


def objects(signal: Signal | None) -> Reading[tuple[Mapping[str, Any], ...]]:
    """A list of objects in JSON inside a text; a single object counts as a list of one."""
    raw, nothing = _raw(signal)
    if nothing is not None:
        return Reading(None, nothing, signal)
    try:
        found = orjson.loads(raw) if isinstance(raw, str) else raw
    except orjson.JSONDecodeError:
        found = None
    entries = [found] if isinstance(found, dict) else found
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        return Reading(None, Nothing.MALFORMED, signal)
    return Reading(tuple(entries), None, signal)


def position(signal: Signal | None) -> Reading[tuple[float, float]]:
    """Latitude and longitude that were measured together."""
    if signal is None:
        return Reading(None, Nothing.ABSENT, None)
    halves = [_number(half) for half in signal.value[:2]]
    nothings = [_raw_value(half) for half in signal.value[:2]]
    nothing = next((none for none in nothings if none is not None), None)
    if nothing is not None:
        return Reading(None, nothing, signal)
    latitude, longitude = halves
    if latitude is None or longitude is None or not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
        return Reading(None, Nothing.MALFORMED, signal)
    return Reading((latitude, longitude), None, signal)


def _raw(signal: Signal | None) -> tuple[Any, Nothing | None]:
    if signal is None:
        return None, Nothing.ABSENT
    return signal.value, _raw_value(signal.value)


def _raw_value(value: object) -> Nothing | None:
    if value is None:
        return Nothing.NULL
    return Nothing.INVALID if isinstance(value, str) and value.strip().upper() in _UNKNOWING else None


def _number(raw: object) -> float | None:
    if isinstance(raw, str) and _NUMBER.fullmatch(raw.strip()):
        raw = float(raw)
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        return None
    return float(raw) if math.isfinite(raw) else None


def _german(text: str) -> datetime | None:
    found = _GERMAN.fullmatch(text.strip())
    if found is None:
        return None
    day, month, year, hour, minute, second = (int(part or 0) for part in found.groups())
    try:
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None
