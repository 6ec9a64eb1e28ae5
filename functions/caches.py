"""The caches of one worker, and how they share its memory."""

from collections.abc import Callable, Mapping
from typing import Any

from common.cache import Cache
from common.clock import Clock
from common.memory import MemoryPressure
from common.metrics import CacheReading
from common.settings import Settings
from functions.accounts import LINK_MAX_AGE_S, Verified
from functions.links import Link
from functions.snapshot import Snapshot
from functions.vehicles import VehicleList

_SNAPSHOT_BYTES = 12_000
"""A snapshot's weight in the cache: measured at 8 to 11 kB for the nine recorded cars, texts and all."""
_LINK_BYTES = 8_000
_VERIFIED_BYTES = 500
QUOTA_TTL_S = 10.0
"""How late it may be told what is left of a maker's ration, where other instances spend it."""
_QUOTA_BYTES = 1_000
_NOT_FOUND_TTL_S = 2.0


class Caches:
    """The caches of one worker, sharing one budget: most of it is for snapshots, which are most of what is asked."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        pressure = MemoryPressure(clock)
        budget = settings.cache_max_bytes

        def cache(name: str, share: float, ttl_s: float, weigh: Callable[[Any], int], stale_s: float = 0) -> Cache[Any]:
            return Cache(
                name,
                ttl_s=ttl_s,
                max_bytes=int(budget * share),
                weigh=weigh,
                clock=clock,
                pressure=pressure,
                negative_ttl_s=_NOT_FOUND_TTL_S,
                stale_if_error_s=stale_s,
            )

        self.snapshots: Cache[Snapshot] = cache(
            "snapshots",
            0.6,
            settings.read_ttl_s,
            lambda _snapshot: _SNAPSHOT_BYTES,
            stale_s=settings.stale_if_error_s,
        )
        self.images: Cache[bytes] = cache("images", 0.2, settings.vehicle_list_ttl_s, len)
        self.lists: Cache[VehicleList] = cache(
            "lists",
            0.1,
            settings.vehicle_list_ttl_s,
            lambda listed: _LINK_BYTES * max(1, len(listed.vehicles)) // 2,
        )
        self.quotas: Cache[Mapping[str, Any]] = cache("quotas", 0.02, QUOTA_TTL_S, lambda _quota: _QUOTA_BYTES)
        self.links: Cache[Link] = cache("links", 0.04, LINK_MAX_AGE_S, lambda _link: _LINK_BYTES)
        self.sessions: Cache[Verified] = cache(
            "sessions", 0.04, settings.session_ttl_s, lambda _verified: _VERIFIED_BYTES
        )
        self.all: tuple[Cache[Any], ...] = (
            self.snapshots,
            self.images,
            self.lists,
            self.quotas,
            self.links,
            self.sessions,
        )

    def readings(self) -> list[CacheReading]:
        """How full each is."""
        return [CacheReading(s.name, s.entries, s.bytes) for s in (cache.stats() for cache in self.all)]
