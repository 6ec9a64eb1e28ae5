"""The shared store of a deployment that is one process: this process's memory.

Nothing waits, so nothing leaves the caller's thread.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from common.clock import Clock
from common.stores.shared import Channel, Claim, ClaimState, SharedUnavailable

_SWEEP_FROM = 1_024


@dataclass(frozen=True, slots=True)
class _Kept:
    """Times in monotonic microseconds."""

    data: bytes
    at_us: int
    until_us: int


class MemoryShared:
    """See :class:`common.stores.shared.Shared`. Thread-safe."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, str], _Kept] = {}
        self._sweep_at = _SWEEP_FROM
        self._closed = False

    @property
    def channel(self) -> Channel | None:
        """There is nobody to speak to."""
        return None

    @property
    def is_failing(self) -> bool:
        """Memory does not fail."""
        return False

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """See the port."""
        with self._lock:
            now_us = self._now_us()
            found = [self._get("value", key, now_us) for key in keys]
        return [kept.data if kept else None for kept in found]

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        """See the port."""
        with self._lock:
            self._put("value", key, value, self._now_us(), ttl_s)

    async def delete(self, keys: Sequence[str]) -> None:
        """See the port."""
        with self._lock:
            self._drop(("value",), keys)

    async def lease(self, key: str, owner: str, ttl_s: float) -> bool:
        """See the port."""
        with self._lock:
            now_us = self._now_us()
            if self._get("lease", key, now_us) is not None:
                return False
            self._put("lease", key, owner.encode(), now_us, ttl_s)
            return True

    async def renew(self, key: str, owner: str, ttl_s: float) -> bool:
        """See the port."""
        with self._lock:
            now_us = self._now_us()
            lease = self._lease_of(key, owner, now_us)
            if lease is None:
                return False
            self._kept["lease", key] = _Kept(lease.data, lease.at_us, now_us + _us(ttl_s))
            return True

    async def release(self, key: str, owner: str) -> None:
        """See the port."""
        with self._lock:
            if self._lease_of(key, owner, self._now_us()) is not None:
                self._drop(("lease",), [key])

    async def claim(
        self, key: str, owner: str, lease_ttl_s: float, *, max_age_s: float | None = None, newer_than_us: int = 0
    ) -> Claim:
        """See the port."""
        with self._lock:
            now_us = self._now_us()
            for kind, state in (("entry", ClaimState.FOUND), ("failure", ClaimState.FAILED)):
                kept = self._get(kind, key, now_us)
                if (
                    kept is not None
                    and kept.at_us > newer_than_us
                    and (max_age_s is None or now_us - kept.at_us < _us(max_age_s))
                ):
                    return Claim(state, now_us, kept.data, kept.at_us)
            if self._get("lease", key, now_us) is not None:
                return Claim(ClaimState.HELD, now_us)
            self._put("lease", key, owner.encode(), now_us, lease_ttl_s)
            return Claim(ClaimState.LEASED, now_us)

    async def fulfil(self, key: str, owner: str, value: bytes, ttl_s: float) -> bool:
        """See the port."""
        return self._settle("entry", key, owner, value, ttl_s, gone=("failure", "lease"))

    async def fail(self, key: str, owner: str, note: bytes, ttl_s: float) -> bool:
        """See the port."""
        return self._settle("failure", key, owner, note, ttl_s, gone=("lease",))

    async def void(self, keys: Sequence[str]) -> None:
        """See the port."""
        with self._lock:
            self._drop(("entry", "failure", "lease"), keys)

    async def ping(self) -> None:
        """See the port."""
        with self._lock:
            self._now_us()

    async def aclose(self) -> None:
        """See the port."""
        with self._lock:
            self._closed = True
            self._kept.clear()

    def __len__(self) -> int:
        """How much is held, of which some may have ended."""
        return len(self._kept)

    def _now_us(self) -> int:
        if self._closed:
            raise SharedUnavailable("closed")
        return _us(self._clock.monotonic())

    def _get(self, kind: str, key: str, now_us: int) -> _Kept | None:
        kept = self._kept.get((kind, key))
        return kept if kept is not None and now_us < kept.until_us else None

    def _lease_of(self, key: str, owner: str, now_us: int) -> _Kept | None:
        lease = self._get("lease", key, now_us)
        return lease if lease is not None and lease.data == owner.encode() else None

    def _put(self, kind: str, key: str, data: bytes, at_us: int, ttl_s: float) -> None:
        self._sweep()
        self._kept[kind, key] = _Kept(data, at_us, self._now_us() + _us(ttl_s))

    def _settle(self, kind: str, key: str, owner: str, data: bytes, ttl_s: float, *, gone: tuple[str, ...]) -> bool:
        with self._lock:
            lease = self._lease_of(key, owner, self._now_us())
            if lease is None:
                return False
            self._put(kind, key, data, lease.at_us, ttl_s)
            self._drop(gone, [key])
            return True

    def _drop(self, kinds: tuple[str, ...], keys: Sequence[str]) -> None:
        self._now_us()
        for kind in kinds:
            for key in keys:
                self._kept.pop((kind, key), None)

    def _sweep(self) -> None:
        """Forget what has ended, each time as much again has come: nothing else would where keys never return."""
        if len(self._kept) >= self._sweep_at:
            now_us = self._now_us()
            self._kept = {name: kept for name, kept in self._kept.items() if now_us < kept.until_us}
            self._sweep_at = max(_SWEEP_FROM, 2 * len(self._kept))


def _us(seconds: float) -> int:
    return round(seconds * 1e6)
