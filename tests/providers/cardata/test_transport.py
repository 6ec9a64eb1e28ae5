"""The way out: one pool, bounded waits, bounded answers, nothing lost when callers give up."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from common.clock import SystemClock
from functions.providers.cardata.failures import CarDataInvalidReply, CarDataTimeout, CarDataUnavailable
from functions.providers.cardata.transport import Request, Transport
from functions.providers.pool import MAX_BODY_BYTES, Watch
from tests.support.raw_server import Answer, hang, replying, server


@asynccontextmanager
async def transport(**options: Any) -> AsyncIterator[Transport]:
    made = Transport(clock=SystemClock(), **options)
    try:
        yield made
    finally:
        await made.shutdown()


def get(origin: str) -> Request:
    return Request("/thing", "GET", f"{origin}/thing?a=%2F", {"x-version": "v1"})


async def test_a_request_arrives_as_it_was_made() -> None:
    seen = bytearray()

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.extend(await reader.readuntil(b"a=b"))
        writer.write(b"HTTP/1.1 204 No Content\r\nX-Thing: 1\r\n\r\n")

    async with server(note) as origin, transport() as way:
        reply = await way.send(Request("/t", "POST", f"{origin}/t?x=%2F1", {"Accept": "x/y"}, b"a=b"))

    assert (reply.status, reply.headers["x-thing"], reply.body) == (204, "1", b"")
    head = bytes(seen)
    assert head.startswith(b"POST /t?x=%2F1 HTTP/1.1\r\n")
    for line in (b"Host: " + origin.removeprefix("http://").encode(), b"Accept: x/y", b"Content-Length: 3"):
        assert line + b"\r\n" in head


async def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    async with server(replying(b"302 Found\r\nLocation: http://127.0.0.1:1/")) as origin, transport() as way:
        assert (await way.send(get(origin))).status == 302


async def test_a_flood_is_not_read_to_its_end() -> None:
    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (100 * MAX_BODY_BYTES))
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    async with server(flood) as origin, transport() as way:
        with pytest.raises(CarDataInvalidReply):
            await way.send(get(origin))


async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nx")
    await reader.read()


@pytest.mark.parametrize("answer", [hang, trickle])
async def test_silence_is_a_timeout(answer: Answer) -> None:
    async with server(answer) as origin, transport(timeout_s=0.1) as way:
        with pytest.raises(CarDataTimeout):
            await way.send(get(origin))


async def test_waiting_for_a_connection_ends_too() -> None:
    async with server(hang) as origin, transport(timeout_s=0.1, max_connections=1) as way:
        outcomes = await asyncio.gather(way.send(get(origin)), way.send(get(origin)), return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [CarDataTimeout, CarDataTimeout]


@pytest.mark.parametrize("head", [b"nonsense", b"200 OK\r\nContent-Length: 5"])
async def test_a_connection_that_breaks_is_a_failure_of_bmws(head: bytes) -> None:
    async def broken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write((b"" if head == b"nonsense" else b"HTTP/1.1 ") + head + b"\r\n\r\n")

    async with server(broken) as origin, transport() as way:
        with pytest.raises(CarDataUnavailable):
            await way.send(get(origin))


async def test_nobody_listens() -> None:
    async with transport() as way:
        with pytest.raises(CarDataUnavailable):
            await way.send(get("http://127.0.0.1:1"))


async def serving(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


async def test_callers_that_give_up_at_any_moment_lose_no_connection() -> None:
    async with server(serving) as origin, transport(max_connections=5, timeout_s=5) as way:
        for turn in range(12):
            tasks = [asyncio.create_task(way.send(get(origin))) for _ in range(40)]
            for _ in range(turn * 5):
                await asyncio.sleep(0)
            for task in tasks[:: 1 + turn % 3]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        answers = await asyncio.gather(*(way.send(get(origin)) for _ in range(20)))

    assert {answer.status for answer in answers} == {200}


async def test_a_caller_that_gives_up_leaves_at_once() -> None:
    arrived = asyncio.Event()

    async def held(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        arrived.set()
        await reader.read()

    async with server(held) as origin, transport(timeout_s=30) as way:
        impatient = asyncio.create_task(way.send(get(origin)))
        await arrived.wait()
        impatient.cancel()
        with pytest.raises(asyncio.CancelledError):
            await impatient


async def test_the_observer_hears_of_each_request() -> None:
    heard: list[tuple[str, str]] = []

    async with (
        server(replying(b"403 Forbidden")) as origin,
        transport(watch=Watch(lambda name, how, _s: heard.append((name, how)))) as way,
    ):
        await way.send(get(origin))
        with pytest.raises(CarDataUnavailable):
            await way.send(get("http://127.0.0.1:1"))

    assert heard == [("/thing", "403"), ("/thing", "CarDataUnavailable")]
