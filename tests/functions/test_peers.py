"""What instances tell each other of a failing maker: believed while nothing speaks against it, and not for long."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis

from common.breaker import Breakers, CircuitBreaker, State
from common.clock import ManualClock
from common.errors import ApiError, ProviderBlocked, ProviderError, UpstreamError
from common.stores.redis import RedisShared
from functions.peers import Peers
from functions.upstream import BreakerKey
from ops.valkey import Valkey, running_valkey

KEY: BreakerKey = ("mybmw", "rest_of_world", "read")
RECOVERY_S = 60.0


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    with running_valkey() as server:
        yield server


class Instance:
    """One instance's breakers and its word to the others."""

    def __init__(self, valkey: Valkey, clock: ManualClock) -> None:
        self.clock = clock
        self.gaps = 0
        self.breakers: Breakers[BreakerKey] = Breakers(self._breaker)
        self.peers = Peers(
            RedisShared(valkey.url, clock, namespace="test", timeout_s=5.0),
            clock,
            self.breakers,
            handlers={},
            on_gap=self._forget,
        )

    async def call(self, fails_with: type[ApiError] | None = None) -> bool:
        """One request that calls the maker; whether it was let through."""
        await self.peers.fence()
        await self.peers.learn(KEY)
        try:
            permit = self.breakers.get(KEY).acquire()
        except ProviderError:
            return False
        if fails_with is None:
            permit.success()
        else:
            permit.failure(fails_with())
        # What is told is told by tasks that the call has left behind.
        await asyncio.gather(*(task for task in asyncio.all_tasks() if "Peers._tell" in repr(task.get_coro())))
        return True

    async def trip(self) -> None:
        for _ in range(5):
            await self.call(UpstreamError)
        assert self.state is State.OPEN

    @property
    def state(self) -> State:
        return self.breakers.get(KEY).snapshot().state

    def _breaker(self, key: BreakerKey) -> CircuitBreaker:
        return CircuitBreaker(
            5, RECOVERY_S, ProviderError, name="/".join(key), clock=self.clock, on_change=self._changed
        )

    def _changed(self, event: object) -> None:
        self.peers.breaker_changed(event)  # type: ignore[arg-type]  # the breaker's own event

    def _forget(self) -> None:
        self.gaps += 1


@pytest.fixture
async def three(valkey: Valkey) -> AsyncIterator[tuple[Instance, Instance, Instance]]:
    clock = ManualClock()
    instances = Instance(valkey, clock), Instance(valkey, clock), Instance(valkey, clock)
    for instance in instances:
        await instance.peers.fence()
        instance.gaps = 0
    yield instances
    for instance in instances:
        await instance.peers.aclose()


async def test_an_instance_that_is_ill_for_an_hour_closes_the_road_to_none_that_gets_answers(
    three: tuple[Instance, Instance, Instance],
) -> None:
    ill, healthy, _ = three
    answered = 0
    for _ in range(720):
        ill.clock.advance(5)
        await ill.call(UpstreamError)
        answered += await healthy.call()
    assert answered == 720


async def test_one_that_had_nothing_to_ask_meanwhile_loses_a_recovery_once(
    three: tuple[Instance, Instance, Instance],
) -> None:
    ill, idle, _ = three
    await ill.trip()
    refused = 0
    for _ in range(720):
        ill.clock.advance(5)
        await ill.call(UpstreamError)
        refused += not await idle.call()
    assert refused < RECOVERY_S / 5


async def test_a_maker_that_fails_for_all_is_left_alone_by_those_who_only_heard_of_it(
    three: tuple[Instance, Instance, Instance],
) -> None:
    first, second, _ = three
    assert await second.call()
    first.clock.advance(2)
    await first.trip()
    first.clock.advance(2)
    assert not await second.call()


async def test_a_failing_probe_is_told_to_nobody(three: tuple[Instance, Instance, Instance], valkey: Valkey) -> None:
    ill, _, _ = three
    await ill.trip()
    ill.clock.advance(70)
    late = Instance(valkey, ill.clock)
    await late.peers.fence()
    assert await ill.call(UpstreamError)
    assert ill.state is State.OPEN
    ill.clock.advance(2)
    assert await late.call()
    await late.peers.aclose()


async def test_who_finds_the_maker_back_tells_those_who_only_heard_that_he_was_gone(
    three: tuple[Instance, Instance, Instance], valkey: Valkey
) -> None:
    first, second, third = three
    await first.trip()
    first.clock.advance(2)
    assert not await second.call()
    first.clock.advance(55)
    # Told last, this one would wait longest.
    third.breakers.get(KEY).told(0, RECOVERY_S, None)
    first.clock.advance(6)
    assert await second.call()
    assert second.state is State.CLOSED
    first.clock.advance(2)
    assert await third.call()
    async with Redis.from_url(valkey.url) as client:
        assert await client.keys("*opened*") == []
    # The one that has seen it fail goes by what it sees itself.
    await first.peers.fence()
    assert first.state is State.OPEN


async def test_a_hold_is_told_with_what_it_is_and_tried_again_after_a_recovery(
    three: tuple[Instance, Instance, Instance],
) -> None:
    first, second, _ = three
    await first.call(ProviderBlocked)
    first.clock.advance(2)
    assert not await second.call()
    assert second.breakers.get(KEY).snapshot().held_by is ProviderBlocked
    first.clock.advance(RECOVERY_S)
    assert await second.call()


@pytest.mark.parametrize(
    "said", [b"", b"rubbish", b"\xff\xfe", b"a b c d", b"mybmw/rest_of_world/read x y z", b"mybmw/x/spaceship 1 2 -"]
)
async def test_what_is_said_of_a_circuit_and_cannot_be_read_was_not_said(
    said: bytes, three: tuple[Instance, Instance, Instance], valkey: Valkey
) -> None:
    instance = three[0]
    async with Redis.from_url(valkey.url) as client:
        await client.set("test:value:opened/mybmw/rest_of_world/read", said)
        for kind in ("opened", "closed"):
            word = said.decode(errors="replace").replace('"', "")
            await client.publish("test:topic:bus", f'["somebody", "{kind}", "{word}"]')
    instance.clock.advance(2)
    assert await instance.call()
    assert instance.gaps == 0
