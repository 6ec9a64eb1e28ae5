"""JSON lines on stdout, as Cloud Logging reads them.

Two ways lead to one sink. :class:`EventLog` is ours: an event has a stable name and allow-listed fields, and costs
microseconds. Libraries log through :mod:`logging`; their records get the same shape. Whatever comes is redacted after
it has been formatted, at the sink, where nothing can be added any more.
"""

import logging
import sys
import threading
import traceback
from datetime import UTC, datetime
from typing import Any, TextIO

import orjson

from common.redact import redact
from common.trace import TraceContext

FIELDS = frozenset(
    {
        # what was asked, and how it went
        "action", "outcome", "code", "state", "reason", "problem", "duration_ms", "cached", "stale", "age_s",
        "attempt", "count",
        # by whom and for which car: ids of ours and keyed hashes
        "request_id", "caller", "account", "vehicle", "command_id",
        # at which maker
        "provider", "region", "endpoint", "breaker", "upstream_requests",
        # where in the code, for defects
        "error_type", "stack", "logger",
    }
)  # fmt: skip
"""The only names that an event may carry."""

_QUIET = ("httpx", "httpcore", "google", "urllib3", "asyncio", "werkzeug", "aiosqlite", "hpack")
_SEVERITIES = {"DEBUG": 10, "INFO": 20, "NOTICE": 25, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}
_OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS


class UnknownFieldError(Exception):
    """An event carries a field that is not allow-listed."""


class EventLog:
    """Writes events. Thread-safe; a failure to write never reaches the caller."""

    def __init__(
        self,
        *,
        level: str = "INFO",
        project_id: str | None = None,
        labels: dict[str, str] | None = None,
        stream: TextIO | None = None,
        strict: bool = False,
    ) -> None:
        self._level = _SEVERITIES[level]
        self._project_id = project_id
        self._labels = labels or {}
        self._stream = stream
        self._strict = strict
        self._lock = threading.Lock()
        self.dropped_fields = 0
        self.failed_writes = 0

    def emit(self, event: str, severity: str = "INFO", **fields: Any) -> None:  # noqa: ANN401 - JSON values
        """One event. A field that is not in ``FIELDS`` is left out and counted; where strict, it raises."""
        if _SEVERITIES[severity] < self._level:
            return
        unknown = fields.keys() - FIELDS
        if unknown:
            if self._strict:
                raise UnknownFieldError(", ".join(sorted(unknown)))
            self.dropped_fields += len(unknown)
            fields = {name: value for name, value in fields.items() if name in FIELDS}
        self._write({**self._head(event, severity), **{k: v for k, v in fields.items() if v is not None}})

    def request(
        self,
        *,
        severity: str,
        method: str,
        path: str,
        status: int,
        response_bytes: int,
        seconds: float,
        trace: TraceContext,
        **fields: Any,  # noqa: ANN401 - JSON values
    ) -> None:
        """The one event of a request, with what Cloud Logging shows of HTTP and ties to its trace."""
        if _SEVERITIES[severity] < self._level:
            return
        unknown = fields.keys() - FIELDS
        if unknown and self._strict:
            raise UnknownFieldError(", ".join(sorted(unknown)))
        entry = self._head("request", severity)
        entry["httpRequest"] = {
            "requestMethod": method,
            "requestUrl": path,
            "status": status,
            "responseSize": str(response_bytes),
            "latency": f"{seconds:.6f}s",
        }
        if self._project_id:
            entry["logging.googleapis.com/trace"] = f"projects/{self._project_id}/traces/{trace.trace_id}"
        entry["logging.googleapis.com/spanId"] = trace.span_id
        entry["logging.googleapis.com/trace_sampled"] = trace.sampled
        entry["duration_ms"] = round(seconds * 1000, 3)
        entry.update((name, value) for name, value in fields.items() if value is not None and name in FIELDS)
        self._write(entry)

    def defect(self, event: str, error: BaseException) -> None:
        """An exception that nobody expected: its type and where it came from, never its words."""
        stack = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in _frames(error)]
        self.emit(event, "ERROR", error_type=type(error).__qualname__, stack=stack[-12:])

    def _head(self, event: str, severity: str) -> dict[str, Any]:
        entry: dict[str, Any] = {"severity": severity, "message": event, "time": datetime.now(UTC)}
        if self._labels:
            entry["logging.googleapis.com/labels"] = self._labels
        return entry

    def _write(self, entry: dict[str, Any]) -> None:
        try:
            line = redact(orjson.dumps(entry, default=_name_of_type, option=_OPTIONS).decode()) + "\n"
            # Looked up at each write: LOG_EXECUTION_ID wraps stdout after this object was made.
            stream = self._stream or sys.stdout
            with self._lock:
                stream.write(line)
                stream.flush()
        except Exception:  # noqa: BLE001 - a request must not fail because its log line did
            self.failed_writes += 1


class _LibraryHandler(logging.Handler):
    """Brings libraries' records to the sink. Their exceptions' words are dropped: they may quote anything."""

    def __init__(self, events: EventLog) -> None:
        super().__init__()
        self._events = events

    def emit(self, record: logging.LogRecord) -> None:
        severity = record.levelname if record.levelname in _SEVERITIES else "INFO"
        if record.exc_info and record.exc_info[1] is not None:
            self._events.defect(f"{record.name}: exception", record.exc_info[1])
        else:
            self._events.emit("library", severity, logger=record.name, problem=record.getMessage())


def configure(
    *,
    level: str,
    project_id: str | None,
    environment: str,
    service: str,
    version: str,
    revision: str,
    stream: TextIO | None = None,
) -> EventLog:
    """Make the sink and lead all logging to it. Calling it again replaces the former sink."""
    labels = {"service": service, "version": version, "revision": revision, "environment": environment}
    events = EventLog(
        level=level, project_id=project_id, labels=labels, stream=stream, strict=environment == "development"
    )
    root = logging.getLogger()
    for handler in [h for h in root.handlers if isinstance(h, _LibraryHandler)]:
        root.removeHandler(handler)
    root.addHandler(_LibraryHandler(events))
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    # It logs the maker's words, VINs among them, at ERROR; what they mean reaches us as exceptions.
    logging.getLogger("bimmer_connected").setLevel(logging.CRITICAL + 1)
    return events


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
    return list(traceback.extract_tb(error.__traceback__))


def _name_of_type(value: object) -> str:
    return f"<{type(value).__name__}>"
