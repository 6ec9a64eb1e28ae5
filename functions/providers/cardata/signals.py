"""What a car last said, signal by signal. REST replies and the stream feed the same state.

A signal counts from when it was *measured*: one that was measured later replaces one that was measured earlier,
whichever arrives first, so the order in which messages and replies come in does not matter.

Two traps are handled here. A car whose clock runs ahead dates a signal in the future; it is kept as it is, but counts
from its receipt, or nothing could replace it before that time has come. And latitude and longitude often come in
separate messages: a position is made only of two that were measured together, and stays until the next such pair.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, Protocol

import orjson

from functions.providers.cardata.descriptors import (
    CHARGE_ENDED,
    CHARGING_ACTIVE,
    CHARGING_STATUS,
    LATITUDE,
    LONGITUDE,
    OURS,
    POSITION,
)

Via = Literal["rest", "stream"]

PAIR_WITHIN: Final = timedelta(milliseconds=250)
"""A car may report every second, so halves a second apart belong to two places."""
MAX_DESCRIPTORS: Final = 1_000
"""There are 294; beyond this a sender is broken."""
MAX_NAME_CHARS: Final = 200
MAX_VALUE_CHARS: Final = 20_000
UNREADABLE: Final = [None]
"""Stands for a value that was sent and cannot be kept: every reader of values calls it malformed, and not absent."""
_FUTURE_MARGIN: Final = timedelta(seconds=60)
"""Clocks that differ by less are not worth a remark."""


@dataclass(frozen=True, slots=True)
class Signal:
    """One value of one descriptor. ``value`` is as BMW wrote it: text from REST, any JSON scalar from the stream.

    :data:`UNREADABLE` where that cannot be kept.
    """

    value: Any
    unit: str | None
    measured_at: datetime | None
    """When the car measured it; ``None`` where BMW does not say."""
    received_at: datetime
    via: Via

    @property
    def is_from_the_future(self) -> bool:
        """Whether it claims to have been measured after we received it."""
        return self.measured_at is not None and self.measured_at > self.received_at + _FUTURE_MARGIN

    @property
    def counts_from(self) -> datetime | None:
        """When it became true, as far as that can be: never after its receipt."""
        return None if self.measured_at is None else min(self.measured_at, self.received_at)


Signals = Mapping[str, Signal]
"""By descriptor."""


class SignalStore(Protocol):
    """Where the latest signals of each car are kept for all instances, and for the stream."""

    async def load(self, account_id: str, vin: str) -> Signals:
        """What is known of a car; empty where nothing is. Raises StoreUnavailable."""
        ...

    async def upsert(self, account_id: str, vin: str, incoming: Signals) -> Signals:
        """Merge ``incoming`` into what is known, and return all of it. Raises StoreUnavailable."""
        ...


def merge(known: Signals, incoming: Signals) -> dict[str, Signal]:
    """``known`` with every signal of ``incoming`` that is newer."""
    merged = dict(known)
    for name, signal in incoming.items():
        _upsert(merged, name, signal)
    before, now = known.get(CHARGING_STATUS), merged.get(CHARGING_STATUS)
    if before is not None and now is not None and before.value == CHARGING_ACTIVE != now.value:
        _upsert(merged, CHARGE_ENDED, replace(now, value=None, unit=None))
    position = _position(merged.get(LATITUDE), merged.get(LONGITUDE))
    if position is not None:
        _upsert(merged, POSITION, position)
    return merged


def mark(at: datetime) -> Signal:
    """A note of ours that something happened at ``at``."""
    return Signal(None, None, at, at, "rest")


def _upsert(merged: dict[str, Signal], name: str, signal: Signal) -> None:
    held = merged.get(name)
    if held is None or _rank(signal) > _rank(held):
        merged[name] = signal


def _rank(signal: Signal) -> tuple[float, float, bool, float, bytes, float]:
    """Later measured; then the better pair; then the stream, which says it in native types; then what came in last.

    The rest makes every order end the same.
    """
    told = orjson.dumps([signal.unit, signal.value])
    return (
        _seconds(signal.counts_from),
        -_apart_s(signal.value),
        signal.via == "stream",
        _seconds(signal.received_at),
        told,
        _seconds(signal.measured_at),
    )


def _seconds(moment: datetime | None) -> float:
    return -math.inf if moment is None else moment.timestamp()


def _position(latitude: Signal | None, longitude: Signal | None) -> Signal | None:
    if latitude is None or longitude is None or latitude.value is None or longitude.value is None:
        return None
    if latitude.measured_at is None or longitude.measured_at is None:
        return None
    apart = abs(latitude.measured_at - longitude.measured_at)
    if apart > PAIR_WITHIN:
        return None
    earlier = min(latitude, longitude, key=lambda half: half.measured_at or half.received_at)
    pair = [latitude.value, longitude.value]
    return replace(earlier, value=[*pair, apart.total_seconds()] if apart else pair, unit=None)


def _apart_s(value: object) -> float:
    """Of a position: how long after one half the other was measured, its third element unless it is 0."""
    return value[2] if isinstance(value, list) and len(value) > 2 else 0.0


def received(data: object, *, at: datetime, via: Via) -> dict[str, Signal]:
    """Signals from BMW's ``{"<descriptor>": {"timestamp", "unit", "value"}}``, leaving out what is none."""
    if not isinstance(data, Mapping):
        return {}
    signals: dict[str, Signal] = {}
    for name, entry in data.items():
        if len(signals) == MAX_DESCRIPTORS:
            break
        if isinstance(entry, Mapping) and _is_name(name):
            unit = entry.get("unit")
            signals[name] = Signal(
                value=_kept(entry.get("value")),
                unit=unit if isinstance(unit, str) and 0 < len(unit) <= 32 and _is_utf8(unit) else None,
                measured_at=moment_of(entry.get("timestamp")),
                received_at=at,
                via=via,
            )
    return signals


def moment_of(text: object) -> datetime | None:
    """An ISO 8601 time, UTC unless it says otherwise; ``None`` for anything else."""
    if not isinstance(text, str) or len(text) > 64:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def to_body(signals: Signals) -> dict[str, Any]:
    """Signals as a JSON object; :func:`from_body` reads it."""
    return {
        name: [
            signal.value,
            signal.unit,
            signal.measured_at.isoformat() if signal.measured_at else None,
            signal.received_at.isoformat(),
            signal.via,
        ]
        for name, signal in signals.items()
    }


def from_body(body: Mapping[str, Any]) -> dict[str, Signal]:
    """What :func:`to_body` wrote."""
    return {
        name: Signal(
            value=value,
            unit=unit,
            measured_at=datetime.fromisoformat(measured) if measured else None,
            received_at=datetime.fromisoformat(arrived),
            via=via,
        )
        for name, (value, unit, measured, arrived, via) in body.items()
    }


def _is_name(name: object) -> bool:
    return isinstance(name, str) and 0 < len(name) <= MAX_NAME_CHARS and not name.startswith(OURS) and _is_utf8(name)


def _kept(value: Any) -> Any:  # noqa: ANN401 - any JSON value, to a JSON scalar
    """The value; lists and objects as JSON in a text, as BMW words them elsewhere."""
    if isinstance(value, list | dict):
        try:
            value = orjson.dumps(value).decode()
        except orjson.JSONEncodeError:
            return UNREADABLE
    return value if _is_sane(value) else UNREADABLE


def _is_sane(value: object) -> bool:
    """Whether it is a JSON scalar that can be written as JSON again, and not too much of it."""
    if isinstance(value, str):
        return len(value) <= MAX_VALUE_CHARS and _is_utf8(value)
    if isinstance(value, int):
        return -(2**53) <= value <= 2**53
    return value is None or (isinstance(value, float) and math.isfinite(value))


def _is_utf8(text: str) -> bool:
    """Whether a text holds no half of a surrogate pair."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
