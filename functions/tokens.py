"""The tokens of linked accounts: kept durably, rotated exactly once, never lost.

Makers rotate refresh tokens and revoke the whole family when an old one is used again, so two instances that refresh
one account at the same time lock its owner out. A rotation is therefore guarded twice: in the process by a
single-flight, across processes by a lease inside the token record itself, taken by compare-and-swap and followed by
a re-read. The lease outlives the longest refresh. New tokens are written before anybody uses them; while the store
cannot be written, they are kept in memory and written by the next call.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from common.clock import Clock
from common.errors import RelinkRequired, StoreUnavailable, UpstreamTimeout, Vote
from common.loops import needs_loop
from common.stores.documents import Document, DocumentExists, Documents, VersionConflict

LEASE_S = 45.0
"""Longer than :data:`REFRESH_TIMEOUT_S`: a lease that ends mid-refresh would let a second one start."""
REFRESH_TIMEOUT_S = 30.0
WAIT_FOR_OTHERS_S = 15.0
"""Shorter than a read may take: a deadline that ends first would be counted against the maker."""
EXPIRY_MARGIN_S = 60.0
"""Refresh this long before the access token ends, so that no request is sent with a dying one."""
_SAVE_ATTEMPTS = 8


@dataclass(frozen=True, slots=True)
class TokenSet:
    """What a maker gave to act for an account. ``repr`` hides it."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_at: datetime
    extra: Mapping[str, str] = field(default_factory=dict, repr=False)
    """What else the maker ties to the session (``gcid``, ``session_id``, ``id_token``)."""

    def is_fresh(self, now: datetime, margin_s: float = EXPIRY_MARGIN_S) -> bool:
        """Whether the access token can still be used at ``now``."""
        return now + timedelta(seconds=margin_s) < self.expires_at


@dataclass(frozen=True, slots=True)
class TokenHealth:
    """What may be told about an account's tokens."""

    expires_at: datetime | None
    rotated_at: datetime | None
    needs_relink: bool


class InvalidGrant(Exception):
    """Raised by a refresh when the maker calls the refresh token dead (OAuth ``invalid_grant``)."""


class RenewalPending(UpstreamTimeout):
    """Another instance is renewing the tokens and takes its time. Says nothing about the maker."""

    vote = Vote.NONE


Refresh = Callable[[TokenSet], Awaitable[TokenSet]]
RefreshObserver = Callable[[str, str], None]
"""Told the provider and how each rotation ended: ``rotated``, ``reused``, ``invalid_grant``, ``failed``."""


async def _tell_nobody(_account_id: str) -> None:
    pass


class TokenKeeper:
    """Stores and rotates the tokens of accounts, one document each, under ``tokens/<account id>``."""

    def __init__(
        self,
        documents: Documents,
        clock: Clock,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        observe: RefreshObserver = lambda _provider, _outcome: None,
        announce: Callable[[str], Awaitable[None]] = _tell_nobody,
    ) -> None:
        """``announce`` is told the account of each rotation that was written, and must not raise."""
        self._documents = documents
        self._clock = clock
        self._sleep = sleep
        self._observe = observe
        self._announce = announce
        self._held: dict[str, TokenSet] = {}
        self._unsaved: dict[str, _Rotation] = {}
        self._flights: dict[str, asyncio.Task[TokenSet]] = {}

    async def save(self, account_id: str, tokens: TokenSet) -> None:
        """Store the tokens of a login, replacing any others."""
        await needs_loop()
        key = _key(account_id)
        record = _Record(tokens, rotation=_new_id(), rotated_at=self._clock.utc())
        failures = 0
        while True:
            try:
                current = await self._documents.get(key)
                if current is None:
                    await self._documents.create(key, record.to_body())
                else:
                    await self._documents.replace(current, record.to_body())
            except (DocumentExists, VersionConflict):
                continue
            except StoreUnavailable:
                # The login behind these tokens has used up its captcha: a passing fault must not cost another one.
                failures += 1
                if failures == _SAVE_ATTEMPTS:
                    raise
                await self._sleep(min(0.1 * 2**failures, 3.0))
                continue
            self._unsaved.pop(account_id, None)
            self._held[account_id] = tokens
            return

    async def usable(
        self, account_id: str, refresh: Refresh, *, refused: str | None = None, provider: str = "unknown"
    ) -> TokenSet:
        """Tokens that can be used now, rotating them first where they are about to end.

        ``refused`` is an access token that the maker has just answered 401: anything newer will do, and that one is
        rotated. ``provider`` is told to the observer.

        Raises RelinkRequired where there are none or they are dead, StoreUnavailable, and whatever ``refresh``
        raises, except :class:`InvalidGrant`.
        """
        while True:
            held = self._held.get(account_id)
            if held is not None and held.access_token != refused and held.is_fresh(self._clock.utc()):
                return held
            await needs_loop()
            flight = self._flights.get(account_id)
            is_ours = flight is None or flight.done()
            if flight is None or is_ours:
                flight = asyncio.get_running_loop().create_task(self._rotate(account_id, refresh, refused, provider))
                self._flights[account_id] = flight
                flight.add_done_callback(lambda done: self._landed(account_id, done))
            # A caller that gives up must not stop a rotation half-way: the new token would be lost.
            tokens = await asyncio.shield(flight)
            # Who began it may not have known of the refusal.
            if is_ours or tokens.access_token != refused:
                return tokens

    async def health(self, account_id: str) -> TokenHealth | None:
        """What is known of an account's tokens; ``None`` where there are none."""
        await needs_loop()
        document = await self._documents.get(_key(account_id))
        if document is None:
            return None
        record = _Record.from_body(document.body)
        return TokenHealth(record.tokens.expires_at, record.rotated_at, record.needs_relink)

    def holds(self, account_id: str) -> bool:
        """Whether usable tokens of an account are held in memory."""
        held = self._held.get(account_id)
        return held is not None and held.is_fresh(self._clock.utc())

    def forget(self, account_id: str) -> None:
        """Drop what is held in memory for an account, except what is stored nowhere else."""
        self._held.pop(account_id, None)

    async def delete(self, account_id: str) -> None:
        """Delete an account's tokens everywhere."""
        await needs_loop()
        self.forget(account_id)
        self._unsaved.pop(account_id, None)
        await self._documents.delete(_key(account_id))

    def _landed(self, account_id: str, flight: "asyncio.Task[TokenSet]") -> None:
        if self._flights.get(account_id) is flight:
            del self._flights[account_id]

    async def _rotate(self, account_id: str, refresh: Refresh, refused: str | None, provider: str) -> TokenSet:
        unsaved = self._unsaved.get(account_id)
        if unsaved is not None:
            await self._store(account_id, unsaved)
        waited_s = 0.0
        while True:
            document, record = await self._read(account_id)
            now = self._clock.utc()
            if record.tokens.access_token != refused and record.tokens.is_fresh(now):
                self._held[account_id] = record.tokens
                self._observe(provider, "reused")
                return record.tokens
            if record.leased_until is None or record.leased_until <= now:
                leased = replace(record, lease=_new_id(), leased_until=now + timedelta(seconds=LEASE_S))
                try:
                    document = await self._documents.replace(document, leased.to_body())
                except VersionConflict:
                    continue
                return await self._refresh_under_lease(account_id, document, leased, refresh, provider)
            if waited_s >= WAIT_FOR_OTHERS_S:
                raise RenewalPending("Another instance is renewing this account's authorisation.", retry_after_s=5)
            await self._sleep(0.25)
            waited_s += 0.25

    async def _refresh_under_lease(
        self, account_id: str, document: Document, leased: "_Record", refresh: Refresh, provider: str
    ) -> TokenSet:
        try:
            async with asyncio.timeout(REFRESH_TIMEOUT_S):
                fresh = await refresh(leased.tokens)
        except InvalidGrant as dead:
            return await self._after_invalid_grant(account_id, leased, dead, provider)
        except TimeoutError as late:
            self._observe(provider, "failed")
            raise UpstreamTimeout from late
        except BaseException:
            self._observe(provider, "failed")
            await self._release(document, leased)
            raise
        record = _Record(fresh, rotation=_new_id(), rotated_at=self._clock.utc())
        # From here on the maker knows only the new token: it is kept until it is written, whatever becomes of the call.
        self._unsaved[account_id] = rotation = _Rotation(document, leased.tokens.refresh_token, record)
        self._observe(provider, "rotated")
        return await self._store(account_id, rotation)

    async def _store(self, account_id: str, rotation: "_Rotation") -> TokenSet:
        """Write a rotation; the tokens that then count. Raises StoreUnavailable after many attempts."""
        tokens, document = rotation.record.tokens, rotation.document
        for attempt in range(_SAVE_ATTEMPTS):
            try:
                if attempt > 0:
                    await self._sleep(min(0.1 * 2 ** (attempt - 1), 3.0))
                    current = await self._documents.get(_key(account_id))
                    if current is None:  # disconnected meanwhile: there is nothing to keep
                        self._unsaved.pop(account_id, None)
                        return tokens
                    stored = _Record.from_body(current.body)
                    if stored.tokens.refresh_token != rotation.consumed:
                        # Written before after all, or a new login was faster: either way these are the latest.
                        tokens = stored.tokens
                        break
                    document = current
                await self._documents.replace(document, rotation.record.to_body())
                break
            except (VersionConflict, StoreUnavailable):
                continue
        else:
            raise StoreUnavailable
        self._unsaved.pop(account_id, None)
        self._held[account_id] = tokens
        await self._announce(account_id)
        return tokens

    async def _after_invalid_grant(
        self, account_id: str, leased: "_Record", dead: InvalidGrant, provider: str
    ) -> TokenSet:
        while True:
            document, record = await self._read(account_id)
            if record.tokens.refresh_token != leased.tokens.refresh_token:
                self._held[account_id] = record.tokens
                self._observe(provider, "reused")
                return record.tokens
            relink = replace(record, needs_relink=True, lease=None, leased_until=None)
            try:
                await self._documents.replace(document, relink.to_body())
            except VersionConflict:
                continue
            self.forget(account_id)
            self._observe(provider, "invalid_grant")
            raise RelinkRequired from dead

    async def _release(self, document: Document, leased: "_Record") -> None:
        try:
            await self._documents.replace(document, replace(leased, lease=None, leased_until=None).to_body())
        except (VersionConflict, StoreUnavailable):
            return  # the lease ends by itself

    async def _read(self, account_id: str) -> tuple[Document, "_Record"]:
        document = await self._documents.get(_key(account_id))
        record = _Record.from_body(document.body) if document is not None else None
        if document is None or record is None or record.needs_relink:
            self.forget(account_id)
            raise RelinkRequired
        return document, record


@dataclass(frozen=True, slots=True)
class _Record:
    """The stored form: the tokens, which rotation wrote them, and who is renewing them."""

    tokens: TokenSet
    rotation: str
    rotated_at: datetime
    needs_relink: bool = False
    lease: str | None = None
    leased_until: datetime | None = None

    def to_body(self) -> dict[str, Any]:
        return {
            "access_token": self.tokens.access_token,
            "refresh_token": self.tokens.refresh_token,
            "expires_at": self.tokens.expires_at.isoformat(),
            "extra": dict(self.tokens.extra),
            "rotation": self.rotation,
            "rotated_at": self.rotated_at.isoformat(),
            "needs_relink": self.needs_relink,
            "lease": self.lease,
            "leased_until": self.leased_until.isoformat() if self.leased_until else None,
        }

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> "_Record":
        until = body.get("leased_until")
        return cls(
            tokens=TokenSet(
                access_token=body["access_token"],
                refresh_token=body["refresh_token"],
                expires_at=datetime.fromisoformat(body["expires_at"]).astimezone(UTC),
                extra=body.get("extra", {}),
            ),
            rotation=body["rotation"],
            rotated_at=datetime.fromisoformat(body["rotated_at"]).astimezone(UTC),
            needs_relink=body.get("needs_relink", False),
            lease=body.get("lease"),
            leased_until=datetime.fromisoformat(until).astimezone(UTC) if until else None,
        )


@dataclass(frozen=True, slots=True)
class _Rotation:
    """Tokens that the maker has given and the store has yet to take."""

    document: Document = field(repr=False)
    consumed: str = field(repr=False)
    """The refresh token that was traded in; while it is the stored one, nothing newer is known."""
    record: _Record = field(repr=False)


def _key(account_id: str) -> str:
    return f"tokens/{account_id}"


def _new_id() -> str:
    return uuid.uuid4().hex
