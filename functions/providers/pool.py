"""The connections to one maker: pooled and counted, each wait bounded, and none lost when a caller gives up."""

import asyncio
import ssl
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import httpcore

RequestObserver = Callable[[str, str, float], None]
"""Told of each request: endpoint template, status code or name of the error, seconds."""
ConnectionObserver = Callable[[], None]
"""Told of each connection that was opened."""


@dataclass(frozen=True, slots=True)
class Watch:
    """Who is told of what goes out."""

    request: RequestObserver = lambda _endpoint, _outcome, _seconds: None
    connection: ConnectionObserver = lambda: None


SILENT: Final = Watch()

MAX_BODY_BYTES: Final = 8 * 2**20
IDLE_S: Final = 60.0
"""How long an idle connection is kept. As many are as may be busy: a wave of requests must not open them anew."""
BROKEN: Final = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.ProxyError, httpcore.UnsupportedProtocol)
"""What goes wrong on the way, other than that it takes too long."""
LEAVES: Final = "http11.send_request_headers.started"
"""What the ``trace`` extension of httpcore is told before the first byte of a request is written."""

_Answer = TypeVar("_Answer")
_Origin = tuple[bytes, bytes, int]


class NoFreeConnection(Exception):
    """All connections stayed busy for as long as a request waits."""


class AnswerTooLarge(Exception):
    """More than MAX_BODY_BYTES came."""


class _Counting(httpcore.AnyIOBackend):
    """httpcore's own way to a socket on asyncio, counted. Its ``trace`` would cost every request something."""

    def __init__(self, opened: ConnectionObserver) -> None:
        super().__init__()
        self._opened = opened

    async def connect_tcp(self, *args: Any, **kwargs: Any) -> httpcore.AsyncNetworkStream:  # noqa: ANN401 - as they come
        stream = await super().connect_tcp(*args, **kwargs)
        self._opened()
        return stream


class Pool:
    """One pool of connections. Build it where no loop runs, if you like; use it on one loop.

    ``timeout_s`` bounds each wait: for a free connection, for the next bytes, for the whole body.

    httpcore's connections, but not its pool: that one asks every idle connection's socket at every request, which at a
    hundred costs more than sending does, and 0.17 loses a connection for good when a request is cancelled while it
    connects or waits. Here the connection used last is used next, and the one used first is asked whether it is old.

    An exchange that has begun is never cancelled: a command that is leaving must be known to have left. A caller that
    gives up leaves at once; what it began ends by itself, within its timeouts.
    """

    def __init__(
        self,
        *,
        tls: ssl.SSLContext,
        timeout_s: float,
        connect_timeout_s: float,
        max_connections: int,
        opened: ConnectionObserver,
    ) -> None:
        self._timeout_s = timeout_s
        self._timeouts = {"connect": connect_timeout_s, "read": timeout_s, "write": timeout_s, "pool": timeout_s}
        self._max_connections = max_connections
        self._free = asyncio.Semaphore(max_connections)
        self._exchanges: set[asyncio.Task[Any]] = set()
        self._tls = tls
        self._backend = _Counting(opened)
        self._idle: defaultdict[_Origin, deque[httpcore.AsyncHTTPConnection]] = defaultdict(deque)

    async def run(self, exchange: Callable[[], Coroutine[Any, Any, _Answer]]) -> _Answer:
        """What ``exchange`` returns or raises, begun when a connection is free. Raises NoFreeConnection."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._free.acquire()
        except TimeoutError as error:
            raise NoFreeConnection from error
        begun = asyncio.get_running_loop().create_task(exchange())
        self._exchanges.add(begun)
        begun.add_done_callback(self._ended)
        return await asyncio.shield(begun)

    @asynccontextmanager
    async def answer(
        self, request: httpcore.Request, patience_s: float | None = None
    ) -> AsyncIterator[httpcore.Response]:
        """The answer to a request, to be read inside the block; waited for ``patience_s`` where that is given.

        Raises TimeoutError for a block that takes too long, httpcore.TimeoutException, BROKEN.
        """
        timeouts = self._timeouts if patience_s is None else {**self._timeouts, "read": patience_s}
        request.extensions = {**request.extensions, "timeout": timeouts}
        connection = await self._take(request.url.origin)
        try:
            response = await connection.handle_async_request(request)
            try:
                async with asyncio.timeout(self._timeout_s):
                    yield response
            finally:
                await response.aclose()
        finally:
            await self._give_back(connection, request.url.origin)

    async def shutdown(self) -> None:
        """Close the connections, for good."""
        for exchange in self._exchanges:
            exchange.cancel()
        await asyncio.gather(*self._exchanges, return_exceptions=True)
        for idle in self._idle.values():
            while idle:
                await idle.pop().aclose()

    async def _take(self, origin: httpcore.Origin) -> httpcore.AsyncHTTPConnection:
        idle = self._idle[_key(origin)]
        if len(idle) > 1 and idle[0].has_expired():
            await idle.popleft().aclose()
        while idle:
            connection = idle.pop()
            if not connection.has_expired():
                return connection
            await connection.aclose()
        return httpcore.AsyncHTTPConnection(
            origin, ssl_context=self._tls, keepalive_expiry=IDLE_S, network_backend=self._backend
        )

    async def _give_back(self, connection: httpcore.AsyncHTTPConnection, origin: httpcore.Origin) -> None:
        if not connection.is_available():
            await connection.aclose()
            return
        self._idle[_key(origin)].append(connection)
        if sum(map(len, self._idle.values())) > self._max_connections:
            await max(self._idle.values(), key=len).popleft().aclose()

    def _ended(self, exchange: "asyncio.Task[Any]") -> None:
        self._free.release()
        self._exchanges.discard(exchange)
        if not exchange.cancelled():
            exchange.exception()  # whoever asked may have left: an error that nobody reads is no news


def _key(origin: httpcore.Origin) -> "_Origin":
    return origin.scheme, origin.host, origin.port


async def bounded(chunks: AsyncIterator[bytes]) -> bytes:
    """All of a body; raises AnswerTooLarge as soon as there is too much of it."""
    parts, read_bytes = [], 0
    async for chunk in chunks:
        read_bytes += len(chunk)
        if read_bytes > MAX_BODY_BYTES:
            raise AnswerTooLarge
        parts.append(chunk)
    return b"".join(parts)
