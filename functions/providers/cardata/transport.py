"""The one way out to CarData: pooled connections, each wait bounded, answers of limited size, no redirects."""

import asyncio
import functools
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import certifi
import httpcore

from common.clock import Clock
from functions.providers.cardata.failures import CarDataInvalidReply, CarDataTimeout, CarDataUnavailable

RequestObserver = Callable[[str, str, float], None]
"""Told of each request: endpoint template, status code or name of the error, seconds."""

MAX_BODY_BYTES: Final = 8 * 2**20
IDLE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Request:
    """One request. ``endpoint`` is its name in metrics: a path without VINs and ids."""

    endpoint: str
    method: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    content: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer, read to its end. Header names are in lower case."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@functools.cache
def _tls() -> ssl.SSLContext:
    """One a process: reading the certificates takes 15 ms."""
    return ssl.create_default_context(cafile=certifi.where())


class Transport:
    """One connection pool. Build it where no loop runs, if you like; use it on one loop.

    ``timeout_s`` bounds each wait: for a free connection, for the next bytes, for the whole body.

    A request that has begun is never cancelled, for httpcore 0.17 loses a connection for good when that happens
    while it connects or waits, and after ``max_connections`` of those nothing goes out any more. A caller that gives
    up leaves at once; what it began ends by itself, within its timeouts.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        timeout_s: float = 10.0,
        connect_timeout_s: float = 5.0,
        max_connections: int = 100,
        observe: RequestObserver = lambda _endpoint, _outcome, _seconds: None,
    ) -> None:
        self._clock = clock
        self._timeout_s = timeout_s
        self._timeouts = {"connect": connect_timeout_s, "read": timeout_s, "write": timeout_s, "pool": timeout_s}
        self._observe = observe
        self._free = asyncio.Semaphore(max_connections)
        self._exchanges: set[asyncio.Task[Reply]] = set()
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=_tls(),
            max_connections=max_connections,
            max_keepalive_connections=max_connections,
            keepalive_expiry=IDLE_S,
        )

    async def send(self, request: Request) -> Reply:
        """The answer, whatever its status. Raises CarDataTimeout, CarDataUnavailable, CarDataInvalidReply."""
        outcome, began_s = "cancelled", self._clock.monotonic()
        try:
            reply = await self._exchanged(request)
            outcome = str(reply.status)
        except Exception as error:
            outcome = type(error).__name__
            raise
        finally:
            self._observe(request.endpoint, outcome, self._clock.monotonic() - began_s)
        return reply

    async def shutdown(self) -> None:
        """Close the connections, for good."""
        for exchange in self._exchanges:
            exchange.cancel()
        await asyncio.gather(*self._exchanges, return_exceptions=True)
        await self._pool.aclose()

    async def _exchanged(self, request: Request) -> Reply:
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._free.acquire()
        except TimeoutError as error:
            raise CarDataTimeout from error
        exchange = asyncio.get_running_loop().create_task(self._exchange(request))
        self._exchanges.add(exchange)
        exchange.add_done_callback(self._ended)
        return await asyncio.shield(exchange)

    def _ended(self, exchange: "asyncio.Task[Reply]") -> None:
        self._free.release()
        self._exchanges.discard(exchange)
        if not exchange.cancelled():
            exchange.exception()  # whoever asked may have left: an error that nobody reads is no news

    async def _exchange(self, request: Request) -> Reply:
        url = httpcore.URL(request.url)
        # Answers are small: compressing them would cost a decoder here.
        headers: list[tuple[bytes | str, bytes | str]] = [
            ("Host", _host(url)),
            ("Accept-Encoding", "identity"),
            *request.headers.items(),
        ]
        if request.content:
            headers.append(("Content-Length", str(len(request.content))))
        outgoing = httpcore.Request(
            request.method, url, headers=headers, content=request.content, extensions={"timeout": self._timeouts}
        )
        try:
            response = await self._pool.handle_async_request(outgoing)
            try:
                async with asyncio.timeout(self._timeout_s):
                    body = await _read(response)
            finally:
                await response.aclose()
        except (TimeoutError, httpcore.TimeoutException) as error:
            raise CarDataTimeout from error
        except _TRANSPORT_ERRORS as error:
            raise CarDataUnavailable from error
        received = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
        return Reply(response.status, received, body)


_TRANSPORT_ERRORS = (
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.UnsupportedProtocol,
)


def _host(url: httpcore.URL) -> str:
    host = url.host.decode("ascii")
    return host if url.port is None else f"{host}:{url.port}"


async def _read(response: httpcore.Response) -> bytes:
    parts, read_bytes = [], 0
    async for part in response.aiter_stream():
        read_bytes += len(part)
        if read_bytes > MAX_BODY_BYTES:
            raise CarDataInvalidReply("The maker's answer is too large.")
        parts.append(part)
    return b"".join(parts)
