"""The shared store in Redis or Valkey.

Nothing is tried twice and nothing waits longer than ``timeout_s``, connecting included: a request that goes on alone
is better than one that waits. After a failure the server is left alone for ``hold_off_s``.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from common.clock import Clock
from common.loops import needs_loop
from common.stores.hold_off import HoldOff
from common.stores.redis_scripts import CLAIM, FAIL, FULFIL, RELEASE, RENEW
from common.stores.redis_subscription import RedisSubscription
from common.stores.shared import Channel, Claim, ClaimState, SharedUnavailable, Subscription

T = TypeVar("T")

_STAMP_DIGITS = 16
_PAUSE_S = 1.0
_NO_STAMP = "0" * _STAMP_DIGITS


class RedisShared:
    """See :class:`common.stores.shared.Shared`; it is its own channel. Connects at the first operation."""

    def __init__(
        self,
        url: str,
        clock: Clock,
        *,
        namespace: str,
        timeout_s: float = 0.2,
        hold_off_s: float = 1.0,
        max_connections: int = 32,
    ) -> None:
        self._namespace = namespace
        self._timeout_s = timeout_s
        self._hold_off = HoldOff(clock, hold_off_s)
        self._clock = clock
        self._used_at = clock.monotonic()
        self._closed = False
        # The library's own timeouts would start a task a command; ours is around the whole of an operation.
        self._pool: Any = BlockingConnectionPool.from_url(
            url,
            max_connections=max_connections,
            timeout=None,
            socket_timeout=None,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            driver_info=None,
        )
        self._redis: Any = Redis(connection_pool=self._pool)
        self._claim = self._redis.register_script(CLAIM)
        self._fulfil = self._redis.register_script(FULFIL)
        self._fail = self._redis.register_script(FAIL)
        self._renew = self._redis.register_script(RENEW)
        self._release = self._redis.register_script(RELEASE)

    @property
    def channel(self) -> Channel | None:
        """Publish and subscribe of the same server."""
        return self

    @property
    def is_failing(self) -> bool:
        """See the port."""
        return self._hold_off.failing

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """See the port."""
        if not keys:
            return []
        values: list[bytes | None] = await self._run(lambda: self._redis.mget([self._value(key) for key in keys]))
        return values

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        """See the port."""
        await self._run(lambda: self._redis.set(self._value(key), value, px=_ms(ttl_s)))

    async def delete(self, keys: Sequence[str]) -> None:
        """See the port."""
        if keys:
            await self._run(lambda: self._redis.delete(*(self._value(key) for key in keys)))

    async def lease(self, key: str, owner: str, ttl_s: float) -> bool:
        """See the port."""
        taken = await self._run(lambda: self._redis.set(self._names(key)[2], _NO_STAMP + owner, nx=True, px=_ms(ttl_s)))
        return taken is not None

    async def renew(self, key: str, owner: str, ttl_s: float) -> bool:
        """See the port."""
        return bool(await self._run(lambda: self._renew(self._names(key)[2:], [owner, _ms(ttl_s)])))

    async def release(self, key: str, owner: str) -> None:
        """See the port."""
        await self._run(lambda: self._release(self._names(key)[2:], [owner]))

    async def claim(
        self, key: str, owner: str, lease_ttl_s: float, *, max_age_s: float | None = None, newer_than_us: int = 0
    ) -> Claim:
        """See the port."""
        max_age_us = -1 if max_age_s is None else round(max_age_s * 1e6)
        state, now_us, stored = await self._run(
            lambda: self._claim(self._names(key), [owner, _ms(lease_ttl_s), max_age_us, newer_than_us])
        )
        stamp, data = stored[:_STAMP_DIGITS], stored[_STAMP_DIGITS:]
        return Claim(ClaimState(state.decode()), now_us, data, int(stamp or 0))

    async def fulfil(self, key: str, owner: str, value: bytes, ttl_s: float) -> bool:
        """See the port."""
        return bool(await self._run(lambda: self._fulfil(self._names(key), [owner, value, _ms(ttl_s)])))

    async def fail(self, key: str, owner: str, note: bytes, ttl_s: float) -> bool:
        """See the port."""
        return bool(await self._run(lambda: self._fail(self._names(key), [owner, note, _ms(ttl_s)])))

    async def void(self, keys: Sequence[str]) -> None:
        """See the port."""
        if keys:
            await self._run(lambda: self._redis.delete(*(name for key in keys for name in self._names(key))))

    async def publish(self, topic: str, message: bytes) -> None:
        """See the port."""
        await self._run(lambda: self._redis.publish(self._topic(topic), message))

    def subscribe(self, topic: str) -> AbstractAsyncContextManager[Subscription]:
        """See the port."""
        return self._subscribe(topic)

    @asynccontextmanager
    async def _subscribe(self, topic: str) -> AsyncIterator[Subscription]:
        # A connection of its own, outside the pool: the pool would hide that it was lost.
        subscription = RedisSubscription(self._pool.make_connection())
        try:
            await self._run(lambda: subscription.enter(self._topic(topic)))
            yield subscription
        finally:
            await subscription.leave()

    async def ping(self) -> None:
        """See the port."""
        await self._run(self._redis.ping)

    async def aclose(self) -> None:
        """See the port."""
        await needs_loop()
        self._closed = True
        await self._redis.aclose()
        await self._pool.aclose()

    async def _run(self, operation: Callable[[], Awaitable[T]]) -> T:
        # Before the crossing too: what is refused need not leave its thread.
        self._hold_off.check()
        await needs_loop()
        if self._closed:
            raise SharedUnavailable("closed")
        self._hold_off.attempt()
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._look_up()
                result = await operation()
        except (RedisError, OSError, TimeoutError) as exc:
            self._hold_off.failed()
            raise SharedUnavailable(type(exc).__name__) from exc
        self._hold_off.succeeded()
        return result

    async def _look_up(self) -> None:
        """After a pause, let the loop find out which connections have been closed meanwhile: the pool asks it."""
        if self._clock.monotonic() - self._used_at >= _PAUSE_S:
            # The first turn polls the sockets, the second handles what that found.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        self._used_at = self._clock.monotonic()

    def _value(self, key: str) -> str:
        return f"{self._namespace}:value:{key}"

    def _topic(self, topic: str) -> str:
        return f"{self._namespace}:topic:{topic}"

    def _names(self, key: str) -> list[str]:
        """Entry, failure, lease; in braces what a cluster places them by, so that they are in one place."""
        return [f"{self._namespace}:{kind}:{{{key}}}" for kind in ("entry", "failure", "lease")]


def _ms(seconds: float) -> int:
    # Redis refuses 0, and a key without an end must never come about.
    return max(1, round(seconds * 1000))
