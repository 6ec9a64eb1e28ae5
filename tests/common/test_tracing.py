"""Spans, made by the real SDK and kept in memory; sent to a real collector in one test."""

import asyncio
import contextvars
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from opentelemetry.context import attach, detach
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context

from common.clock import ManualClock, SystemClock
from common.errors import UpstreamError, ValidationFailed
from common.loops import LoopThread, needs_loop
from common.trace import parse_traceparent
from common.tracing import NO_TRACING, Tracing, open_tracing
from common.tracing_otlp import OtlpTracing
from tests.support.collector import running_collector

CALLER = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
UNSAMPLED = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def kept() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracing(kept: InMemorySpanExporter, clock: ManualClock) -> OtlpTracing:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    return OtlpTracing(provider, clock)


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    thread = LoopThread("test")
    yield thread
    thread.close()


def by_name(kept: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    spans = kept.get_finished_spans()
    assert len({span.name for span in spans}) == len(spans)
    return {span.name: span for span in spans}


def parent_of(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent else None


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    span_id: int = span.context.span_id
    return span_id


def test_a_request_goes_on_with_its_callers_trace(tracing: OtlpTracing, kept: InMemorySpanExporter) -> None:
    here = tracing.begin(CALLER)
    tracing.end("status", 200, None)
    span = by_name(kept)["status"]
    assert here.trace_id == "0af7651916cd43dd8448eb211c80319c"
    assert here.sampled
    assert int(here.span_id, 16) == id_of(span)
    assert parent_of(span) == 0xB7AD6B7169203331
    assert span.kind is SpanKind.SERVER
    assert dict(span.attributes or {}) == {"http.response.status_code": 200}


def test_googles_older_header_is_understood_too(tracing: OtlpTracing, kept: InMemorySpanExporter) -> None:
    here = tracing.begin({"x-cloud-trace-context": "0af7651916cd43dd8448eb211c80319c/7;o=1"})
    tracing.end("status", 200, None)
    assert here.trace_id == "0af7651916cd43dd8448eb211c80319c"
    assert parent_of(by_name(kept)["status"]) == 7


def test_a_request_without_a_trace_begins_one_that_nothing_comes_before(
    tracing: OtlpTracing, kept: InMemorySpanExporter
) -> None:
    for header in ({}, {"traceparent": "00-nonsense"}):
        here = tracing.begin(header)
        tracing.end("status", 200, None)
        span = kept.get_finished_spans()[-1]
        assert span.parent is None
        assert span.context is not None
        assert here.trace_id == f"{span.context.trace_id:032x}"


def test_what_another_library_left_on_the_thread_is_not_what_comes_before(
    tracing: OtlpTracing, kept: InMemorySpanExporter
) -> None:
    stranger = TracerProvider().get_tracer("another library").start_span("stranger")
    left = attach(set_span_in_context(stranger))
    tracing.begin({})
    tracing.end("status", 200, None)
    detach(left)
    assert by_name(kept)["status"].parent is None


def test_what_the_caller_does_not_want_sampled_is_not(tracing: OtlpTracing, kept: InMemorySpanExporter) -> None:
    here = tracing.begin(UNSAMPLED)
    with tracing.step("act"):
        tracing.upstream("mybmw", "state", "200", 0.1)
    tracing.end("status", 200, None)
    assert not kept.get_finished_spans()
    assert not here.sampled


def test_steps_nest_by_time_and_end_before_what_they_belong_to(
    tracing: OtlpTracing, kept: InMemorySpanExporter, clock: ManualClock
) -> None:
    tracing.begin(CALLER)
    with tracing.step("act"):
        clock.advance(1)
        with tracing.step("upstream", provider="mybmw", kind="read"):
            clock.advance(2)
    with tracing.step("encode"):
        pass
    tracing.end("status", 200, None)
    spans = by_name(kept)
    assert parent_of(spans["act"]) == id_of(spans["status"]) == parent_of(spans["encode"])
    assert parent_of(spans["upstream"]) == id_of(spans["act"])
    assert dict(spans["upstream"].attributes or {}) == {"provider": "mybmw", "kind": "read"}
    assert (spans["upstream"].end_time or 0) - (spans["upstream"].start_time or 0) == pytest.approx(2e9, abs=1e3)
    assert (spans["act"].end_time or 0) - (spans["act"].start_time or 0) == pytest.approx(3e9, abs=1e3)


def test_a_request_to_a_maker_is_a_span_that_began_when_the_request_did(
    tracing: OtlpTracing, kept: InMemorySpanExporter
) -> None:
    tracing.begin(CALLER)
    with tracing.step("upstream"):
        tracing.upstream("mybmw", "state", "200", 0.25)
        tracing.upstream("mybmw", "profile", "ReadTimeout", 0.5)
        tracing.upstream("mybmw", "image", "503", 0.5)
    tracing.end("status", 200, None)
    spans = by_name(kept)
    assert parent_of(spans["state"]) == id_of(spans["upstream"])
    assert spans["state"].kind is SpanKind.CLIENT
    assert (spans["state"].end_time or 0) - (spans["state"].start_time or 0) == pytest.approx(0.25e9, abs=1e3)
    assert dict(spans["profile"].attributes or {}) == {"provider": "mybmw", "outcome": "ReadTimeout"}
    statuses = {name: spans[name].status.status_code for name in ("state", "profile", "image")}
    assert statuses == {"state": StatusCode.UNSET, "profile": StatusCode.ERROR, "image": StatusCode.ERROR}


def test_an_error_is_told_by_its_code_and_never_by_its_text(tracing: OtlpTracing, kept: InMemorySpanExporter) -> None:
    tracing.begin(CALLER)
    for name, error in (
        ("maker", UpstreamError("secret words")),
        ("defect", KeyError("secret words")),
        ("caller", ValidationFailed("secret words")),
    ):
        with pytest.raises(type(error)), tracing.step(name):
            raise error
    tracing.end("status", 502, "UPSTREAM_ERROR")
    spans = by_name(kept)
    told = {name: (spans[name].status.status_code, (spans[name].attributes or {})["error.type"]) for name in spans}
    assert told == {
        "maker": (StatusCode.ERROR, "UPSTREAM_ERROR"),
        "defect": (StatusCode.ERROR, "KeyError"),
        "caller": (StatusCode.UNSET, "VALIDATION_ERROR"),
        "status": (StatusCode.ERROR, "UPSTREAM_ERROR"),
    }
    assert "secret" not in "".join(span.to_json() for span in spans.values())


def test_what_the_caller_did_wrong_and_what_a_car_cannot_do_are_no_failures(
    tracing: OtlpTracing, kept: InMemorySpanExporter
) -> None:
    for status, code in ((400, "VALIDATION_ERROR"), (501, "NOT_SUPPORTED")):
        tracing.begin({})
        tracing.end("lock", status, code)
        assert kept.get_finished_spans()[-1].status.status_code is StatusCode.UNSET


def test_a_step_that_begins_on_the_servers_thread_ends_on_the_loop(
    tracing: OtlpTracing, kept: InMemorySpanExporter, loop: LoopThread
) -> None:
    places: list[threading.Thread] = []

    async def far() -> None:
        places.append(threading.current_thread())
        await needs_loop()
        places.append(threading.current_thread())
        with tracing.step("upstream"):
            await asyncio.sleep(0)

    async def near() -> None:
        pass

    async def serve() -> None:
        tracing.begin({})
        await tracing.wrap("identify", near)()
        await tracing.wrap("act", far)()
        tracing.wrap_sync("encode", places.clear)()
        tracing.end("status", 200, None)

    loop.run(serve())
    first = by_name(kept)
    kept.clear()
    assert not places  # `encode` ran
    loop.run(serve())
    second = by_name(kept)
    assert set(first) == {"status", "identify", "act", "upstream", "encode"}
    for spans in (first, second):
        root = id_of(spans["status"])
        assert spans["status"].parent is None
        assert {parent_of(spans[name]) for name in ("identify", "act", "encode")} == {root}
        assert parent_of(spans["upstream"]) == id_of(spans["act"])
    assert id_of(first["status"]) != id_of(second["status"])


def test_requests_that_are_served_at_once_do_not_mix(
    tracing: OtlpTracing, kept: InMemorySpanExporter, loop: LoopThread
) -> None:
    both_are_in = threading.Barrier(2, timeout=10)

    async def serve(action: str) -> None:
        tracing.begin({})
        both_are_in.wait()
        await needs_loop()
        for number in range(3):
            with tracing.step(f"{action}-{number}"):
                await asyncio.sleep(0)
        tracing.end(action, 200, None)

    threads = [threading.Thread(target=lambda action=action: loop.run(serve(action))) for action in ("fuel", "lock")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    spans = by_name(kept)
    for action in ("fuel", "lock"):
        assert {parent_of(spans[f"{action}-{n}"]) for n in range(3)} == {id_of(spans[action])}


def test_outside_a_request_there_are_no_spans(tracing: OtlpTracing, kept: InMemorySpanExporter) -> None:
    def keep_alive() -> None:
        with tracing.step("keep_alive"):
            tracing.upstream("cardata", "token", "200", 0.1)
        tracing.end("status", 200, None)

    contextvars.Context().run(keep_alive)
    tracing.begin({})
    tracing.end("status", 200, None)
    keep_alive()
    assert [span.name for span in kept.get_finished_spans()] == ["status"]


async def test_without_a_collector_steps_are_called_as_they_are() -> None:
    tracing: Tracing = open_tracing(None, SystemClock(), environment="test", version="1", revision="r")

    async def step() -> None: ...

    assert tracing is NO_TRACING
    assert tracing.wrap("step", step) is step
    assert tracing.wrap_sync("step", step) is step
    assert tracing.begin(CALLER) == parse_traceparent(CALLER["traceparent"])
    with tracing.step("upstream", provider="mybmw"):
        tracing.upstream("mybmw", "state", "200", 0.1)
    tracing.end("status", 200, None)
    await tracing.aclose()


def test_without_a_collector_opentelemetry_is_not_even_imported() -> None:
    code = """if True:
        import sys
        from common.clock import SystemClock
        from common.tracing import open_tracing
        import functions.app
        open_tracing(None, SystemClock(), environment="test", version="1", revision="r")
        sys.exit(any(name.startswith("opentelemetry") for name in sys.modules))
    """
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=30).returncode == 0


async def test_spans_arrive_at_the_collector_before_the_service_has_closed() -> None:
    with running_collector() as collector:
        tracing = open_tracing(
            collector.url + "/", SystemClock(), environment="staging", version="1.2.3", revision="draiv-00007"
        )
        tracing.begin(CALLER)
        tracing.end("status", 200, None)
        assert not collector.requests
        await tracing.aclose()
        assert [span.name for span in collector.spans()] == ["status"]
        assert collector.paths == ["/v1/traces"]
        assert collector.spans()[0].trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
        told = collector.resource()
    assert (told["service.name"], told["service.version"]) == ("draiv-apis", "1.2.3")
    assert (told["deployment.environment.name"], told["faas.version"]) == ("staging", "draiv-00007")
