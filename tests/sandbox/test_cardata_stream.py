"""The stream, through real MQTT clients of both versions and through bare bytes."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiomqtt
import pytest

from sandbox.cardata_catalogue import LATITUDE, LONGITUDE, MILEAGE, STREAMABLE
from sandbox.cardata_mqtt import Why
from tests.support.cardata import I4, X1, X3, Client, simulated

V311, V5 = aiomqtt.ProtocolVersion.V311, aiomqtt.ProtocolVersion.V5
WITHIN_S = 5
MORNING = {"from": "2026-01-05T06:59:00Z", "to": "2026-01-05T07:40:00Z"}


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with simulated() as client:
        await client.log_in()
        yield client


@pytest.fixture(params=[V311, V5], ids=["3.1.1", "5"])
def version(request: pytest.FixtureRequest) -> aiomqtt.ProtocolVersion:
    chosen: aiomqtt.ProtocolVersion = request.param
    return chosen


def trusting(client: Client) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=client.sandbox.stream.certificates.authority_pem)


def listener(
    client: Client,
    id_token: str,
    version: aiomqtt.ProtocolVersion = V311,
    *,
    gcid: str | None = None,
    keepalive: int = 30,
    identifier: str | None = None,
) -> aiomqtt.Client:
    host, port = client.sandbox.stream.address
    return aiomqtt.Client(
        host,
        port,
        username=gcid or client.gcid,
        password=id_token,
        tls_context=trusting(client),
        protocol=version,
        keepalive=keepalive,
        identifier=identifier,
        timeout=WITHIN_S,
    )


async def receive(mqtt: aiomqtt.Client, count: int) -> list[Any]:
    async with asyncio.timeout(WITHIN_S):
        return [json.loads(message.payload) async for message, _ in _counted(mqtt, count)]


async def _counted(mqtt: aiomqtt.Client, count: int) -> AsyncIterator[tuple[Any, int]]:
    messages = aiter(mqtt.messages)
    for n in range(count):
        yield await anext(messages), n


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until it holds."""
    async with asyncio.timeout(WITHIN_S):
        while not condition():  # noqa: ASYNC110 - the sandbox has no event for it, and no time passes
            await asyncio.sleep(0)


@asynccontextmanager
async def raw(client: Client) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(*client.sandbox.stream.address, ssl=trusting(client))
    yield reader, writer
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


def connect_packet(
    gcid: str, id_token: str, *, level: int = 4, keepalive: int = 30, client_id: str = "c", flags: int = 0xC2
) -> bytes:
    def text(value: str) -> bytes:
        return len(value).to_bytes(2, "big") + value.encode()

    body = text("MQTT") + bytes((level, flags)) + keepalive.to_bytes(2, "big")
    body += (b"\x00" if level == 5 else b"") + text(client_id)
    if flags & 4:
        body += (b"\x00" if level == 5 else b"") + text("will") + text("words")
    body += text(gcid) + text(id_token)
    high, low = divmod(len(body), 128)
    return bytes((0x10, low | 0x80, high)) + body


def subscribe_packet(topic: str, *, level: int = 4) -> bytes:
    body = b"\x00\x01" + (b"\x00" if level == 5 else b"") + len(topic).to_bytes(2, "big") + topic.encode() + b"\x00"
    return bytes((0x82, len(body))) + body


def stats(client: Client) -> dict[str, int]:
    return dict(client.sandbox.world.counters.stream)


async def test_a_span_is_streamed_to_whoever_subscribed(client: Client, version: aiomqtt.ProtocolVersion) -> None:
    tokens = await client.log_in()
    async with listener(client, tokens["id_token"], version) as mqtt:
        await mqtt.subscribe(f"{client.gcid}/+")
        published = await client.control("POST", "stream/publish", {"gcid": client.gcid, "vin": I4, **MORNING})
        received = await receive(mqtt, published["messages"])

    assert published["messages"] == published["delivered"] > 60
    assert all(set(message) == {"vin", "entityId", "topic", "timestamp", "data"} for message in received)
    assert {message["vin"] for message in received} == {I4}
    sent = [message["timestamp"] for message in received]
    assert sent == sorted(sent)


async def test_values_are_native_and_units_only_where_there_is_one(client: Client) -> None:
    tokens = await client.log_in()
    async with listener(client, tokens["id_token"]) as mqtt:
        await mqtt.subscribe(f"{client.gcid}/{I4}")
        published = await client.control("POST", "stream/publish", {"gcid": client.gcid, "vin": I4, **MORNING})
        received = await receive(mqtt, published["messages"])

    said: dict[str, Any] = {}
    for message in received:
        said |= message["data"]
    assert isinstance(said[MILEAGE]["value"], float)
    assert said[MILEAGE]["unit"] == "km"
    assert said["vehicle.isMoving"] == {"timestamp": "2026-01-05T07:33:00Z", "value": False}
    assert not set(said) - STREAMABLE
    truth = await client.truth(I4, MILEAGE, "2026-01-05T07:40:00Z")
    assert said[MILEAGE]["value"] == truth["value"] == truth["said"]["value"]


async def test_latitude_and_longitude_come_apart_with_one_measurement_time(client: Client) -> None:
    tokens = await client.log_in()
    span = {"from": "2026-01-05T07:10:00Z", "to": "2026-01-05T07:11:00Z"}
    async with listener(client, tokens["id_token"]) as mqtt:
        await mqtt.subscribe(f"{client.gcid}/+")
        await client.control("POST", "stream/publish", {"gcid": client.gcid, "vin": X3, **span})
        apart = await receive(mqtt, 3)
        await client.control("POST", "settings", {"split_position": False})
        await client.control("POST", "stream/publish", {"gcid": client.gcid, "vin": X3, **span})
        together = await receive(mqtt, 1)

    latitude, between, longitude = (message["data"] for message in apart)
    assert (list(latitude), list(longitude)) == ([LATITUDE], [LONGITUDE])
    assert MILEAGE in between
    assert latitude[LATITUDE]["timestamp"] == longitude[LONGITUDE]["timestamp"] == "2026-01-05T07:11:00Z"
    assert apart[0]["timestamp"] < apart[2]["timestamp"]
    assert {LATITUDE, LONGITUDE} <= set(together[0]["data"])


async def test_a_sleeping_car_is_silent(client: Client) -> None:
    asleep = {"from": "2026-01-05T08:00:00Z", "to": "2026-01-05T16:59:59Z"}

    quiet = await client.control("POST", "stream/publish", {"gcid": client.gcid, "vin": I4, **asleep})
    await client.control("POST", f"cars/{I4}", {"asleep": True})
    still = await client.control(
        "POST",
        "stream/publish",
        {"gcid": client.gcid, "vin": I4, "from": "2026-01-05T17:00:00Z", "to": "2026-01-06T00:00:00Z"},
    )

    assert quiet == still == {"messages": 0, "delivered": 0}


async def test_only_the_chosen_keys_are_streamed(client: Client) -> None:
    tokens = await client.log_in()
    await client.control("POST", f"customers/{client.gcid}", {"streamed": [MILEAGE]})
    async with listener(client, tokens["id_token"]) as mqtt:
        await mqtt.subscribe(f"{client.gcid}/+")
        published = await client.control("POST", "stream/publish", {"gcid": client.gcid, **MORNING})
        received = await receive(mqtt, published["messages"])

    assert {key for message in received for key in message["data"]} == {MILEAGE}
    assert {message["vin"] for message in received} == {X1, I4, X3}


async def test_nothing_is_kept_for_those_who_are_away(client: Client) -> None:
    tokens = await client.log_in()
    away = await client.control("POST", "stream/publish", {"gcid": client.gcid, **MORNING})
    async with listener(client, tokens["id_token"]) as mqtt:
        await mqtt.subscribe(f"{client.gcid}/+")
        await client.control("POST", "stream/publish", {"gcid": client.gcid, "vin": I4, "raw": "not json"})
        async with asyncio.timeout(WITHIN_S):
            first = await anext(aiter(mqtt.messages))

    assert away["delivered"] == 0 < away["messages"]
    assert first.payload == b"not json"
    assert str(first.topic) == f"{client.gcid}/{I4}"


async def test_who_has_subscribed_to_one_car_hears_of_no_other_and_of_none_once_unsubscribed(
    client: Client, version: aiomqtt.ProtocolVersion
) -> None:
    tokens = await client.log_in()
    async with listener(client, tokens["id_token"], version) as mqtt:
        await mqtt.subscribe(f"{client.gcid}/{I4}", qos=1)
        other = await client.control("POST", "stream/publish", {"gcid": client.gcid, "vin": X1, "raw": "x"})
        own = await client.control("POST", "stream/publish", {"gcid": client.gcid, "vin": I4, "raw": "x"})
        await mqtt.unsubscribe(f"{client.gcid}/{I4}")
        late = await client.control("POST", "stream/publish", {"gcid": client.gcid, "vin": I4, "raw": "x"})

    assert [other["delivered"], own["delivered"], late["delivered"]] == [0, 1, 0]


async def test_the_clock_streams_what_happens_while_it_is_moved(client: Client) -> None:
    tokens = await client.log_in()
    async with listener(client, tokens["id_token"]) as mqtt:
        await mqtt.subscribe(f"{client.gcid}/+")
        await client.control("POST", "clock", {"advance_s": 3500})
        assert "messages" not in stats(client)
        client.sandbox.world.tokens.ids[tokens["id_token"]].expires_s += 86_400
        client.sandbox.stream.drop_all(Why.NORMAL)
    async with listener(client, tokens["id_token"]) as mqtt:
        await mqtt.subscribe(f"{client.gcid}/+")
        await client.control("POST", "clock", {"to": "2026-01-05T17:10:00Z", "stream": True})
        received = await receive(mqtt, stats(client)["delivered"])

    assert received[0]["timestamp"].startswith("2026-01-05T17:00:00")
    assert received[-1]["timestamp"].startswith("2026-01-05T17:10:00")


async def test_a_live_stream_follows_the_clock_by_itself(client: Client) -> None:
    await client.at("2026-01-05T17:01:30Z")
    tokens = await client.log_in()
    await client.control("POST", "settings", {"live_stream": True})
    async with listener(client, tokens["id_token"]) as mqtt:
        await mqtt.subscribe(f"{client.gcid}/{I4}")
        client.clock.advance(30)
        client.sandbox.stream.sweep()
        once = stats(client)["delivered"]
        client.sandbox.stream.sweep()
        received = await receive(mqtt, once)

    assert stats(client)["delivered"] == once == 3
    assert received[0]["timestamp"].startswith("2026-01-05T17:02:00")


async def test_a_second_connection_evicts_the_first(client: Client, version: aiomqtt.ProtocolVersion) -> None:
    tokens = await client.log_in()
    async with listener(client, tokens["id_token"], version, identifier="one") as first:
        await first.subscribe(f"{client.gcid}/+")
        async with listener(client, tokens["id_token"], version, identifier="two") as second:
            await second.subscribe(f"{client.gcid}/+")
            with pytest.raises(aiomqtt.MqttError):
                await receive(first, 1)
            await client.control("POST", "stream/publish", {"gcid": client.gcid, "vin": I4, "raw": "1"})
            assert await receive(second, 1) == [1]
            connected = await client.control("GET", "stream")

    assert [(c["client_id"], c["gcid"]) for c in connected["connections"]] == [("two", client.gcid)]
    assert stats(client)["dropped_taken_over"] == 1


async def test_customers_do_not_evict_one_another(client: Client) -> None:
    other = await client.control("POST", "customers", {})
    theirs, ours = await client.log_in(other["gcid"]), await client.log_in()
    async with (
        listener(client, ours["id_token"]) as own,
        listener(client, theirs["id_token"], gcid=other["gcid"]) as foreign,
    ):
        await own.subscribe(f"{client.gcid}/+")
        await foreign.subscribe(f"{other['gcid']}/+")
        await client.control("POST", "stream/publish", {"gcid": other["gcid"], "vin": "x", "raw": "2"})
        await client.control("POST", "stream/publish", {"gcid": client.gcid, "vin": I4, "raw": "1"})

        assert (await receive(own, 1), await receive(foreign, 1)) == ([1], [2])


async def test_the_connection_ends_when_the_id_token_does(client: Client, version: aiomqtt.ProtocolVersion) -> None:
    tokens = await client.log_in()
    async with listener(client, tokens["id_token"], version) as mqtt:
        await client.control("POST", "clock", {"advance_s": 3599})
        assert len(client.sandbox.stream.connections()) == 1
        await client.control("POST", "clock", {"advance_s": 1})
        with pytest.raises(aiomqtt.MqttError):
            await receive(mqtt, 1)

    assert stats(client)["dropped_id_token_expired"] == 1
    with pytest.raises(aiomqtt.MqttError):
        async with listener(client, tokens["id_token"], version):
            pass


async def test_credentials_must_be_the_customers_own_and_fresh(
    client: Client, version: aiomqtt.ProtocolVersion
) -> None:
    other = await client.control("POST", "customers", {})
    tokens = await client.log_in()

    for gcid, password in (
        (client.gcid, "nonsense"),
        (client.gcid, tokens["access_token"]),
        (other["gcid"], tokens["id_token"]),
        ("nobody", tokens["id_token"]),
    ):
        with pytest.raises(aiomqtt.MqttError, match=r"user name|[Nn]ot authori"):
            async with listener(client, password, version, gcid=gcid):
                pass

    assert stats(client) == {"refused_bad_credentials": 4}


async def test_who_is_not_subscribed_to_the_stream_is_not_authorised(
    client: Client, version: aiomqtt.ProtocolVersion
) -> None:
    tokens = await client.log_in()
    async with listener(client, tokens["id_token"], version) as mqtt:
        await client.control("POST", f"customers/{client.gcid}", {"stream_subscribed": False})
        with pytest.raises(aiomqtt.MqttError):
            await receive(mqtt, 1)

    with pytest.raises(aiomqtt.MqttError, match=r"[Nn]ot authori"):
        async with listener(client, tokens["id_token"], version):
            pass
    assert stats(client) == {"connects": 1, "dropped_not_authorized": 1, "refused_not_authorized": 1}


@pytest.mark.parametrize("keepalive", [31, 60, 65_535])
async def test_a_keepalive_above_30_seconds_is_refused(
    client: Client, version: aiomqtt.ProtocolVersion, keepalive: int
) -> None:
    tokens = await client.log_in()

    with pytest.raises(aiomqtt.MqttError):
        async with listener(client, tokens["id_token"], version, keepalive=keepalive):
            pass

    assert stats(client) == {"refused_keepalive_refused": 1}


async def test_a_long_keepalive_may_be_let_in_and_is_cut_after_45_seconds_of_silence(client: Client) -> None:
    await client.control("POST", "settings", {"refuse_long_keepalive": False})
    tokens = await client.log_in()
    async with listener(client, tokens["id_token"], keepalive=3600) as mqtt:
        await mqtt.subscribe(f"{client.gcid}/+")
        client.clock.advance(45)
        client.sandbox.stream.sweep()
        assert len(client.sandbox.stream.connections()) == 1
        client.clock.advance(0.1)
        client.sandbox.stream.sweep()
        with pytest.raises(aiomqtt.MqttError):
            await receive(mqtt, 1)

    assert stats(client)["dropped_keepalive"] == 1


async def test_a_client_that_pings_in_time_is_not_cut_and_one_that_stops_is(client: Client) -> None:
    tokens = await client.log_in()
    async with raw(client) as (reader, writer):
        writer.write(connect_packet(client.gcid, tokens["id_token"], keepalive=10))
        assert await reader.readexactly(4) == b"\x20\x02\x00\x00"
        for _ in range(3):
            client.clock.advance(14)
            writer.write(b"\xc0\x00")
            assert await reader.readexactly(2) == b"\xd0\x00"
            client.sandbox.stream.sweep()
        client.clock.advance(15.1)
        client.sandbox.stream.sweep()
        assert await reader.read() == b""

    assert stats(client)["dropped_keepalive"] == 1


async def test_time_that_is_pushed_forward_is_no_silence(client: Client) -> None:
    tokens = await client.log_in()
    async with listener(client, tokens["id_token"]):
        await client.control("POST", "clock", {"advance_s": 3000})

        assert len(client.sandbox.stream.connections()) == 1


@pytest.mark.parametrize("topic", [I4, "{gcid}", "{gcid}/#", "#", "+/+", "somebody/+", f"{{gcid}}/{'W' * 17}"])
async def test_a_topic_that_is_not_the_customers_drops_the_connection(
    client: Client, version: aiomqtt.ProtocolVersion, topic: str
) -> None:
    tokens = await client.log_in()
    level = 5 if version is V5 else 4

    async with raw(client) as (reader, writer):
        writer.write(connect_packet(client.gcid, tokens["id_token"], level=level))
        header = await reader.readexactly(2)
        await reader.readexactly(header[1])
        writer.write(subscribe_packet(topic.format(gcid=client.gcid), level=level))
        assert await reader.read() == (b"\xe0\x02\x8f\x00" if level == 5 else b"")

    assert stats(client)["dropped_topic_filter"] == 1
    assert client.sandbox.stream.connections() == []


async def test_a_client_may_not_publish(client: Client, version: aiomqtt.ProtocolVersion) -> None:
    tokens = await client.log_in()
    async with listener(client, tokens["id_token"], version) as mqtt:
        await mqtt.publish(f"{client.gcid}/{I4}", b"commands are not a thing")
        with pytest.raises(aiomqtt.MqttError):
            await receive(mqtt, 1)

    assert stats(client)["dropped_protocol_error"] == 1


async def test_all_connections_or_one_can_be_dropped(client: Client) -> None:
    other = await client.control("POST", "customers", {})
    theirs, ours = await client.log_in(other["gcid"]), await client.log_in()
    async with (
        listener(client, ours["id_token"]) as own,
        listener(client, theirs["id_token"], gcid=other["gcid"]) as foreign,
    ):
        one = await client.control("DELETE", f"stream/connections?gcid={other['gcid']}")
        with pytest.raises(aiomqtt.MqttError):
            await receive(foreign, 1)
        rest = await client.control("DELETE", "stream/connections")
        with pytest.raises(aiomqtt.MqttError):
            await receive(own, 1)

    assert (one, rest) == ({"dropped": 1}, {"dropped": 1})


async def test_who_leaves_is_forgotten(client: Client, version: aiomqtt.ProtocolVersion) -> None:
    tokens = await client.log_in()
    async with listener(client, tokens["id_token"], version):
        assert len(client.sandbox.stream.connections()) == 1

    await until(lambda: not client.sandbox.stream.connections())
    assert stats(client) == {"connects": 1}


async def test_older_tls_and_unknown_authorities_are_not_spoken(client: Client) -> None:
    old = trusting(client)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    for context in (old, ssl.create_default_context()):
        with pytest.raises(OSError):  # noqa: PT011 - a TLS alert or a reset, whichever arrives first
            await asyncio.open_connection(*client.sandbox.stream.address, ssl=context)


async def test_a_client_of_version_5_without_a_name_is_given_one(client: Client) -> None:
    tokens = await client.log_in()
    async with raw(client) as (reader, writer):
        writer.write(connect_packet(client.gcid, tokens["id_token"], level=5, client_id=""))
        header = await reader.readexactly(2)
        body = await reader.readexactly(header[1])

    assert (header[0], body[:2]) == (0x20, b"\x00\x00")
    assert body[3:8] == b"\x11\x00\x00\x00\x00"
    assert len(body[-16:].decode()) == 16


async def test_a_client_with_a_last_will_is_let_in_and_its_will_ignored(
    client: Client, version: aiomqtt.ProtocolVersion
) -> None:
    tokens = await client.log_in()
    async with raw(client) as (reader, writer):
        level = 5 if version is V5 else 4
        writer.write(connect_packet(client.gcid, tokens["id_token"], level=level, flags=0xC6))
        assert (await reader.readexactly(4))[3] == 0


GARBAGE = {
    "another protocol": b"GET / HTTP/1.1\r\n\r\n",
    "a version nobody speaks": b"\x10\x0c\x00\x04MQTT\x03\x02\x00\x3c\x00\x00",
    "a reserved flag": b"\x10\x0c\x00\x04MQTT\x04\x01\x00\x3c\x00\x00",
    "a packet that ends early": b"\x10\x05\x00\x04MQT",
    "a ping before a name": b"\xc0\x00",
    "no such packet": b"\x00\x00",
    "wrong flags": b"\x1f\x00",
    "an endless length": b"\x10\xff\xff\xff\xff\x01",
    "too much": b"\x10\xff\xff\xff\x7f",
    "no UTF-8": b"\x10\x0c\x00\x04MQTT\x04\x80\x00\x3c\x00\x02\xff\xff\x00\x00",
    "endless properties": b"\x10\x10\x00\x04MQTT\x05\x02\x00\x3c\xff\xff\xff\xff\x01\x00",
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
async def test_garbage_ends_a_connection_and_nothing_else(client: Client, garbage: bytes) -> None:
    tokens = await client.log_in()
    async with raw(client) as (reader, writer):
        writer.write(garbage)
        assert await reader.read() == b""

    assert stats(client) == {"malformed": 1}
    async with listener(client, tokens["id_token"]) as mqtt:
        await mqtt.subscribe(f"{client.gcid}/+")


async def test_a_subscription_to_nothing_is_garbage_too(client: Client) -> None:
    tokens = await client.log_in()
    async with raw(client) as (reader, writer):
        writer.write(connect_packet(client.gcid, tokens["id_token"]))
        await reader.readexactly(4)
        writer.write(b"\x82\x02\x00\x01")
        assert await reader.read() == b""

    assert stats(client) == {"connects": 1, "malformed": 1, "dropped_protocol_error": 1}


async def test_a_reset_ends_all_connections(client: Client) -> None:
    tokens = await client.log_in()
    async with listener(client, tokens["id_token"]) as mqtt:
        await client.control("POST", "reset")
        with pytest.raises(aiomqtt.MqttError):
            await receive(mqtt, 1)

    assert client.sandbox.stream.connections() == []


async def test_a_stopped_sandbox_tells_version_5_and_ends_its_connections(client: Client) -> None:
    tokens = await client.log_in()
    async with raw(client) as (reader, writer):
        writer.write(connect_packet(client.gcid, tokens["id_token"], level=5))
        header = await reader.readexactly(2)
        await reader.readexactly(header[1])
        await client.sandbox.stream.stop()
        assert await reader.read() == b"\xe0\x02\x8b\x00"


async def test_a_client_that_never_says_a_word_does_not_hold_up_the_end(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    async with raw(client) as (reader, _writer):
        await until(lambda: client.sandbox.stream.waiting == 1)
        await client.sandbox.stream.stop()
        with suppress(ConnectionResetError):
            assert await reader.read() == b""

    assert [record for record in caplog.records if record.name == "asyncio" and record.levelname == "ERROR"] == []
