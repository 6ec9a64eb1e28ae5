"""What the service tells its operators: one log event and the metrics of a request, a command, a breaker.

Everything that names a person or a car is hashed here, under the deployment's key, before it goes anywhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from common.breaker import BreakerEvent, State
from common.callers import Caller
from common.errors import ApiError, EndpointNotFound, InternalError
from common.logs import EventLog, HttpRequest, Severity
from common.metrics import Metrics
from common.redact import fingerprint
from common.trace import TraceContext
from functions.command_record import Record
from functions.limits import LimitRefused, Tally
from functions.links import Link
from functions.wire import RawRequest, Reply


@dataclass(slots=True)
class Trail:
    """What is learnt of a request on its way."""

    request_id: str
    trace: TraceContext
    arrived_s: float
    """When the request came, on the monotonic clock."""
    action: str = "unknown"
    caller: Caller | None = None
    link: Link | None = None
    vin: str | None = None
    cached: bool | None = None
    stale: bool | None = None
    error: str | None = None
    tally: Tally = field(default_factory=Tally)
    """How our limits stand, for the reply's headers."""


_OUTCOMES: Mapping[int, tuple[str, Severity]] = {
    2: ("success", "INFO"),
    4: ("rejected", "WARNING"),
    5: ("failed", "ERROR"),
}
"""By the first digit of the status."""
_METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})
_UNHAPPY = frozenset({"unknown", "failed", "expired"})


class Telemetry:
    """Log events and metrics. Thread-safe, as both are."""

    def __init__(self, events: EventLog, metrics: Metrics, hash_key: str | None) -> None:
        self._events = events
        self._metrics = metrics
        self._hash_key = hash_key.encode() if hash_key else None

    def request(self, request: RawRequest, reply: Reply, trail: Trail, seconds: float) -> None:
        """A request was answered."""
        # What a stranger makes up may be anything, somebody's secret too.
        method = request.method if request.method in _METHODS else "UNKNOWN"
        path = "unknown" if trail.error == EndpointNotFound.code else request.path
        http = HttpRequest(method, path, reply.status, seconds, len(reply.body))
        self._answered("request", trail, reply.status, seconds, http)

    def part(self, trail: Trail, status: int, seconds: float) -> None:
        """A part of a batch was answered."""
        self._answered("request_part", trail, status, seconds, None)

    def _answered(self, event: str, trail: Trail, status: int, seconds: float, http: HttpRequest | None) -> None:
        outcome, severity = _OUTCOMES[status // 100] if status != 501 else _OUTCOMES[4]
        self._metrics.request(trail.action, outcome, status, seconds)
        if trail.cached is not None:
            self._metrics.cache("snapshots", "stale" if trail.stale else "hit" if trail.cached else "miss")
        account = trail.link.account if trail.link else None
        fields = {
            "code": trail.error,
            "caller": self._hash(trail.caller.principal) if trail.caller else None,
            "account": account.id if account else None,
            "provider": account.provider if account else None,
            "region": account.region.value if account else None,
            "vehicle": self._hash(trail.vin) if trail.vin else None,
            "cached": trail.cached,
            "stale": trail.stale,
        }
        self._events.emit(
            event,
            severity,
            trace=trail.trace,
            http=http,
            request_id=trail.request_id,
            action=trail.action,
            outcome=outcome,
            duration_ms=round(seconds * 1000, 3),
            **_known(fields),
        )

    def refusal(self, error: ApiError, trail: Trail) -> None:
        """A request or a part of one ends in an error."""
        trail.error = type(error).code
        if isinstance(error, InternalError):
            self.defect(error)
        if isinstance(error, LimitRefused):
            trail.tally.note(error.standings)
            self._metrics.rate_limited(str(error.details["limit"]))

    def broken_seal(self, collection: str, reason: str) -> None:
        """A stored document is not what was stored: somebody may have tampered with it."""
        self._events.emit("broken_seal", "CRITICAL", component=collection, reason=reason)

    def defect(self, error: BaseException) -> None:
        """Something that nobody expected was raised."""
        self._events.emit("internal_error", "ERROR", error=error)

    def command(self, record: Record) -> None:
        """A command advanced."""
        self._metrics.commands(record.command.name.value, record.state)
        self._events.emit(
            "command",
            "WARNING" if record.state in _UNHAPPY else "INFO",
            operation=record.command.name.value,
            command_id=record.id,
            account=record.account_id,
            vehicle=self._hash(record.vin),
            state=record.state,
        )

    def breaker(self, event: BreakerEvent) -> None:
        """A circuit breaker changed its state."""
        self._events.emit(
            "breaker",
            "WARNING" if event.after is State.OPEN else "INFO",
            breaker=event.breaker,
            previous=event.before.value,
            state=event.after.value,
            reason=event.reason.value,
        )

    def token_refresh(self, provider: str, outcome: str) -> None:
        """An account's tokens were renewed, or could not be."""
        self._metrics.token_refresh(provider, outcome)
        severity: Severity = "WARNING" if outcome in ("failed", "invalid_grant") else "INFO"
        self._events.emit("token_refresh", severity, provider=provider, outcome=outcome)

    def id_token_refused(self, reason: str) -> None:
        """A caller's ID token was refused: counted by its reason, which nobody else learns."""
        self._metrics.id_token_refused(reason)

    def issuer_keys(self, outcome: str) -> None:
        """The keys of an issuer of ID tokens were fetched (``ok``), or what went wrong."""
        self._metrics.issuer_keys(outcome if outcome == "ok" else "failed")
        if outcome != "ok":
            self._events.emit("issuer_keys", "WARNING", outcome="failed", reason=outcome)

    def _hash(self, value: str) -> str:
        return fingerprint(value, self._hash_key)


def _known(fields: Mapping[str, str | bool | None]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
