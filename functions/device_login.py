"""Linking an account by a code that its owner confirms in a browser: begun by one request, finished by a later one.

What is under way is a document of the caller's, sealed, under ``connects/<digest of the principal>/<connect id>``; so
any instance can go on with it. The maker gives the tokens once: whoever gets them stores them before anything else.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from common.clock import Clock
from common.errors import ConnectNotFound, NotSupported, RelinkRequired
from common.ids import random_id
from common.loops import needs_loop
from common.stores.documents import Body, Document, Documents, VersionConflict
from functions.links import Link, LinkBook, identity_of, mask
from functions.providers.port import Account, DeviceGrant, DevicePending, LogInByDevice, Region
from functions.providers.registry import Providers
from functions.storage import AccountKeys
from functions.tokens import TokenKeeper, TokenSet
from functions.upstream import Upstream

_REGION = Region.REST_OF_WORLD


@dataclass(frozen=True, slots=True)
class Waiting:
    """A login that its owner has yet to confirm."""

    connect_id: str
    provider: str
    user_code: str
    verification_uri: str
    verification_uri_complete: str | None
    expires_at: datetime
    next_poll_at: datetime
    """Asking before this asks nobody."""


class DeviceLogins:
    """The logins under way."""

    def __init__(
        self,
        *,
        providers: Providers,
        links: LinkBook,
        tokens: TokenKeeper,
        keys: AccountKeys,
        documents: Documents,
        upstream: Upstream,
        clock: Clock,
        finish_disconnects: Callable[[str], Awaitable[None]],
    ) -> None:
        """``finish_disconnects`` erases what disconnects of a principal's that were cut short have left."""
        self._providers = providers
        self._links = links
        self._tokens = tokens
        self._keys = keys
        self._documents = documents
        self._upstream = upstream
        self._clock = clock
        self._finish_disconnects = finish_disconnects

    async def begin(self, principal: str, provider: str, client_id: str) -> Waiting:
        """Ask the maker for a code. Raises NotSupported, ValidationFailed, AuthenticationFailed, Upstream*."""
        await needs_loop()
        device = self._device(provider)
        grant = await self._upstream.once(Account("", provider, _REGION), "auth", lambda: device.begin(client_id))
        connect_id = f"con_{random_id()}"
        next_poll_at = self._clock.utc() + timedelta(seconds=grant.interval_s)
        await self._documents.create(_key(principal, connect_id), _to_body(provider, grant, next_poll_at))
        return _waiting(connect_id, provider, grant, next_poll_at)

    async def ask(self, principal: str, connect_id: str) -> Link | Waiting:
        """The link, where the owner has confirmed. Asks the maker at most once, and not before its interval is over.

        Raises ConnectNotFound, RelinkRequired (the code is dead: begin anew), AuthenticationFailed, Upstream*.
        """
        await needs_loop()
        document = await self._documents.get(_key(principal, connect_id))
        if document is None:
            linked = await self._linked(principal, connect_id)
            if linked is None:
                raise ConnectNotFound
            return linked
        provider, grant, next_poll_at = _from_body(document.body)
        now = self._clock.utc()
        if now >= grant.expires_at:
            return await self._dead(principal, document, RelinkRequired("The code has expired; connect again."))
        if now < next_poll_at:
            return _waiting(connect_id, provider, grant, next_poll_at)
        try:
            document = await self._push_back(document, provider, grant)
        except VersionConflict:
            # Somebody else is asking just now.
            return _waiting(connect_id, provider, grant, now + timedelta(seconds=grant.interval_s))
        # Shielded: a caller that hangs up must not lose tokens that are given once.
        work = self._finish(principal, connect_id, document, provider, grant)
        return await asyncio.shield(asyncio.get_running_loop().create_task(work))

    async def _finish(
        self, principal: str, connect_id: str, document: Document, provider: str, grant: DeviceGrant
    ) -> Link | Waiting:
        device = self._device(provider)
        # Before tokens are given, because this needs the store: an account that is ending must not be found again.
        await self._finish_disconnects(principal)
        try:
            answer = await self._upstream.once(Account("", provider, _REGION), "auth", lambda: device.poll(grant))
        except RelinkRequired as dead:
            return await self._dead(principal, document, dead)
        if isinstance(answer, DevicePending):
            slower = DeviceGrant(
                grant.user_code,
                grant.verification_uri,
                grant.verification_uri_complete,
                grant.expires_at,
                answer.interval_s,
                grant.secrets,
            )
            document = await self._push_back(document, provider, slower)
            return _waiting(connect_id, provider, slower, _from_body(document.body)[2])
        link = await self._link(principal, connect_id, provider, answer)
        await self._documents.delete(document.key)
        return link

    async def _dead(self, principal: str, document: Document, dead: RelinkRequired) -> Link:
        """The link that was made before the code died, by a process that was killed before it could say so."""
        linked = await self._linked(principal, document.key.rpartition("/")[2])
        await self._documents.delete(document.key)
        if linked is None:
            raise dead
        return linked

    async def _linked(self, principal: str, connect_id: str) -> Link | None:
        """What a login has made: the answer that told it may have been lost."""
        links = await self._links.of_principal(principal)
        return next((link for link in links if link.connect_id == connect_id), None)

    async def _link(self, principal: str, connect_id: str, provider: str, tokens: TokenSet) -> Link:
        owner = tokens.extra["gcid"]
        identity = identity_of(principal, provider, _REGION, owner)
        account = Account(await self._links.account_id_for(identity), provider, _REGION)
        before = await self._links.find_by_identity(principal, identity)
        link = Link(
            account=account,
            principal=principal,
            identity=identity,
            label=mask(owner),
            created_at=before.created_at if before else self._clock.utc(),
            password_hash="",
            connect_id=connect_id,
        )
        await self._keys.create(account.id, provider, principal)
        await self._tokens.save(account.id, tokens)
        follows = self._providers.get(provider).follows
        if follows is not None:
            await follows.linked(account.id, tokens)
        await self._links.put(link)
        return link

    async def _push_back(self, document: Document, provider: str, grant: DeviceGrant) -> Document:
        next_poll_at = self._clock.utc() + timedelta(seconds=grant.interval_s)
        return await self._documents.replace(document, _to_body(provider, grant, next_poll_at))

    def _device(self, provider: str) -> LogInByDevice:
        device = self._providers.get(provider).device
        if device is None:
            raise NotSupported(f"{provider} has no login by code.")
        return device


def _key(principal: str, connect_id: str) -> str:
    return f"connects/{hashlib.sha256(principal.encode()).hexdigest()}/{connect_id}"


def _to_body(provider: str, grant: DeviceGrant, next_poll_at: datetime) -> Body:
    return {
        "provider": provider,
        "user_code": grant.user_code,
        "verification_uri": grant.verification_uri,
        "verification_uri_complete": grant.verification_uri_complete,
        "expires_at": grant.expires_at.isoformat(),
        "interval_s": grant.interval_s,
        "secrets": dict(grant.secrets),
        "next_poll_at": next_poll_at.isoformat(),
    }


def _from_body(body: dict[str, Any]) -> tuple[str, DeviceGrant, datetime]:
    grant = DeviceGrant(
        user_code=body["user_code"],
        verification_uri=body["verification_uri"],
        verification_uri_complete=body["verification_uri_complete"],
        expires_at=datetime.fromisoformat(body["expires_at"]).astimezone(UTC),
        interval_s=body["interval_s"],
        secrets=body["secrets"],
    )
    return body["provider"], grant, datetime.fromisoformat(body["next_poll_at"]).astimezone(UTC)


def _waiting(connect_id: str, provider: str, grant: DeviceGrant, next_poll_at: datetime) -> Waiting:
    return Waiting(
        connect_id=connect_id,
        provider=provider,
        user_code=grant.user_code,
        verification_uri=grant.verification_uri,
        verification_uri_complete=grant.verification_uri_complete,
        expires_at=grant.expires_at,
        next_poll_at=next_poll_at,
    )
