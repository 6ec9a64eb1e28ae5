"""Spans of a request, its steps and its calls to a maker; nothing at all where nobody collects them.

A span says which step took how long and how it ended, in our own words: the action, the maker, the error's code. Never
a VIN, an account, a caller or a text of somebody else. The trace goes on from the caller's ``traceparent`` and ends
here: makers are told none, for it would tie a car's requests to each other and to whoever asked.

Steps are wrapped once, when the service is put together, so that without a collector they are called as they are.
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import ParamSpec, Protocol, TypeVar

from common.clock import Clock
from common.trace import TraceContext, trace_context

P = ParamSpec("P")
T = TypeVar("T")


class Tracing(Protocol):
    """What the service says of its work."""

    def begin(self, headers: Mapping[str, str]) -> TraceContext:
        """A request with these headers, by lower-case name, begins; where it stands in which trace."""
        ...

    def end(self, action: str, status: int, code: str | None) -> None:
        """The request that this coroutine serves was answered; ``code`` is our error's, if it failed."""
        ...

    def wrap(self, name: str, step: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        """``step``, each call of which is a span."""
        ...

    def wrap_sync(self, name: str, step: Callable[P, T]) -> Callable[P, T]:
        """The same for a step that never waits."""
        ...

    def step(self, name: str, **attributes: str) -> AbstractContextManager[object]:
        """A span for a block."""
        ...

    def upstream(self, provider: str, endpoint: str, outcome: str, seconds: float) -> None:
        """A request to a maker has ended just now. ``endpoint`` is a name, never a URL with ids in it."""
        ...

    async def aclose(self) -> None:
        """Send what is left."""
        ...


class NoTracing:
    """Nobody collects spans."""

    def begin(self, headers: Mapping[str, str]) -> TraceContext:
        """The caller's place in its trace, or a trace of our own."""
        return trace_context(headers.get("traceparent"), headers.get("x-cloud-trace-context"))

    def end(self, action: str, status: int, code: str | None) -> None:
        """Nothing."""

    def wrap(self, name: str, step: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:  # noqa: ARG002 - the port's
        """``step`` itself."""
        return step

    def wrap_sync(self, name: str, step: Callable[P, T]) -> Callable[P, T]:  # noqa: ARG002 - the port's
        """``step`` itself."""
        return step

    def step(self, name: str, **attributes: str) -> AbstractContextManager[object]:  # noqa: ARG002 - the port's
        """Nothing."""
        return _NOTHING

    def upstream(self, provider: str, endpoint: str, outcome: str, seconds: float) -> None:
        """Nothing."""

    async def aclose(self) -> None:
        """Nothing."""


_NOTHING = nullcontext()
NO_TRACING = NoTracing()


def open_tracing(endpoint: str | None, clock: Clock, *, environment: str, version: str, revision: str) -> Tracing:
    """Tracing to the collector at ``endpoint`` (OTLP over HTTP, ``http://host:4318``); none without one.

    Starts a thread: call it in the worker, after the fork.
    """
    if not endpoint:
        return NO_TRACING
    from common.tracing_otlp import OtlpTracing, exporting  # noqa: PLC0415 - load what is configured

    return OtlpTracing(exporting(endpoint, environment=environment, version=version, revision=revision), clock)
