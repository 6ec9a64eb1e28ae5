"""A breaker under load: a simulated outage, a crowd at half-open, and what a rejection costs."""

import asyncio
import contextlib
import random
import sys
import threading
from collections.abc import Iterator

import pytest

from common.breaker import CircuitBreaker, Permit, State, Tuning
from common.clock import ManualClock
from common.errors import CircuitOpen, UpstreamError
from tests.support.costs import times_as_much

HOUR_S = 3_600


def calls_in_an_outage(clock: ManualClock, breaker: CircuitBreaker) -> int:
    """Ten requests a second for an hour, all of which would fail; how many reached the maker."""
    calls = 0
    for _ in range(HOUR_S * 10):
        clock.advance(0.1)
        try:
            permit = breaker.acquire()
        except CircuitOpen:
            continue
        calls += 1
        permit.failure(UpstreamError())
    return calls


@pytest.mark.parametrize("seed", range(10))
def test_an_outage_of_an_hour_costs_the_maker_at_most_twelve_calls_and_is_noticed_to_end(seed: int) -> None:
    clock = ManualClock()
    breaker = CircuitBreaker(clock=clock, uniform=random.Random(seed).uniform)
    assert 8 <= calls_in_an_outage(clock, breaker) <= 12
    clock.advance(900 * 1.1)
    breaker.acquire().success()
    assert breaker.snapshot().state is State.CLOSED


def test_even_the_shortest_open_times_keep_within_twelve_calls() -> None:
    clock = ManualClock()
    breaker = CircuitBreaker(clock=clock, uniform=lambda low, _: low)
    assert calls_in_an_outage(clock, breaker) == 12


@pytest.fixture
def _many_thread_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_many_thread_switches")
async def test_fifty_threads_and_fifty_tasks_at_half_open_make_exactly_one_probe() -> None:
    clock = ManualClock()
    breaker = CircuitBreaker(failure_threshold=1, clock=clock, tuning=Tuning(probe_timeout_s=HOUR_S))
    for _ in range(20):
        breaker.acquire().failure(UpstreamError())
        clock.advance(HOUR_S)
        crowd = Crowd(breaker)
        assert await crowd.ask() == (1, 99)
        assert breaker.snapshot().state is State.CLOSED


class Crowd:
    """Fifty threads and fifty tasks that ask one breaker at the same time."""

    def __init__(self, breaker: CircuitBreaker) -> None:
        self.breaker = breaker
        self.go = threading.Event()
        self.all_asked = asyncio.Event()
        self.permits: list[Permit] = []
        self.rejected: list[CircuitOpen] = []
        self.calls: list[str] = []

    async def ask(self) -> tuple[int, int]:
        """How many were let through and how many rejected."""
        threads = [threading.Thread(target=self.ask_from_thread) for _ in range(50)]
        for thread in threads:
            thread.start()
        tasks = [asyncio.create_task(self.ask_from_task()) for _ in range(50)]
        self.go.set()
        # The loop's tasks ask now, while the threads do.
        await asyncio.sleep(0)
        for thread in threads:
            thread.join()
        self.all_asked.set()
        await asyncio.gather(*tasks)
        for permit in self.permits:
            permit.success()
        return len(self.permits) + len(self.calls), len(self.rejected)

    def ask_from_thread(self) -> None:
        self.go.wait()
        try:
            self.permits.append(self.breaker.acquire())
        except CircuitOpen as refused:
            self.rejected.append(refused)

    async def ask_from_task(self) -> None:
        async def call() -> None:
            self.calls.append("call")
            await self.all_asked.wait()

        try:
            await self.breaker.call(call)
        except CircuitOpen as refused:
            self.rejected.append(refused)


@pytest.mark.usefixtures("_many_thread_switches")
def test_threads_that_report_at_the_same_time_lose_no_report() -> None:
    breaker = CircuitBreaker(failure_threshold=8 * 500, tuning=Tuning(minimum_calls=8 * 500))

    def fail() -> None:
        for _ in range(500):
            breaker.acquire().failure(UpstreamError())

    threads = [threading.Thread(target=fail) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert breaker.snapshot().failures == 8 * 500
    assert breaker.snapshot().state is State.OPEN


def test_a_rejection_costs_little_more_than_making_its_error() -> None:
    breaker = CircuitBreaker(failure_threshold=1)
    breaker.acquire().failure(UpstreamError())

    def reject() -> None:
        with contextlib.suppress(CircuitOpen):
            breaker.acquire()

    def make_the_error() -> None:
        CircuitOpen(retry_after_s=1)

    assert times_as_much(reject, make_the_error) < 20
