"""One customer's stream from the first connection on, against the sandbox's auth, broker and clock."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta

import orjson
import pytest

from functions.providers.cardata import descriptors as d
from functions.providers.cardata.signal_store import StreamWatch
from functions.providers.cardata.stream_index import Customer
from functions.providers.cardata.stream_line import Broker, Line, LineEnded
from functions.providers.cardata.stream_retry import Ending
from functions.providers.cardata.stream_session import (
    BEAT_EVERY_S,
    BEAT_HOLDS,
    RENEW_BEFORE_S,
    OpensLines,
    Session,
    State,
)
from ops.processes import free_port
from tests.providers.cardata.harness import I4, NOON, Bench
from tests.providers.cardata.stream_harness import Reported, Sleepers, StreamBench, until


@pytest.fixture
def stream(bench: Bench) -> StreamBench:
    return StreamBench(bench, Reported(bench.clock), Sleepers(bench.clock))


@asynccontextmanager
async def serving(
    stream: StreamBench, accounts: tuple[str, ...] = ("acc_1",), broker: OpensLines | None = None
) -> AsyncIterator[Session]:
    parts = stream.parts(stream.intake())
    if broker is not None:
        parts = replace(parts, broker=broker)
    session = Session(Customer("c", accounts), parts)
    task = asyncio.create_task(session.run())
    try:
        yield session
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def connected(session: Session, stream: StreamBench) -> None:
    """Return when the session listens and has nothing else to do: then the clock may be moved."""
    await until(lambda: session.state is State.CONNECTED and len(stream.sleepers.waits_s()) == 1)


async def waiting(stream: StreamBench, session: Session, ending: Ending) -> float:
    """How long a session whose connection has ended stays away."""
    await until(lambda: session.state is ending and len(stream.sleepers.waits_s()) == 1)
    return stream.sleepers.waits_s()[0]


def auth_calls(stream: StreamBench) -> int:
    count: int = stream.bench.sandbox.stats()["auth"]["refreshes"]
    return count


async def test_what_a_car_says_is_stored_for_every_account_that_is_linked(stream: StreamBench) -> None:
    await stream.bench.link()
    async with serving(stream, ("acc_1", "acc_2")) as session:
        await connected(session, stream)
        assert stream.speak(I4, {d.MILEAGE: 12_345}) == 1
        await until(lambda: sorted(stream.told) == ["acc_1", "acc_2"])
    assert await stream.stored(I4, d.MILEAGE) == await stream.stored(I4, d.MILEAGE, "acc_2") == 12_345
    assert stream.bench.sandbox.stream_connections() == []


async def test_what_is_no_message_is_counted_and_left_out(stream: StreamBench) -> None:
    await stream.bench.link()
    async with serving(stream) as session:
        await connected(session, stream)
        stream.bench.sandbox.publish(stream.bench.sandbox.demo["gcid"], vin=I4, raw="no JSON")
        stream.speak(I4, {d.MILEAGE: 1})
        await until(lambda: stream.told == ["acc_1"])
    assert stream.reported.count('draiv_stream_messages_total{stage="malformed"}') == 1


async def test_a_whole_drive_with_split_positions_ends_where_the_car_is(stream: StreamBench) -> None:
    await stream.bench.link()
    gcid = stream.bench.sandbox.demo["gcid"]
    async with serving(stream) as session:
        await connected(session, stream)
        sent = stream.bench.sandbox.publish(gcid, vin=I4, **{"from": (NOON - timedelta(hours=6)).isoformat()})
        assert sent["messages"] == sent["delivered"] > 20
        await until(lambda: stream.reported.count('draiv_stream_messages_total{stage="stored"}') == sent["messages"])
    for name in (d.LATITUDE, d.LONGITUDE, d.MILEAGE, d.CHARGING_STATUS):
        truth = stream.bench.sandbox.truth(I4, name)["said"]
        assert str(await stream.stored(I4, name)) == str(truth["value"]), name
    position = await stream.stored(I4, d.POSITION)
    assert position == [await stream.stored(I4, d.LATITUDE), await stream.stored(I4, d.LONGITUDE)]


async def test_before_the_id_token_ends_a_successor_takes_over_and_nothing_is_missed(stream: StreamBench) -> None:
    await stream.bench.link()
    async with serving(stream) as session:
        await connected(session, stream)
        for number in range(1, 20):
            stream.speak(I4, {d.MILEAGE: number})
        stream.pass_time(3_600 - RENEW_BEFORE_S + 6)
        await until(lambda: stream.reported.count("draiv_stream_connects_total") == 2)
        assert stream.speak(I4, {d.MILEAGE: 99}) == 1
        await until(lambda: stream.reported.count('draiv_stream_messages_total{stage="stored"}') == 20)
        assert await stream.stored(I4, d.MILEAGE) == 99
        assert session.state is State.CONNECTED
        assert auth_calls(stream) == 1
        # The end of the first token ends nothing any more.
        stream.pass_time(60)
        assert stream.speak(I4, {d.MILEAGE: 100}) == 1
    assert stream.reported.events("stream_ended") == []


async def test_a_day_of_streaming_rotates_the_tokens_hourly_and_never_lets_go(stream: StreamBench) -> None:
    await stream.bench.link()
    async with serving(stream) as session:
        await connected(session, stream)
        for hour in range(1, 25):
            stream.pass_time(3_600 - RENEW_BEFORE_S + 6)
            await until(lambda expected=hour + 1: stream.reported.count("draiv_stream_connects_total") == expected)  # type: ignore[misc]  # a default binds the hour
            await until(lambda: len(stream.sleepers.waits_s()) == 1)
    assert stream.reported.events("stream_ended") == []
    assert auth_calls(stream) == 24
    health = await stream.bench.keeper.health("acc_1")
    assert health is not None
    assert health.rotated_at is not None
    assert stream.bench.clock.utc() - health.rotated_at < timedelta(hours=1)


async def test_a_renewal_that_fails_is_tried_again_while_the_old_connection_lives(stream: StreamBench) -> None:
    await stream.bench.link()
    async with serving(stream) as session:
        await connected(session, stream)
        stream.bench.sandbox.fault(match={"path": "oauth/token"}, fault="status", status=503, times=1)
        stream.pass_time(3_600 - RENEW_BEFORE_S + 6)
        await until(lambda: len(stream.reported.events("stream_renewal_failed")) == 1)
        assert session.state is State.CONNECTED
        assert stream.speak(I4, {d.MILEAGE: 1}) == 1
        await until(lambda: stream.sleepers.waits_s() == [12.5])
        stream.pass_time(12.5)
        await until(lambda: stream.reported.count("draiv_stream_connects_total") == 2)
    assert stream.reported.events("stream_ended") == []


async def test_a_successor_that_the_broker_refuses_costs_one_more_token_and_is_tried_less_and_less_often(
    stream: StreamBench,
) -> None:
    await stream.bench.link()
    broker = RefusingBroker(stream.parts(stream.intake()).broker)
    waits = []
    async with serving(stream, broker=broker) as session:
        await connected(session, stream)
        broker.refuses = True
        stream.pass_time(3_600 - RENEW_BEFORE_S + 6)
        for number in range(1, 4):
            await until(lambda expected=number: len(stream.reported.events("stream_renewal_failed")) == expected)  # type: ignore[misc]  # a default binds it
            await until(lambda: len(stream.sleepers.waits_s()) == 1)
            waits.append(stream.sleepers.waits_s()[0])
            stream.pass_time(waits[-1])
    assert waits == [12.5, 15, 30]
    # The one that was due, and one in place of the refused.
    assert auth_calls(stream) == 2


@dataclass
class RefusingBroker:
    """A broker that begins to refuse every ID token."""

    inner: OpensLines
    refuses: bool = False

    async def open(self, gcid: str, id_token: str) -> Line:
        if self.refuses:
            raise LineEnded(Ending.REFUSED)
        return await self.inner.open(gcid, id_token)


@dataclass
class HandLine:
    """A connection that a test feeds by hand."""

    arrived: "asyncio.Queue[bytes | Ending]" = field(default_factory=asyncio.Queue)
    is_closed: bool = False

    async def messages(self) -> AsyncIterator[tuple[str, bytes]]:
        while not isinstance(payload := await self.arrived.get(), Ending):
            yield f"a-gcid/{I4}", payload
        raise LineEnded(payload)

    async def close(self) -> None:
        self.is_closed = True


@dataclass
class HandBroker:
    """A broker of such connections; a new one evicts the one before, whose last message is still on its way then."""

    last_words: bytes
    lines: list[HandLine] = field(default_factory=list)

    async def open(self, gcid: str, id_token: str) -> HandLine:
        for line in self.lines[-1:]:
            asyncio.get_running_loop().call_later(0.01, line.arrived.put_nowait, self.last_words)
            asyncio.get_running_loop().call_later(0.02, line.arrived.put_nowait, Ending.EVICTED)
        self.lines.append(HandLine())
        return self.lines[-1]


async def test_what_was_on_its_way_when_the_successor_took_over_is_still_heard(stream: StreamBench) -> None:
    tokens = await stream.bench.link()
    await stream.bench.keeper.save("acc_1", replace(tokens, extra={**tokens.extra, "gcid": "a-gcid"}))
    data = {d.MILEAGE: {"timestamp": NOON.isoformat(), "value": 7}}
    broker = HandBroker(orjson.dumps({"vin": I4, "data": data}))
    async with serving(stream, broker=broker) as session:
        await connected(session, stream)
        stream.pass_time(3_600 - RENEW_BEFORE_S + 6)
        await until(lambda: stream.told == ["acc_1"])
        await until(lambda: [line.is_closed for line in broker.lines] == [True, False])
        assert session.state is State.CONNECTED
    assert await stream.stored(I4, d.MILEAGE) == 7
    assert [line.is_closed for line in broker.lines] == [True, True]


async def test_a_lost_connection_comes_back_after_ten_seconds_at_least(stream: StreamBench) -> None:
    await stream.bench.link()
    watch = StreamWatch(stream.bench.documents)
    async with serving(stream) as session:
        await connected(session, stream)
        await until(lambda: len(stream.sleepers.waits_s()) == 1)
        assert await watch.until("acc_1") == stream.bench.clock.utc() + BEAT_HOLDS
        stream.pass_time(100)
        stream.bench.sandbox.drop_connections()
        wait_s = await waiting(stream, session, Ending.LOST)
        assert wait_s == 12.5
        # Readers are told at once that they cannot rely on it.
        assert await watch.until("acc_1") == stream.bench.clock.utc()
        stream.pass_time(wait_s - 0.1)
        assert stream.bench.sandbox.stream_connections() == []
        stream.pass_time(0.1)
        await connected(session, stream)
    assert stream.reported.count("draiv_stream_gap_seconds_sum") == pytest.approx(wait_s)


async def test_readers_hear_again_and_again_that_the_stream_is_up(stream: StreamBench) -> None:
    await stream.bench.link()
    watch = StreamWatch(stream.bench.documents)
    async with serving(stream) as session:
        await connected(session, stream)
        for _ in range(3):
            await until(lambda: stream.sleepers.waits_s() == [BEAT_EVERY_S])
            assert await watch.until("acc_1") == stream.bench.clock.utc() + BEAT_HOLDS
            stream.pass_time(BEAT_EVERY_S)


async def test_another_client_of_the_owner_is_given_way_and_reported_when_it_keeps_coming_back(
    stream: StreamBench,
) -> None:
    tokens = await stream.bench.link()
    async with serving(stream) as session:
        waits = []
        for _ in range(3):
            await connected(session, stream)
            intruder = await stream.parts(stream.intake()).broker.open(tokens.extra["gcid"], tokens.extra["id_token"])
            waits.append(await waiting(stream, session, Ending.EVICTED))
            await intruder.close()
            stream.pass_time(waits[-1])
        await connected(session, stream)
    assert waits == [12.5, 90, 180]
    assert len(stream.reported.events("stream_ended")) == 2
    (contested,) = stream.reported.events("stream_contested")
    assert (contested["account"], contested["attempt"], contested["severity"]) == ("acc_1", 3, "WARNING")


async def test_a_broker_that_is_away_is_left_alone_for_longer_each_time(stream: StreamBench) -> None:
    await stream.bench.link()
    address = stream.bench.sandbox.stream()
    away = Broker("127.0.0.1", free_port(), address.ssl_context())
    waits = []
    async with serving(stream, broker=away) as session:
        for _ in range(6):
            waits.append(await waiting(stream, session, Ending.LOST))
            session.state = State.CONNECTING
            stream.pass_time(waits[-1])
    assert waits == [12.5, 15, 30, 60, 120, 225]


async def test_an_id_token_that_the_broker_does_not_take_is_replaced(stream: StreamBench) -> None:
    await stream.bench.link()
    stream.bench.sandbox.expire_access(stream.bench.sandbox.demo["gcid"])
    async with serving(stream) as session:
        stream.pass_time(await waiting(stream, session, Ending.REFUSED))
        await connected(session, stream)
    assert auth_calls(stream) == 1


async def test_a_dead_link_is_said_once_in_five_minutes_and_asks_bmw_nothing(stream: StreamBench) -> None:
    await stream.bench.link()
    stream.bench.sandbox.expire_access(stream.bench.sandbox.demo["gcid"])
    stream.bench.sandbox.revoke_refresh(stream.bench.sandbox.demo["gcid"])
    stream.pass_time(3_600)
    async with serving(stream) as session:
        assert await waiting(stream, session, Ending.RELINK_REQUIRED) == 225
        asked = stream.bench.sandbox.stats()["requests_total"]
        session.state = State.CONNECTING
        stream.pass_time(225)
        await waiting(stream, session, Ending.RELINK_REQUIRED)
        assert stream.bench.sandbox.stats()["requests_total"] == asked
        # Linked again, it is served again.
        await stream.bench.link()
        stream.pass_time(225)
        await connected(session, stream)


async def test_of_two_accounts_of_a_customer_the_living_one_is_used(stream: StreamBench) -> None:
    await stream.bench.link()
    async with serving(stream, ("acc_dead", "acc_1")) as session:
        await connected(session, stream)
        assert stream.speak(I4, {d.MILEAGE: 1}) == 1
        await until(lambda: sorted(stream.told) == ["acc_1", "acc_dead"])


async def test_while_bmws_login_is_down_the_session_waits_and_then_comes_back(stream: StreamBench) -> None:
    await stream.bench.link()
    stream.pass_time(3_600)
    stream.bench.sandbox.fault(match={"path": "oauth/token"}, fault="status", status=503, times=1)
    async with serving(stream) as session:
        stream.pass_time(await waiting(stream, session, Ending.NO_TOKENS))
        await connected(session, stream)


async def test_while_the_broker_is_away_the_link_is_kept_alive_all_the_same(stream: StreamBench) -> None:
    await stream.bench.link()
    away = Broker("127.0.0.1", free_port(), stream.bench.sandbox.stream().ssl_context())
    async with serving(stream, broker=away) as session:
        await waiting(stream, session, Ending.LOST)
        session.state = State.CONNECTING
        stream.pass_time(3_700)
        await waiting(stream, session, Ending.LOST)
    assert auth_calls(stream) == 1


async def test_a_customer_who_takes_the_stream_back_is_asked_again_in_minutes_only(stream: StreamBench) -> None:
    await stream.bench.link()
    async with serving(stream) as session:
        await connected(session, stream)
        stream.bench.sandbox.change_customer(stream.bench.sandbox.demo["gcid"], stream_subscribed=False)
        assert await waiting(stream, session, Ending.NOT_SUBSCRIBED) == 225
