"""The one way out to BMW: pooled connections, any origin, and a fence that commands pass only with a permit."""

import asyncio
import contextlib
import functools
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import httpcore
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
        # httpx' own transport around this pool parses each URL and copies each header twice more: 0.4 ms a read.
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=_tls(),
            max_connections=max_connections,
            max_keepalive_connections=max_connections,
            keepalive_expiry=IDLE_S,
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
            response = await self._exchanged(request, passage)
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
        await self._pool.aclose()

    def _forwarded(self, request: httpx.Request, passage: Passage | None) -> httpcore.Request:
        url, headers = request.url, request.headers.raw
        to = self._origin or url
        if self._origin is not None:
            headers = [(b"Host", to.netloc), *((name, value) for name, value in headers if name.lower() != b"host")]
        extensions = {**request.extensions, "timeout": self._timeouts}
        if passage is not None:
            extensions["trace"] = passage.trace
        target = httpcore.URL(scheme=to.raw_scheme, host=to.raw_host, port=to.port, target=url.raw_path)
        return httpcore.Request(request.method, target, headers=headers, content=request.stream, extensions=extensions)

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
        try:
            response = await self._pool.handle_async_request(self._forwarded(request, passage))
            try:
                if passage is not None:
                    passage.answered(response.status)
                async with asyncio.timeout(self._timeout_s):
                    return await _read(response)
            finally:
                await response.aclose()
        except TimeoutError as error:
            raise httpx.ReadTimeout("the answer does not end", request=request) from error
        except _TRANSPORT_ERRORS as error:
            # The two libraries' errors have the same names.
            raise getattr(httpx, type(error).__name__)(str(error), request=request) from error


async def _read(response: httpcore.Response) -> httpx.Response:
    """The whole answer, decoded; raises BMWInvalidReply where there is too much of it."""
    parts = response.aiter_stream()
    if not any(name.lower() == b"content-encoding" for name, _ in response.headers):
        body = b"".join([part async for part in _at_most(parts, MAX_BODY_BYTES)])
        return httpx.Response(response.status, headers=response.headers, content=body)
    packed = httpx.Response(response.status, headers=response.headers, content=parts)
    body = b"".join([part async for part in _at_most(packed.aiter_bytes(), MAX_BODY_BYTES)])
    # The body is decoded by now; a header that says otherwise would have it decoded again.
    headers = [(name, value) for name, value in response.headers if name.lower() not in _ENCODING]
    return httpx.Response(response.status, headers=headers, content=body)


_TRANSPORT_ERRORS = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.UnsupportedProtocol,
)
_ENCODING = frozenset({b"content-encoding", b"content-length", b"transfer-encoding"})


async def _at_most(chunks: AsyncIterator[bytes], limit_bytes: int) -> AsyncIterator[bytes]:
    read_bytes = 0
    async for chunk in chunks:
        read_bytes += len(chunk)
        if read_bytes > limit_bytes:
            raise BMWInvalidReply("The maker's answer is too large.")
        yield chunk
