"""One connection to the broker of the sandbox: what it hears, and why it ends."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from functions.providers.cardata.stream_line import Broker, Line, LineEnded
from functions.providers.cardata.stream_retry import Ending
from ops.processes import free_port
from sandbox.cardata_mqtt import V5, Packet, Why, connack, read_packet
from sandbox.cardata_tls import make_certificates
from tests.providers.cardata.harness import I4, Bench
from tests.providers.cardata.stream_harness import until


@pytest.fixture
def broker(bench: Bench) -> Broker:
    address = bench.sandbox.stream()
    return Broker(address.host, address.port, address.ssl_context())


@pytest.fixture
async def login(bench: Bench) -> tuple[str, str]:
    tokens = await bench.link()
    return tokens.extra["gcid"], tokens.extra["id_token"]


async def ending_of(line: Line) -> Ending:
    with pytest.raises(LineEnded) as ended:
        await all_of(line, [])
    return ended.value.ending


async def all_of(line: Line, heard: list[bytes]) -> None:
    async with asyncio.timeout(5):
        async for _, payload in line.messages():
            heard.append(payload)


async def refusal(broker: Broker, gcid: str, id_token: str) -> Ending:
    with pytest.raises(LineEnded) as refused:
        await broker.open(gcid, id_token)
    return refused.value.ending


async def test_a_line_hears_all_cars_of_its_customer_by_mqtt_5(
    bench: Bench, broker: Broker, login: tuple[str, str]
) -> None:
    line = await broker.open(*login)
    (shown,) = bench.sandbox.stream_connections()
    assert (shown["mqtt"], shown["filters"]) == ("5", [f"{login[0]}/+"])
    assert 0 < shown["keepalive_s"] <= 30

    bench.sandbox.publish(login[0], vin=I4, raw="one")
    bench.sandbox.publish(login[0], vin=I4, raw="two")
    heard = []
    async with asyncio.timeout(5):
        async for message in line.messages():
            heard.append(message)
            if len(heard) == 2:
                break
    assert heard == [(f"{login[0]}/{I4}", b"one"), (f"{login[0]}/{I4}", b"two")]

    await line.close()
    assert bench.sandbox.stream_connections() == []


async def test_what_arrived_before_the_end_is_heard_before_the_end(
    bench: Bench, broker: Broker, login: tuple[str, str]
) -> None:
    line = await broker.open(*login)
    for number in range(20):
        bench.sandbox.publish(login[0], vin=I4, raw=str(number))
    bench.sandbox.drop_connections()
    heard: list[bytes] = []
    with pytest.raises(LineEnded):
        await all_of(line, heard)
    assert [int(payload) for payload in heard] == list(range(20))
    await line.close()


async def test_a_second_connection_evicts_the_first_which_is_told_so(
    bench: Bench, broker: Broker, login: tuple[str, str]
) -> None:
    first = await broker.open(*login)
    second = await broker.open(*login)
    assert await ending_of(first) is Ending.EVICTED
    await first.close()
    assert len(bench.sandbox.stream_connections()) == 1
    await second.close()


async def test_the_end_of_the_id_token_ends_the_line(bench: Bench, broker: Broker, login: tuple[str, str]) -> None:
    line = await broker.open(*login)
    bench.advance(3_600)
    assert await ending_of(line) is Ending.EXPIRED
    await line.close()


async def test_a_broker_that_shuts_down_has_lost_us(bench: Bench, broker: Broker, login: tuple[str, str]) -> None:
    line = await broker.open(*login)
    bench.sandbox.drop_connections()
    assert await ending_of(line) is Ending.LOST
    await line.close()


async def test_why_a_connection_is_refused_is_told_apart(bench: Bench, broker: Broker, login: tuple[str, str]) -> None:
    gcid, id_token = login
    assert await refusal(broker, gcid, "no such token") is Ending.REFUSED
    assert await refusal(broker, "another-customer", id_token) is Ending.REFUSED
    bench.sandbox.change_customer(gcid, stream_subscribed=False)
    assert await refusal(broker, gcid, id_token) is Ending.NOT_SUBSCRIBED
    assert await refusal(Broker("127.0.0.1", free_port(), broker.tls), gcid, id_token) is Ending.LOST
    assert bench.sandbox.stream_connections() == []


async def test_a_broker_that_cannot_prove_who_it_is_gets_no_token(broker: Broker, login: tuple[str, str]) -> None:
    strangers = ssl.create_default_context()
    assert await refusal(Broker(broker.host, broker.port, strangers), *login) is Ending.LOST


Answer = Callable[[bytes], bytes | None]


@asynccontextmanager
async def odd_broker(answer: Answer) -> AsyncIterator[Broker]:
    """A broker that lets everybody in and then answers SUBSCRIBE as the test says; ``None`` hangs up."""
    certificates = make_certificates()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                kind, body = await read_packet(reader)
                if kind is Packet.CONNECT:
                    writer.write(connack(V5, Why.NORMAL, "given"))
                elif kind is Packet.SUBSCRIBE:
                    said = answer(body)
                    if said is None:
                        break
                    writer.write(said)
                else:
                    break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=certificates.context)
    tls = ssl.create_default_context(cadata=certificates.authority_pem)
    try:
        yield Broker("127.0.0.1", server.sockets[0].getsockname()[1], tls, patience_s=1.0)
    finally:
        server.close()


@pytest.mark.parametrize(
    ("code", "ending"), [(Why.NOT_AUTHORIZED, Ending.NOT_SUBSCRIBED), (Why.TOPIC_FILTER, Ending.LOST)]
)
async def test_a_subscription_that_is_not_granted_is_no_connection(code: Why, ending: Ending) -> None:
    async with odd_broker(lambda body: b"\x90\x04" + body[:2] + b"\x00" + bytes([code])) as broker:
        assert await refusal(broker, "g", "t") is ending


async def test_a_broker_that_hangs_up_at_the_subscription_has_lost_us() -> None:
    async with odd_broker(lambda _body: None) as broker:
        assert await refusal(broker, "g", "t") is Ending.LOST


async def test_giving_up_while_connecting_leaves_no_connection_behind(
    bench: Bench, broker: Broker, login: tuple[str, str]
) -> None:
    for steps in range(12):
        opening = asyncio.create_task(broker.open(*login))
        for _ in range(steps):
            await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
    await until(lambda: not bench.sandbox.stream_connections())
    line = await broker.open(*login)
    assert len(bench.sandbox.stream_connections()) == 1
    await line.close()
    await line.close()
