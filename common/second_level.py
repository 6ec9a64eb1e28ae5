"""The cache behind the caches: what one instance has read serves the others, and one instance reads for all.

It belongs inside the load of a first-level cache, which sees to it that an instance asks once for all its requests.
One round trip finds what another has read. Where nobody has, one instance reads under a lease, renewed while it
reads; the others look again now and then until it is done. A reader that dies loses the lease within ``lease_ttl_s``
and another takes over; one that fails tells those who wait, if its failure would have been theirs.

Without the shared store each instance reads for itself: nothing here ever fails because of it.

After a change: first :meth:`SharedCache.invalidate`, then the first level, then tell the others (:mod:`common.bus`).
The other way round an instance could fill its first level again from here, with the old value.
"""

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from common.clock import Clock
from common.errors import UpstreamTimeout
from common.failure_memory import FailureKind, by_error_tree
from common.failure_notes import FailureNoteInvalid, read_note, write_note
from common.loops import needs_loop
from common.stores.shared import Claim, ClaimState, Shared, SharedUnavailable

V = TypeVar("V")

_FIRST_LOOK_S = 0.02
_LAST_LOOK_S = 0.25
_LOOK_GROWTH = 1.5
_MAX_OWED = 4_096


class Source(Enum):
    """Where a value came from, for the metrics."""

    SHARED = "shared"
    """Another instance's read, or an earlier one of ours, without waiting."""
    WAITED = "waited"
    """Another instance's read, waited for."""
    LOADED = "loaded"
    """Our own read, under the lease: the others get it from us."""
    ALONE = "alone"
    """Our own read without the shared store."""


@dataclass(frozen=True, slots=True)
class Fetched(Generic[V]):
    """A value and its age."""

    value: V
    read_at: float
    """Monotonic seconds of this instance's clock; the value is never older than that. It may well lie before this
    process began."""
    source: Source


class SharedCache:
    """See the module's docstring.

    ``patience_s``: longest that a read is waited for, and that a lease is renewed; so it must be at least what a
    read may take. ``failure_ttl_s``: how long a failure is remembered for those who come after it.
    """

    def __init__(
        self,
        shared: Shared,
        clock: Clock,
        *,
        lease_ttl_s: float = 5.0,
        patience_s: float = 30.0,
        failure_ttl_s: float = 1.0,
        classify: Callable[[Exception], FailureKind] = by_error_tree,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._shared = shared
        self._clock = clock
        self._lease_ttl_s = lease_ttl_s
        self._patience_s = patience_s
        self._failure_ttl_s = failure_ttl_s
        self._classify = classify
        self._sleep = sleep
        self._uniform = uniform
        self._owed: dict[str, object] = {}

    async def fetch(
        self,
        key: str,
        load: Callable[[], Awaitable[V]],
        *,
        max_age_s: float | None,
        encode: Callable[[V], Awaitable[bytes]],
        decode: Callable[[bytes], Awaitable[V]],
        ttl_s: float,
    ) -> Fetched[V]:
        """What any instance has read less than ``max_age_s`` before this call, or what one reads now.

        0 means read after this call began, None as old as is still stored. A value is stored for ``ttl_s``. What
        cannot be decoded counts as not there; what cannot be encoded is not stored. Raises what ``load`` raises, be
        it another instance's (then a fresh error of the same code), and UpstreamTimeout where another instance has
        not finished within ``patience_s``.
        """
        await needs_loop()
        owner = secrets.token_hex(8)
        try:
            met = await self._meet(key, owner, max_age_s, decode)
            if isinstance(met, Fetched):
                return met
            # Alone too: the claim may have been done although its answer was lost. Then others wait for this read.
            return await self._load(key, owner, load, encode, ttl_s, met)
        except asyncio.CancelledError:
            await self._quietly(self._shared.release(key, owner))
            raise

    async def invalidate(self, keys: Iterable[str]) -> bool:
        """Forget what was read under ``keys``, and let nothing be stored that is being read now.

        False where the shared store could not be told; it is, before this instance uses it again.
        """
        await needs_loop()
        for key in keys:
            self._owed[key] = object()
        while len(self._owed) > _MAX_OWED:
            del self._owed[next(iter(self._owed))]
        try:
            await self._pay_debts()
        except SharedUnavailable:
            return False
        return True

    async def _pay_debts(self) -> None:
        """Invalidate what could not be when it should have been."""
        if not self._owed:
            return
        owed = dict(self._owed)
        await self._shared.void(list(owed))
        for key, debt in owed.items():
            # What was invalidated once more meanwhile is still to be paid.
            if self._owed.get(key) is debt:
                del self._owed[key]

    async def _meet(
        self, key: str, owner: str, max_age_s: float | None, decode: Callable[[bytes], Awaitable[V]]
    ) -> Fetched[V] | Source:
        """What another instance has read, or how this one is to read. Raises what another failed with."""
        try:
            await self._pay_debts()
            return await self._claim(key, owner, max_age_s, decode) or Source.LOADED
        except SharedUnavailable:
            return Source.ALONE

    async def _claim(
        self, key: str, owner: str, max_age_s: float | None, decode: Callable[[bytes], Awaitable[V]]
    ) -> Fetched[V] | None:
        asked_at = looked_at = self._clock.monotonic()
        claim = await self._shared.claim(key, owner, self._lease_ttl_s, max_age_s=max_age_s)
        newer_than_us = 0 if max_age_s is None else claim.now_us - round(max_age_s * 1e6)
        source, pause_s = Source.SHARED, _FIRST_LOOK_S
        while claim.state is not ClaimState.LEASED:
            if claim.state is ClaimState.HELD:
                if looked_at - asked_at >= self._patience_s:
                    raise UpstreamTimeout
                source = Source.WAITED
                await self._sleep(pause_s * self._uniform(0.75, 1.25))
                pause_s = min(pause_s * _LOOK_GROWTH, _LAST_LOOK_S)
            else:
                opened = await _open(claim, decode)
                if opened is not None:
                    return Fetched(opened.value, looked_at - claim.age_s, source)
                newer_than_us = claim.read_at_us
            looked_at = self._clock.monotonic()
            claim = await self._shared.claim(key, owner, self._lease_ttl_s, newer_than_us=newer_than_us)
        return None

    async def _load(
        self,
        key: str,
        owner: str,
        load: Callable[[], Awaitable[V]],
        encode: Callable[[V], Awaitable[bytes]],
        ttl_s: float,
        source: Source,
    ) -> Fetched[V]:
        read_at = self._clock.monotonic()
        renewing = asyncio.create_task(self._renew(key, owner, until=read_at + self._patience_s))
        try:
            try:
                value = await load()
            except Exception as exc:
                await self._quietly(self._report(key, owner, exc))
                raise
            await self._quietly(self._store(key, owner, value, encode, ttl_s))
        finally:
            renewing.cancel()
        return Fetched(value, read_at, source)

    async def _renew(self, key: str, owner: str, *, until: float) -> None:
        held = True
        while held and self._clock.monotonic() < until:
            await self._sleep(self._lease_ttl_s / 3)
            try:
                held = await self._shared.renew(key, owner, self._lease_ttl_s)
            except SharedUnavailable:
                continue  # it may be back before the lease ends

    async def _store(
        self, key: str, owner: str, value: V, encode: Callable[[V], Awaitable[bytes]], ttl_s: float
    ) -> None:
        try:
            data = await encode(value)
        except Exception:  # noqa: BLE001 - whatever seals the values fails in its own ways, and the value is good
            await self._shared.release(key, owner)
            return
        # What could not be invalidated while this was read would be stored otherwise.
        await self._pay_debts()
        await self._shared.fulfil(key, owner, data, ttl_s)

    async def _report(self, key: str, owner: str, exc: Exception) -> None:
        kind = self._classify(exc)
        note = write_note(exc) if kind is FailureKind.OUTAGE else None
        if kind is FailureKind.ANSWER:
            await self._shared.void([key])
        elif note is None or self._failure_ttl_s <= 0:
            await self._shared.release(key, owner)
        else:
            await self._shared.fail(key, owner, note, self._failure_ttl_s)

    async def _quietly(self, work: Awaitable[None]) -> None:
        try:
            await work
        except SharedUnavailable:
            return  # the lease ends by itself


@dataclass(frozen=True, slots=True)
class _Opened(Generic[V]):
    value: V


async def _open(claim: Claim, decode: Callable[[bytes], Awaitable[V]]) -> _Opened[V] | None:
    """What was found; None where it cannot be read. Raises the failure that was found instead."""
    if claim.state is ClaimState.FAILED:
        try:
            failure = read_note(claim.data)
        except FailureNoteInvalid:
            return None
        raise failure
    try:
        return _Opened(await decode(claim.data))
    except Exception:  # noqa: BLE001 - another key, another version, a forgery: each decoder fails in its own ways
        return None
