"""The worker's two pages, over real sockets."""

import asyncio
from http import HTTPStatus

import httpx
import pytest

from functions.providers.cardata.stream_pages import PageServer


async def ask(raw: bytes) -> bytes:
    server = PageServer({"/health": lambda: (HTTPStatus.SERVICE_UNAVAILABLE, "application/json", b'{"a": 1}')})
    port = await server.start("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(raw)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    await server.stop()
    return answer


async def test_a_page_is_answered_as_http() -> None:
    server = PageServer({"/health": lambda: (HTTPStatus.OK, "application/json", b'{"a": 1}')})
    port = await server.start("127.0.0.1", 0)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        answered = await client.get("/health?verbose=1")
        assert (answered.status_code, answered.json()) == (200, {"a": 1})
        assert (await client.head("/health")).headers["content-length"] == "8"
        assert (await client.get("/")).status_code == 404
        assert (await client.post("/health")).status_code == 405
    await server.stop()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_the_status_of_a_page_is_its_own() -> None:
    assert (await ask(b"GET /health HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 503 Service Unavailable\r\n")


@pytest.mark.parametrize("raw", [b"", b"GET /health", b"GET /" + b"x" * 20_000 + b"\r\n\r\n"])
async def test_what_is_no_request_gets_no_answer(raw: bytes) -> None:
    assert await ask(raw) == b""


async def test_what_is_no_http_gets_a_404() -> None:
    assert (await ask(b"\xff\xfe\r\n\r\n")).startswith(b"HTTP/1.1 404 ")


async def test_stopping_what_was_never_started_does_nothing() -> None:
    await PageServer({}).stop()
