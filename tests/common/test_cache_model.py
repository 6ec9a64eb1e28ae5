"""The cache over random histories: against a model of what it holds, and against what sharing loads must never break.

``CACHE_STEPS`` sets how many steps each machine takes together (default 3000).
"""

import asyncio
import os
from dataclasses import dataclass, field

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from common.cache import Cache, Hit
from common.clock import ManualClock
from common.errors import UpstreamError, VehicleNotFound
from common.lru import ENTRY_OVERHEAD_BYTES
from tests.support.machines import CountingMachine, take_steps

STEPS = int(os.environ.get("CACHE_STEPS", "3000"))
TTL_S, KEPT_S, BUDGET = 60.0, 100.0, 4_000

keys = st.sampled_from([("a", "x"), ("a", "y"), ("b", "x"), ("b", "y")])
ages = st.sampled_from([None, None, None, 0.0, 10.0, 500.0])
waits = st.sampled_from([0.5, 5.0, 30.0, 61.0, 101.0])


class HoldingMachine(CountingMachine):
    """What is held: the model is a plain list, least recently used first."""

    @initialize()
    def begin(self) -> None:
        self.clock = ManualClock(seconds=0.0)
        self.cache: Cache[str] = Cache(
            "x", ttl_s=TTL_S, max_bytes=BUDGET, weigh=len, clock=self.clock, jitter=0.0, stale_if_error_s=KEPT_S
        )
        self.model: list[tuple[tuple[str, str], str, float, float]] = []
        """Key, value, when it was put, and until when it is fresh."""

    @rule(key=keys, size=st.sampled_from([0, 100, 1_000, 2_000, 3_488, 3_489]), letter=st.sampled_from("pq"))
    def put(self, key: tuple[str, str], size: int, letter: str) -> None:
        self.cache.put(key, letter * size)
        self.model = [entry for entry in self.model if entry[0] != key]
        while self.model and self.is_dead(self.model[0]):
            self.model.pop(0)
        if size + ENTRY_OVERHEAD_BYTES <= BUDGET:
            now = self.clock.monotonic()
            self.model.append((key, letter * size, now, now + TTL_S))
            while self.weight() > BUDGET:
                self.model.pop(0)

    @rule(key=keys, max_age_s=ages, allow_stale=st.booleans())
    def get(self, key: tuple[str, str], max_age_s: float | None, *, allow_stale: bool) -> None:
        hit = self.cache.get(key, max_age_s, allow_stale=allow_stale)
        entry = next((entry for entry in self.model if entry[0] == key), None)
        if entry is not None and self.is_dead(entry):
            self.model.remove(entry)
            entry = None
        now = self.clock.monotonic()
        age_s = 0.0 if entry is None else now - entry[2]
        too_old = max_age_s is not None and age_s >= max_age_s
        if entry is None or too_old or (now >= entry[3] and not allow_stale):
            assert hit is None
            return
        assert hit == Hit(entry[1], age_s, stale=now >= entry[3], stored_at_monotonic=entry[2])
        self.model.remove(entry)
        self.model.append(entry)

    @rule(key=keys)
    def invalidate(self, key: tuple[str, str]) -> None:
        assert self.cache.invalidate(key) is any(entry[0] == key for entry in self.model)
        self.model = [entry for entry in self.model if entry[0] != key]

    @rule(first=st.sampled_from("ab"))
    def invalidate_prefix(self, first: str) -> None:
        assert self.cache.invalidate_where((first,)) == sum(entry[0][0] == first for entry in self.model)
        self.model = [entry for entry in self.model if entry[0][0] != first]

    @rule(fraction=st.sampled_from([0.0, 0.25, 0.5, 1.0]))
    def shed(self, fraction: float) -> None:
        goal = self.weight() * (1 - fraction)
        self.cache.shed(fraction)
        while self.model and self.weight() > goal:
            self.model.pop(0)

    @rule()
    def doubt(self) -> None:
        self.cache.doubt()
        now = self.clock.monotonic()
        self.model = [(*entry[:3], min(entry[3], now)) for entry in self.model]

    @rule(seconds=waits)
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @invariant()
    def both_hold_the_same(self) -> None:
        HoldingMachine.steps += 1
        stats = self.cache.stats()
        assert (stats.entries, stats.bytes) == (len(self.model), self.weight())
        assert all(entry[0] in self.cache for entry in self.model)

    def weight(self) -> int:
        return sum(len(entry[1]) + ENTRY_OVERHEAD_BYTES for entry in self.model)

    def is_dead(self, entry: tuple[tuple[str, str], str, float, float]) -> bool:
        return self.clock.monotonic() >= entry[3] + KEPT_S


@dataclass(eq=False)
class Load:
    """One load; its moments are places in the order of all that happened."""

    key: tuple[str, str]
    began: int
    began_at_s: float
    answer: asyncio.Future[None]
    over: bool = False


@dataclass(eq=False)
class Call:
    """One call that waits."""

    key: tuple[str, str]
    made: int
    made_at_s: float
    max_age_s: float | None
    task: "asyncio.Task[Hit[Load]]"
    checked: bool = False


@dataclass
class History:
    """What happened, in order."""

    moment: int = 0
    loads: list[Load] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    invalidated: dict[tuple[str, str], int] = field(default_factory=dict)


class LoadingMachine(CountingMachine):
    """Loads are shared: whoever is answered is answered with data young enough, and nobody waits for nothing."""

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.clock = ManualClock(seconds=0.0)
        self.cache: Cache[Load] = Cache(
            "x", ttl_s=TTL_S, max_bytes=BUDGET, weigh=lambda _: 1, clock=self.clock, jitter=0.0, negative_ttl_s=5.0
        )
        self.history = History()

    @rule(key=keys, max_age_s=ages)
    def call(self, key: tuple[str, str], max_age_s: float | None) -> None:
        async def load() -> Load:
            self.history.moment += 1
            mine = Load(key, self.history.moment, self.clock.monotonic(), self.loop.create_future())
            self.history.loads.append(mine)
            try:
                await mine.answer
            finally:
                mine.over = True
            return mine

        self.history.moment += 1
        task = self.loop.create_task(self.cache.get_or_load(key, load, max_age_s=max_age_s))
        self.history.calls.append(Call(key, self.history.moment, self.clock.monotonic(), max_age_s, task))
        self.settle()

    @precondition(lambda self: self.running())
    @rule(data=st.data(), error=st.sampled_from([None, None, UpstreamError(), VehicleNotFound()]))
    def finish(self, data: st.DataObject, error: Exception | None) -> None:
        load = data.draw(st.sampled_from(self.running()))
        if error is None:
            load.answer.set_result(None)
        else:
            load.answer.set_exception(error)
        self.settle()

    @precondition(lambda self: self.waiting())
    @rule(data=st.data(), also_finish=st.booleans())
    def cancel(self, data: st.DataObject, *, also_finish: bool) -> None:
        call = data.draw(st.sampled_from(self.waiting()))
        running = [load for load in self.running() if load.key == call.key]
        if also_finish and running:
            running[0].answer.set_result(None)
            self.loop.run_until_complete(asyncio.sleep(0))
        call.task.cancel()
        self.settle()

    @rule(key=keys)
    def invalidate(self, key: tuple[str, str]) -> None:
        self.history.moment += 1
        self.history.invalidated[key] = self.history.moment
        self.cache.invalidate(key)

    @rule(seconds=waits)
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @invariant()
    def nothing_is_broken(self) -> None:
        LoadingMachine.steps += 1
        running = [load.key for load in self.running()]
        assert len(running) == len(set(running)), "two loads of one key"
        assert set(running) == {call.key for call in self.waiting()}, "a load without a waiter, or a waiter without one"
        for call in self.history.calls:
            if call.task.done() and not call.checked:
                call.checked = True
                self.check(call)
        for key, moment in self.history.invalidated.items():
            hit = self.cache.get(key)
            assert hit is None or hit.value.began > moment, "held although read before the invalidation"

    def check(self, call: Call) -> None:
        if call.task.cancelled() or call.task.exception() is not None:
            return
        hit = call.task.result()
        load = hit.value
        assert load.key == call.key
        assert load.began_at_s == hit.stored_at_monotonic
        invalidated = self.history.invalidated.get(call.key, 0)
        assert load.began > invalidated or call.made < invalidated, "shared a load from before an invalidation"
        if call.max_age_s is not None and not hit.stale:
            # A load that ran on after the call is younger still; the moment settles what the clock cannot.
            assert load.began > call.made or call.made_at_s - load.began_at_s < call.max_age_s

    def running(self) -> list[Load]:
        return [load for load in self.history.loads if not load.over and not load.answer.done()]

    def waiting(self) -> list[Call]:
        return [call for call in self.history.calls if not call.task.done()]

    def settle(self) -> None:
        for _ in range(10):
            self.loop.run_until_complete(asyncio.sleep(0))

    def teardown(self) -> None:
        for call in self.waiting():
            call.task.cancel()
        self.settle()
        assert self.running() == []
        for call in self.history.calls:
            if not call.task.cancelled():
                call.task.exception()
        self.loop.close()


def test_what_is_held_never_diverges_from_the_model() -> None:
    take_steps(HoldingMachine, STEPS)


def test_shared_loads_never_give_data_older_than_asked_for_nor_leave_anybody_waiting() -> None:
    take_steps(LoadingMachine, STEPS)
