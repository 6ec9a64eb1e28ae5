"""A snapshot under construction: takes readings, and notes when each was measured or why it is missing."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, TypeVar

from functions.providers.cardata.signals import Signal, Signals
from functions.providers.cardata.values import Nothing, Reading, word

T = TypeVar("T")

NOT_IN_CARDATA: Final = "BMW CarData does not report it"
_SHOWN_CHARS: Final = 64


class Sheet:
    """All paths are the snapshot's own dotted ones."""

    def __init__(self, signals: Signals) -> None:
        self.signals = signals
        self.measured: dict[str, datetime] = {}
        self.unavailable: dict[str, str] = {}
        self.unknown: dict[str, str] = {}

    def get(self, descriptor: str) -> Signal | None:
        """The latest signal of a descriptor."""
        return self.signals.get(descriptor)

    def put(self, path: str, reading: Reading[T]) -> T | None:
        """The value, noted under ``path``."""
        signal = reading.signal
        if reading.nothing is not None:
            self.missing(path, reading.nothing.value)
            if reading.nothing is Nothing.MALFORMED and signal is not None:
                self.strange(path, signal.value)
        elif signal is not None and signal.measured_at is not None:
            self.measured[path] = signal.measured_at
            if signal.is_from_the_future:
                # The car's clock runs ahead: the time is shown as it came, and marked.
                self.strange(f"measured.{path}", signal.measured_at.isoformat())
        return reading.value

    def newest(self, descriptors: tuple[str, ...], read: Callable[[Signal | None], Reading[T]]) -> Reading[T]:
        """Of several descriptors that say the same, the reading that was measured last and has a value."""
        readings = [read(self.get(descriptor)) for descriptor in descriptors]
        valued = [reading for reading in readings if reading.nothing is None]
        if valued:
            return max(valued, key=_age_order)
        # "Does not know" says more than "did not say".
        return next((reading for reading in readings if reading.nothing is not Nothing.ABSENT), readings[0])

    def lid(self, descriptor: str, path: str, words: frozenset[str]) -> str | None:
        """How something that opens stands; ``None`` only where the car has no such thing.

        One that is there and cannot be read must not pass for one that is not there: it is ``INVALID`` or ``UNKNOWN``.
        """
        signal = self.get(descriptor)
        if signal is not None and isinstance(signal.value, bool | str) and str(signal.value).lower() in _SPELT:
            state = _SPELT[str(signal.value).lower()]
            return self.put(path, Reading(state, None, signal))
        reading = word(signal)
        state = self.put(path, reading) or _UNREADABLE[reading.nothing or Nothing.ABSENT] or ""
        if reading.value is not None and reading.value not in words:
            self.strange(path, reading.value)
        return state or None

    def missing(self, path: str, reason: str) -> None:
        """Say why a value is missing, unless something better is known already."""
        self.unavailable.setdefault(path, reason)

    def strange(self, path: str, value: Any) -> None:  # noqa: ANN401 - a JSON value
        """Note what is not understood, as the maker wrote it."""
        self.unknown[path] = (value if isinstance(value, str) else repr(value))[:_SHOWN_CHARS]


_SPELT: Final = {"true": "OPEN", "false": "CLOSED"}
_UNREADABLE: Final = {
    Nothing.ABSENT: None,
    Nothing.NULL: "UNKNOWN",
    Nothing.INVALID: "INVALID",
    Nothing.MALFORMED: "UNKNOWN",
}


def _age_order(reading: Reading[Any]) -> float:
    since = reading.signal.counts_from if reading.signal is not None else None
    return since.timestamp() if since is not None else float("-inf")
