"""Figures about the service, for Prometheus and for people.

One registry an instance of :class:`Metrics`, so that two in one process do not mix. Label values are bounded: callers
of this module pass names from tables, and anything else becomes ``unknown``. No label ever names a person or a car.
"""

import threading
from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Dense around the objective of 500 ms."""
_MAX_VALUES = 200
"""More values of one label than any table of ours has: from here on a new one is `unknown`."""
_BREAKER_STATES = ("closed", "half_open", "open", "forced_closed", "forced_open")

CacheFigures = tuple[str, int, int, int, int]
"""Name, hits, misses, entries, bytes."""


class Metrics:
    """Counts and times. Thread-safe; each method costs microseconds."""

    def __init__(self, cache_figures: Callable[[], Iterable[CacheFigures]] = tuple) -> None:
        self.registry = CollectorRegistry()
        self._cache_figures = cache_figures
        self._lock = threading.Lock()
        self._children: dict[tuple[str, ...], Any] = {}
        self._total = self._failed = 0
        self._seconds = 0.0

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"draiv_{name}", text, labels, registry=self.registry)

        def histogram(name: str, text: str, *labels: str) -> Histogram:
            return Histogram(f"draiv_{name}", text, labels, registry=self.registry, buckets=_SECONDS)

        self._requests = counter("requests", "Requests answered", "action", "outcome", "status")
        self._latency = histogram("request_duration_seconds", "Time to answer a request", "action", "outcome")
        self._upstream = counter("upstream_requests", "Requests sent to makers", "provider", "endpoint", "outcome")
        self._upstream_latency = histogram(
            "upstream_duration_seconds", "Makers' time to answer", "provider", "endpoint"
        )
        self._commands = counter("commands", "Commands that reached a state", "action", "state")
        self._refreshes = counter("token_refreshes", "Renewals of accounts' tokens", "outcome")
        self._limited = counter("rate_limited", "Requests over our own limits", "kind")
        self._breaker = Gauge(
            "draiv_breaker_state", "1 for the state it is in", ("breaker", "state"), registry=self.registry
        )
        self._cache_hits = Gauge("draiv_cache_hits", "Reads answered from memory", ("cache",), registry=self.registry)
        self._cache_misses = Gauge("draiv_cache_misses", "Reads not in memory", ("cache",), registry=self.registry)
        self._cache_entries = Gauge("draiv_cache_entries", "What is held", ("cache",), registry=self.registry)
        self._cache_bytes = Gauge("draiv_cache_bytes", "Weight of what is held", ("cache",), registry=self.registry)
        ProcessCollector(registry=self.registry)

    def request(self, action: str, outcome: str, status: int, seconds: float) -> None:
        """A request was answered; ``outcome`` is ``ok`` or an error code. 5xx count as failed, 4xx do not."""
        self._child(self._requests, "requests", action, outcome, str(status)).inc()
        self._child(self._latency, "latency", action, "ok" if status < 400 else "error").observe(seconds)
        with self._lock:
            self._total += 1
            self._failed += status >= 500
            self._seconds += seconds

    def upstream(self, provider: str, endpoint: str, outcome: str, seconds: float) -> None:
        """A maker answered, or did not; ``endpoint`` is a template without ids."""
        self._child(self._upstream, "upstream", provider, endpoint, outcome).inc()
        self._child(self._upstream_latency, "upstream_latency", provider, endpoint).observe(seconds)

    def command(self, action: str, state: str) -> None:
        """A command reached a state."""
        self._child(self._commands, "commands", action, state).inc()

    def token_refresh(self, outcome: str) -> None:
        """An account's tokens were renewed, or could not be."""
        self._child(self._refreshes, "refreshes", outcome).inc()

    def rate_limited(self, kind: str) -> None:
        """A request was over one of our own limits."""
        self._child(self._limited, "limited", kind).inc()

    def breaker(self, name: str, state: str) -> None:
        """A circuit breaker is in a state now."""
        for each in _BREAKER_STATES:
            self._child(self._breaker, "breaker", name, each).set(each == state)

    def summary(self) -> dict[str, Any]:
        """The figures of the health page: counts since the start, seconds, ratios from 0 to 1."""
        with self._lock:
            total, failed, seconds = self._total, self._failed, self._seconds
        figures = list(self._cache_figures())
        hits, misses = sum(f[1] for f in figures), sum(f[2] for f in figures)
        return {
            "requests_total": total,
            "requests_success": total - failed,
            "requests_failed": failed,
            "avg_response_time": round(seconds / total, 6) if total else 0.0,
            "error_rate": round(failed / total, 6) if total else 0.0,
            "cache_hit_ratio": round(hits / (hits + misses), 6) if hits + misses else 0.0,
        }

    def expose_text(self) -> tuple[bytes, str]:
        """The Prometheus text and its content type."""
        self._read_caches()
        return generate_latest(self.registry), CONTENT_TYPE_LATEST

    def expose_json(self) -> dict[str, Any]:
        """The same samples: ``{name: [{"labels": {...}, "value": ...}]}``, and the summary."""
        self._read_caches()
        samples: dict[str, list[dict[str, Any]]] = {}
        for family in self.registry.collect():
            for sample in family.samples:
                samples.setdefault(sample.name, []).append({"labels": sample.labels, "value": sample.value})
        return {"summary": self.summary(), "samples": samples}

    def _read_caches(self) -> None:
        for name, hits, misses, entries, size in self._cache_figures():
            self._cache_hits.labels(name).set(hits)
            self._cache_misses.labels(name).set(misses)
            self._cache_entries.labels(name).set(entries)
            self._cache_bytes.labels(name).set(size)

    def _child(self, metric: Any, name: str, *labels: str) -> Any:  # noqa: ANN401 - prometheus_client's own classes
        """A metric's child, found by a dict: `labels()` locks and costs several times as much."""
        key = (name, *labels)
        child = self._children.get(key)
        if child is None:
            if sum(1 for known in self._children if known[0] == name) >= _MAX_VALUES * len(labels):
                labels = ("unknown",) * len(labels)
            child = self._children[key if "unknown" not in labels else (name, *labels)] = metric.labels(*labels)
        return child
