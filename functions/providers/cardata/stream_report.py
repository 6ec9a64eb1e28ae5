"""What the stream worker tells its operators: log events and metrics."""

from collections.abc import Callable, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder

from common.errors import ApiError
from common.logs import EventLog
from functions.providers.cardata.stream_retry import Ending, Failures

# As in common.metrics: each *_created series doubles a counter and says only when the process started.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's, without types

_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_LOUD = frozenset({Ending.EVICTED, Ending.RELINK_REQUIRED, Ending.NOT_SUBSCRIBED, Ending.REFUSED})
"""What the owner, or we, can do something about."""


class StreamReport:
    """Every word and figure of one worker. An account is named by its id, a car and a customer not at all."""

    def __init__(self, events: EventLog) -> None:
        self._events = events
        self._registry = registry = CollectorRegistry(auto_describe=True)
        self._messages = Counter(
            "draiv_stream_messages",
            "Messages by how far they have come: received, kept (a killed worker does not lose it), stored, malformed.",
            ["stage"],
            registry=registry,
        )
        for stage in ("received", "kept", "stored", "malformed"):
            self._messages.labels(stage)
        self._kept_s = Histogram(
            "draiv_stream_kept_seconds",
            "From the receipt of a message until no kill can lose it.",
            buckets=_BUCKETS_S,
            registry=registry,
        )
        self._stored_s = Histogram(
            "draiv_stream_stored_seconds",
            "From the receipt of a message until readers find it.",
            buckets=_BUCKETS_S,
            registry=registry,
        )
        self._connects = Counter("draiv_stream_connects", "Connections made.", registry=registry)
        self._endings = Counter(
            "draiv_stream_endings", "Connections that ended, or were not made.", ["reason"], registry=registry
        )
        self._refreshes = Counter(
            "draiv_stream_token_refreshes", "Rotations of tokens.", ["outcome"], registry=registry
        )
        self._gap_s = Histogram(
            "draiv_stream_gap_seconds",
            "How long nobody listened for a customer whose connection had ended.",
            buckets=(*_BUCKETS_S, 300, 3600),
            registry=registry,
        )
        self._store_failures = Counter(
            "draiv_stream_store_failures", "Attempts to store that failed; they are repeated.", registry=registry
        )
        self._dropped = Counter(
            "draiv_log_records_dropped", "Log lines and fields that could not be logged.", registry=registry
        )
        ProcessCollector(namespace="draiv", registry=registry)

    def watch(self, states: Callable[[], Mapping[str, int]], unsaved: Callable[[], int]) -> None:
        """Ask for the customers by state, and the cars with unsaved signals, whenever the metrics are read."""
        self._states = states
        self._customers = Gauge(
            "draiv_stream_customers", "Customers of this worker, by state.", ["state"], registry=self._registry
        )
        unsaved_cars = Gauge(
            "draiv_stream_unsaved_cars", "Cars with signals that are not stored yet.", registry=self._registry
        )
        unsaved_cars.set_function(unsaved)

    def expose(self) -> tuple[bytes, str]:
        """The metrics in Prometheus' text format, and its content type."""
        self._customers.clear()
        for state, count in self._states().items():
            self._customers.labels(state).set(count)
        encode, content_type = choose_encoder("")
        return encode(self._registry), content_type

    def received(self) -> None:
        """A message came in."""
        self._messages.labels("received").inc()

    def malformed(self) -> None:
        """Something came in that is no message."""
        self._messages.labels("malformed").inc()

    def kept(self, messages: int, seconds: float) -> None:
        """No kill can lose ``messages`` any more, ``seconds`` after the first of them came in."""
        self._messages.labels("kept").inc(messages)
        self._kept_s.observe(seconds)

    def stored(self, messages: int, seconds: float) -> None:
        """Readers find ``messages`` now, ``seconds`` after the first of them came in."""
        self._messages.labels("stored").inc(messages)
        self._stored_s.observe(seconds)

    def store_failed(self, account_id: str, error: Exception, attempt: int) -> None:
        """The signals of an account could not be stored."""
        self._store_failures.inc()
        self._events.emit("stream_store_failed", "WARNING", account=account_id, attempt=attempt, error=error)

    def connected(self, account_id: str, gap_s: float | None) -> None:
        """A customer is listened to, after nobody did for ``gap_s``; ``None`` where that is not known."""
        self._connects.inc()
        if gap_s is not None:
            self._gap_s.observe(gap_s)
        self._events.emit("stream_connected", "DEBUG", account=account_id)

    def ended(self, account_id: str, ending: Ending, failures: Failures, wait_s: float) -> None:
        """A customer is not listened to, for ``wait_s`` from now."""
        self._endings.labels(ending.value).inc()
        self._events.emit(
            "stream_contested" if failures.is_fight and ending is Ending.EVICTED else "stream_ended",
            "WARNING" if ending in _LOUD else "INFO",
            account=account_id,
            reason=ending.value,
            attempt=failures.evictions if ending is Ending.EVICTED else failures.count,
            retry_after_s=round(wait_s, 1),
        )

    def not_renewed(self, account_id: str, reason: str) -> None:
        """A connection could not be replaced before its ID token ends; it is tried again."""
        self._events.emit("stream_renewal_failed", "WARNING", account=account_id, reason=reason)

    def token_refresh(self, _provider: str, outcome: str) -> None:
        """Tokens were rotated, or were not."""
        self._refreshes.labels(outcome).inc()

    def worker(self, event: str, *, count: int | None = None, error: Exception | None = None) -> None:
        """Something about the worker as a whole; ``count`` customers."""
        code = error.code if isinstance(error, ApiError) else None
        self._events.emit(event, "ERROR" if error else "INFO", count=count, code=code, error=error)

    def log_dropped(self) -> None:
        """A log line or field was lost."""
        self._dropped.inc()
