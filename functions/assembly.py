"""Parts of a worker that the settings choose: each imported only where it is chosen."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from common.breaker import BreakerEvent, Breakers, CircuitBreaker, State
from common.callers import Callers, ConfiguredCallers, NoCallers, OpenCallers
from common.clock import Clock
from common.errors import ProviderError
from common.metrics import BreakerReading, BreakerState
from common.ratelimit_fixed import FixedLimiter
from common.ratelimit_moving import MovingLimiter
from common.settings import Settings
from common.stores.documents import Documents
from common.stores.shared import Shared
from functions.limits import LimitPolicy, RequestLimits
from functions.peers import SharedSnapshots
from functions.storage import AccountKeys
from functions.telemetry import Telemetry
from functions.upstream import BreakerKey
from functions.waiters import Waiters

if TYPE_CHECKING:
    from common.ratelimit_redis import RedisLimits

_SHOWN_AS: Mapping[State, BreakerState] = {
    State.CLOSED: "closed",
    State.FORCED_CLOSED: "closed",
    State.HALF_OPEN: "half_open",
    State.OPEN: "open",
    State.FORCED_OPEN: "open",
}


@dataclass(frozen=True)
class Patience:
    """How long a request waits for what instances share, in seconds, before it goes on without."""

    store_s: float = 0.2
    word_s: float = 0.1
    limits_s: float = 0.1


def shared_store(settings: Settings, clock: Clock, patience: Patience) -> Shared | None:
    """What instances share; None for a single one."""
    if not settings.redis_url:
        return None
    from common.stores.shared import open_shared  # noqa: PLC0415 - load what is configured

    return open_shared(settings.redis_url, clock, namespace=f"draiv-{settings.environment}", timeout_s=patience.store_s)


def shared_counters(settings: Settings, clock: Clock, patience: Patience) -> "RedisLimits | None":
    """The counters of limits that instances share; None for a single one."""
    if not settings.redis_url:
        return None
    from common.ratelimit_redis import RedisLimits  # noqa: PLC0415 - load what is configured

    return RedisLimits(
        settings.redis_url, clock, prefix=f"draiv-{settings.environment}-limits", timeout_s=patience.limits_s
    )


def limits(settings: Settings, clock: Clock, counters: "RedisLimits | None") -> RequestLimits:
    """The limits that the settings name."""
    policy = LimitPolicy(**{field.name: getattr(settings, f"limit_{field.name}") for field in fields(LimitPolicy)})
    return RequestLimits(policy, FixedLimiter(clock, counters), MovingLimiter(clock, counters))


def waiters(settings: Settings) -> Waiters:
    """Places to wait in: half of the server's threads, unless the settings say how many."""
    # What functions-framework starts where it is not told.
    threads = settings.threads or 4 * (os.cpu_count() or 1)
    return Waiters(threads // 2 if settings.max_waiters is None else settings.max_waiters)


def snapshot_share(
    settings: Settings, shared: Shared | None, clock: Clock, keys: AccountKeys
) -> SharedSnapshots | None:
    """The snapshots that instances read for each other; None for a single one."""
    if shared is None:
        return None
    # A read and its retries end with their deadline; then whoever waits for it should wait no longer.
    patience_s = settings.read_deadline_s + 5
    return SharedSnapshots(shared, clock, keys, ttl_s=settings.read_ttl_s, patience_s=patience_s)


def breaker_factory(
    settings: Settings, clock: Clock, *on_change: Callable[[BreakerEvent], None]
) -> Callable[[BreakerKey], CircuitBreaker]:
    """Makes circuit breakers, whose changes all of ``on_change`` are told."""

    def tell(event: BreakerEvent) -> None:
        for listener in on_change:
            listener(event)

    def make(key: BreakerKey) -> CircuitBreaker:
        return CircuitBreaker(
            failure_threshold=settings.breaker_failure_threshold,
            recovery_timeout=settings.breaker_recovery_timeout_s,
            expected_exception=ProviderError,
            name="/".join(key),
            clock=clock,
            on_change=tell,
        )

    return make


def breaker_readings(breakers: Breakers[BreakerKey]) -> list[BreakerReading]:
    """The state of each breaker, for the metrics."""
    return [
        BreakerReading(provider, region, kind, _SHOWN_AS[snapshot.state])
        for (provider, region, kind), snapshot in breakers.snapshots().items()
    ]


def callers(settings: Settings, documents: Documents, clock: Clock, telemetry: Telemetry) -> Callers:
    """Who may call. Raises ValueError for issuers that make no sense."""
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

        bearers = OidcCallers(
            parse_issuers(settings.oidc_issuers or ""),
            clock,
            on_refusal=telemetry.id_token_refused,
            on_keys=lambda _issuer, outcome: telemetry.issuer_keys(outcome),
        )
    return ConfiguredCallers(api_keys=keys, bearers=bearers)
