"""The counters that instances share, on Redis or Valkey, by the library `limits`.

A server that cannot be reached fails nothing: callers are told None and count for themselves, and the server is left
alone for a few seconds before one of them tries again.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, TypeVar

from common.clock import Clock
from common.ratelimit import Decision, Limit, Standing
from common.ratelimit_fixed import Wanted

T = TypeVar("T")

TIMEOUT_S = 0.1
RETRY_EVERY_S = 3.0
_MAX_CONNECTIONS = 16


class RedisLimits:
    """Shared counters and moving windows. Opens nothing yet; everything that waits runs on one event loop.

    Windows move by the machines' clocks, as all instances must agree on them.
    """

    def __init__(
        self,
        url: str,
        clock: Clock,
        *,
        prefix: str = "limits",
        timeout_s: float = TIMEOUT_S,
        retry_every_s: float = RETRY_EVERY_S,
    ) -> None:
        """``url`` is ``redis://``, ``rediss://`` or ``unix://``; ``prefix`` keeps deployments on one server apart.

        Raises ValueError for another scheme.
        """
        # 70 ms, spent only where a server is set.
        from limits.aio.storage import RedisStorage  # noqa: PLC0415
        from limits.aio.strategies import MovingWindowRateLimiter  # noqa: PLC0415
        from redis.asyncio import BlockingConnectionPool  # noqa: PLC0415
        from redis.asyncio.retry import Retry  # noqa: PLC0415
        from redis.backoff import NoBackoff  # noqa: PLC0415
        from redis.exceptions import RedisError  # noqa: PLC0415

        self._pool = BlockingConnectionPool.from_url(
            url,
            max_connections=_MAX_CONNECTIONS,
            timeout=timeout_s,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            # By default a client tries again for seconds while the server is down.
            retry=Retry(NoBackoff(), 0),
        )
        self._storage = RedisStorage(
            "async+redis://",
            implementation="redispy",
            key_prefix=prefix,
            connection_pool=self._pool,  # type: ignore[arg-type]  # documented, but left out of the options' type
        )
        self._moving = MovingWindowRateLimiter(self._storage)
        self._failures = (RedisError, OSError)
        self._clock = clock
        self._retry_every_s = retry_every_s
        self._retry_at = float("-inf")
        self._degraded = False

    @property
    def state(self) -> Literal["ok", "degraded"]:
        """Degraded from the first failure to the next success: meanwhile each instance counts for itself."""
        return "degraded" if self._degraded else "ok"

    def usable(self) -> bool:
        """Whether it is worth asking. Any thread."""
        return self._clock.monotonic() >= self._retry_at

    async def add(self, wanted: Sequence[Wanted]) -> Sequence[int] | None:
        """The counts after adding, asked for all at once; None where the server cannot be reached."""
        return await self._ask(
            lambda: asyncio.gather(*(self._storage.incr(key, expiry_s, amount) for key, amount, expiry_s in wanted))
        )

    async def hit(self, limit: Limit, key: str) -> Decision | None:
        """Count one where all windows have room; None where the server cannot be reached.

        How the windows stand is told of what was refused: for the others it would be one more round trip, and no reply
        says it.
        """
        return await self._ask(lambda: self._hit(limit, hashlib.sha256(key.encode()).hexdigest()))

    async def aclose(self) -> None:
        """Give up the connections."""
        await self._pool.aclose()

    async def _hit(self, limit: Limit, digest: str) -> Decision:
        items = [window.item for window in limit.windows]
        fits = [True]
        if len(items) > 1:
            # First a look: what one window refuses should not count in another.
            fits = await asyncio.gather(*(self._moving.test(item, digest) for item in items))
        if all(fits):
            fits = await asyncio.gather(*(self._moving.hit(item, digest) for item in items))
        if all(fits):
            return Decision(True, ())
        stats = await asyncio.gather(*(self._moving.get_window_stats(item, digest) for item in items))
        wall_s = self._clock.utc().timestamp()
        standings = tuple(
            Standing(window, max(0, stat.remaining), max(0.0, min(stat.reset_time - wall_s, window.length_s)))
            for window, stat in zip(limit.windows, stats, strict=True)
        )
        full = [standing for standing, fit in zip(standings, fits, strict=True) if not fit]
        last = max(full, key=lambda standing: standing.reset_s)
        return Decision(False, standings, last.window, last.reset_s)

    async def _ask(self, question: Callable[[], Awaitable[T]]) -> T | None:
        if not self.usable():
            return None
        if self._degraded:
            # One tries; the others need not wait to see it fail.
            self._retry_at = self._clock.monotonic() + self._retry_every_s
        try:
            answer = await question()
        except self._failures:
            self._degraded = True
            self._retry_at = self._clock.monotonic() + self._retry_every_s
            return None
        self._degraded, self._retry_at = False, float("-inf")
        return answer
