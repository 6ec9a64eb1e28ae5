"""Fault rules: which request goes wrong, and how. Deciding only; mybmw_delivery.py does the damage."""

import http
import http.client
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import orjson

from sandbox.mybmw_wire import JSON, TEXT

_COMMON: Final = frozenset({"match", "fault", "times", "after", "every", "delay_ms", "perform"})
_MATCHERS: Final = frozenset({"path", "method", "account", "vin"})
_OWN: Final[Mapping[str, frozenset[str]]] = {
    "status": frozenset({"status", "body", "headers", "wait_s", "retry_after_s", "replenish_s"}),
    "slow": frozenset({"when"}),
    "hang": frozenset(),
    "reset": frozenset(),
    "reset_after": frozenset(),
    "malformed": frozenset(),
    "truncated": frozenset(),
    "empty": frozenset(),
    "wrong_type": frozenset({"body"}),
    "event": frozenset({"outcome"}),
}
"""The kinds of fault, and the parameters that only they take."""
_NOT_PERFORMED: Final = frozenset({"status", "hang", "reset"})

_BLOCKED: Final = 489
_INTERNAL_SERVER_ERROR: Final = b"INTERNAL SERVER ERROR"


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with one request."""

    kind: str
    perform: bool = False
    """Whether the request takes effect although it goes wrong."""
    delay_ms: float = 0.0
    delay_reply: bool = False
    """The delay comes after the request took effect, not before."""
    status: int = 200
    body: bytes | None = None
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    outcome: str = ""
    """``event``: how the command ends."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What rules look at."""

    method: str
    path: str
    """With the query string."""
    account: str | None = None
    vin: str | None = None
    has_event: bool = False
    """It sends a command whose outcome is polled."""


@dataclass(slots=True)
class Rule:
    """One rule, and how often it was met."""

    number: int
    definition: Mapping[str, Any]
    fault: Fault
    seen: int = 0
    """Requests that matched."""
    fired: int = 0
    """Requests that went wrong."""

    def fires(self, subject: Subject) -> bool:
        """Whether this request goes wrong; counts it."""
        if not self._matches(subject):
            return False
        self.seen += 1
        turn = self.seen - self.definition.get("after", 0)
        times = self.definition.get("times")
        if turn < 1 or turn % self.definition.get("every", 1) or (times is not None and self.fired >= times):
            return False
        self.fired += 1
        return True

    def _matches(self, subject: Subject) -> bool:
        match: Mapping[str, str] = self.definition.get("match", {})
        if self.fault.kind == "event" and not subject.has_event:
            return False
        path = match.get("path", "")
        return (
            match.get("method", subject.method).upper() == subject.method
            and ("account" not in match or match["account"].lower() == subject.account)
            and match.get("vin", subject.vin) == subject.vin
            and (path in subject.path or re.search(path, subject.path) is not None)
        )


class FaultRules:
    """The rules in force, in the order they were added: the first that fires decides."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []
        self._added = 0

    def add(self, definition: Mapping[str, Any]) -> int:
        """Add a rule as POSTed; its number. Raises ValueError saying what is wrong with it."""
        fault = parse_fault(definition)
        self._added += 1
        self._rules.append(Rule(self._added, definition, fault))
        return self._added

    def clear(self) -> None:
        """Drop every rule."""
        self._rules.clear()

    def report(self) -> list[dict[str, Any]]:
        """Each rule with its number and its counts."""
        return [{"id": r.number, "seen": r.seen, "fired": r.fired, "rule": r.definition} for r in self._rules]

    def pick(self, subject: Subject) -> Fault | None:
        """What goes wrong with this request."""
        return next((rule.fault for rule in self._rules if rule.fires(subject)), None)


def parse_fault(definition: Mapping[str, Any]) -> Fault:
    """The fault of a rule as POSTed. Raises ValueError saying what is wrong with it."""
    kind = definition.get("fault")
    if not isinstance(kind, str) or kind not in _OWN:
        raise ValueError(f"fault is none of {', '.join(_OWN)}")
    if unknown := set(definition) - _COMMON - _OWN[kind]:
        raise ValueError(f"unknown parameters for {kind}: {', '.join(sorted(unknown))}")
    _check_match(definition.get("match", {}))
    _check_counts(definition)
    fault = Fault(
        "reset" if kind == "reset_after" else kind,
        perform=bool(definition.get("perform", kind not in _NOT_PERFORMED)),
        delay_ms=float(definition.get("delay_ms", 0)),
    )
    match kind:
        case "status":
            return _parse_status(fault, definition)
        case "slow":
            return _parse_slow(fault, definition)
        case "wrong_type":
            return replace(fault, body=orjson.dumps(definition.get("body", [])))
        case "event":
            outcome = definition.get("outcome")
            if not isinstance(outcome, str) or not outcome:
                raise ValueError("event needs an outcome")
            return replace(fault, outcome=outcome)
    return fault


def status_fault(status: int, **more: object) -> Fault:
    """The fault of a rule ``{"fault": "status", "status": status, ...}``."""
    return parse_fault({"fault": "status", "status": status, **more})


def _check_match(match: object) -> None:
    if not isinstance(match, dict) or not all(isinstance(value, str) for value in match.values()):
        raise ValueError("match is an object of strings")
    if unknown := set(match) - _MATCHERS:
        raise ValueError(f"match knows {', '.join(sorted(_MATCHERS))}, not {', '.join(sorted(unknown))}")
    try:
        re.compile(match.get("path", ""))
    except re.error as error:
        raise ValueError(f"match.path is no regular expression: {error}") from error


def _check_counts(definition: Mapping[str, Any]) -> None:
    for name, least in (("times", 0), ("after", 0), ("every", 1)):
        count = definition.get(name)
        if count is None and (name == "times" or name not in definition):
            continue
        if type(count) is not int or count < least:
            raise ValueError(f"{name} is a whole number, at least {least}")


def _parse_slow(fault: Fault, definition: Mapping[str, Any]) -> Fault:
    when = definition.get("when", "before")
    if fault.delay_ms <= 0 or when not in ("before", "after"):
        raise ValueError('slow needs a delay_ms above 0, and knows when: "before" or "after"')
    return replace(fault, delay_reply=when == "after")


def _parse_status(fault: Fault, definition: Mapping[str, Any]) -> Fault:
    status = definition.get("status")
    if type(status) is not int or not 200 <= status <= 599:
        raise ValueError("status needs a status from 200 to 599")
    headers = {str(name): str(value) for name, value in definition.get("headers", {}).items()}
    if "retry_after_s" in definition:
        headers["Retry-After"] = str(definition["retry_after_s"])
    body, content_type = _status_body(status, definition)
    return replace(fault, status=status, body=body, content_type=content_type, headers=headers)


def _status_body(status: int, definition: Mapping[str, Any]) -> tuple[bytes, str]:
    if "body" in definition:
        body = definition["body"]
        return (body.encode(), TEXT) if isinstance(body, str) else (orjson.dumps(body), JSON)
    if status == _BLOCKED:
        return b"Blocked", TEXT
    if status == http.HTTPStatus.INTERNAL_SERVER_ERROR:
        return _INTERNAL_SERVER_ERROR, TEXT
    return orjson.dumps({"statusCode": status, "message": _message(status, definition)}), JSON


def _message(status: int, definition: Mapping[str, Any]) -> str:
    match status:
        case http.HTTPStatus.UNAUTHORIZED:
            return "Access token is missing or invalid."
        case http.HTTPStatus.FORBIDDEN:
            minutes, seconds = divmod(int(definition.get("replenish_s", 8491)), 60)
            hours, minutes = divmod(minutes, 60)
            clock = f"{hours:02d}:{minutes:02d}:{seconds:02d}"
            return f"Out of call volume quota. Quota will be replenished in {clock}."
        case http.HTTPStatus.TOO_MANY_REQUESTS:
            return f"Rate limit is exceeded. Try again in {definition.get('wait_s', 13)} seconds."
    return http.client.responses.get(status, "Error")
