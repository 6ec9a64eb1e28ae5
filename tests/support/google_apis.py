"""Google's Logging and Monitoring APIs as far as definitions are kept there: they refuse what Google's messages refuse.

A metric that was just made may not be named by others at first, and is then not to be found, as in a new project.
"""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from google.cloud.logging_v2.types import LogMetric
from google.cloud.monitoring_dashboard_v1.types import Dashboard
from google.cloud.monitoring_v3.types import AlertPolicy, Service, ServiceLevelObjective, UptimeCheckConfig
from google.protobuf.json_format import ParseError

_MESSAGES: dict[str, Any] = {
    "metrics": LogMetric,
    "dashboards": Dashboard,
    "services": Service,
    "serviceLevelObjectives": ServiceLevelObjective,
    "uptimeCheckConfigs": UptimeCheckConfig,
    "alertPolicies": AlertPolicy,
}
_IDS = {"services": "serviceId", "serviceLevelObjectives": "serviceLevelObjectiveId"}
_USER_METRIC = re.compile(r"logging\.googleapis\.com/user/([\w/]+)")
_PAGE = 7


class GoogleApis:
    """What is kept, by name with the API's version before it, such as ``/v3/projects/p/alertPolicies/1``."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, Any]] = {}
        self.calls: list[tuple[str, str]] = []
        self.metrics_come_after = 0
        """How many refusals a new metric costs whoever names it."""
        self.failing = 0
        """The next so many calls are answered 503."""

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Everything of a collection."""
        return [body for name, body in self.kept.items() if name.split("/")[-2] == kind]

    def answer(self, method: str, target: str, body: Any) -> tuple[int, dict[str, Any]]:
        """Status and JSON."""
        self.calls.append((method, target))
        if self.failing:
            self.failing -= 1
            return 503, _error("The service is currently unavailable.")
        path = unquote(urlsplit(target).path) if "/metrics/" not in target else urlsplit(target).path
        query = {name: values[0] for name, values in parse_qs(urlsplit(target).query).items()}
        if method == "GET":
            return self._get(path, query)
        collection = path if method == "POST" else path.rpartition("/")[0]
        kind = collection.rpartition("/")[2]
        try:
            _MESSAGES[kind].from_json(json.dumps(body), ignore_unknown_fields=False)
        except ParseError as refused:
            return 400, _error(str(refused))
        if missing := self._not_there_yet(body, kind):
            return 404, _error(f"Cannot find metric(s) that match type = {missing}. It could take up to 10 minutes.")
        return self._put(method, path, collection, query, body)

    def _get(self, path: str, query: dict[str, str]) -> tuple[int, dict[str, Any]]:
        kind = path.rpartition("/")[2]
        if kind in _MESSAGES:
            found = [body for name, body in self.kept.items() if name.rpartition("/")[0] == path]
            first = int(query.get("pageToken", "0"))
            more = {"nextPageToken": str(first + _PAGE)} if first + _PAGE < len(found) else {}
            return 200, {kind: found[first : first + _PAGE], **more}
        return (200, self.kept[path]) if path in self.kept else (404, _error("not found"))

    def _put(
        self, method: str, path: str, collection: str, query: dict[str, str], body: dict[str, Any]
    ) -> tuple[int, dict[str, Any]]:
        kind = collection.rpartition("/")[2]
        if method == "POST":
            chosen = body["name"].rpartition("/")[2] if kind == "dashboards" else query.get(_IDS.get(kind, ""))
            path = f"{collection}/{chosen or len(self.kept) + 1000}"
            if path in self.kept:
                return 409, _error("already exists")
        elif method == "PATCH" and path not in self.kept:
            return 404, _error("not found")
        elif method == "PATCH" and kind == "dashboards" and body.get("etag") != self.kept[path]["etag"]:
            return 409, _error("etag")
        own = {"name": body["name"] if kind == "metrics" else path.split("/", 2)[2]}
        self.kept[path] = {**body, **own, "etag": f"e{len(self.calls)}"} if kind == "dashboards" else {**body, **own}
        return 200, self.kept[path]

    def _not_there_yet(self, body: Any, kind: str) -> str | None:
        if kind == "metrics":
            return None
        there = {metric["name"] for metric in self.of("metrics")}
        for name in _USER_METRIC.findall(json.dumps(body)):
            if name not in there:
                return str(name)
            if self.metrics_come_after and kind != "dashboards":
                self.metrics_come_after -= 1
                return str(name)
        return None


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message}}


@contextmanager
def google_apis(apis: GoogleApis) -> Iterator[str]:
    """Its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            assert self.headers["Authorization"] == "Bearer sandbox-access-token"
            status, body = apis.answer(self.command, self.path, json.loads(sent) if sent else None)
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_PUT = do_PATCH = do_GET  # noqa: N815 - the names are http.server's

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
