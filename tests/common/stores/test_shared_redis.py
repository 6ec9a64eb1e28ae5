"""The shared store in a real Valkey: what it costs, what it leaves behind, and what its death costs."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from common.clock import ManualClock
from common.loops import LoopThread
from common.stores.memory import MemoryShared
from common.stores.redis import RedisShared
from common.stores.shared import ClaimState, SharedUnavailable, open_shared
from ops.valkey import Valkey, ValkeyError, running_valkey
from tests.support.eventually import eventually

ROOT = Path(__file__).parents[3]
HELD_OFF = "left alone"
BRIEF_S = 1.0
"""Long enough for a server that runs, and short beside how long one may be stopped."""


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    with running_valkey() as server:
        yield server


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def shared(valkey: Valkey, clock: ManualClock) -> AsyncIterator[RedisShared]:
    store = RedisShared(valkey.url, clock, namespace="test", timeout_s=2.0)
    yield store
    await store.aclose()


@pytest.fixture
async def impatient(valkey: Valkey, clock: ManualClock) -> AsyncIterator[RedisShared]:
    store = RedisShared(valkey.url, clock, namespace="test", timeout_s=BRIEF_S)
    yield store
    await store.aclose()


@pytest.fixture
async def raw(valkey: Valkey) -> AsyncIterator[Any]:
    async with Redis.from_url(valkey.url) as client:
        yield client


async def test_everything_that_is_written_ends_by_itself(shared: RedisShared, raw: Any) -> None:
    await shared.put("value", b"1", 60)
    await shared.put("brief", b"1", 0.00001)
    await shared.lease("lease", "me", 60)
    await shared.renew("lease", "me", 60)
    for key in ("read", "failed", "held"):
        await shared.claim(key, "me", 60)
    await shared.renew("held", "me", 60)
    await shared.fulfil("read", "me", b"read", 60)
    await shared.fail("failed", "me", b"note", 60)
    ends_in_ms = {key: await raw.pttl(key) async for key in raw.scan_iter()}
    assert set(ends_in_ms) - {b"test:value:brief"} == {
        b"test:value:value",
        b"test:lease:{lease}",
        b"test:lease:{held}",
        b"test:entry:{read}",
        b"test:failure:{failed}",
    }
    assert all(0 < ms <= 60_000 or ms == -2 for ms in ends_in_ms.values()), ends_in_ms


async def test_every_key_begins_with_the_namespace_so_that_environments_do_not_meet(
    shared: RedisShared, valkey: Valkey, clock: ManualClock
) -> None:
    other = RedisShared(valkey.url, clock, namespace="other", timeout_s=2.0)
    for store in (shared, other):
        assert (await store.claim("a", "me", 60)).state is ClaimState.LEASED
        assert await store.lease("b", "me", 60)
        assert await store.get_many(["c"]) == [None]
        await store.put("c", b"1", 60)
    await other.aclose()


async def calls(raw: Any) -> dict[str, int]:
    """How often each command was called, by clients and by scripts."""
    stats = await raw.info("commandstats")
    return {name.removeprefix("cmdstat_"): numbers["calls"] for name, numbers in stats.items()}


async def test_finding_what_another_read_is_one_command(shared: RedisShared, raw: Any) -> None:
    await shared.claim("a", "me", 60)
    await shared.fulfil("a", "me", b"read", 60)
    before = await calls(raw)
    assert (await shared.claim("a", "you", 60)).state is ClaimState.FOUND
    after = await calls(raw)
    extra = {name: count - before.get(name, 0) for name, count in after.items() if count > before.get(name, 0)}
    # TIME and MGET are called by the script, inside the server.
    assert extra == {"evalsha": 1, "time": 1, "mget": 1, "info": 1}


async def test_a_server_that_has_forgotten_the_scripts_is_given_them_again(shared: RedisShared, raw: Any) -> None:
    await shared.claim("a", "me", 60)
    await raw.script_flush()
    assert await shared.fulfil("a", "me", b"read", 60)
    assert (await shared.claim("a", "me", 60)).state is ClaimState.FOUND


async def test_a_stamp_from_the_future_is_not_believed(shared: RedisShared, raw: Any) -> None:
    now_us = (await shared.claim("a", "me", 60)).now_us
    await raw.set("test:entry:{a}", f"{now_us + 3_600_000_000}read", px=60_000)
    await raw.delete("test:lease:{a}")
    assert (await shared.claim("a", "you", 60)).state is ClaimState.LEASED


async def test_a_dead_server_is_unavailable_and_left_alone_for_a_moment(
    shared: RedisShared, valkey: Valkey, clock: ManualClock
) -> None:
    await shared.put("a", b"1", 60)
    valkey.kill()
    with pytest.raises(SharedUnavailable, match="ConnectionError"):
        await shared.get_many(["a"])
    assert shared.is_failing
    valkey.start()
    clock.advance(0.999)
    with pytest.raises(SharedUnavailable, match=HELD_OFF):
        await shared.get_many(["a"])
    clock.advance(0.001)
    assert await shared.get_many(["a"]) == [None]
    assert not shared.is_failing


async def test_being_left_alone_costs_not_even_a_thread_switch(
    shared: RedisShared, valkey: Valkey, clock: ManualClock
) -> None:
    valkey.kill()
    with pytest.raises(SharedUnavailable):
        await shared.ping()

    # Sent into by hand and without an event loop: it may not suspend.
    def step() -> str:
        try:
            shared.ping().send(None)
        except SharedUnavailable as refused:
            return str(refused)
        return "it waited"

    assert HELD_OFF in await asyncio.to_thread(step)


async def test_a_server_that_is_stopped_costs_one_request_the_timeout_and_the_others_nothing(
    impatient: RedisShared, valkey: Valkey, clock: ManualClock
) -> None:
    await impatient.ping()
    valkey.pause()
    with pytest.raises(SharedUnavailable, match="TimeoutError"):
        await impatient.ping()
    for _ in range(3):
        with pytest.raises(SharedUnavailable, match=HELD_OFF):
            await impatient.ping()
    clock.advance(1)
    outcomes = await asyncio.gather(*(impatient.ping() for _ in range(10)), return_exceptions=True)
    assert sum(HELD_OFF in str(outcome) for outcome in outcomes) == 9
    assert sum("TimeoutError" in str(outcome) for outcome in outcomes) == 1
    valkey.resume()


async def test_an_answer_that_came_too_late_is_not_taken_for_the_next_one(
    impatient: RedisShared, valkey: Valkey, clock: ManualClock
) -> None:
    await impatient.put("a", b"a's", 60)
    await impatient.put("b", b"b's", 60)
    valkey.pause()
    with pytest.raises(SharedUnavailable):
        await impatient.get_many(["a"])
    valkey.resume()
    values: list[bytes | None] = []

    async def is_back() -> bool:
        clock.advance(1)
        try:
            values.extend(await impatient.get_many(["b"]))
        except SharedUnavailable:
            return False
        return True

    await eventually(is_back)
    assert values == [b"b's"]


async def test_a_server_that_came_back_is_used_at_once_on_whatever_connections_there_were(
    shared: RedisShared, valkey: Valkey, clock: ManualClock
) -> None:
    await asyncio.gather(*(shared.ping() for _ in range(10)))
    # This process sleeps meanwhile: its loop has no turn in which to notice.
    valkey.kill()
    valkey.start()
    clock.advance(60)
    for number in range(20):
        await shared.put(f"key {number}", b"x", 60)
    assert not shared.is_failing


async def test_more_requests_than_connections_wait_for_their_turn(valkey: Valkey, clock: ManualClock) -> None:
    store = RedisShared(valkey.url, clock, namespace="test", timeout_s=5.0, max_connections=2)
    claims = await asyncio.gather(*(store.claim(f"key {number % 10}", "me", 60) for number in range(100)))
    assert [claim.state for claim in claims].count(ClaimState.LEASED) == 10
    await store.aclose()


async def test_a_server_that_refuses_us_is_unavailable(valkey: Valkey, clock: ManualClock) -> None:
    store = RedisShared(valkey.url.replace("//", "//:wrong@"), clock, namespace="test", timeout_s=2.0)
    with pytest.raises(SharedUnavailable):
        await store.ping()
    await store.aclose()


async def test_an_operation_that_is_cancelled_does_not_cost_a_connection(
    shared: RedisShared, valkey: Valkey, clock: ManualClock
) -> None:
    store = RedisShared(valkey.url, clock, namespace="test", timeout_s=5.0, max_connections=1)
    await store.ping()
    valkey.pause()
    for _ in range(3):
        task = asyncio.create_task(store.ping())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    valkey.resume()
    await store.ping()
    await store.aclose()


async def test_a_subscriber_hears_what_is_published_and_then_the_answer_to_its_ping(shared: RedisShared) -> None:
    async with shared.subscribe("topic") as subscription:
        await shared.publish("topic", b"one")
        await shared.publish("another", b"not for us")
        await shared.publish("topic", b"two")
        await subscription.ping()
        assert [await subscription.receive() for _ in range(3)] == [b"one", b"two", None]


async def test_a_subscription_ends_with_its_connection_and_does_not_mend_itself(
    shared: RedisShared, valkey: Valkey
) -> None:
    async with shared.subscribe("topic") as subscription:
        valkey.kill()
        with pytest.raises(SharedUnavailable):
            await subscription.receive()
        valkey.start()
        with pytest.raises(SharedUnavailable):
            await subscription.ping()


async def test_a_connection_that_ended_unseen_cannot_be_asked_for_long(shared: RedisShared, valkey: Valkey) -> None:
    async with shared.subscribe("topic") as subscription:
        valkey.kill()

        async def fails() -> bool:
            try:
                await subscription.ping()
            except SharedUnavailable:
                return True
            return False

        await eventually(fails)


async def test_subscribing_to_a_dead_server_fails(shared: RedisShared, valkey: Valkey) -> None:
    valkey.kill()
    with pytest.raises(SharedUnavailable):
        async with shared.subscribe("topic"):
            pass
    with pytest.raises(SharedUnavailable, match=HELD_OFF):
        async with shared.subscribe("topic"):
            pass


def test_an_empty_url_is_memory_and_a_redis_url_connects_to_nothing_yet(clock: ManualClock) -> None:
    memory = open_shared("", clock, namespace="test")
    assert isinstance(memory, MemoryShared)
    assert memory.channel is None
    for url in ("redis://127.0.0.1:1/0", "rediss://user:pass@127.0.0.1:1", "unix:///nowhere.sock"):
        store = open_shared(url, clock, namespace="test")
        assert isinstance(store, RedisShared)
        assert store.channel is store


@pytest.mark.parametrize("url", ["127.0.0.1:6379", "http://secret@host", "redis://", "memory"])
def test_a_url_that_names_no_store_is_refused_and_not_shown(url: str, clock: ManualClock) -> None:
    with pytest.raises(ValueError, match="a shared store is") as refused:
        open_shared(url, clock, namespace="test")
    assert "secret" not in str(refused.value)


def test_the_redis_library_is_loaded_only_where_it_is_used() -> None:
    code = (
        "import sys, common.bus, common.second_level\n"
        "from common.clock import SystemClock\n"
        "from common.stores.shared import open_shared\n"
        "open_shared('', SystemClock(), namespace='test')\n"
        "print('redis' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_store_built_on_one_thread_works_on_the_loop_of_another(valkey: Valkey, clock: ManualClock) -> None:
    store = open_shared(valkey.url, clock, namespace="test")
    loop = LoopThread()
    loop.run(store.put("a", b"1", 60))
    assert loop.run(store.get_many(["a"])) == [b"1"]
    loop.run(store.aclose())
    loop.close()


def test_a_server_that_cannot_start_says_why(valkey: Valkey, tmp_path: Path) -> None:
    second = Valkey(tmp_path, valkey.port)
    try:
        with pytest.raises(ValkeyError, match="Failed listening on port"):
            second.start()
    finally:
        second.kill()
