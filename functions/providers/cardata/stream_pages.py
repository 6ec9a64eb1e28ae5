"""``GET /health`` and ``GET /metrics`` of a process that is no web server otherwise."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final

Page = Callable[[], tuple[HTTPStatus, str, bytes]]
"""Status, content type and body."""

_PATIENCE_S: Final = 5.0
_LARGEST_HEAD_BYTES: Final = 8192


class PageServer:
    """Answers one GET a connection, from ``pages`` by path."""

    def __init__(self, pages: Mapping[str, Page]) -> None:
        self._pages = pages
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; the port, where 0 takes a free one. Raises OSError."""
        self._server = await asyncio.start_server(self._answer, host, port, limit=_LARGEST_HEAD_BYTES)
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def stop(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(_PATIENCE_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._reply(head.split(b"\r\n", 1)[0].decode("latin-1")))
                await writer.drain()
        writer.close()

    def _reply(self, request_line: str) -> bytes:
        method, _, rest = request_line.partition(" ")
        page = self._pages.get(rest.partition(" ")[0].partition("?")[0])
        if page is None:
            status, content_type, body = HTTPStatus.NOT_FOUND, "text/plain", b"There is no such page.\n"
        elif method not in ("GET", "HEAD"):
            status, content_type, body = HTTPStatus.METHOD_NOT_ALLOWED, "text/plain", b"Use GET.\n"
        else:
            status, content_type, body = page()
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {content_type}\r\n"
            f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
        )
        return head.encode("latin-1") + (b"" if method == "HEAD" else body)
