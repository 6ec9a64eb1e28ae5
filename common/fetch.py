"""One small document from one HTTPS address: bounded in time and in bytes, never redirected."""

import asyncio
import functools
import re
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import httpx

MAX_BYTES = 256 * 1024
TIMEOUT_S = 5.0

_SECONDS = re.compile(r"\d{1,9}")


@dataclass(frozen=True, slots=True)
class Fetched:
    """A document."""

    body: bytes
    fresh_s: float | None
    """How long its sender lets it be kept from now on, seconds; None where it does not say."""


class FetchFailed(Exception):
    """There is no document: no connection, too late, too large, or any status but 200."""


Fetch = Callable[[str], Awaitable[Fetched]]
"""Gets the document at a URL; raises FetchFailed."""


class HttpFetch:
    """Fetches by GET, on a connection of its own each time: documents are fetched rarely.

    ``timeout_s`` bounds the whole exchange. Raises FetchFailed.
    """

    def __init__(self, *, timeout_s: float = TIMEOUT_S, max_bytes: int = MAX_BYTES) -> None:
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes

    async def __call__(self, url: str) -> Fetched:
        """The document at ``url``."""
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                httpx.AsyncClient(verify=_tls(), trust_env=False, timeout=self._timeout_s) as client,
                # Uncompressed, so that the bytes counted are the bytes there are.
                client.stream("GET", url, headers={"Accept-Encoding": "identity"}) as response,
            ):
                return await self._read(response)
        # OSError: a failed handshake comes through the httpx pinned here as the ssl module's own error.
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError) as problem:
            raise FetchFailed(type(problem).__name__) from problem

    async def _read(self, response: httpx.Response) -> Fetched:
        if response.status_code != 200:
            raise FetchFailed(f"status {response.status_code}")
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > self._max_bytes:
                raise FetchFailed("too large")
        return Fetched(bytes(body), _fresh_s(response.headers))


@functools.cache
def _tls() -> ssl.SSLContext:
    """One a process: reading the certificates takes 15 ms."""
    return httpx.create_ssl_context(trust_env=False)


def _fresh_s(headers: httpx.Headers) -> float | None:
    """``max-age`` less the time that caches on the way have used up (RFC 9111, 4.2)."""
    for directive in headers.get("cache-control", "").split(","):
        name, _, value = directive.partition("=")
        if name.strip().lower() == "max-age" and (found := _seconds(value)) is not None:
            return max(0.0, found - (_seconds(headers.get("age", "")) or 0.0))
    return None


def _seconds(text: str) -> float | None:
    stripped = text.strip().strip('"')
    return float(stripped) if _SECONDS.fullmatch(stripped) else None
