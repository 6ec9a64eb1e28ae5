"""Whether a PromQL query finds anything: its selectors and labels, held against a scrape."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import promql_parser
from prometheus_client.parser import text_string_to_metric_families

Series = Mapping[str, list[Mapping[str, str]]]
_GROUP = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")


def series(text: str) -> Series:
    """The labels of each series of a scrape, by the series' name."""
    found: dict[str, list[Mapping[str, str]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


def problems(query: str, known: Series, recorded: Iterable[str] = ()) -> list[str]:
    """What keeps the query from finding anything; ``recorded`` are names that rules make. Raises ValueError."""
    text = query.replace("$__rate_interval", "1m")
    found, labels = [], set()
    for selector in _selectors(promql_parser.parse(text)):
        if selector.name in recorded:
            continue
        candidates = known.get(selector.name or "", [])
        if not candidates:
            found.append(f"no series {selector.name}")
            continue
        labels |= set().union(*candidates)
        # A value that is left out and never occurs is a misspelt one.
        found += [
            f"no {one.name}={one.value} to leave out of {selector.name}"
            for one in selector.matchers.matchers
            if str(one.op).endswith("NotEqual") and one.value not in {has.get(one.name) for has in candidates}
        ]
        if not any(_fits(selector, one) for one in candidates):
            found.append(f"no series {selector.name} with {[(m.name, m.value) for m in selector.matchers.matchers]}")
    for group in _GROUP.findall(text):
        found += [f"no label {name.strip()}" for name in group.split(",") if name.strip() not in labels]
    return found


def _selectors(node: Any) -> Iterator[Any]:
    match type(node).__name__:
        case "VectorSelector":
            yield node
        case "MatrixSelector":
            yield from _selectors(node.vector_selector)
        case "BinaryExpr":
            yield from _selectors(node.lhs)
            yield from _selectors(node.rhs)
        case "AggregateExpr" | "ParenExpr" | "UnaryExpr" | "SubqueryExpr":
            yield from _selectors(node.expr)
        case "Call":
            for argument in node.args:
                yield from _selectors(argument)
        case "NumberLiteral" | "StringLiteral":
            return
        case other:
            raise ValueError(f"not understood: {other}")


def _fits(selector: Any, labels: Mapping[str, str]) -> bool:
    return all(_matches(str(one.op), one.value, labels.get(one.name, "")) for one in selector.matchers.matchers)


def _matches(operator: str, wanted: str, actual: str) -> bool:
    match operator.rpartition(".")[2]:
        case "Equal":
            return actual == wanted
        case "NotEqual":
            return actual != wanted
        case "Re":
            return re.fullmatch(wanted, actual) is not None
        case "NotRe":
            return re.fullmatch(wanted, actual) is None
        case other:
            raise ValueError(f"not understood: {other}")
