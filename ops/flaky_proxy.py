"""A TCP proxy for HTTP that fails on purpose: between any client and any server, on the caller's own loop."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Fault:
    """What happens to one request instead of an answer from the server."""

    forward: bool
    """Whether the server still gets the request, and carries it out."""
    status: int | None = None
    """The client is answered this; None cuts the connection (RST)."""
    hang: bool = False
    """The client is answered nothing, and the connection stays open until it gives up."""


LOST_REPLY = Fault(forward=True)
RESET = Fault(forward=False)
HANG_AFTER = Fault(forward=True, hang=True)
HANG = Fault(forward=False, hang=True)

Plan = Callable[[str, str], Fault | None]
"""Decides on each request, given method and target; None lets it through."""


@dataclass
class FlakyProxy:
    """A running proxy: ``url`` to connect to, ``seen`` the (method, target) of every request so far."""

    upstream: tuple[str, int]
    plan: Plan
    url: str = ""
    seen: list[tuple[str, str]] = field(default_factory=list)

    def count(self, method: str) -> int:
        """How many requests came with ``method``."""
        return sum(seen == method for seen, _ in self.seen)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Handle one connection, which carries one request."""
        try:
            await self._exchange(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # one of the two sides has left
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await _read_request(reader)
        method, target, _ = request.split(b" ", 2)
        self.seen.append((method.decode(), target.decode()))
        fault = self.plan(method.decode(), target.decode())
        reply = await self._forward(request) if fault is None or fault.forward else b""
        if fault is None:
            writer.write(reply)
            await writer.drain()
        elif fault.hang:
            await reader.read()
        elif fault.status is None:
            connection: socket.socket = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            writer.write(b"HTTP/1.1 %d Fault\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % fault.status)
            await writer.drain()

    async def _forward(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(*self.upstream)
        try:
            writer.write(request)
            await writer.drain()
            return await reader.read()
        finally:
            writer.close()


async def _read_request(reader: asyncio.StreamReader) -> bytes:
    """One request, changed so that the server closes the connection after its reply."""
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head[:-4].split(b"\r\n")
    headers = [line for line in lines[1:] if not line.lower().startswith(b"connection:")]
    length = next((int(line.partition(b":")[2]) for line in headers if line.lower().startswith(b"content-length:")), 0)
    body = await reader.readexactly(length)
    return b"\r\n".join([lines[0], *headers, b"Connection: close", b"", b""]) + body


@asynccontextmanager
async def flaky_proxy(upstream_url: str, plan: Plan) -> AsyncIterator[FlakyProxy]:
    """Run a proxy on a free port in front of ``upstream_url`` (``http://host:port``)."""
    upstream = urlsplit(upstream_url)
    proxy = FlakyProxy((upstream.hostname or "", upstream.port or 80), plan)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        await server.wait_closed()


def first(*faults: Fault | None, method: str) -> Plan:
    """Treat the first requests with ``method`` so, one after the other, and let all others through."""
    left = list(faults)
    return lambda seen, _: left.pop(0) if seen == method and left else None
