"""A circuit breaker: leaves a failing service alone for a while, then asks it carefully whether it is back.

The decisions are in :mod:`common.breaker_core`; here is what surrounds them: the lock, the clock, the classification
of outcomes, the permits and the events. Server threads and the event loop may share one breaker; its lock is held
for a decision, never across a call, a listener or a rejection.
"""

import logging
import math
import random
import threading
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from common.breaker_core import BreakerCore
from common.breaker_records import BreakerEvent, BreakerSnapshot, Reason, Refusal, State, Tuning, default_rejection
from common.clock import Clock, SystemClock
from common.errors import ApiError, ProviderError, Vote

__all__ = [
    "BreakerEvent",
    "BreakerSnapshot",
    "Breakers",
    "CircuitBreaker",
    "Permit",
    "Reason",
    "Refusal",
    "State",
    "Tuning",
    "default_rejection",
]

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Permit:
    """The right to make one call. Report its end by exactly one of the three methods; the first one counts.

    A permit that is never reported harms nobody: a probe's lease ends by itself.
    """

    _breaker: "CircuitBreaker"
    generation: int
    since: float
    """When it was given, monotonic seconds."""
    _reported: bool = False

    def success(self) -> None:
        """The call came back well."""
        if not self._reported:
            self._reported = True
            self._breaker.report_success(self)

    def failure(self, exc: BaseException | None = None) -> None:
        """The call raised ``exc``, which decides by its kind and vote how it counts; None counts as a failure."""
        if not self._reported:
            self._reported = True
            self._breaker.report_failure(self, exc)

    def ignore(self) -> None:
        """The call ended in a way that says nothing about the service, or was never made."""
        if not self._reported:
            self._reported = True
            self._breaker.report_ignored(self)


class CircuitBreaker:
    """Rejects calls while a service is failing. See :mod:`common.breaker_core` for the states.

    ``failure_threshold`` failures in a row open it, for ``recovery_timeout`` seconds at first. Only instances of
    ``expected_exception`` count, by their ``vote`` (:class:`common.errors.Vote`) where they carry one and as failures
    where not; their ``retry_after_s`` is the least time to stay open. Anything else, cancellation included, is
    ignored. ``rejection`` makes the error for a call that may not start. ``on_change`` hears of every change of state
    on whichever thread caused it, so it must be quick.
    """

    def __init__(  # noqa: PLR0913 -- the first three are the customary ones, the rest are collaborators
        self,
        failure_threshold: int = 5,
        recovery_timeout: float = 60.0,
        expected_exception: type[BaseException] | tuple[type[BaseException], ...] = ProviderError,
        *,
        name: str = "breaker",
        tuning: Tuning | None = None,
        clock: Clock | None = None,
        uniform: Callable[[float, float], float] = random.uniform,
        on_change: Callable[[BreakerEvent], None] | None = None,
        rejection: Callable[[Refusal], Exception] = default_rejection,
    ) -> None:
        self.name = name
        self._expected = expected_exception
        self._clock = clock or SystemClock()
        self._on_change = on_change
        self._rejection = rejection
        self._core = BreakerCore(name, failure_threshold, recovery_timeout, tuning or Tuning(), uniform)
        # Reentrant, because the garbage collector may close an abandoned call, and so give its permit back, at any
        # allocation, also one made under this lock.
        self._lock = threading.RLock()

    def acquire(self) -> Permit:
        """The right to make one call now. Raises what ``rejection`` makes where there is none."""
        refusal: Refusal | None = None
        with self._lock:
            now = self._clock.monotonic()
            if not self._core.admit(now):
                refusal = self._refusal(now)
            generation = self._core.generation
            events = self._core.take_events()
        if events:
            self._tell(events)
        if refusal is not None:
            raise self._rejection(refusal)
        return Permit(self, generation, now)

    async def call(self, fn: Callable[[], Awaitable[T]]) -> T:
        """Make one call under a permit. Raises what it raises, or what ``rejection`` makes without calling."""
        permit = self.acquire()
        try:
            result = await fn()
        except BaseException as exc:
            permit.failure(exc)
            raise
        permit.success()
        return result

    def snapshot(self) -> BreakerSnapshot:
        """How things stand."""
        with self._lock:
            now, core = self._clock.monotonic(), self._core
            return BreakerSnapshot(
                name=self.name,
                state=core.state,
                failures=core.failures,
                opened_for_s=0.0 if core.left_closed_at is None else now - core.left_closed_at,
                retry_after_s=_whole(core.wait_s(now)),
                reason=core.reason,
                held_by=core.held_by,
                last_success_ago_s=None if core.last_success_at is None else now - core.last_success_at,
                failing_for_s=0.0 if core.failing_since is None else now - core.failing_since,
            )

    def force_open(self) -> None:
        """Reject everything until :meth:`reset`."""
        self._decide(lambda now: self._core.force(State.FORCED_OPEN, now))

    def force_closed(self) -> None:
        """Let everything through and count nothing until :meth:`reset`."""
        self._decide(lambda now: self._core.force(State.FORCED_CLOSED, now))

    def reset(self) -> None:
        """Close and forget everything."""
        self._decide(lambda _: self._core.reset())

    def told(self, failing_for_s: float, for_s: float, by: type[ApiError] | None) -> None:
        """Another instance has had nothing but failures for ``failing_for_s`` and rejects calls for ``for_s`` more.

        ``by`` is the kind of error that holds its circuit, where one does. Opens this one, where it is closed and has
        had no success in that time, for a recovery timeout at most; from there on it finds out for itself.
        """
        self._decide(lambda now: self._core.told(now, failing_for_s, for_s, by))

    def told_over(self) -> None:
        """Another instance has had an answer: where this one only heard of the failing, the next call is a probe."""
        self._decide(self._core.told_over)

    def report_success(self, permit: Permit) -> None:
        """For permits."""
        self._decide(lambda now: self._core.succeeded(permit.generation, now, now - permit.since))

    def report_failure(self, permit: Permit, exc: BaseException | None) -> None:
        """For permits."""
        vote = self._vote(exc)
        if vote is Vote.NONE:
            self.report_ignored(permit)
            return
        wait_s: float | None = getattr(exc, "retry_after_s", None)
        if vote is Vote.HOLD:
            by = type(exc) if isinstance(exc, ApiError) else None
            self._decide(lambda now: self._core.held(permit.generation, now, wait_s, by))
        else:
            self._decide(lambda now: self._core.failed(permit.generation, now, now - permit.since, wait_s))

    def report_ignored(self, permit: Permit) -> None:
        """For permits."""
        self._decide(lambda _: self._core.ignored(permit.generation))

    def _vote(self, exc: BaseException | None) -> Vote:
        if exc is None:
            return Vote.FAILURE
        if not isinstance(exc, self._expected):
            return Vote.NONE
        vote = getattr(exc, "vote", Vote.FAILURE)
        return vote if isinstance(vote, Vote) else Vote.FAILURE

    def _decide(self, decision: Callable[[float], None]) -> None:
        with self._lock:
            decision(self._clock.monotonic())
            events = self._core.take_events()
        if events:
            self._tell(events)

    def _refusal(self, now: float) -> Refusal:
        core = self._core
        return Refusal(self.name, core.state, _whole(core.wait_s(now)), core.held_by)

    def _tell(self, events: list[BreakerEvent]) -> None:
        if self._on_change is None:
            return
        for event in events:
            try:
                self._on_change(event)
            except Exception:  # noqa: BLE001 -- a listener's defect must neither fail a call nor lose its permit
                _log.exception("breaker_listener_failed")


class Breakers(Generic[K]):
    """One breaker a key, made when first asked for. Thread-safe.

    Keys are few and known, such as (provider, region, kind); a key of the caller's choosing would let a stranger
    grow this without bound.
    """

    def __init__(self, make: Callable[[K], CircuitBreaker]) -> None:
        self._make = make
        self._breakers: dict[K, CircuitBreaker] = {}
        self._lock = threading.Lock()

    def get(self, key: K) -> CircuitBreaker:
        """The breaker of ``key``, always the same one."""
        with self._lock:
            breaker = self._breakers.get(key)
            if breaker is None:
                breaker = self._breakers[key] = self._make(key)
            return breaker

    def snapshots(self) -> dict[K, BreakerSnapshot]:
        """How things stand with each."""
        with self._lock:
            breakers = dict(self._breakers)
        return {key: breaker.snapshot() for key, breaker in breakers.items()}


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else math.ceil(seconds)
