"""A keep-alive load generator in plain asyncio, run as a process of its own: `python -m bench.pyload '{...}'`.

Unlike wrk it lets the requests in flight at the end finish, and counts them, so that a server that takes seconds a
request is not measured by what happened to fall inside a window. It opens every connection before it sends the
first request, which makes it a burst when each connection sends just one.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

from bench import wire
from bench.stats import percentile

REPLY_LIMIT_S = 120.0


@dataclass(frozen=True)
class Order:
    """What to send: to ``port``, the ``bodies`` in turn, for ``duration_s`` or ``each`` requests a connection."""

    port: int
    bodies: list[str]
    connections: int
    duration_s: float
    each: int | None = None
    headers: dict[str, str] = field(default_factory=dict)


class Tally:
    """What all connections saw together."""

    def __init__(self) -> None:
        self.latencies_s: list[float] = []
        self.statuses: Counter[int] = Counter()
        self.broken = 0

    def figures(self, seconds: float) -> dict[str, Any]:
        """The figures that wrk gives too; a latency is ``None`` where nothing was answered."""
        ordered = sorted(self.latencies_s)
        errors = self.broken + sum(count for status, count in self.statuses.items() if status >= 400)
        quantiles = {f"p{p}_ms": percentile(ordered, p) * 1e3 if ordered else None for p in (50, 95, 99)}
        return {"requests": len(ordered), "errors": errors, "seconds": seconds} | quantiles


class Lane(asyncio.Protocol):
    """One connection that sends its next request as soon as it has the reply to the last."""

    def __init__(self, order: Order, messages: "cycle[bytes]", tally: Tally) -> None:
        self._order = order
        self._messages = messages
        self._tally = tally
        self._deadline = 0.0
        self._sent_at = 0.0
        self._sent = 0
        self._received = b""
        self._transport: asyncio.Transport | None = None
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for :meth:`begin`."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 -- asyncio promises it for TCP; mypy cannot know
        self._transport = transport

    def begin(self, deadline: float) -> None:
        """Send the first request; no other is begun after ``deadline``."""
        self._deadline = deadline
        self._send()

    def data_received(self, data: bytes) -> None:
        """Count a whole reply, then send the next request."""
        self._received += data
        head = wire.split_head(self._received)
        if head is None:
            return
        status, headers, start = head
        if len(self._received) < start + int(headers["content-length"]):
            return
        now = time.perf_counter()
        self._tally.latencies_s.append(now - self._sent_at)
        self._tally.statuses[status] += 1
        self._received = b""
        if now < self._deadline and self._sent != self._order.each:
            self._send()
        else:
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- the signature is asyncio's
        """A server that hangs up early broke a request."""
        if not self.finished.done():
            self._tally.broken += 1
            self.finished.set_result(None)

    def _send(self) -> None:
        if self._transport is None or self.finished.done():
            return
        self._sent += 1
        self._sent_at = time.perf_counter()
        self._transport.write(next(self._messages))

    def _end(self) -> None:
        self.finished.set_result(None)
        if self._transport is not None:
            self._transport.close()


async def carry_out(order: Order) -> dict[str, Any]:
    """Send what was ordered; gives the figures."""
    loop = asyncio.get_running_loop()
    tally = Tally()
    messages = cycle([wire.post("/", body.encode(), order.headers) for body in order.bodies])
    lanes: list[Lane] = []
    for _ in range(order.connections):
        _, lane = await loop.create_connection(lambda: Lane(order, messages, tally), "127.0.0.1", order.port)
        lanes.append(lane)
    started = time.perf_counter()
    for lane in lanes:
        lane.begin(started + order.duration_s)
    await asyncio.wait_for(asyncio.gather(*(lane.finished for lane in lanes)), order.duration_s + REPLY_LIMIT_S)
    return tally.figures(time.perf_counter() - started)


def main() -> None:
    """Carry out the order given as JSON on the command line."""
    order = Order(**json.loads(sys.argv[1]))
    print(json.dumps(asyncio.run(carry_out(order))))


if __name__ == "__main__":
    main()
