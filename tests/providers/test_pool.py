"""The connections to a maker: how many were opened is told, and that is all that opens."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpcore
import pytest

from functions.providers.pool import BROKEN, Pool
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
