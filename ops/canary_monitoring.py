"""What Cloud Monitoring knows of a Cloud Run service's revisions: requests, errors, latency.

Callers' requests are those that the service's own lines tell of (ops/monitoring/metrics), without the canary's own.
What the platform answered with 5xx and no line tells of, an instance having died over it, is an error on top of them.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

import httpx

from ops.canary_question import Question
from ops.canary_verdict import Figures

GOOGLE = "https://monitoring.googleapis.com"
_ANSWERS = "run.googleapis.com/request_count"
_REQUESTS = "logging.googleapis.com/user/draiv/requests"
_READS = "logging.googleapis.com/user/draiv/read_duration"
_REVISION = "resource.labels.revision_name"
_LABELS = ("action", "code", "outcome")
_ATTEMPTS = 3


class FiguresUnavailable(Exception):
    """Cloud Monitoring does not answer, or not in a way that is understood."""


class Monitoring:
    """Reads figures by ``projects.timeSeries.list``."""

    def __init__(
        self,
        project: str,
        region: str,
        service: str,
        token: Callable[[], str],
        *,
        question: Question,
        base_url: str = GOOGLE,
        pause: Callable[[float], None],
    ) -> None:
        """``token`` gives an access token; ``question`` is what the canary itself asks, and is left out.

        ``pause`` waits, seconds, between two attempts.
        """
        self._url = f"{base_url}/v3/projects/{project}/timeSeries"
        self._resource = (
            f'resource.type="cloud_run_revision" AND resource.labels.service_name="{service}" '
            f'AND resource.labels.location="{region}"'
        )
        self._token = token
        self._question = question
        self._pause = pause

    def figures(self, start: datetime, end: datetime) -> dict[str, Figures]:
        """Every revision that answered requests between the two; whole seconds. Raises FiguresUnavailable."""
        window = {
            "interval.startTime": f"{start:%Y-%m-%dT%H:%M:%SZ}",
            "interval.endTime": f"{end:%Y-%m-%dT%H:%M:%SZ}",
            # One point for the whole window.
            "aggregation.alignmentPeriod": f"{(end - start).total_seconds():.0f}s",
            "aggregation.perSeriesAligner": "ALIGN_DELTA",
        }
        try:
            answers = self._answers(window)
            outcomes = self._outcomes(window)
            p95_ms = self._p95_ms(window)
        except (KeyError, TypeError, ValueError, IndexError) as strange:
            raise FiguresUnavailable("Cloud Monitoring answered in a way that is not understood") from strange
        return {
            revision: _figures(answers.get(revision, {}), outcomes.get(revision, {}), p95_ms.get(revision))
            for revision in answers.keys() | outcomes.keys()
        }

    def _answers(self, window: Mapping[str, str]) -> dict[str, dict[str, int]]:
        """How many of each status, by revision."""
        counts: dict[str, dict[str, int]] = {}
        for series in self._list(_ANSWERS, window, "REDUCE_SUM", _REVISION, "metric.labels.response_code"):
            by = counts.setdefault(series["resource"]["labels"]["revision_name"], {})
            status = series["metric"]["labels"]["response_code"]
            by[status] = by.get(status, 0) + _count(series)
        return counts

    def _outcomes(self, window: Mapping[str, str]) -> dict[str, dict[tuple[str, bool], int]]:
        """How many of each outcome, and of whom, by revision."""
        counts: dict[str, dict[tuple[str, bool], int]] = {}
        group_by = (_REVISION, *(f"metric.labels.{name}" for name in _LABELS))
        for series in self._list(_REQUESTS, window, "REDUCE_SUM", *group_by):
            by = counts.setdefault(series["resource"]["labels"]["revision_name"], {})
            # A label without a value may be left out.
            action, code, outcome = (series["metric"].get("labels", {}).get(name, "") for name in _LABELS)
            of = (outcome, self._question.may_be(action, code))
            by[of] = by.get(of, 0) + _count(series)
        return counts

    def _p95_ms(self, window: Mapping[str, str]) -> dict[str, float]:
        found = {}
        for series in self._list(_READS, window, "REDUCE_PERCENTILE_95", _REVISION):
            value = float(series["points"][0]["value"]["doubleValue"])
            if not math.isnan(value):
                found[series["resource"]["labels"]["revision_name"]] = value
        return found

    def _list(self, metric: str, window: Mapping[str, str], reducer: str, *group_by: str) -> Iterator[dict[str, Any]]:
        query: dict[str, str | list[str]] = {
            **window,
            "filter": f'metric.type="{metric}" AND {self._resource}',
            "aggregation.crossSeriesReducer": reducer,
            "aggregation.groupByFields": list(group_by),
        }
        token = ""
        while True:
            page = self._get({**query, "pageToken": token} if token else query)
            yield from page.get("timeSeries", [])
            token = page.get("nextPageToken", "")
            if not token:
                return

    def _get(self, query: Mapping[str, str | list[str]]) -> dict[str, Any]:
        said = "no answer"
        for attempt in range(_ATTEMPTS):
            if attempt:
                self._pause(2.0**attempt)
            try:
                headers = {"Authorization": f"Bearer {self._token()}"}
                answer = httpx.get(self._url, params=query, headers=headers, timeout=20)
            except httpx.HTTPError as broken:
                said = type(broken).__name__
                continue
            if answer.status_code == 200:
                page: dict[str, Any] = answer.json()
                return page
            said = str(answer.status_code)
            if answer.status_code < 500 and answer.status_code != 429:
                break
        hint = "; are the log-based metrics there? python -m ops.monitoring.install" if said == "404" else ""
        raise FiguresUnavailable(f"Cloud Monitoring gave no figures: {said}{hint}")


def _count(series: Mapping[str, Any]) -> int:
    return sum(int(point["value"]["int64Value"]) for point in series["points"])


def _figures(answers: Mapping[str, int], outcomes: Mapping[tuple[str, bool], int], p95_ms: float | None) -> Figures:
    callers = {outcome: count for (outcome, is_ours), count in outcomes.items() if not is_ours}
    told = sum(count for (outcome, _), count in outcomes.items() if outcome == "failed")
    # 501 is a car that cannot do it, and nobody's error.
    failed = sum(count for status, count in answers.items() if status.startswith("5") and status != "501")
    untold = max(0, failed - told)
    return Figures(
        requests=sum(callers.values()) + untold,
        errors=callers.get("failed", 0) + untold,
        refused=callers.get("rejected", 0),
        p95_ms=p95_ms,
        answered=sum(answers.values()),
    )
