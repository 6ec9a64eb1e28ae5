"""Who serves whom: one owner a customer, in the document store.

``stream_workers/<worker>``   ``{"until"}``  written again and again while the worker lives
``stream_owners/<customer>``  ``{"owner"}``  taken by compare-and-swap from nobody, or from a worker that lives no more

So all of a worker's leases are renewed by one write, and all end with it. In the document store rather than the shared
one, for two owners would evict each other: that must not be decided twice, not even while Redis is away.
"""

import asyncio
import contextlib
from datetime import datetime, timedelta
from typing import Final

from common.clock import Clock
from common.loops import needs_loop
from common.stores.documents import DocumentExists, Documents, VersionConflict, update

_WORKERS: Final = "stream_workers"
_OWNERS: Final = "stream_owners"
_FORGET_AFTER: Final = timedelta(hours=1)


class Roster:
    """The workers that live. ``me`` is this one; others take over what it had ``ttl_s`` after its last beat."""

    def __init__(self, documents: Documents, clock: Clock, me: str, ttl_s: float) -> None:
        self._documents = documents
        self._clock = clock
        self.me = me
        self._ttl_s = ttl_s

    async def beat(self) -> float:
        """Say that this worker lives; until when that holds, monotonic seconds. Raises StoreUnavailable."""
        await needs_loop()
        # Both clocks are read before the write: whatever that takes, the others wait longer than we trust it.
        until_s = self._clock.monotonic() + self._ttl_s
        key, body = f"{_WORKERS}/{self.me}", {"until": (self._clock.utc() + timedelta(seconds=self._ttl_s)).isoformat()}
        if await update(self._documents, key, lambda _old: body) is None:
            await self._documents.create(key, body)
        return until_s

    async def alive(self) -> frozenset[str]:
        """The workers that live, this one among them. Raises StoreUnavailable."""
        await needs_loop()
        names = [key.partition("/")[2] for key in await self._documents.list(_WORKERS)]
        lives = await asyncio.gather(*[self._lives(name) for name in names])
        return frozenset(name for name, is_alive in zip(names, lives, strict=True) if is_alive) | {self.me}

    async def leave(self) -> None:
        """End all of this worker's leases at once. Raises StoreUnavailable."""
        await needs_loop()
        await self._documents.delete(f"{_WORKERS}/{self.me}")

    async def _lives(self, name: str) -> bool:
        document = await self._documents.get(f"{_WORKERS}/{name}")
        if document is None:
            return False
        until, now = datetime.fromisoformat(document.body["until"]), self._clock.utc()
        if now > until + _FORGET_AFTER:
            await self._documents.delete(document.key)
        return now < until


class Leases:
    """The customers that ``me`` serves."""

    def __init__(self, documents: Documents, me: str) -> None:
        self._documents = documents
        self._me = me

    async def take(self, customer: str, alive: frozenset[str]) -> bool:
        """Own a customer, unless another one of ``alive`` does; whether it is ours now. Raises StoreUnavailable."""
        await needs_loop()
        key, body = f"{_OWNERS}/{customer}", {"owner": self._me}
        held = await self._documents.get(key)
        try:
            if held is None:
                await self._documents.create(key, body)
            elif held.body["owner"] != self._me:
                if held.body["owner"] in alive:
                    return False
                await self._documents.replace(held, body)
        except (DocumentExists, VersionConflict):
            return False
        return True

    async def release(self, customer: str) -> None:
        """Own a customer no more. Raises StoreUnavailable."""
        await needs_loop()
        held = await self._documents.get(f"{_OWNERS}/{customer}")
        if held is None or held.body["owner"] != self._me:
            return
        with contextlib.suppress(VersionConflict):  # another one has taken it
            await self._documents.delete(held.key, held.version)
