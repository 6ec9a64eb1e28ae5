"""A customer's 50 requests a day: a durable account, charged before a request is sent.

One document a customer (BMW counts by GCID, across cars and applications) under ``quota/<digest of the GCID>``,
written by compare-and-swap, so that all instances charge the same account. A request that fails has been charged, as
BMW charges it. The day is BMW's: it ends at 00:00 UTC. When BMW itself says that the day is used up, which happens
where another application uses the same customer's requests, nothing is sent before then.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from common.clock import Clock
from common.errors import StoreUnavailable
from common.loops import needs_loop
from common.stores.documents import Body, DocumentExists, Documents, VersionConflict, update
from functions.providers.cardata.failures import CarDataQuotaExceeded

LIMIT: Final = 50
RESERVE: Final = 5
"""Kept for reads that somebody asks to be fresh."""
_LATE_S: Final = 60.0
"""A request that leaves this close to midnight may be counted by BMW on either day, so it is counted on both."""
_EARLY_S: Final = 120.0
"""A refusal this soon after midnight may be BMW's of the day before, whose clock need not be ours."""


@dataclass(frozen=True, slots=True)
class Spending:
    """One customer's day."""

    day: str
    """ISO date, UTC."""
    used: int = 0
    late: int = 0
    """Of these, those of the day's last minute."""
    is_blocked: bool = False
    """BMW has said that the day is used up."""
    pauses_until: datetime | None = None
    """BMW has said so just after midnight: nothing is sent before then."""

    def on(self, now: datetime) -> "Spending":
        """The same on the day of ``now``. A clock that is set back does not give a day back."""
        today = now.astimezone(UTC).date().isoformat()
        if today > self.day:
            return Spending(today, used=self.late if _follows(self.day, today) else 0)
        return replace(self, pauses_until=None) if self.pauses_until and now >= self.pauses_until else self

    def left(self, *, is_forced: bool) -> int:
        """How many requests may still be sent; the reserve is for forced ones alone."""
        return 0 if self.is_blocked or self.pauses_until else max(0, LIMIT - (0 if is_forced else RESERVE) - self.used)

    def refused(self, day: str, now: datetime) -> "Spending":
        """After BMW has refused a request that was charged to ``day``.

        A refusal of yesterday's says nothing of today, and just after midnight BMW may yet be counting yesterday.
        """
        if day != self.day:
            return self
        early_s = (now - _midnight(now)).total_seconds()
        if early_s < _EARLY_S:
            return replace(self, pauses_until=now + timedelta(seconds=_EARLY_S - early_s))
        return replace(self, is_blocked=True)

    def resumes_in_s(self, now: datetime) -> float:
        """Until there will be more to send than now."""
        if self.pauses_until is not None and not self.is_blocked:
            return (self.pauses_until - now).total_seconds()
        return seconds_to_midnight(now)

    def spent(self, now: datetime) -> "Spending":
        """One request more."""
        is_late = seconds_to_midnight(now) <= _LATE_S
        return replace(self, used=self.used + 1, late=self.late + is_late)

    def shown(self, now: datetime) -> Mapping[str, Any]:
        """For the caller: ``{"limit", "used", "remaining", "reserved", "resets_at"}``."""
        return {
            "limit": LIMIT,
            "used": LIMIT if self.is_blocked else self.used,
            "remaining": self.left(is_forced=True),
            "reserved": min(RESERVE, self.left(is_forced=True)),
            "resets_at": now + timedelta(seconds=seconds_to_midnight(now)),
        }


def seconds_to_midnight(now: datetime) -> float:
    """Until the next 00:00 UTC; more than 0."""
    return (_midnight(now) + timedelta(days=1) - now).total_seconds()


def digest(gcid: str) -> str:
    """What a customer is called in keys: the GCID itself is his user name at BMW's stream."""
    return hashlib.sha256(gcid.encode()).hexdigest()


class QuotaLedger:
    """The accounts of all customers, on the document store."""

    def __init__(self, documents: Documents, clock: Clock, *, attempts: int = 20) -> None:
        """``attempts`` to be the one whose write counts, before the store is too busy."""
        self._documents = documents
        self._clock = clock
        self._attempts = attempts

    async def reserve(self, gcid: str, *, is_forced: bool = False) -> Spending:
        """Charge one request before it is sent; the day as it then stands.

        Raises CarDataQuotaExceeded where none is left, with the seconds until there will be, and StoreUnavailable,
        after which nothing may be sent either.
        """
        await needs_loop()

        def charge(held: Spending) -> Spending:
            now = self._clock.utc()
            today = held.on(now)
            if today.left(is_forced=is_forced) < 1:
                raise _exceeded(today, now)
            return today.spent(now)

        return await self._change(gcid, charge)

    async def block(self, gcid: str, day: str) -> CarDataQuotaExceeded:
        """Note that BMW has refused a request that was charged to ``day``; the error to raise.

        Nothing is sent before midnight, or for two minutes where midnight has just been.
        """
        await needs_loop()
        now = self._clock.utc()
        today = await self._change(gcid, lambda held: held.on(now).refused(day, now))
        if not today.is_blocked and not today.pauses_until:
            return CarDataQuotaExceeded(retry_after_s=1)
        return _exceeded(today, now)

    async def look(self, gcid: str) -> Spending:
        """The day as it stands, without charging anything."""
        await needs_loop()
        document = await self._documents.get(_key(gcid))
        now = self._clock.utc()
        return (_from_body(document.body) if document else _nothing(now)).on(now)

    async def _change(self, gcid: str, change: Callable[[Spending], Spending]) -> Spending:
        key = _key(gcid)
        while True:
            try:
                stored = await update(
                    self._documents, key, lambda body: _to_body(change(_from_body(body))), attempts=self._attempts
                )
                if stored is None:
                    stored = await self._documents.create(key, _to_body(change(_nothing(self._clock.utc()))))
            except DocumentExists:
                continue
            except VersionConflict as busy:
                raise StoreUnavailable from busy
            return _from_body(stored.body)


def _exceeded(spending: Spending, now: datetime) -> CarDataQuotaExceeded:
    message = None
    if spending.left(is_forced=True) > 0:
        message = f"The last {RESERVE} of the BMW customer's CarData requests of today are kept for fresh reads."
    return CarDataQuotaExceeded(message, retry_after_s=spending.resumes_in_s(now))


def _nothing(now: datetime) -> Spending:
    return Spending(now.astimezone(UTC).date().isoformat())


def _midnight(now: datetime) -> datetime:
    """The last 00:00 UTC."""
    now = now.astimezone(UTC)
    return datetime(now.year, now.month, now.day, tzinfo=UTC)


def _follows(day: str, today: str) -> bool:
    return datetime.fromisoformat(day) + timedelta(days=1) == datetime.fromisoformat(today)


def _key(gcid: str) -> str:
    return f"quota/{digest(gcid)}"


def _to_body(spending: Spending) -> Body:
    return {
        "day": spending.day,
        "used": spending.used,
        "late": spending.late,
        "is_blocked": spending.is_blocked,
        "pauses_until": spending.pauses_until.isoformat() if spending.pauses_until else None,
    }


def _from_body(body: Mapping[str, Any]) -> Spending:
    until = body.get("pauses_until")
    return Spending(
        body["day"], body["used"], body["late"], body["is_blocked"], datetime.fromisoformat(until) if until else None
    )
