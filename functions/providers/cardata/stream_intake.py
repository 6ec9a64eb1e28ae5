"""From receipt to store: what came in and is not stored yet, account by account.

A message is first written to the journal, at once, and then no kill loses it. What comes in for an account while that
is written goes together with the next write, so a burst costs few. Into the document store, which readers read and
which costs money by the write, the account's newest signals go ``store_every_s`` apart; the first after a pause goes at
once. Without a journal only the document store counts, and the default is not to wait.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from common.clock import Clock
from common.crypto.errors import KeyGone
from common.errors import StoreUnavailable
from common.stores.documents import VersionConflict
from common.stores.shared import SharedUnavailable
from functions.providers.cardata.descriptors import LATITUDE, LONGITUDE
from functions.providers.cardata.signals import Signal, Signals, SignalStore, merge
from functions.providers.cardata.stream_journal import Journal
from functions.providers.cardata.stream_report import StreamReport

STORE_EVERY_S: Final = 2.0
"""Where there is a journal. A reader then sees a signal about a second after the car sent it."""
_RETRY_S: Final = 1.0
_RETRY_AT_MOST_S: Final = 30.0
_AT_ONCE: Final = 16

TellChanged = Callable[[str], Awaitable[None]]


@dataclass(eq=False)
class _Box:
    """One account's signals on their way. Counters are of messages."""

    account_id: str
    pending: dict[str, dict[str, Signal]] = field(default_factory=dict)
    """By VIN."""
    halves: dict[str, dict[str, Signal]] = field(default_factory=dict)
    """The last latitude and longitude of each car, stored already: the next half may belong to one of them."""
    received: int = 0
    kept: int = 0
    stored: int = 0
    unkept_since_s: float = 0.0
    unstored_since_s: float = 0.0
    next_store_s: float = float("-inf")
    failures: int = 0
    owes_recovery: bool = False
    """A killed worker may have left something in the journal, which has not been read yet."""
    is_urgent: bool = False
    news: asyncio.Event = field(default_factory=asyncio.Event)
    writer: asyncio.Task[None] | None = None


class Intake:
    """Takes signals in and sees that they are stored. Lives on one loop.

    ``tell_changed`` is told each account whose stored signals are newer now, and must not raise.
    """

    def __init__(
        self,
        signals: SignalStore,
        journal: Journal | None,
        clock: Clock,
        report: StreamReport,
        tell_changed: TellChanged,
        *,
        store_every_s: float | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._signals = signals
        self._journal = journal
        self._clock = clock
        self._report = report
        self._tell_changed = tell_changed
        default_s = STORE_EVERY_S if journal is not None else 0.0
        self._store_every_s = default_s if store_every_s is None else store_every_s
        self._sleep = sleep
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._boxes: dict[str, _Box] = {}

    @property
    def unsaved(self) -> int:
        """Cars with signals that are not stored yet; accounts of which that is not known yet count as one."""
        return sum(len(box.pending) or box.owes_recovery for box in self._boxes.values())

    def take(self, accounts: Iterable[str], vin: str, incoming: Signals) -> None:
        """Take one message in, for every account that is linked to its customer. Does not wait."""
        now_s = self._clock.monotonic()
        for account_id in accounts:
            box = self._box(account_id)
            box.pending[vin] = merge(box.pending.get(vin) or box.halves.get(vin, {}), incoming)
            if box.kept == box.received:
                box.unkept_since_s = now_s
            if box.stored == box.received:
                box.unstored_since_s = now_s
            box.received += 1
            self._report.received()
            self._wake(box)

    def expect(self, account_id: str) -> None:
        """Messages will come for an account: store what a killed worker has received and not stored. Does not wait."""
        self._wake(self._box(account_id))

    async def drain(self, accounts: Iterable[str] | None = None, *, within_s: float) -> bool:
        """Store now what waits of accounts that are listened to no more, or of all; whether nothing is left."""
        boxes = [self._boxes[one] for one in (self._boxes if accounts is None else accounts) if one in self._boxes]
        writers = [box.writer for box in boxes if box.writer is not None and not box.writer.done()]
        for box in boxes:
            box.is_urgent = True
            box.news.set()
        if writers:
            await asyncio.wait(writers, timeout=within_s)
        left = [box for box in boxes if box.pending]
        for box in boxes:
            box.is_urgent = False
            if not box.pending:
                self._boxes.pop(box.account_id, None)
        return not left

    def forget(self, account_id: str) -> None:
        """Drop everything of an account: it is gone, or another worker's."""
        box = self._boxes.pop(account_id, None)
        if box is not None and box.writer is not None:
            box.pending.clear()
            box.writer.cancel()

    def _box(self, account_id: str) -> _Box:
        box = self._boxes.get(account_id)
        if box is None:
            box = self._boxes[account_id] = _Box(account_id, owes_recovery=self._journal is not None)
        return box

    def _wake(self, box: _Box) -> None:
        box.news.set()
        if box.writer is None or box.writer.done():
            box.writer = asyncio.get_running_loop().create_task(self._write(box))

    async def _write(self, box: _Box) -> None:
        try:
            while box.pending or (box.owes_recovery and not box.is_urgent):
                box.news.clear()
                await self._recover(box)
                if not box.pending:
                    if box.owes_recovery:
                        await _first_of(box.news, _RETRY_S)
                    continue
                may_wait = await self._keep(box)
                wait_s = box.next_store_s - self._clock.monotonic()
                if may_wait and wait_s > 0 and not box.is_urgent:
                    await _first_of(box.news, wait_s)
                else:
                    await self._store(box)
        except KeyGone:
            # Unlinked: nothing of the account may come back.
            self._boxes.pop(box.account_id, None)
            box.pending.clear()

    async def _recover(self, box: _Box) -> None:
        if self._journal is None or not box.owes_recovery:
            return
        with contextlib.suppress(SharedUnavailable, StoreUnavailable):
            for vin, signals in (await self._journal.recover(box.account_id)).items():
                box.pending[vin] = merge(signals, box.pending.get(vin, {}))
            box.owes_recovery = False

    async def _keep(self, box: _Box) -> bool:
        """Write what is new to the journal; whether the document store may then wait. Raises KeyGone."""
        if self._journal is None or box.kept == box.received:
            return True
        if box.owes_recovery:
            return False
        upto = box.received
        if not await self._journal.keep(box.account_id, box.pending):
            return False
        self._have_kept(box, upto)
        return True

    async def _store(self, box: _Box) -> None:
        async with self._turns:
            batch, box.pending = box.pending, {}
            upto = box.received
            box.next_store_s = self._clock.monotonic() + self._store_every_s
            failure = await self._store_cars(box, batch)
        if failure is None:
            box.failures = 0
            await self._have_stored(box, upto)
            return
        for vin, signals in batch.items():
            box.pending[vin] = merge(signals, box.pending.get(vin, {}))
        box.failures += 1
        self._report.store_failed(box.account_id, failure, box.failures)
        await self._sleep(min(_RETRY_AT_MOST_S, _RETRY_S * 2.0 ** min(box.failures - 1, 10)))

    async def _store_cars(self, box: _Box, batch: dict[str, dict[str, Signal]]) -> Exception | None:
        """Store ``batch``, taking out of it what is done; what went wrong. Raises KeyGone."""
        while batch:
            vin = next(iter(batch))
            try:
                await self._signals.upsert(box.account_id, vin, batch[vin])
            except (StoreUnavailable, VersionConflict) as error:
                return error
            except ValueError as error:
                # More than a document holds: no car says so much, and no other message may wait for this one.
                self._report.store_failed(box.account_id, error, 1)
                del batch[vin]
                continue
            stored = batch.pop(vin)
            box.halves[vin] = {name: stored[name] for name in (LATITUDE, LONGITUDE) if name in stored}
        return None

    async def _have_stored(self, box: _Box, upto: int) -> None:
        now_s = self._clock.monotonic()
        if upto > box.stored:
            self._report.stored(upto - box.stored, now_s - box.unstored_since_s)
        box.stored, box.unstored_since_s = upto, now_s
        if box.kept < upto:
            self._have_kept(box, upto)
        await self._tell_changed(box.account_id)

    def _have_kept(self, box: _Box, upto: int) -> None:
        now_s = self._clock.monotonic()
        self._report.kept(upto - box.kept, now_s - box.unkept_since_s)
        box.kept, box.unkept_since_s = upto, now_s


async def _first_of(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
