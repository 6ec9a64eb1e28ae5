"""How long a request still has."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from common.clock import Clock
from common.errors import UpstreamTimeout
from common.loops import needs_loop

T = TypeVar("T")


class Deadline:
    """A moment ``seconds`` from now, on the monotonic clock."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._at = clock.monotonic() + seconds

    def left_s(self) -> float:
        """Seconds left, never less than 0."""
        return max(self._at - self._clock.monotonic(), 0.0)

    @property
    def expired(self) -> bool:
        """Whether nothing is left."""
        return self.left_s() <= 0

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of ``work``; cancels it and raises UpstreamTimeout where the deadline comes first.

        Work that is handed over too late is not begun.
        """
        try:
            await needs_loop()
            left_s = self.left_s()
            if left_s <= 0:
                raise UpstreamTimeout
            limit = asyncio.timeout(left_s)
            try:
                async with limit:
                    return await work
            except TimeoutError as exc:
                if limit.expired():
                    raise UpstreamTimeout from exc
                raise
        finally:
            work.close()
