"""The load test's client against servers that misbehave."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from bench import wire
from bench.loadtest.client import Client
from bench.loadtest.mix import Ask, Kind

ASK = Ask(Kind.CACHED, wire.post("/", b"{}"))
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[int]:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def request(reader: asyncio.StreamReader) -> bool:
    """Read one request with a body of two bytes; False at the end."""
    try:
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(2)
    except asyncio.IncompleteReadError:
        return False
    return True


def reply(body: bytes, *more: bytes) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), *more, b"", body])


async def test_replies_that_come_in_pieces_are_put_together_and_connections_are_used_again() -> None:
    opened = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        while await request(reader):
            for piece in (reply(b"hello")[:9], reply(b"hello")[9:-3], reply(b"hello")[-3:]):
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
        writer.close()

    async with serving(serve) as port:
        client = Client(port)
        replies = [await client.ask(ASK.message) for _ in range(5)]
        client.close()
    assert [answer and (answer.status, answer.body) for answer in replies] == [(200, b"hello")] * 5
    assert opened == 1


async def test_requests_are_sent_when_they_are_due_whether_or_not_others_are_answered() -> None:
    waiting = 0
    everybody = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal waiting
        while await request(reader):
            waiting += 1
            if waiting == 20:
                everybody.set()
            await everybody.wait()
            writer.write(reply(b"{}"))
        writer.close()

    async with serving(serve) as port:
        client = Client(port)
        samples = await asyncio.wait_for(client.run(lambda: ASK, per_second=400, duration_s=0.05), 10)
        client.close()
    assert [sample.status for sample in samples] == [200] * 20
    # The time of a request runs from when it was due, so the first waited for the last.
    assert samples[0].took_s >= samples[-1].took_s
    assert samples[0].took_s >= samples[-1].due_s


async def test_a_request_whose_connection_ends_has_no_reply_and_the_next_one_gets_a_new_connection() -> None:
    seen = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        while await request(reader):
            seen += 1
            if seen == 2:
                writer.transport.abort()
                return
            writer.write(reply(b"{}"))
        writer.close()

    async with serving(serve) as port:
        client = Client(port)
        answers = [await client.ask(ASK.message) for _ in range(3)]
        client.close()
    assert [answer and answer.status for answer in answers] == [200, None, 200]


async def test_a_connection_that_the_server_says_it_closes_is_not_used_again() -> None:
    opened = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        await request(reader)
        writer.write(reply(b"{}", b"Connection: close"))
        await reader.read()  # it hears nothing more, and leaves hanging up to the client
        writer.close()

    async with serving(serve) as port:
        client = Client(port)
        await client.open(1)
        answers = [await asyncio.wait_for(client.ask(ASK.message), 10) for _ in range(3)]
        client.close()
    assert [answer and answer.status for answer in answers] == [200, 200, 200]
    assert opened == 3


async def test_where_nobody_listens_there_is_no_reply() -> None:
    async with serving(lambda _reader, _writer: asyncio.sleep(0)) as port:
        pass
    assert await Client(port).ask(ASK.message) is None
