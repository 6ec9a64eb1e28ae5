"""The composition root: the only place that puts the parts together.

Everything mutable hangs off :class:`App`. Tests and tools pass the collaborators that they want otherwise.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import product

from common.breaker import BreakerEvent, Breakers
from common.callers import Callers
from common.clock import Clock, SystemClock
from common.logs import EventLog, configure
from common.loops import LoopThread
from common.metrics import Metrics
from common.retry import ReadRetry, RetryBudget
from common.settings import VERSION, Settings
from common.stores.documents import Documents
from common.tracing import Tracing, open_tracing
from functions import assembly
from functions.accounts import AccountManager
from functions.actions.catalogue import CATALOGUE
from functions.actions.spec import Services
from functions.audit import AuditTrail
from functions.caches import Caches
from functions.command_ledger import CommandLedger
from functions.command_outcome import CommandOutcomes, CommandTimes
from functions.command_slot import CommandSlots
from functions.commands import CommandManager
from functions.device_login import DeviceLogins
from functions.dispatch import Dispatcher
from functions.idempotency import IdempotencyClaims
from functions.links import LinkBook
from functions.login_guard import LoginGuard
from functions.pages import PAGE_NAMES, Pages, StoreCheck
from functions.peers import CHANGED, ROTATED, UNLINKED, Peers
from functions.pipeline import Pipeline
from functions.providers.port import CommandName
from functions.providers.registry import Parts, Providers
from functions.step_up import StepUp
from functions.storage import naming_key, open_storage
from functions.telemetry import Telemetry
from functions.tokens import TokenKeeper
from functions.upstream import Upstream
from functions.vehicle_names import VehicleNames
from functions.vehicles import VehicleManager


@dataclass(frozen=True)
class App:
    """One worker's service."""

    settings: Settings
    pipeline: Pipeline
    loop: LoopThread
    documents: Documents
    closers: tuple[Callable[[], Awaitable[None]], ...]

    def close(self) -> None:
        """Write what has to last, then release connections, files and the loop."""
        for close in self.closers:
            self.loop.submit(_closed(close)).result(10)
        self.loop.close()


async def _closed(close: Callable[[], Awaitable[None]]) -> None:
    await close()


def build(
    settings: Settings,
    *,
    clock: Clock | None = None,
    documents: Documents | None = None,
    callers: Callers | None = None,
    tracing: Tracing | None = None,
    patience: assembly.Patience | None = None,
    health_at_root: bool = False,
) -> App:
    """A service from its settings. Opens nothing yet; raises ValueError where the settings name something unknown."""
    clock = clock or SystemClock()
    patience = patience or assembly.Patience()
    caches = Caches(settings, clock)
    metrics = Metrics({spec.name for spec in CATALOGUE} | PAGE_NAMES)
    metrics.watch_caches(caches.readings)
    metrics.begin_at_nought(
        product(settings.providers, ("failed", "invalid_grant", "rotated")),
        product((name.value for name in CommandName), ("expired", "failed", "unknown")),
    )
    tracing = tracing or open_tracing(
        settings.otel_exporter_otlp_endpoint,
        clock,
        environment=settings.environment,
        version=VERSION,
        revision=settings.k_revision,
    )
    metrics.listen_upstream(tracing.upstream)
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
    shared = assembly.shared_store(settings, clock, patience)
    counters = assembly.shared_counters(settings, clock, patience)
    limits = assembly.limits(settings, clock, counters)

    # Word between instances goes around in a circle: who hears it and who says it are built after what carries it.
    def forget_changed(account_id: str) -> None:
        vehicles.forget_snapshots(account_id)

    def forget_rotated(account_id: str) -> None:
        tokens.forget(account_id)

    def tell_circuit(event: BreakerEvent) -> None:
        peers.breaker_changed(event)

    def forget_unlinked(account_id: str) -> None:
        account_keys.forget(account_id)
        accounts.forget(account_id)
        vehicles.forget(account_id)

    def forget_what_may_be_gone() -> None:
        # First, so that whose account is gone is asked of the store before anything that is kept can stand in.
        accounts.forget_all()
        caches.snapshots.doubt()

    breakers = Breakers(assembly.breaker_factory(settings, clock, telemetry.breaker, tell_circuit))
    metrics.watch_breakers(lambda: assembly.breaker_readings(breakers))
    peers = Peers(
        shared,
        clock,
        breakers,
        handlers={CHANGED: forget_changed, UNLINKED: forget_unlinked, ROTATED: forget_rotated},
        on_gap=forget_what_may_be_gone,
        patience_s=patience.word_s,
    )
    tokens = TokenKeeper(documents, clock, observe=telemetry.token_refresh, announce=peers.rotated)
    providers = Providers(settings.providers, Parts(settings, tokens, documents, clock, metrics))
    upstream = Upstream(
        breakers,
        ReadRetry(attempts=settings.read_attempts, budget=RetryBudget(clock)),
        clock,
        {
            "read": settings.read_deadline_s,
            "command": settings.command_ttl_s,
            "auth": settings.login_deadline_s,
        },
        learn=peers.learn,
        tracing=tracing,
    )
    links = LinkBook(documents)
    names = VehicleNames(naming_key(settings))
    vehicles = VehicleManager(
        providers=providers,
        links=links,
        upstream=upstream,
        clock=clock,
        lists=caches.lists,
        snapshots=caches.snapshots,
        images=caches.images,
        quotas=caches.quotas,
        list_ttl_s=settings.vehicle_list_ttl_s,
        read_ttl_s=settings.read_ttl_s,
        admit_forced_read=lambda account, vin: limits.admit_fresh_read(names.of(account, vin)),
        admit_forced_list=limits.admit_fresh_list,
        share=assembly.snapshot_share(settings, shared, clock, account_keys),
        tell_changed=peers.changed,
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
        tell_unlinked=peers.unlinked,
    )
    logins = DeviceLogins(
        providers=providers,
        links=links,
        tokens=tokens,
        keys=account_keys,
        documents=documents,
        upstream=upstream,
        clock=clock,
        finish_disconnects=accounts.finish_disconnects,
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
            waiters=assembly.waiters(settings),
        ),
        claims=IdempotencyClaims(documents, clock),
        slots=slots,
        step_up=StepUp(
            documents, clock, confirm=frozenset(settings.confirm_commands), caps_per_hour=settings.command_caps
        ),
        links=links,
        names=names,
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
        shared_state=lambda: "degraded" if counters and counters.state == "degraded" else peers.state,
        health_at_root=health_at_root,
    )
    pipeline = Pipeline(
        dispatcher=Dispatcher(
            Services(accounts, logins, vehicles, commands, providers, clock),
            limits,
            telemetry,
            settings.environment,
            tracing,
        ),
        clock=clock,
        callers=callers or assembly.callers(settings, documents, clock, telemetry),
        pages=pages,
        fence=peers.fence,
        save_tokens=tokens.flush,
        telemetry=telemetry,
        max_body_bytes=settings.max_body_bytes,
        cors_origins=settings.cors_origins,
        tracing=tracing,
    )
    closers = (
        tokens.aclose,
        providers.close,
        peers.aclose,
        *((counters.aclose,) if counters else ()),
        documents.aclose,
        tracing.aclose,
    )
    return App(settings, pipeline, LoopThread("draiv-loop"), documents, closers)
