"""A cache in this process's memory: bounded in bytes, loaded once for everybody, honest about age.

Three ages of an entry: *fresh* for about ``ttl_s`` (jittered, so that what was loaded together does not expire
together), then *kept* for ``stale_if_error_s`` more, in which it is served only in place of a failed load and marked
stale, then gone. Nothing is ever refreshed behind a request's back: between requests the platform gives no CPU.

Values are shared between callers and threads and must not be changed.
"""

import random
import threading
from collections.abc import Awaitable, Callable, Hashable
from types import MappingProxyType
from typing import Generic, TypeVar

from common.cache_records import Aged, CacheStats, Evicted, Hit
from common.clock import Clock, SystemClock
from common.failure_memory import FailureKind, FailureMemory, by_error_tree, fresh_copy
from common.loops import needs_loop
from common.lru import ENTRY_OVERHEAD_BYTES, ByteLru, Entry
from common.memory import MemoryPressure, MemoryReading
from common.singleflight import Flight, SingleFlight

__all__ = ["Aged", "Cache", "CacheStats", "Evicted", "FailureKind", "Hit", "Key"]

V = TypeVar("V")

Key = str | tuple[Hashable, ...]

MAX_FAILURE_TTL_S = 2.0
SHED_UNDER_PRESSURE = 0.5


class Cache(Generic[V]):
    """See the module's docstring. Synchronous methods may be called on any thread.

    ``weigh`` gives a value's size in bytes; each entry counts ENTRY_OVERHEAD_BYTES more. ``classify`` says what a
    failed load means. With ``pressure``, an insert under high memory use first sheds the less recently used half,
    once a reading.
    """

    def __init__(  # noqa: PLR0913 -- durations, limits and collaborators, each by its name
        self,
        name: str,
        *,
        ttl_s: float,
        max_bytes: int,
        weigh: Callable[[V], int],
        clock: Clock | None = None,
        jitter: float = 0.1,
        stale_if_error_s: float = 0.0,
        negative_ttl_s: float = 0.0,
        failure_ttl_s: float = 1.0,
        classify: Callable[[Exception], FailureKind] = by_error_tree,
        uniform: Callable[[float, float], float] = random.uniform,
        pressure: MemoryPressure | None = None,
    ) -> None:
        if not 0 <= failure_ttl_s <= MAX_FAILURE_TTL_S:
            raise ValueError(f"failure_ttl_s must be between 0 and {MAX_FAILURE_TTL_S}")
        if ttl_s <= 0 or stale_if_error_s < 0 or negative_ttl_s < 0 or not 0 <= jitter < 1:
            raise ValueError("durations must be positive, jitter at least 0 and below 1")
        self.name = name
        self._ttl_s = ttl_s
        self._weigh = weigh
        self._clock = clock or SystemClock()
        self._jitter = jitter
        self._stale_if_error_s = stale_if_error_s
        self._classify = classify
        self._uniform = uniform
        self._pressure = pressure
        self._relieved: MemoryReading | None = None
        # Reentrant, because dropping a value may run a finaliser that comes back here.
        self._lock = threading.RLock()
        self._entries: ByteLru[V] = ByteLru(max_bytes)
        self._failures = FailureMemory(negative_ttl_s, failure_ttl_s)
        self._flights: SingleFlight[Hit[V]] = SingleFlight(self._lock, self._clock)
        self._hits = self._misses = self._loads = self._stale_served = self._failures_served = 0
        self._evictions = dict.fromkeys(Evicted, 0)

    def get(self, key: Key, max_age_s: float | None = None, *, allow_stale: bool = False) -> Hit[V] | None:
        """What is held and fresh, and younger than ``max_age_s`` if given; with ``allow_stale`` kept ones too."""
        with self._lock:
            hit = self._held(key, max_age_s, allow_stale=allow_stale)
            if hit is None:
                self._misses += 1
            return hit

    def held(self, key: Key, max_age_s: float | None = None) -> Hit[V] | None:
        """As :meth:`get`, for whoever goes on to load what is not there, which counts the miss."""
        with self._lock:
            return self._held(key, max_age_s, allow_stale=False)

    def __contains__(self, key: Key) -> bool:
        """Whether anything is held, fresh or only kept; not a use."""
        with self._lock:
            return self._entries.peek(key) is not None

    def put(self, key: Key, value: V) -> None:
        """Hold ``value`` as true now. A load in flight began before that and will not replace it."""
        weight = self._weigh(value)
        self._relieve()
        with self._lock:
            self._flights.outdate(key)
            now = self._clock.monotonic()
            self._store(key, value, weight, read_at=now, now=now)

    async def get_or_load(
        self,
        key: Key,
        load: Callable[[], Awaitable[V | Aged[V]]],
        *,
        max_age_s: float | None = None,
        on_error_stale: bool = True,
    ) -> Hit[V]:
        """What :meth:`get` gives, without waiting; otherwise the result of one load shared by all who ask meanwhile.

        ``max_age_s`` bounds the age of what is held and of what is shared: a load, or a remembered failure, that
        began that long before this call does not serve it. So 0 means read after this call: such calls wait for the
        load in flight to end, if there is one, and then share the next.

        ``load`` runs on behalf of everybody who waits, so bound it by the source's timeout, not by one caller's; the
        key must name everything that its result depends on, whose it is included. It is cancelled when nobody waits
        any more. Its failure reaches all who wait; with ``on_error_stale`` an outage is answered with what is still
        kept, marked stale. Pass False where an older value would be wrong rather than merely old.

        A load that gives :class:`Aged` answers for its own ``max_age_s``; whoever shares it and wants younger data
        has his own load after it.
        """
        held = self._recall(key, max_age_s, on_error_stale=on_error_stale)
        if held is not None:
            return held
        await needs_loop()
        while True:
            with self._lock:
                # Again, because something may have landed on the way to the loop.
                held = self._recall(key, max_age_s, on_error_stale=on_error_stale)
                if held is not None:
                    return held
                self._misses += 1
                flight = self._flights.board(key, lambda flight: self._load(key, flight, load), max_age_s)
                is_ours = flight.waiters == 1
            try:
                hit = await self._flights.outcome(key, flight)
            except Exception as exc:
                stand_in = self._stand_in(key, self._classify(exc)) if on_error_stale else None
                if stand_in is None:
                    raise
                return stand_in
            if is_ours or hit.loaded or max_age_s is None or hit.age_s < max_age_s:
                return hit

    def invalidate(self, key: Key) -> bool:
        """Forget ``key``, and store nothing that was already being read; whether anything was held."""
        with self._lock:
            self._flights.outdate(key)
            self._failures.forget(key)
            return self._count(Evicted.INVALIDATED, self._entries.drop(key)) > 0

    def invalidate_where(self, which: Callable[[Hashable], bool] | tuple[Hashable, ...]) -> int:
        """The same for every key that the predicate accepts, or every tuple that begins with the tuple; how many.

        The predicate must be quick: everybody waits for it.
        """
        matches = _begins_with(which) if isinstance(which, tuple) else which
        with self._lock:
            self._flights.outdate_where(matches)
            self._failures.forget_where(matches)
            return self._count(Evicted.INVALIDATED, self._entries.drop_where(matches))

    def doubt(self) -> None:
        """Whatever is held may have changed unheard: it is fresh no more and only kept to stand in for a failed load.

        What is being read is not stored, and what failed is asked again.
        """
        with self._lock:
            self._flights.outdate_where(lambda _: True)
            self._failures.forget_where(lambda _: True)
            now = self._clock.monotonic()
            for entry in self._entries.values():
                if now < entry.fresh_until:
                    entry.fresh_until, entry.kept_until = now, now + self._stale_if_error_s

    def clear(self) -> int:
        """Forget everything; how many entries."""
        return self.invalidate_where(lambda _: True)

    def shed(self, fraction: float) -> int:
        """Forget the least recently used entries until this fraction of the bytes is gone; how many entries."""
        with self._lock:
            return self._count(Evicted.PRESSURE, self._entries.shrink(self._entries.bytes * (1 - fraction)))

    def stats(self) -> CacheStats:
        """Counts and sizes at one moment."""
        with self._lock:
            return CacheStats(
                name=self.name,
                hits=self._hits,
                misses=self._misses,
                loads=self._loads,
                stale_served=self._stale_served,
                failures_served=self._failures_served,
                entries=len(self._entries),
                bytes=self._entries.bytes,
                evictions=MappingProxyType(dict(self._evictions)),
            )

    def _held(self, key: Key, max_age_s: float | None, *, allow_stale: bool) -> Hit[V] | None:
        entry = self._entries.peek(key)
        if entry is None:
            return None
        now = self._clock.monotonic()
        if now >= entry.kept_until:
            self._count(Evicted.EXPIRED, self._entries.drop(key))
            return None
        stale = now >= entry.fresh_until
        age_s = now - entry.read_at
        if (stale and not allow_stale) or (max_age_s is not None and age_s >= max_age_s):
            return None
        self._entries.touch(key)
        self._hits += 1
        self._stale_served += stale
        return Hit(entry.value, age_s, stale, entry.read_at)

    def _recall(self, key: Key, max_age_s: float | None, *, on_error_stale: bool) -> Hit[V] | None:
        """What is held, or a failure that is remembered: raised, or answered with what is kept."""
        with self._lock:
            hit = self._held(key, max_age_s, allow_stale=False)
            if hit is not None:
                return hit
            failure = self._failures.recall(key, self._clock.monotonic(), max_age_s)
            if failure is None:
                return None
            stand_in = self._stand_in(key, failure.kind) if on_error_stale else None
            if stand_in is not None:
                return stand_in
            self._failures_served += 1
        raise fresh_copy(failure.error)

    def _stand_in(self, key: Key, kind: FailureKind) -> Hit[V] | None:
        if kind is not FailureKind.OUTAGE:
            return None
        with self._lock:
            entry, now = self._entries.peek(key), self._clock.monotonic()
            if entry is None or now >= entry.kept_until:
                return None
            self._entries.touch(key)
            self._stale_served += 1
            return Hit(entry.value, now - entry.read_at, True, entry.read_at)

    async def _load(self, key: Key, flight: Flight[Hit[V]], load: Callable[[], Awaitable[V | Aged[V]]]) -> Hit[V]:
        with self._lock:
            self._loads += 1
            read_at, fresh_from, fresh_until, asked, stale = self._clock.monotonic(), None, None, True, False
        try:
            value = await load()
            if isinstance(value, Aged):
                read_at = value.read_at
                fresh_from = read_at if value.fresh_from is None else value.fresh_from
                fresh_until, asked, stale, value = value.fresh_until, value.loaded, value.stale, value.value
            weight = self._weigh(value)
        except Exception as exc:
            self._remember(key, flight, exc)
            raise
        self._relieve()
        with self._lock:
            now = self._clock.monotonic()
            if not flight.outdated:
                self._store(
                    key, value, weight, read_at=read_at, now=now, fresh_from=fresh_from, fresh_until=fresh_until
                )
            self._stale_served += stale
        return Hit(value, now - read_at, stale, read_at, loaded=asked)

    def _remember(self, key: Key, flight: Flight[Hit[V]], exc: Exception) -> None:
        kind = self._classify(exc)
        with self._lock:
            if flight.outdated:
                return
            if kind is FailureKind.ANSWER:
                self._count(Evicted.INVALIDATED, self._entries.drop(key))
            self._failures.remember(key, exc, kind, self._clock.monotonic())

    def _store(
        self,
        key: Key,
        value: V,
        weight: int,
        *,
        read_at: float,
        now: float,
        fresh_from: float | None = None,
        fresh_until: float | None = None,
    ) -> None:
        self._failures.forget(key)
        self._entries.drop(key)
        self._count(Evicted.EXPIRED, self._entries.drop_dead(now))
        weight += ENTRY_OVERHEAD_BYTES
        if not self._entries.fits(weight):
            self._count(Evicted.TOO_LARGE, 1)
            return
        since = now if fresh_from is None else fresh_from
        lives_until = since + self._ttl_s * self._uniform(1 - self._jitter, 1 + self._jitter)
        fresh_until = lives_until if fresh_until is None else min(lives_until, fresh_until)
        entry = Entry(value, weight, read_at, fresh_until, fresh_until + self._stale_if_error_s)
        self._count(Evicted.BUDGET, self._entries.add(key, entry))

    def _relieve(self) -> None:
        if self._pressure is None:
            return
        reading = self._pressure.reading()
        with self._lock:
            # Once a reading: memory is given back slowly, and the same old figure must not empty the cache.
            if not reading.high or reading is self._relieved:
                return
            self._relieved = reading
        self.shed(SHED_UNDER_PRESSURE)

    def _count(self, cause: Evicted, entries: int) -> int:
        self._evictions[cause] += entries
        return entries


def _begins_with(prefix: tuple[Hashable, ...]) -> Callable[[Hashable], bool]:
    return lambda key: isinstance(key, tuple) and key[: len(prefix)] == prefix
