"""What Cloud Monitoring knows of a Cloud Run service's revisions: requests, errors, latency."""

import math
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

import httpx

from ops.canary_verdict import Figures

GOOGLE = "https://monitoring.googleapis.com"
_REQUESTS = "run.googleapis.com/request_count"
_LATENCIES = "run.googleapis.com/request_latencies"
_REVISION = "resource.labels.revision_name"
_CLASS = "metric.labels.response_code_class"
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
        base_url: str = GOOGLE,
        pause: Callable[[float], None],
    ) -> None:
        """``token`` gives an access token; ``pause`` waits, seconds, between two attempts."""
        self._url = f"{base_url}/v3/projects/{project}/timeSeries"
        self._resource = (
            f'resource.type="cloud_run_revision" AND resource.labels.service_name="{service}" '
            f'AND resource.labels.location="{region}"'
        )
        self._token = token
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
            counts = self._counts(window)
            p95_ms = self._p95_ms(window)
        except (KeyError, TypeError, ValueError, IndexError) as strange:
            raise FiguresUnavailable("Cloud Monitoring answered in a way that is not understood") from strange
        return {
            revision: Figures(sum(by.values()), by.get("5xx", 0), by.get("4xx", 0), p95_ms.get(revision))
            for revision, by in counts.items()
        }

    def _counts(self, window: Mapping[str, str]) -> dict[str, dict[str, int]]:
        counts: dict[str, dict[str, int]] = {}
        for series in self._list(_REQUESTS, window, "REDUCE_SUM", _REVISION, _CLASS):
            by = counts.setdefault(series["resource"]["labels"]["revision_name"], {})
            kind = series["metric"]["labels"]["response_code_class"]
            by[kind] = by.get(kind, 0) + sum(int(point["value"]["int64Value"]) for point in series["points"])
        return counts

    def _p95_ms(self, window: Mapping[str, str]) -> dict[str, float]:
        found = {}
        for series in self._list(_LATENCIES, window, "REDUCE_PERCENTILE_95", _REVISION):
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
        raise FiguresUnavailable(f"Cloud Monitoring gave no figures: {said}")
