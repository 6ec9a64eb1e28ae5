"""The spans of whole requests, as a collector gets them."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from common.settings import Settings
from functions.app import App, build
from sandbox.process import RunningSandbox
from tests.integration.conftest import IX, MASTER_KEY, NO_LIMITS, PASSWORD, Api
from tests.support.collector import Collector, attributes, running_collector

LOGIN = {"action": "connect", "email": "one@example.com", "password": PASSWORD, "hcaptcha": "once"}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
HEADERS = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
UNWANTED = {"traceparent": f"00-{'a' * 32}-00f067aa0ba902b7-00"}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with running_collector() as running:
        yield running


class Traced:
    """The service, and what it sent to the collector by the time it was closed."""

    def __init__(self, app: App) -> None:
        self.api = Api(app)

    def close(self) -> None:
        self.api.app.close()


@pytest.fixture
def make_traced(collector: Collector, tmp_path: Path) -> Callable[[str], Traced]:
    def make(origin: str) -> Traced:
        values: dict[str, Any] = {
            "environment": "development",
            "callers": ("open",),
            "token_keys": MASTER_KEY,
            "documents_url": f"sqlite:///{tmp_path}/documents.db",
            "mybmw_origin": origin,
            "poll_interval_s": 0.01,
            "read_attempts": 2,
            "otel_exporter_otlp_endpoint": collector.url,
            **NO_LIMITS,
        }
        return Traced(build(Settings(**values)))

    return make


@pytest.fixture
def traced(make_traced: Callable[[str], Traced], sandbox: RunningSandbox) -> Traced:
    return make_traced(sandbox.origin)


@contextmanager
def recorded_headers() -> Iterator[tuple[str, list[set[str]]]]:
    """A maker that answers nothing but 503, and the names of the headers of each request."""
    seen: list[set[str]] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            seen.append({name.lower() for name in self.headers})
            self.rfile.read(int(self.headers.get("Content-Length", "0")))
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            self.answer()

        def do_POST(self) -> None:
            self.answer()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def tree(collector: Collector, root: str) -> dict[str, str]:
    """The parent's name by each span's, below the one request of the action ``root``."""
    spans = {span.span_id: span for span in collector.spans()}
    found = {}
    for span in spans.values():
        above = span
        while above.parent_span_id in spans:
            above = spans[above.parent_span_id]
        if above.name == root and span is not above:
            found[span.name] = spans[span.parent_span_id].name
    return found


def test_a_read_shows_its_steps_its_call_to_the_maker_and_what_was_asked_of_him(
    traced: Traced, collector: Collector
) -> None:
    account = traced.api.connect()
    answered = traced.api.post(HEADERS, action="status", account=account, vin=IX)
    assert answered.status == 200
    traced.close()
    steps = tree(collector, "status")
    assert {"identify", "decode", "fence", "limits", "link", "vehicle", "act", "encode"} <= set(steps)
    assert {name for name, parent in steps.items() if parent == "status"} == {
        "identify", "decode", "fence", "limits", "link", "vehicle", "act", "encode",
    }  # fmt: skip
    asked = {name for name, parent in steps.items() if parent == "upstream"}
    assert len(asked) >= 2  # state and charging settings
    state = next(span for span in collector.spans() if span.name in asked)
    assert attributes(state)["provider"] == "mybmw"
    assert {span.trace_id.hex() for span in collector.spans() if span.name == "encode"} >= {TRACE}


def test_the_log_line_and_the_reply_name_the_requests_own_span(
    traced: Traced, collector: Collector, capfd: pytest.CaptureFixture[str]
) -> None:
    answered = traced.api.post(HEADERS, action="actions")
    line = next(line for line in map(json.loads, capfd.readouterr().out.splitlines()) if line["message"] == "request")
    traced.close()
    span = next(span for span in collector.spans() if span.name == "actions")
    assert span.parent_span_id.hex() == "00f067aa0ba902b7"
    assert answered.headers["traceparent"] == f"00-{TRACE}-{span.span_id.hex()}-01"
    assert line["logging.googleapis.com/trace"] == TRACE
    assert line["logging.googleapis.com/spanId"] == span.span_id.hex()


def test_a_failing_maker_shows_as_each_of_its_tries(
    traced: Traced, collector: Collector, sandbox: RunningSandbox
) -> None:
    account = traced.api.connect()
    sandbox.fault(fault="status", status=503, match={"path": "vehicle-list"}, times=1)
    assert traced.api.post(HEADERS, action="vehicles", account=account).status == 200
    traced.close()
    tries = [attributes(span) for span in collector.spans() if span.name == "upstream" and span.trace_id.hex() == TRACE]
    assert [one.get("error.type") for one in tries] == ["UPSTREAM_ERROR", None]
    assert {(one["provider"], one["region"], one["kind"]) for one in tries} == {("mybmw", "rest_of_world", "read")}


def test_each_part_of_a_batch_has_its_own_steps(traced: Traced, collector: Collector) -> None:
    account = traced.api.connect()
    parts = [{"action": "fuel", "account": account, "vin": IX}, {"action": "nonsense"}]
    assert traced.api.post(HEADERS, action="batch", params={"requests": parts}).status == 200
    traced.close()
    spans = [span for span in collector.spans() if span.trace_id.hex() == TRACE]
    acts = {span.span_id for span in spans if span.name == "act"}
    assert sum(span.name == "part" and span.parent_span_id in acts for span in spans) == 2


def test_nothing_that_names_a_person_or_a_car_is_in_a_span(
    traced: Traced, collector: Collector, sandbox: RunningSandbox
) -> None:
    account = traced.api.connect()
    for action in ("status", "lock", "image", "vehicles"):
        traced.api.post(HEADERS, action=action, account=account, vin=IX)
    sandbox.fault(fault="status", status=500, match={"path": "state"})
    traced.api.post(HEADERS, action="status", account=account, vin=IX, fresh=True)
    traced.close()
    sent = b"".join(request.SerializeToString() for request in collector.requests)
    assert b"lock" in sent
    for secret in (IX, account, "one@example.com", "demo-password"):
        assert secret.encode() not in sent


def test_makers_are_told_no_trace(make_traced: Callable[[str], Traced]) -> None:
    with recorded_headers() as (origin, seen):
        traced = make_traced(origin)
        assert traced.api.post(HEADERS, **LOGIN).status == 502
        traced.close()
    assert seen
    for headers in seen:
        assert not {"traceparent", "tracestate", "baggage", "x-cloud-trace-context", "x-request-id"} & headers
        assert "user-agent" in headers


def test_what_its_caller_does_not_want_sampled_is_not_sent(traced: Traced, collector: Collector) -> None:
    traced.api.post(UNWANTED, action="actions")
    traced.api.post(HEADERS, action="actions")
    traced.close()
    assert [span.name for span in collector.spans()].count("actions") == 1
