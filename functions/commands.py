"""The life of a command: claimed, recorded, sent once, asked about until its end is known.

::

    accepted --> pending --> delivered --> executed --> confirmed
        |           |            |            `-- stays executed where the car's data do not show it in time
        |           +------------+--> failed      (the maker says it did not happen)
        +--> failed                               (provably never accepted by the maker)
        +--> expired                              (its time ran out before it was sent)
        `--> unknown                              (it may have happened: a lost answer, a killed process)

Before the first byte leaves, four things are durable, in this order: the claim that ties the request's key to the
command, the vehicle's slot, the audit entry, the record. So a process that is killed at any point leaves a record that
any instance can take up by its id, or leaves nothing and has sent nothing. A record that cannot prove what happened
says ``unknown``, and is never sent again. ``confirmed`` is only said after a read of the car, measured after the
command was sent, shows what was wanted.
"""

import asyncio
import contextlib
import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from common import errors
from common.clock import Clock
from common.errors import (
    AccountNotFound,
    ApiError,
    CommandNotFound,
    IdempotencyInFlight,
    InternalError,
    StoreUnavailable,
    UpstreamTimeout,
    ValidationFailed,
)
from common.ids import random_id
from common.loops import needs_loop
from common.stores.documents import Document
from functions.command_ledger import CommandLedger
from functions.command_outcome import STATE, UNKNOWN_NOTE, CommandOutcomes, ends
from functions.command_record import Record
from functions.command_slot import CommandSlots
from functions.idempotency import Claim, IdempotencyClaims, batch_fingerprint, digest_of, fingerprint
from functions.links import Link, LinkBook
from functions.providers.port import Command, Outcome, Receipt, SendCommands, Vehicle
from functions.send_permit import Expired, OneSend
from functions.step_up import StepUp
from functions.upstream import Upstream
from functions.vehicle_names import VehicleNames
from functions.vehicles import ANY_AGE, VehicleManager

_ABANDONED_AFTER = timedelta(seconds=60)
"""A claim without a record is this young while its request is being prepared; older, its process is gone."""
_NOTES = {
    "failed": "The maker did not accept the command; nothing happened.",
    "expired": "The command's time ran out before it could be sent; nothing happened.",
    "unknown": UNKNOWN_NOTE,
}


@dataclass(frozen=True, slots=True)
class Sent:
    """What a request to send a command comes to."""

    record: Record
    deduplicated: bool = False
    """The record is an earlier request's; this one sent nothing."""


class CommandManager:
    """Sends commands."""

    def __init__(  # noqa: PLR0913 - collaborators, each by its name
        self,
        *,
        ledger: CommandLedger,
        outcomes: CommandOutcomes,
        claims: IdempotencyClaims,
        slots: CommandSlots,
        step_up: StepUp,
        links: LinkBook,
        names: VehicleNames,
        upstream: Upstream,
        vehicles: VehicleManager,
        clock: Clock,
        ttl_s: float,
        require_key: bool,
    ) -> None:
        self._ledger = ledger
        self._outcomes = outcomes
        self._claims = claims
        self._slots = slots
        self._step_up = step_up
        self._links = links
        self._names = names
        self._upstream = upstream
        self._vehicles = vehicles
        self._clock = clock
        self._ttl_s = ttl_s
        self._require_key = require_key

    async def send(
        self,
        link: Link,
        vehicle: Vehicle,
        command: Command,
        *,
        wait_s: float,
        key: str | None,
        code: str | None,
        arrived_s: float | None = None,
    ) -> Sent:
        """Send a command once, or answer with what an identical request already did; wait up to ``wait_s``.

        ``key`` is the caller's Idempotency-Key, ``code`` the confirmation from a dry run, ``arrived_s`` when the
        request came, on the monotonic clock: its time to be sent counts from then.

        Raises before anything is sent: ValidationFailed, IdempotencyMismatch, IdempotencyInFlight, NotSupported,
        PreconditionFailed, ConfirmationRequired, RateLimitExceeded, CommandInProgress, StoreUnavailable, Expired,
        AccountNotFound. Afterwards
        the maker's error, with the command's id in ``details`` and ``may_have_succeeded`` where that cannot be
        excluded.
        """
        if key is None and self._require_key:
            problem = "This deployment takes commands only with an Idempotency-Key header."
            raise ValidationFailed(details={"fields": [{"path": "Idempotency-Key", "problem": problem}]})
        await needs_loop()
        permit = OneSend(self._clock, self._ttl_s, lambda: self._still_linked(link), arrived_s=arrived_s)
        record = self._record(link, vehicle, command, permit, key)
        claim = await self._claims.claim(record, key)
        if not claim.is_ours:
            earlier = await self._earlier(claim, record)
            if earlier is not None:
                followed = await self._outcomes.wait(link, vehicle, earlier, wait_s)
                return Sent(followed, deduplicated=True)
        # Shielded: a caller that hangs up must not leave a command on its way without a record of how it went.
        work = self._prepare_and_send(link, vehicle, record, claim, permit, code)
        record = await asyncio.shield(asyncio.get_running_loop().create_task(work))
        return Sent(await self._outcomes.wait(link, vehicle, record, wait_s))

    async def bind_batch(self, principal: str, key: str, parts: Sequence[Mapping[str, Any]]) -> None:
        """Tie a key to a batch before any part of it runs: what :func:`batch_fingerprint` says of ``parts``.

        Raises IdempotencyMismatch where the key was used for anything else, StoreUnavailable.
        """
        await self._claims.claim_batch(principal, key, batch_fingerprint(parts))

    async def dry_run(self, link: Link, vehicle: Vehicle, command: Command) -> dict[str, Any]:
        """What would be sent and whether it could be; sends nothing. Hands out a confirmation where one is needed."""
        await needs_loop()
        record = self._record(link, vehicle, command, OneSend(self._clock, self._ttl_s), None)
        preconditions = [
            await self._vehicle_allows(link, vehicle, command),
            _precondition("no_command_in_flight", await self._slots.holder(record), "{} is in flight"),
        ]
        left = await self._step_up.left(record)
        if left is not None:
            preconditions.append({"name": "within_hourly_cap", "met": left > 0, "reason": f"{left} left this hour"})
        met = all(precondition["met"] for precondition in preconditions)
        confirmation = await self._step_up.issue(record) if met and self._step_up.needs_code(record) else None
        return {
            "dry_run": True,
            "would_send": {"operation": command.name.value, "params": dict(command.params)},
            "would_be_sent": met,
            "preconditions": preconditions,
            "confirm": {"code": confirmation.code, "expires_at": confirmation.expires_at} if confirmation else None,
        }

    async def find(self, principal: str, command_id: str) -> Record:
        """A record of this caller's; raises CommandNotFound."""
        return await self._ledger.find(principal, command_id)

    async def status(self, link: Link, vehicle: Vehicle, record: Record, wait_s: float) -> Record:
        """The command's record, asking the maker where it is not final."""
        await needs_loop()
        advanced = await self._outcomes.asked(link, vehicle, record)
        return await self._outcomes.wait(link, vehicle, advanced, wait_s)

    def _record(self, link: Link, vehicle: Vehicle, command: Command, permit: OneSend, key: str | None) -> Record:
        now = self._clock.utc()
        return Record(
            id=f"cmd_{link.account.id.removeprefix('acc_')}_{random_id()}",
            principal=link.principal,
            account_id=link.account.id,
            vin=vehicle.vin,
            vehicle=self._names.of(link.account, vehicle.vin),
            command=command,
            fingerprint=fingerprint(link.account.id, vehicle.vin, command),
            created_at=now,
            expires_at=permit.expires_at,
            updated_at=now,
            key_digest=digest_of(link.principal, key) if key is not None else None,
        )

    async def _earlier(self, claim: Claim, record: Record) -> Record | None:
        """The record that an identical request made; ``None`` where this request is to send after all."""
        earlier = await self._ledger.load(claim.command_id)
        keyless = record.key_digest is None
        if earlier is None:
            # Nothing is sent before its record exists, so a claim without one has sent nothing.
            if self._clock.utc() - claim.claimed_at >= _ABANDONED_AFTER and await self._claims.take_over(claim, record):
                return None
            raise IdempotencyInFlight(retry_after_s=1)
        if earlier.state in ("failed", "expired") and keyless and await self._claims.take_over(claim, record):
            return None  # it provably did nothing, and without a key this is how a person tries again
        if earlier.failure is not None:
            raise _same_error(earlier)
        if _is_being_sent(earlier):
            # Or its process died on the way, and nobody must be told that the command is: nobody knows.
            earlier = await self._outcomes.take_up(earlier)
            if _is_being_sent(earlier) and not keyless:
                raise IdempotencyInFlight(details={"command_id": earlier.id}, retry_after_s=1)
        return earlier

    async def _prepare_and_send(
        self, link: Link, vehicle: Vehicle, record: Record, claim: Claim, permit: OneSend, code: str | None
    ) -> Record:
        try:
            permit.check()
            sender = self._outcomes.sender(link)
            snapshot = (await self._vehicles.snapshot(link, vehicle, ANY_AGE)).value
            sender.check(record.command, snapshot)
            await self._slots.take(record, lambda held_by: self._outcomes.is_over(link, vehicle, held_by))
            try:
                await self._step_up.spend(record, code)
                await self._step_up.count(record)
                document = await self._ledger.open(record)
            except BaseException:
                await self._slots.release(record)
                raise
        except ApiError:
            # Nothing was sent: the key may be used again. Where even this fails, the claim frees itself by its age.
            with contextlib.suppress(StoreUnavailable):
                await self._claims.give_up(claim, record.id)
            raise
        return await self._attempt(link, vehicle, sender, document, record, permit)

    async def _attempt(
        self, link: Link, vehicle: Vehicle, sender: SendCommands, document: Document, record: Record, permit: OneSend
    ) -> Record:
        try:
            # Before tokens are asked for; the permit asks again as the bytes leave.
            await permit.recheck()
            receipt = await self._upstream.once(
                link.account, "command", lambda: sender.send(link.account, vehicle, record.command, permit)
            )
        except Exception as failure:
            # A copy: those who waited for one renewal of the tokens share one exception.
            error = copy.copy(failure) if isinstance(failure, ApiError) else InternalError()
            await self._conclude(document, record, error, permit)
            if isinstance(error, AccountNotFound) and not error.may_have_succeeded:
                # Written after the account's end, its record would outlive it; the vehicle's slot does so in any case.
                with contextlib.suppress(StoreUnavailable):
                    await self._ledger.erase(record)
                    await self._slots.release(record)
            raise error from failure
        finally:
            # What is cached was read before the command; what it did to the car has yet to be seen.
            await self._vehicles.changed(record.account_id, record.vin)
        try:
            return await self._ledger.advance(
                record,
                document,
                state=_state_of(receipt),
                event_id=receipt.event_id,
                sent_at=permit.sent_at,
                executed_at=self._clock.utc() if receipt.outcome is Outcome.EXECUTED else None,
                settled=receipt.event_id is None or ends(record, STATE[receipt.outcome]),
                note=receipt.note,
            )
        except (StoreUnavailable, CommandNotFound) as lost:
            lost.may_have_succeeded = True
            lost.details = {**lost.details, "command_id": record.id}
            raise

    async def _still_linked(self, link: Link) -> None:
        """Raise AccountNotFound where a disconnect has begun, at whichever instance."""
        await self._links.find(link.principal, link.account.id)

    async def _conclude(self, document: Document, record: Record, error: ApiError, permit: OneSend) -> None:
        """Write down how a failed send ended, and tell the caller through the error."""
        unproven = error.may_have_succeeded or isinstance(error, UpstreamTimeout | InternalError)
        error.may_have_succeeded = permit.in_doubt and unproven
        error.details = {**error.details, "command_id": record.id}
        state = "unknown" if error.may_have_succeeded else "expired" if isinstance(error, Expired) else "failed"
        failure = {
            "code": error.code,
            "message": error.message,
            "retry_after_s": error.retry_after_s,
            "may_have_succeeded": error.may_have_succeeded,
        }
        try:
            await self._ledger.advance(
                record, document, state=state, sent_at=permit.sent_at, note=_NOTES[state], failure=failure
            )
        except (StoreUnavailable, CommandNotFound):
            return  # the record, if it is still there, becomes `unknown` by its age; the maker's error matters more

    async def _vehicle_allows(self, link: Link, vehicle: Vehicle, command: Command) -> dict[str, Any]:
        snapshot = (await self._vehicles.snapshot(link, vehicle, ANY_AGE)).value
        try:
            self._outcomes.sender(link).check(command, snapshot)
        except ApiError as refusal:
            fields = refusal.details.get("fields")
            reason = fields[0]["problem"] if fields else refusal.message
            return {"name": "vehicle_allows_it", "met": False, "code": refusal.code, "reason": reason}
        return {"name": "vehicle_allows_it", "met": True, "reason": None}


def _state_of(receipt: Receipt) -> str:
    """Accepted without an event id to ask about: nobody will ever know."""
    asks_later = receipt.outcome in (Outcome.ACCEPTED, Outcome.PENDING)
    return "unknown" if asks_later and receipt.event_id is None else STATE[receipt.outcome]


def _precondition(name: str, obstacle: str | None, reason: str) -> dict[str, Any]:
    return {"name": name, "met": obstacle is None, "reason": reason.format(obstacle) if obstacle else None}


def _is_being_sent(record: Record) -> bool:
    return record.event_id is None and not record.is_final


def _same_error(record: Record) -> ApiError:
    """The error that answered the first request, for those that repeat it."""
    failure = record.failure or {}
    cls = errors.BY_CODE[failure["code"]]
    return cls(
        failure["message"],
        details={"command_id": record.id, "deduplicated": True},
        retry_after_s=failure["retry_after_s"],
        may_have_succeeded=failure["may_have_succeeded"],
    )
