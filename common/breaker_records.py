"""What goes into a circuit breaker and what it tells: settings, states, events, refusals."""

from dataclasses import dataclass
from enum import Enum

from common.errors import ApiError, CircuitOpen


class State(Enum):
    """What a breaker does with the next call."""

    CLOSED = "closed"
    """Lets it through and counts its outcome."""
    OPEN = "open"
    """Rejects it until the open time is over."""
    HALF_OPEN = "half_open"
    """Lets one probe through at a time and rejects the others."""
    FORCED_OPEN = "forced_open"
    """Rejects it until somebody resets the breaker."""
    FORCED_CLOSED = "forced_closed"
    """Lets it through and counts nothing, until somebody resets the breaker."""


class Reason(Enum):
    """Why a breaker changed its state."""

    CONSECUTIVE_FAILURES = "consecutive_failures"
    FAILURE_RATE = "failure_rate"
    SLOW_RATE = "slow_rate"
    HOLD = "hold"
    TOLD = "told"
    """By another instance, which has seen it fail."""
    RECOVERY_DUE = "recovery_due"
    PROBE_FAILED = "probe_failed"
    PROBE_SLOW = "probe_slow"
    PROBE_SUCCEEDED = "probe_succeeded"
    FORCED = "forced"
    RESET = "reset"


@dataclass(frozen=True)
class Tuning:
    """What rarely needs changing about when a breaker opens and for how long. Times in seconds, rates from 0 to 1."""

    growth: float = 2.0
    """Each failed probe multiplies the open time by this."""
    max_open_s: float = 900.0
    """The longest open time, before jitter: at this rate an outage of an hour costs at most seven probes."""
    jitter: float = 0.1
    """Each open time is multiplied by something between 1 - jitter and 1 + jitter."""
    window_s: float = 60.0
    minimum_calls: int = 20
    """The two rates say nothing below this many calls in the window."""
    failure_rate: float = 0.5
    slow_call_s: float | None = None
    """A call that takes this long is slow; None: no call is."""
    slow_rate: float = 0.8
    hold_s: float = 3_600.0
    """How long a hold lasts that does not say so itself."""
    max_wait_s: float = 86_400.0
    """No maker's Retry-After is believed beyond this."""
    probe_timeout_s: float = 30.0
    """A probe that has not reported by then is given up and another call may probe: longer than any call may take."""

    def __post_init__(self) -> None:
        """Raise ValueError for what could never open or never recover."""
        if self.minimum_calls < 1:
            raise ValueError("minimum_calls must be at least 1")
        if min(self.max_open_s, self.window_s, self.hold_s, self.max_wait_s, self.probe_timeout_s) <= 0:
            raise ValueError("times must be positive")
        if self.growth < 1 or not 0 <= self.jitter < 1:
            raise ValueError("growth must be at least 1, jitter at least 0 and below 1")


@dataclass(frozen=True)
class BreakerEvent:
    """A change of state. ``generation`` orders the events of one breaker."""

    breaker: str
    before: State
    after: State
    reason: Reason
    generation: int
    open_for_s: float | None
    """How long calls will be rejected from now on; None where that is not a matter of time."""


@dataclass(frozen=True)
class Refusal:
    """Why a call may not start, as told to the factory of the error that says so."""

    breaker: str
    state: State
    retry_after_s: int | None
    """Whole seconds, rounded up; None where time will not help."""
    held_by: type[ApiError] | None
    """The kind of error that holds the breaker open, where one does."""


def default_rejection(refusal: Refusal) -> Exception:
    """CircuitOpen; or, for a hold, the kind of error that caused it: what was true then is still true."""
    kind = refusal.held_by or CircuitOpen
    return kind(retry_after_s=refusal.retry_after_s)


@dataclass(frozen=True)
class BreakerSnapshot:
    """One breaker at one moment, for health pages and metrics."""

    name: str
    state: State
    failures: int
    """Failures in a row that led here."""
    opened_for_s: float
    """Seconds since it was last closed; 0 while it is."""
    retry_after_s: int | None
    """Whole seconds until a probe may start, 0 if now; None while closed or forced."""
    reason: Reason | None
    """Why it is not closed."""
    held_by: type[ApiError] | None
    last_success_ago_s: float | None
    failing_for_s: float
    """Since the first failure after the last success; 0 where there was none."""
