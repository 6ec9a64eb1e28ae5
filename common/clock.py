"""Time as a collaborator: nothing else in the package asks the machine what time it is.

Two clocks, because they answer two questions. ``monotonic`` measures how long something took and never goes
back; ``utc`` says when it happened and may be stepped by an operator or by NTP. Decisions (timeouts, expiry,
breaker) use the first; only what leaves the process (timestamps, records) uses the second.
"""

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """What the package knows of time."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary origin; never goes back."""
        ...

    def utc(self) -> datetime:
        """The wall clock, timezone-aware, UTC."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary origin; never goes back."""
        return time.monotonic()

    def utc(self) -> datetime:
        """The wall clock, timezone-aware, UTC."""
        return datetime.now(UTC)


@dataclass
class ManualClock:
    """A clock that moves only when told: for tests and for simulations.

    The two hands move together with :meth:`advance` and apart with :meth:`step_wall`, as they do on a machine
    whose wall clock is corrected.
    """

    seconds: float = 1_000.0
    wall: datetime = field(default_factory=lambda: datetime(2026, 1, 1, 12, 0, tzinfo=UTC))

    def monotonic(self) -> float:
        """Seconds since an arbitrary origin."""
        return self.seconds

    def utc(self) -> datetime:
        """The simulated wall clock."""
        return self.wall

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass on both hands."""
        self.seconds += seconds
        self.wall += timedelta(seconds=seconds)

    def step_wall(self, seconds: float) -> None:
        """Correct the wall clock by ``seconds`` without any time passing."""
        self.wall += timedelta(seconds=seconds)
