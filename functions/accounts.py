"""Linking accounts, and finding the link that a request means.

A request names an account by id, or by a credential form. The form is answered from memory only to somebody who gave
the right password: once an instance it is checked against the salted scrypt hash, from then on against an HMAC under
a key that this process made for itself, so that the check costs microseconds and the memory holds no password.
"""

import asyncio
import hmac
import os
from dataclasses import dataclass

from common.cache import Cache
from common.clock import Clock
from common.errors import AccountNotFound, NotSupported
from common.loops import needs_loop
from common.passwords import hash_password, verify_password
from common.stores.documents import Documents
from functions.links import Link, LinkBook, identity_of, mask
from functions.providers.port import Account, Credentials
from functions.providers.registry import Providers
from functions.tokens import TokenHealth, TokenKeeper
from functions.upstream import Upstream

_UNDER_THE_ACCOUNT = ("commands", "claims", "slots", "confirmations", "caps")
"""Collections whose documents are kept by account and end with it."""


@dataclass(frozen=True, slots=True)
class Verified:
    """A password that was right, remembered without the password."""

    proof: bytes
    account_id: str


class AccountManager:
    """The accounts that callers have linked."""

    def __init__(
        self,
        *,
        providers: Providers,
        links: LinkBook,
        tokens: TokenKeeper,
        documents: Documents,
        upstream: Upstream,
        clock: Clock,
        link_cache: Cache[Link],
        session_cache: Cache[Verified],
    ) -> None:
        self._providers = providers
        self._links = links
        self._tokens = tokens
        self._documents = documents
        self._upstream = upstream
        self._clock = clock
        self._link_cache = link_cache
        self._sessions = session_cache
        self._process_key = os.urandom(32)
        self._logins: dict[tuple[str, bytes], asyncio.Task[Link]] = {}

    async def by_id(self, principal: str, account_id: str, *, max_age_s: float | None = None) -> Link:
        """A link of this caller's, as the store had it at most ``max_age_s`` ago; raises AccountNotFound."""
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
        await needs_loop()
        link = await self._links.find_by_identity(principal, identity)
        if link is not None and await asyncio.to_thread(verify_password, credentials.password, link.password_hash):
            if credentials.captcha_token is not None and await self._needs_relink(link):
                return await self._log_in_once(principal, provider, identity, proof, credentials)
            self._sessions.put(("session", identity), Verified(proof, link.account.id))
            return link
        return await self._log_in_once(principal, provider, identity, proof, credentials)

    async def connect(self, principal: str, provider: str, credentials: Credentials) -> Link:
        """Log in at the maker and link the account, or renew the link that is there.

        Raises as :meth:`by_credentials`.
        """
        await needs_loop()
        identity = identity_of(principal, provider, credentials.region, credentials.username)
        proof = self._proof(identity, credentials.password)
        if credentials.captcha_token is None:
            # Without a captcha most makers cannot log in anew; the right password still finds what is linked.
            link = await self._links.find_by_identity(principal, identity)
            if (
                link is not None
                and not await self._needs_relink(link)
                and await asyncio.to_thread(verify_password, credentials.password, link.password_hash)
            ):
                return link
        return await self._log_in_once(principal, provider, identity, proof, credentials)

    async def health(self, link: Link) -> TokenHealth | None:
        """What is known of a link's tokens."""
        return await self._tokens.health(link.account.id)

    async def of_caller(self, principal: str) -> list[Link]:
        """All of a caller's links; finishes disconnects that were cut short."""
        await self._finish_disconnects(principal)
        return await self._links.of_principal(principal)

    async def disconnect(self, link: Link) -> None:
        """Delete every trace of a link. Cut short, it is finished by the next listing or login."""
        await needs_loop()
        await self._links.end(link)
        await self._erase(link)

    def _proof(self, identity: str, password: str) -> bytes:
        return hmac.digest(self._process_key, f"{identity}\x00{password}".encode(), "sha256")

    async def _needs_relink(self, link: Link) -> bool:
        health = await self._tokens.health(link.account.id)
        return health is None or health.needs_relink

    async def _log_in_once(
        self, principal: str, provider: str, identity: str, proof: bytes, credentials: Credentials
    ) -> Link:
        """One login for any number of identical requests: a captcha token works once."""
        key = (identity, proof)
        flight = self._logins.get(key)
        if flight is None:
            flight = asyncio.get_running_loop().create_task(
                self._log_in(principal, provider, identity, proof, credentials)
            )
            self._logins[key] = flight
            flight.add_done_callback(lambda _done: self._logins.pop(key, None))
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
        await self._finish_disconnects(principal)
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
        await self._tokens.save(account.id, tokens)
        await self._links.put(link)
        self._link_cache.put(("link", principal, account.id), link)
        self._sessions.put(("session", identity), Verified(proof, account.id))
        return link

    async def _finish_disconnects(self, principal: str) -> None:
        for unfinished in await self._links.of_principal(principal, ending=True):
            await self._erase(unfinished)

    async def _erase(self, link: Link) -> None:
        account_id = link.account.id
        # At once: the link is marked as ending, so nobody can load it again.
        self._link_cache.invalidate(("link", link.principal, account_id))
        self._sessions.invalidate(("session", link.identity))
        log_in = self._providers.get(link.account.provider).log_in
        if log_in is not None:
            await log_in.forget(account_id)
        await self._tokens.delete(account_id)
        for collection in _UNDER_THE_ACCOUNT:
            while keys := await self._documents.list(f"{collection}/{account_id}"):
                for key in keys:
                    await self._documents.delete(key)
        await self._links.erase(link)
