"""Requests at their times, whether or not the last ones have been answered: callers do not wait for each other.

A generator that waits for a reply before it sends the next request asks less just when the server is slow, and so
measures too little. Here a request's time runs from when it was due.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from bench import wire
from bench.loadtest.mix import Ask

REPLY_LIMIT_S = 30.0
OPENED_FIRST = 32


@dataclass(frozen=True, slots=True)
class Sample:
    """A request and what became of it."""

    ask: Ask
    due_s: float
    """Since the beginning."""
    took_s: float
    status: int | None
    """``None`` where the connection ended before the reply did."""
    body: bytes


class Client:
    """Keep-alive connections to one port, as many as it takes; each does one request at a time, in rotation."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: deque[_Line] = deque()

    async def open(self, count: int = OPENED_FIRST) -> None:
        """Have connections ready."""
        self._idle.extend([await self._connect() for _ in range(count)])

    async def run(self, next_ask: Callable[[], Ask], per_second: float, duration_s: float) -> list[Sample]:
        """Send at an even rate; returns when everything is answered or given up."""
        began_s = time.perf_counter()
        sent: list[asyncio.Task[Sample]] = []
        for number in range(int(per_second * duration_s)):
            due_s = number / per_second
            await asyncio.sleep(max(0.0, began_s + due_s - time.perf_counter()))
            sent.append(asyncio.create_task(self._one(next_ask(), began_s, due_s)))
        return list(await asyncio.gather(*sent))

    async def ask(self, message: bytes) -> wire.Reply | None:
        """One request; ``None`` where there was no whole reply."""
        try:
            line = await self._line()
            reply = await asyncio.wait_for(line.ask(message), REPLY_LIMIT_S)
        except (OSError, TimeoutError):  # ConnectionError is an OSError
            return None
        self._idle.append(line)
        return reply

    def close(self) -> None:
        """Close what is idle."""
        while self._idle:
            self._idle.popleft().close()

    async def _one(self, ask: Ask, began_s: float, due_s: float) -> Sample:
        reply = await self.ask(ask.message)
        took_s = time.perf_counter() - began_s - due_s
        return Sample(ask, due_s, took_s, reply.status if reply else None, reply.body if reply else b"")

    async def _line(self) -> "_Line":
        while self._idle:
            line = self._idle.popleft()
            if not line.is_closed:
                return line
        return await self._connect()

    async def _connect(self) -> "_Line":
        _, line = await asyncio.get_running_loop().create_connection(_Line, "127.0.0.1", self._port)
        return line


class _Line(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self.is_closed = False
        self._received = b""
        self._reply: asyncio.Future[wire.Reply] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 -- asyncio promises it for TCP; mypy cannot know
        self._transport = transport

    async def ask(self, message: bytes) -> wire.Reply:
        """Send, and wait for the reply. Raises ``ConnectionError`` where the server goes away."""
        if self._transport is None or self.is_closed:
            raise ConnectionError
        self._reply = asyncio.get_running_loop().create_future()
        self._transport.write(message)
        try:
            return await self._reply
        except asyncio.CancelledError:
            self.close()  # the reply would be taken for the next request's
            raise

    def data_received(self, data: bytes) -> None:
        self._received += data
        head = wire.split_head(self._received)
        if head is None or self._reply is None or self._reply.done():
            return
        status, headers, start = head
        end = start + int(headers["content-length"])
        if len(self._received) < end:
            return
        body, self._received = self._received[start:end], b""
        if headers.get("connection", "").lower() == "close":
            self.close()
        self._reply.set_result(wire.Reply(status, headers, body))

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closed = True
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(exc if isinstance(exc, ConnectionError) else ConnectionError())

    def close(self) -> None:
        self.is_closed = True
        if self._transport is not None:
            with contextlib.suppress(RuntimeError):  # the loop may have ended
                self._transport.close()
