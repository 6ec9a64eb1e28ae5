"""Linked accounts as they are stored: which caller may use which account at which maker.

A link belongs to one principal. It is reached in two ways, by its id and by the identity (provider, region, user
name) that a credential form names; both lead through the principal, whose digest is part of the link's key, so
another caller's link cannot even be named.
The link document is the commit point: without it, or with ``ending`` set, the account does not exist, whatever else a
killed process has left behind. A disconnect deletes it last, so the next connect or listing finds what is unfinished.
"""

import contextlib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from common.errors import AccountNotFound
from common.ids import random_id
from common.loops import needs_loop
from common.stores.documents import DocumentExists, Documents, VersionConflict, update
from common.text import mended
from functions.providers.port import Account, Region, Vehicle


@dataclass(frozen=True, slots=True)
class Link:
    """One linked account."""

    account: Account
    principal: str
    identity: str
    """Digest of (principal, provider, region, user name): the e-mail address itself is not stored."""
    label: str
    """A masked user name, for the owner to recognise."""
    created_at: datetime
    password_hash: str = field(repr=False)
    vehicles: tuple[Vehicle, ...] = ()
    vehicles_at: datetime | None = None
    """When the maker last told which vehicles there are."""
    ending: bool = False
    """A disconnect has begun."""
    connect_id: str | None = None
    """The login by code that has made it, for an owner who never got the answer."""


def identity_of(principal: str, provider: str, region: Region, username: str) -> str:
    """Digest that names one maker's account of one caller. User names are compared without case and outer spaces."""
    parts = (principal, provider, region.value, username.strip().casefold())
    return hashlib.sha256("\x00".join(parts).encode()).hexdigest()


def mask(username: str) -> str:
    """``d***@e***.com``: enough to recognise one's own, not enough to learn another's."""
    name, at, domain = username.strip().partition("@")
    if not at:
        return f"{name[:2]}***{name[-2:]}" if len(name) > 6 else "***"
    host, dot, ending = domain.rpartition(".")
    return f"{name[:1]}***@{host[:1]}***{dot}{ending}"


class LinkBook:
    """Links on the document store."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    async def account_id_for(self, identity: str) -> str:
        """The account id reserved for an identity; reserves one at the first call."""
        await needs_loop()
        key = f"identities/{identity}"
        while True:
            found = await self._documents.get(key)
            if found is not None:
                return str(found.body["account"])
            account_id = f"acc_{random_id()}"
            try:
                await self._documents.create(key, {"account": account_id})
            except DocumentExists:
                continue
            return account_id

    async def find(self, principal: str, account_id: str) -> Link:
        """A link of this principal's; raises AccountNotFound, whether it is another's or nobody's."""
        await needs_loop()
        document = await self._documents.get(_key(principal, account_id))
        if document is None or document.body["ending"]:
            raise AccountNotFound
        return _from_body(account_id, document.body)

    async def find_by_identity(self, principal: str, identity: str) -> Link | None:
        """The link behind a credential form, if there is one."""
        await needs_loop()
        found = await self._documents.get(f"identities/{identity}")
        if found is None:
            return None
        try:
            return await self.find(principal, str(found.body["account"]))
        except AccountNotFound:
            return None

    async def put(self, link: Link) -> None:
        """Create or replace a link."""
        await needs_loop()
        key = _key(link.principal, link.account.id)
        while True:
            current = await self._documents.get(key)
            try:
                if current is None:
                    await self._documents.create(key, _to_body(link))
                else:
                    await self._documents.replace(current, _to_body(link))
            except (DocumentExists, VersionConflict):
                continue
            return

    async def end(self, link: Link) -> None:
        """Mark a link as ending: from here on nobody finds it."""
        await needs_loop()
        await self._change(link, {"ending": True})

    async def release_identity(self, link: Link) -> None:
        """Delete what leads from a credential form to the account."""
        await needs_loop()
        identity = await self._documents.get(f"identities/{link.identity}")
        # Linked again meanwhile, it names another account.
        if identity is not None and identity.body["account"] == link.account.id:
            with contextlib.suppress(VersionConflict):
                await self._documents.delete(identity.key, identity.version)

    async def remove(self, link: Link) -> None:
        """Delete the link itself, last of all: what a killed process leaves is resumed from it."""
        await needs_loop()
        await self._documents.delete(_key(link.principal, link.account.id))

    async def sweep(self, principal: str) -> None:
        """Delete links that nobody can read any more: their key was shredded, and then the process was killed."""
        await needs_loop()
        for key in await self._documents.list(_prefix(principal)):
            if await self._documents.get(key) is None:
                await self._documents.delete(key)

    async def remember_vehicles(self, link: Link, vehicles: tuple[Vehicle, ...], at: datetime) -> None:
        """Store the maker's vehicle list with the link."""
        await needs_loop()
        await self._change(link, {"vehicles": [_vehicle_body(v) for v in vehicles], "vehicles_at": at.isoformat()})

    async def of_principal(self, principal: str, *, ending: bool = False) -> list[Link]:
        """All links of a caller, oldest first; with ``ending`` those instead whose disconnect was never finished."""
        await needs_loop()
        documents = [await self._documents.get(key) for key in await self._documents.list(_prefix(principal))]
        links = [
            _from_body(document.key.rpartition("/")[2], document.body)
            for document in documents
            if document is not None and document.body["ending"] is ending
        ]
        return sorted(links, key=lambda link: (link.created_at, link.account.id))

    async def _change(self, link: Link, changes: Mapping[str, Any]) -> None:
        key = _key(link.principal, link.account.id)
        changed = await update(self._documents, key, lambda body: {**body, **changes})
        if changed is None:
            raise AccountNotFound


def _prefix(principal: str) -> str:
    return f"links/{hashlib.sha256(principal.encode()).hexdigest()}"


def _key(principal: str, account_id: str) -> str:
    return f"{_prefix(principal)}/{account_id}"


def _to_body(link: Link) -> dict[str, Any]:
    return {
        "principal": link.principal,
        "provider": link.account.provider,
        "region": link.account.region.value,
        "identity": link.identity,
        "label": link.label,
        "created_at": link.created_at.isoformat(),
        "password_hash": link.password_hash,
        "vehicles": [_vehicle_body(vehicle) for vehicle in link.vehicles],
        "vehicles_at": link.vehicles_at.isoformat() if link.vehicles_at else None,
        "ending": link.ending,
        "connect_id": link.connect_id,
    }


def _from_body(account_id: str, body: Mapping[str, Any]) -> Link:
    vehicles_at = body["vehicles_at"]
    return Link(
        account=Account(account_id, body["provider"], Region(body["region"])),
        principal=body["principal"],
        identity=body["identity"],
        label=body["label"],
        created_at=datetime.fromisoformat(body["created_at"]).astimezone(UTC),
        password_hash=body["password_hash"],
        vehicles=tuple(Vehicle(**vehicle) for vehicle in body["vehicles"]),
        vehicles_at=datetime.fromisoformat(vehicles_at).astimezone(UTC) if vehicles_at else None,
        ending=body["ending"],
        connect_id=body.get("connect_id"),
    )


def _vehicle_body(vehicle: Vehicle) -> dict[str, Any]:
    body: dict[str, Any] = mended(
        {
            "vin": vehicle.vin,
            "brand": vehicle.brand,
            "name": vehicle.name,
            "drivetrain": vehicle.drivetrain,
            "profile": vehicle.profile,
        }
    )
    return body
