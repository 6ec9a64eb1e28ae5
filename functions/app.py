"""The composition root: the only place that constructs anything.

Everything mutable hangs off :class:`App`. Tests and tools pass the collaborators that they want otherwise.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from common.breaker import Breakers, CircuitBreaker, State
from common.cache import Cache
from common.callers import Callers, ConfiguredCallers, NoCallers, OpenCallers
from common.clock import Clock, SystemClock
from common.errors import ProviderError
from common.logs import EventLog, configure
from common.loops import LoopThread
from common.memory import MemoryPressure
from common.metrics import BreakerReading, BreakerState, CacheReading, Metrics
from common.ratelimit_fixed import FixedLimiter
from common.ratelimit_moving import MovingLimiter
from common.retry import ReadRetry, RetryBudget
from common.settings import VERSION, Settings
from common.stores.documents import Documents
from functions.accounts import AccountManager, Verified
from functions.actions.catalogue import CATALOGUE
from functions.actions.spec import Services
from functions.audit import AuditTrail
from functions.command_ledger import CommandLedger
from functions.command_outcome import CommandOutcomes, CommandTimes
from functions.command_slot import CommandSlots
from functions.commands import CommandManager
from functions.dispatch import Dispatcher
from functions.idempotency import IdempotencyClaims
from functions.limits import LimitPolicy, RequestLimits
from functions.links import Link, LinkBook
from functions.login_guard import LoginGuard
from functions.pages import PAGE_NAMES, Pages, StoreCheck
from functions.pipeline import Pipeline
from functions.providers.registry import Parts, Providers
from functions.snapshot import Snapshot
from functions.step_up import StepUp
from functions.storage import open_storage
from functions.telemetry import Telemetry
from functions.tokens import TokenKeeper
from functions.upstream import BreakerKey, Upstream
from functions.vehicles import VehicleList, VehicleManager

LINK_TTL_S = 30.0
"""How long an instance may go on serving an account that another instance has disconnected."""
_SNAPSHOT_BYTES = 12_000
"""A snapshot's weight in the cache: measured at 8 to 11 kB for the nine recorded cars, texts and all."""
_LINK_BYTES = 8_000
_VERIFIED_BYTES = 500
_NOT_FOUND_TTL_S = 2.0
_SHOWN_AS: Mapping[State, BreakerState] = {
    State.CLOSED: "closed",
    State.FORCED_CLOSED: "closed",
    State.HALF_OPEN: "half_open",
    State.OPEN: "open",
    State.FORCED_OPEN: "open",
}


@dataclass(frozen=True)
class App:
    """One worker's service."""

    settings: Settings
    pipeline: Pipeline
    loop: LoopThread
    documents: Documents
    providers: Providers

    def close(self) -> None:
        """Release connections, files and the loop."""
        self.loop.submit(self.providers.close()).result(10)
        self.loop.submit(self.documents.aclose()).result(10)
        self.loop.close()


def build(
    settings: Settings,
    *,
    clock: Clock | None = None,
    documents: Documents | None = None,
    callers: Callers | None = None,
    health_at_root: bool = False,
) -> App:
    """A service from its settings. Opens nothing yet; raises ValueError where the settings name something unknown."""
    clock = clock or SystemClock()
    caches = _Caches(settings, clock)
    metrics = Metrics({spec.name for spec in CATALOGUE} | PAGE_NAMES)
    metrics.watch_caches(caches.readings)
    output = configure(
        level=settings.log_level,
        project_id=settings.google_cloud_project,
        environment=settings.environment,
        service="draiv-apis",
        version=VERSION,
        revision=settings.k_revision,
        on_drop=metrics.log_dropped,
    )
    events = EventLog(output, clock, strict=settings.environment == "development")
    telemetry = Telemetry(events, metrics, settings.log_key)
    documents, account_keys = open_storage(settings, clock, inner=documents, on_broken=telemetry.broken_seal)
    limits = _limits(settings, clock)
    tokens = TokenKeeper(documents, clock, observe=telemetry.token_refresh)
    providers = Providers(settings.providers, Parts(settings, tokens, clock, metrics))
    breakers = Breakers(_breaker_factory(settings, clock, telemetry))
    metrics.watch_breakers(lambda: _breaker_readings(breakers))
    upstream = Upstream(
        breakers,
        ReadRetry(attempts=settings.read_attempts, budget=RetryBudget(clock)),
        clock,
        {
            "read": settings.read_deadline_s,
            "command": settings.command_ttl_s,
            "auth": settings.login_deadline_s,
        },
    )
    links = LinkBook(documents)
    vehicles = VehicleManager(
        providers=providers,
        links=links,
        upstream=upstream,
        clock=clock,
        lists=caches.lists,
        snapshots=caches.snapshots,
        images=caches.images,
        list_ttl_s=settings.vehicle_list_ttl_s,
        read_ttl_s=settings.read_ttl_s,
        admit_forced_read=limits.admit_fresh_read,
    )
    accounts = AccountManager(
        providers=providers,
        links=links,
        tokens=tokens,
        keys=account_keys,
        documents=documents,
        upstream=upstream,
        guard=LoginGuard(documents, clock),
        limits=limits,
        clock=clock,
        link_cache=caches.links,
        session_cache=caches.sessions,
    )
    slots = CommandSlots(documents, clock)
    audit = AuditTrail(documents, clock, key=settings.audit_key.encode() if settings.audit_key else None)
    ledger = CommandLedger(documents, clock, slots, audit, observe=telemetry.command)
    commands = CommandManager(
        ledger=ledger,
        outcomes=CommandOutcomes(
            providers=providers,
            ledger=ledger,
            upstream=upstream,
            vehicles=vehicles,
            clock=clock,
            times=CommandTimes(settings.poll_interval_s, settings.confirm_window_s),
        ),
        claims=IdempotencyClaims(documents, clock),
        slots=slots,
        step_up=StepUp(
            documents, clock, confirm=frozenset(settings.confirm_commands), caps_per_hour=settings.command_caps
        ),
        upstream=upstream,
        vehicles=vehicles,
        clock=clock,
        ttl_s=settings.command_ttl_s,
        require_key=settings.require_idempotency_key,
    )
    pages = Pages(
        settings=settings,
        clock=clock,
        metrics=metrics,
        breakers=breakers,
        upstream=upstream,
        caches=caches.all,
        store=StoreCheck(documents, clock),
        health_at_root=health_at_root,
    )
    pipeline = Pipeline(
        dispatcher=Dispatcher(
            Services(accounts, vehicles, commands, providers, clock), limits, telemetry, settings.environment
        ),
        clock=clock,
        callers=callers or _callers(settings, documents, clock),
        pages=pages,
        telemetry=telemetry,
        max_body_bytes=settings.max_body_bytes,
        cors_origins=settings.cors_origins,
    )
    return App(settings, pipeline, LoopThread("draiv-loop"), documents, providers)


class _Caches:
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
        self.links: Cache[Link] = cache("links", 0.05, LINK_TTL_S, lambda _link: _LINK_BYTES)
        self.sessions: Cache[Verified] = cache(
            "sessions", 0.05, settings.session_ttl_s, lambda _verified: _VERIFIED_BYTES
        )
        self.all: tuple[Cache[Any], ...] = (self.snapshots, self.images, self.lists, self.links, self.sessions)

    def readings(self) -> list[CacheReading]:
        """How full each is."""
        return [CacheReading(s.name, s.entries, s.bytes) for s in (cache.stats() for cache in self.all)]


def _breaker_factory(settings: Settings, clock: Clock, telemetry: Telemetry) -> Callable[[BreakerKey], CircuitBreaker]:
    def make(key: BreakerKey) -> CircuitBreaker:
        return CircuitBreaker(
            failure_threshold=settings.breaker_failure_threshold,
            recovery_timeout=settings.breaker_recovery_timeout_s,
            expected_exception=ProviderError,
            name="/".join(key),
            clock=clock,
            on_change=telemetry.breaker,
        )

    return make


def _breaker_readings(breakers: Breakers[BreakerKey]) -> list[BreakerReading]:
    return [
        BreakerReading(provider, region, kind, _SHOWN_AS[snapshot.state])
        for (provider, region, kind), snapshot in breakers.snapshots().items()
    ]


def _limits(settings: Settings, clock: Clock) -> RequestLimits:
    shared = None
    if settings.redis_url:
        from common.ratelimit_redis import RedisLimits  # noqa: PLC0415 - load what is configured

        shared = RedisLimits(settings.redis_url, clock)
    policy = LimitPolicy(**{field.name: getattr(settings, f"limit_{field.name}") for field in fields(LimitPolicy)})
    return RequestLimits(policy, FixedLimiter(clock, shared), MovingLimiter(clock, shared))


def _callers(settings: Settings, documents: Documents, clock: Clock) -> Callers:
    if settings.callers == ("open",):
        return OpenCallers()
    if not settings.callers:
        return NoCallers()
    keys: Callers | None = None
    bearers: Callers | None = None
    if "api_keys" in settings.callers:
        from common.api_keys import ApiKeyCallers  # noqa: PLC0415 - load what is configured

        keys = ApiKeyCallers(documents, clock)
    if "oidc" in settings.callers:
        from common.issuers import parse_issuers  # noqa: PLC0415 - load what is configured
        from common.oidc import OidcCallers  # noqa: PLC0415

        bearers = OidcCallers(parse_issuers(settings.oidc_issuers or ""), clock)
    return ConfiguredCallers(api_keys=keys, bearers=bearers)
