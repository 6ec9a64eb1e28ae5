"""Exact rate limits: never more than the amount in *any* stretch of a window's length.

A moving window remembers the time of each hit. It is for what is rare and must not happen twice as often around a
boundary: logins and forced reads. On a shared server a hit is one round trip, or two
with several windows, and a refusal one more; what this instance let in is
remembered here as well, so that it still counts when the server goes.
"""

import bisect
import threading
from collections import OrderedDict
from typing import Protocol

from common.clock import Clock
from common.loops import needs_loop
from common.ratelimit import MAX_KEYS, Decision, Limit, Standing, Window


class SharedHits(Protocol):
    """Moving windows that several instances share."""

    def usable(self) -> bool:
        """Whether it is worth asking: not for a while after it could not be reached."""
        ...

    async def hit(self, limit: Limit, key: str) -> Decision | None:
        """Count one where all windows have room; None where the server cannot be reached. On the worker's loop only.

        What was let in may be told without how the windows stand.
        """
        ...


class MovingLimiter:
    """Limits by key. Thread-safe; from memory where no server is shared."""

    def __init__(self, clock: Clock, shared: SharedHits | None = None, *, max_keys: int = MAX_KEYS) -> None:
        self._clock = clock
        self._shared = shared
        self._max_keys = max_keys
        self._hits: OrderedDict[tuple[str, str], list[float]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._hits)

    async def take(self, limit: Limit, key: str) -> Decision:
        """Count one, if every window of ``limit`` has room for it."""
        if self._shared is not None and self._shared.usable():
            await needs_loop()
            decision = await self._shared.hit(limit, key)
            if decision is not None:
                if decision.allowed:
                    self._remember(limit, key)
                return decision
        return self._take(limit, key)

    def _take(self, limit: Limit, key: str) -> Decision:
        now = self._clock.monotonic()
        with self._lock:
            hits = self._hits.get((limit.name, key), [])
            decision = decide(limit, hits, now)
            if decision.allowed:
                self._add(limit, key, hits, now)
        return decision

    def _remember(self, limit: Limit, key: str) -> None:
        with self._lock:
            self._add(limit, key, self._hits.get((limit.name, key), []), self._clock.monotonic())

    def _add(self, limit: Limit, key: str, hits: list[float], now: float) -> None:
        most = max(window.amount for window in limit.windows)
        self._hits[limit.name, key] = [*hits, now][-most:]
        self._hits.move_to_end((limit.name, key))
        while len(self._hits) > self._max_keys:
            self._hits.popitem(last=False)


def decide(limit: Limit, hits: list[float], now: float) -> Decision:
    """Whether one more fits after ``hits`` (monotonic seconds, ascending), and how the windows stand after it."""
    full = [(_wait_s(window, hits, now), window) for window in limit.windows if _room(window, hits, now) < 1]
    if full:
        wait_s, window = max(full, key=lambda pair: pair[0])
        return Decision(False, _standings(limit, hits, now), window, wait_s)
    return Decision(True, _standings(limit, [*hits, now], now))


def _standings(limit: Limit, hits: list[float], now: float) -> tuple[Standing, ...]:
    return tuple(
        Standing(window, max(0, _room(window, hits, now)), _wait_s(window, hits, now)) for window in limit.windows
    )


def _room(window: Window, hits: list[float], now: float) -> int:
    return window.amount - (len(hits) - _first(window, hits, now))


def _wait_s(window: Window, hits: list[float], now: float) -> float:
    """Until the oldest hit leaves the window; a window of nothing has nothing to wait for but its length."""
    first = _first(window, hits, now)
    return hits[first] + window.length_s - now if first < len(hits) else float(window.length_s)


def _first(window: Window, hits: list[float], now: float) -> int:
    return bisect.bisect_right(hits, now - window.length_s)
