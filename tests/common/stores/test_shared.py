"""What holds for every shared store."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from common.clock import ManualClock, SystemClock
from common.loops import LoopThread
from common.stores.memory import MemoryShared
from common.stores.redis import RedisShared
from common.stores.shared import ClaimState, Shared, SharedUnavailable
from ops.valkey import Valkey, running_valkey
from tests.support.eventually import eventually


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    with running_valkey() as server:
        yield server


@pytest.fixture(params=["memory", "valkey"])
async def shared(request: pytest.FixtureRequest) -> AsyncIterator[Shared]:
    store: Shared = MemoryShared(SystemClock())
    if request.param == "valkey":
        url = request.getfixturevalue("valkey").url
        store = RedisShared(url, SystemClock(), namespace=request.node.name, timeout_s=5.0)
    yield store
    await store.aclose()


async def test_values_come_back_in_the_order_in_which_they_were_asked_for(shared: Shared) -> None:
    await shared.put("a", b"1", 60)
    await shared.put("b", b"2", 60)
    assert await shared.get_many(["b", "none", "a"]) == [b"2", None, b"1"]


async def test_a_value_is_replaced_and_deleted(shared: Shared) -> None:
    await shared.put("a", b"1", 60)
    await shared.put("a", b"2", 60)
    assert await shared.get_many(["a"]) == [b"2"]
    await shared.delete(["a", "none"])
    assert await shared.get_many(["a"]) == [None]


async def test_asking_for_nothing_gives_nothing(shared: Shared) -> None:
    assert await shared.get_many([]) == []
    await shared.delete([])
    await shared.void([])


@pytest.mark.parametrize("data", [b"", b"\0\r\n$5\r\n\xff", b"x" * 200_000])
async def test_any_bytes_survive(shared: Shared, data: bytes) -> None:
    await shared.put("a", data, 60)
    assert await shared.get_many(["a"]) == [data]
    await shared.claim("a", "me", 60)
    assert await shared.fulfil("a", "me", data, 60)
    assert (await shared.claim("a", "you", 60)).data == data


async def test_a_value_ends_by_itself(shared: Shared) -> None:
    await shared.put("a", b"1", 0.02)

    async def is_gone() -> bool:
        return await shared.get_many(["a"]) == [None]

    await eventually(is_gone)


async def test_a_lease_is_one_owners_alone_and_not_even_taken_twice_by_him(shared: Shared) -> None:
    assert await shared.lease("a", "me", 60)
    assert not await shared.lease("a", "you", 60)
    assert not await shared.lease("a", "me", 60)


async def test_only_its_owner_releases_a_lease(shared: Shared) -> None:
    await shared.lease("a", "me", 60)
    await shared.release("a", "you")
    assert not await shared.lease("a", "you", 60)
    await shared.release("a", "me")
    assert await shared.lease("a", "you", 60)


async def test_only_its_owner_renews_a_lease(shared: Shared) -> None:
    assert not await shared.renew("a", "me", 60)
    await shared.lease("a", "me", 5)
    assert not await shared.renew("a", "you", 60)
    assert await shared.renew("a", "me", 60)


async def test_a_lease_that_is_not_renewed_ends_and_is_another_owners_to_take(shared: Shared) -> None:
    await shared.lease("a", "me", 0.02)

    async def is_taken() -> bool:
        return await shared.lease("a", "you", 60)

    await eventually(is_taken)
    assert not await shared.renew("a", "me", 60)


async def test_the_first_claim_takes_the_lease_and_the_others_find_it_held(shared: Shared) -> None:
    states = [(await shared.claim("a", owner, 60)).state for owner in ("me", "you", "me")]
    assert states == [ClaimState.LEASED, ClaimState.HELD, ClaimState.HELD]


async def test_of_many_claims_at_once_exactly_one_takes_the_lease(shared: Shared) -> None:
    claims = await asyncio.gather(*(shared.claim("a", f"owner {n}", 60) for n in range(30)))
    assert [claim.state for claim in claims].count(ClaimState.LEASED) == 1


async def test_what_the_owner_read_is_found_with_the_moment_its_lease_was_taken(shared: Shared) -> None:
    leased = await shared.claim("a", "me", 60)
    assert await shared.fulfil("a", "me", b"read", 60)
    found = await shared.claim("a", "you", 60, max_age_s=60)
    assert (found.state, found.data, found.read_at_us) == (ClaimState.FOUND, b"read", leased.now_us)
    assert found.age_s == (found.now_us - leased.now_us) / 1e6 >= 0


async def test_what_was_read_too_long_ago_is_not_found_and_may_be_read_again(shared: Shared) -> None:
    await shared.claim("a", "me", 60)
    await shared.fulfil("a", "me", b"read", 60)
    assert (await shared.claim("a", "you", 60, max_age_s=0)).state is ClaimState.LEASED
    assert (await shared.claim("a", "he", 60, max_age_s=0)).state is ClaimState.HELD
    assert (await shared.claim("a", "she", 60, max_age_s=60)).data == b"read"


async def test_what_was_not_read_after_a_moment_is_not_found(shared: Shared) -> None:
    leased = await shared.claim("a", "me", 60)
    await shared.fulfil("a", "me", b"read", 60)
    before, then = leased.now_us - 1, leased.now_us
    assert (await shared.claim("a", "you", 60, newer_than_us=before)).state is ClaimState.FOUND
    assert (await shared.claim("a", "you", 60, newer_than_us=then)).state is ClaimState.LEASED


async def test_without_the_lease_nothing_is_stored(shared: Shared) -> None:
    assert not await shared.fulfil("a", "me", b"never leased", 60)
    await shared.claim("a", "you", 60)
    assert not await shared.fulfil("a", "me", b"another's lease", 60)
    assert not await shared.fail("a", "me", b"another's lease", 60)
    assert (await shared.claim("a", "me", 60)).state is ClaimState.HELD


async def test_whoever_lost_his_lease_by_time_stores_nothing_although_he_had_it(shared: Shared) -> None:
    await shared.claim("a", "slow", 0.02)

    async def is_taken() -> bool:
        return (await shared.claim("a", "quick", 60)).state is ClaimState.LEASED

    await eventually(is_taken)
    assert not await shared.fulfil("a", "slow", b"old", 60)
    assert await shared.fulfil("a", "quick", b"new", 60)
    assert not await shared.fulfil("a", "slow", b"old", 60)
    assert (await shared.claim("a", "you", 60)).data == b"new"


async def test_what_is_void_is_gone_and_what_was_being_read_is_not_stored(shared: Shared) -> None:
    await shared.claim("a", "first", 60)
    await shared.fulfil("a", "first", b"old", 60)
    await shared.claim("a", "second", 60, max_age_s=0)
    await shared.void(["a", "none"])
    assert not await shared.fulfil("a", "second", b"old as well", 60)
    assert (await shared.claim("a", "third", 60)).state is ClaimState.LEASED
    assert not await shared.fulfil("a", "second", b"old as well", 60)
    assert await shared.fulfil("a", "third", b"new", 60)


async def test_a_failure_is_found_by_those_who_would_have_had_that_read(shared: Shared) -> None:
    await shared.claim("a", "me", 60)
    assert await shared.fail("a", "me", b"note", 60)
    found = await shared.claim("a", "you", 60, max_age_s=60)
    assert (found.state, found.data) == (ClaimState.FAILED, b"note")
    assert (await shared.claim("a", "you", 60, max_age_s=0)).state is ClaimState.LEASED


async def test_a_failure_is_forgotten_by_the_next_success_and_by_invalidation(shared: Shared) -> None:
    await shared.claim("a", "me", 60)
    await shared.fail("a", "me", b"note", 60)
    await shared.claim("a", "you", 60, max_age_s=0)
    await shared.fulfil("a", "you", b"read", 60)
    await shared.claim("a", "me", 60, max_age_s=0)
    await shared.fail("a", "me", b"note", 60)
    assert (await shared.claim("a", "you", 60)).data == b"read"
    await shared.void(["a"])
    assert (await shared.claim("a", "you", 60)).state is ClaimState.LEASED


async def test_what_was_read_ends_by_itself(shared: Shared) -> None:
    await shared.claim("a", "me", 60)
    await shared.fulfil("a", "me", b"read", 0.02)

    async def is_gone() -> bool:
        return (await shared.claim("a", "you", 60)).state is ClaimState.LEASED

    await eventually(is_gone)


async def test_a_claims_lease_is_renewed_and_released_as_any_lease(shared: Shared) -> None:
    leased = await shared.claim("a", "me", 5)
    assert await shared.renew("a", "me", 60)
    await shared.fulfil("a", "me", b"read", 60)
    assert (await shared.claim("a", "you", 60)).read_at_us == leased.now_us
    await shared.claim("b", "me", 60)
    await shared.release("b", "me")
    assert (await shared.claim("b", "you", 60)).state is ClaimState.LEASED


async def test_a_value_a_lease_and_a_claim_may_have_one_key(shared: Shared) -> None:
    await shared.put("a", b"value", 60)
    await shared.claim("a", "me", 60)
    await shared.fulfil("a", "me", b"read", 60)
    assert await shared.lease("a", "me", 60)
    await shared.void(["a"])
    assert await shared.get_many(["a"]) == [b"value"]


async def test_a_store_in_use_answers_a_ping_and_is_not_failing(shared: Shared) -> None:
    await shared.ping()
    assert not shared.is_failing


async def test_a_closed_store_is_unavailable(shared: Shared) -> None:
    await shared.put("a", b"1", 60)
    await shared.aclose()
    for operation in (shared.ping(), shared.get_many(["a"]), shared.put("a", b"1", 60), shared.claim("a", "me", 60)):
        with pytest.raises(SharedUnavailable):
            await operation


def test_a_store_serves_the_threads_of_a_server(valkey: Valkey) -> None:
    loop = LoopThread()
    store = RedisShared(valkey.url, SystemClock(), namespace="threads", timeout_s=5.0)
    states: list[ClaimState] = []

    def serve(name: str) -> None:
        states.append(loop.run(store.claim("a", name, 60)).state)

    threads = [threading.Thread(target=serve, args=[f"thread {n}"]) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    loop.run(store.aclose())
    loop.close()
    assert sorted(state.value for state in states) == ["held"] * 7 + ["leased"]


async def test_memory_forgets_what_has_ended_even_where_its_key_never_comes_again() -> None:
    clock = ManualClock()
    store = MemoryShared(clock)
    for number in range(20_000):
        await store.put(f"key {number}", b"x", 60)
        clock.advance(1)
    assert len(store) < 1_100
    assert await store.get_many(["key 19999"]) == [b"x"]


async def test_memory_keeps_its_times_by_the_clock_that_never_goes_back() -> None:
    clock = ManualClock()
    store = MemoryShared(clock)
    await store.claim("a", "me", 60)
    await store.fulfil("a", "me", b"read", 60)
    clock.step_wall(3_600)
    assert (await store.claim("a", "you", 60, max_age_s=1)).age_s == 0
    clock.advance(1)
    assert (await store.claim("a", "you", 60, max_age_s=1)).state is ClaimState.LEASED
