"""The simulator's time: a real clock that a test can push forward."""

from datetime import datetime, timedelta

from common.clock import Clock


class ShiftedClock:
    """``base``, so many seconds ahead. Satisfies :class:`common.clock.Clock`."""

    def __init__(self, base: Clock) -> None:
        self._base = base
        self.ahead_s = 0.0

    def advance(self, seconds: float) -> None:
        """Let ``seconds``, at least 0, pass at once."""
        self.ahead_s += seconds

    def monotonic(self) -> float:
        """Seconds since an arbitrary origin."""
        return self._base.monotonic() + self.ahead_s

    def utc(self) -> datetime:
        """The wall clock, UTC."""
        return self._base.utc() + timedelta(seconds=self.ahead_s)


def iso_milliseconds(moment: datetime) -> str:
    """A UTC time as the service writes it: ``2023-01-04T14:57:06.371Z``."""
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"
