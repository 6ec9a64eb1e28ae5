"""A caller's vehicles and what they last said: the cache in front of the makers' reads."""

import functools
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Protocol, TypeVar

from common.cache import Aged, Cache, Hit
from common.clock import Clock
from common.errors import (
    ApiError,
    CacheMiss,
    NotSupported,
    RateLimitExceeded,
    ValidationFailed,
    VehicleNotFound,
)
from common.loops import needs_loop
from functions import planned_reads
from functions.links import Link, LinkBook
from functions.providers.port import Account, PlanReads, Provider, Vehicle
from functions.providers.registry import Providers
from functions.snapshot import Snapshot
from functions.upstream import Upstream

T = TypeVar("T")

_RELIST_AFTER_S = 300.0
"""A vehicle that is not on the list may have been bought since; ask again, but not at every wrong VIN."""


class Freshness(NamedTuple):
    """How old an answer may be."""

    max_age_s: float | None = None
    """``None`` leaves it to the cache's own time; 0 reads now."""
    cache_only: bool = False
    is_callers: bool = False
    """A caller's own wish, and not ours: where it forces a read that the cache would have saved, it is limited."""


@dataclass(frozen=True, slots=True)
class VehicleList:
    """The maker's list, and when the maker gave it."""

    vehicles: tuple[Vehicle, ...]
    listed_at: datetime


ANY_AGE = Freshness()


AdmitForcedRead = Callable[[Account, str], Awaitable[None]]
"""Given the account and the VIN; raises RateLimitExceeded where the vehicle was forced often enough."""


async def _admit_all(_account: Account, _vin: str) -> None:
    pass


async def _admit_every_list(_account_id: str) -> None:
    pass


class Share(Protocol):
    """Snapshots that instances read for each other."""

    async def fetch(
        self, account_id: str, vin: str, load: Callable[[], Awaitable[Snapshot]], max_age_s: float | None
    ) -> Aged[Snapshot]:
        """What any instance has read less than ``max_age_s`` ago, or what this one reads now; raises as ``load``."""
        ...

    async def invalidate(self, account_id: str, vin: str) -> None:
        """Nobody gets what was read before now."""
        ...


class NoShare:
    """A single instance."""

    async def fetch(
        self,
        account_id: str,  # noqa: ARG002 - the port's signature
        vin: str,  # noqa: ARG002
        load: Callable[[], Awaitable[Snapshot]],
        max_age_s: float | None,  # noqa: ARG002
    ) -> Snapshot:
        """Read."""
        return await load()

    async def invalidate(self, account_id: str, vin: str) -> None:
        """There is nothing to forget."""


async def _tell_nobody(_account_id: str) -> None:
    pass


class VehicleManager:
    """Lists vehicles and reads their snapshots."""

    def __init__(  # noqa: PLR0913 - collaborators and ages, each by its name
        self,
        *,
        providers: Providers,
        links: LinkBook,
        upstream: Upstream,
        clock: Clock,
        lists: Cache[VehicleList],
        snapshots: Cache[Snapshot],
        images: Cache[bytes],
        quotas: Cache[Mapping[str, Any]],
        list_ttl_s: float,
        read_ttl_s: float = 300.0,
        admit_forced_read: AdmitForcedRead = _admit_all,
        admit_forced_list: Callable[[str], Awaitable[None]] = _admit_every_list,
        share: Share | NoShare | None = None,
        tell_changed: Callable[[str], Awaitable[None]] = _tell_nobody,
    ) -> None:
        self._providers = providers
        self._links = links
        self._upstream = upstream
        self._clock = clock
        self._lists = lists
        self._snapshots = snapshots
        self._images = images
        self._quotas = quotas
        self._list_ttl_s = list_ttl_s
        self._read_ttl_s = read_ttl_s
        self._admit_forced_read = admit_forced_read
        self._admit_forced_list = admit_forced_list
        self._share = share or NoShare()
        self._tell_changed = tell_changed

    async def list(self, link: Link, freshness: Freshness = ANY_AGE) -> VehicleList:
        """The maker's own list of the account's vehicles, trusted for a day."""
        key = ("vehicles", link.account.id)
        max_age_s = self._list_ttl_s if freshness.max_age_s is None else freshness.max_age_s
        hit = self._lists.get(key)
        if hit is not None and self._is_young(hit.value, max_age_s):
            return hit.value
        if freshness.cache_only:
            raise CacheMiss
        # Whatever is held is too old, although the cache may not think so: it counts from when it was stored here.
        is_forced = self._is_forced(freshness)
        load = functools.partial(self._load_list, link, max_age_s, is_forced=is_forced)
        get = functools.partial(self._lists.get_or_load, key, load, max_age_s=0)
        try:
            return (await get()).value
        except RateLimitExceeded:
            if is_forced:
                raise
            # Refused to somebody who forced the list that this one has waited for.
            return (await get()).value

    async def find(self, link: Link, vin: str | None, *, cache_only: bool = False) -> Vehicle:
        """The vehicle a request means.

        Raises VehicleNotFound, ValidationFailed where the account has several and none was named, or CacheMiss where
        the list is not held and must not be asked for.
        """
        listed = await self.list(link, Freshness(cache_only=cache_only))
        if vin is None:
            return _only(listed.vehicles)
        found = _by_vin(listed.vehicles, vin)
        if found is None and not cache_only and self._age_s(listed) > _RELIST_AFTER_S:
            found = _by_vin((await self.list(link, Freshness(max_age_s=_RELIST_AFTER_S))).vehicles, vin)
        if found is None:
            raise VehicleNotFound
        return found

    async def snapshot(self, link: Link, vehicle: Vehicle, freshness: Freshness = ANY_AGE) -> Hit[Snapshot]:
        """What the vehicle last said, from the cache where it is fresh enough.

        Raises CacheMiss under ``cache_only``, and the maker's errors where nothing can be served.
        """
        key = ("snapshot", link.account.id, vehicle.vin)
        if freshness.cache_only:
            return _held(self._snapshots.get(key, freshness.max_age_s))
        held = self._snapshots.held(key, freshness.max_age_s)
        if held is not None:
            return held
        is_forced = self._is_forced(freshness)

        async def load() -> Snapshot | Aged[Snapshot]:
            return await self._read(link, vehicle, freshness, is_forced=is_forced)

        get = functools.partial(
            self._snapshots.get_or_load,
            key,
            load,
            max_age_s=freshness.max_age_s,
            # Who asks for data of a certain age must not be given older data without having said so.
            on_error_stale=freshness.max_age_s is None,
        )
        try:
            return await get()
        except RateLimitExceeded:
            if is_forced:
                raise
            # Refused to somebody who forced the read that this one has waited for.
            return await get()

    async def explain(self, link: Link, vehicle: Vehicle, freshness: Freshness = ANY_AGE) -> dict[str, Any]:
        """What :meth:`snapshot` would do now, and why; does nothing of it.

        ``{"source": cache, stream or poll, "cost": requests of the maker's ration, "age_s", "why"}``.
        """
        held = self._snapshots.get(("snapshot", link.account.id, vehicle.vin), freshness.max_age_s)
        if held is not None:
            return {"source": "cache", "cost": 0, "age_s": round(held.age_s, 3), "why": "It is held and young enough."}
        if freshness.cache_only:
            return {
                "source": "cache",
                "cost": 0,
                "age_s": None,
                "why": "Nothing is held, and the maker may not be asked.",
            }
        planner = self._providers.get(link.account.provider).planner
        if planner is None:
            why = "Nothing young enough is held; this maker does not ration requests."
            return {"source": "poll", "cost": 0, "age_s": None, "why": why}
        recalled = await planner.recall(link.account, vehicle)
        plan = await planner.plan(link.account, vehicle, recalled, forced=freshness.max_age_s == 0)
        age_s = round(self._since_s(recalled.fetched_at), 3) if recalled else None
        return {"source": plan.source, "cost": plan.cost, "age_s": age_s, "why": plan.why}

    async def quota(self, link: Link) -> Mapping[str, Any] | None:
        """What is left of the maker's ration; ``None`` where he does not ration, and where it cannot be told now."""
        planner = self._providers.get(link.account.provider).planner
        if planner is None:
            return None
        try:
            hit = await self._quotas.get_or_load(("quota", link.account.id), lambda: planner.quota(link.account))
        except ApiError:
            # It is told beside an answer, which it must not cost.
            return None
        return hit.value

    async def _read(
        self, link: Link, vehicle: Vehicle, freshness: Freshness, *, is_forced: bool
    ) -> Snapshot | Aged[Snapshot]:
        account, provider = link.account, self._providers.get(link.account.provider)
        if provider.planner is not None:
            return await self._read_as_planned(account, vehicle, provider, provider.planner, freshness)
        is_admitted = not is_forced

        async def read() -> Snapshot:
            nonlocal is_admitted
            if not is_admitted:
                # Here, behind the circuit breaker: what is never sent wakes no car. Retries are the same read.
                await self._admit_forced_read(account, vehicle.vin)
                is_admitted = True
            return await provider.reads.read_vehicle(account, vehicle, forced=is_forced)

        return await self._share.fetch(
            account.id, vehicle.vin, lambda: self._upstream.read(account, read), freshness.max_age_s
        )

    async def _read_as_planned(
        self, account: Account, vehicle: Vehicle, provider: Provider, planner: PlanReads, freshness: Freshness
    ) -> Snapshot | Aged[Snapshot]:
        """A read from a maker who rations: what is known serves as long as the plan says so."""
        forced = freshness.max_age_s == 0
        known = await planner.recall(account, vehicle)
        plan = await planner.plan(account, vehicle, known, forced=forced)
        if plan.source == "poll":
            # Once: each attempt is paid for.
            self._quotas.invalidate(("quota", account.id))
            try:
                return await self._upstream.once(
                    account, "read", lambda: provider.reads.read_vehicle(account, vehicle, forced=forced)
                )
            except ApiError as failure:
                if known is None or not planned_reads.stands_in(failure, freshness.max_age_s):
                    raise
                return planned_reads.instead(known, self._since_s(known.fetched_at), now_s=self._clock.monotonic())
        age_s = self._since_s(known.fetched_at) if known is not None else 0.0
        if known is None or (freshness.max_age_s is not None and age_s >= freshness.max_age_s):
            raise planned_reads.refusal(plan)
        now_s = self._clock.monotonic()
        return planned_reads.as_planned(known, age_s, plan, now_s=now_s, read_ttl_s=self._read_ttl_s)

    async def _ask(self, account: Account, provider: Provider, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Ask the maker; once only where each attempt is paid for."""
        if provider.planner is not None:
            return await self._upstream.once(account, "read", call)
        return await self._upstream.read(account, call)

    def _since_s(self, moment: datetime) -> float:
        return max(0.0, (self._clock.utc() - moment).total_seconds())

    def known_capabilities(self, link: Link, vehicle: Vehicle) -> dict[str, bool] | None:
        """What is known of a vehicle's commands without asking; ``None`` where nothing is held."""
        hit = self._snapshots.get(("snapshot", link.account.id, vehicle.vin))
        return dict(hit.value.capabilities.commands) if hit else None

    async def image(self, link: Link, vehicle: Vehicle, view: str) -> Hit[bytes]:
        """A rendered picture, PNG."""
        provider = self._providers.get(link.account.provider)
        images = provider.images
        if images is None:
            raise NotSupported(f"{provider.name} has no pictures.")
        return await self._images.get_or_load(
            ("image", link.account.id, vehicle.vin, view),
            lambda: self._ask(link.account, provider, lambda: images.read_image(link.account, vehicle, view)),
        )

    async def records(
        self,
        link: Link,
        vehicle: Vehicle,
        name: str,
        load: Callable[[], Coroutine[Any, Any, bytes]],
        freshness: Freshness,
    ) -> Hit[bytes]:
        """What a maker has on record of a vehicle and changes seldom, as bytes, kept where its pictures are.

        ``name`` says all that it depends on. Asked for once, for a maker who rations charges each attempt. Raises
        CacheMiss under ``cache_only``.
        """
        key = ("image", link.account.id, vehicle.vin, f"records {name}")
        if freshness.cache_only:
            return _held(self._images.get(key, freshness.max_age_s))

        async def ask() -> bytes:
            self._quotas.invalidate(("quota", link.account.id))
            return await self._upstream.once(link.account, "read", load)

        return await self._images.get_or_load(key, ask, max_age_s=freshness.max_age_s)

    def forget(self, account_id: str) -> None:
        """Drop everything held about an account's vehicles."""
        self._lists.invalidate_where(("vehicles", account_id))
        self._snapshots.invalidate_where(("snapshot", account_id))
        self._images.invalidate_where(("image", account_id))

    async def changed(self, account_id: str, vin: str) -> None:
        """The vehicle's state has changed or may have: what any instance holds of it is not true any more."""
        self._snapshots.invalidate(("snapshot", account_id, vin))
        await self._share.invalidate(account_id, vin)
        # Once more: a load may have taken it from the others in between.
        self._snapshots.invalidate(("snapshot", account_id, vin))
        await self._tell_changed(account_id)

    def forget_snapshots(self, account_id: str) -> None:
        """Another instance says that an account's vehicles have changed."""
        self._snapshots.invalidate_where(("snapshot", account_id))

    def _is_forced(self, freshness: Freshness) -> bool:
        return freshness.is_callers and freshness.max_age_s is not None and freshness.max_age_s < self._read_ttl_s

    async def _load_list(self, link: Link, max_age_s: float, *, is_forced: bool) -> VehicleList:
        await needs_loop()
        stored = await self._links.find(link.principal, link.account.id)
        if stored.vehicles_at is not None:
            # What another instance was told serves a cold start.
            listed = VehicleList(stored.vehicles, stored.vehicles_at)
            if self._is_young(listed, max_age_s):
                return listed
        if is_forced:
            await self._admit_forced_list(link.account.id)
        provider, forced = self._providers.get(link.account.provider), max_age_s == 0
        vehicles = await self._ask(
            link.account, provider, lambda: provider.reads.list_vehicles(link.account, forced=forced)
        )
        listed = VehicleList(vehicles, self._clock.utc())
        await self._links.remember_vehicles(link, listed.vehicles, listed.listed_at)
        return listed

    def _is_young(self, listed: VehicleList, max_age_s: float) -> bool:
        # Somebody without a vehicle has just got his account, or is about to map one to it.
        return self._age_s(listed) < (max_age_s if listed.vehicles else min(max_age_s, _RELIST_AFTER_S))

    def _age_s(self, listed: VehicleList) -> float:
        # Another instance's clock may be a little ahead of ours; nothing is younger than now.
        return self._since_s(listed.listed_at)


def _held(hit: Hit[T] | None) -> Hit[T]:
    if hit is None:
        raise CacheMiss
    return hit


def _only(vehicles: tuple[Vehicle, ...]) -> Vehicle:
    if len(vehicles) == 1:
        return vehicles[0]
    if not vehicles:
        raise VehicleNotFound
    problem = f"The account has {len(vehicles)} vehicles: say which."
    raise ValidationFailed(details={"fields": [{"path": "vin", "problem": problem}]})


def _by_vin(vehicles: tuple[Vehicle, ...], vin: str) -> Vehicle | None:
    return next((vehicle for vehicle in vehicles if vehicle.vin == vin.upper()), None)
