"""What instances of one deployment share and may lose: values, leases, and the results of each other's reads.

Ephemeral, for every key ends by itself. It makes things cheaper and fairer and is never the only place of anything:
whoever gets :class:`SharedUnavailable` goes on alone.

A *claim* is how a read is done once for all instances: under one key it finds what another has read, or takes the
lease to read it, in one step of the store. What a read gave is stored only while its lease still stands. So a reader
that was overtaken, by an invalidation or by its own slowness, stores nothing.

Ages are reckoned by the store's clock alone, in microseconds (``_us``), for the clocks of instances differ. A result
counts as read when its lease was taken, which was before the read began: it is never older than is said.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol
from urllib.parse import urlsplit

from common.clock import Clock


class SharedUnavailable(Exception):
    """The shared store does not answer, refuses, or is left alone for a moment because it did.

    No error for a caller of the API: what the store was asked for is done without it. A write may have been done.
    """


class ClaimState(Enum):
    """How things stand under a key."""

    FOUND = "found"
    """Somebody has read it recently enough."""
    FAILED = "failed"
    """Somebody has tried recently enough, and failed."""
    LEASED = "leased"
    """Nobody has; the lease is yours. Settle it, or release it."""
    HELD = "held"
    """Somebody is reading it now."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a claim met."""

    state: ClaimState
    now_us: int
    """The store's clock when it looked."""
    data: bytes = field(default=b"", repr=False)
    """FOUND: what was stored. FAILED: the note."""
    read_at_us: int = 0
    """FOUND and FAILED: when the lease of that read was taken."""

    @property
    def age_s(self) -> float:
        """FOUND and FAILED: how long ago that was."""
        return (self.now_us - self.read_at_us) / 1e6


class Subscription(Protocol):
    """A connection that hears a topic."""

    async def receive(self) -> bytes | None:
        """The next message; None is the answer to a ping. Raises SharedUnavailable where the connection has ended."""
        ...

    async def ping(self) -> None:
        """Ask for an answer, which comes after every message published before. Raises SharedUnavailable."""
        ...


class Channel(Protocol):
    """Messages between instances: to all who listen at that moment, and to nobody else."""

    async def publish(self, topic: str, message: bytes) -> None:
        """Tell everybody who is subscribed now. Raises SharedUnavailable."""
        ...

    def subscribe(self, topic: str) -> AbstractAsyncContextManager[Subscription]:
        """Listen from the moment of entering to that of leaving. Entering raises SharedUnavailable."""
        ...


class Shared(Protocol):
    """The port. Every operation is atomic, costs at most one round trip and may raise SharedUnavailable.

    Values, leases and claims are kept apart: the same key may be used for each. (A claim's lease is a lease.)
    """

    @property
    def channel(self) -> Channel | None:
        """How to speak to the other instances; None where there can be none."""
        ...

    @property
    def is_failing(self) -> bool:
        """Whether the last operation failed; asks nobody."""
        ...

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values of ``keys``, in their order."""
        ...

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        """Hold a value for ``ttl_s`` from now."""
        ...

    async def delete(self, keys: Sequence[str]) -> None:
        """Forget values."""
        ...

    async def lease(self, key: str, owner: str, ttl_s: float) -> bool:
        """Take a lease for ``ttl_s`` if nobody has it, not even ``owner``; whether it was taken."""
        ...

    async def renew(self, key: str, owner: str, ttl_s: float) -> bool:
        """Make a lease of ``owner``'s end ``ttl_s`` from now; False where it is not his any more."""
        ...

    async def release(self, key: str, owner: str) -> None:
        """Give a lease back, if it is still ``owner``'s."""
        ...

    async def claim(
        self, key: str, owner: str, lease_ttl_s: float, *, max_age_s: float | None = None, newer_than_us: int = 0
    ) -> Claim:
        """Find what was read less than ``max_age_s`` ago and after ``newer_than_us``, or take the lease to read it.

        A stamp from the future proves nothing and is not found: the store's clock was set back.
        """
        ...

    async def fulfil(self, key: str, owner: str, value: bytes, ttl_s: float) -> bool:
        """Store what was read, end the lease and forget a failure; False, and nothing, where the lease is gone."""
        ...

    async def fail(self, key: str, owner: str, note: bytes, ttl_s: float) -> bool:
        """Leave a note that the read failed and end the lease; False, and nothing, where the lease is gone."""
        ...

    async def void(self, keys: Sequence[str]) -> None:
        """Forget what was read under ``keys``, and let nothing be stored that is being read now."""
        ...

    async def ping(self) -> None:
        """Return where the store can be used; otherwise raise SharedUnavailable."""
        ...

    async def aclose(self) -> None:
        """Give up every connection. Afterwards everything raises SharedUnavailable."""
        ...


def open_shared(url: str, clock: Clock, *, namespace: str, timeout_s: float = 0.2) -> Shared:
    """Build the store that ``url`` names, without touching it yet.

    Empty for this process's memory; ``redis://[user:password@]host:port/db``, ``rediss://`` with TLS or
    ``unix:///path``. ``namespace`` begins every key, so that environments can use one server. No operation takes
    longer than ``timeout_s``. Raises ``ValueError``, which does not show the address.
    """
    if not url:
        from common.stores.memory import MemoryShared  # noqa: PLC0415 - load only the store in use

        return MemoryShared(clock)
    parts = urlsplit(url)
    if parts.scheme not in {"redis", "rediss", "unix"} or not (parts.hostname or parts.path):
        raise ValueError("a shared store is redis://host:port/db, rediss://host:port/db or unix:///path, or empty")
    from common.stores.redis import RedisShared  # noqa: PLC0415 - load only the store in use

    return RedisShared(url, clock, namespace=namespace, timeout_s=timeout_s)
