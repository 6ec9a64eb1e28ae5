"""Rows 1 to 6: a failing maker is left alone, asked carefully whether it is back, and costs nobody any time."""

import asyncio
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import httpx

from common.breaker import CircuitBreaker, State
from common.clock import ManualClock
from common.errors import AuthenticationFailed, CircuitOpen, UpstreamError, VehicleNotFound
from scorecard import breaker_crowd, breaker_time
from scorecard.row import Finding, Row, Say
from scorecard.service import Deployment, deployed

_ROOT = Path(__file__).resolve().parent.parent
_MODEL = "tests/common/test_breaker_model.py"
REFUSALS = 2_000
REJECTIONS = 50_000
OUTAGES = 10
IGNORED = 10_000
STEPS = 100_000


def _refused_at_once(say: Say) -> Finding:
    with deployed(1, READ_ATTEMPTS="1", BREAKER_RECOVERY_TIMEOUT_S="3600") as service:
        account = service.connect("one@example.com", "row-1")
        fresh = {"action": "status", "account": account, "fresh": True}
        service.vehicles(account)
        _open_circuit(service, fresh)
        say(f"{REFUSALS} requests to an open circuit")
        before = service.maker.stats()["requests_total"]
        answers: list[httpx.Response] = []
        taken_ms = []
        for _ in range(REFUSALS):
            began_s = time.perf_counter()
            answers.append(service.instances[0].post(**fresh))
            taken_ms.append((time.perf_counter() - began_s) * 1e3)
        asked = service.maker.stats()["requests_total"] - before
    right = sum(a.status_code == 503 and a.json()["error"]["code"] == "CIRCUIT_OPEN" for a in answers)
    p99_ms, alone_us = _p99(taken_ms), _p99(_rejections_us())
    measured = f"over HTTP p99 {p99_ms:.1f} ms ({right} of {REFUSALS} CIRCUIT_OPEN, {asked} upstream requests); "
    measured += f"breaker alone p99 {alone_us:.1f} us"
    return Finding(measured, right == REFUSALS and asked == 0 and p99_ms < 10 and alone_us < 50)


def _open_circuit(service: Deployment, fresh: dict[str, object]) -> None:
    service.maker.fault(match={"path": "/vehicles/state"}, fault="status", status=503)
    for _ in range(20):
        if service.instances[0].post(**fresh).json()["error"]["code"] == "CIRCUIT_OPEN":
            return
    raise AssertionError("the circuit does not open")


def _rejections_us() -> list[float]:
    breaker = CircuitBreaker(failure_threshold=1)
    breaker.acquire().failure(UpstreamError())
    taken_us = []
    for _ in range(REJECTIONS):
        began_ns = time.perf_counter_ns()
        try:
            breaker.acquire()
        except CircuitOpen:
            taken_us.append((time.perf_counter_ns() - began_ns) / 1e3)
    return taken_us


def _p99(values: list[float]) -> float:
    return sorted(values)[len(values) * 99 // 100]


def _outage(_say: Say) -> Finding:
    jitters: list[Callable[[float, float], float]] = [random.Random(seed).uniform for seed in range(OUTAGES)]
    calls, back = zip(*(_hour(uniform) for uniform in (*jitters, lambda low, _: low)), strict=True)
    measured = f"{min(calls)} to {max(calls)} upstream calls in {len(calls)} simulated hours, the shortest open times "
    measured += f"included; closed again after {sum(back)} of them"
    return Finding(measured, max(calls) <= 12 and all(back))


def _hour(uniform: Callable[[float, float], float]) -> tuple[int, bool]:
    """Calls that reached the maker, and whether the breaker closed when it was back."""
    clock = ManualClock()
    breaker = CircuitBreaker(clock=clock, uniform=uniform)
    calls = 0
    for _ in range(36_000):
        clock.advance(0.1)
        try:
            permit = breaker.acquire()
        except CircuitOpen:
            continue
        calls += 1
        permit.failure(UpstreamError())
    clock.advance(3_600)
    breaker.acquire().success()
    return calls, breaker.snapshot().state is State.CLOSED


def _not_its_fault(_say: Say) -> Finding:
    return asyncio.run(_outcomes_of_callers())


async def _outcomes_of_callers() -> Finding:
    trips: list[State] = []
    breaker = CircuitBreaker(on_change=lambda event: trips.append(event.after))
    ends = cycle((_raises(AuthenticationFailed()), _raises(VehicleNotFound()), _cancelled))
    for _ in range(IGNORED):
        await _outcome(breaker, next(ends))
    innocent = len(trips)
    mixed = 0
    while breaker.snapshot().state is State.CLOSED and mixed < IGNORED:
        for _ in range(10):
            await _outcome(breaker, next(ends))
        await _outcome(breaker, _raises(UpstreamError()))
        mixed += 1
    measured = f"{IGNORED} of them: {innocent} trips; with one failure to every ten of them it opened after {mixed} "
    measured += "failures"
    return Finding(measured, innocent == 0 and trips == [State.OPEN] and mixed == 5)


def _raises(error: Exception) -> Callable[[], "asyncio.Future[None]"]:
    def fail() -> "asyncio.Future[None]":
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        failed.set_exception(error)
        return failed

    return fail


def _cancelled() -> "asyncio.Future[None]":
    pending: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(pending.cancel)
    return pending


async def _outcome(breaker: CircuitBreaker, call: Callable[[], "asyncio.Future[None]"]) -> None:
    await asyncio.gather(asyncio.ensure_future(breaker.call(call)), return_exceptions=True)


def _model(say: Say) -> Finding:
    say(f"the state machine of {_MODEL}, at least {STEPS:,} steps")
    done = subprocess.run(  # noqa: S603 - our own tests
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "timeout=900", _MODEL],
        cwd=_ROOT,
        env={**os.environ, "BREAKER_STEPS": str(STEPS), "HYPOTHESIS_PROFILE": "random"},
        capture_output=True,
        text=True,
        check=False,
    )
    passed = done.returncode == 0 and "1 passed" in done.stdout
    verdict = "0 divergences" if passed else f"it diverges: {done.stdout[-300:]}"
    return Finding(f">= {STEPS:,} steps: {verdict}", passed)


ROWS = (
    Row(1, "breaker open, over HTTP", "p99 < 10 ms; breaker alone < 50 us", _refused_at_once),
    Row(2, "1 h simulated outage at 10 req/s", "<= 12 upstream calls a key and instance", _outage),
    Row(3, "50 threads + 50 tasks at half-open", "exactly 1 probe", breaker_crowd.one_probe),
    Row(4, "10,000 401/404/cancelled outcomes", "0 trips; mixed with failures it still trips", _not_its_fault),
    Row(5, "Hypothesis state machine against a model", ">= 100k steps, 0 divergence", _model),
    Row(6, "clock +-1 h, hung probe, late success", "0 wrong transitions", breaker_time.transitions),
)
