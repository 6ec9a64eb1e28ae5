"""The one way out to CarData: a pool of connections, answers of limited size, no redirects."""

import functools
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field

import certifi
import httpcore

from common.clock import Clock
from functions.providers.cardata.failures import CarDataInvalidReply, CarDataTimeout, CarDataUnavailable
from functions.providers.pool import (
    BROKEN,
    SILENT,
    AnswerTooLarge,
    NoFreeConnection,
    Pool,
    Watch,
    bounded,
)
from functions.providers.renewal import Trade


@dataclass(frozen=True, slots=True)
class Request:
    """One request. ``endpoint`` is its name in metrics: a path without VINs and ids."""

    endpoint: str
    method: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    content: bytes = field(default=b"", repr=False)
    trade: Trade | None = None
    """Goes with a refresh token."""


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
    """Sends requests over one pool; see its class for what bounds them. Use it on one loop."""

    def __init__(
        self,
        *,
        clock: Clock,
        timeout_s: float = 10.0,
        connect_timeout_s: float = 5.0,
        max_connections: int = 100,
        watch: Watch = SILENT,
    ) -> None:
        self._clock = clock
        self._watch = watch
        self._pool = Pool(
            tls=_tls(),
            timeout_s=timeout_s,
            connect_timeout_s=connect_timeout_s,
            max_connections=max_connections,
            opened=watch.connection,
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
            self._watch.request(request.endpoint, outcome, self._clock.monotonic() - began_s)
        return reply

    async def shutdown(self) -> None:
        """Close the connections, for good."""
        await self._pool.shutdown()

    async def _exchanged(self, request: Request) -> Reply:
        try:
            return await self._pool.run(functools.partial(self._exchange, request))
        except NoFreeConnection as error:
            raise CarDataTimeout from error

    async def _exchange(self, request: Request) -> Reply:
        try:
            patience_s = request.trade.patience_s if request.trade is not None else None
            async with self._pool.answer(_outgoing(request), patience_s) as response:
                body = await bounded(response.aiter_stream())
        except (TimeoutError, httpcore.TimeoutException) as error:
            raise CarDataTimeout from error
        except BROKEN as error:
            raise CarDataUnavailable from error
        except AnswerTooLarge:
            raise CarDataInvalidReply("The maker's answer is too large.") from None
        received = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
        return Reply(response.status, received, body)


def _outgoing(request: Request) -> httpcore.Request:
    url = httpcore.URL(request.url)
    # Answers are small: compressing them would cost a decoder here.
    headers: list[tuple[bytes | str, bytes | str]] = [
        ("Host", _host(url)),
        ("Accept-Encoding", "identity"),
        *request.headers.items(),
    ]
    if request.content:
        headers.append(("Content-Length", str(len(request.content))))
    extensions = {"trace": request.trade.trace} if request.trade is not None else {}
    return httpcore.Request(request.method, url, headers=headers, content=request.content, extensions=extensions)


def _host(url: httpcore.URL) -> str:
    host = url.host.decode("ascii")
    return host if url.port is None else f"{host}:{url.port}"
