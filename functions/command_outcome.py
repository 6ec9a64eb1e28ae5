"""How a command ends: asking the maker, then the car's own data."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from common.clock import Clock
from common.errors import ApiError, CommandNotFound, NotSupported
from functions.command_ledger import CommandLedger
from functions.command_record import Record, is_behind
from functions.effects import TRACEABLE, shows
from functions.links import Link
from functions.providers.port import Outcome, Progress, SendCommands, Vehicle
from functions.providers.registry import Providers
from functions.snapshot import Location
from functions.upstream import Upstream
from functions.vehicles import Freshness, VehicleManager
from functions.waiters import Waiters

_log = logging.getLogger(__name__)

FORGOTTEN_AFTER_S = 600.0
"""The maker has not said for this long how a command ended: it never will."""
_CONFIRM_EVERY_S = 5.0
_LAST_QUESTION_S = 3.0
_FORGOTTEN_NOTE = "The maker never said how it ended. It is never sent again; look at the car's state."
_NO_PLACE_NOTE = "Too many requests are waiting already, so this one does not: ask again with `command_status`."
_SENDING_GRACE_S = 60.0
"""A record that is still being sent this long after it expired belongs to a process that is gone."""

STATE = {
    Outcome.ACCEPTED: "accepted",
    Outcome.PENDING: "pending",
    Outcome.DELIVERED: "delivered",
    Outcome.EXECUTED: "executed",
    Outcome.FAILED: "failed",
    Outcome.UNKNOWN: "unknown",
}
UNKNOWN_NOTE = "No answer proves whether the car did it. It is never sent again; look at the car's state."


@dataclass(frozen=True, slots=True)
class CommandTimes:
    """Durations in seconds."""

    poll_interval_s: float
    confirm_window_s: float


class CommandOutcomes:
    """Follows commands to their end."""

    def __init__(
        self,
        *,
        providers: Providers,
        ledger: CommandLedger,
        upstream: Upstream,
        vehicles: VehicleManager,
        clock: Clock,
        times: CommandTimes,
        waiters: Waiters,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._providers = providers
        self._ledger = ledger
        self._upstream = upstream
        self._vehicles = vehicles
        self._clock = clock
        self._times = times
        self._waiters = waiters
        self._sleep = sleep
        self._asked_s: OrderedDict[str, float] = OrderedDict()
        """When the maker was last asked on behalf of who wants to know how a command stands, by command."""

    def sender(self, link: Link) -> SendCommands:
        """The maker's remote services; raises NotSupported where it has none."""
        provider = self._providers.get(link.account.provider)
        if provider.commands is None:
            raise NotSupported(provider.commands_advice or f"{provider.name} offers no commands.")
        return provider.commands

    async def wait(self, link: Link, vehicle: Vehicle, record: Record, wait_s: float) -> Record:
        """Follow a record until it is final or ``wait_s`` are over; not at all, and saying so, where too many wait."""
        if record.is_final or wait_s <= 0:
            return record
        with self._waiters.place(link.principal) as has_place:
            if not has_place:
                return replace(record, note=_NO_PLACE_NOTE)
            return await self._follow(link, vehicle, record, wait_s)

    async def _follow(self, link: Link, vehicle: Vehicle, record: Record, wait_s: float) -> Record:
        until = self._clock.monotonic() + wait_s
        while not record.is_final:
            left_s = until - self._clock.monotonic()
            if left_s <= 0:
                break
            await self._sleep(min(self._times.poll_interval_s, left_s))
            try:
                # A question that is under way when the time is over may take a little longer, not the maker's longest.
                async with asyncio.timeout(max(until - self._clock.monotonic(), 0) + _LAST_QUESTION_S):
                    record = await self.advance(link, vehicle, record)
            except TimeoutError:
                break
            except CommandNotFound:
                break  # the account was disconnected meanwhile: nothing more will be learnt
            except ApiError:
                # The command is on its way whether or not the maker can be asked about it just now.
                continue
            except Exception:  # noqa: BLE001 - a defect of ours must not hide that the command was sent
                _log.exception("command_poll_failed")
        return record

    async def asked(self, link: Link, vehicle: Vehicle, record: Record) -> Record:
        """The record after one step; as it is, and saying so, where the maker cannot be asked.

        As it is, too, where he was asked within the usual time between two questions.
        """
        if self._was_asked(record):
            return record
        try:
            return await self.advance(link, vehicle, record)
        except CommandNotFound:
            raise
        except ApiError as error:
            current = await self._ledger.load(record.id)
            if current is None:
                raise CommandNotFound from error
            return replace(current, note=f"The maker could not be asked just now: {error.code}.")

    def _was_asked(self, record: Record) -> bool:
        """Whether somebody is asking, or has asked just now; if not, this one is about to."""
        if record.is_over or record.event_id is None:
            return False  # the maker is not asked, or only for the car's data, which have limits of their own
        now_s = self._clock.monotonic()
        while self._asked_s and next(iter(self._asked_s.values())) <= now_s - self._times.poll_interval_s:
            self._asked_s.popitem(last=False)
        if record.id in self._asked_s:
            return True
        self._asked_s[record.id] = now_s
        return False

    async def advance(self, link: Link, vehicle: Vehicle, record: Record) -> Record:
        """One step towards the end of an open record."""
        if record.is_final:
            return record
        if record.event_id is None:
            return await self.take_up(record)
        if record.state != "executed":
            record = await self._apply(record, await self._poll(link, vehicle, record, record.event_id))
            if not record.is_over and self._is_forgotten(record):
                return await self._ledger.advance(record, state="unknown", note=_FORGOTTEN_NOTE)
        if record.state == "executed" and not record.is_final:
            record = await self._confirm(link, vehicle, record)
        return record

    async def is_over(self, link: Link, vehicle: Vehicle, command_id: str) -> bool:
        """Whether a command that holds a vehicle's slot has ended at the maker, asking once if that is not known."""
        record = await self._ledger.load(command_id)
        if record is None:
            return False  # its process is just about to store it, or died: the slot's time tells
        # Another account's command can only be asked about through that account.
        if not record.is_over and record.account_id == link.account.id:
            try:
                record = await self.advance(link, vehicle, record)
            except ApiError:
                return False
        return record.is_over

    def _is_forgotten(self, record: Record) -> bool:
        return self._clock.utc() >= record.created_at + timedelta(seconds=FORGOTTEN_AFTER_S)

    async def take_up(self, record: Record) -> Record:
        """A record without an event id is being sent right now, or its process died."""
        current = await self._ledger.load(record.id)
        if current is None:
            raise CommandNotFound
        abandoned = self._clock.utc() >= record.expires_at + timedelta(seconds=_SENDING_GRACE_S)
        if current.is_final or current.event_id is not None or not abandoned:
            return current
        return await self._ledger.advance(current, state="unknown", note=UNKNOWN_NOTE)

    async def _poll(self, link: Link, vehicle: Vehicle, record: Record, event_id: str) -> Progress:
        sender = self.sender(link)
        return await self._upstream.read(
            link.account, lambda: sender.poll(link.account, vehicle, record.command, event_id)
        )

    async def _apply(self, record: Record, progress: Progress) -> Record:
        state = STATE[progress.outcome]
        if is_behind(state, record.state) or state == record.state:
            return record
        executed = state == "executed"
        if executed:
            await self._vehicles.changed(record.account_id, record.vin)
        return await self._ledger.advance(
            record,
            state=state,
            executed_at=self._clock.utc() if executed else None,
            settled=ends(record, state),
            note=progress.note,
            position=_shown(progress.position) if progress.position else None,
        )

    async def _confirm(self, link: Link, vehicle: Vehicle, record: Record) -> Record:
        executed_at = record.executed_at or record.updated_at
        # Read since the execution, and not again at each question: two requests a read wear out a quota.
        since_execution_s = max((self._clock.utc() - executed_at).total_seconds(), 0)
        freshness = Freshness(max_age_s=min(_CONFIRM_EVERY_S, since_execution_s))
        snapshot = (await self._vehicles.snapshot(link, vehicle, freshness)).value
        # What the car measured before the command was sent says nothing about its effect.
        seen_after = (
            snapshot.measured_at is not None and record.sent_at is not None and snapshot.measured_at >= record.sent_at
        )
        if seen_after and shows(snapshot, record.command):
            return await self._ledger.advance(record, state="confirmed", confirmed_at=self._clock.utc())
        if self._clock.utc() - executed_at >= timedelta(seconds=self._times.confirm_window_s):
            note = "The maker reports it executed, but the car's own data do not show the effect."
            return await self._ledger.advance(record, settled=True, note=note)
        return record


def ends(record: Record, state: str) -> bool:
    """Whether nothing more can be learnt: what leaves no trace in the car's data cannot be confirmed."""
    return state == "executed" and record.command.name not in TRACEABLE


def _shown(position: Location) -> dict[str, Any]:
    return {"latitude": position.latitude, "longitude": position.longitude, "heading": position.heading_deg}
