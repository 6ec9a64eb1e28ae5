"""What Cloud Logging would do with the lines that the service prints: entries, and filters on them.

The filters are a subset of the Logging query language, and strict: what is not understood raises ValueError. There is
no ``NOT`` and no ``!=``, whose meaning for a missing field is a trap; a missing field equals nothing here.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Entry = Mapping[str, Any]
SEVERITIES = ("DEFAULT", "DEBUG", "INFO", "NOTICE", "WARNING", "ERROR", "CRITICAL", "ALERT", "EMERGENCY")
_PROMOTED = {
    "severity": "severity",
    "time": "timestamp",
    "httpRequest": "httpRequest",
    "logging.googleapis.com/labels": "labels",
    "logging.googleapis.com/trace": "trace",
    "logging.googleapis.com/spanId": "spanId",
    "logging.googleapis.com/trace_sampled": "traceSampled",
}
_TOKEN = re.compile(r'\s*(?:(?P<string>"(?:[^"\\]|\\.)*")|(?P<op>>=|<=|=~|[=<>()])|(?P<word>[A-Za-z0-9_./-]+))')
_COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: a == b,
    ">=": lambda a, b: a >= b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
}


def entries(
    lines: Iterable[str], service_name: str = "draiv-bmw", kind: str = "cloud_run_revision"
) -> list[dict[str, Any]]:
    """The entries that Cloud Run's logging agent makes of JSON lines on stdout; other lines become plain text."""
    return [_entry(line, service_name, kind) for line in lines if line.strip()]


def _entry(line: str, service_name: str, kind: str) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "resource": {"type": kind, "labels": {"service_name": service_name}},
        "severity": "DEFAULT",
    }
    try:
        said = json.loads(line)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        return entry | {"textPayload": line}
    entry |= {_PROMOTED[key]: value for key, value in said.items() if key in _PROMOTED}
    entry["jsonPayload"] = {key: value for key, value in said.items() if key not in _PROMOTED}
    return entry


def field(entry: Entry, path: str) -> Any:
    """The value at a dotted path; None where there is none."""
    found: Any = entry
    for part in path.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    return found


def matches(filter_: str, entry: Entry) -> bool:
    """Whether an entry passes a filter. Raises ValueError for a filter that is not understood."""
    return all(_holds(entry, *comparison) for comparison in parse(filter_))


def parse(filter_: str) -> list[tuple[str, str, list[str]]]:
    """Comparisons that must all hold: the field, the operator, and the values of which one must fit."""
    tokens, at = [], 0
    filter_ = filter_.strip()
    while at < len(filter_):
        found = _TOKEN.match(filter_, at)
        if found is None:
            raise ValueError(f"not understood: {filter_[at:]!r}")
        tokens.append((found.lastgroup, found.group(found.lastgroup or 0)))
        at = found.end()
    comparisons = []
    while True:
        name, operator = _take(tokens, "word"), _take(tokens, "op")
        if operator not in _COMPARISONS:
            raise ValueError(f"not an operator here: {operator!r}")
        if tokens and tokens[0] == ("op", "("):
            tokens.pop(0)
            values = [_value(tokens)]
            while tokens and tokens[0] == ("word", "OR"):
                tokens.pop(0)
                values.append(_value(tokens))
            if _take(tokens, "op") != ")":
                raise ValueError("a list of values does not end")
        else:
            values = [_value(tokens)]
        comparisons.append((name, operator, values))
        if not tokens:
            return comparisons
        if _take(tokens, "word") != "AND":
            raise ValueError(f"neither the end nor AND: {tokens}")


def _take(tokens: list[tuple[str | None, str]], kind: str) -> str:
    if not tokens or tokens[0][0] != kind:
        raise ValueError(f"a {kind} is missing before {tokens}")
    return tokens.pop(0)[1]


def _value(tokens: list[tuple[str | None, str]]) -> str:
    if tokens and tokens[0][0] == "string":
        text: str = json.loads(tokens.pop(0)[1])
        return text
    return _take(tokens, "word")


def _holds(entry: Entry, name: str, operator: str, values: list[str]) -> bool:
    actual = field(entry, name)
    if actual is None:
        return False
    compare = _COMPARISONS[operator]
    if name == "severity":
        return any(compare(SEVERITIES.index(actual), SEVERITIES.index(value)) for value in values)
    if isinstance(actual, bool):
        actual = str(actual).lower()
    if isinstance(actual, (int, float)):
        return any(compare(actual, float(value)) for value in values)
    return any(compare(actual, value) for value in values)
