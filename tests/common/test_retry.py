"""Which reads are tried again, when, and how often."""

import asyncio
import random
import threading
from collections.abc import Callable

import pytest

from common.clock import ManualClock
from common.deadline import Deadline
from common.errors import (
    AuthenticationFailed,
    CircuitOpen,
    CommandInProgress,
    ProviderBlocked,
    QuotaLimitExceeded,
    RateLimitExceeded,
    UpstreamError,
    UpstreamInvalid,
    UpstreamTimeout,
)
from common.loops import LoopThread, needs_loop
from common.retry import ReadRetry, RetryBudget


def longest(_: float, high: float) -> float:
    return high


class World:
    """A retry policy whose sleeps pass on a simulated clock, and an upstream with a script."""

    def __init__(
        self,
        *script: BaseException | str,
        attempts: int = 3,
        budget: RetryBudget | None = None,
        uniform: Callable[[float, float], float] = longest,
        takes_s: float = 0.0,
    ) -> None:
        self.clock = ManualClock()
        self.script = list(script)
        self.takes_s = takes_s
        self.slept: list[float] = []
        self.attempts = 0
        self.retry = ReadRetry(
            budget=budget or RetryBudget(self.clock),
            attempts=attempts,
            base_s=0.2,
            cap_s=2.0,
            sleep=self.sleep,
            uniform=uniform,
        )

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.clock.advance(seconds)

    async def read(self) -> str:
        self.attempts += 1
        self.clock.advance(self.takes_s)
        step = self.script.pop(0)
        if isinstance(step, str):
            return step
        raise step

    async def run(self, within_s: float = 60.0) -> str:
        return await self.retry.run(self.read, deadline=Deadline(self.clock, within_s))


async def test_a_read_that_succeeds_is_made_once() -> None:
    world = World("answer")
    assert await world.run() == "answer"
    assert (world.attempts, world.slept) == (1, [])


async def test_a_failed_read_is_tried_again_until_it_succeeds() -> None:
    world = World(UpstreamError(), UpstreamTimeout(), "answer")
    assert await world.run() == "answer"
    assert world.slept == [0.2, 0.4]


async def test_after_the_last_attempt_its_failure_is_raised_as_it_is() -> None:
    last = UpstreamInvalid("third")
    world = World(UpstreamError("first"), UpstreamError("second"), last, "never asked")
    with pytest.raises(UpstreamInvalid) as caught:
        await world.run()
    assert caught.value is last
    assert world.attempts == 3


async def test_the_waits_double_up_to_the_cap() -> None:
    world = World(*[UpstreamError()] * 6, "answer", attempts=7)
    await world.run()
    assert world.slept == [0.2, 0.4, 0.8, 1.6, 2.0, 2.0]


async def test_without_settings_there_are_three_attempts_with_waits_of_at_most_200_and_400_ms() -> None:
    world = World(*[UpstreamError()] * 4)
    retry = ReadRetry(budget=RetryBudget(world.clock), sleep=world.sleep, uniform=longest)
    with pytest.raises(UpstreamError):
        await retry.run(world.read, deadline=Deadline(world.clock, 60))
    assert world.slept == [0.2, 0.4]


async def test_the_waits_are_spread_from_nothing_to_their_ceiling() -> None:
    draw = random.Random(3)
    first_waits = []
    for _ in range(300):
        world = World(UpstreamError(), "answer", uniform=draw.uniform)
        await world.run()
        first_waits += world.slept
    assert min(first_waits) < 0.01
    assert max(first_waits) > 0.19
    assert 0.09 < sum(first_waits) / 300 < 0.11
    assert max(first_waits) <= 0.2


@pytest.mark.parametrize(
    "error",
    [
        CircuitOpen(),
        QuotaLimitExceeded(),
        ProviderBlocked(),
        AuthenticationFailed(),
        RateLimitExceeded(),
        CommandInProgress(),
        ValueError(),
        asyncio.CancelledError(),
    ],
)
async def test_what_another_attempt_cannot_mend_is_raised_at_once(error: BaseException) -> None:
    world = World(error, "never asked")
    with pytest.raises(type(error)) as caught:
        await world.run()
    assert caught.value is error
    assert world.attempts == 1


async def test_a_wait_is_never_shorter_than_the_maker_asked_for() -> None:
    world = World(UpstreamError(retry_after_s=5), UpstreamError(retry_after_s=0.1), "answer")
    await world.run()
    assert world.slept == [5, 0.4]


async def test_a_wait_that_would_outlast_the_deadline_is_not_begun() -> None:
    world = World(UpstreamError(retry_after_s=5), "never asked")
    with pytest.raises(UpstreamError):
        await world.run(within_s=5)
    assert world.slept == []


async def test_the_time_that_attempts_take_counts_towards_the_deadline() -> None:
    world = World(*[UpstreamError()] * 10, attempts=10, takes_s=3.0)
    with pytest.raises(UpstreamError):
        await world.run(within_s=7)
    assert world.attempts == 3
    assert world.clock.monotonic() - 1_000 == pytest.approx(9.6)
    assert world.slept == [0.2, 0.4]


async def test_without_budget_the_first_failure_is_the_answer() -> None:
    clock = ManualClock()
    world = World(UpstreamError(), "never asked", budget=RetryBudget(clock, ratio=0, floor_per_s=0, capacity=0))
    with pytest.raises(UpstreamError):
        await world.run()
    assert world.attempts == 1


async def test_a_retry_that_is_not_made_costs_no_budget() -> None:
    clock = ManualClock()
    budget = RetryBudget(clock, ratio=0, floor_per_s=0, capacity=1)
    world = World(UpstreamError(retry_after_s=100), UpstreamError(), "answer", budget=budget)
    with pytest.raises(UpstreamError):
        await world.run(within_s=10)
    assert await world.run() == "answer"


async def test_in_an_outage_retries_stay_a_tenth_of_the_requests() -> None:
    clock = ManualClock()
    budget = RetryBudget(clock)
    attempts = 0
    for _ in range(1_000):
        world = World(*[UpstreamError()] * 3, budget=budget)
        with pytest.raises(UpstreamError):
            await world.run()
        attempts += world.attempts
    assert 1_100 <= attempts <= 1_110, "a tenth, and what the budget held at first"


def test_the_budget_fills_slowly_where_there_are_few_requests() -> None:
    clock = ManualClock()
    budget = RetryBudget(clock, ratio=0.1, floor_per_s=0.1, capacity=2)
    assert [budget.take() for _ in range(3)] == [True, True, False]
    clock.advance(9.5)
    assert budget.take() is False
    clock.advance(0.5)
    assert budget.take() is True
    clock.advance(1_000)
    assert [budget.take() for _ in range(3)] == [True, True, False]


def test_without_settings_the_budget_starts_with_ten_and_earns_one_in_ten_seconds() -> None:
    clock = ManualClock()
    budget = RetryBudget(clock)
    assert [budget.take() for _ in range(11)] == [True] * 10 + [False]
    clock.advance(10)
    assert [budget.take() for _ in range(2)] == [True, False]


def test_each_request_earns_its_part_of_a_retry() -> None:
    budget = RetryBudget(ManualClock(), ratio=0.25, floor_per_s=0, capacity=1)
    assert budget.take() is True
    for _ in range(3):
        budget.request()
    assert budget.take() is False
    budget.request()
    assert budget.take() is True


def test_a_read_begun_on_a_servers_thread_is_retried_on_the_loop() -> None:
    world, loop, threads = World(UpstreamError(), UpstreamError(), "answer"), LoopThread(), []

    async def read() -> str:
        await needs_loop()
        threads.append(threading.current_thread().name)
        return await world.read()

    try:
        assert loop.run(world.retry.run(read, deadline=Deadline(world.clock, 60))) == "answer"
    finally:
        loop.close()
    assert threads == ["loop"] * 3
