"""Structured logs: one JSON object a line on stdout, as Cloud Logging reads it.

Two ways in, one way out. Our own code says what happened with :meth:`EventLog.emit`: a stable event name and fields
from the list in :data:`FIELDS`, never an argument or a text of somebody else. Libraries log through ``logging``, whose
root logger :func:`configure` gives one handler. Both end in :class:`Sink`, which redacts the finished line, because a
filter that runs before formatting never sees what formatting adds.

A log line that cannot be written is counted and forgotten: logging never breaks a request.
"""

import json
import logging
import os
import re
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, TextIO

import orjson

from common.clock import Clock
from common.redact import redact
from common.trace import TraceContext

Severity = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
Scalar = str | int | float | bool | None

FIELDS: Final[Mapping[str, str]] = MappingProxyType({
    # what was asked and what came of it
    "request_id": "finds the reply that belongs to the line",
    "action": "name from the catalogue",
    "kind": "read, command, account or service",
    "outcome": "success, rejected or failed",
    "code": "our error code",
    "status": "HTTP status of the reply",
    "duration_ms": "of the whole request or step",
    "method": "HTTP method, where no action was reached",
    "reason": "why, in one of our own fixed phrases",
    "component": "the part of the service that speaks",
    # for whom; nothing that names a person or a car
    "caller": "fingerprint of the caller's principal",
    "account": "id of a linked account",
    "vehicle": "fingerprint of the VIN",
    "scope": "scope that was missing",
    # where the data came from
    "provider": "mybmw, cardata ...",
    "region": "rest_of_world, north_america or china",
    "cached": "answered without asking the maker",
    "stale": "answered with data older than wanted",
    "age_s": "age of the data, seconds",
    # commands
    "command_id": "id of the command's record",
    "operation": "lock, unlock ...",
    "state": "state of a command, breaker or link after the event",
    "previous": "and before it",
    "confirmed_by": "what confirmed a command",
    "may_have_succeeded": "the command may have reached the car",
    "deduplicated": "an earlier command's record was returned",
    # dealing with the maker and with our own stores
    "upstream_requests": "requests sent to the maker for this one",
    "upstream_ms": "time spent waiting for the maker",
    "upstream_status": "HTTP status the maker answered",
    "endpoint": "name of the maker's endpoint, without ids",
    "attempt": "number of the try, from 1",
    "retry_after_s": "how long to wait",
    "breaker": "which circuit breaker: provider/region/kind",
    "store": "which store: sqlite, gcs, memory, redis",
    "count": "how many",
    "bytes": "how large",
    "limit": "the limit that was met",
    "remaining": "what is left of it",
    "version": "version of a stored record or key",
})  # fmt: skip
"""Every field an event may carry, and what it says. A field that could hold a secret has no place here."""

_FIELD_NAMES: Final = frozenset(FIELDS)

_LEVELS: Final[Mapping[str, int]] = {
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "WARNING": logging.WARNING,
    "ERROR": logging.ERROR,
    "CRITICAL": logging.CRITICAL,
}
_QUIETED: Final[Mapping[str, int]] = {
    # At INFO, httpx logs every URL, with VINs in it.
    **dict.fromkeys(("httpx", "httpcore", "google", "urllib3", "asyncio", "werkzeug"), logging.WARNING),
    # At DEBUG it logs every statement with its values, tokens among them.
    "aiosqlite": logging.WARNING,
    # One line a request comes from us already.
    **dict.fromkeys(("gunicorn.access", "uvicorn.access"), logging.WARNING),
    # At ERROR it logs VINs and the maker's answers word for word, and at import that it is "non-functional".
    "bimmer_connected": logging.CRITICAL,
}
_REROUTED: Final = ("gunicorn.error", "uvicorn", "uvicorn.error")
"""Loggers with handlers of their own, which would write tracebacks past the sink."""

_OWN_CODE: Final = Path(__file__).resolve().parents[1]
_MAX_FRAMES, _MAX_CAUSES, _MAX_MESSAGE = 20, 8, 500
_EVENT_NAME: Final = re.compile(r"[a-z][a-z0-9_]{2,59}")
_FINGERPRINT: Final = re.compile(r"[0-9a-f]{12}")
_TRACE, _SPAN = "logging.googleapis.com/trace", "logging.googleapis.com/spanId"
_SAMPLED, _LABELS = "logging.googleapis.com/trace_sampled", "logging.googleapis.com/labels"


class HttpRequest(NamedTuple):
    """The request an event is about, for Cloud Logging's ``httpRequest``."""

    method: str
    path: str
    """A query that it may have is cut off."""
    status: int
    latency_s: float
    response_bytes: int


class Sink:
    """Where lines leave the process: redacted, one write each."""

    def __init__(self, stream: TextIO | None = None, on_drop: Callable[[], None] | None = None) -> None:
        """Without ``stream``, whatever ``sys.stdout`` is when a line is written: the platform wraps it a request."""
        self._stream = stream
        self._on_drop = on_drop
        # Re-entrant: a finaliser or a signal handler may log while a line is being written.
        self._lock = threading.RLock()

    def write(self, line: str, constant: str = "") -> None:
        """Redact ``line``, which ends without a newline, and write it; count it as dropped where that fails.

        ``constant`` are members that every line of a process has, redacted before, to be put at the end of a JSON
        object: looking through them again for each line would tell nothing new.
        """
        try:
            clean = redact(line)
            if constant and clean.startswith("{") and clean.endswith("}"):
                clean = f"{clean[:-1]},{constant}}}"
            clean += "\n"
            stream = self._stream or sys.stdout
            real = sys.__stdout__
            if real is not None and stream is real:
                self._write_at_once(real.fileno(), clean.encode())
                return
            with self._lock:
                try:
                    stream.write(clean)
                except UnicodeEncodeError:  # a stdout that is not UTF-8: JSON can say the same in ASCII
                    stream.write(json.dumps(json.loads(clean)) + "\n")
                stream.flush()
        except Exception:  # noqa: BLE001 - logging must not break a request, whatever stdout or redaction does
            self.drop()

    def _write_at_once(self, descriptor: int, line: bytes) -> None:
        """One system call, and no lock for threads to queue on: the kernel keeps lines of this size whole."""
        if os.write(descriptor, line) != len(line):
            self.drop()

    def drop(self) -> None:
        """Count something that was not logged."""
        if self._on_drop is not None:
            self._on_drop()


@dataclass(frozen=True, slots=True)
class LogOutput:
    """What :func:`configure` set up, for the :class:`EventLog` that shares it."""

    sink: Sink
    level: int
    project_id: str | None
    labels: Mapping[str, str]


class EventLog:
    """Says what happened, in stable words."""

    def __init__(self, output: LogOutput, clock: Clock, *, strict: bool = False) -> None:
        """``strict`` raises ValueError for what breaks the rules, for tests; else it is left out and counted."""
        self._sink = output.sink
        self._level = output.level
        self._trace_prefix = f"projects/{output.project_id}/traces/" if output.project_id else ""
        # Without the braces: members to put at the end of each line.
        self._constant = redact(_dumps({_LABELS: dict(output.labels)}))[1:-1]
        self._clock = clock
        self._strict = strict

    def emit(
        self,
        event: str,
        severity: Severity = "INFO",
        *,
        trace: TraceContext | None = None,
        http: HttpRequest | None = None,
        error: BaseException | None = None,
        **fields: Scalar,
    ) -> None:
        """Log ``event`` with ``fields`` from :data:`FIELDS`.

        Of ``error`` only the types and our own lines of code are told, never its text.
        """
        if self._strict:
            _check(event, fields)
        try:
            if _LEVELS[severity] >= self._level:
                self._sink.write(self._line(event, severity, trace, http, error, fields), self._constant)
        except Exception:  # noqa: BLE001 - logging must not break a request
            self._sink.drop()

    def _line(
        self,
        event: str,
        severity: str,
        trace: TraceContext | None,
        http: HttpRequest | None,
        error: BaseException | None,
        fields: Mapping[str, Scalar],
    ) -> str:
        record: dict[str, Any] = {"severity": severity, "message": event, "time": self._clock.utc()}
        record |= fields
        if not _FIELD_NAMES.issuperset(fields):
            for name in fields.keys() - _FIELD_NAMES:
                del record[name]
                self._sink.drop()
        if http is not None:
            record["httpRequest"] = {
                "requestMethod": http.method,
                "requestUrl": http.path.partition("?")[0],
                "status": http.status,
                "latency": f"{http.latency_s:.6f}s",
                "responseSize": str(http.response_bytes),
            }
        if error is not None:
            record["exception"] = describe_exception(error)
        if trace is not None:
            record[_TRACE] = self._trace_prefix + trace.trace_id
            record[_SPAN] = trace.span_id
            record[_SAMPLED] = trace.sampled
        return _dumps(record)


def configure(
    stream: TextIO | None = None,
    *,
    level: str,
    project_id: str | None,
    environment: str,
    service: str,
    version: str,
    revision: str,
    on_drop: Callable[[], None] | None = None,
) -> LogOutput:
    """Send everything logged in this process to ``stream`` (default: stdout), from ``level`` on.

    Replaces whatever handlers the root logger has, so calling it again leaves one handler. ``on_drop`` is called for
    each line or field that could not be logged.
    """
    labels = {"environment": environment, "service": service, "version": version, "revision": revision}
    output = LogOutput(Sink(stream, on_drop), _LEVELS[level], project_id, labels)
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(_RecordHandler(output))
    root.setLevel(output.level)
    for name, least in _QUIETED.items():
        logging.getLogger(name).setLevel(least)
    for name in _REROUTED:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    return output


class _RecordHandler(logging.Handler):
    """Turns a library's log record into a line."""

    def __init__(self, output: LogOutput) -> None:
        # A logger with a level of its own, as the quieted ones have, does not ask the root's.
        super().__init__(output.level)
        self._sink = output.sink
        self._labels = dict(output.labels)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._sink.write(self.format(record))
        except Exception:  # noqa: BLE001 - the default prints the record, unredacted, to stderr
            self._sink.drop()

    def format(self, record: logging.LogRecord) -> str:
        """Write the first line of the message: what follows it is tracebacks and the ``repr`` of objects."""
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - arguments that do not fit their format, or whose __str__ fails
            message = "unformattable_log_record"
        line: dict[str, Any] = {
            "severity": _severity(record.levelno),
            "message": message.partition("\n")[0][:_MAX_MESSAGE],
            "time": datetime.fromtimestamp(record.created, UTC),
            "logger": record.name,
        }
        if record.exc_info and record.exc_info[1] is not None:
            line["exception"] = describe_exception(record.exc_info[1])
        line[_LABELS] = self._labels
        return _dumps(line)


def describe_exception(error: BaseException) -> list[dict[str, Any]]:
    """The types of ``error`` and of what caused it, outermost first, each with the lines of our code it went through.

    ``[{"type": "common.errors.UpstreamError", "frames": ["common/breaker.py:12 call"]}, ...]``. No text: it may quote
    the maker, or a secret.
    """
    return [{"type": _type_name(one), "frames": list(_own_frames(one))[-_MAX_FRAMES:]} for one in _with_causes(error)]


def _with_causes(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    waiting = deque([error])
    while waiting and len(found) < _MAX_CAUSES:
        one = waiting.popleft()
        if any(one is known for known in found):
            continue
        found.append(one)
        if isinstance(one, BaseExceptionGroup):
            waiting.extend(one.exceptions)
        cause = one.__context__ if one.__cause__ is None and not one.__suppress_context__ else one.__cause__
        if cause is not None:
            waiting.append(cause)
    return found


def _own_frames(error: BaseException) -> Iterator[str]:
    step = error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        path = Path(code.co_filename)
        if path.is_relative_to(_OWN_CODE) and "site-packages" not in path.parts:
            yield f"{path.relative_to(_OWN_CODE)}:{step.tb_lineno} {code.co_qualname}"
        step = step.tb_next


def _type_name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _severity(level: int) -> str:
    """Cloud Logging's name for the nearest of Python's levels at or below ``level``."""
    return next((name for name, least in reversed(list(_LEVELS.items())) if level >= least), "DEBUG")


def _dumps(record: dict[str, Any]) -> str:
    try:
        return orjson.dumps(record, option=orjson.OPT_UTC_Z).decode()
    except TypeError:  # half a surrogate pair, a huge integer, or an object nobody should have passed
        return json.dumps(record, default=_stand_in)


def _stand_in(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else f"<{type(value).__name__}>"


def _check(event: str, fields: Mapping[str, Any]) -> None:
    """Raise ValueError for what does not belong into a log."""
    if not _EVENT_NAME.fullmatch(event):
        raise ValueError(f"not a stable event name: {event!r}")
    for name, value in fields.items():
        if name not in FIELDS:
            raise ValueError(f"not a log field: {name!r}; common.logs.FIELDS lists those there are")
        if not isinstance(value, Scalar):
            raise ValueError(f"not a plain value: {name}")  # noqa: TRY004 - one error for all that breaks the rules
        if name in {"caller", "vehicle"} and value is not None and not _FINGERPRINT.fullmatch(str(value)):
            raise ValueError(f"not a fingerprint: {name}")
