"""What the instances of a deployment tell each other and read for each other.

Nothing here decides alone: whoever cannot reach the others goes on by himself, as a single instance does. What must
not be decided twice (sending a command, renewing a token) is not here but in the document store.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from common import errors
from common.breaker import BreakerEvent, Breakers, Reason, State
from common.bus import Bus
from common.cache import Aged
from common.clock import Clock
from common.second_level import SharedCache, Source
from common.stores.shared import Shared, SharedUnavailable
from functions import snapshot_codec
from functions.snapshot import Snapshot
from functions.upstream import BreakerKey, Kind

CHANGED, UNLINKED, ROTATED, OPENED, CLOSED = "changed", "unlinked", "rotated", "opened", "closed"
_KINDS: Mapping[str, Kind] = {"read": "read", "command": "command", "auth": "auth"}
_LEARN_EVERY_S = 30.0
_LONGEST_TOLD_S = 900.0


class AccountSeal(Protocol):
    """Seals for one account, at one place."""

    async def seal(self, account_id: str, place: str, plaintext: bytes) -> bytes:
        """For the account's eyes only."""
        ...

    async def open(self, account_id: str, place: str, sealed: bytes) -> bytes:
        """What :meth:`seal` was given; raises whatever says that it is not."""
        ...


class SharedSnapshots:
    """Snapshots that one instance has read for all, sealed under their account's key."""

    def __init__(self, shared: Shared, clock: Clock, seal: AccountSeal, *, ttl_s: float, patience_s: float) -> None:
        """``patience_s``: at least what a read may take."""
        self._cache = SharedCache(shared, clock, patience_s=patience_s)
        self._seal = seal
        self._ttl_s = ttl_s

    async def fetch(
        self, account_id: str, vin: str, load: Callable[[], Awaitable[Snapshot]], max_age_s: float | None
    ) -> Aged[Snapshot]:
        """What any instance has read less than ``max_age_s`` ago, or what this one reads now. Raises as ``load``."""
        place = _place(account_id, vin)

        async def encode(snapshot: Snapshot) -> bytes:
            return await self._seal.seal(account_id, place, snapshot_codec.encode(snapshot))

        async def decode(sealed: bytes) -> Snapshot:
            return snapshot_codec.decode(await self._seal.open(account_id, place, sealed))

        found = await self._cache.fetch(
            place, load, max_age_s=max_age_s, encode=encode, decode=decode, ttl_s=self._ttl_s
        )
        return Aged(found.value, found.read_at, loaded=found.source in (Source.LOADED, Source.ALONE))

    async def invalidate(self, account_id: str, vin: str) -> None:
        """Nobody gets what was read before now."""
        await self._cache.invalidate([_place(account_id, vin)])


class Peers:
    """Word of changes and of failing makers, to and from the other instances.

    Handlers (by ``CHANGED``, ``UNLINKED``, ``ROTATED``) are called with an account id, on the loop. ``on_gap`` is
    called where word may have been missed: nothing held may be taken for true any more.
    """

    def __init__(
        self,
        shared: Shared | None,
        clock: Clock,
        breakers: Breakers[BreakerKey],
        *,
        handlers: Mapping[str, Callable[[str], None]],
        on_gap: Callable[[], None],
        patience_s: float = 0.1,
    ) -> None:
        self._shared = shared
        self._clock = clock
        self._breakers = breakers
        self._bus = Bus(
            shared.channel if shared is not None else None,
            clock,
            handlers={**handlers, OPENED: self._hear_opened, CLOSED: self._hear_closed},
            on_gap=on_gap,
            patience_s=patience_s,
        )
        self._learnt_s: dict[BreakerKey, float] = {}
        self._telling: set[asyncio.Task[None]] = set()

    @property
    def state(self) -> str:
        """For /health: ``in memory: this instance only``, ``ok`` or ``degraded``."""
        if self._shared is None:
            return "in memory: this instance only"
        return "degraded" if self._shared.is_failing or self._bus.is_deaf else "ok"

    async def fence(self) -> None:
        """Return when everything is heard that was said before; or where that is in vain, soon."""
        await self._bus.fence()

    async def changed(self, account_id: str) -> None:
        """What is held of an account's vehicles is not true any more."""
        await self._bus.publish(CHANGED, account_id)

    async def unlinked(self, account_id: str) -> None:
        """An account is gone, with everything that is held of it."""
        await self._bus.publish(UNLINKED, account_id)

    async def rotated(self, account_id: str) -> None:
        """An account has new tokens."""
        await self._bus.publish(ROTATED, account_id)

    def breaker_changed(self, event: BreakerEvent) -> None:
        """Tell the others that a maker has begun to fail, or answers again; what was heard from them is not repeated.

        That a probe has failed is not told: they probe for themselves, and it may be this instance that is ill.
        """
        if self._shared is None:
            return
        work = None
        if event.before is State.CLOSED and event.after is State.OPEN and event.reason is not Reason.TOLD:
            work = self._tell_opened(self._shared, event)
        elif event.reason is Reason.PROBE_SUCCEEDED:
            work = self._tell_closed(self._shared, event.breaker)
        if work is None:
            return
        # Called wherever a call to a maker ends, which is on the loop.
        try:
            task = asyncio.get_running_loop().create_task(work)
        except RuntimeError:
            work.close()
            return
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def learn(self, key: BreakerKey) -> None:
        """Before the first call to a maker, and now and then: whether another instance leaves him alone."""
        now = self._clock.monotonic()
        if self._shared is None or now - self._learnt_s.get(key, float("-inf")) < _LEARN_EVERY_S:
            return
        self._learnt_s[key] = now
        try:
            (said,) = await self._shared.get_many([_opened_key("/".join(key))])
        except SharedUnavailable:
            return
        if said is not None:
            self._hear_opened(said.decode(errors="replace"))

    async def aclose(self) -> None:
        """Hear and say nothing any more."""
        await self._bus.aclose()
        if self._shared is not None:
            await self._shared.aclose()

    async def _tell_opened(self, shared: Shared, event: BreakerEvent) -> None:
        for_s = min(event.open_for_s or 0.0, _LONGEST_TOLD_S)
        now = self._clock.utc().timestamp()
        stands = self._breakers.get(_breaker_key(event.breaker)).snapshot()
        code = stands.held_by.code if stands.held_by and "code" in vars(stands.held_by) else "-"
        # A millisecond late, so that rounding puts no success of before into the time of failing.
        said = f"{event.breaker} {now - stands.failing_for_s + 0.001:.3f} {now + for_s:.3f} {code}"
        with contextlib.suppress(SharedUnavailable):
            if for_s > 0:
                await shared.put(_opened_key(event.breaker), said.encode(), for_s)
        await self._bus.publish(OPENED, said)

    async def _tell_closed(self, shared: Shared, name: str) -> None:
        with contextlib.suppress(SharedUnavailable):
            await shared.delete([_opened_key(name)])
        await self._bus.publish(CLOSED, name)

    def _hear_opened(self, said: str) -> None:
        now = self._clock.utc().timestamp()
        # What cannot be read was not said: whoever calls finds out by himself.
        with contextlib.suppress(ValueError):
            name, since, until, code = said.split(" ")
            for_s = min(float(until) - now, _LONGEST_TOLD_S)
            self._breakers.get(_breaker_key(name)).told(now - float(since), for_s, errors.BY_CODE.get(code))

    def _hear_closed(self, name: str) -> None:
        with contextlib.suppress(ValueError):
            self._breakers.get(_breaker_key(name)).told_over()


def _breaker_key(name: str) -> BreakerKey:
    """Raises ValueError for what is no breaker's name."""
    provider, region, kind = name.split("/")
    if kind not in _KINDS:
        raise ValueError("no kind of breaker")
    return provider, region, _KINDS[kind]


def _opened_key(name: str) -> str:
    return f"opened/{name}"


def _place(account_id: str, vin: str) -> str:
    """A name that tells neither the account nor the car."""
    return f"snapshot/{hashlib.sha256(f'{account_id} {vin}'.encode()).hexdigest()}"
