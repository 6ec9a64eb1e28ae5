"""What Cloud Monitoring would make of log entries: the points of log-based metrics, and which alerts fire.

All entries are taken to fall into every window at once. Strict: a metric, label or form that is not known raises.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.support.log_filters import Entry, field, matches, parse

Definitions = Mapping[str, Mapping[str, Any]]
_USER = "logging.googleapis.com/user/"
_BURN = re.compile(r'select_slo_burn_rate\("projects/[^/"]+/services/[^/"]+/serviceLevelObjectives/([^/"]+)", "\d+s"\)')

PLATFORM: Mapping[str, frozenset[str]] = {
    "run.googleapis.com/request_count": frozenset({"response_code", "response_code_class"}),
    "monitoring.googleapis.com/uptime_check/check_passed": frozenset({"check_id", "checker_location"}),
    "run.googleapis.com/container/instance_count": frozenset({"state"}),
    "run.googleapis.com/container/memory/utilizations": frozenset({"container_name"}),
    "run.googleapis.com/container/cpu/utilizations": frozenset({"container_name"}),
}
"""The platform's own metrics and their labels, by Google's list of them: nothing that runs here emits these."""
_RESOURCE_LABELS = frozenset({"service_name", "revision_name", "location"})


@dataclass(frozen=True)
class Point:
    """One entry, counted or measured by one metric."""

    metric: str
    labels: Mapping[str, str]
    resource: Mapping[str, Any]
    value: float


@dataclass(frozen=True)
class Filter:
    """A Monitoring filter: a metric, and labels that must be as said."""

    metric: str
    labels: Mapping[str, str]
    resource_type: str | None
    resource_labels: Mapping[str, str]

    @property
    def is_platforms(self) -> bool:
        return self.metric in PLATFORM

    def takes(self, point: Point) -> bool:
        return (
            point.metric == self.metric
            and all(point.labels[name] == value for name, value in self.labels.items())
            and self.resource_type in (None, point.resource["type"])
        )


def points(metrics: Definitions, entries: Iterable[Entry]) -> list[Point]:
    """Every point that the entries make."""
    found = []
    for entry in entries:
        for definition in metrics.values():
            if matches(definition["filter"], entry):
                labels = {name: str(_extract(entry, by) or "") for name, by in definition["labelExtractors"].items()}
                value = _extract(entry, definition["valueExtractor"]) if "valueExtractor" in definition else 1
                found.append(Point(_USER + definition["name"], labels, entry["resource"], float(value)))
    return found


def _extract(entry: Entry, extractor: str) -> Any:
    path = re.fullmatch(r"EXTRACT\(([A-Za-z_.]+)\)", extractor)
    if path is None:
        raise ValueError(f"not an extractor that is known here: {extractor}")
    return field(entry, path[1])


def parse_filter(metrics: Definitions, text: str) -> Filter:
    """A filter, all names in which must exist."""
    metric, resource_type, labels, resource_labels = "", None, {}, {}
    for name, operator, values in parse(text):
        if operator != "=" or len(values) != 1:
            raise ValueError(f"only `name = value` is known here: {text}")
        if name == "metric.type":
            metric = values[0]
        elif name == "resource.type":
            resource_type = values[0]
        elif name.startswith("metric.labels."):
            labels[name.removeprefix("metric.labels.")] = values[0]
        elif name.startswith("resource.labels."):
            resource_labels[name.removeprefix("resource.labels.")] = values[0]
        else:
            raise ValueError(f"not a name that is known here: {name}")
    found = Filter(metric, labels, resource_type, resource_labels)
    check_labels(metrics, found, [f"metric.labels.{name}" for name in labels])
    check_labels(metrics, found, [f"resource.labels.{name}" for name in resource_labels])
    return found


def check_labels(metrics: Definitions, of: Filter, fields: Iterable[str]) -> None:
    """Raise ValueError for a label that the filter's metric does not have."""
    if of.is_platforms:
        own = PLATFORM[of.metric]
    else:
        own = frozenset(metrics[of.metric.removeprefix(_USER + "draiv/")]["labelExtractors"])
    for name in fields:
        kind, _, label = name.rpartition(".")
        if label not in {"metric.labels": own, "resource.labels": _RESOURCE_LABELS}[kind]:
            raise ValueError(f"{of.metric} has no {name}")


class Monitoring:
    """The definitions, and what the entries make of them."""

    def __init__(self, metrics: Definitions, slos: Definitions, entries: Sequence[Entry]) -> None:
        self._metrics = metrics
        self._slos = slos
        self._entries = entries
        self._points = points(metrics, entries)

    def shows(self, filter_: str, group_by: Iterable[str] = ()) -> bool:
        """Whether a chart of this filter has anything to show; groups by a label that is never empty count only."""
        parsed = parse_filter(self._metrics, filter_)
        check_labels(self._metrics, parsed, group_by)
        own = [name.removeprefix("metric.labels.") for name in group_by if name.startswith("metric.labels.")]
        return parsed.is_platforms or any(
            parsed.takes(point) and all(point.labels[name] for name in own) for point in self._points
        )

    def fires(self, policy: Mapping[str, Any]) -> bool:
        """Whether the alert fires. An absence is met where there is nothing, which there was before."""
        if policy["combiner"] != "AND":
            raise ValueError("only AND is known here")
        return all(self._met(condition) for condition in policy["conditions"])

    def burn_rate(self, slo: str) -> float:
        """How many times too fast the budget is used up."""
        definition = self._slos[slo]
        indicator = definition["serviceLevelIndicator"]["requestBased"]
        if "goodTotalRatio" in indicator:
            total = self._sum(indicator["goodTotalRatio"]["totalServiceFilter"])
            bad = self._sum(indicator["goodTotalRatio"]["badServiceFilter"])
        else:
            cut = indicator["distributionCut"]
            values = [point.value for point in self._taken(cut["distributionFilter"])]
            total, bad = len(values), sum(value > cut["range"]["max"] for value in values)
        return bad / total / (1 - definition["goal"]) if total else 0.0

    def _met(self, condition: Mapping[str, Any]) -> bool:
        if "conditionMatchedLog" in condition:
            filter_ = condition["conditionMatchedLog"]["filter"]
            return any(matches(filter_, entry) for entry in self._entries)
        if "conditionAbsent" in condition:
            absent = condition["conditionAbsent"]
            (aggregation,) = absent["aggregations"]
            return not self._groups(absent["filter"], aggregation)
        threshold = condition["conditionThreshold"]
        if threshold["comparison"] != "COMPARISON_GT":
            raise ValueError("only COMPARISON_GT is known here")
        burn = _BURN.fullmatch(threshold["filter"])
        if burn is not None:
            return self.burn_rate(burn[1]) > float(threshold["thresholdValue"])
        (aggregation,) = threshold["aggregations"]
        groups = self._groups(threshold["filter"], aggregation)
        if "denominatorFilter" in threshold:
            (below,) = threshold["denominatorAggregations"]
            totals = self._groups(threshold["denominatorFilter"], below)
            groups = {key: value / totals[key] for key, value in groups.items()}
        return any(value > threshold["thresholdValue"] for value in groups.values())

    def _groups(self, filter_: str, aggregation: Mapping[str, Any]) -> dict[tuple[str, ...], float]:
        if (aggregation["perSeriesAligner"], aggregation["crossSeriesReducer"]) != ("ALIGN_DELTA", "REDUCE_SUM"):
            raise ValueError("only sums of deltas are known here")
        by = [name.removeprefix("metric.labels.") for name in aggregation.get("groupByFields", ())]
        sums: dict[tuple[str, ...], float] = defaultdict(float)
        check_labels(self._metrics, parse_filter(self._metrics, filter_), aggregation.get("groupByFields", ()))
        for point in self._taken(filter_):
            sums[tuple(point.labels[name] for name in by)] += point.value
        return dict(sums)

    def _sum(self, filter_: str) -> float:
        return sum(point.value for point in self._taken(filter_))

    def _taken(self, filter_: str) -> list[Point]:
        parsed = parse_filter(self._metrics, filter_)
        return [point for point in self._points if parsed.takes(point)]
