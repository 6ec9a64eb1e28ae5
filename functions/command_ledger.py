"""Commands' records on the document store: created before the send, advanced by compare-and-swap, never rewritten.

Whatever else happens to a record happens here too, so that it cannot be forgotten: the audit entry, the vehicle's
slot, telemetry.
"""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from common.clock import Clock
from common.errors import CommandNotFound, StoreUnavailable
from common.loops import needs_loop
from common.stores.documents import Document, Documents, VersionConflict
from functions.command_record import Record, from_body, is_behind, key_of, to_body
from functions.command_slot import CommandSlots


class Audit(Protocol):
    """Who keeps the audit trail."""

    async def intent(self, record: Record, *, idempotency_key_digest: str | None) -> None:
        """A command is about to be sent; raises StoreUnavailable where that could not be written down."""
        ...

    async def outcome(self, record: Record) -> None:
        """A command reached a state."""
        ...


class CommandLedger:
    """The records of all commands."""

    def __init__(
        self,
        documents: Documents,
        clock: Clock,
        slots: CommandSlots,
        audit: Audit,
        observe: Callable[[Record], None] = lambda _record: None,
    ) -> None:
        self._documents = documents
        self._clock = clock
        self._slots = slots
        self._audit = audit
        self._observe = observe

    async def open(self, record: Record) -> Document:
        """Write the audit entry of what is about to be sent, then the record, create-only.

        Raises StoreUnavailable; then nothing may be sent. The audit entry comes first: an intent without a record
        says that nothing was sent, a record without an intent would be an unlock that nobody answers for.
        """
        await needs_loop()
        await self._audit.intent(record, idempotency_key_digest=record.key_digest)
        return await self._documents.create(key_of(record.id), to_body(record))

    async def load(self, command_id: str) -> Record | None:
        """A record, whosever it is."""
        await needs_loop()
        document = await self._documents.get(key_of(command_id))
        return None if document is None else from_body(document.body)

    async def find(self, principal: str, command_id: str) -> Record:
        """A record of this caller's; raises CommandNotFound, whether it is another's or nobody's."""
        record = await self.load(command_id)
        if record is None or record.principal != principal:
            raise CommandNotFound
        return record

    async def advance(self, record: Record, document: Document | None = None, **changes: Any) -> Record:  # noqa: ANN401
        """Change the stored record; somebody else's final word stands. ``None`` among ``changes`` changes nothing.

        Raises CommandNotFound where the account was disconnected meanwhile.
        """
        await needs_loop()
        given = {name: value for name, value in changes.items() if value is not None}
        while True:
            document = document or await self._documents.get(key_of(record.id))
            if document is None:
                raise CommandNotFound
            current = from_body(document.body)
            if current.is_final or _is_overtaken(record, current, given):
                return current
            advanced = replace(current, updated_at=self._clock.utc(), **given)
            try:
                await self._documents.replace(document, to_body(advanced))
            except VersionConflict:
                document = None
                continue
            await self._after(current, advanced)
            return advanced

    async def erase(self, record: Record) -> None:
        """Delete the record of a command that was never sent, for its account has ended."""
        await needs_loop()
        await self._documents.delete(key_of(record.id))

    async def _after(self, before: Record, record: Record) -> None:
        self._observe(record)
        # The record is what counts and it is written: what follows from it must not hide it.
        if record.is_over and not before.is_over:
            with contextlib.suppress(StoreUnavailable):
                await self._slots.release(record)
        is_accepted = before.event_id is None and record.event_id is not None
        if record.is_final or is_accepted:
            with contextlib.suppress(StoreUnavailable):
                await self._audit.outcome(record)


def _is_overtaken(seen: Record, current: Record, changes: Mapping[str, Any]) -> bool:
    """Whether a change was decided on something that is known better by now: the maker's answers may come late."""
    if seen.event_id is None and current.event_id is not None:
        return True  # taken for abandoned, but its sender has spoken since
    return is_behind(changes.get("state", current.state), current.state)
