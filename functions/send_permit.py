"""Leave to send one command once."""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from common.clock import Clock
from common.errors import RemoteServiceError, UpstreamTimeout, Vote


class Expired(UpstreamTimeout):
    """Never sent: its time had run out. Says nothing about the maker."""

    vote = Vote.NONE


async def _still_wanted() -> None:
    pass


class OneSend:
    """Leave for one send, before a time. See :class:`functions.providers.port.SendPermit`.

    Its time, ``ttl_s``, counts from when the request came: ``arrived_s`` on the monotonic clock, just now if None.
    ``recheck`` raises an ApiError where the command must not be sent any more.
    """

    def __init__(
        self,
        clock: Clock,
        ttl_s: float,
        recheck: Callable[[], Awaitable[None]] = _still_wanted,
        *,
        arrived_s: float | None = None,
    ) -> None:
        self._clock = clock
        self._recheck = recheck
        now_s = clock.monotonic()
        since_s = now_s if arrived_s is None else arrived_s
        self._until_s = since_s + ttl_s
        self.expires_at = clock.utc() + timedelta(seconds=self._until_s - now_s)
        self.in_doubt = False
        """A request is or was on its way, and nothing proves that it had no effect."""
        self.sent_at: datetime | None = None

    async def recheck(self) -> None:
        """Ask whether the command is still wanted."""
        await self._recheck()

    def take(self) -> None:
        """Spend the permit."""
        if self.in_doubt:
            raise RemoteServiceError("A command is sent at most once.", may_have_succeeded=True)
        self.check()
        self.in_doubt = True
        self.sent_at = self._clock.utc()

    def check(self) -> None:
        """Raise Expired where the time is over."""
        # Both hands: a wall clock that was set back must not keep a command alive.
        if self._clock.monotonic() >= self._until_s or self._clock.utc() >= self.expires_at:
            raise Expired("The command's time ran out before it could be sent.")

    def refused(self) -> None:
        """The request that was just taken provably had no effect."""
        self.in_doubt = False
