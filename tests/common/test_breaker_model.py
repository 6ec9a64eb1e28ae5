"""The breaker against an independent model of it, over random histories.

The model knows no generations and no counters: it keeps the whole history since the breaker last closed and works
everything out from that, and it keeps the set of permits whose report would still count.

``BREAKER_STEPS`` sets how many steps are taken together (default 5000).
"""

import math
import os
from collections.abc import Callable

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from common.breaker import CircuitBreaker, Permit, State, Tuning
from common.clock import ManualClock
from common.errors import (
    ApiError,
    AuthenticationFailed,
    CircuitOpen,
    ProviderBlocked,
    ProviderError,
    QuotaLimitExceeded,
    UpstreamError,
)
from tests.support.machines import CountingMachine, take_steps

STEPS = int(os.environ.get("BREAKER_STEPS", "5000"))
TUNING = Tuning(
    max_open_s=200.0, window_s=40.0, minimum_calls=6, slow_call_s=8.0, slow_rate=0.6, hold_s=500.0, max_wait_s=800.0
)
THRESHOLD, RECOVERY_S = 4, 30.0
JITTERS = (1.0, 0.9, 1.1, 0.95, 1.05)


def jitters() -> Callable[[float, float], float]:
    """Jitter that both sides draw alike."""
    drawn = 0

    def uniform(low: float, high: float) -> float:
        nonlocal drawn
        assert (low, high) == (0.9, 1.1)
        drawn += 1
        return JITTERS[drawn % len(JITTERS)]

    return uniform


class Model:
    """What the breaker should do."""

    def __init__(self) -> None:
        self.uniform = jitters()
        self.state = "closed"
        self.left_closed_at: float | None = None
        self.live: dict[Permit, float] = {}
        """Permits whose report would count, and since when they are out."""
        self.open_until = 0.0
        self.lease_until = 0.0
        self.openings = 0
        self.held_by: type[ApiError] | None = None
        self.history: list[tuple[float, bool, bool]] = []
        """When, failed, slow: of every report since it last closed."""

    def admits(self, now: float) -> bool:
        if self.state == "open":
            return now >= self.open_until
        if self.state == "half_open":
            return not self.live or now >= self.lease_until
        return self.state in {"closed", "forced_closed"}

    def admitted(self, permit: Permit, now: float) -> None:
        if self.state in {"open", "half_open"}:
            self.state = "half_open"
            self.live = {}
            self.lease_until = now + 30.0
        self.live[permit] = now

    def report(self, permit: Permit, now: float, error: Exception | None) -> None:
        since = self.live.pop(permit, None)
        if since is None or self.state == "forced_closed":
            return
        probing = self.state == "half_open"
        if probing and now >= self.lease_until:
            return
        if isinstance(error, ProviderBlocked | QuotaLimitExceeded):
            said = error.retry_after_s
            self.open_for(now, 500.0 if not said else min(said, 800.0))
            self.held_by = type(error)
            return
        if error is not None and not isinstance(error, UpstreamError):
            return
        slow = now - since >= 8.0
        self.history.append((now, error is not None, slow))
        if probing and error is None and not slow:
            self.close()
        elif probing or ((slow or error is not None) and self.is_due(now)):
            said = 0.0 if error is None else min(error.retry_after_s or 0.0, 800.0)
            planned = min(30.0 * 2.0**self.openings, 200.0) * self.uniform(0.9, 1.1)
            self.openings += 1
            self.held_by = None
            self.open_for(now, max(planned, said))

    def is_due(self, now: float) -> bool:
        in_a_row = 0
        for _, failed, _ in reversed(self.history):
            if not failed:
                break
            in_a_row += 1
        slice_s = 4.0
        recent = [call for call in self.history if math.floor(call[0] / slice_s) > math.floor(now / slice_s) - 10]
        failed_calls = sum(failed for _, failed, _ in recent)
        slow_calls = sum(slow for _, _, slow in recent)
        return in_a_row >= THRESHOLD or (
            len(recent) >= 6 and (failed_calls / len(recent) >= 0.5 or slow_calls / len(recent) >= 0.6)
        )

    def open_for(self, now: float, seconds: float) -> None:
        self.state = "open"
        self.live = {}
        self.open_until = now + seconds
        if self.left_closed_at is None:
            self.left_closed_at = now

    def close(self) -> None:
        self.state, self.left_closed_at, self.held_by = "closed", None, None
        self.live, self.history, self.openings = {}, [], 0

    def force(self, state: str, now: float) -> None:
        self.state, self.held_by, self.live = state, None, {}
        self.left_closed_at = now if state == "forced_open" else None

    def retry_after_s(self, now: float) -> int | None:
        if self.state == "open":
            return math.ceil(max(self.open_until - now, 0))
        if self.state == "half_open":
            return math.ceil(max(self.lease_until - now, 0)) if self.live else 0
        return None


waits = st.sampled_from([None, 0.0, 45.5, 300.0, 5_000.0])
errors = st.one_of(
    st.builds(lambda wait: UpstreamError(retry_after_s=wait), waits),
    st.just(UpstreamError()),
    st.just(AuthenticationFailed()),
    st.just(RuntimeError()),
    st.builds(lambda wait: QuotaLimitExceeded(retry_after_s=wait), waits),
    st.just(ProviderBlocked()),
)
outcomes = st.one_of(st.none(), st.none(), st.just(UpstreamError()), st.just(UpstreamError()), errors)


class BreakerMachine(CountingMachine):
    """Does the same to both and compares."""

    @initialize()
    def begin(self) -> None:
        self.clock = ManualClock(seconds=0.0)
        self.breaker = CircuitBreaker(
            THRESHOLD, RECOVERY_S, ProviderError, tuning=TUNING, clock=self.clock, uniform=jitters()
        )
        self.model = Model()
        self.permits: list[Permit] = []

    def start(self) -> Permit | None:
        now = self.clock.monotonic()
        if self.model.admits(now):
            permit = self.breaker.acquire()
            self.model.admitted(permit, now)
            return permit
        with pytest.raises(ApiError) as refused:
            self.breaker.acquire()
        assert type(refused.value) is (self.model.held_by or CircuitOpen)
        assert refused.value.retry_after_s == self.model.retry_after_s(now)
        return None

    def report(self, permit: Permit, error: Exception | None) -> None:
        if error is None:
            permit.success()
        else:
            permit.failure(error)
        self.model.report(permit, self.clock.monotonic(), error)

    @rule()
    def acquire(self) -> None:
        permit = self.start()
        if permit is not None:
            self.permits.append(permit)

    @precondition(lambda self: self.permits)
    @rule(data=st.data(), error=outcomes)
    def finish(self, data: st.DataObject, error: Exception | None) -> None:
        permit = data.draw(st.sampled_from(self.permits))
        self.report(permit, error)

    @precondition(lambda self: self.permits)
    @rule()
    def give_back(self) -> None:
        permit = self.permits.pop()
        permit.ignore()
        self.model.live.pop(permit, None)

    @rule(error=outcomes, times=st.integers(1, 4), gap_s=st.sampled_from([0.0, 0.5, 4.0]))
    def burst(self, error: Exception | None, times: int, gap_s: float) -> None:
        for _ in range(times):
            permit = self.start()
            self.clock.advance(gap_s)
            if permit is not None:
                self.report(permit, error)

    @rule(seconds=st.sampled_from([0.25, 1.0, 8.0, 30.0, 33.0, 66.0, 220.0, 900.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(seconds=st.sampled_from([-3_600.0, 3_600.0]))
    def correct_the_wall_clock(self, seconds: float) -> None:
        self.clock.step_wall(seconds)

    @rule(which=st.sampled_from(["forced_open", "forced_closed", "closed", "closed"]))
    def by_hand(self, which: str) -> None:
        if which == "closed":
            self.breaker.reset()
            self.model.close()
            return
        if which == "forced_open":
            self.breaker.force_open()
        else:
            self.breaker.force_closed()
        self.model.force(which, self.clock.monotonic())

    @invariant()
    def both_agree(self) -> None:
        BreakerMachine.steps += 1
        snapshot, now = self.breaker.snapshot(), self.clock.monotonic()
        assert snapshot.state is State(self.model.state)
        assert snapshot.retry_after_s == self.model.retry_after_s(now)
        assert snapshot.held_by is self.model.held_by
        left = self.model.left_closed_at
        assert snapshot.opened_for_s == (0.0 if left is None else now - left)


def test_the_breaker_never_diverges_from_the_model() -> None:
    take_steps(BreakerMachine, STEPS)
