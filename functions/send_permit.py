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

    ``recheck`` raises an ApiError where the command must not be sent any more.
    """

    def __init__(self, clock: Clock, ttl_s: float, recheck: Callable[[], Awaitable[None]] = _still_wanted) -> None:
        self._clock = clock
        self._recheck = recheck
        self._until_s = clock.monotonic() + ttl_s
        self.expires_at = clock.utc() + timedelta(seconds=ttl_s)
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
        # Both hands: a wall clock that was set back must not keep a command alive.
        if self._clock.monotonic() >= self._until_s or self._clock.utc() >= self.expires_at:
            raise Expired("The command's time ran out before it could be sent.")
        self.in_doubt = True
        self.sent_at = self._clock.utc()

    def refused(self) -> None:
        """The request that was just taken provably had no effect."""
        self.in_doubt = False
