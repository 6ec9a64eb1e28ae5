"""One customer's stream: connect, listen, replace the connection before its ID token ends, come back when it is lost.

BMW allows one connection a customer, and the newest wins. So a connection whose token ends is not closed and made
again: its successor is connected beside it and evicts it, and the gap is one round trip instead of four or more.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final, Protocol

from common.clock import Clock
from common.errors import ApiError, RelinkRequired
from common.stores.documents import VersionConflict
from functions.providers.cardata.signal_store import StreamWatch
from functions.providers.cardata.stream_index import Customer
from functions.providers.cardata.stream_intake import Intake
from functions.providers.cardata.stream_line import Line, LineEnded
from functions.providers.cardata.stream_messages import parse
from functions.providers.cardata.stream_report import StreamReport
from functions.providers.cardata.stream_retry import Ending, Failures
from functions.tokens import TokenSet

RENEW_BEFORE_S: Final = 50.0
"""Before the ID token ends. Less than the token keeper's own margin: what it gives then is new."""
_RENEW_SPREAD_S: Final = 10.0
BEAT_EVERY_S: Final = 120.0
BEAT_HOLDS: Final = timedelta(seconds=180)
_EVICTION_TAKES_S: Final = 2.0


class State(StrEnum):
    """What a session is doing: with the endings, the states that are counted."""

    CONNECTING = "connecting"
    CONNECTED = "connected"


class OpensLines(Protocol):
    """The broker."""

    async def open(self, gcid: str, id_token: str) -> Line:
        """Connect as a customer and hear all of his cars, which ends any other connection of his. Raises LineEnded."""
        ...


Usable = Callable[[str, str | None], Awaitable[TokenSet]]
"""Tokens of an account, other than the access token that is named. Raises RelinkRequired and other ApiError."""


@dataclass(frozen=True, slots=True)
class SessionParts:
    """What all sessions of a worker share."""

    broker: OpensLines
    usable: Usable
    intake: Intake
    watch: StreamWatch
    report: StreamReport
    clock: Clock
    turns: asyncio.Semaphore
    """How many may connect at once."""
    sleep: Callable[[float], Awaitable[None]]
    spread: Callable[[], float]
    """Random, from 0 to 1."""


class Session:
    """The stream of ``customer``, who may be replaced while it runs."""

    def __init__(self, customer: Customer, parts: SessionParts) -> None:
        self.customer = customer
        self.state: State | Ending = State.CONNECTING
        self._parts = parts
        self._refused: str | None = None
        self._account_id = customer.accounts[0]
        self._deaf_since_s: float | None = None

    async def run(self) -> None:
        """Serve the customer until cancelled; then nothing more is taken in."""
        failures = Failures()
        for account_id in self.customer.accounts:
            self._parts.intake.expect(account_id)
        while True:
            self.state = State.CONNECTING
            begun_s = self._parts.clock.monotonic()
            ending, is_connected = await self._round()
            lived_s = self._parts.clock.monotonic() - begun_s if is_connected else 0.0
            failures = failures.after(ending, lived_s)
            wait_s = failures.wait_s(ending, self._parts.spread())
            self.state = ending
            self._parts.report.ended(self._account_id, ending, failures, wait_s)
            if is_connected:
                self._deaf_since_s = self._parts.clock.monotonic()
                await self._beat(timedelta(0))
            await self._parts.sleep(wait_s)

    async def _round(self) -> tuple[Ending, bool]:
        """One connection from its beginning to its end; why it ended, and whether it ever was."""
        try:
            line, tokens = await self._connect()
        except LineEnded as failed:
            return failed.ending, False
        return await self._serve(line, tokens), True

    async def _connect(self) -> tuple[Line, TokenSet]:
        """Raises LineEnded."""
        async with self._parts.turns:
            tokens = await self._tokens()
            try:
                line = await self._parts.broker.open(tokens.extra["gcid"], tokens.extra["id_token"])
            except LineEnded as failed:
                # Once: where a new token is refused as well, no other one would be taken.
                if failed.ending is Ending.REFUSED and self._refused is None:
                    self._refused = tokens.access_token
                raise
        self._refused = None
        now_s = self._parts.clock.monotonic()
        self._parts.report.connected(
            self._account_id, now_s - self._deaf_since_s if self._deaf_since_s is not None else None
        )
        self._deaf_since_s = None
        self.state = State.CONNECTED
        return line, tokens

    async def _tokens(self) -> TokenSet:
        """Of the first of the customer's accounts that has any. Raises LineEnded."""
        ending = Ending.RELINK_REQUIRED
        for account_id in self.customer.accounts:
            try:
                tokens = await self._parts.usable(account_id, self._refused)
            except RelinkRequired:
                continue
            except ApiError:
                ending = Ending.NO_TOKENS
                continue
            if {"gcid", "id_token"} <= tokens.extra.keys():
                self._account_id = account_id
                return tokens
        raise LineEnded(ending)

    async def _serve(self, line: Line, tokens: TokenSet) -> Ending:
        """Listen until there is no connection any more, replacing it in time."""
        clock = self._parts.clock
        reader = self._read(line, tokens)
        beat_s, renew_s = clock.monotonic(), self._renew_s(tokens)
        failures = Failures()
        try:
            while True:
                if clock.monotonic() >= beat_s:
                    await self._beat(BEAT_HOLDS)
                    beat_s = clock.monotonic() + BEAT_EVERY_S
                if clock.monotonic() >= renew_s and not reader.done():
                    successor = await self._succeed()
                    if isinstance(successor, Ending):
                        failures = failures.after(successor, 0.0)
                        renew_s = clock.monotonic() + failures.wait_s(successor, self._parts.spread())
                    else:
                        await self._hang_up(reader, line, waits_s=_EVICTION_TAKES_S)
                        line, tokens = successor
                        reader, renew_s = self._read(line, tokens), self._renew_s(tokens)
                        failures = Failures()
                if await self._ends_before(reader, min(beat_s, renew_s)):
                    return reader.result()
        finally:
            await self._hang_up(reader, line, waits_s=0.0)

    async def _succeed(self) -> tuple[Line, TokenSet] | Ending:
        """The connection that takes over from the one whose token ends, or why there is none yet."""
        try:
            return await self._connect()
        except LineEnded as failed:
            self._parts.report.not_renewed(self._account_id, failed.ending.value)
            return failed.ending

    def _renew_s(self, tokens: TokenSet) -> float:
        left_s = (tokens.expires_at - self._parts.clock.utc()).total_seconds()
        return self._parts.clock.monotonic() + left_s - RENEW_BEFORE_S + _RENEW_SPREAD_S * self._parts.spread()

    def _read(self, line: Line, tokens: TokenSet) -> asyncio.Task[Ending]:
        async def read(gcid: str) -> Ending:
            try:
                async for topic, payload in line.messages():
                    message = parse(topic, payload, gcid=gcid, at=self._parts.clock.utc())
                    if message is None:
                        self._parts.report.malformed()
                    else:
                        self._parts.intake.take(self.customer.accounts, message.vin, message.signals)
            except LineEnded as ended:
                return ended.ending
            return Ending.LOST

        return asyncio.create_task(read(tokens.extra["gcid"]))

    async def _ends_before(self, reader: "asyncio.Task[Ending]", moment_s: float) -> bool:
        """Whether the connection ends before ``moment_s``; returns at the one or the other."""
        timer = asyncio.ensure_future(self._parts.sleep(max(0.0, moment_s - self._parts.clock.monotonic())))
        try:
            await asyncio.wait({reader, timer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
        return reader.done()

    async def _hang_up(self, reader: "asyncio.Task[Ending]", line: Line, *, waits_s: float) -> None:
        """End a connection; ``waits_s`` for it to be evicted, so that what has arrived by then is still heard."""
        if waits_s:
            await asyncio.wait({reader}, timeout=waits_s)
        reader.cancel()
        await asyncio.wait({reader})
        await line.close()

    async def _beat(self, holds: timedelta) -> None:
        """Tell readers how long the stream can be relied on."""
        until = self._parts.clock.utc() + holds
        for account_id in self.customer.accounts:
            # A reader who is not told asks BMW, which costs a request: no harm is done.
            with contextlib.suppress(ApiError, VersionConflict):
                await self._parts.watch.beat(account_id, until)
