"""What every entry point answers to GET: health, metrics and the OpenAPI document."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from common.breaker import Breakers, BreakerSnapshot, State
from common.cache import Cache
from common.clock import Clock
from common.errors import ProviderBlocked, StoreUnavailable
from common.loops import needs_loop
from common.metrics import Metrics
from common.settings import VERSION, Settings
from common.stores.documents import Documents
from functions import openapi, wire
from functions.upstream import BreakerKey, Upstream
from functions.wire import RawRequest, Reply

_STORE_CHECK_TTL_S = 5.0
"""Health is asked often; the store is not, and is billed by the operation."""
_STORE_CHECK_LIMIT_S = 0.08
"""Health answers within 100 ms, whatever the store does."""
PAGE_NAMES = frozenset({"health", "metrics", "openapi.json", "options"})
"""What requests for pages are counted as."""
_NOT_CACHED = {"Cache-Control": "no-store"}
_WORST_FIRST = (State.FORCED_OPEN, State.OPEN, State.HALF_OPEN, State.FORCED_CLOSED, State.CLOSED)


class StoreCheck:
    """Whether the document store answers, asked at most every few seconds."""

    def __init__(self, documents: Documents, clock: Clock) -> None:
        self._documents = documents
        self._clock = clock
        self._state = "unknown"
        self._checked_s = float("-inf")
        self._asking: asyncio.Task[None] | None = None

    async def state(self) -> str:
        """``ok``, ``slow`` (it has not answered in time) or ``unavailable``."""
        if self._clock.monotonic() - self._checked_s < _STORE_CHECK_TTL_S:
            return self._state
        await needs_loop()
        if self._asking is None or self._asking.done():
            self._asking = asyncio.get_running_loop().create_task(self._ask())
        done, _ = await asyncio.wait({self._asking}, timeout=_STORE_CHECK_LIMIT_S)
        return self._state if done else "slow"

    async def _ask(self) -> None:
        try:
            await self._documents.ping()
        except StoreUnavailable:
            self._state = "unavailable"
        else:
            self._state = "ok"
        self._checked_s = self._clock.monotonic()


class Pages:
    """The service's own pages, by path."""

    def __init__(  # noqa: PLR0913 - collaborators, each by its name
        self,
        *,
        settings: Settings,
        clock: Clock,
        metrics: Metrics,
        breakers: Breakers[BreakerKey],
        upstream: Upstream,
        caches: tuple[Cache[Any], ...],
        store: StoreCheck,
        shared_state: Callable[[], str],
        health_at_root: bool = False,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._breakers = breakers
        self._upstream = upstream
        self._caches = caches
        self._store = store
        self._shared_state = shared_state
        self._started_s = clock.monotonic()
        self._pages: dict[str, Callable[[RawRequest], Awaitable[Reply]]] = {
            "/health": self._health,
            "/metrics": self._show_metrics,
            "/openapi.json": self._openapi,
        }
        if health_at_root:
            self._pages["/"] = self._health
        self.paths = frozenset(self._pages)

    async def get(self, request: RawRequest) -> Reply:
        """The page at the request's path, which must be one of ``paths``."""
        return await self._pages[request.path](request)

    async def _health(self, _request: RawRequest) -> Reply:
        store, shared = await self._store.state(), self._shared_state()
        breakers = self._breakers.snapshots()
        troubled = (
            store == "slow" or shared == "degraded" or any(b.state is not State.CLOSED for b in breakers.values())
        )
        status = "unhealthy" if store == "unavailable" else "degraded" if troubled else "healthy"
        payload = {
            "status": status,
            "service": "draiv-apis",
            "version": VERSION,
            "revision": self._settings.k_revision,
            "environment": self._settings.environment,
            "uptime_s": round(self._clock.monotonic() - self._started_s, 1),
            "checks": {
                "token_store": store,
                "shared_state": shared,
                "providers": {name: self._provider(name, breakers) for name in self._settings.providers},
            },
            "metrics": {
                **self._metrics.summary(),
                "circuit_breaker_state": _worst(breakers.values()),
                "cache_size": sum(cache.stats().entries for cache in self._caches),
            },
        }
        return Reply(503 if status == "unhealthy" else 200, wire.encode(payload), headers=_NOT_CACHED)

    def _provider(self, name: str, breakers: Mapping[BreakerKey, BreakerSnapshot]) -> dict[str, Any]:
        own = {key: snapshot for key, snapshot in breakers.items() if key[0] == name}
        return {
            "breaker": _worst(own.values()),
            "blocked": any(b.held_by is not None and issubclass(b.held_by, ProviderBlocked) for b in own.values()),
            "last_success": self._upstream.last_success(name),
            "breakers": [
                {
                    "region": region,
                    "kind": kind,
                    "state": snapshot.state.value,
                    "failures": snapshot.failures,
                    "retry_after_s": snapshot.retry_after_s,
                }
                for (_, region, kind), snapshot in sorted(own.items(), key=lambda item: item[0])
            ],
        }

    async def _show_metrics(self, request: RawRequest) -> Reply:
        if "application/json" in request.headers.get("accept", ""):
            return Reply(200, wire.encode(self._metrics.expose_json()), headers=_NOT_CACHED)
        body, content_type = self._metrics.expose_text()
        return Reply(200, body, content_type, _NOT_CACHED)

    async def _openapi(self, _request: RawRequest) -> Reply:
        return Reply(200, wire.encode(openapi.document()), headers={"Cache-Control": "public, max-age=300"})


def _worst(breakers: Iterable[BreakerSnapshot]) -> str:
    states = {breaker.state for breaker in breakers}
    return next((state.value for state in _WORST_FIRST if state in states), State.CLOSED.value)
