"""A real Prometheus on this machine that scrapes one instance, and what it answers."""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from ops.monitoring.screenshot.dashboard import SCRAPE_S, Query, Window
from ops.processes import Server, free_port


class PrometheusError(Exception):
    """It refused a query, or could not scrape."""


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A running one."""

    url: str

    def answers(self, queries: Sequence[Query], over: Window) -> list[dict[str, Any]]:
        """Each query's series over the window, in the form in which the page reads them. Raises PrometheusError."""
        times = {"start": over.begin_s, "end": over.end_s, "step": over.step_s}
        with httpx.Client(base_url=self.url, timeout=30, trust_env=False) as client:
            return [
                {"panel": query.panel, "refId": query.ref, "series": _series(client, {"query": query.expr, **times})}
                for query in queries
            ]


def _series(client: httpx.Client, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    answered = client.get("/api/v1/query_range", params=parameters).json()
    if answered["status"] != "success":
        raise PrometheusError(f"{parameters['query']}: {answered.get('error')}")
    series: list[dict[str, Any]] = answered["data"]["result"]
    return series


def settings(target: str) -> str:
    """Its configuration, to scrape ``target`` (host and port). JSON, which YAML includes."""
    job = {"job_name": "draiv", "static_configs": [{"targets": [target]}]}
    return json.dumps({"global": {"scrape_interval": f"{SCRAPE_S}s"}, "scrape_configs": [job]})


@contextmanager
def scraping(target: str, folder: Path) -> Iterator[Prometheus]:
    """Scrape ``target`` into ``folder`` until the block ends. Raises StartFailed."""
    port = free_port()
    file = folder / "prometheus.yml"
    file.write_text(settings(target))
    command = [
        shutil.which("prometheus") or "prometheus",
        f"--config.file={file}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    ]
    with Server("Prometheus", command, environ={}, cwd=folder, log=folder / "prometheus.log") as server:
        server.wait_until_answers(f"http://127.0.0.1:{port}/-/ready")
        yield Prometheus(f"http://127.0.0.1:{port}")
