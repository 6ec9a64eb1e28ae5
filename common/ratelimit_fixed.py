"""Quotas: so much in each minute or hour, spent from slices held in memory.

Fixed windows, aligned to the wall clock: they say to the second when there is more, which the reply's headers promise,
and need one counter a window. Their weakness, twice the amount around a boundary, harms no quota; where it would,
there is :mod:`common.ratelimit_moving`.

A slice is a twentieth of a window's amount. With a server that instances share (:mod:`common.ratelimit_redis`) new
slices for all windows are one round trip, and the server gives what is left and no more, so that all instances together
never let in more than the amount; an instance may hold back up to one slice that it does not need. Without one, and
while it is out of reach, slices are this process's own.
"""

import asyncio
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from common.clock import Clock
from common.loops import needs_loop
from common.ratelimit import MAX_KEYS, Decision, Limit, Standing, Window

_SLICES = 20


class Wanted(NamedTuple):
    """A slice to be had of a counter."""

    key: str
    amount: int
    expiry_s: int
    """When the counter ends that this begins."""


class SharedCounts(Protocol):
    """Counters that several instances share."""

    def usable(self) -> bool:
        """Whether it is worth asking: not for a while after it could not be reached."""
        ...

    async def add(self, wanted: Sequence[Wanted]) -> Sequence[int] | None:
        """The counts after adding, in one round trip; None where the server cannot be reached.

        On the worker's loop only.
        """
        ...


class FixedLimiter:
    """Limits by key. Thread-safe; from memory, except for a new slice of what instances share."""

    def __init__(self, clock: Clock, shared: SharedCounts | None = None, *, max_keys: int = MAX_KEYS) -> None:
        self._clock = clock
        self._shared = shared or _Nobody()
        self._max_keys = max_keys
        self._meters: OrderedDict[tuple[str, str], _Meter] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._meters)

    async def take(self, limit: Limit, key: str) -> Decision:
        """Count one, if every window of ``limit`` has room for it."""
        while True:
            decision = self._spend(limit, key)
            if isinstance(decision, Decision):
                return decision
            await needs_loop()
            await self._lease(limit, key, decision)

    def _spend(self, limit: Limit, key: str) -> "Decision | _Meter":
        """From what is held, in all windows or in none; the meter itself where the server has to be asked first."""
        now = self._clock.monotonic()
        with self._lock:
            meter = self._meter(limit, key, now)
            wanting, empty, until = False, None, 0.0
            for window, part in zip(limit.windows, meter.parts, strict=True):
                if part.left == 0 or now >= part.until:
                    if self._must_ask(window, part, now):
                        wanting = True
                    elif part.left == 0 and part.until > until:
                        empty, until = window, part.until
            if empty is None:
                if wanting:
                    return meter
                for part in meter.parts:
                    part.left -= 1
                    part.used += 1
            standings = tuple(
                [
                    Standing(window, part.left + part.others, part.until - now)
                    for window, part in zip(limit.windows, meter.parts, strict=True)
                ]
            )
        return Decision(True, standings) if empty is None else Decision(False, standings, empty, until - now)

    def _must_ask(self, window: Window, part: "_Part", now: float) -> bool:
        """Open the present window, and cut a slice of our own where there is no server to ask for one."""
        if now >= part.until:
            wall_s = self._clock.utc().timestamp()
            index = int(wall_s // window.length_s)
            part.open(index, now + (index + 1) * window.length_s - wall_s, window)
        if part.dry:
            return False
        if self._shared.usable():
            return True
        part.grant(window.amount - part.used, window)
        return False

    async def _lease(self, limit: Limit, key: str, meter: "_Meter") -> None:
        """New slices for the windows whose slice is spent; one request a key asks for all that wait for it."""
        digest = hashlib.sha256(key.encode()).hexdigest()
        async with meter.leasing:
            with self._lock:
                spent = [
                    (window, part, part.index)
                    for window, part in zip(limit.windows, meter.parts, strict=True)
                    if not part.left and not part.dry
                ]
            if not spent:
                return
            counts = await self._shared.add(
                [
                    # Twice the length: an instance whose clock is ahead must not end the counter early.
                    Wanted(f"{window.name}/{digest}/{index}", _slice(window), 2 * window.length_s)
                    for window, _, index in spent
                ]
            )
            with self._lock:
                for (window, part, index), count in zip(spent, counts or (), strict=counts is not None):
                    if part.index == index:
                        part.grant(window.amount - (count - _slice(window)), window)
                        part.dry = part.left == 0

    def _meter(self, limit: Limit, key: str, now: float) -> "_Meter":
        known = (limit.name, key)
        meter = self._meters.get(known)
        if meter is not None:
            self._meters.move_to_end(known)
            return meter
        # Two looks for each that comes: what has ended goes faster than new keys come.
        for _ in range(2):
            if self._meters and (len(self._meters) >= self._max_keys or next(iter(self._meters.values())).ended(now)):
                self._meters.popitem(last=False)
        meter = self._meters[known] = _Meter(len(limit.windows))
        return meter


class _Nobody:
    """What an instance shares counters with where no server is set."""

    def usable(self) -> bool:
        return False

    async def add(self, wanted: Sequence[Wanted]) -> Sequence[int] | None:
        raise NotImplementedError


class _Part:
    """One key's share of the present window, on this instance."""

    __slots__ = ("dry", "index", "left", "others", "until", "used")

    def __init__(self) -> None:
        self.index = -1
        self.until = float("-inf")
        """Monotonic seconds."""
        self.left = 0
        """Of the slice in hand."""
        self.used = 0
        self.others = 0
        """What was left for anybody when the slice was cut."""
        self.dry = False
        """The server has nothing more in this window."""

    def open(self, index: int, until: float, window: Window) -> None:
        """Begin with nothing in hand and everything to be had."""
        self.index, self.until = index, until
        self.left = self.used = 0
        self.others = window.amount
        self.dry = False

    def grant(self, available: int, window: Window) -> None:
        """A slice of what is available."""
        self.left = max(0, min(_slice(window), available))
        self.others = max(0, available - self.left)


class _Meter:
    """One key's parts of all windows of one limit."""

    __slots__ = ("leasing", "parts")

    def __init__(self, windows: int) -> None:
        self.parts = tuple(_Part() for _ in range(windows))
        self.leasing = asyncio.Lock()

    def ended(self, now: float) -> bool:
        """Whether nothing here says anything about the present."""
        return all(now >= part.until for part in self.parts)


def _slice(window: Window) -> int:
    return max(1, window.amount // _SLICES)
