"""The one way out to BMW: pooled connections, any origin, and a fence that commands pass only with a permit."""

import asyncio
import contextlib
import functools
import ssl
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import httpcore
import httpx

from common.clock import Clock
from common.errors import InternalError
from functions.providers.mybmw.endpoints import is_command, template
from functions.providers.mybmw.failures import BMWInvalidReply, BMWTimeout
from functions.providers.pool import (
    BROKEN,
    LEAVES,
    SILENT,
    AnswerTooLarge,
    NoFreeConnection,
    Pool,
    Watch,
    bounded,
)
from functions.providers.port import SendPermit

PATIENCE = "patience_s"
"""Extension of a request: how long to wait for its answer, where that is not as long as for any."""
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
        if event == LEAVES:
            await self._permit.recheck()
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

    ``origin`` replaces scheme, host and port of every request, the token endpoint's included. The pool's timeouts
    apply, not the library's own 30 s. Build it where no loop runs, if you like; use it on one loop.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        origin: str | None = None,
        timeout_s: float = 10.0,
        connect_timeout_s: float = 5.0,
        max_connections: int = 100,
        watch: Watch = SILENT,
    ) -> None:
        self._clock = clock
        self._origin = httpx.URL(origin) if origin else None
        self._watch = watch
        # httpx' own transport around httpcore's pool parses each URL and copies each header twice more: 0.4 ms a read.
        self._pool = Pool(
            tls=_tls(),
            timeout_s=timeout_s,
            connect_timeout_s=connect_timeout_s,
            max_connections=max_connections,
            opened=watch.connection,
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
            self._watch.request(template(path), outcome, self._clock.monotonic() - began_s)
        return response

    async def aclose(self) -> None:
        """Nothing: the library closes a client, and so its transport, after nearly every request."""

    async def shutdown(self) -> None:
        """Close the connections, for good."""
        await self._pool.shutdown()

    def _forwarded(self, request: httpx.Request, passage: Passage | None) -> httpcore.Request:
        url, headers = request.url, request.headers.raw
        to = self._origin or url
        if self._origin is not None:
            headers = [(b"Host", to.netloc), *((name, value) for name, value in headers if name.lower() != b"host")]
        extensions = dict(request.extensions)
        if passage is not None:
            extensions["trace"] = passage.trace
        target = httpcore.URL(scheme=to.raw_scheme, host=to.raw_host, port=to.port, target=url.raw_path)
        return httpcore.Request(request.method, target, headers=headers, content=request.stream, extensions=extensions)

    async def _exchanged(self, request: httpx.Request, passage: Passage | None) -> httpx.Response:
        try:
            return await self._pool.run(functools.partial(self._exchange, request, passage))
        except NoFreeConnection as error:
            raise httpx.PoolTimeout("no connection is free", request=request) from error
        except asyncio.CancelledError:
            if passage is not None:
                passage.abandon()
            raise

    async def _exchange(self, request: httpx.Request, passage: Passage | None) -> httpx.Response:
        try:
            patience_s = request.extensions.get(PATIENCE)
            async with self._pool.answer(self._forwarded(request, passage), patience_s) as response:
                if passage is not None:
                    passage.answered(response.status)
                return await _read(response)
        except TimeoutError as error:
            raise httpx.ReadTimeout("the answer does not end", request=request) from error
        except (httpcore.TimeoutException, *BROKEN) as error:
            # The two libraries' errors have the same names.
            raise getattr(httpx, type(error).__name__)(str(error), request=request) from error
        except AnswerTooLarge:
            raise BMWInvalidReply("The maker's answer is too large.") from None


async def _read(response: httpcore.Response) -> httpx.Response:
    """The whole answer, decoded."""
    parts = response.aiter_stream()
    if not any(name.lower() == b"content-encoding" for name, _ in response.headers):
        return httpx.Response(response.status, headers=response.headers, content=await bounded(parts))
    packed = httpx.Response(response.status, headers=response.headers, content=parts)
    body = await bounded(packed.aiter_bytes())
    # The body is decoded by now; a header that says otherwise would have it decoded again.
    headers = [(name, value) for name, value in response.headers if name.lower() not in _ENCODING]
    return httpx.Response(response.status, headers=headers, content=body)


_ENCODING = frozenset({b"content-encoding", b"content-length", b"transfer-encoding"})
