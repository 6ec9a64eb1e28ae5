"""Row 6: neither a corrected clock nor a late report moves a breaker, and a probe that hangs does not block it."""

import random
from collections import Counter
from collections.abc import Callable, Mapping

from common.breaker import CircuitBreaker, Permit, State, Tuning
from common.clock import ManualClock
from common.errors import CircuitOpen, UpstreamError
from scorecard.row import Finding, Say

ROUNDS = 1_000
_HOUR_S = 3_600.0
_THRESHOLD = 3
_PROBE_S = 30.0

Check = Callable[[random.Random], bool]
"""Whether everything is as it should be, at a random moment."""


def transitions(_say: Say) -> Finding:
    """Each check at a thousand random moments."""
    rng = random.Random(6)
    wrong: Counter[str] = Counter()
    for name, check in _CHECKS.items():
        wrong[name] = sum(not _holds(check, rng) for _ in range(ROUNDS))
    shown = ", ".join(f"{name} {count}" for name, count in wrong.items())
    return Finding(f"wrong transitions of {ROUNDS} each: {shown}", wrong.total() == 0)


def _holds(check: Check, rng: random.Random) -> bool:
    try:
        return check(rng)
    except CircuitOpen:  # where it should have let a call through
        return False


class _Bench:
    """A breaker on a clock that is moved by hand."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.clock = ManualClock()
        self.breaker = CircuitBreaker(
            _THRESHOLD, clock=self.clock, uniform=rng.uniform, tuning=Tuning(probe_timeout_s=_PROBE_S)
        )

    @property
    def state(self) -> State:
        return self.breaker.snapshot().state

    def open(self) -> float:
        """Fail until it is open; seconds until it may try again."""
        for _ in range(_THRESHOLD):
            self.breaker.acquire().failure(UpstreamError())
        return float(self.breaker.snapshot().retry_after_s or 0)

    def probe(self) -> Permit:
        """Open it, wait, and be the probe."""
        self.clock.advance(self.open())
        return self.breaker.acquire()

    def refuses(self) -> bool:
        try:
            self.breaker.acquire()
        except CircuitOpen:
            return True
        return False

    def step_wall(self) -> None:
        self.clock.step_wall(self.rng.choice((-_HOUR_S, _HOUR_S)))


def _clock_while_closed(rng: random.Random) -> bool:
    bench = _Bench(rng)
    for _ in range(rng.randrange(_THRESHOLD)):
        bench.breaker.acquire().failure(UpstreamError())
    before = bench.breaker.snapshot()
    bench.step_wall()
    return bench.breaker.snapshot() == before and bench.state is State.CLOSED


def _clock_while_open(rng: random.Random) -> bool:
    """It stays open to the second, and no longer."""
    bench = _Bench(rng)
    wait_s = bench.open()
    before_s = rng.uniform(0, wait_s - 1.01)
    bench.clock.advance(before_s)
    bench.step_wall()
    still = bench.refuses() and bench.state is State.OPEN
    bench.clock.advance(wait_s - before_s)
    return still and not bench.refuses()


def _clock_while_probing(rng: random.Random) -> bool:
    bench = _Bench(rng)
    permit = bench.probe()
    bench.step_wall()
    alone = bench.refuses() and bench.state is State.HALF_OPEN
    permit.success()
    return alone and bench.state is State.CLOSED


def _hung_probe(rng: random.Random) -> bool:
    """Nobody else while its lease runs, then exactly one; what it says after that counts for nothing."""
    bench = _Bench(rng)
    hung = bench.probe()
    bench.clock.advance(rng.uniform(0, _PROBE_S - 0.01))
    alone = bench.refuses()
    bench.clock.advance(_PROBE_S)
    second = bench.breaker.acquire()
    one = bench.refuses()
    rng.choice((hung.success, hung.failure, hung.ignore))()
    ignored = bench.state is State.HALF_OPEN and bench.refuses()
    second.success()
    return alone and one and ignored and bench.state is State.CLOSED


def _late_success(rng: random.Random) -> bool:
    """A call from before the outage neither closes an open breaker nor ends a probe."""
    bench = _Bench(rng)
    early, late = bench.breaker.acquire(), bench.breaker.acquire()
    wait_s = bench.open()
    bench.clock.advance(rng.uniform(0, wait_s - 1.01))
    early.success()
    stays_open = bench.state is State.OPEN and bench.refuses()
    bench.clock.advance(wait_s)
    probe = bench.breaker.acquire()
    late.success()
    still_probing = bench.state is State.HALF_OPEN and bench.refuses()
    probe.failure(UpstreamError())
    return stays_open and still_probing and bench.state is State.OPEN


_CHECKS: Mapping[str, Check] = {
    "clock stepped while closed": _clock_while_closed,
    "while open": _clock_while_open,
    "while probing": _clock_while_probing,
    "hung probe": _hung_probe,
    "late success": _late_success,
}
