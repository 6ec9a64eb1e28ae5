"""Lockouts for logins, kept in the document store: they outlive instances and hold over all of them.

Failed logins lock one identity, which is one maker's account *of one caller*: a stranger who guesses locks out nobody
but himself. A caller whose logins fail for ever new identities is not let on to the next one for a while; only
identities that are not linked count there, for a link was a right password once.
"""

import contextlib
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from common.clock import Clock
from common.errors import AuthenticationFailed, RateLimitExceeded, StoreUnavailable
from common.ids import random_id
from common.loops import needs_loop
from common.stores.documents import Body, DocumentExists, Documents, VersionConflict
from functions import lockout
from functions.lockout import Tries, Try, Wait


class Attempt:
    """A login in progress."""

    __slots__ = ("wrong",)

    def __init__(self) -> None:
        self.wrong = False

    def mismatch(self) -> None:
        """The password is not the one that we know. It failed, unless the maker accepts it: it may be a new one."""
        self.wrong = True


class LoginGuard:
    """Counts tries before they are made."""

    def __init__(self, documents: Documents, clock: Clock, *, distinct_failing_per_hour: int = 10) -> None:
        """``distinct_failing_per_hour``: after how many failing identities of one caller the next waits; at least 1."""
        self._documents = documents
        self._clock = clock
        self._cap = distinct_failing_per_hour
        self._trying: dict[str, Counter[str]] = {}

    @asynccontextmanager
    async def attempt(self, principal: str, identity: str, *, linked: bool = False) -> AsyncIterator[Attempt]:
        """Hold one try while the body verifies a password or logs in at the maker.

        Raises RateLimitExceeded, before the body, while the identity is locked, or the caller, where the identity is
        not ``linked``. A body that raises AuthenticationFailed, or called ``mismatch`` and raises anything, has failed;
        one that ends well forgets all failures of the identity; any other error gives the try back. A body that is
        cancelled counts as failed after a while: the maker may have answered it.
        """
        await needs_loop()
        held, try_id, caller = Attempt(), random_id(), _caller_key(principal)
        with contextlib.ExitStack() as trying:
            had_failed = not linked and await self._enter(trying, caller, identity)
            await self._begin(identity, try_id)
            try:
                yield held
            except Exception as error:
                if isinstance(error, AuthenticationFailed) or held.wrong:
                    await self._settle(identity, lambda tries: lockout.failed(tries, try_id, self._clock.utc()))
                    if not linked:
                        await self._mark(caller, identity, failed=True)
                else:
                    await self._settle(identity, lambda tries: lockout.withdrawn(tries, try_id))
                raise
            await self.forget(identity)
            if had_failed:
                await self._mark(caller, identity, failed=False)

    async def forget(self, identity: str) -> None:
        """Nothing has failed; for an identity's end as well."""
        await needs_loop()
        # What cannot be forgotten now is forgotten in time.
        with contextlib.suppress(StoreUnavailable):
            await self._documents.delete(_key(identity))

    async def _enter(self, trying: contextlib.ExitStack, caller: str, identity: str) -> bool:
        """Count the identity as being tried; whether it is among the caller's failing ones.

        Raises RateLimitExceeded for one too many. What is being tried on other instances is not seen: to write that
        down at every login would make one document the bottleneck of a caller with many users.
        """
        held = await self._documents.get(caller)
        now = self._clock.utc()
        failing = lockout.failing_now(_failed_at(held.body if held else None), now)
        pending = len(self._trying.get(caller, Counter()).keys() - failing.keys() - {identity})
        wait_s = lockout.next_identity_in_s(failing, identity, pending, self._cap, now)
        if wait_s > 0:
            raise _refusal(
                "Logins have failed for too many different accounts: wait before trying another one.",
                "login-accounts",
                "too_many_failing_accounts",
                wait_s,
            )
        trying.enter_context(self._tried(caller, identity))
        return identity in failing

    async def _begin(self, identity: str, try_id: str) -> None:
        def begin(body: Body | None) -> Body:
            now = self._clock.utc()
            tries = _tries(body)
            wait = lockout.wait_for(tries, now)
            if wait is not None:
                raise _locked(wait)
            return _body(lockout.begun(tries, try_id, now))

        await self._change(_key(identity), begin)

    async def _settle(self, identity: str, settled: Callable[[Tries], Tries]) -> None:
        # Unsettled it counts as failed in time: better than to hide what the login raised.
        with contextlib.suppress(StoreUnavailable):
            await self._change(_key(identity), lambda body: _body(settled(_tries(body))))

    async def _mark(self, caller: str, identity: str, *, failed: bool) -> None:
        def mark(body: Body | None) -> Body:
            now = self._clock.utc()
            marked = {name: at for name, at in _failed_at(body).items() if name != identity}
            if failed:
                marked[identity] = now
            failing = lockout.failing_now(marked, now)
            return {"failed_at": {name: at.isoformat() for name, at in failing.items()}} if failing else {}

        with contextlib.suppress(StoreUnavailable):
            await self._change(caller, mark)

    async def _change(self, key: str, change: Callable[[Body | None], Body]) -> None:
        """Store what ``change`` makes of the body, nothing of an empty one; again wherever somebody was faster."""
        while True:
            held = await self._documents.get(key)
            body = change(held.body if held else None)
            try:
                if held is None:
                    if body:
                        await self._documents.create(key, body)
                elif body:
                    await self._documents.replace(held, body)
                else:
                    await self._documents.delete(key, held.version)
            except (DocumentExists, VersionConflict):
                continue
            return

    @contextlib.contextmanager
    def _tried(self, caller: str, identity: str) -> Iterator[None]:
        trying = self._trying.setdefault(caller, Counter())
        trying[identity] += 1
        try:
            yield
        finally:
            trying -= Counter([identity])
            if not trying:
                self._trying.pop(caller, None)


def _key(identity: str) -> str:
    return f"lockouts/{identity}"


def _caller_key(principal: str) -> str:
    return f"lockouts/caller-{hashlib.sha256(principal.encode()).hexdigest()}"


def _tries(body: Body | None) -> Tries:
    stored = body["tries"] if body else []
    return tuple(Try(one["id"], _at(one["at"]), one["failed"]) for one in stored)


def _body(tries: Tries) -> Body:
    stored = [{"id": one.id, "at": one.at.isoformat(), "failed": one.failed} for one in tries]
    return {"tries": stored} if stored else {}


def _failed_at(body: Body | None) -> dict[str, datetime]:
    return {name: _at(at) for name, at in body["failed_at"].items()} if body else {}


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def _locked(wait: Wait) -> RateLimitExceeded:
    if wait.failures:
        message = f"Logins for this account have failed {wait.failures} times: wait before trying again."
        return _refusal(message, "login-failures", "too_many_failed_logins", wait.seconds)
    return _refusal("Another login for this account is under way.", "login-failures", "login_under_way", wait.seconds)


def _refusal(message: str, limit: str, reason: str, wait_s: float) -> RateLimitExceeded:
    return RateLimitExceeded(message, details={"limit": limit, "reason": reason}, retry_after_s=wait_s)
