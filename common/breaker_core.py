"""The decisions of a circuit breaker, without locks, clocks, calls or logs.

::

                   failures in a row, failure rate,
                   slow rate, or a hold
        CLOSED  ------------------------------------>  OPEN
           ^                                          |    ^
           | probe succeeded        its time is over, |    | probe failed, was slow,
           |                        and a call came   v    | or met a hold
           `---------------------------------------  HALF_OPEN

Every permit carries the generation of the state that gave it. What is reported under another generation comes from
an earlier state and changes nothing. Each probe has a generation of its own, for the same reason.

Every method takes ``now`` in monotonic seconds; calls must not overlap, and ``now`` must not go back.
"""

from collections.abc import Callable

from common.breaker_records import BreakerEvent, Reason, State, Tuning
from common.breaker_window import SlidingWindow
from common.errors import ApiError


class BreakerCore:
    """The state of one breaker. Not thread-safe: whoever owns it serialises the calls."""

    def __init__(
        self,
        name: str,
        failure_threshold: int,
        recovery_timeout_s: float,
        tuning: Tuning,
        uniform: Callable[[float, float], float],
    ) -> None:
        if failure_threshold < 1 or recovery_timeout_s <= 0:
            raise ValueError("failure_threshold and recovery_timeout must be positive")
        self._name = name
        self._failure_threshold = failure_threshold
        self._recovery_timeout_s = recovery_timeout_s
        self._tuning = tuning
        self._uniform = uniform
        self._window = SlidingWindow(tuning.window_s)
        self._next_open_s = recovery_timeout_s
        self._open_until = 0.0
        self._lease_until: float | None = None
        self._events: list[BreakerEvent] = []
        self.state = State.CLOSED
        self.generation = 0
        self.failures = 0
        """Failures in a row while closed."""
        self.failing_since: float | None = None
        """When the first failure after the last success was reported."""
        self.left_closed_at: float | None = None
        self.last_success_at: float | None = None
        self.reason: Reason | None = None
        """Why it is not closed."""
        self.held_by: type[ApiError] | None = None
        """The kind of error that holds it open, where one does."""

    def admit(self, now: float) -> bool:
        """Whether a call may start; if so, under ``self.generation``."""
        if self.state is State.CLOSED or self.state is State.FORCED_CLOSED:
            return True
        if self.state is State.FORCED_OPEN:
            return False
        if self.state is State.OPEN:
            if now < self._open_until:
                return False
            self._move(State.HALF_OPEN, Reason.RECOVERY_DUE)
        elif self._lease_until is not None and now < self._lease_until:
            return False
        self.generation += 1
        self._lease_until = now + self._tuning.probe_timeout_s
        return True

    def succeeded(self, generation: int, now: float, took_s: float) -> None:
        """A call came back well."""
        if not self._counts(generation, now):
            return
        self.last_success_at = now
        self.failing_since = None
        slow = self._is_slow(took_s)
        if self.state is State.CLOSED:
            self.failures = 0
            self._window.add(now, failed=False, slow=slow)
            if slow:
                self._open_if_due(now, 0.0)
        elif slow:
            self._open(now, Reason.PROBE_SLOW, 0.0)
        else:
            self._close(Reason.PROBE_SUCCEEDED)

    def failed(self, generation: int, now: float, took_s: float, retry_after_s: float | None) -> None:
        """A call failed; ``retry_after_s`` is the least time to stay away, if the maker said one."""
        if not self._counts(generation, now):
            return
        self._note_failure(now)
        if self.state is State.HALF_OPEN:
            self._open(now, Reason.PROBE_FAILED, self._believed(retry_after_s))
            return
        self.failures += 1
        self._window.add(now, failed=True, slow=self._is_slow(took_s))
        self._open_if_due(now, self._believed(retry_after_s))

    def held(self, generation: int, now: float, retry_after_s: float | None, by: type[ApiError] | None) -> None:
        """A call met an error that speaks for all calls to come: open at once."""
        if not self._counts(generation, now):
            return
        self._note_failure(now)
        self._start_open(now, Reason.HOLD, self._believed(retry_after_s) or self._tuning.hold_s)
        self.held_by = by

    def told(self, now: float, failing_for_s: float, for_s: float, by: type[ApiError] | None) -> None:
        """Somebody else has met nothing but failures for ``failing_for_s`` and stays away for ``for_s`` more.

        Believed while closed, by one who has had no success in that time: otherwise it is the other who is ill. And
        for no longer than a recovery takes, for what was only heard is soon to be tried.
        """
        contradicted = self.last_success_at is not None and now - self.last_success_at < failing_for_s
        if self.state is State.CLOSED and for_s > 0 and not contradicted:
            self._start_open(now, Reason.TOLD, min(for_s, self._recovery_timeout_s))
            self.held_by = by

    def told_over(self, now: float) -> None:
        """Somebody else has had an answer again: what was only heard need not be waited for any more."""
        if self.state is State.OPEN and self.reason is Reason.TOLD:
            self._open_until = now

    def ignored(self, generation: int) -> None:
        """A call ended in a way that says nothing about the maker: the next one may probe."""
        if generation == self.generation and self.state is State.HALF_OPEN:
            self._lease_until = None

    def force(self, state: State, now: float) -> None:
        """Stay in ``state``, FORCED_OPEN or FORCED_CLOSED, until :meth:`reset`."""
        self.held_by = None
        self.reason = Reason.FORCED
        self.left_closed_at = None if state is State.FORCED_CLOSED else now
        self._move(state, Reason.FORCED)

    def reset(self) -> None:
        """Close and forget everything."""
        self._close(Reason.RESET)

    def wait_s(self, now: float) -> float | None:
        """How long until a probe may start, 0 if now; None where that is not what calls are waiting for."""
        if self.state is State.OPEN:
            return max(self._open_until - now, 0.0)
        if self.state is State.HALF_OPEN:
            return 0.0 if self._lease_until is None else max(self._lease_until - now, 0.0)
        return None

    def take_events(self) -> list[BreakerEvent]:
        """What happened since the last time this was asked."""
        events, self._events = self._events, []
        return events

    def _counts(self, generation: int, now: float) -> bool:
        if generation != self.generation:
            return False
        if self.state is State.HALF_OPEN:
            return self._lease_until is not None and now < self._lease_until
        return self.state is State.CLOSED

    def _note_failure(self, now: float) -> None:
        if self.failing_since is None:
            self.failing_since = now

    def _is_slow(self, took_s: float) -> bool:
        return self._tuning.slow_call_s is not None and took_s >= self._tuning.slow_call_s

    def _believed(self, retry_after_s: float | None) -> float:
        # Written so that NaN, which compares false with everything, counts as not said.
        if retry_after_s is None or not retry_after_s > 0:
            return 0.0
        return min(retry_after_s, self._tuning.max_wait_s)

    def _open_if_due(self, now: float, at_least_s: float) -> None:
        reason = self._why_open(now)
        if reason is not None:
            self._open(now, reason, at_least_s)

    def _why_open(self, now: float) -> Reason | None:
        if self.failures >= self._failure_threshold:
            return Reason.CONSECUTIVE_FAILURES
        calls, failures, slow = self._window.totals(now)
        if calls < self._tuning.minimum_calls:
            return None
        if failures >= self._tuning.failure_rate * calls:
            return Reason.FAILURE_RATE
        if self._tuning.slow_call_s is not None and slow >= self._tuning.slow_rate * calls:
            return Reason.SLOW_RATE
        return None

    def _open(self, now: float, reason: Reason, at_least_s: float) -> None:
        jitter = self._uniform(1 - self._tuning.jitter, 1 + self._tuning.jitter)
        open_for_s = max(self._next_open_s * jitter, at_least_s)
        longest_s = max(self._tuning.max_open_s, self._recovery_timeout_s)
        self._next_open_s = min(self._next_open_s * self._tuning.growth, longest_s)
        self.held_by = None
        self._start_open(now, reason, open_for_s)

    def _start_open(self, now: float, reason: Reason, open_for_s: float) -> None:
        self._open_until = now + open_for_s
        self.reason = reason
        if self.left_closed_at is None:
            self.left_closed_at = now
        self._move(State.OPEN, reason, open_for_s)

    def _close(self, reason: Reason) -> None:
        self.failures = 0
        self.failing_since = None
        self.left_closed_at = None
        self.held_by = None
        self._next_open_s = self._recovery_timeout_s
        self._window.clear()
        self.reason = None
        self._move(State.CLOSED, reason)

    def _move(self, after: State, reason: Reason, open_for_s: float | None = None) -> None:
        before, self.state = self.state, after
        self.generation += 1
        self._events.append(BreakerEvent(self._name, before, after, reason, self.generation, open_for_s))
