"""Fault rules: which request goes wrong, and how.

Rules match and damage bytes and connections as those of the MyBMW sandbox do; added are CarData's own errors.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from sandbox.cardata_wire import BURNT, CU_ERRORS, OAUTH_ERRORS, cu_reply, oauth_reply
from sandbox.mybmw_faults import Fault, Rule, Subject, parse_fault
from sandbox.mybmw_wire import JSON, Reply, json_reply

_SHARED: Final = frozenset({"match", "fault", "times", "after", "every", "delay_ms", "perform"})
_OWN: Final[Mapping[str, frozenset[str]]] = {
    "oauth": frozenset({"error"}),
    "burn": frozenset(),
    "cu": frozenset({"code", "status"}),
    "missing": frozenset({"fields"}),
    "unknown": frozenset({"fields"}),
}
"""The kinds that only CarData has, and the parameters that only they take."""


@dataclass(frozen=True, slots=True)
class CarDataFault(Fault):
    """What goes wrong with one request, where the MyBMW sandbox has no word for it."""

    label: str = ""
    """The kind as it was asked for."""
    burns: bool = False
    """The device code in the request is of no more use."""
    without: frozenset[str] = frozenset()
    """Fields to leave out of the answer, wherever they are."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Fields to add to the answer, or to each object of an array."""

    def edit(self, reply: Reply) -> Reply:
        """The reply without and with the fields."""
        if reply.content_type != JSON or not reply.body:
            return reply
        document = _without(orjson.loads(reply.body), self.without)
        for target in document if isinstance(document, list) else [document]:
            target.update(self.extra)
        return Reply(reply.status, orjson.dumps(document), JSON, reply.headers)


class CarDataFaults:
    """The rules in force, in the order they were added: the first that fires decides."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []
        self._added = 0

    def add(self, definition: Mapping[str, Any]) -> int:
        """Add a rule as POSTed; its number. Raises ValueError saying what is wrong with it."""
        fault = parse_cardata_fault(definition)
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


def parse_cardata_fault(definition: Mapping[str, Any]) -> Fault:
    """The fault of a rule as POSTed. Raises ValueError saying what is wrong with it."""
    kind = definition.get("fault")
    if kind == "event":
        raise ValueError("there are no commands here")
    if not isinstance(kind, str) or kind not in _OWN:
        try:
            return parse_fault(definition)
        except ValueError as error:
            raise ValueError(f"{error}; here also {', '.join(_OWN)}") from error
    if unknown := set(definition) - _SHARED - _OWN[kind]:
        raise ValueError(f"unknown parameters for {kind}: {', '.join(sorted(unknown))}")
    shared = parse_fault({name: value for name, value in definition.items() if name in _SHARED} | {"fault": "hang"})
    if kind in ("missing", "unknown"):
        return _parse_edit(kind, definition, shared)
    reply = _reply_of(kind, definition)
    return CarDataFault(
        "status", shared.perform, shared.delay_ms, False, reply.status, reply.body, label=kind, burns=kind == "burn"
    )


def _reply_of(kind: str, definition: Mapping[str, Any]) -> Reply:
    if kind == "burn":
        return json_reply(BURNT, 500)
    if kind == "oauth":
        error = str(definition.get("error"))
        if error not in OAUTH_ERRORS:
            raise ValueError(f"an error is any of {', '.join(OAUTH_ERRORS)}")
        return oauth_reply(error)
    code, status = str(definition.get("code")), definition.get("status")
    if code not in CU_ERRORS or not (status is None or (type(status) is int and 400 <= status <= 599)):
        raise ValueError(f"a code is any of {', '.join(CU_ERRORS)}, a status from 400 to 599")
    return cu_reply(code, status=status)


def _parse_edit(kind: str, definition: Mapping[str, Any], shared: Fault) -> Fault:
    fields = definition.get("fields")
    if kind == "missing":
        if not isinstance(fields, list) or not all(isinstance(name, str) for name in fields):
            raise ValueError("missing needs fields, a list of names")
        return CarDataFault("slow", True, shared.delay_ms, label=kind, without=frozenset(fields))
    if not isinstance(fields, dict):
        raise ValueError("unknown needs fields, an object")  # noqa: TRY004 - as every other bad rule
    return CarDataFault("slow", True, shared.delay_ms, label=kind, extra=fields)


def _without(document: Any, names: frozenset[str]) -> Any:  # noqa: ANN401 - any JSON document
    if isinstance(document, list):
        return [_without(element, names) for element in document]
    if isinstance(document, dict):
        return {name: _without(value, names) for name, value in document.items() if name not in names}
    return document
