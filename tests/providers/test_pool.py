"""The connections to a maker: how many were opened is told, and that is all that opens."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpcore
import pytest

from functions.providers.pool import BROKEN, Pool
from tests.support.eventually import eventually
from tests.support.raw_server import Answer, replying, server


@asynccontextmanager
async def counted(**bounds: float) -> AsyncIterator[tuple[Pool, list[None]]]:
    opened: list[None] = []
    pool = Pool(
        tls=ssl.create_default_context(),
        timeout_s=bounds.get("timeout_s", 5.0),
        connect_timeout_s=1.0,
        max_connections=int(bounds.get("max_connections", 10)),
        opened=lambda: opened.append(None),
    )
    try:
        yield pool, opened
    finally:
        await pool.shutdown()


async def ask(pool: Pool, origin: str) -> int:
    async def exchange() -> int:
        request = httpcore.Request("GET", f"{origin}/", headers=[("Host", "maker")])
        async with pool.answer(request) as response:
            await response.aread()
            return response.status

    return await pool.run(exchange)


class Maker:
    """Answers every request of a connection; ``asked`` counts them by connection."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.hung_up = 0
        self._open: list[asyncio.StreamWriter] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(self.asked)
        self.asked.append(0)
        self._open.append(writer)
        while await reader.read(1):
            await reader.readuntil(b"\r\n\r\n")
            self.asked[number] += 1
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        self.hung_up += 1

    def has_lost(self, count: int) -> Callable[[], Awaitable[bool]]:
        async def holds() -> bool:
            return self.hung_up >= count

        return holds

    def says_goodbye(self, *numbers: int) -> None:
        """Will say nothing more on these connections, and waits for the other side to close them."""
        for number in numbers:
            self._open[number].write_eof()

    async def hang_up(self) -> None:
        for writer in self._open:
            writer.close()
            await writer.wait_closed()


async def at_once(pool: Pool, origin: str, count: int) -> None:
    assert await asyncio.gather(*[ask(pool, origin) for _ in range(count)]) == [204] * count


def patient(answer_bytes: bytes) -> Answer:
    """Answers every request of a connection."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer_bytes)

    return answer


async def test_one_connection_serves_requests_in_a_row_and_is_counted_once() -> None:
    async with server(patient(b"HTTP/1.1 204 No Content\r\n\r\n")) as origin, counted() as (pool, opened):
        assert [await ask(pool, origin) for _ in range(5)] == [204] * 5
        assert len(opened) == 1
        await asyncio.gather(*[ask(pool, origin) for _ in range(3)])
        assert len(opened) == 3


async def test_a_connection_that_the_maker_closes_is_replaced_and_the_new_one_counted() -> None:
    async with server(replying(b"200 OK\r\nConnection: close")) as origin, counted() as (pool, opened):
        for already in range(3):
            assert len(opened) == already
            assert await ask(pool, origin) == 200


async def test_a_connection_that_nobody_accepts_is_not_counted() -> None:
    async with counted() as (pool, opened):
        with pytest.raises(BROKEN):
            await ask(pool, "http://127.0.0.1:1")
    assert opened == []


async def test_the_connection_used_last_is_used_next_so_that_the_others_may_grow_old() -> None:
    maker = Maker()
    async with server(maker) as origin, counted() as (pool, opened):
        await at_once(pool, origin, 3)
        for _ in range(5):
            await ask(pool, origin)
    assert len(opened) == 3
    assert sorted(maker.asked) == [1, 1, 6]


async def test_connections_that_the_maker_has_closed_meanwhile_are_not_used() -> None:
    maker = Maker()
    async with server(maker) as origin, counted() as (pool, opened):
        await at_once(pool, origin, 4)
        await maker.hang_up()
        for _ in range(3):
            assert await ask(pool, origin) == 204
        assert len(opened) == 5


async def test_an_old_connection_is_closed_at_each_request_though_it_is_never_its_turn() -> None:
    maker = Maker()
    async with server(maker) as origin, counted() as (pool, opened):
        await at_once(pool, origin, 3)
        await ask(pool, origin)
        maker.says_goodbye(*[number for number, asked in enumerate(maker.asked) if asked == 1])
        for closed in (1, 2):
            await ask(pool, origin)
            await eventually(maker.has_lost(closed))
        await ask(pool, origin)
        assert (maker.hung_up, len(opened)) == (2, 3)
    assert sorted(maker.asked) == [1, 1, 5]


async def test_idle_connections_of_one_origin_make_room_for_those_of_another() -> None:
    first, second = Maker(), Maker()
    async with server(first) as origin, server(second) as other, counted(max_connections=3) as (pool, opened):
        await at_once(pool, origin, 3)
        for _ in range(5):
            await ask(pool, other)
        assert len(opened) == 4
        await eventually(first.has_lost(1))
        assert (first.hung_up, second.hung_up) == (1, 0)
    assert (first.asked, second.asked) == ([1, 1, 1], [5])
