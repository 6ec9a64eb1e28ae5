"""Spans by OpenTelemetry, sent by OTLP over HTTP from a thread of the SDK's. Imported only where a collector is set.

Which span is the current one is kept in a variable of our own and put back by value: a request begins on one of the
server's threads and may move to the loop (:mod:`common.loops`), where OpenTelemetry's own tokens would not fit.
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, StatusCode, TraceFlags
from opentelemetry.trace.propagation import set_span_in_context

from common.clock import Clock
from common.errors import ApiError, RequestError
from common.loops import needs_loop
from common.trace import TraceContext, parse_cloud_trace, parse_traceparent
from common.tracing import P, T

_current: ContextVar[Span | None] = ContextVar("span", default=None)


def exporting(endpoint: str, *, environment: str, version: str, revision: str) -> TracerProvider:
    """Sends spans to ``endpoint``.

    The SDK's own variables (``OTEL_TRACES_SAMPLER``, ``OTEL_EXPORTER_OTLP_HEADERS`` ...) apply; by default it obeys the
    caller's sampling flag, and samples every request that comes without one.
    """
    resource = Resource.create(
        {
            "service.name": "draiv-apis",
            "service.version": version,
            "deployment.environment.name": environment,
            "faas.version": revision,
        }
    )
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces")))
    return provider


class OtlpTracing:
    """Makes spans. Thread-safe, as the SDK is."""

    def __init__(self, provider: TracerProvider, clock: Clock) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("draiv-apis")
        self._clock = clock

    def begin(self, headers: Mapping[str, str]) -> TraceContext:
        """Start the request's span, under the caller's where it names one."""
        caller = parse_traceparent(headers.get("traceparent")) or parse_cloud_trace(
            headers.get("x-cloud-trace-context")
        )
        # Never under the thread's own context: another request may have left something there.
        parent = set_span_in_context(_remote(caller), Context()) if caller else Context()
        span = self._tracer.start_span("request", parent, SpanKind.SERVER, start_time=self._now_ns())
        # A request that moved to the loop leaves this behind on the thread, whose next one begins with its own.
        _current.set(span)
        context = span.get_span_context()
        return TraceContext(f"{context.trace_id:032x}", f"{context.span_id:016x}", sampled=context.trace_flags.sampled)

    def end(self, action: str, status: int, code: str | None) -> None:
        """End the request's span, named for its action."""
        span = _current.get()
        if span is None:
            return
        _current.set(None)
        span.update_name(action)
        span.set_attribute("http.response.status_code", status)
        if code is not None:
            span.set_attribute("error.type", code)
        if status >= 500 and status != 501:
            span.set_status(StatusCode.ERROR)
        span.end(self._now_ns())

    def wrap(self, name: str, step: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        """``step``, each call of which is a span under the current one."""

        @functools.wraps(step)
        async def traced(*args: P.args, **kwargs: P.kwargs) -> T:
            with self.step(name):
                return await step(*args, **kwargs)

        return traced

    def wrap_sync(self, name: str, step: Callable[P, T]) -> Callable[P, T]:
        """The same for a step that never waits."""

        @functools.wraps(step)
        def traced(*args: P.args, **kwargs: P.kwargs) -> T:
            with self.step(name):
                return step(*args, **kwargs)

        return traced

    def step(self, name: str, **attributes: str) -> AbstractContextManager[object]:
        """A span under the current one; none outside a request, and none in one that is not sampled."""
        return self._step(name, attributes)

    def upstream(self, provider: str, endpoint: str, outcome: str, seconds: float) -> None:
        """A span that has ended just now, ``seconds`` after it began."""
        parent = _current.get()
        if parent is None or not parent.is_recording():
            return
        ended_ns = self._now_ns()
        span = self._tracer.start_span(
            endpoint,
            set_span_in_context(parent, Context()),
            SpanKind.CLIENT,
            {"provider": provider, "outcome": outcome},
            start_time=ended_ns - int(seconds * 1e9),
        )
        if not outcome.startswith(("2", "3")):
            span.set_status(StatusCode.ERROR)
        span.end(ended_ns)

    async def aclose(self) -> None:
        """Send what is left, and end the SDK's thread."""
        await needs_loop()
        await asyncio.to_thread(self._provider.shutdown)

    @contextmanager
    def _step(self, name: str, attributes: Mapping[str, str]) -> Iterator[None]:
        parent = _current.get()
        if parent is None or not parent.is_recording():
            yield
            return
        context = set_span_in_context(parent, Context())
        span = self._tracer.start_span(name, context, attributes=attributes, start_time=self._now_ns())
        _current.set(span)
        try:
            yield
        except BaseException as error:
            # The code or the type, never the text: it may quote somebody.
            span.set_attribute("error.type", error.code if isinstance(error, ApiError) else type(error).__name__)
            if not isinstance(error, RequestError):
                span.set_status(StatusCode.ERROR)
            raise
        finally:
            _current.set(parent)
            span.end(self._now_ns())

    def _now_ns(self) -> int:
        return int(self._clock.utc().timestamp() * 1e9)


def _remote(caller: TraceContext) -> Span:
    flags = TraceFlags(TraceFlags.SAMPLED if caller.sampled else TraceFlags.DEFAULT)
    return NonRecordingSpan(
        SpanContext(int(caller.trace_id, 16), int(caller.span_id, 16), is_remote=True, trace_flags=flags)
    )
