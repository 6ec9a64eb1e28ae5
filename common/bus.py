"""What one instance must tell the others: that something they may hold is not true any more.

The platform takes the CPU away between requests, so a message may lie unread in a socket when the next request comes.
Therefore a request passes :meth:`Bus.fence` before it looks at anything held: where the connection has not proved
itself within ``quiet_s``, a ping is sent along it, and its answer comes after every message that was published before.
Only that proves anything. That a message came does not, for the next may lie behind it. So requests that come back
to back cost one round trip a ``quiet_s`` together, and none of them believes what was voided before it slept.

An answer that is late loses nothing: messages stay in order on their connection. The request goes on without it, and
when it comes it proves what it was asked to. Only a connection that is lost, or silent for ``lost_after_s``, is given
up. It is made again by the next request, not in the background, where there is no CPU. What was said meanwhile is
lost, so ``on_gap`` is called on each new connection: nothing that is held may be taken for true any more.
"""

import asyncio
import secrets
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress

import orjson

from common.clock import Clock
from common.loops import needs_loop
from common.stores.shared import Channel, SharedUnavailable, Subscription

_TOPIC = "bus"
_GAP = "gap"
_MAX_UNSENT = 256
_NEVER = float("-inf")


class Bus:
    """Without a ``channel`` there is nobody else, and nothing here does anything.

    ``handlers``, by kind, and ``on_gap`` run on the worker's loop, must be quick and must not wait; a handler that
    raises counts as a gap. A kind without a handler is another version's and is ignored. Starts nothing before its
    first use, which must come after the server has forked.
    """

    def __init__(
        self,
        channel: Channel | None,
        clock: Clock,
        *,
        handlers: Mapping[str, Callable[[str], None]],
        on_gap: Callable[[], None],
        quiet_s: float = 1.0,
        patience_s: float = 0.1,
        hold_off_s: float = 1.0,
        lost_after_s: float = 3.0,
    ) -> None:
        if _GAP in handlers:
            raise ValueError(f"{_GAP!r} is the bus's own")
        if min(quiet_s, patience_s, hold_off_s, lost_after_s) <= 0:
            raise ValueError("durations must be positive")
        self._channel = channel
        self._clock = clock
        self._handlers = handlers
        self._on_gap = on_gap
        self._quiet_s = quiet_s
        self._patience_s = patience_s
        self._hold_off_s = hold_off_s
        self._lost_after_s = lost_after_s
        self._me = secrets.token_hex(8)
        self._sure_at = _NEVER
        """Monotonic seconds: everything published until then has been heard."""
        self._deaf_until = _NEVER
        self._line: _Line | None = None
        self._round: asyncio.Task[None] | None = None
        self._unsent: list[bytes] = []

    @property
    def is_deaf(self) -> bool:
        """Whether the last attempt to hear the others failed, for /health."""
        return self._deaf_until != _NEVER

    async def fence(self) -> bool:
        """Return when everything is heard that was published more than ``quiet_s`` ago, or up to now after a pause.

        False where that cannot be told, after at most ``patience_s``; then at once for ``hold_off_s``. Stays on the
        caller's thread where there is nothing to wait for.
        """
        if self._channel is None or self._is_sure():
            return True
        if self._clock.monotonic() < self._deaf_until:
            return False
        await needs_loop()
        try:
            async with asyncio.timeout(self._patience_s):
                return await self._heard_all(self._channel)
        except TimeoutError:
            # The answer may have come at the last moment; otherwise what listens goes on without this request.
            if not self._is_sure():
                self._deaf_until = self._clock.monotonic() + self._hold_off_s
            return self._is_sure()

    async def publish(self, kind: str, subject: str) -> bool:
        """Tell the others. False where that failed; it is told them as soon as the store can be reached again."""
        if self._channel is None:
            return True
        await needs_loop()
        self._unsent.append(orjson.dumps([self._me, kind, subject]))
        if len(self._unsent) > _MAX_UNSENT:
            self._unsent = [orjson.dumps([self._me, _GAP, ""])]
        try:
            await self._send(self._channel)
        except SharedUnavailable:
            return False
        return True

    async def aclose(self) -> None:
        """Hear nothing any more."""
        await needs_loop()
        if self._round is not None:
            self._round.cancel()
        await self._hang_up()

    def _is_sure(self) -> bool:
        return self._clock.monotonic() - self._sure_at < self._quiet_s

    async def _heard_all(self, channel: Channel) -> bool:
        while not self._is_sure():
            if self._clock.monotonic() < self._deaf_until:
                return False
            if self._round is None or self._round.done():
                self._round = asyncio.create_task(self._listen(channel))
            # Shared, and not ended by the one who gives up.
            await asyncio.shield(self._round)
        return True

    async def _listen(self, channel: Channel) -> None:
        """Hear everything published up to now, on a new connection if need be; deaf where that fails."""
        try:
            async with asyncio.timeout(self._lost_after_s):
                asked_at = self._clock.monotonic()
                if self._line is None or not await self._line.catch_up():
                    await self._hang_up()
                    asked_at = self._clock.monotonic()
                    self._line = await _Line.open(channel, self._hear, self._lost)
                    self._on_gap()
                self._sure_at, self._deaf_until = asked_at, _NEVER
                with suppress(SharedUnavailable):
                    await self._send(channel)
        except BaseException as exc:
            await self._hang_up()
            if not isinstance(exc, SharedUnavailable | TimeoutError):
                raise
            self._deaf_until = self._clock.monotonic() + self._hold_off_s

    async def _send(self, channel: Channel) -> None:
        """Say what could not be said when it should have been, and what is new."""
        while self._unsent:
            message = self._unsent[0]
            await channel.publish(_TOPIC, message)
            if self._unsent and self._unsent[0] is message:
                del self._unsent[0]

    def _hear(self, message: bytes) -> None:
        try:
            sender, kind, subject = orjson.loads(message)
            if sender == self._me:
                return
            handler = self._handlers.get(kind)
            if kind == _GAP:
                self._on_gap()
            elif handler is not None:
                handler(subject)
        except Exception:  # noqa: BLE001 - something was said and not understood: what is held may not be true
            self._on_gap()

    def _lost(self) -> None:
        self._sure_at = _NEVER

    async def _hang_up(self) -> None:
        line, self._line, self._sure_at = self._line, None, _NEVER
        if line is not None:
            await line.close()


class _Line:
    """A subscription and the task that reads it."""

    def __init__(
        self,
        stack: AsyncExitStack,
        subscription: Subscription,
        hear: Callable[[bytes], None],
        lost: Callable[[], None],
    ) -> None:
        self._stack = stack
        self._subscription = subscription
        self._hear = hear
        self._lost = lost
        self._answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, channel: Channel, hear: Callable[[bytes], None], lost: Callable[[], None]) -> "_Line":
        """Subscribe. ``lost`` is called when the connection ends. Raises SharedUnavailable."""
        async with AsyncExitStack() as stack:
            subscription = await stack.enter_async_context(channel.subscribe(_TOPIC))
            return cls(stack.pop_all(), subscription, hear, lost)

    async def catch_up(self) -> bool:
        """Return when everything published before has been heard; False where the connection is lost."""
        if self._reader.done():
            return False
        self._answer = asyncio.get_running_loop().create_future()
        try:
            await self._subscription.ping()
        except SharedUnavailable:
            return False
        return await self._answer

    async def close(self) -> None:
        """End the connection."""
        self._reader.cancel()
        await asyncio.wait({self._reader})
        await self._stack.aclose()

    async def _read(self) -> None:
        try:
            while True:
                message = await self._subscription.receive()
                if message is not None:
                    self._hear(message)
                elif not self._answer.done():
                    self._answer.set_result(True)
        except SharedUnavailable:
            return
        finally:
            self._lost()
            if not self._answer.done():
                self._answer.set_result(False)
