"""Every call to a car maker passes here: deadline, circuit breaker, and for reads retries.

Breakers are kept by (provider, region, kind) and never by user: a stranger's five wrong passwords must not close the
road for everybody else.
"""

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from datetime import datetime
from typing import Any, Literal, TypeVar

from common.breaker import Breakers
from common.clock import Clock
from common.deadline import Deadline
from common.retry import ReadRetry
from common.tracing import NO_TRACING, Tracing
from functions.providers.port import Account

T = TypeVar("T")
Kind = Literal["read", "command", "auth"]
BreakerKey = tuple[str, str, Kind]


Learn = Callable[[BreakerKey], Awaitable[None]]
"""Told of each call to come: other instances may know that it is in vain."""


async def _alone(_key: BreakerKey) -> None:
    pass


class Upstream:
    """The guarded road to the makers."""

    def __init__(
        self,
        breakers: Breakers[BreakerKey],
        retry: ReadRetry,
        clock: Clock,
        deadlines_s: Mapping[Kind, float],
        *,
        learn: Learn = _alone,
        tracing: Tracing = NO_TRACING,
    ) -> None:
        self._breakers = breakers
        self._retry = retry
        self._clock = clock
        self._deadlines_s = deadlines_s
        self._learn = learn
        self._tracing = tracing
        self._last_success: dict[str, datetime] = {}

    async def read(self, account: Account, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Ask for something that is safe to ask again: retried inside the deadline."""
        deadline = Deadline(self._clock, self._deadlines_s["read"])
        return await self._retry.run(lambda: self._guarded(account, "read", call, deadline), deadline=deadline)

    async def once(self, account: Account, kind: Kind, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do something exactly once: a login, a command."""
        return await self._guarded(account, kind, call, Deadline(self._clock, self._deadlines_s[kind]))

    def last_success(self, provider: str) -> datetime | None:
        """When a maker last answered well; ``None`` where it has not yet."""
        return self._last_success.get(provider)

    async def _guarded(
        self, account: Account, kind: Kind, call: Callable[[], Coroutine[Any, Any, T]], deadline: Deadline
    ) -> T:
        key: BreakerKey = (account.provider, account.region.value, kind)
        with self._tracing.step("upstream", provider=account.provider, region=account.region.value, kind=kind):
            await self._learn(key)
            breaker = self._breakers.get(key)
            answer = await breaker.call(lambda: deadline.run(call()))
        self._last_success[account.provider] = self._clock.utc()
        return answer
