"""One command in flight a vehicle, across processes and instances, and for whoever has linked it.

The slot is a document that names the command which holds it. It is held until the maker has said how that command
ended, or until its time is up: a process that died must not keep a car from being commanded.
"""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from common.clock import Clock
from common.errors import CommandInProgress
from common.loops import needs_loop
from common.stores.documents import Document, DocumentExists, Documents, VersionConflict
from functions.command_record import Record, account_of

SLOT_S = 90.0
"""Longer than a command may take to be sent (30 s) and to be reported executed by most cars."""

IsOver = Callable[[str], Awaitable[bool]]
"""Whether a command, by id, is known to have ended at the maker."""


class CommandSlots:
    """Slots on the document store."""

    def __init__(self, documents: Documents, clock: Clock) -> None:
        self._documents = documents
        self._clock = clock

    async def take(self, record: Record, is_over: IsOver) -> None:
        """Hold the vehicle's slot for ``record``'s command.

        Raises CommandInProgress while another command holds it, with its operation where it is of the same account.
        """
        await needs_loop()
        key = _key(record)
        while True:
            held = await self._documents.get(key)
            if held is not None and self._holds(held) and not await is_over(held.body["command_id"]):
                left_s = (_until(held) - self._clock.utc()).total_seconds()
                details = {"operation": held.body["operation"]} if _is_own(held, record) else {}
                raise CommandInProgress(details=details, retry_after_s=min(left_s, 5.0))
            try:
                if held is None:
                    await self._documents.create(key, self._body(record))
                else:
                    await self._documents.replace(held, self._body(record))
            except (DocumentExists, VersionConflict):
                continue
            return

    async def release(self, record: Record) -> None:
        """Give the slot back, if this command still holds it."""
        await needs_loop()
        held = await self._documents.get(_key(record))
        if held is not None and held.body["command_id"] == record.id:
            try:
                await self._documents.delete(held.key, held.version)
            except VersionConflict:
                return  # its time was up and another command has it

    async def holder(self, record: Record) -> str | None:
        """The operation in flight for the vehicle, if there is one."""
        await needs_loop()
        held = await self._documents.get(_key(record))
        if held is None or not self._holds(held):
            return None
        return str(held.body["operation"]) if _is_own(held, record) else "another command"

    def _holds(self, held: Document) -> bool:
        return self._clock.utc() < _until(held)

    def _body(self, record: Record) -> dict[str, Any]:
        until = self._clock.utc() + timedelta(seconds=SLOT_S)
        return {"command_id": record.id, "operation": record.command.name.value, "until": until.isoformat()}


def _key(record: Record) -> str:
    return f"slots/{record.vehicle}"


def _is_own(held: Document, record: Record) -> bool:
    """Whether the command in flight is of the same account: what others do with the car is theirs to know."""
    return account_of(held.body["command_id"]) == record.account_id


def _until(held: Document) -> datetime:
    return datetime.fromisoformat(held.body["until"]).astimezone(UTC)
