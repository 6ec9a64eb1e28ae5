"""Row 3: of a crowd at a breaker that is about to try again, one gets through."""

import asyncio
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from common.breaker import CircuitBreaker, Permit, State, Tuning
from common.clock import ManualClock
from common.errors import CircuitOpen, UpstreamError
from scorecard.row import Finding, Say

ROUNDS = 100
EACH = 50
_OUTAGE_S = 3_600.0


def one_probe(_say: Say) -> Finding:
    """A hundred rounds of a crowd at half-open."""
    clock = ManualClock()
    breaker = CircuitBreaker(failure_threshold=1, clock=clock, tuning=Tuning(probe_timeout_s=_OUTAGE_S))
    probes: Counter[int] = Counter()
    closed = 0
    with _many_thread_switches():
        for _ in range(ROUNDS):
            breaker.acquire().failure(UpstreamError())
            clock.advance(_OUTAGE_S)
            probes[asyncio.run(_Crowd(breaker).ask())] += 1
            closed += breaker.snapshot().state is State.CLOSED
    shown = ", ".join(f"{count} x {number} let through" for number, count in sorted(probes.items()))
    return Finding(
        f"{ROUNDS} rounds of {EACH} threads and {EACH} tasks: {shown}; its success closed {closed}",
        probes == {1: ROUNDS} and closed == ROUNDS,
    )


class _Crowd:
    """Threads and tasks that ask one breaker at the same time."""

    def __init__(self, breaker: CircuitBreaker) -> None:
        self._breaker = breaker
        self._go = threading.Event()
        self._permits: list[Permit] = []
        self._calls = 0

    async def ask(self) -> int:
        """How many were let through."""
        all_asked = asyncio.Event()
        threads = [threading.Thread(target=self._from_thread) for _ in range(EACH)]
        for thread in threads:
            thread.start()
        tasks = [asyncio.create_task(self._from_task(all_asked)) for _ in range(EACH)]
        self._go.set()
        # The tasks ask now, while the threads do.
        await asyncio.sleep(0)
        for thread in threads:
            thread.join()
        all_asked.set()
        await asyncio.gather(*tasks)
        for permit in self._permits:
            permit.success()
        return len(self._permits) + self._calls

    def _from_thread(self) -> None:
        self._go.wait()
        try:
            self._permits.append(self._breaker.acquire())
        except CircuitOpen:
            return

    async def _from_task(self, all_asked: asyncio.Event) -> None:
        async def call() -> None:
            self._calls += 1
            await all_asked.wait()

        try:
            await self._breaker.call(call)
        except CircuitOpen:
            return


@contextmanager
def _many_thread_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
