"""Loads through the cache: who shares them, who may not, and what a failure means."""

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from common.cache import Cache, FailureKind, Hit
from common.clock import ManualClock
from common.errors import (
    AuthenticationFailed,
    InternalError,
    RateLimitExceeded,
    RelinkRequired,
    UpstreamError,
    UpstreamTimeout,
    VehicleNotFound,
)
from common.failure_memory import MAX_FAILURES, by_error_tree
from common.loops import LoopThread
from common.memory import MemoryPressure


class Source:
    """An upstream whose every answer the test gives by hand, in the order of the loads."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.loads: list[asyncio.Future[str]] = []
        self.cancelled = 0

    async def load(self) -> str:
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.loads.append(answer)
        try:
            return await answer
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def answer(self, number: int, answer: str | Exception) -> None:
        if isinstance(answer, str):
            self.loads[number].set_result(answer)
        else:
            self.loads[number].set_exception(answer)
        await settle()


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(10):
        await asyncio.sleep(0)


class World:
    """A cache in front of a source."""

    def __init__(self, **settings: Any) -> None:
        self.clock = ManualClock()
        self.source = Source(self.clock)
        defaults: dict[str, Any] = {"ttl_s": 60, "max_bytes": 1_000_000, "weigh": len, "jitter": 0.0}
        self.cache: Cache[str] = Cache("x", clock=self.clock, **(defaults | settings))

    def ask(self, key: str = "car", **how: Any) -> asyncio.Task[Hit[str]]:
        return asyncio.create_task(self.cache.get_or_load(key, self.source.load, **how))

    async def asked(self, key: str = "car", **how: Any) -> asyncio.Task[Hit[str]]:
        """The same, begun."""
        task = self.ask(key, **how)
        await settle()
        return task

    async def load_once(self, answer: str | Exception) -> None:
        """One load from question to answer, whatever comes of it."""
        task = await self.asked(max_age_s=0)
        await self.source.answer(-1, answer)
        await asyncio.gather(task, return_exceptions=True)

    @property
    def loads(self) -> int:
        return len(self.source.loads)


def without_waiting(work: Awaitable[Hit[str]]) -> Hit[str]:
    """The result of something that must not suspend, on a thread without an event loop."""
    results: list[Hit[str]] = []

    def step() -> None:
        try:
            work.__await__().send(None)
        except StopIteration as done:
            results.append(done.value)

    thread = threading.Thread(target=step)
    thread.start()
    thread.join()
    return results[0]


async def test_a_miss_loads_and_the_next_call_is_answered_from_memory() -> None:
    world = World()
    first = await world.asked()
    await world.source.answer(0, "value")
    assert await first == Hit("value", 0, stale=False, stored_at_monotonic=1_000, loaded=True)
    second = await world.ask()
    assert (second.value, second.loaded, second.stale, world.loads) == ("value", False, False, 1)


async def test_a_fresh_entry_is_answered_without_suspending_on_a_thread_that_has_no_loop() -> None:
    world = World()
    world.cache.put("car", "value")
    assert without_waiting(world.cache.get_or_load("car", world.source.load)).value == "value"


def test_a_miss_crosses_from_the_servers_thread_to_the_loop_and_is_shared_there() -> None:
    cache: Cache[str] = Cache("x", ttl_s=60, max_bytes=1_000_000, weigh=len)
    loop, together = LoopThread(), threading.Barrier(20)
    loaded_on: list[str] = []
    values: list[str] = []

    async def load() -> str:
        loaded_on.append(threading.current_thread().name)
        for _ in range(50):
            await asyncio.sleep(0)
        return "value"

    def serve() -> None:
        together.wait()
        values.append(loop.run(cache.get_or_load("car", load)).value)

    threads = [threading.Thread(target=serve) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    loop.close()
    assert loaded_on == ["loop"]
    assert values == ["value"] * 20


async def test_what_is_found_on_the_way_to_the_loop_needs_no_load() -> None:
    world = World()
    call = world.cache.get_or_load("car", world.source.load)
    crossing = call.__await__()
    threading_result: list[object] = []
    thread = threading.Thread(target=lambda: threading_result.append(crossing.send(None)))
    thread.start()
    thread.join()
    world.cache.put("car", "landed meanwhile")
    with pytest.raises(StopIteration) as done:
        crossing.send(None)
    assert done.value.value.value == "landed meanwhile"
    assert world.loads == 0


async def test_calls_that_miss_together_share_one_load() -> None:
    world = World()
    tasks = [world.ask() for _ in range(10)]
    await settle()
    late = await world.asked()
    await world.source.answer(0, "value")
    assert {(await task).value for task in [*tasks, late]} == {"value"}
    assert world.loads == 1


async def test_different_keys_do_not_wait_for_one_another() -> None:
    world = World()
    await world.asked("car")
    bike = await world.asked("bike")
    await world.source.answer(1, "bike")
    assert (await bike).value == "bike"
    world.source.loads[0].cancel()
    await settle()


async def test_age_counts_from_the_beginning_of_the_load() -> None:
    world = World()
    first = await world.asked()
    world.clock.advance(3)
    await world.source.answer(0, "value")
    assert (await first).age_s == 3
    world.clock.advance(2)
    assert (await world.ask()).age_s == 5
    assert world.cache.get("car", max_age_s=5) is None


async def test_freshness_counts_from_the_end_of_the_load() -> None:
    world = World()
    await world.asked()
    world.clock.advance(50)
    await world.source.answer(0, "value")
    world.clock.advance(59)
    assert world.cache.get("car") is not None
    world.clock.advance(1)
    assert world.cache.get("car") is None


async def test_a_call_that_wants_fresh_data_does_not_share_a_load_in_flight_but_the_next() -> None:
    world = World()
    ordinary = await world.asked()
    fresh = [await world.asked(max_age_s=0) for _ in range(5)]
    assert world.loads == 1, "the next begins when the present one ends"
    await world.source.answer(0, "older")
    assert (await ordinary).value == "older"
    assert not any(task.done() for task in fresh)
    assert world.loads == 2
    later = await world.asked(max_age_s=0)
    await world.source.answer(1, "newer")
    assert {(await task).value for task in fresh} == {"newer"}
    assert not later.done()
    await world.source.answer(2, "newest")
    assert (await later).value == "newest"
    assert world.loads == 3


async def test_fresh_calls_made_at_one_time_share_one_load() -> None:
    world = World()
    tasks = [world.ask(max_age_s=0) for _ in range(10)]
    await settle()
    await world.source.answer(0, "value")
    await asyncio.gather(*tasks)
    assert world.loads == 1


async def test_a_load_in_flight_serves_those_who_accept_data_as_old_as_it_runs() -> None:
    world = World()
    await world.asked()
    world.clock.advance(5)
    patient, picky = await world.asked(max_age_s=5.5), await world.asked(max_age_s=5)
    await world.source.answer(0, "first")
    assert (await patient).value == "first"
    await world.source.answer(1, "second")
    assert (await picky).value == "second"


async def test_the_next_load_runs_in_the_context_of_the_call_that_asked_for_it() -> None:
    world, request_id, seen = World(), contextvars.ContextVar("request_id", default="none"), list[str]()

    async def load() -> str:
        seen.append(request_id.get())
        return await world.source.load()

    for name in ("first", "second"):
        request_id.set(name)
        asyncio.create_task(world.cache.get_or_load("car", load, max_age_s=0))  # noqa: RUF006 -- awaited by settling
        await settle()
    await world.source.answer(0, "a")
    await world.source.answer(1, "b")
    assert seen == ["first", "second"]


async def test_a_cancelled_leader_does_not_cancel_the_others() -> None:
    world = World()
    leader = await world.asked()
    follower = await world.asked()
    leader.cancel()
    await settle()
    await world.source.answer(0, "value")
    assert leader.cancelled()
    assert (await follower).value == "value"
    assert (world.loads, world.source.cancelled) == (1, 0)


async def test_a_leaders_timeout_is_his_own() -> None:
    world = World()

    async def in_a_hurry() -> None:
        async with asyncio.timeout(0):
            await world.cache.get_or_load("car", world.source.load)

    leader = asyncio.create_task(in_a_hurry())
    follower = world.ask()
    await asyncio.gather(leader, return_exceptions=True)
    assert isinstance(leader.exception(), TimeoutError)
    await settle()
    await world.source.answer(0, "value")
    assert (await follower).value == "value"


async def test_a_load_for_which_nobody_waits_any_more_is_cancelled() -> None:
    world = World()
    tasks = [await world.asked(), await world.asked()]
    for task in tasks:
        task.cancel()
    await settle()
    assert world.source.cancelled == 1
    again = await world.asked()
    await world.source.answer(1, "value")
    assert (await again).value == "value"


async def test_a_call_made_while_an_abandoned_load_still_winds_up_gets_a_load_of_its_own() -> None:
    world = World()
    leader = await world.asked()
    leader.cancel()
    await asyncio.sleep(0)
    newcomer = await world.asked()
    assert (world.loads, world.source.cancelled) == (2, 1)
    await world.source.answer(1, "value")
    assert (await newcomer).value == "value"


async def test_a_load_abandoned_before_its_first_step_leaves_nothing_behind() -> None:
    world = World()
    leader = await world.asked()
    fresh = await world.asked(max_age_s=0)
    world.source.loads[0].set_result("older")
    await asyncio.sleep(0)
    fresh.cancel()
    await settle()
    assert (await leader).value == "older"
    assert (fresh.cancelled(), world.loads) == (True, 1)
    again = await world.asked(max_age_s=0)
    await world.source.answer(1, "newer")
    assert (await again).value == "newer"


async def test_when_the_present_load_is_abandoned_the_next_begins() -> None:
    world = World()
    leader = await world.asked()
    fresh = await world.asked(max_age_s=0)
    leader.cancel()
    await settle()
    assert (world.loads, world.source.cancelled) == (2, 1)
    await world.source.answer(1, "value")
    assert (await fresh).value == "value"


async def test_a_next_load_for_which_nobody_waits_any_more_never_begins() -> None:
    world = World()
    leader = await world.asked()
    fresh = [await world.asked(max_age_s=0), await world.asked(max_age_s=0)]
    for task in fresh:
        task.cancel()
    await settle()
    await world.source.answer(0, "value")
    assert (await leader).value == "value"
    assert world.loads == 1


async def test_a_waiter_who_leaves_after_the_landing_disturbs_nothing() -> None:
    world = World()
    leader = await world.asked()
    fresh = await world.asked(max_age_s=0)
    world.source.loads[0].set_result("older")
    for _ in range(2):
        await asyncio.sleep(0)
    leader.cancel()
    await settle()
    await world.source.answer(1, "newer")
    assert (await fresh).value == "newer"
    assert world.source.cancelled == 0


async def test_a_load_that_is_cancelled_from_within_fails_for_its_waiters_without_cancelling_them() -> None:
    world = World()
    task = await world.asked()
    world.source.loads[0].cancel()
    with pytest.raises(InternalError):
        await task


async def test_a_load_overtaken_by_an_invalidation_serves_its_waiters_but_is_not_stored() -> None:
    world = World()
    before = await world.asked()
    world.cache.invalidate("car")
    after = await world.asked()
    await world.source.answer(0, "from before")
    assert (await before).value == "from before"
    assert world.cache.get("car") is None
    assert not after.done()
    await world.source.answer(1, "from after")
    assert (await after).value == "from after"
    assert (await world.ask()).value == "from after"
    assert world.loads == 2


@pytest.mark.parametrize(
    "invalidate",
    [
        lambda cache: cache.invalidate(("snap", "a")),
        lambda cache: cache.invalidate_where(("snap",)),
        lambda cache: cache.invalidate_where(lambda key: key[1] == "a"),
        lambda cache: cache.clear(),
    ],
)
async def test_every_way_to_invalidate_overtakes_loads_in_flight(invalidate: Callable[[Cache[str]], object]) -> None:
    world = World()
    task = asyncio.create_task(world.cache.get_or_load(("snap", "a"), world.source.load))
    await settle()
    thread = threading.Thread(target=invalidate, args=(world.cache,))
    thread.start()
    thread.join()
    await world.source.answer(0, "from before")
    assert (await task).value == "from before"
    assert ("snap", "a") not in world.cache


async def test_invalidating_one_key_leaves_the_loads_of_others_alone() -> None:
    world = World()
    task = await world.asked("car")
    world.cache.invalidate("bike")
    world.cache.invalidate_where(lambda key: key == "bike")
    await world.source.answer(0, "value")
    await task
    assert "car" in world.cache


async def test_an_invalidation_does_not_touch_a_load_that_has_not_begun() -> None:
    world = World()
    await world.asked()
    fresh = await world.asked(max_age_s=0)
    world.cache.invalidate("car")
    joined = await world.asked()
    await world.source.answer(0, "from before")
    await world.source.answer(1, "from after")
    assert [(await fresh).value, (await joined).value] == ["from after"] * 2
    assert "car" in world.cache
    assert world.loads == 2


async def test_a_load_asked_for_before_an_invalidation_but_begun_after_it_is_stored() -> None:
    world = World()
    task = world.ask()
    await asyncio.sleep(0)
    world.cache.invalidate("car")
    assert world.loads == 0
    await settle()
    await world.source.answer(0, "value")
    assert (await task).value == "value"
    assert "car" in world.cache


async def test_a_value_put_during_a_load_is_not_overwritten_by_it() -> None:
    world = World()
    await world.asked()
    world.cache.put("car", "put")
    await world.source.answer(0, "loaded")
    assert (await world.ask()).value == "put"


async def test_a_failure_reaches_all_who_wait_each_with_an_error_of_his_own() -> None:
    world = World()
    tasks = [await world.asked() for _ in range(5)]
    await world.source.answer(0, UpstreamError("down", details={"try": 1}, retry_after_s=7))
    errors = [task.exception() for task in tasks]
    assert [type(error) for error in errors] == [UpstreamError] * 5
    assert len(set(map(id, errors))) == 5
    assert all(isinstance(error, UpstreamError) and error.retry_after_s == 7 for error in errors)
    assert world.loads == 1


async def test_an_outage_is_remembered_briefly_and_then_asked_about_again() -> None:
    world = World(failure_ttl_s=1.5)
    await world.load_once(UpstreamError("down"))
    world.clock.advance(1.4)
    with pytest.raises(UpstreamError, match="down"):
        await world.ask()
    assert world.cache.stats().failures_served == 1
    world.clock.advance(0.1)
    again = await world.asked()
    await world.source.answer(1, "back")
    assert (await again).value == "back"


async def test_a_remembered_failure_is_raised_without_suspending_and_does_not_grow() -> None:
    world = World()
    await world.load_once(UpstreamError())
    tracebacks = []
    for _ in range(3):
        with pytest.raises(UpstreamError) as caught:
            world.cache.get_or_load("car", world.source.load).send(None)
        tracebacks.append(len(caught.traceback))
    assert len(set(tracebacks)) == 1


async def test_a_success_ends_the_memory_of_a_failure() -> None:
    world = World()
    await world.load_once(UpstreamError())
    await world.load_once("back")
    world.cache.shed(1.0)
    assert not (await world.asked()).done()


async def test_only_the_latest_failure_is_remembered() -> None:
    world = World()
    await world.load_once(UpstreamError())
    await world.load_once(AuthenticationFailed())
    assert not (await world.asked()).done()


async def test_a_call_is_not_told_of_a_failure_older_than_the_data_it_accepts() -> None:
    world = World()
    await world.load_once(UpstreamError())
    world.clock.advance(0.5)
    with pytest.raises(UpstreamError):
        await world.ask(max_age_s=0.6)
    fresh = await world.asked(max_age_s=0.5)
    await world.source.answer(1, "back")
    assert (await fresh).value == "back"


@pytest.mark.parametrize("end", [lambda cache: cache.invalidate("car"), lambda cache: cache.clear()])
async def test_an_invalidation_ends_the_memory_of_a_failure(end: Callable[[Cache[str]], object]) -> None:
    world = World(negative_ttl_s=60)
    await world.load_once(VehicleNotFound())
    end(world.cache)
    assert not (await world.asked()).done()


async def test_a_failure_overtaken_by_an_invalidation_is_not_remembered() -> None:
    world = World(negative_ttl_s=60)
    await world.asked()
    world.cache.invalidate("car")
    await world.source.answer(0, VehicleNotFound())
    assert not (await world.asked()).done()


async def test_not_found_is_an_answer_and_drops_what_was_held() -> None:
    world = World(negative_ttl_s=30, stale_if_error_s=600)
    await world.load_once("value")
    await world.load_once(VehicleNotFound())
    assert "car" not in world.cache
    world.clock.advance(29)
    with pytest.raises(VehicleNotFound):
        await world.ask()
    world.clock.advance(1)
    assert not (await world.asked()).done()


@pytest.mark.parametrize("error", [AuthenticationFailed(), RelinkRequired(), RateLimitExceeded()])
async def test_refused_credentials_and_the_callers_own_doing_are_never_remembered(error: Exception) -> None:
    world = World(negative_ttl_s=30, stale_if_error_s=600)
    await world.load_once("value")
    world.clock.advance(60)
    task = await world.asked()
    await world.source.answer(1, error)
    with pytest.raises(type(error)):
        await task
    assert not (await world.asked()).done()


async def test_an_outage_is_answered_with_what_is_kept_marked_stale() -> None:
    world = World(stale_if_error_s=100)
    await world.load_once("value")
    world.clock.advance(159)
    task = await world.asked()
    await world.source.answer(1, UpstreamTimeout())
    hit = await task
    assert (hit.value, hit.stale, hit.age_s, hit.loaded) == ("value", True, 159, False)
    assert (await world.ask()).stale, "and so is the next, from memory"
    assert (world.loads, world.cache.stats().stale_served) == (2, 2)


async def test_what_is_doubted_is_read_anew_and_stands_in_where_that_fails_for_no_longer_than_anything_stale() -> None:
    world = World(stale_if_error_s=100)
    await world.load_once("value")
    world.clock.advance(20)
    world.cache.doubt()
    task = await world.asked()
    await world.source.answer(1, UpstreamTimeout())
    hit = await task
    assert (hit.value, hit.stale, hit.age_s) == ("value", True, 20)
    world.clock.advance(100)
    task = await world.asked()
    await world.source.answer(2, UpstreamError())
    with pytest.raises(UpstreamError):
        await task


async def test_what_was_being_read_when_it_was_doubted_is_not_kept() -> None:
    world = World(stale_if_error_s=100)
    reading = await world.asked()
    world.cache.doubt()
    await world.source.answer(0, "from before")
    assert (await reading).value == "from before"
    assert "car" not in world.cache


async def test_without_a_time_for_stale_data_what_is_doubted_stands_in_for_nothing() -> None:
    world = World()
    await world.load_once("value")
    world.cache.doubt()
    task = await world.asked()
    await world.source.answer(1, UpstreamTimeout())
    with pytest.raises(UpstreamTimeout):
        await task


async def test_beyond_its_time_nothing_stands_in_for_a_failed_load() -> None:
    world = World(stale_if_error_s=100)
    await world.load_once("value")
    world.clock.advance(60)
    task = await world.asked()
    world.clock.advance(100)
    await world.source.answer(1, UpstreamError())
    with pytest.raises(UpstreamError):
        await task


async def test_a_caller_may_refuse_stale_data() -> None:
    world = World(stale_if_error_s=100)
    await world.load_once("value")
    task = await world.asked(max_age_s=0, on_error_stale=False)
    await world.source.answer(1, UpstreamError())
    with pytest.raises(UpstreamError):
        await task
    world.clock.advance(60)
    await world.load_once(UpstreamError())
    with pytest.raises(UpstreamError):
        await world.ask(on_error_stale=False)


async def test_after_a_failed_forced_load_a_fresh_entry_still_serves_ordinary_calls() -> None:
    world = World(stale_if_error_s=100)
    await world.load_once("value")
    forced = await world.asked(max_age_s=0)
    await world.source.answer(1, UpstreamError())
    assert (await forced).stale is True
    assert (await world.ask()).stale is False


async def test_standing_in_is_a_use() -> None:
    world = World(stale_if_error_s=100, max_bytes=1_200)
    await world.load_once("value")
    world.cache.put("bike", "value")
    forced = await world.asked(max_age_s=0)
    world.cache.get("bike")
    await world.source.answer(-1, UpstreamError())
    assert (await forced).stale
    world.cache.put("boat", "value")
    assert [key for key in ("car", "bike", "boat") if key in world.cache] == ["car", "boat"]


async def test_without_settings_failures_are_remembered_for_a_second_answers_not_and_nothing_stands_in() -> None:
    world = World()
    await world.load_once("value")
    world.clock.advance(60)
    await world.load_once(UpstreamError())
    world.clock.advance(0.9)
    with pytest.raises(UpstreamError):
        await world.ask()
    world.clock.advance(0.1)
    task = await world.asked()
    assert not task.done()
    await world.source.answer(-1, VehicleNotFound())
    with pytest.raises(VehicleNotFound):
        await task
    assert not (await world.asked()).done()


async def test_a_load_under_high_memory_use_sheds_too(tmp_path: Path) -> None:
    for name, text in (("memory.max", "1000"), ("memory.current", "100")):
        (tmp_path / name).write_text(text)
    clock = ManualClock()
    world = World(pressure=MemoryPressure(clock, cgroup=tmp_path))
    world.cache.put("bike", "value")
    (tmp_path / "memory.current").write_text("950")
    clock.advance(1)
    await world.load_once("value")
    assert ("bike" in world.cache, "car" in world.cache) == (False, True)


async def test_what_was_invalidated_never_stands_in() -> None:
    world = World(stale_if_error_s=100)
    await world.load_once("value")
    world.cache.invalidate("car")
    task = await world.asked()
    await world.source.answer(1, UpstreamError())
    with pytest.raises(UpstreamError):
        await task


async def test_a_value_too_large_to_hold_still_reaches_its_waiters() -> None:
    world = World(max_bytes=600)
    task = await world.asked()
    await world.source.answer(0, "x" * 200)
    assert len((await task).value) == 200
    assert "car" not in world.cache


async def test_a_defective_weigher_fails_the_load_instead_of_hanging_it() -> None:
    def refuse(_: str) -> int:
        raise ZeroDivisionError

    world = World(weigh=refuse)
    task = await world.asked()
    await world.source.answer(0, "value")
    with pytest.raises(ZeroDivisionError):
        await task


async def test_an_error_that_cannot_be_copied_is_delivered_all_the_same() -> None:
    class Odd(Exception):
        def __init__(self, *, needed: str) -> None:
            super().__init__()
            self.needed = needed

    world = World()
    task = await world.asked()
    await world.source.answer(0, Odd(needed="x"))
    with pytest.raises(Odd):
        await task


async def test_the_memory_of_failures_is_bounded() -> None:
    world = World(negative_ttl_s=60)

    async def missing() -> str:
        raise VehicleNotFound

    for number in range(MAX_FAILURES + 1):
        with pytest.raises(VehicleNotFound):
            await world.cache.get_or_load(str(number), missing)
    assert not (await world.asked("0")).done(), "the oldest was forgotten"
    with pytest.raises(VehicleNotFound):
        await world.cache.get_or_load("1", world.source.load)


async def test_statistics_count_loads_and_misses_apart() -> None:
    world = World()
    tasks = [await world.asked() for _ in range(3)]
    await world.source.answer(0, "value")
    await asyncio.gather(*tasks)
    await world.ask()
    stats = world.cache.stats()
    assert (stats.loads, stats.misses, stats.hits) == (1, 3, 1)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (VehicleNotFound(), FailureKind.ANSWER),
        (AuthenticationFailed(), FailureKind.PRIVATE),
        (RateLimitExceeded(), FailureKind.PRIVATE),
        (UpstreamError(), FailureKind.OUTAGE),
        (ZeroDivisionError(), FailureKind.OUTAGE),
    ],
)
def test_failures_are_told_apart_by_the_error_tree(error: Exception, kind: FailureKind) -> None:
    assert by_error_tree(error) is kind
