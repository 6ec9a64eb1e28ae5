"""The life of a command: recorded before it is sent, sent once, asked about until its end is known.

::

    accepted --> pending --> delivered --> executed --> confirmed
        |           |            |            `-- stays executed where the car's data do not show it in time
        |           +------------+--> failed      (the maker says it did not happen)
        +--> failed                               (provably never accepted by the maker)
        +--> expired                              (its time ran out before it was sent)
        `--> unknown                              (it may have happened: a lost answer, a killed process)

The record is durable before the first byte leaves, so a process that is killed at any point leaves a record that any
instance can take up by its id. A record that cannot prove what happened says ``unknown``, and is never sent again.
``confirmed`` is only said after a read of the car, measured after the command was sent, shows what was wanted.
"""

import asyncio
import copy
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from common.clock import Clock
from common.errors import ApiError, CommandNotFound, InternalError, NotSupported, StoreUnavailable, UpstreamTimeout
from common.ids import random_id
from common.loops import needs_loop
from common.stores.documents import Document, Documents, VersionConflict
from functions.command_record import Record, from_body, key_of, to_body
from functions.effects import TRACEABLE, shows
from functions.links import Link
from functions.providers.port import Command, Outcome, Progress, SendCommands, Vehicle
from functions.providers.registry import Providers
from functions.send_permit import Expired, OneSend
from functions.snapshot import Location
from functions.upstream import Upstream
from functions.vehicles import ANY_AGE, NOW, VehicleManager

_log = logging.getLogger(__name__)

_SENDING_GRACE_S = 60.0
"""A record that is still being sent this long after it expired belongs to a process that is gone."""
_STATE = {
    Outcome.ACCEPTED: "accepted",
    Outcome.PENDING: "pending",
    Outcome.DELIVERED: "delivered",
    Outcome.EXECUTED: "executed",
    Outcome.FAILED: "failed",
    Outcome.UNKNOWN: "unknown",
}
_ORDER = {"accepted": 0, "pending": 1, "delivered": 2, "executed": 3, "confirmed": 4}


@dataclass(frozen=True, slots=True)
class CommandTimes:
    """Durations in seconds."""

    ttl_s: float
    poll_interval_s: float
    confirm_window_s: float


class CommandManager:
    """Sends commands and follows them."""

    def __init__(
        self,
        *,
        providers: Providers,
        documents: Documents,
        upstream: Upstream,
        vehicles: VehicleManager,
        clock: Clock,
        times: CommandTimes,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        observe: Callable[[Record], None] = lambda _record: None,
    ) -> None:
        self._providers = providers
        self._documents = documents
        self._upstream = upstream
        self._vehicles = vehicles
        self._clock = clock
        self._times = times
        self._sleep = sleep
        self._observe = observe

    async def send(self, link: Link, vehicle: Vehicle, command: Command, wait_s: float) -> Record:
        """Check, record, send once, and wait up to ``wait_s`` for the outcome.

        Raises NotSupported, PreconditionFailed, ValidationFailed before anything is sent; afterwards the maker's
        error, with the command's id in ``details`` and ``may_have_succeeded`` where that cannot be excluded.
        """
        await needs_loop()
        sender = self._sender(link)
        snapshot = (await self._vehicles.snapshot(link, vehicle, ANY_AGE)).value
        sender.check(command, snapshot)
        permit = OneSend(self._clock, self._times.ttl_s)
        now = self._clock.utc()
        record = Record(
            id=f"cmd_{link.account.id.removeprefix('acc_')}_{random_id()}",
            principal=link.principal,
            account_id=link.account.id,
            vin=vehicle.vin,
            command=command,
            created_at=now,
            expires_at=permit.expires_at,
            updated_at=now,
        )
        document = await self._documents.create(key_of(record.id), to_body(record))
        # Shielded: a caller that hangs up must not leave a command on its way without a record of how it went.
        attempt = asyncio.get_running_loop().create_task(self._attempt(link, vehicle, sender, document, record, permit))
        record = await asyncio.shield(attempt)
        return await self._wait(link, vehicle, record, wait_s)

    async def status(self, link: Link, vehicle: Vehicle, record: Record, wait_s: float) -> Record:
        """The command's record, asking the maker where it is not final."""
        await needs_loop()
        return await self._wait(link, vehicle, await self._advance(link, vehicle, record), wait_s)

    async def find(self, principal: str, command_id: str) -> Record:
        """A record of this caller's; raises CommandNotFound."""
        await needs_loop()
        document = await self._documents.get(key_of(command_id))
        if document is None or document.body["principal"] != principal:
            raise CommandNotFound
        return from_body(document.body)

    def _sender(self, link: Link) -> SendCommands:
        provider = self._providers.get(link.account.provider)
        if provider.commands is None:
            raise NotSupported(f"{provider.name} offers no commands.")
        return provider.commands

    async def _attempt(
        self, link: Link, vehicle: Vehicle, sender: SendCommands, document: Document, record: Record, permit: OneSend
    ) -> Record:
        try:
            receipt = await self._upstream.once(
                link.account, "command", lambda: sender.send(link.account, vehicle, record.command, permit)
            )
        except Exception as failure:
            # A copy: those who waited for one renewal of the tokens share one exception.
            error = copy.copy(failure) if isinstance(failure, ApiError) else InternalError()
            await self._conclude(document, record, error, permit)
            raise error from failure
        finally:
            # What is cached was read before the command; what it did to the car has yet to be seen.
            self._vehicles.invalidate(record.account_id, record.vin)
        try:
            return await self._change(
                record,
                document,
                state=_STATE[receipt.outcome],
                event_id=receipt.event_id,
                sent_at=permit.sent_at,
                executed_at=self._clock.utc() if receipt.outcome is Outcome.EXECUTED else None,
                settled=receipt.event_id is None or _ends(record, _STATE[receipt.outcome]),
                note=receipt.note,
            )
        except (StoreUnavailable, CommandNotFound) as lost:
            lost.may_have_succeeded = True
            lost.details = {**lost.details, "command_id": record.id}
            raise

    async def _conclude(self, document: Document, record: Record, error: ApiError, permit: OneSend) -> None:
        """Write down how a failed send ended, and tell the caller through the error."""
        unproven = error.may_have_succeeded or isinstance(error, UpstreamTimeout | InternalError)
        error.may_have_succeeded = permit.in_doubt and unproven
        error.details = {**error.details, "command_id": record.id}
        state = "unknown" if error.may_have_succeeded else "expired" if isinstance(error, Expired) else "failed"
        try:
            await self._change(record, document, state=state, sent_at=permit.sent_at, note=_AFTER_FAILURE[state])
        except (StoreUnavailable, CommandNotFound):
            return  # the record, if it is still there, becomes `unknown` by its age; the maker's error matters more

    async def _wait(self, link: Link, vehicle: Vehicle, record: Record, wait_s: float) -> Record:
        until = self._clock.monotonic() + wait_s
        while not record.is_final:
            left_s = until - self._clock.monotonic()
            if left_s <= 0:
                break
            await self._sleep(min(self._times.poll_interval_s, left_s))
            try:
                record = await self._advance(link, vehicle, record)
            except CommandNotFound:
                break  # the account was disconnected meanwhile: nothing more will be learnt
            except ApiError:
                # The command is on its way whether or not the maker can be asked about it just now.
                continue
            except Exception:  # noqa: BLE001 - a defect of ours must not hide that the command was sent
                _log.exception("command_poll_failed")
        return record

    async def _advance(self, link: Link, vehicle: Vehicle, record: Record) -> Record:
        """One step towards the end of an open record."""
        if record.is_final:
            return record
        if record.event_id is None:
            return await self._take_up(record)
        if record.state != "executed":
            progress = await self._poll(link, vehicle, record, record.event_id)
            record = await self._apply(record, progress)
        if record.state == "executed" and not record.is_final:
            record = await self._confirm(link, vehicle, record)
        return record

    async def _take_up(self, record: Record) -> Record:
        """A record without an event id is being sent right now, or its process died."""
        if self._clock.utc() < record.expires_at + timedelta(seconds=_SENDING_GRACE_S):
            return record
        return await self._change(record, state="unknown", note=_AFTER_FAILURE["unknown"])

    async def _poll(self, link: Link, vehicle: Vehicle, record: Record, event_id: str) -> Progress:
        sender = self._sender(link)
        return await self._upstream.read(
            link.account, lambda: sender.poll(link.account, vehicle, record.command, event_id)
        )

    async def _apply(self, record: Record, progress: Progress) -> Record:
        state = _STATE[progress.outcome]
        if _ORDER.get(state, 9) <= _ORDER.get(record.state, 0):
            return record
        executed = state == "executed"
        if executed:
            self._vehicles.invalidate(record.account_id, record.vin)
        return await self._change(
            record,
            state=state,
            executed_at=self._clock.utc() if executed else None,
            settled=_ends(record, state),
            note=progress.note,
            position=_shown(progress.position) if progress.position else None,
        )

    async def _confirm(self, link: Link, vehicle: Vehicle, record: Record) -> Record:
        executed_at = record.executed_at or record.updated_at
        snapshot = (await self._vehicles.snapshot(link, vehicle, NOW)).value
        # What the car measured before the command was sent says nothing about its effect.
        seen_after = (
            snapshot.measured_at is not None and record.sent_at is not None and snapshot.measured_at >= record.sent_at
        )
        if seen_after and shows(snapshot, record.command):
            return await self._change(record, state="confirmed", confirmed_at=self._clock.utc(), note=None)
        if self._clock.utc() - executed_at >= timedelta(seconds=self._times.confirm_window_s):
            note = "The maker reports it executed, but the car's own data do not show the effect."
            return await self._change(record, settled=True, note=note)
        return record

    async def _change(self, record: Record, document: Document | None = None, **changes: Any) -> Record:  # noqa: ANN401
        """Advance the stored record by compare-and-swap; somebody else's final word stands."""
        key = key_of(record.id)
        given = {name: value for name, value in changes.items() if value is not None}
        while True:
            document = document or await self._documents.get(key)
            if document is None:
                raise CommandNotFound  # the account was disconnected meanwhile
            current = from_body(document.body)
            if current.is_final or _is_outdated(record, current, given):
                return current
            advanced = replace(current, updated_at=self._clock.utc(), **given)
            try:
                await self._documents.replace(document, to_body(advanced))
            except VersionConflict:
                document = None
                continue
            self._observe(advanced)
            return advanced


_AFTER_FAILURE = {
    "failed": "The maker did not accept the command; nothing happened.",
    "expired": "The command's time ran out before it could be sent; nothing happened.",
    "unknown": "No answer proves whether the car did it. It is never sent again; look at the car's state.",
}


def _ends(record: Record, state: str) -> bool:
    """Whether nothing more can be learnt: what leaves no trace in the car's data cannot be confirmed."""
    return state == "executed" and record.command.name not in TRACEABLE


def _is_outdated(seen: Record, current: Record, changes: Mapping[str, Any]) -> bool:
    """Whether a change, decided on ``seen``, is overtaken: a command never goes back, and answers may come late."""
    if seen.event_id is None and current.event_id is not None:
        return True  # taken for abandoned, but its sender has spoken since
    return _ORDER.get(changes.get("state", current.state), 9) < _ORDER.get(current.state, 0)


def _shown(position: Location) -> dict[str, Any]:
    return {"latitude": position.latitude, "longitude": position.longitude, "heading": position.heading_deg}
