"""The one way out to BMW: pooled connections, any origin, and a fence that commands pass only with a permit."""

import asyncio
import contextlib
import functools
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import httpx

from common.clock import Clock
from common.errors import InternalError
from functions.providers.mybmw.endpoints import is_command, template
from functions.providers.mybmw.failures import BMWInvalidReply, BMWTimeout
from functions.providers.port import SendPermit

RequestObserver = Callable[[str, str, float], None]
"""Told of each request: endpoint template, status code or name of the error, seconds."""

MAX_BODY_BYTES = 8 * 2**20
IDLE_S = 60.0
"""How long an idle connection is kept. All of them are: a wave of requests must not open them anew."""
_LEAVES = "http11.send_request_headers.started"
_MAYBE_TAKEN = frozenset({408, 425})
"""Statuses below 500 that do not prove a refusal."""


class Passage:
    """One command on its way out. Spends its permit as the bytes leave, and knows whether BMW may have taken it."""

    def __init__(self, permit: SendPermit) -> None:
        self._permit = permit
        self._abandoned = False
        self.in_doubt = False
        """Whether the command may have been accepted, as far as the wire tells."""

    def abandon(self) -> None:
        """Whoever sent this has gone: what has not left by now must not leave any more."""
        self._abandoned = True

    async def trace(self, event: str, _info: Mapping[str, Any]) -> None:
        """For the ``trace`` extension of httpcore, which tells before the first byte of a request is written.

        Before that a request waits for a free connection and for the handshake; a permit checked sooner could have
        expired by the time anything leaves.
        """
        if event == _LEAVES:
            if self._abandoned:
                raise BMWTimeout
            self._permit.take()
            self.in_doubt = True

    def answered(self, status: int) -> None:
        """The status line has come."""
        if status == 401 and not self._abandoned:
            self._permit.refused()
        if 400 <= status < 500 and status not in _MAYBE_TAKEN:
            self.in_doubt = False


_passage: ContextVar[Passage | None] = ContextVar("mybmw_passage", default=None)


@contextlib.contextmanager
def sending(permit: SendPermit) -> Iterator[Passage]:
    """Let commands out while the block runs, as far as ``permit`` goes."""
    passage = Passage(permit)
    token = _passage.set(passage)
    try:
        yield passage
    finally:
        _passage.reset(token)


@functools.cache
def _tls() -> ssl.SSLContext:
    """One a process: reading the certificates takes 15 ms."""
    return httpx.create_ssl_context(trust_env=False)


class PooledTransport(httpx.AsyncBaseTransport):
    """One connection pool and one TLS context for all the short-lived clients that the library makes.

    ``origin`` replaces scheme, host and port of every request, the token endpoint's included. ``timeout_s`` bounds
    each wait: for a free connection, for the next bytes, for the whole body; the library's own 30 s do not apply.
    Build it where no loop runs, if you like; use it on one loop.

    A request that has begun is never cancelled, for httpcore 0.17 loses a connection for good when that happens
    while it connects or waits, and after ``max_connections`` of those nothing goes out any more. A caller that gives
    up leaves at once; what it began ends by itself, within its timeouts.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        origin: str | None = None,
        timeout_s: float = 10.0,
        connect_timeout_s: float = 5.0,
        max_connections: int = 100,
        observe: RequestObserver = lambda _endpoint, _outcome, _seconds: None,
    ) -> None:
        self._clock = clock
        self._origin = httpx.URL(origin) if origin else None
        self._timeout_s = timeout_s
        self._timeouts = httpx.Timeout(timeout_s, connect=connect_timeout_s).as_dict()
        self._observe = observe
        self._free = asyncio.Semaphore(max_connections)
        self._exchanges: set[asyncio.Task[httpx.Response]] = set()
        self._inner = httpx.AsyncHTTPTransport(
            verify=_tls(),
            trust_env=False,
            http2=False,
            retries=0,
            limits=httpx.Limits(
                max_connections=max_connections, max_keepalive_connections=max_connections, keepalive_expiry=IDLE_S
            ),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Forward a request and read its answer to the end, so that an error in the body surfaces here too."""
        path, passage = request.url.path, None
        if is_command(request.method, path):
            passage = _passage.get()
            if passage is None:
                raise InternalError("A command was about to leave without a permit.")
        outcome, began_s = "cancelled", self._clock.monotonic()
        try:
            response = await self._exchanged(self._forwarded(request, passage), passage)
            outcome = str(response.status_code)
        except Exception as error:
            outcome = type(error).__name__
            raise
        finally:
            self._observe(template(path), outcome, self._clock.monotonic() - began_s)
        return response

    async def aclose(self) -> None:
        """Nothing: the library closes a client, and so its transport, after nearly every request."""

    async def shutdown(self) -> None:
        """Close the connections, for good."""
        for exchange in self._exchanges:
            exchange.cancel()
        await asyncio.gather(*self._exchanges, return_exceptions=True)
        await self._inner.aclose()

    def _forwarded(self, request: httpx.Request, passage: Passage | None) -> httpx.Request:
        url, headers = request.url, request.headers.copy()
        if self._origin is not None:
            url = url.copy_with(scheme=self._origin.scheme, host=self._origin.host, port=self._origin.port)
            headers["host"] = url.netloc.decode("ascii")
        extensions = {**request.extensions, "timeout": self._timeouts}
        if passage is not None:
            extensions["trace"] = passage.trace
        return httpx.Request(request.method, url, headers=headers, stream=request.stream, extensions=extensions)

    async def _exchanged(self, request: httpx.Request, passage: Passage | None) -> httpx.Response:
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._free.acquire()
        except TimeoutError as error:
            raise httpx.PoolTimeout("no connection is free", request=request) from error
        exchange = asyncio.get_running_loop().create_task(self._exchange(request, passage))
        self._exchanges.add(exchange)
        exchange.add_done_callback(self._ended)
        try:
            return await asyncio.shield(exchange)
        except asyncio.CancelledError:
            if passage is not None:
                passage.abandon()
            raise

    def _ended(self, exchange: asyncio.Task[httpx.Response]) -> None:
        self._free.release()
        self._exchanges.discard(exchange)

    async def _exchange(self, request: httpx.Request, passage: Passage | None) -> httpx.Response:
        response = await self._inner.handle_async_request(request)
        try:
            if passage is not None:
                passage.answered(response.status_code)
            async with asyncio.timeout(self._timeout_s):
                body = b"".join([chunk async for chunk in _at_most(response.aiter_bytes(), MAX_BODY_BYTES)])
        except TimeoutError as error:
            raise httpx.ReadTimeout("the answer does not end", request=request) from error
        finally:
            await response.aclose()
        # The body is decoded by now; a header that says otherwise would have it decoded again.
        headers = [(name, value) for name, value in response.headers.multi_items() if name not in _ENCODING]
        return httpx.Response(response.status_code, headers=headers, content=body)


_ENCODING = frozenset({"content-encoding", "content-length", "transfer-encoding"})


async def _at_most(chunks: AsyncIterator[bytes], limit_bytes: int) -> AsyncIterator[bytes]:
    read_bytes = 0
    async for chunk in chunks:
        read_bytes += len(chunk)
        if read_bytes > limit_bytes:
            raise BMWInvalidReply("The maker's answer is too large.")
        yield chunk
