"""What the service counts and measures, for Prometheus and for ``/health``.

One :class:`Metrics` belongs to one app and has a registry of its own, so two apps in a process never share a figure.
Call sites say what happened; names, labels and buckets are decided here, once. Every label has a bounded number of
values: an action must be in the catalogue given at the start, and a family that has reached :data:`MAX_SERIES`
combinations counts further ones under ``unknown``, as it does for an unknown action.

What counts as failed: a reply with a 5xx status, except 501: a petrol car asked to charge is no failure of ours. That
and a 4xx reply are *rejected*, the caller's doing, and counted apart;
``error_rate`` is failed / all.
"""

from collections import Counter as Counts
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypedDict, TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from common.redact import redact

# Each *_created series doubles a counter and says only when the process started. The switch is a global of the library.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's, without types

MAX_SERIES = 500
_NOT_IMPLEMENTED = "501"
UNKNOWN = "unknown"
REQUEST_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1, 2, 5, 10, 30, 60)
"""Close together around the objective, 500 ms; the low end tells a cached answer from a slow cached answer."""
UPSTREAM_BUCKETS_S = (0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 20, 45)

CacheResult = Literal["hit", "miss", "stale", "shared"]
"""``shared``: another caller's fetch of the same thing was waited for. ``stale``: the maker failed, old data served."""
BreakerState = Literal["closed", "half_open", "open"]
BREAKER_STATES: tuple[BreakerState, ...] = ("closed", "half_open", "open")

UpstreamListener = Callable[[str, str, str, float], None]
"""Told provider, endpoint, outcome and seconds."""

_Child = TypeVar("_Child", Counter, Histogram)
_Reading = TypeVar("_Reading")


@dataclass(frozen=True, slots=True)
class BreakerReading:
    """The state of one circuit breaker now."""

    provider: str
    region: str
    kind: str
    """read, command or auth"""
    state: BreakerState


@dataclass(frozen=True, slots=True)
class CacheReading:
    """How full one cache is now."""

    name: str
    entries: int
    bytes: int


class Summary(TypedDict):
    """The figures of ``/health``."""

    requests_total: int
    requests_success: int
    requests_rejected: int
    requests_failed: int
    avg_response_time: float
    """Seconds; 0 before the first request."""
    error_rate: float
    cache_hit_ratio: float


class _Family(Generic[_Child]):
    """A metric with labels, and its children by label values: finding one in a plain dict costs a tenth of labels()."""

    def __init__(self, parent: _Child, *, keep_last: bool = False) -> None:
        """``keep_last``: the last label has few values by nature and is not replaced by ``unknown``."""
        self._parent: _Child = parent
        self._keep_last = keep_last
        self._children: dict[tuple[str, ...], _Child] = {}

    def samples(self, suffix: str) -> list[Sample]:
        """Every child's sample whose name ends so."""
        return [one for metric in self._parent.collect() for one in metric.samples if one.name.endswith(suffix)]

    def __call__(self, *labels: str) -> _Child:
        child = self._children.get(labels)
        return child if child is not None else self._bind(labels)

    def _bind(self, labels: tuple[str, ...]) -> _Child:
        # A label is a word of ours. Should one hold more, it is masked here, once, when it is first seen.
        shown = [redact(label) for label in labels]
        if len(self._children) < MAX_SERIES:
            return self._children.setdefault(labels, self._child(shown))
        # Not remembered under the asked labels, or the dict would grow instead.
        return self._child([UNKNOWN] * (len(shown) - 1) + [shown[-1] if self._keep_last else UNKNOWN])

    def _child(self, labels: list[str]) -> _Child:
        child: _Child = self._parent.labels(*labels)
        return child


class Metrics:
    """Every figure of one app. Safe to use from any thread; a call costs a few microseconds at most."""

    def __init__(self, actions: Collection[str]) -> None:
        """``actions`` are the names that may appear as label ``action``."""
        self._actions = frozenset(actions)
        self._on_upstream: UpstreamListener | None = None
        self._registry = registry = CollectorRegistry(auto_describe=True)
        self._requests = _Family(
            Counter("draiv_requests", "Requests answered.", ["action", "outcome", "status"], registry=registry),
            keep_last=True,
        )
        self._request_seconds = _Family(
            Histogram(
                "draiv_request_duration_seconds",
                "Time from the request's arrival to its reply.",
                ["action", "outcome"],
                buckets=REQUEST_BUCKETS_S,
                registry=registry,
            )
        )
        self._upstream_seconds = _Family(
            Histogram(
                "draiv_upstream_request_duration_seconds",
                "Time a request to a maker took.",
                ["provider", "endpoint", "outcome"],
                buckets=UPSTREAM_BUCKETS_S,
                registry=registry,
            )
        )
        self._connections = _Family(
            Counter(
                "draiv_upstream_connections",
                "Connections opened to makers, each with a TLS handshake.",
                ["provider"],
                registry=registry,
            )
        )
        self._cache = _Family(Counter("draiv_cache_lookups", "Cache lookups.", ["cache", "result"], registry=registry))
        self._commands = _Family(
            Counter("draiv_commands", "Commands that reached a state.", ["action", "state"], registry=registry)
        )
        self._refreshes = _Family(
            Counter(
                "draiv_token_refreshes", "Refreshes of a maker's token.", ["provider", "outcome"], registry=registry
            )
        )
        self._limited = _Family(
            Counter("draiv_rate_limited", "Requests refused by a limit of ours.", ["kind"], registry=registry)
        )
        self._tokens_refused = _Family(
            Counter("draiv_id_tokens_refused", "Callers' ID tokens refused.", ["reason"], registry=registry)
        )
        self._key_fetches = _Family(
            Counter("draiv_issuer_key_fetches", "Fetches of an issuer's keys.", ["outcome"], registry=registry)
        )
        self._dropped = Counter(
            "draiv_log_records_dropped", "Log lines and fields that could not be logged.", registry=registry
        )
        self._readings = _Readings()
        registry.register(self._readings)
        ProcessCollector(namespace="draiv", registry=registry)

    def begin_at_nought(self, refreshes: Iterable[tuple[str, str]], commands: Iterable[tuple[str, str]]) -> None:
        """Show counters that have counted nothing yet: (provider, outcome) and (action, state).

        Prometheus' ``increase`` does not see a series begin at 1, so an alert would miss the first of each.
        """
        for provider, outcome in refreshes:
            self._refreshes(provider, outcome)
        for action, state in commands:
            self._commands(action, state)

    def request(self, action: str, outcome: str, status: int, seconds: float) -> None:
        """A request was answered. ``outcome`` is a word of a small vocabulary, ``status`` the reply's HTTP status."""
        known = action if action in self._actions else UNKNOWN
        self._requests(known, outcome, str(status)).inc()
        self._request_seconds(known, outcome).observe(seconds)

    def upstream(self, provider: str, endpoint: str, outcome: str, seconds: float) -> None:
        """A request to a maker ended. ``endpoint`` is a name, never a URL with ids in it."""
        self._upstream_seconds(provider, endpoint, outcome).observe(seconds)
        if self._on_upstream is not None:
            self._on_upstream(provider, endpoint, outcome, seconds)

    def listen_upstream(self, listener: UpstreamListener) -> None:
        """Tell ``listener`` of each request to a maker, too."""
        self._on_upstream = listener

    def upstream_connection(self, provider: str) -> None:
        """A connection to a maker was opened."""
        self._connections(provider).inc()

    def cache(self, name: str, result: CacheResult) -> None:
        """The cache ``name`` was asked."""
        self._cache(name, result).inc()

    def commands(self, action: str, state: str) -> None:
        """A command reached ``state``."""
        self._commands(action if action in self._actions else UNKNOWN, state).inc()

    def token_refresh(self, provider: str, outcome: str) -> None:
        """A maker's token was refreshed, or was not."""
        self._refreshes(provider, outcome).inc()

    def rate_limited(self, kind: str) -> None:
        """A request was refused by the limit ``kind``."""
        self._limited(kind).inc()

    def id_token_refused(self, reason: str) -> None:
        """A caller's ID token was refused."""
        self._tokens_refused(reason).inc()

    def issuer_keys(self, outcome: str) -> None:
        """The keys of an issuer of ID tokens were fetched (``ok``), or could not be (``failed``)."""
        self._key_fetches(outcome).inc()

    def log_dropped(self) -> None:
        """A log line or field was lost."""
        self._dropped.inc()

    def watch_breakers(self, read: Callable[[], Iterable[BreakerReading]]) -> None:
        """Ask ``read`` for the state of every circuit breaker whenever the metrics are read."""
        self._readings.breakers = read

    def watch_caches(self, read: Callable[[], Iterable[CacheReading]]) -> None:
        """Ask ``read`` how full every cache is whenever the metrics are read."""
        self._readings.caches = read

    def expose_text(self) -> tuple[bytes, str]:
        """The metrics in Prometheus' text format, and its content type."""
        encode, content_type = choose_encoder("")
        return encode(self._registry), content_type

    def expose_json(self) -> dict[str, Any]:
        """The same figures as an object.

        ``{"summary": {...}, "metrics": {name: {"type", "help", "samples": [{"name", "labels", "value"}]}}}``
        """
        return {
            "summary": self.summary(),
            "metrics": {
                metric.name: {
                    "type": metric.type,
                    "help": metric.documentation,
                    "samples": [{"name": one.name, "labels": one.labels, "value": one.value} for one in metric.samples],
                }
                for metric in self._registry.collect()
            },
        }

    def summary(self) -> Summary:
        """What ``/health`` tells, added up from the same series."""
        by_class: Counts[str] = Counts()
        for one in self._requests.samples("_total"):
            status = one.labels["status"]
            by_class["4" if status == _NOT_IMPLEMENTED else status[:1]] += int(one.value)
        by_result: Counts[str] = Counts()
        for one in self._cache.samples("_total"):
            by_result[one.labels["result"]] += int(one.value)
        total, lookups = by_class.total(), by_result.total()
        seconds = sum(one.value for one in self._request_seconds.samples("_sum"))
        return {
            "requests_total": total,
            "requests_success": total - by_class["4"] - by_class["5"],
            "requests_rejected": by_class["4"],
            "requests_failed": by_class["5"],
            "avg_response_time": seconds / total if total else 0.0,
            "error_rate": by_class["5"] / total if total else 0.0,
            "cache_hit_ratio": by_result["hit"] / lookups if lookups else 0.0,
        }


class _Readings(Collector):
    """Gauges whose values are asked for only when somebody reads the metrics."""

    def __init__(self) -> None:
        self.breakers: Callable[[], Iterable[BreakerReading]] = tuple
        self.caches: Callable[[], Iterable[CacheReading]] = tuple

    def collect(self) -> Iterable[Metric]:
        """One series a breaker and state, 1 for the state it is in; entries and bytes of each cache."""
        states = GaugeMetricFamily(
            "draiv_breaker_state",
            "1 for the state the circuit breaker is in, else 0.",
            labels=["provider", "region", "kind", "state"],
        )
        for breaker in _asked(self.breakers):
            for state in BREAKER_STATES:
                key = [breaker.provider, breaker.region, breaker.kind, state]
                states.add_metric(key, float(breaker.state == state))
        entries = GaugeMetricFamily("draiv_cache_entries", "Entries held.", labels=["cache"])
        size = GaugeMetricFamily("draiv_cache_bytes", "Bytes held.", labels=["cache"])
        for cache in _asked(self.caches):
            entries.add_metric([cache.name], cache.entries)
            size.add_metric([cache.name], cache.bytes)
        return [states, entries, size]


def _asked(read: Callable[[], Iterable[_Reading]]) -> list[_Reading]:
    try:
        return list(read())
    except Exception:  # noqa: BLE001 - a broken gauge is missing, which alerts can see; the other figures still count
        return []
