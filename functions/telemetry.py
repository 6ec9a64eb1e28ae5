"""What the service tells its operators: one log event and the metrics of a request, a command, a breaker.

Everything that names a person or a car is hashed here, under the deployment's key, before it goes anywhere.
"""

from dataclasses import dataclass

from common.breaker import BreakerEvent, State
from common.callers import Caller
from common.logs import EventLog
from common.metrics import Metrics
from common.redact import fingerprint
from common.trace import TraceContext
from functions.command_record import Record
from functions.links import Link
from functions.wire import RawRequest, Reply


@dataclass(slots=True)
class Trail:
    """What is learnt of a request on its way."""

    request_id: str
    trace: TraceContext
    action: str = "unknown"
    caller: Caller | None = None
    link: Link | None = None
    vin: str | None = None
    cached: bool | None = None
    stale: bool | None = None
    error: str | None = None


class Telemetry:
    """Log events and metrics. Thread-safe, as both are."""

    def __init__(self, events: EventLog, metrics: Metrics, hash_key: str | None) -> None:
        self._events = events
        self._metrics = metrics
        self._hash_key = hash_key.encode() if hash_key else None

    def request(self, request: RawRequest, reply: Reply, trail: Trail, seconds: float) -> None:
        """A request was answered."""
        self._metrics.request(trail.action, trail.error or "ok", reply.status, seconds)
        self._events.request(
            severity="ERROR" if reply.status >= 500 else "WARNING" if reply.status >= 400 else "INFO",
            method=request.method,
            path=request.path,
            status=reply.status,
            response_bytes=len(reply.body),
            seconds=seconds,
            trace=trail.trace,
            request_id=trail.request_id,
            action=trail.action,
            code=trail.error,
            caller=self._hash(trail.caller.principal) if trail.caller else None,
            account=trail.link.account.id if trail.link else None,
            provider=trail.link.account.provider if trail.link else None,
            region=trail.link.account.region.value if trail.link else None,
            vehicle=self._hash(trail.vin) if trail.vin else None,
            cached=trail.cached,
            stale=trail.stale,
        )

    def defect(self, error: BaseException) -> None:
        """Something that nobody expected was raised."""
        self._events.defect("internal_error", error)

    def command(self, record: Record) -> None:
        """A command advanced."""
        self._metrics.command(record.command.name.value, record.state)
        self._events.emit(
            "command",
            "WARNING" if record.state in ("unknown", "failed", "expired") else "INFO",
            action=record.command.name.value,
            command_id=record.id,
            account=record.account_id,
            vehicle=self._hash(record.vin),
            state=record.state,
        )

    def breaker(self, event: BreakerEvent) -> None:
        """A circuit breaker changed its state."""
        self._metrics.breaker(event.breaker, event.after.value)
        self._events.emit(
            "breaker",
            "WARNING" if event.after is State.OPEN else "NOTICE",
            breaker=event.breaker,
            state=event.after.value,
            reason=event.reason.value,
        )

    def token_refresh(self, outcome: str) -> None:
        """An account's tokens were renewed, or could not be."""
        self._metrics.token_refresh(outcome)
        self._events.emit(
            "token_refresh", "WARNING" if outcome in ("failed", "invalid_grant") else "INFO", outcome=outcome
        )

    def _hash(self, value: str) -> str:
        return fingerprint(value, self._hash_key)
