"""More than a valid request for the commands that hurt most: a cap an hour, and a code that proves a second thought.

Both are off unless the deployment asks for them. A cap is the vehicle's, whoever has linked it and however often. The
code comes from a dry run of the very same command, works once and for two minutes; it is stored as a digest only.
"""

import contextlib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from common.clock import Clock
from common.errors import ConfirmationRequired, RateLimitExceeded, StoreUnavailable
from common.ids import random_id
from common.loops import needs_loop
from common.stores.documents import DocumentExists, Documents, VersionConflict
from functions.command_record import Record

CODE_TTL_S = 120.0
_WINDOW = timedelta(hours=1)


Capped = Literal["unlock", "horn"]


@dataclass(frozen=True, slots=True)
class Code:
    """A one-time confirmation."""

    code: str
    expires_at: datetime


class StepUp:
    """Caps and confirmations on the document store."""

    def __init__(
        self, documents: Documents, clock: Clock, *, confirm: frozenset[str], caps_per_hour: Mapping[Capped, int]
    ) -> None:
        self._documents = documents
        self._clock = clock
        self._confirm = confirm
        self._caps = caps_per_hour

    def needs_code(self, record: Record) -> bool:
        """Whether this command is only sent with a code."""
        return record.command.name.value in self._confirm

    async def issue(self, record: Record) -> Code:
        """A code for exactly this command: same caller, vehicle and parameters."""
        await needs_loop()
        code = random_id()
        expires_at = self._clock.utc() + timedelta(seconds=CODE_TTL_S)
        body = {"fingerprint": record.fingerprint, "principal": record.principal, "until": expires_at.isoformat()}
        await self._documents.create(_code_key(record, code), body)
        return Code(code, expires_at)

    async def spend(self, record: Record, code: str | None) -> None:
        """Use a code up; raises ConfirmationRequired for none, a wrong one, an old one, or one that was used."""
        if not self.needs_code(record):
            return
        if code is None:
            raise ConfirmationRequired
        await needs_loop()
        key = _code_key(record, code)
        held = await self._documents.get(key)
        if held is None or (held.body["fingerprint"], held.body["principal"]) != (record.fingerprint, record.principal):
            raise ConfirmationRequired
        if held.body.get("spent") or self._clock.utc() >= _at(held.body["until"]):
            raise ConfirmationRequired
        try:
            # Of two that spend it at once only one replaces it; that they deleted it, a store may well tell both.
            spent = await self._documents.replace(held, {**held.body, "spent": True})
        except VersionConflict:
            raise ConfirmationRequired from None
        with contextlib.suppress(StoreUnavailable, VersionConflict):
            await self._documents.delete(key, spent.version)

    async def left(self, record: Record) -> int | None:
        """How many more may be sent within the hour; ``None`` where there is no cap."""
        cap = self._cap(record)
        if cap is None:
            return None
        await needs_loop()
        held = await self._documents.get(_cap_key(record))
        return max(0, cap - len(self._recent(held.body["sent_at"] if held else [])))

    async def count(self, record: Record) -> None:
        """Count one towards the cap; raises RateLimitExceeded, and counts nothing, where it is reached."""
        cap = self._cap(record)
        if cap is None:
            return
        await needs_loop()
        key = _cap_key(record)
        while True:
            held = await self._documents.get(key)
            recent = self._recent(held.body["sent_at"] if held else [])
            if len(recent) >= cap:
                # A cap of none at all has nothing to wait for.
                wait_s = ((recent[0] if recent else self._clock.utc()) + _WINDOW - self._clock.utc()).total_seconds()
                raise RateLimitExceeded(
                    f"This vehicle takes at most {cap} of these an hour.", retry_after_s=max(wait_s, 1.0)
                )
            body = {"sent_at": [at.isoformat() for at in [*recent, self._clock.utc()]]}
            try:
                if held is None:
                    await self._documents.create(key, body)
                else:
                    await self._documents.replace(held, body)
            except (DocumentExists, VersionConflict):
                continue
            return

    def _cap(self, record: Record) -> int | None:
        return next((cap for name, cap in self._caps.items() if name == record.command.name), None)

    def _recent(self, sent_at: list[str]) -> list[datetime]:
        now = self._clock.utc()
        return [at for at in map(_at, sent_at) if now - at < _WINDOW]


def _code_key(record: Record, code: str) -> str:
    return f"confirmations/{record.account_id}/{hashlib.sha256(code.encode()).hexdigest()}"


def _cap_key(record: Record) -> str:
    return f"caps/{record.vehicle}-{record.command.name.value}"


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
