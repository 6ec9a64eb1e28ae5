"""A simulated Cloud Monitoring: ``projects.timeSeries.list`` on the requests that a splitter really passed on.

It has the platform's count of all answers, and two log-based metrics, as if each POST had got its line.

Like the real one it wants an access token, a metric and an alignment of a minute at least, groups by the labels that
are asked for and no others, writes 64-bit integers as text, and answers in pages.
"""

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from sandbox.splitter import Observation

ANSWERS = "run.googleapis.com/request_count"
REQUESTS = "logging.googleapis.com/user/draiv/requests"
READS = "logging.googleapis.com/user/draiv/read_duration"
_METRIC = re.compile(r'metric\.type\s*=\s*"([^"]+)"')
_REVISION = "resource.labels.revision_name"
_OUTCOMES = {2: "success", 4: "rejected", 5: "failed"}
_NO_READS = frozenset({"", "unknown", "actions", "connect", "accounts", "lock", "unlock"})


class Monitoring:
    """The API in front of ``observations``."""

    def __init__(self, observations: Sequence[Observation]) -> None:
        self._observations = observations
        self.asked: list[dict[str, list[str]]] = []
        self.failing = 0
        """The next so many requests are answered 503."""
        self.silent = False
        """Whether figures are missing although there were requests."""
        self.metrics = {ANSWERS, REQUESTS, READS}
        """Those that there are: log-based ones must be installed."""
        self.page_size = 100

    async def handle(self, request: web.Request) -> web.Response:
        """``GET /v3/projects/{project}/timeSeries``."""
        self.asked.append({name: request.query.getall(name) for name in request.query})
        if self.failing:
            self.failing -= 1
            return _refused(503, "UNAVAILABLE", "The service is currently unavailable.")
        if not request.headers.get("Authorization", "").startswith("Bearer "):
            return _refused(401, "UNAUTHENTICATED", "Request is missing required authentication credential.")
        try:
            series = [] if self.silent else self._series(request)
        except LookupError as unknown:
            return _refused(404, "NOT_FOUND", str(unknown))
        except ValueError as bad:
            return _refused(400, "INVALID_ARGUMENT", str(bad))
        first = int(request.query.get("pageToken", "0"))
        page: dict[str, Any] = {"unit": "1"}
        if series:
            page["timeSeries"] = series[first : first + self.page_size]
        if first + self.page_size < len(series):
            page["nextPageToken"] = str(first + self.page_size)
        return web.json_response(page)

    def _series(self, request: web.Request) -> list[dict[str, Any]]:
        query = request.query
        found = _METRIC.search(query["filter"])
        if found is None:
            raise ValueError("The supplied filter does not specify a valid metric.")
        if found[1] not in self.metrics:
            raise LookupError(f"Cannot find metric(s) that match type = {found[1]}.")
        if 'resource.type="cloud_run_revision"' not in query["filter"]:
            raise ValueError("The filter names no resource type that has this metric.")
        if query["aggregation.perSeriesAligner"] != "ALIGN_DELTA":
            raise ValueError("The sandbox aligns by ALIGN_DELTA only.")
        start, end = (_time(query[f"interval.{name}"]) for name in ("startTime", "endTime"))
        period_s = int(query["aggregation.alignmentPeriod"].removesuffix("s"))
        if period_s < 60 or period_s != (end - start).total_seconds():
            raise ValueError("The sandbox wants one aligned point, of 60 s at least.")
        wanted = query.getall("aggregation.groupByFields")
        groups: dict[tuple[tuple[str, str], ...], list[float]] = defaultdict(list)
        for seen in self._observations:
            if start < seen.at <= end and _counts(found[1], seen):
                labels = _labels(seen)
                groups[tuple((name, labels[name]) for name in wanted)].append(seen.latency_ms)
        reducer = query["aggregation.crossSeriesReducer"]
        interval = {"startTime": query["interval.startTime"], "endTime": query["interval.endTime"]}
        return [_one(found[1], dict(labels), interval, _value(reducer, of)) for labels, of in sorted(groups.items())]


def _counts(metric: str, seen: Observation) -> bool:
    """Whether the metric counts or measures this request."""
    if metric == READS:
        return seen.status < 400 and seen.action not in _NO_READS
    return metric == ANSWERS or bool(seen.action)


def _labels(seen: Observation) -> dict[str, str]:
    return {
        _REVISION: seen.revision,
        "metric.labels.response_code": str(seen.status),
        "metric.labels.action": seen.action,
        "metric.labels.code": seen.code,
        "metric.labels.outcome": "rejected" if seen.status == 501 else _OUTCOMES[seen.status // 100],
    }


def _value(reducer: str, latencies_ms: list[float]) -> dict[str, Any]:
    if reducer == "REDUCE_SUM":
        return {"int64Value": str(len(latencies_ms))}
    if reducer == "REDUCE_PERCENTILE_95":
        return {"doubleValue": sorted(latencies_ms)[math.ceil(0.95 * len(latencies_ms)) - 1]}
    raise ValueError("The sandbox knows no such reducer.")


def _one(metric: str, labels: dict[str, str], interval: dict[str, str], value: dict[str, Any]) -> dict[str, Any]:
    def of(kind: str) -> dict[str, str]:
        return {name.rpartition(".")[2]: text for name, text in labels.items() if name.startswith(f"{kind}.")}

    return {
        "metric": {"type": metric, "labels": of("metric")},
        "resource": {"type": "cloud_run_revision", "labels": of("resource")},
        "metricKind": "DELTA",
        "valueType": "INT64" if "int64Value" in value else "DOUBLE",
        "points": [{"interval": interval, "value": value}],
    }


def _time(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


def _refused(status: int, kind: str, says: str) -> web.Response:
    return web.json_response({"error": {"code": status, "message": says, "status": kind}}, status=status)
