"""Leaving something alone for a moment after it failed, so that its failing costs nobody time."""

from common.clock import Clock
from common.stores.shared import SharedUnavailable


class HoldOff:
    """After a failure every attempt is refused for ``seconds``; then one may try while the others are refused still.

    :meth:`check` may be called on any thread, the rest on one.
    """

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._until = 0.0
        self.failing = False

    def check(self) -> None:
        """Raise SharedUnavailable where an attempt would be refused."""
        if self.failing and self._clock.monotonic() < self._until:
            raise SharedUnavailable("left alone after a failure")

    def attempt(self) -> None:
        """The same, at the beginning of an attempt."""
        self.check()
        if self.failing:
            self._until = self._clock.monotonic() + self._seconds

    def failed(self) -> None:
        """An attempt failed."""
        self._until = self._clock.monotonic() + self._seconds
        self.failing = True

    def succeeded(self) -> None:
        """An attempt succeeded."""
        self.failing = False
