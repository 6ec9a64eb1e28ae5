"""At most one load a key at a time, shared by everybody whom its result can serve.

A load runs as a task of its own, so that no waiter's cancellation or timeout ends it for the others; when the last
waiter has gone, it is cancelled. Whoever needs data read after his own call cannot share a load that has begun
already: he waits for *the next one*, of which there is at most one a key, and which begins when the present one ends.
"""

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from common.clock import Clock
from common.errors import InternalError
from common.failure_memory import fresh_copy

R = TypeVar("R")


@dataclass(slots=True, eq=False)
class Flight(Generic[R]):
    """One load, running or waiting for its turn."""

    work: "Callable[[Flight[R]], Coroutine[Any, Any, R]]"
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    landed: asyncio.Event = field(default_factory=asyncio.Event)
    waiters: int = 0
    started_at: float | None = None
    """Monotonic seconds; None until its first step, when nothing can have been read yet."""
    outdated: bool = False
    """What it reads may be older than a change known by now: for those who wait already, not for storing."""
    results: list[R] = field(default_factory=list)
    """Empty, or the one result."""
    error: Exception | None = None
    task: asyncio.Task[None] | None = None
    following: "Flight[R] | None" = None

    def serves(self, now: float, max_age_s: float | None) -> bool:
        """Whether its result will do for a call made ``now`` that accepts data up to ``max_age_s`` old."""
        if self.outdated:
            return False
        return self.started_at is None or max_age_s is None or now - self.started_at < max_age_s


class SingleFlight(Generic[R]):
    """The loads in progress, by key.

    :meth:`outdate` and :meth:`outdate_where` may be called on any thread, everything else only on the one event loop
    on which the loads run. ``lock`` is shared with whoever stores the results, so that joining, starting and
    outdating happen at one moment with looking up, storing and invalidating; it is never held across a wait.
    """

    def __init__(self, lock: "threading.RLock", clock: Clock) -> None:
        self._lock = lock
        self._clock = clock
        self._flights: dict[Hashable, Flight[R]] = {}

    def board(
        self, key: Hashable, work: Callable[[Flight[R]], Coroutine[Any, Any, R]], max_age_s: float | None
    ) -> Flight[R]:
        """A place on a load of ``key`` that serves ``max_age_s``, begun if need be; go on to :meth:`outcome`."""
        with self._lock:
            flight = self._flights.get(key)
            if flight is None:
                flight = Flight(work)
                self._start(key, flight)
            elif not flight.serves(self._clock.monotonic(), max_age_s):
                flight.following = flight.following or Flight(work)
                flight = flight.following
            flight.waiters += 1
            return flight

    async def outcome(self, key: Hashable, flight: Flight[R]) -> R:
        """Wait for the load's result. Raises a copy of what the load raised."""
        try:
            await flight.landed.wait()
        finally:
            self._leave(key, flight)
        if flight.error is not None:
            raise fresh_copy(flight.error) from flight.error
        return flight.results[0]

    def outdate(self, key: Hashable) -> None:
        """Something changed: a load of ``key`` that has begun serves only those who wait for it already."""
        with self._lock:
            flight = self._flights.get(key)
            if flight is not None and flight.started_at is not None:
                flight.outdated = True

    def outdate_where(self, matches: Callable[[Hashable], bool]) -> None:
        """The same for every key that ``matches``."""
        with self._lock:
            for key in self._flights:
                if matches(key):
                    self.outdate(key)

    def _start(self, key: Hashable, flight: Flight[R]) -> None:
        self._flights[key] = flight
        loop = asyncio.get_running_loop()
        flight.task = loop.create_task(self._run(flight), context=flight.context)
        # Not a `finally` in the coroutine: a task cancelled before its first step never enters it.
        flight.task.add_done_callback(lambda _: self._land(flight))

    async def _run(self, flight: Flight[R]) -> None:
        with self._lock:
            flight.started_at = self._clock.monotonic()
        try:
            flight.results.append(await flight.work(flight))
        except Exception as exc:  # noqa: BLE001 -- whatever it is, it belongs to the waiters
            flight.error = exc

    def _land(self, flight: Flight[R]) -> None:
        if not flight.results and flight.error is None:
            flight.error = InternalError("The load was cancelled.")
        flight.landed.set()

    def _leave(self, key: Hashable, flight: Flight[R]) -> None:
        """The last to leave makes room, whether the flight has landed or is given up."""
        with self._lock:
            flight.waiters -= 1
            if flight.waiters > 0:
                return
            if flight.task is None:
                self._flights[key].following = None
                return
            flight.task.cancel()
            if flight.following is None:
                del self._flights[key]
            else:
                self._start(key, flight.following)
