"""What instances tell each other, and that a request after a sleep believes nothing that was voided meanwhile."""

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis

from common.bus import Bus
from common.clock import ManualClock
from common.loops import LoopThread
from common.stores.redis import RedisShared
from common.stores.shared import SharedUnavailable
from ops.valkey import Valkey, running_valkey
from tests.support.eventually import eventually
from tests.support.sleeper import start_sleeper

TOPIC = "test:topic:bus"


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    with running_valkey() as server:
        yield server


@pytest.fixture
async def raw(valkey: Valkey) -> AsyncIterator[Any]:
    async with Redis.from_url(valkey.url) as client:
        yield client


@dataclass
class Instance:
    """One instance on the bus, and all that it was told."""

    url: str
    patience_s: float = 5.0
    clock: ManualClock = field(default_factory=ManualClock)
    heard: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.shared = RedisShared(self.url, self.clock, namespace="test", timeout_s=5.0)
        self.bus = Bus(
            self.shared,
            self.clock,
            handlers={"snapshot": self.heard.append, "broken": self.fail},
            on_gap=lambda: self.heard.append("GAP"),
            patience_s=self.patience_s,
        )

    def fail(self, subject: str) -> None:
        raise LookupError(subject)

    async def close(self) -> None:
        await self.bus.aclose()
        await self.shared.aclose()


@pytest.fixture
async def two(valkey: Valkey) -> AsyncIterator[tuple[Instance, Instance]]:
    """Two instances that hear each other, and have forgotten how that began."""
    pair = Instance(valkey.url), Instance(valkey.url)
    for instance in pair:
        assert await instance.bus.fence()
        assert instance.heard == ["GAP"]
        instance.heard.clear()
    yield pair
    for instance in pair:
        await instance.close()


async def pings(raw: Any) -> int:
    """How many pings the server was sent so far."""
    stats = await raw.info("commandstats")
    return int(stats.get("cmdstat_ping", {"calls": 0})["calls"])


async def test_an_instance_hears_what_another_says_and_not_itself(two: tuple[Instance, Instance]) -> None:
    me, you = two
    assert await me.bus.publish("snapshot", "car 1")
    assert await you.bus.publish("snapshot", "car 2")
    for instance in two:
        instance.clock.advance(1)
        assert await instance.bus.fence()
    assert (me.heard, you.heard) == (["car 2"], ["car 1"])


async def test_after_a_pause_the_fence_returns_when_all_that_was_said_is_heard_in_order(
    two: tuple[Instance, Instance],
) -> None:
    me, you = two
    for round_number in range(20):
        said = [f"car {round_number}.{n}" for n in range(50)]
        for subject in said:
            await me.bus.publish("snapshot", subject)
        you.heard.clear()
        you.clock.advance(1)
        assert await you.bus.fence()
        assert you.heard[-1] == said[-1]


async def test_back_to_back_requests_ask_nothing(two: tuple[Instance, Instance], raw: Any) -> None:
    _, you = two
    before = await pings(raw)
    you.clock.advance(0.999)
    for _ in range(100):
        assert await you.bus.fence()
    assert await pings(raw) == before


async def test_requests_after_a_pause_ask_once_together(two: tuple[Instance, Instance], raw: Any) -> None:
    _, you = two
    before = await pings(raw)
    you.clock.advance(1)
    assert all(await asyncio.gather(*(you.bus.fence() for _ in range(50))))
    assert await pings(raw) == before + 1


async def test_that_a_message_came_proves_nothing_of_the_next(two: tuple[Instance, Instance], raw: Any) -> None:
    me, you = two
    you.clock.advance(600)
    await me.bus.publish("snapshot", "car 1")

    async def is_heard() -> bool:
        return you.heard == ["car 1"]

    await eventually(is_heard)
    before = await pings(raw)
    assert await you.bus.fence()
    assert await pings(raw) == before + 1


class Wire:
    """A channel whose answers the test gives by hand."""

    def __init__(self) -> None:
        self.pings = 0
        self.incoming: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def publish(self, topic: str, message: bytes) -> None:
        raise NotImplementedError

    @asynccontextmanager
    async def subscribe(self, topic: str) -> AsyncIterator["Wire"]:
        yield self

    async def receive(self) -> bytes | None:
        return await self.incoming.get()

    async def ping(self) -> None:
        self.pings += 1


async def test_an_answer_that_lay_unread_through_a_pause_proves_nothing() -> None:
    wire, clock = Wire(), ManualClock()
    bus = Bus(wire, clock, handlers={}, on_gap=lambda: None, patience_s=5.0)
    assert await bus.fence()
    clock.advance(1)
    request = asyncio.create_task(bus.fence())

    async def is_asked(times: int) -> bool:
        return wire.pings == times

    await eventually(lambda: is_asked(1))
    clock.advance(600)
    wire.incoming.put_nowait(None)
    await eventually(lambda: is_asked(2))
    assert not request.done()
    wire.incoming.put_nowait(None)
    assert await request
    await bus.aclose()


async def test_an_answer_that_is_late_loses_nothing_and_proves_what_it_was_asked_to() -> None:
    wire, clock = Wire(), ManualClock()
    heard: list[str] = []
    bus = Bus(wire, clock, handlers={"snapshot": heard.append}, on_gap=lambda: heard.append("GAP"), patience_s=0.02)
    assert await bus.fence()
    clock.advance(1)
    assert not await bus.fence()
    assert bus.is_deaf
    wire.incoming.put_nowait(orjson.dumps(["you", "snapshot", "car"]))
    wire.incoming.put_nowait(None)

    async def is_sure() -> bool:
        return await bus.fence()

    await eventually(is_sure)
    assert (heard, wire.pings, bus.is_deaf) == (["GAP", "car"], 1, False)
    await bus.aclose()


async def test_a_connection_that_stays_silent_is_given_up() -> None:
    wire, clock, gaps = Wire(), ManualClock(), []
    bus = Bus(wire, clock, handlers={}, on_gap=lambda: gaps.append(1), patience_s=0.01, lost_after_s=0.03)
    assert await bus.fence()
    clock.advance(1)
    assert not await bus.fence()

    async def is_made_again() -> bool:
        clock.advance(1)
        return await bus.fence()

    await eventually(is_made_again)
    assert len(gaps) == 2
    await bus.aclose()


async def test_an_answer_that_nobody_asked_for_proves_nothing() -> None:
    wire, clock = Wire(), ManualClock()
    bus = Bus(wire, clock, handlers={}, on_gap=lambda: None, patience_s=5.0)
    assert await bus.fence()
    for _ in range(2):
        wire.incoming.put_nowait(None)
    await asyncio.sleep(0)
    clock.advance(1)
    request = asyncio.create_task(bus.fence())

    async def is_asked() -> bool:
        return wire.pings == 1

    await eventually(is_asked)
    assert not request.done()
    wire.incoming.put_nowait(None)
    assert await request
    await bus.aclose()


async def test_a_connection_that_cannot_even_be_asked_is_made_again_at_once() -> None:
    class Broken(Wire):
        async def ping(self) -> None:
            raise SharedUnavailable

    wire, clock, gaps = Broken(), ManualClock(), []
    bus = Bus(wire, clock, handlers={}, on_gap=lambda: gaps.append(1), patience_s=5.0)
    assert await bus.fence()
    clock.advance(1)
    assert await bus.fence()
    assert len(gaps) == 2
    await bus.aclose()


async def test_a_connection_that_only_its_reader_knows_to_have_ended_is_not_asked() -> None:
    class Ended(Wire):
        async def receive(self) -> bytes | None:
            if await super().receive() == b"end":
                raise SharedUnavailable
            return None

    wire, clock, gaps = Ended(), ManualClock(), []
    bus = Bus(wire, clock, handlers={}, on_gap=lambda: gaps.append(1), patience_s=0.1)
    assert await bus.fence()
    wire.incoming.put_nowait(b"end")
    await asyncio.sleep(0)
    assert await bus.fence()
    assert (len(gaps), wire.pings) == (2, 0)
    await bus.aclose()


async def test_of_what_is_said_at_once_nothing_is_lost(two: tuple[Instance, Instance]) -> None:
    me, you = two
    said = [f"car {number}" for number in range(50)]
    assert all(await asyncio.gather(*(me.bus.publish("snapshot", subject) for subject in said)))
    you.clock.advance(1)
    assert await you.bus.fence()
    assert set(you.heard) == set(said)


async def test_a_warm_fence_stays_on_the_servers_thread_and_a_cold_one_crosses(valkey: Valkey) -> None:
    instance = Instance(valkey.url)
    loop = LoopThread("bus-loop")
    names: list[str] = []

    async def request() -> None:
        await instance.bus.fence()
        names.append(threading.current_thread().name)

    def serve() -> None:
        for _ in range(2):
            loop.run(request())

    await asyncio.to_thread(serve)
    assert names[0] == "bus-loop"
    assert names[1] != "bus-loop"
    await asyncio.to_thread(loop.run, instance.close())
    loop.close()


async def test_without_a_channel_nothing_waits_and_nothing_is_said() -> None:
    bus = Bus(None, ManualClock(), handlers={}, on_gap=lambda: None)
    for work in (bus.fence(), bus.publish("snapshot", "car")):
        with pytest.raises(StopIteration) as done:
            work.send(None)
        assert done.value.value is True
    assert not bus.is_deaf
    await bus.aclose()


async def test_a_connection_that_was_lost_is_made_again_by_the_next_request_which_forgets_what_is_held(
    two: tuple[Instance, Instance], valkey: Valkey
) -> None:
    me, you = two
    valkey.kill()
    valkey.start()
    for instance in two:
        instance.clock.advance(1)
        assert await instance.bus.fence()
        assert instance.heard == ["GAP"]
    await me.bus.publish("snapshot", "car 1")
    you.clock.advance(1)
    assert await you.bus.fence()
    assert you.heard == ["GAP", "car 1"]


async def test_a_connection_that_the_loop_saw_end_is_made_again_even_within_the_quiet_time(
    two: tuple[Instance, Instance], raw: Any
) -> None:
    _, you = two
    await raw.client_kill_filter(_type="pubsub")

    async def has_noticed() -> bool:
        await you.bus.fence()
        return you.heard == ["GAP"]

    await eventually(has_noticed)


async def test_a_dead_store_makes_deaf_and_is_tried_again_after_a_moment(
    two: tuple[Instance, Instance], valkey: Valkey
) -> None:
    _, you = two
    valkey.kill()
    you.clock.advance(1)
    assert not await you.bus.fence()
    assert you.bus.is_deaf
    valkey.start()
    you.clock.advance(0.999)
    assert not await you.bus.fence()
    you.clock.advance(0.001)
    assert await you.bus.fence()
    assert not you.bus.is_deaf
    assert you.heard == ["GAP"]


async def test_while_deaf_a_fence_does_not_even_change_threads(valkey: Valkey) -> None:
    instance = Instance(valkey.url)
    valkey.kill()
    assert not await instance.bus.fence()
    with pytest.raises(StopIteration) as done:
        instance.bus.fence().send(None)
    assert done.value.value is False
    await instance.close()


async def test_a_stopped_store_is_waited_for_no_longer_than_patience_lasts(valkey: Valkey) -> None:
    instance = Instance(valkey.url, patience_s=1.0)
    assert await instance.bus.fence()
    valkey.pause()
    instance.clock.advance(1)
    assert not any(await asyncio.gather(*(instance.bus.fence() for _ in range(10))))
    valkey.resume()
    instance.heard.clear()

    async def hears_again() -> bool:
        instance.clock.advance(1)
        return await instance.bus.fence()

    await eventually(hears_again)
    assert instance.heard == [], "nothing was lost: it was only late"
    await instance.close()


async def test_what_could_not_be_said_is_said_by_the_first_request_that_can(valkey: Valkey) -> None:
    me, you = Instance(valkey.url), Instance(valkey.url)
    await me.bus.fence()
    valkey.kill()
    me.clock.advance(1)
    assert not await me.bus.publish("snapshot", "car 1")
    assert not await me.bus.publish("snapshot", "car 2")
    valkey.start()
    await you.bus.fence()
    me.clock.advance(1)
    assert await me.bus.fence()
    you.clock.advance(1)
    await you.bus.fence()
    assert you.heard == ["GAP", "car 1", "car 2"]
    await me.close()
    await you.close()


async def test_when_too_much_could_not_be_said_the_others_must_forget_everything(valkey: Valkey) -> None:
    me, you = Instance(valkey.url), Instance(valkey.url)
    valkey.kill()
    for number in range(300):
        assert not await me.bus.publish("snapshot", f"car {number}")
    valkey.start()
    await you.bus.fence()
    you.heard.clear()
    me.clock.advance(1)
    assert await me.bus.publish("snapshot", "the last")
    you.clock.advance(1)
    await you.bus.fence()
    assert you.heard[0] == "GAP"
    assert you.heard[-1] == "the last"
    assert len(you.heard) < 300
    await me.close()
    await you.close()


@pytest.mark.parametrize("message", [b"not json", b"[]", b'{"kind": "snapshot"}', b'["you", "broken", "car"]'])
async def test_what_is_not_understood_counts_as_a_gap_and_ends_nothing(
    message: bytes, two: tuple[Instance, Instance], raw: Any
) -> None:
    me, you = two
    await raw.publish(TOPIC, message)
    await me.bus.publish("snapshot", "car")
    you.clock.advance(1)
    assert await you.bus.fence()
    assert you.heard == ["GAP", "car"]


async def test_a_kind_that_only_a_newer_version_knows_is_ignored(two: tuple[Instance, Instance], raw: Any) -> None:
    _, you = two
    await raw.publish(TOPIC, orjson.dumps(["you", "unheard of", "car"]))
    you.clock.advance(1)
    assert await you.bus.fence()
    assert you.heard == []


async def test_a_request_that_gives_up_does_not_end_the_others_wait(two: tuple[Instance, Instance]) -> None:
    _, you = two
    you.clock.advance(1)
    first, second = asyncio.create_task(you.bus.fence()), asyncio.create_task(you.bus.fence())
    await asyncio.sleep(0)
    first.cancel()
    assert await second
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_where_forgetting_fails_the_request_fails_and_the_next_begins_anew(valkey: Valkey) -> None:
    clock, tries = ManualClock(), []

    def forget() -> None:
        tries.append(1)
        if len(tries) == 1:
            raise LookupError("ours")

    shared = RedisShared(valkey.url, clock, namespace="test", timeout_s=5.0)
    bus = Bus(shared, clock, handlers={}, on_gap=forget, patience_s=5.0)
    with pytest.raises(LookupError):
        await bus.fence()
    assert await bus.fence()
    assert len(tries) == 2
    await bus.aclose()
    await shared.aclose()


def test_a_duration_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="positive"):
        Bus(None, ManualClock(), handlers={}, on_gap=lambda: None, hold_off_s=0)


def test_the_buss_own_kind_cannot_be_taken() -> None:
    with pytest.raises(ValueError, match="gap"):
        Bus(None, ManualClock(), handlers={"gap": print}, on_gap=lambda: None)


@pytest.mark.parametrize(("fenced", "finds"), [(True, b"void\n"), (False, b"locked\n")])
async def test_an_instance_that_was_stopped_finds_nothing_that_was_voided_while_it_was(
    fenced: bool, finds: bytes, valkey: Valkey
) -> None:
    """The bare one shows that it is the fence that does it."""
    clock = ManualClock()
    shared = RedisShared(valkey.url, clock, namespace="sleeper", timeout_s=5.0)
    me = Bus(shared, clock, handlers={}, on_gap=lambda: None, patience_s=5.0)
    process = await start_sleeper(valkey.url, fenced=fenced)
    assert process.stdin is not None
    assert process.stdout is not None
    process.send_signal(signal.SIGSTOP)
    assert await me.publish("snapshot", "car")
    process.stdin.write(b"request\n")
    await process.stdin.drain()
    process.send_signal(signal.SIGCONT)
    assert await process.stdout.readline() == finds
    process.stdin.close()
    assert await process.wait() == 0
    await me.aclose()
    await shared.aclose()
