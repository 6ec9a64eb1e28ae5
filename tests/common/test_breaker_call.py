"""Calls through a breaker: what counts, and what comes back."""

import asyncio
import threading

import pytest

from common.breaker import Breakers, CircuitBreaker, State
from common.clock import ManualClock
from common.errors import CircuitOpen, ProviderBlocked, UpstreamError, Vote


class VendorTrouble(Exception):
    """A kind of error that knows nothing of votes."""


class OtherTrouble(Exception):
    """Another one."""


class OddVote(Exception):
    vote = "against"


async def succeed() -> str:
    return "answer"


async def fail() -> str:
    raise UpstreamError


async def attempt(breaker: CircuitBreaker, error: BaseException) -> None:
    async def call() -> None:
        raise error

    with pytest.raises(type(error)):
        await breaker.call(call)


async def test_a_call_gives_what_the_function_gives() -> None:
    assert await CircuitBreaker().call(succeed) == "answer"


async def test_a_failing_call_raises_its_own_error_and_counts() -> None:
    breaker = CircuitBreaker(failure_threshold=2)
    for _ in range(2):
        with pytest.raises(UpstreamError):
            await breaker.call(fail)
    with pytest.raises(CircuitOpen):
        await breaker.call(succeed)


async def test_a_rejected_call_never_starts() -> None:
    breaker, calls = CircuitBreaker(failure_threshold=1), 0

    async def count() -> None:
        nonlocal calls
        calls += 1

    with pytest.raises(UpstreamError):
        await breaker.call(fail)
    with pytest.raises(CircuitOpen):
        await breaker.call(count)
    assert calls == 0


async def test_expected_errors_without_a_vote_are_failures() -> None:
    breaker = CircuitBreaker(2, 60, (VendorTrouble, OddVote))
    await attempt(breaker, VendorTrouble())
    await attempt(breaker, OddVote())
    assert breaker.snapshot().state is State.OPEN


async def test_errors_that_are_not_expected_are_ignored() -> None:
    breaker = CircuitBreaker(1, 60, VendorTrouble)
    for error in (OtherTrouble(), UpstreamError(), ProviderBlocked(), KeyboardInterrupt()):
        await attempt(breaker, error)
    assert breaker.snapshot().state is State.CLOSED
    assert breaker.snapshot().failures == 0


async def test_a_hold_of_a_kind_outside_the_tree_is_rejected_as_an_open_circuit() -> None:
    class VendorSaysNo(Exception):
        vote = Vote.HOLD
        retry_after_s = 90.0

    breaker = CircuitBreaker(5, 60, VendorSaysNo, clock=ManualClock())
    await attempt(breaker, VendorSaysNo())
    with pytest.raises(CircuitOpen) as caught:
        breaker.acquire()
    assert caught.value.retry_after_s == 90


async def test_a_failure_reported_without_an_error_counts() -> None:
    breaker = CircuitBreaker(failure_threshold=1)
    breaker.acquire().failure()
    assert breaker.snapshot().state is State.OPEN


async def test_a_cancelled_probe_makes_room_for_the_next() -> None:
    clock = ManualClock()
    breaker = CircuitBreaker(failure_threshold=1, clock=clock)
    breaker.acquire().failure(UpstreamError())
    clock.advance(100)
    started = asyncio.Event()

    async def hang() -> None:
        started.set()
        await asyncio.Event().wait()

    probe = asyncio.create_task(breaker.call(hang))
    await started.wait()
    with pytest.raises(CircuitOpen):
        await breaker.call(succeed)
    probe.cancel()
    await asyncio.gather(probe, return_exceptions=True)
    assert await breaker.call(succeed) == "answer"
    assert breaker.snapshot().state is State.CLOSED


async def test_calls_do_not_wait_for_one_another() -> None:
    breaker, running, all_running = CircuitBreaker(), 0, asyncio.Event()

    async def meet() -> None:
        nonlocal running
        running += 1
        if running == 20:
            all_running.set()
        await all_running.wait()

    async with asyncio.timeout(5):
        await asyncio.gather(*(breaker.call(meet) for _ in range(20)))


def test_a_registry_makes_one_breaker_a_key_however_many_ask_at_once() -> None:
    made: list[str] = []
    together = threading.Barrier(50)
    got: list[CircuitBreaker] = []

    def make(key: tuple[str, str]) -> CircuitBreaker:
        made.append("/".join(key))
        return CircuitBreaker(failure_threshold=1, name="/".join(key))

    breakers: Breakers[tuple[str, str]] = Breakers(make)

    def ask() -> None:
        together.wait()
        got.append(breakers.get(("mybmw", "read")))

    threads = [threading.Thread(target=ask) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == ["mybmw/read"]
    assert len(got) == 50
    assert len(set(map(id, got))) == 1


def test_a_registry_keeps_the_keys_apart_and_lists_them() -> None:
    breakers: Breakers[str] = Breakers(lambda key: CircuitBreaker(failure_threshold=1, name=key))
    breakers.get("read").acquire().failure(UpstreamError())
    breakers.get("command")
    snapshots = breakers.snapshots()
    assert {key: snapshot.state for key, snapshot in snapshots.items()} == {
        "read": State.OPEN,
        "command": State.CLOSED,
    }
    assert breakers.get("read") is not breakers.get("command")
