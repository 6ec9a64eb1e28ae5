"""Several real processes want one value, and the one that reads it dies, sleeps, or loses the store."""

import signal
from collections.abc import Iterator

import pytest

from common.clock import SystemClock
from common.stores.redis import RedisShared
from ops.valkey import Valkey, running_valkey
from tests.support.cache_racers import KEY, NAMESPACE, heir, race

LONG_S = 30.0
SHORT_S = 3.0


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    with running_valkey() as server:
        yield server


async def stored(valkey: Valkey) -> bytes:
    """What the next instance would find."""
    shared = RedisShared(valkey.url, SystemClock(), namespace=NAMESPACE, timeout_s=5.0)
    claim = await shared.claim(KEY, "me", 60)
    await shared.aclose()
    return claim.data


async def test_one_reads_and_the_others_get_what_it_read(valkey: Valkey) -> None:
    reader, waiting = await race(valkey.url, 4, LONG_S)
    await reader.send("42 km")
    assert await reader.finish() == "loaded 42 km"
    assert [await racer.finish() for racer in waiting] == ["waited 42 km"] * 3


async def test_a_reader_that_is_killed_is_followed_by_exactly_one_other(valkey: Valkey) -> None:
    reader, waiting = await race(valkey.url, 4, SHORT_S)
    reader.process.send_signal(signal.SIGKILL)
    await reader.finish()
    second, still_waiting = await heir(waiting)
    await second.send("42 km")
    assert await second.finish() == "loaded 42 km"
    assert [await racer.finish() for racer in still_waiting] == ["waited 42 km"] * 2


async def test_a_reader_that_slept_through_its_lease_does_not_replace_what_was_read_since(valkey: Valkey) -> None:
    reader, waiting = await race(valkey.url, 2, SHORT_S)
    reader.process.send_signal(signal.SIGSTOP)
    second, _ = await heir(waiting)
    await second.send("new")
    assert await second.finish() == "loaded new"
    reader.process.send_signal(signal.SIGCONT)
    await reader.send("old")
    assert await reader.finish() == "loaded old"
    assert await stored(valkey) == b"new"


async def test_when_the_store_dies_each_reads_for_itself_and_none_fails(valkey: Valkey) -> None:
    reader, waiting = await race(valkey.url, 3, LONG_S)
    valkey.kill()
    for racer in waiting:
        assert await racer.says() == "loading"
        await racer.send("42 km")
        assert await racer.finish() == "alone 42 km"
    await reader.send("41 km")
    assert await reader.finish() == "loaded 41 km"


async def test_when_the_store_is_stopped_each_reads_for_itself_and_none_fails(valkey: Valkey) -> None:
    reader, waiting = await race(valkey.url, 3, LONG_S, timeout_s=2.0)
    valkey.pause()
    for racer in waiting:
        assert await racer.says() == "loading"
        await racer.send("42 km")
        assert await racer.finish() == "alone 42 km"
    await reader.send("41 km")
    assert await reader.finish() == "loaded 41 km"
