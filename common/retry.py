"""Trying a read again, within limits. For reads only: a command is never sent twice.

The loop is tenacity's; ours are the three decisions it asks for: whether this failure deserves another attempt, how
long to wait, and when to give up.
"""

import asyncio
import random
import threading
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception

from common.clock import Clock
from common.deadline import Deadline
from common.errors import ApiError, Vote
from common.loops import needs_loop

T = TypeVar("T")


class RetryBudget:
    """How many retries all requests of a worker may make together, so that retries cannot multiply an outage.

    A token bucket: each request adds ``ratio`` tokens, each second ``floor_per_s`` (so that a quiet service may retry
    too), each retry takes one; never more than ``capacity``, with which it starts. Thread-safe.
    """

    def __init__(self, clock: Clock, *, ratio: float = 0.1, floor_per_s: float = 0.1, capacity: float = 10.0) -> None:
        self._clock = clock
        self._ratio = ratio
        self._floor_per_s = floor_per_s
        self._capacity = capacity
        self._tokens = capacity
        self._filled_at = clock.monotonic()
        self._lock = threading.Lock()

    def request(self) -> None:
        """Count one request."""
        with self._lock:
            self._fill(self._ratio)

    def take(self) -> bool:
        """Whether one retry may be made; if so, it is counted."""
        with self._lock:
            self._fill(0.0)
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True

    def _fill(self, tokens: float) -> None:
        now = self._clock.monotonic()
        earned = tokens + (now - self._filled_at) * self._floor_per_s
        self._tokens = min(self._tokens + earned, self._capacity)
        self._filled_at = now


class ReadRetry:
    """Up to ``attempts`` attempts, with full jitter: waits uniform over 0 to ``base_s`` x 2^n, at most ``cap_s``.

    Only failures that are retryable and count against the maker are tried again. A wait is never shorter than the
    failure's ``retry_after_s``; where it would not end before the deadline, the failure is raised at once.
    """

    def __init__(
        self,
        *,
        budget: RetryBudget,
        attempts: int = 3,
        base_s: float = 0.2,
        cap_s: float = 2.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._budget = budget
        self._attempts = attempts
        self._base_s = base_s
        self._cap_s = cap_s
        self._sleep = sleep
        self._uniform = uniform

    async def run(self, fn: Callable[[], Awaitable[T]], *, deadline: Deadline) -> T:
        """The result of the first attempt that succeeds. Raises the last failure, unchanged."""
        # Before anything else: tenacity keeps its account by thread, and would lose it on the way to the loop.
        await needs_loop()
        self._budget.request()

        async def attempt() -> T:
            return await fn()

        retrying = AsyncRetrying(
            sleep=self._sleep,
            retry=retry_if_exception(_deserves_another),
            wait=self._wait_s,
            stop=lambda state: self._gives_up(state, deadline),
            reraise=True,
        )
        return await retrying(attempt)

    def _wait_s(self, state: RetryCallState) -> float:
        ceiling_s = min(self._base_s * 2.0 ** (state.attempt_number - 1), self._cap_s)
        return max(self._uniform(0.0, ceiling_s), _retry_after_s(state))

    def _gives_up(self, state: RetryCallState, deadline: Deadline) -> bool:
        # The budget last: a retry that will not be made must not be paid for.
        return (
            state.attempt_number >= self._attempts
            or state.upcoming_sleep >= deadline.left_s()
            or not self._budget.take()
        )


def _deserves_another(exc: BaseException) -> bool:
    return isinstance(exc, ApiError) and exc.retryable and exc.vote is Vote.FAILURE


def _retry_after_s(state: RetryCallState) -> float:
    exc = state.outcome.exception() if state.outcome is not None else None
    return (exc.retry_after_s or 0.0) if isinstance(exc, ApiError) else 0.0
