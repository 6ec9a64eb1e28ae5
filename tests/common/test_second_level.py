"""The second level: who reads, who waits, what is told of a failure, and that nothing old comes back."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from common.clock import ManualClock
from common.errors import (
    AuthenticationFailed,
    QuotaLimitExceeded,
    UpstreamError,
    UpstreamTimeout,
    VehicleNotFound,
)
from common.failure_notes import FailureNoteInvalid, read_note, write_note
from common.loops import LoopThread
from common.second_level import Fetched, SharedCache, Source
from common.stores.memory import MemoryShared
from common.stores.redis import RedisShared
from common.stores.shared import Claim, ClaimState, Shared, SharedUnavailable
from ops.valkey import Valkey, running_valkey
from tests.support.eventually import eventually

KEY = "car"
LEASE_TTL_S = 6.0
PATIENCE_S = 30.0


class Pauses:
    """A sleep that ends when the test says so."""

    def __init__(self) -> None:
        self.asked_s: list[float] = []
        self._sleeping: list[asyncio.Future[None]] = []

    async def sleep(self, seconds: float) -> None:
        pause: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.asked_s.append(seconds)
        self._sleeping.append(pause)
        await pause

    @property
    def sleeping(self) -> int:
        """How many sleep."""
        return sum(not pause.done() for pause in self._sleeping)

    async def end(self) -> None:
        """Everybody who sleeps wakes, and comes as far as he can."""
        sleeping, self._sleeping = self._sleeping, []
        for pause in sleeping:
            if not pause.done():
                pause.set_result(None)
        await settle()


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(20):
        await asyncio.sleep(0)


class Instance:
    """One instance in front of a maker whose answers the test gives by hand."""

    def __init__(self, shared: Shared, clock: ManualClock, **settings: Any) -> None:
        self.clock = clock
        self.pauses = Pauses()
        self.loads: list[asyncio.Future[str]] = []
        defaults: dict[str, Any] = {"lease_ttl_s": LEASE_TTL_S, "patience_s": PATIENCE_S, "uniform": lambda _a, _b: 1.0}
        self.cache = SharedCache(shared, clock, sleep=self.pauses.sleep, **(defaults | settings))

    async def load(self) -> str:
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.loads.append(answer)
        return await answer

    async def ask(
        self,
        max_age_s: float | None = 60,
        *,
        encode: Callable[[str], Awaitable[bytes]] | None = None,
        decode: Callable[[bytes], Awaitable[str]] | None = None,
        ttl_s: float = 600,
    ) -> asyncio.Task[Fetched[str]]:
        """A fetch, begun."""
        task = asyncio.create_task(
            self.cache.fetch(
                KEY,
                self.load,
                max_age_s=max_age_s,
                encode=encode or to_bytes,
                decode=decode or to_text,
                ttl_s=ttl_s,
            )
        )
        await settle()
        return task

    async def answer(self, answer: str | Exception) -> None:
        """What the maker says to the load in progress."""
        load = self.loads[-1]
        if isinstance(answer, str):
            load.set_result(answer)
        else:
            load.set_exception(answer)
        await settle()

    async def read(self, answer: str, **how: Any) -> Fetched[str]:
        """A fetch that this instance must read for, from question to answer."""
        task = await self.ask(**how)
        await self.answer(answer)
        return await task


async def to_bytes(value: str) -> bytes:
    return value.encode()


async def to_text(data: bytes) -> str:
    return data.decode()


async def fail_to_encode(value: str) -> bytes:
    raise LookupError("no key to seal with")


async def fail_to_decode(data: bytes) -> str:
    raise LookupError("sealed with another key")


class Failing:
    """A shared store that dies in the middle: each operation that is named fails."""

    def __init__(self, inner: Shared) -> None:
        self._inner = inner
        self.failing: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        if name in self.failing:

            async def fail(*_args: object, **_kwargs: object) -> None:
                raise SharedUnavailable

            return fail
        return getattr(self._inner, name)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(clock: ManualClock) -> Failing:
    return Failing(MemoryShared(clock))


@pytest.fixture
def me(store: Failing, clock: ManualClock) -> Instance:
    return Instance(store, clock)


@pytest.fixture
def you(store: Failing, clock: ManualClock) -> Instance:
    return Instance(store, clock)


async def test_what_one_instance_read_serves_the_other_with_its_age(
    me: Instance, you: Instance, clock: ManualClock
) -> None:
    first = await me.read("42 km")
    assert first == Fetched("42 km", 1_000, Source.LOADED)
    clock.advance(59)
    assert await (await you.ask()) == Fetched("42 km", 1_000, Source.SHARED)
    assert you.loads == []


async def test_a_value_counts_as_read_when_its_load_began(me: Instance, you: Instance, clock: ManualClock) -> None:
    task = await me.ask()
    clock.advance(LEASE_TTL_S - 1)
    await me.answer("42 km")
    assert (await task).read_at == 1_000
    assert (await (await you.ask())).read_at == 1_000


async def test_what_is_as_old_as_allowed_is_read_anew(me: Instance, you: Instance, clock: ManualClock) -> None:
    await me.read("42 km")
    clock.advance(60)
    assert (await you.read("43 km")).source is Source.LOADED
    assert (await (await me.ask())).value == "43 km"


async def test_without_a_limit_whatever_is_stored_will_do_until_it_ends(
    me: Instance, you: Instance, clock: ManualClock
) -> None:
    await me.read("42 km", ttl_s=600)
    clock.advance(599)
    assert (await (await you.ask(None))).value == "42 km"
    clock.advance(1)
    assert (await you.read("43 km", max_age_s=None)).source is Source.LOADED


async def test_while_one_reads_the_others_wait_and_get_what_it_reads(me: Instance, you: Instance) -> None:
    first, second = await me.ask(), await you.ask()
    await you.pauses.end()
    await me.answer("42 km")
    await you.pauses.end()
    assert (await first).source is Source.LOADED
    assert await second == Fetched("42 km", 1_000, Source.WAITED)
    assert (len(me.loads), len(you.loads)) == (1, 0)


async def test_those_who_wait_look_less_and_less_often(me: Instance, you: Instance) -> None:
    await me.ask()
    task = await you.ask()
    for _ in range(9):
        await you.pauses.end()
    looks = you.pauses.asked_s
    assert looks[0] == 0.02
    assert looks == sorted(looks)
    assert looks[-1] == looks[-2] == 0.25
    task.cancel()


async def test_who_wants_it_read_after_his_call_does_not_share_a_read_that_had_begun(
    me: Instance, you: Instance, clock: ManualClock
) -> None:
    early = await me.ask()
    clock.advance(1)
    late = await you.ask(0)
    await me.answer("before the call")
    clock.advance(1)
    await you.pauses.end()
    await you.answer("after the call")
    assert (await early).value == "before the call"
    assert (await late) == Fetched("after the call", 1_002, Source.LOADED)


async def test_who_wants_it_read_after_his_call_shares_a_read_that_began_while_he_waited(
    store: Failing, me: Instance, you: Instance, clock: ManualClock
) -> None:
    third = Instance(store, clock)
    await me.ask()
    clock.advance(1)
    second, last = await you.ask(0), await third.ask(0)
    clock.advance(1)
    await me.answer("before the calls")
    await you.pauses.end()
    await third.pauses.end()
    await you.answer("after the calls")
    await third.pauses.end()
    assert (await second).source is Source.LOADED
    assert await last == Fetched("after the calls", 1_002, Source.WAITED)


async def test_a_reader_keeps_its_lease_for_as_long_as_it_reads(
    me: Instance, you: Instance, clock: ManualClock
) -> None:
    task = await me.ask()
    for _ in range(10):
        clock.advance(LEASE_TTL_S / 3)
        await me.pauses.end()
    waiting = await you.ask()
    assert you.loads == []
    await me.answer("42 km")
    await you.pauses.end()
    assert (await task).value == (await waiting).value == "42 km"


@pytest.mark.parametrize("answer", ["42 km", UpstreamError()])
async def test_a_reader_that_has_done_renews_no_more(answer: str | Exception, me: Instance) -> None:
    task = await me.ask()
    assert me.pauses.sleeping == 1
    await me.answer(answer)
    await asyncio.wait({task})
    await settle()
    assert me.pauses.sleeping == 0
    assert (task.exception() is None) == (answer == "42 km")


async def test_a_reader_that_does_not_renew_is_followed_by_another_and_stores_nothing(
    me: Instance, you: Instance, clock: ManualClock
) -> None:
    lost = await me.ask()
    clock.advance(LEASE_TTL_S)
    assert (await you.read("new")).source is Source.LOADED
    await me.answer("old")
    assert (await lost).value == "old"
    assert (await (await me.ask())).value == "new"


async def test_a_read_that_hangs_does_not_keep_its_lease_for_ever(
    me: Instance, you: Instance, clock: ManualClock
) -> None:
    hanging = await me.ask()
    for _ in range(20):
        clock.advance(LEASE_TTL_S / 3)
        await me.pauses.end()
    assert (await you.read("42 km")).source is Source.LOADED
    hanging.cancel()


async def test_who_has_waited_long_enough_gives_up(me: Instance, you: Instance, clock: ManualClock) -> None:
    await me.ask()
    task = await you.ask()
    for _ in range(15):
        assert not task.done()
        clock.advance(2)
        await me.pauses.end()
        await you.pauses.end()
    with pytest.raises(UpstreamTimeout):
        await task
    assert you.loads == []


async def test_a_failure_is_theirs_who_waited_and_theirs_who_come_soon_after(
    me: Instance, you: Instance, clock: ManualClock
) -> None:
    first, second = await me.ask(), await you.ask()
    await me.answer(QuotaLimitExceeded(retry_after_s=90))
    await you.pauses.end()
    third = await you.ask()
    for task in (first, second, third):
        with pytest.raises(QuotaLimitExceeded) as failed:
            await task
        assert failed.value.retry_after_s == 90
    assert you.loads == []
    clock.advance(1)
    assert (await you.read("42 km")).source is Source.LOADED


async def test_a_failure_of_a_read_that_had_begun_is_not_theirs_who_want_it_read_after_their_call(
    me: Instance, you: Instance, clock: ManualClock
) -> None:
    first = await me.ask()
    clock.advance(1)
    second = await you.ask(0)
    await me.answer(UpstreamError())
    await you.pauses.end()
    await you.answer("42 km")
    assert (await second).value == "42 km"
    with pytest.raises(UpstreamError):
        await first


@pytest.mark.parametrize("failure", [AuthenticationFailed(), LookupError("a defect"), VehicleNotFound()])
async def test_after_a_failure_that_may_be_one_instances_own_the_next_reads(
    failure: Exception, me: Instance, you: Instance
) -> None:
    first, second = await me.ask(), await you.ask()
    await me.answer(failure)
    await you.pauses.end()
    assert len(you.loads) == 1
    await you.answer("42 km")
    assert (await second).value == "42 km"
    with pytest.raises(type(failure)):
        await first


async def test_what_is_not_there_any_more_is_forgotten_everywhere(
    me: Instance, you: Instance, clock: ManualClock
) -> None:
    await me.read("42 km")
    clock.advance(1)
    gone = await me.ask(0)
    await me.answer(VehicleNotFound())
    with pytest.raises(VehicleNotFound):
        await gone
    assert (await you.read("43 km")).source is Source.LOADED


async def test_without_a_time_for_failures_none_is_shared(store: Failing, clock: ManualClock, you: Instance) -> None:
    me = Instance(store, clock, failure_ttl_s=0)
    first, second = await me.ask(), await you.ask()
    await me.answer(UpstreamError())
    await you.pauses.end()
    await you.answer("42 km")
    assert (await second).value == "42 km"
    with pytest.raises(UpstreamError):
        await first


async def test_a_reader_that_is_cancelled_leaves_the_reading_to_the_next(me: Instance, you: Instance) -> None:
    first, second = await me.ask(), await you.ask()
    first.cancel()
    await settle()
    await you.pauses.end()
    await you.answer("42 km")
    assert (await second).value == "42 km"
    assert me.pauses.asked_s == [LEASE_TTL_S / 3]


async def test_one_who_waits_and_is_cancelled_takes_nothing_from_the_reader(me: Instance, you: Instance) -> None:
    first, second = await me.ask(), await you.ask()
    second.cancel()
    await settle()
    await me.answer("42 km")
    assert (await first).value == "42 km"
    assert (await (await you.ask())).value == "42 km"


async def test_what_is_invalidated_is_read_again(me: Instance, you: Instance) -> None:
    await me.read("locked")
    assert await you.cache.invalidate([KEY])
    assert (await me.read("unlocked")).source is Source.LOADED


async def test_what_was_being_read_when_it_was_invalidated_is_not_stored(me: Instance, you: Instance) -> None:
    old = await me.ask()
    await you.cache.invalidate([KEY])
    new = await you.ask()
    assert len(you.loads) == 1
    await you.answer("unlocked")
    await me.answer("locked")
    assert [(await task).value for task in (old, new)] == ["locked", "unlocked"]
    assert (await (await me.ask())).value == "unlocked"


async def test_what_cannot_be_decoded_is_read_anew_and_replaced(me: Instance, you: Instance) -> None:
    await me.read("42 km")
    me.clock.advance(1)
    assert (await you.read("43 km", decode=fail_to_decode)).source is Source.LOADED
    assert (await (await me.ask())).value == "43 km"


async def test_what_cannot_be_encoded_is_given_to_whoever_asked_and_left_to_the_next_to_read(
    me: Instance, you: Instance
) -> None:
    assert (await me.read("42 km", encode=fail_to_encode)).value == "42 km"
    assert (await you.read("43 km")).source is Source.LOADED


async def test_a_note_that_cannot_be_read_counts_as_no_failure(store: Failing, you: Instance) -> None:
    await store.claim(KEY, "another version", 60)
    await store.fail(KEY, "another version", b"{}", 60)
    you.clock.advance(1)
    assert (await you.read("42 km")).source is Source.LOADED


async def test_without_the_store_each_instance_reads_for_itself(store: Failing, me: Instance, you: Instance) -> None:
    store.failing = {"claim", "release"}
    tasks = [await me.ask(), await you.ask()]
    for instance in (me, you):
        await instance.answer("42 km")
    assert [await task for task in tasks] == [Fetched("42 km", 1_000, Source.ALONE)] * 2


class LosingReplies(Failing):
    """A store that does what it is asked, whose reply does not arrive."""

    def __getattr__(self, name: str) -> Any:
        if name in self.failing:

            async def lose(*args: Any, **kwargs: Any) -> None:
                await getattr(self._inner, name)(*args, **kwargs)
                raise SharedUnavailable

            return lose
        return getattr(self._inner, name)


@pytest.mark.parametrize("answer", ["42 km", UpstreamError()])
async def test_a_claim_whose_reply_was_lost_holds_nobody_up_when_its_read_is_done(
    answer: str | Exception, clock: ManualClock
) -> None:
    store = LosingReplies(MemoryShared(clock))
    me, you = Instance(store, clock), Instance(store, clock)
    store.failing = {"claim"}
    task = await me.ask()
    store.failing = set()
    waiting = await you.ask()
    await me.answer(answer)
    await asyncio.wait({task})
    await you.pauses.end()
    assert waiting.done()
    assert you.loads == []
    await asyncio.gather(task, waiting, return_exceptions=True)


async def test_what_is_being_read_when_it_cannot_be_invalidated_is_not_stored_later(
    store: Failing, me: Instance, you: Instance
) -> None:
    task = await me.ask()
    store.failing = {"void"}
    assert not await me.cache.invalidate([KEY])
    store.failing = set()
    await me.answer("locked")
    assert (await task).value == "locked"
    assert (await you.read("unlocked")).value == "unlocked"


async def test_a_store_that_dies_while_one_waits_leaves_him_to_read_for_himself(
    store: Failing, me: Instance, you: Instance
) -> None:
    await me.ask()
    task = await you.ask()
    store.failing = {"claim"}
    await you.pauses.end()
    await you.answer("42 km")
    assert (await task).source is Source.ALONE


@pytest.mark.parametrize("failing", ["fulfil", "renew"])
async def test_a_store_that_dies_while_one_reads_costs_him_nothing(failing: str, store: Failing, me: Instance) -> None:
    task = await me.ask()
    store.failing = {failing}
    await me.pauses.end()
    await me.answer("42 km")
    assert (await task).value == "42 km"


async def test_a_renewal_that_fails_is_tried_again(
    store: Failing, me: Instance, you: Instance, clock: ManualClock
) -> None:
    task = await me.ask()
    store.failing = {"renew"}
    clock.advance(LEASE_TTL_S / 3)
    await me.pauses.end()
    store.failing = set()
    for _ in range(5):
        clock.advance(LEASE_TTL_S / 3)
        await me.pauses.end()
    await you.ask()
    assert you.loads == []
    task.cancel()


async def test_a_failure_of_the_maker_while_the_store_is_dead_is_the_makers(store: Failing, me: Instance) -> None:
    task = await me.ask()
    store.failing = {"fail"}
    await me.answer(UpstreamError())
    with pytest.raises(UpstreamError):
        await task


async def test_a_read_is_never_done_twice_because_its_own_failure_looks_like_the_stores(me: Instance) -> None:
    task = await me.ask()
    await me.answer(SharedUnavailable("the maker's quota is kept there as well"))
    with pytest.raises(SharedUnavailable):
        await task
    assert len(me.loads) == 1


async def test_what_could_not_be_invalidated_is_before_this_instance_believes_the_store_again(
    store: Failing, me: Instance, you: Instance
) -> None:
    await me.read("locked")
    store.failing = {"void", "claim"}
    assert not await me.cache.invalidate([KEY])
    store.failing = set()
    assert (await me.read("unlocked")).source is Source.LOADED
    assert (await (await you.ask())).value == "unlocked"


async def test_what_is_invalidated_once_more_while_that_is_made_up_for_is_still_owed(clock: ManualClock) -> None:
    gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    voids: list[list[str]] = []

    class Slow(MemoryShared):
        async def void(self, keys: Any) -> None:
            voids.append(list(keys))
            if len(voids) == 2:
                raise SharedUnavailable
            await gate

    cache = SharedCache(Slow(clock), clock)
    first = asyncio.create_task(cache.invalidate(["a"]))
    await settle()
    assert not await cache.invalidate(["a"])
    gate.set_result(None)
    assert await first
    assert await cache.invalidate(["b"])
    assert voids == [["a"], ["a"], ["a", "b"]]


async def test_only_so_many_debts_are_remembered(store: Failing, me: Instance) -> None:
    voided: list[int] = []

    class Counting(MemoryShared):
        async def void(self, keys: Any) -> None:
            voided.append(len(keys))
            raise SharedUnavailable

    cache = SharedCache(Counting(me.clock), me.clock)
    for number in range(3):
        await cache.invalidate([f"{number}.{n}" for n in range(2_000)])
    assert voided == [2_000, 4_000, 4_096]


def test_a_fetch_begun_on_a_servers_thread_goes_on_on_the_loop(clock: ManualClock) -> None:
    async def load() -> str:
        await asyncio.sleep(0)
        return "42 km"

    loop = LoopThread()
    cache = SharedCache(MemoryShared(clock), clock)
    fetched = loop.run(cache.fetch(KEY, load, max_age_s=1, encode=to_bytes, decode=to_text, ttl_s=60))
    assert loop.run(cache.invalidate([KEY]))
    loop.close()
    assert fetched.value == "42 km"


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    with running_valkey() as server:
        yield server


@pytest.fixture
async def stores(valkey: Valkey, clock: ManualClock) -> AsyncIterator[list[RedisShared]]:
    opened = [RedisShared(valkey.url, clock, namespace="test", timeout_s=5.0) for _ in range(5)]
    yield opened
    for shared in opened:
        await shared.aclose()


async def test_instances_whose_clocks_are_hours_apart_agree_on_age_and_on_freshness(
    stores: list[RedisShared],
) -> None:
    early, late = ManualClock(), ManualClock()
    late.advance(7_200)
    me, you = Instance(stores[0], early), Instance(stores[1], late)

    async def is_loading(instance: Instance) -> bool:
        return len(instance.loads) == 1

    task = await me.ask(1)
    await eventually(lambda: is_loading(me))
    await me.answer("42 km")
    await task
    found = await (await you.ask(60))
    assert found.source is Source.SHARED
    assert late.seconds - 60 < found.read_at < late.seconds
    again = await you.ask(0)
    await eventually(lambda: is_loading(you))
    await you.answer("43 km")
    assert (await again).source is Source.LOADED


async def test_of_fifty_calls_on_five_instances_one_reads(stores: list[RedisShared], clock: ManualClock) -> None:
    instances = [Instance(shared, clock) for shared in stores]
    tasks = [await instance.ask() for instance in instances for _ in range(10)]

    async def all_wait() -> bool:
        return sum(len(instance.pauses.asked_s) for instance in instances) >= 50

    await eventually(all_wait)
    (reader,) = [instance for instance in instances if instance.loads]
    await reader.answer("42 km")

    async def all_have_it() -> bool:
        for instance in instances:
            await instance.pauses.end()
        return all(task.done() for task in tasks)

    await eventually(all_have_it)
    assert [task.result().source for task in tasks].count(Source.LOADED) == 1
    assert sum(len(instance.loads) for instance in instances) == 1


async def test_a_note_tells_the_code_and_the_time_to_wait_and_nothing_else() -> None:
    note = write_note(QuotaLimitExceeded("a message", details={"vin": "WBA00000000DEMO01"}, retry_after_s=1.5))
    assert note is not None
    assert b"message" not in note
    assert b"DEMO" not in note
    again = read_note(note)
    assert (type(again), again.retry_after_s) == (QuotaLimitExceeded, 1.5)


@pytest.mark.parametrize("note", [b"", b"[]", b"{}", b'{"code": "NEW", "retry_after_s": null}', b"\xff", b"1",
    b'{"code": "UPSTREAM_ERROR", "retry_after_s": "soon"}', b'{"code": [], "retry_after_s": null}'])  # fmt: skip
def test_a_note_from_elsewhere_is_refused(note: bytes) -> None:
    with pytest.raises(FailureNoteInvalid):
        read_note(note)


def test_an_error_that_is_not_ours_has_no_note() -> None:
    assert write_note(LookupError("a defect")) is None


def test_a_claim_does_not_show_what_it_holds() -> None:
    assert "secret" not in repr(Claim(ClaimState.FOUND, 1, b"secret"))
