"""Linking accounts, and finding the link that a request means.

A request names an account by id, or by a credential form. The form is answered from memory only to somebody who gave
the right password: once an instance it is checked against the salted scrypt hash, from then on against an HMAC under
a key that this process made for itself, so that the check costs microseconds and the memory holds no password.
"""

import asyncio
import hmac
import os
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from common.cache import Cache
from common.clock import Clock
from common.errors import AccountNotFound, NotSupported
from common.loops import needs_loop
from common.passwords import hash_password, verify_password
from common.stores.documents import Documents
from functions.limits import RequestLimits
from functions.links import Link, LinkBook, identity_of, mask
from functions.login_guard import LoginGuard
from functions.providers.port import Account, Credentials
from functions.providers.registry import Providers
from functions.storage import UNDER_THE_ACCOUNT, AccountKeys
from functions.tokens import TokenHealth, TokenKeeper
from functions.upstream import Upstream

LINK_MAX_AGE_S = 30.0
"""How long an instance may go on serving an account that another one has disconnected. An age, because the cache's own
time is jittered and counts from the end of a load."""


@dataclass(frozen=True, slots=True)
class Verified:
    """A password that was right, remembered without the password."""

    proof: bytes
    account_id: str


async def _tell_nobody(_account_id: str) -> None:
    pass


class AccountManager:
    """The accounts that callers have linked."""

    def __init__(  # noqa: PLR0913 - collaborators, each by its name
        self,
        *,
        providers: Providers,
        links: LinkBook,
        tokens: TokenKeeper,
        keys: AccountKeys,
        documents: Documents,
        upstream: Upstream,
        guard: LoginGuard,
        limits: RequestLimits,
        clock: Clock,
        link_cache: Cache[Link],
        session_cache: Cache[Verified],
        tell_unlinked: Callable[[str], Awaitable[None]] = _tell_nobody,
    ) -> None:
        self._providers = providers
        self._links = links
        self._tokens = tokens
        self._keys = keys
        self._documents = documents
        self._upstream = upstream
        self._guard = guard
        self._limits = limits
        self._clock = clock
        self._link_cache = link_cache
        self._sessions = session_cache
        self._tell_unlinked = tell_unlinked
        self._process_key = os.urandom(32)
        self._flights: dict[tuple[str, str, bytes], asyncio.Task[Link]] = {}

    async def by_id(self, principal: str, account_id: str, *, max_age_s: float = LINK_MAX_AGE_S) -> Link:
        """A link of this caller's, as the store had it at most ``max_age_s`` ago; raises AccountNotFound."""
        held = self._link_cache.held(("link", principal, account_id), max_age_s)
        if held is not None:
            return held.value
        hit = await self._link_cache.get_or_load(
            ("link", principal, account_id),
            lambda: self._links.find(principal, account_id),
            max_age_s=max_age_s,
            on_error_stale=False,
        )
        return hit.value

    async def by_credentials(self, principal: str, provider: str, credentials: Credentials) -> Link:
        """The link behind a credential form, logging in at the maker where that is needed.

        Raises AuthenticationFailed, CaptchaRequired, ProviderBlocked, Upstream*.
        """
        identity = identity_of(principal, provider, credentials.region, credentials.username)
        proof = self._proof(identity, credentials.password)
        known = self._sessions.get(("session", identity))
        if (
            known is not None
            and hmac.compare_digest(known.value.proof, proof)
            # A captcha may be there to renew a dead link, which only the store can tell where no tokens are held.
            and (credentials.captcha_token is None or self._tokens.holds(known.value.account_id))
        ):
            try:
                return await self.by_id(principal, known.value.account_id)
            except AccountNotFound:
                self._sessions.invalidate(("session", identity))
        return await self._prove_once(principal, provider, credentials, connect=False)

    async def connect(self, principal: str, provider: str, credentials: Credentials) -> Link:
        """Log in at the maker and link the account, or renew the link that is there.

        Raises as :meth:`by_credentials`.
        """
        return await self._prove_once(principal, provider, credentials, connect=True)

    async def health(self, link: Link) -> TokenHealth | None:
        """What is known of a link's tokens."""
        return await self._tokens.health(link.account.id)

    async def of_caller(self, principal: str) -> list[Link]:
        """All of a caller's links; finishes disconnects that were cut short."""
        await self.finish_disconnects(principal)
        return await self._links.of_principal(principal)

    async def disconnect(self, link: Link) -> None:
        """End a link and delete everything kept under it. Cut short, it is finished by the next listing or login."""
        await needs_loop()
        await self._links.end(link)
        await self._erase(link)

    def forget(self, account_id: str) -> None:
        """Another instance says that an account is gone, or may be."""
        # A session leads to a link, and without the link to nothing.
        self._link_cache.invalidate_where(lambda key: isinstance(key, tuple) and key[-1] == account_id)
        self._tokens.forget(account_id)

    def forget_all(self) -> None:
        """Word of what is gone may have been missed."""
        self._link_cache.clear()

    def _proof(self, identity: str, password: str) -> bytes:
        return hmac.digest(self._process_key, f"{identity}\x00{password}".encode(), "sha256")

    async def _needs_relink(self, link: Link) -> bool:
        health = await self._tokens.health(link.account.id)
        return health is None or health.needs_relink

    async def _prove_once(self, principal: str, provider: str, credentials: Credentials, *, connect: bool) -> Link:
        """One check and one login for any number of identical requests: each costs a try, a captcha works once."""
        await needs_loop()
        identity = identity_of(principal, provider, credentials.region, credentials.username)
        proof = self._proof(identity, credentials.password)
        work = self._prove(principal, provider, identity, proof, credentials, connect=connect)
        return await self._once(("connect" if connect else "form", identity, proof), work)

    async def _prove(
        self, principal: str, provider: str, identity: str, proof: bytes, credentials: Credentials, *, connect: bool
    ) -> Link:
        """The link of whoever knows the password. Everything that bounds guessing comes before the first guess."""
        await self._limits.admit_login(principal, identity)
        link = await self._links.find_by_identity(principal, identity)
        async with self._guard.attempt(principal, identity, linked=link is not None) as attempt:
            if link is not None and not (connect and credentials.captcha_token is not None):
                # Without a captcha most makers cannot log in anew; the right password still finds what is linked.
                is_known = await asyncio.to_thread(verify_password, credentials.password, link.password_hash)
                if not is_known:
                    attempt.mismatch()
                elif not await self._must_log_in(link, credentials, connect=connect):
                    self._sessions.put(("session", identity), Verified(proof, link.account.id))
                    return link
            login = self._log_in(principal, provider, identity, proof, credentials)
            return await self._once(("login", identity, proof), login)

    async def _must_log_in(self, link: Link, credentials: Credentials, *, connect: bool) -> bool:
        """Whether a password that is right does not save the login, with or without the captcha that it takes."""
        return (connect or credentials.captcha_token is not None) and await self._needs_relink(link)

    async def _once(self, key: tuple[str, str, bytes], work: Coroutine[Any, Any, Link]) -> Link:
        flight = self._flights.get(key)
        if flight is None:
            flight = asyncio.get_running_loop().create_task(work)
            self._flights[key] = flight
            flight.add_done_callback(lambda _done: self._flights.pop(key, None))
        else:
            work.close()
        # A caller that hangs up must not lose the tokens of a login that used up its captcha.
        return await asyncio.shield(flight)

    async def _log_in(
        self, principal: str, provider: str, identity: str, proof: bytes, credentials: Credentials
    ) -> Link:
        log_in = self._providers.get(provider).log_in
        if log_in is None:
            raise NotSupported(f"{provider} has no password login.")
        road = Account("", provider, credentials.region)
        # Before a captcha is spent: this needs the store, and gives the account a new id where its end was cut short.
        await self.finish_disconnects(principal)
        tokens = await self._upstream.once(road, "auth", lambda: log_in.log_in(credentials))
        account = Account(await self._links.account_id_for(identity), provider, credentials.region)
        before = await self._links.find_by_identity(principal, identity)
        link = Link(
            account=account,
            principal=principal,
            identity=identity,
            label=mask(credentials.username),
            created_at=before.created_at if before else self._clock.utc(),
            password_hash=await asyncio.to_thread(hash_password, credentials.password),
        )
        await log_in.forget(account.id)
        await self._keys.create(account.id, provider, principal)
        await self._tokens.save(account.id, tokens)
        await self._links.put(link)
        self._link_cache.put(("link", principal, account.id), link)
        self._sessions.put(("session", identity), Verified(proof, account.id))
        return link

    async def finish_disconnects(self, principal: str) -> None:
        """Erase what disconnects that were cut short have left, so that a login gives the account a new id."""
        await needs_loop()
        await self._links.sweep(principal)
        for unfinished in await self._links.of_principal(principal, ending=True):
            await self._erase(unfinished)

    async def _erase(self, link: Link) -> None:
        account_id = link.account.id
        # At once: the link is marked as ending, so nobody can load it again.
        self._link_cache.invalidate(("link", link.principal, account_id))
        self._sessions.invalidate(("session", link.identity))
        await self._tell_unlinked(account_id)
        provider = self._providers.get(link.account.provider)
        for login in (provider.log_in, provider.device):
            if login is not None:
                await login.forget(account_id)
        if provider.follows is not None:
            await provider.follows.unlinked(account_id)
        await self._tokens.delete(account_id)
        for collection in UNDER_THE_ACCOUNT:
            while keys := await self._documents.list(f"{collection}/{account_id}"):
                for key in keys:
                    await self._documents.delete(key)
        await self._guard.forget(link.identity)
        await self._links.release_identity(link)
        # From here on nothing that was sealed for the account can be read again, in whichever copy.
        await self._keys.shred(account_id)
        await self._links.remove(link)
