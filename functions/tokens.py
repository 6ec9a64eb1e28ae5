"""The tokens of linked accounts: kept durably, rotated exactly once, never lost.

Makers rotate refresh tokens and revoke the whole family when an old one is used again, so two instances that refresh
one account at the same time lock its owner out. A rotation is therefore guarded twice: in the process by a
single-flight, across processes by a lease inside the token record itself, taken by compare-and-swap and followed by
a re-read. The lease outlives the longest refresh. New tokens are written before anybody uses them; while the store
cannot be written, they are kept in memory (:mod:`functions.unsaved_tokens`).

A lease that its holder neither gave back nor replaced by new tokens means that nobody knows whether the token was
traded in: the holder was killed, has heard nothing from the maker, or cannot reach the store. So it is left to run out,
and whoever takes it over then waits a moment for the holder to come back to the store before he trades that token in.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from common.clock import Clock
from common.errors import ApiError, RelinkRequired, StoreUnavailable, UpstreamTimeout, Vote
from common.loops import needs_loop
from common.stores.documents import Document, DocumentExists, Documents, VersionConflict
from functions.token_record import Record, Rotation, TokenSet, key_of, next_order, order_of
from functions.unsaved_tokens import SAVE_ATTEMPTS, UnsavedTokens

__all__ = [
    "ANSWER_WITHIN_S",
    "LEASE_S",
    "REFRESH_TIMEOUT_S",
    "TAKEOVER_PAUSE_S",
    "WAIT_FOR_OTHERS_S",
    "InvalidGrant",
    "RenewalInDoubt",
    "RenewalPending",
    "TokenHealth",
    "TokenKeeper",
    "TokenSet",
]

LEASE_S = 45.0
"""Longer than :data:`REFRESH_TIMEOUT_S`: a lease that ends mid-refresh would let a second one start."""
REFRESH_TIMEOUT_S = 30.0
ANSWER_WITHIN_S = 25.0
"""How long a maker may take to answer with new tokens. Far longer than for anything else: the answer is the only copy
of them, and giving it up early costs the link."""
TAKEOVER_PAUSE_S = 5.0
"""Between taking over a lease that ran out and using the token that it was for."""
WAIT_FOR_OTHERS_S = 15.0
"""Shorter than a read may take: a deadline that ends first would be counted against the maker."""
_CLOSE_WITHIN_S = 6.0
"""The platform allows 10 s between asking a process to end and killing it; the server takes 2 s for its clients."""


@dataclass(frozen=True, slots=True)
class TokenHealth:
    """What may be told about an account's tokens."""

    expires_at: datetime | None
    rotated_at: datetime | None
    needs_relink: bool


class InvalidGrant(Exception):
    """Raised by a refresh when the maker calls the refresh token dead (OAuth ``invalid_grant``)."""


class RenewalInDoubt(Exception):
    """Raised by a refresh whose request has left, and whose answer did not come or cannot be read.

    The maker may have traded the refresh token in. ``failure`` is what the caller is told.
    """

    def __init__(self, failure: ApiError) -> None:
        super().__init__()
        self.failure = failure


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
        rest: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """``announce`` is told the account of each rotation that was written, and must not raise.

        ``rest`` makes the pauses between attempts in the background to write what could not be written.
        """
        self._documents = documents
        self._clock = clock
        self._sleep = sleep
        self._observe = observe
        self._announce = announce
        self._held: dict[str, TokenSet] = {}
        self._unsaved = UnsavedTokens(documents, sleep=sleep, rest=rest, taken=self._written)
        self._flights: dict[str, asyncio.Task[TokenSet]] = {}

    async def save(self, account_id: str, tokens: TokenSet) -> None:
        """Store the tokens of a login, replacing any others."""
        await needs_loop()
        key = key_of(account_id)
        failures = 0
        while True:
            try:
                current = await self._documents.get(key)
                before = order_of(current.body) if current is not None else 0
                body = self._new_record(tokens, before).to_body()
                if current is None:
                    await self._documents.create(key, body)
                else:
                    await self._documents.replace(current, body)
            except (DocumentExists, VersionConflict):
                continue
            except StoreUnavailable:
                # The login behind these tokens has used up its captcha: a passing fault must not cost another one.
                failures += 1
                if failures == SAVE_ATTEMPTS:
                    raise
                await self._sleep(min(0.1 * 2**failures, 3.0))
                continue
            self._unsaved.drop(account_id)
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
        document = await self._documents.get(key_of(account_id))
        if document is None:
            return None
        record = Record.from_body(document.body)
        return TokenHealth(record.tokens.expires_at, record.rotated_at, record.needs_relink)

    async def peek(self, account_id: str) -> TokenSet:
        """The tokens as they are, whether they can still be used or not: for what a maker ties to them in ``extra``.

        Asks no maker. Raises RelinkRequired where there are none or they are known to be dead, StoreUnavailable.
        """
        held = self._held.get(account_id)
        if held is not None and held.is_fresh(self._clock.utc()):
            return held
        await needs_loop()
        return (await self._read(account_id))[1].tokens

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
        self._unsaved.drop(account_id)
        await self._documents.delete(key_of(account_id))

    async def flush(self) -> None:
        """Write what could not be written before, of whichever account. Costs nothing where there is nothing."""
        await self._unsaved.flush()

    async def aclose(self) -> None:
        """The process ends: let the rotations that have begun end, and write their tokens, as far as time allows."""
        began_s = self._clock.monotonic()
        if self._flights:
            await asyncio.wait(list(self._flights.values()), timeout=_CLOSE_WITHIN_S)
        await self._unsaved.aclose(max(0.5, _CLOSE_WITHIN_S - (self._clock.monotonic() - began_s)))

    def _landed(self, account_id: str, flight: "asyncio.Task[TokenSet]") -> None:
        if self._flights.get(account_id) is flight:
            del self._flights[account_id]

    async def _rotate(self, account_id: str, refresh: Refresh, refused: str | None, provider: str) -> TokenSet:
        unsaved = self._unsaved.of(account_id)
        if unsaved is not None:
            await self._unsaved.write(account_id, unsaved)
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
                if record.lease is not None:
                    await self._sleep(TAKEOVER_PAUSE_S)
                    document, record = await self._read(account_id)
                    if record.lease != leased.lease:
                        continue
                return await self._refresh_under_lease(account_id, document, leased, refresh, provider)
            if waited_s >= WAIT_FOR_OTHERS_S:
                raise RenewalPending("Another instance is renewing this account's authorisation.", retry_after_s=5)
            await self._sleep(0.25)
            waited_s += 0.25

    async def _refresh_under_lease(
        self, account_id: str, document: Document, leased: Record, refresh: Refresh, provider: str
    ) -> TokenSet:
        try:
            async with asyncio.timeout(REFRESH_TIMEOUT_S):
                fresh = await refresh(leased.tokens)
        except InvalidGrant as dead:
            return await self._after_invalid_grant(account_id, leased, dead, provider)
        except (RenewalInDoubt, TimeoutError) as silence:
            self._observe(provider, "failed")
            failure = silence.failure if isinstance(silence, RenewalInDoubt) else UpstreamTimeout()
            # The lease stays, and a wait as long as that is more than any retry has time for.
            left_s = (leased.leased_until or self._clock.utc()) - self._clock.utc()
            failure.retry_after_s = max(failure.retry_after_s or 0.0, left_s.total_seconds(), 1.0)
            raise failure from silence
        except ApiError:
            self._observe(provider, "failed")
            await self._release(document, leased)
            raise
        except BaseException:  # a defect, or the end of the process: nobody knows how far it came
            self._observe(provider, "failed")
            raise
        record = self._new_record(fresh, leased.order)
        # From here on the maker knows only the new token: it is kept until it is written, whatever becomes of the call.
        rotation = Rotation(document, leased.tokens.refresh_token, record)
        self._unsaved.hold(account_id, rotation)
        self._observe(provider, "rotated")
        return await self._unsaved.write(account_id, rotation)

    async def _written(self, account_id: str, tokens: TokenSet) -> None:
        self._held[account_id] = tokens
        await self._announce(account_id)

    async def _after_invalid_grant(
        self, account_id: str, leased: Record, dead: InvalidGrant, provider: str
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

    async def _release(self, document: Document, leased: Record) -> None:
        try:
            await self._documents.replace(document, replace(leased, lease=None, leased_until=None).to_body())
        except (VersionConflict, StoreUnavailable):
            return  # the lease ends by itself

    def _new_record(self, tokens: TokenSet, before: int) -> Record:
        now = self._clock.utc()
        return Record(tokens, rotation=_new_id(), rotated_at=now, order=next_order(before, now))

    async def _read(self, account_id: str) -> tuple[Document, Record]:
        document = await self._documents.get(key_of(account_id))
        record = Record.from_body(document.body) if document is not None else None
        if document is None or record is None or record.needs_relink:
            self.forget(account_id)
            raise RelinkRequired
        return document, record


def _new_id() -> str:
    return uuid.uuid4().hex
