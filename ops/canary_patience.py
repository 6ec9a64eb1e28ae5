"""Waiting that somebody can end."""

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

from common.clock import SystemClock

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """Somebody wants it to end."""


class Patience:
    """Waits; while it is entered, a signal ends the wait and nothing else.

    So a change of traffic that has begun is never cut in two, and a second Ctrl-C does not stop the way back.
    """

    def __init__(self, meanwhile: Callable[[], None] = lambda: None, times_per_s: float = 0) -> None:
        """``meanwhile`` is called so often during each wait."""
        self._meanwhile = meanwhile
        self._every_s = 1 / times_per_s if times_per_s else None
        self._over = threading.Event()
        self._clock = SystemClock()

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._interrupt) for number in _SIGNALS}
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def pause(self, seconds: float) -> None:
        """Wait. Raises Interrupted, at once where a signal came before."""
        until_s = self._clock.monotonic() + seconds
        while not self._over.is_set() and (left_s := until_s - self._clock.monotonic()) > 0:
            if self._every_s is not None:
                self._meanwhile()
            self._over.wait(min(left_s, self._every_s or left_s))
        if self._over.is_set():
            raise Interrupted

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        self._over.set()
