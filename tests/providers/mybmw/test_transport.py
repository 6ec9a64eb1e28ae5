"""The way out: one pool, any origin, and the fence that commands pass only with a permit."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from common.clock import ManualClock, SystemClock
from common.errors import AccountNotFound, InternalError, UpstreamInvalid
from functions.providers.mybmw.transport import PooledTransport, sending
from functions.providers.pool import MAX_BODY_BYTES, Watch
from sandbox.process import RunningSandbox
from tests.providers.mybmw.harness import Permit, PermitSpentError
from tests.support.raw_server import hang, replying, server

STATE = "https://cocoapi.example/eadrax-vcs/v4/vehicles/state"
UNLOCK = "https://cocoapi.example/eadrax-vrccs/v4/presentation/remote-commands/door-unlock"


@asynccontextmanager
async def transport_to(origin: str, **options: Any) -> AsyncIterator[PooledTransport]:
    transport = PooledTransport(clock=SystemClock(), origin=origin, **options)
    try:
        yield transport
    finally:
        await transport.shutdown()


def get(url: str = STATE) -> httpx.Request:
    return httpx.Request("GET", url)


def post(url: str = UNLOCK) -> httpx.Request:
    return httpx.Request("POST", url, content=b"{}")


@pytest.fixture
async def transport(sandbox: RunningSandbox) -> AsyncIterator[PooledTransport]:
    async with transport_to(sandbox.origin, timeout_s=1.0, max_connections=5) as made:
        yield made


async def test_a_request_reaches_the_origin_with_its_own_path_query_headers_and_body() -> None:
    seen = bytearray()

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.extend(await reader.readuntil(b"a=b"))
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    async with server(note) as origin, transport_to(origin) as transport:
        request = httpx.Request("POST", "https://customer.example:444/gcdm/oauth/token?x=%2F1", data={"a": "b"})
        response = await transport.handle_async_request(request)

    head, _, body = bytes(seen).partition(b"\r\n\r\n")
    assert response.status_code == 204
    assert head.startswith(b"POST /gcdm/oauth/token?x=%2F1 HTTP/1.1\r\n")
    assert b"\r\nhost: " + origin.removeprefix("http://").encode() in head.lower()
    assert b"application/x-www-form-urlencoded" in head
    assert body == b"a=b"


async def test_without_an_origin_a_request_goes_where_it_says() -> None:
    async with server(replying(b"200 OK")) as origin:
        transport = PooledTransport(clock=SystemClock())
        response = await transport.handle_async_request(get(f"{origin}/eadrax-vcs/v4/vehicles/state"))
        await transport.shutdown()

    assert response.status_code == 200


async def test_closing_a_client_leaves_the_connections_open(
    transport: PooledTransport, sandbox: RunningSandbox
) -> None:
    for _ in range(3):
        async with httpx.AsyncClient(transport=transport) as client:
            await client.get(STATE)

    assert sandbox.stats()["connections_opened"] == 1


async def test_a_compressed_answer_is_decoded_once() -> None:
    body = gzip.compress(b'{"state": {}}')

    async with server(replying(b"200 OK\r\nContent-Encoding: gzip", body)) as origin, transport_to(origin) as transport:
        response = await transport.handle_async_request(get())

    assert response.json() == {"state": {}}


async def test_an_answer_that_is_too_large_is_not_read_to_its_end() -> None:
    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (100 * MAX_BODY_BYTES))
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    async with server(flood) as origin, transport_to(origin) as transport:
        with pytest.raises(UpstreamInvalid):
            await transport.handle_async_request(get())


async def test_a_bomb_is_not_unpacked_to_its_end() -> None:
    bomb = gzip.compress(b"\0" * (MAX_BODY_BYTES + 1), compresslevel=1)

    async with server(replying(b"200 OK\r\nContent-Encoding: gzip", bomb)) as origin, transport_to(origin) as transport:
        with pytest.raises(UpstreamInvalid):
            await transport.handle_async_request(get())


async def test_an_answer_that_trickles_for_ever_times_out() -> None:
    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0)

    async with server(trickle) as origin, transport_to(origin, timeout_s=0.2) as transport:
        with pytest.raises(httpx.ReadTimeout):
            await transport.handle_async_request(get())


async def test_our_timeout_counts_and_not_the_clients() -> None:
    async with server(hang) as origin, transport_to(origin, timeout_s=0.1) as transport:
        client = httpx.AsyncClient(transport=transport, timeout=30.0)
        with pytest.raises(httpx.ReadTimeout):
            await client.get(STATE)


async def test_who_finds_no_free_connection_gives_up_after_a_while() -> None:
    async with server(hang) as origin, transport_to(origin, timeout_s=0.2, max_connections=1) as transport:
        first = asyncio.create_task(transport.handle_async_request(get()))
        await asyncio.sleep(0)
        with pytest.raises(httpx.TimeoutException) as caught:
            await asyncio.gather(transport.handle_async_request(get()), transport.handle_async_request(get()))
        with pytest.raises(httpx.ReadTimeout):
            await first

    assert caught.type is httpx.PoolTimeout


async def test_an_observer_is_told_of_each_request_without_vins_and_ids(sandbox: RunningSandbox) -> None:
    clock = ManualClock()
    told: list[tuple[str, str, float]] = []
    transport = PooledTransport(clock=clock, origin=sandbox.origin, watch=Watch(lambda *request: told.append(request)))
    refused = PooledTransport(
        clock=clock, origin="http://127.0.0.1:1", watch=Watch(lambda *request: told.append(request))
    )

    await transport.handle_async_request(get())
    with pytest.raises(httpx.ConnectError):
        await refused.handle_async_request(get("https://x.example/eadrax-crccs/v1/vehicles/WBA00000000DEMO01/a"))
    await transport.shutdown()
    await refused.shutdown()

    assert told == [
        ("/eadrax-vcs/vehicles/state", "400", 0.0),
        ("/eadrax-crccs/vehicles/{vin}/a", "ConnectError", 0.0),
    ]


@pytest.mark.parametrize("latency_ms", [0, 5])
async def test_cancelled_requests_leave_the_pool_whole(sandbox: RunningSandbox, latency_ms: int) -> None:
    # httpcore 0.17 by itself has lost all five connections after about a hundred cancellations.
    sandbox.settings(latency_ms=latency_ms)
    async with transport_to(sandbox.origin, timeout_s=5.0, max_connections=5) as transport:
        for turn in range(12):
            tasks = [asyncio.create_task(transport.handle_async_request(get())) for _ in range(40)]
            for _ in range(turn * 5):
                await asyncio.sleep(0)
            for task in tasks[:: 1 + turn % 3]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        answers = await asyncio.gather(*(transport.handle_async_request(get()) for _ in range(20)))

    assert {answer.status_code for answer in answers} == {400}
    assert sandbox.stats()["connections_opened"] <= 5


async def test_shutting_down_ends_what_is_still_going_on() -> None:
    asked = asyncio.Event()

    async def note(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await reader.read()

    async with server(note) as origin:
        transport = PooledTransport(clock=SystemClock(), origin=origin)
        asking = asyncio.create_task(transport.handle_async_request(get()))
        await asked.wait()
        await transport.shutdown()

        with pytest.raises(asyncio.CancelledError):
            await asking


async def test_a_command_without_a_permit_does_not_leave(transport: PooledTransport, sandbox: RunningSandbox) -> None:
    with pytest.raises(InternalError):
        await transport.handle_async_request(post())

    assert sandbox.stats()["requests_total"] == 0


async def test_a_permit_ends_with_its_block(transport: PooledTransport, sandbox: RunningSandbox) -> None:
    with sending(Permit()):
        pass

    with pytest.raises(InternalError):
        await transport.handle_async_request(post())
    assert sandbox.stats()["requests_total"] == 0


async def test_reads_need_no_permit_and_spend_none(transport: PooledTransport) -> None:
    permit = Permit()

    with sending(permit):
        await transport.handle_async_request(get())

    assert permit.log == []


async def test_a_command_whose_account_has_ended_by_the_time_that_it_would_leave_does_not_leave(
    transport: PooledTransport, sandbox: RunningSandbox
) -> None:
    permit = Permit(ended=True)

    with sending(permit) as passage, pytest.raises(AccountNotFound):
        await transport.handle_async_request(post())

    assert (permit.log, passage.in_doubt) == ([], False)
    assert sandbox.stats()["requests_total"] == 0


async def test_each_sending_spends_the_permit_and_none_is_sent_without(
    transport: PooledTransport, sandbox: RunningSandbox
) -> None:
    permit = Permit(left=2)
    sandbox.fault(match={"path": "door-unlock"}, fault="status", status=503)

    with sending(permit):
        for _ in range(2):
            await transport.handle_async_request(post())
        with pytest.raises(PermitSpentError):
            await transport.handle_async_request(post())

    assert permit.log == ["take", "take", "take"]
    assert sandbox.stats()["requests_total"] == 2


async def test_a_command_that_its_permit_stops_writes_nothing() -> None:
    read = bytearray()

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        read.extend(await reader.read())

    async with server(note) as origin, transport_to(origin) as transport:
        with sending(Permit(left=0)), pytest.raises(PermitSpentError):
            await transport.handle_async_request(post())

    assert bytes(read) == b""


async def test_a_connection_that_never_opened_does_not_touch_the_permit() -> None:
    permit = Permit()

    async with transport_to("http://127.0.0.1:1") as transport:
        with sending(permit) as passage, pytest.raises(httpx.ConnectError):
            await transport.handle_async_request(post())

    assert permit.log == []
    assert passage.in_doubt is False


async def test_a_command_that_waits_for_a_connection_in_vain_does_not_touch_its_permit() -> None:
    permit = Permit()

    async with server(hang) as origin, transport_to(origin, timeout_s=0.1, max_connections=1) as transport:
        reading = asyncio.create_task(transport.handle_async_request(get()))
        reading_too = asyncio.create_task(transport.handle_async_request(get()))
        await asyncio.sleep(0)
        with sending(permit) as passage, pytest.raises(httpx.PoolTimeout):
            await transport.handle_async_request(post())
        await asyncio.gather(reading, reading_too, return_exceptions=True)

    assert permit.log == []
    assert passage.in_doubt is False


@pytest.mark.parametrize(
    ("status", "log", "in_doubt"),
    [
        (401, ["take", "refused"], False),
        (400, ["take"], False),
        (403, ["take"], False),
        (404, ["take"], False),
        (408, ["take"], True),
        (425, ["take"], True),
        (429, ["take"], False),
        (489, ["take"], False),
        (500, ["take"], True),
        (502, ["take"], True),
        (503, ["take"], True),
        (504, ["take"], True),
        (200, ["take"], True),
        (302, ["take"], True),
    ],
)
async def test_what_an_answer_says_of_a_command(status: int, log: list[str], in_doubt: bool) -> None:
    permit = Permit()

    async with server(replying(b"%d X" % status)) as origin, transport_to(origin) as transport:
        with sending(permit) as passage:
            await transport.handle_async_request(post())

    assert permit.log == log
    assert passage.in_doubt is in_doubt


async def test_a_command_without_an_answer_is_in_doubt() -> None:
    permit = Permit()

    async with server(hang) as origin, transport_to(origin, timeout_s=0.1) as transport:
        with sending(permit) as passage, pytest.raises(httpx.ReadTimeout):
            await transport.handle_async_request(post())

    assert permit.log == ["take"]
    assert passage.in_doubt is True


async def test_a_refusal_whose_body_breaks_off_is_a_refusal_all_the_same() -> None:
    permit = Permit()

    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 429 X\r\nContent-Length: 100\r\n\r\nTry")

    async with server(break_off) as origin, transport_to(origin) as transport:
        with sending(permit) as passage, pytest.raises(httpx.RemoteProtocolError):
            await transport.handle_async_request(post())

    assert passage.in_doubt is False


async def test_a_command_whose_sender_left_before_it_could_go_never_goes() -> None:
    permit = Permit()
    requests = 0
    asked, release = asyncio.Event(), asyncio.Event()

    async def one_at_a_time(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        await reader.readuntil(b"\r\n\r\n")
        requests += 1
        asked.set()
        await release.wait()
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    async with server(one_at_a_time) as origin, transport_to(origin, max_connections=1) as transport:

        async def unlock() -> None:
            with sending(permit):
                await transport.handle_async_request(post())

        reading = asyncio.create_task(transport.handle_async_request(get()))
        await asked.wait()
        waiting = asyncio.create_task(unlock())
        await asyncio.sleep(0)
        waiting.cancel()
        release.set()
        await reading
        await transport.handle_async_request(get())

    assert permit.log == []
    assert requests == 2


async def test_a_command_whose_sender_left_while_it_connected_never_goes() -> None:
    permit = Permit()
    received = bytearray()
    connected = asyncio.Event()

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.extend(await reader.read())
        connected.set()

    async with server(note) as origin, transport_to(origin) as transport:

        async def unlock() -> None:
            with sending(permit):
                await transport.handle_async_request(post())

        sender = asyncio.create_task(unlock())
        for _ in range(2):  # far enough to have begun, not far enough to be connected
            await asyncio.sleep(0)
        sender.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sender
        await connected.wait()

    assert permit.log == []
    assert bytes(received) == b""


async def test_a_refusal_that_comes_after_its_sender_left_gives_no_permit_back() -> None:
    permit = Permit()
    asked, release = asyncio.Event(), asyncio.Event()

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            asked.set()
            await release.wait()
            writer.write(b"HTTP/1.1 401 X\r\nContent-Length: 0\r\n\r\n")

    async with server(late) as origin, transport_to(origin, max_connections=1) as transport:

        async def unlock() -> None:
            with sending(permit):
                await transport.handle_async_request(post())

        sender = asyncio.create_task(unlock())
        await asked.wait()
        sender.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sender
        release.set()
        await transport.handle_async_request(get())  # comes after the command's answer, on its connection

    assert permit.log == ["take"]
