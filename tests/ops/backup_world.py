"""A deployment's stores with accounts in them, written by the service's own classes, and the command line on them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from common.callers import ALL_SCOPES
from common.clock import ManualClock
from common.settings import Settings
from common.stores.documents import Documents, open_documents
from common.vault import Vault
from functions.audit import AuditTrail
from functions.command_record import Record, key_of, to_body
from functions.links import Link, LinkBook, identity_of
from functions.providers.port import Account, Region
from functions.storage import UNDER_THE_ACCOUNT, open_storage
from functions.tokens import TokenKeeper, TokenSet
from ops.backup import main
from ops.keys_book import KeyBook
from tests.common.crypto.masters import K1
from tests.support.audit_writer import KEY, enter, record

T = TypeVar("T")
PRINCIPAL = "issuer|owner"
DAY = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Place:
    """Where a deployment keeps what it keeps."""

    url: str
    keys_url: str
    token_keys: str = K1
    gcs_endpoint: str | None = None

    @property
    def environ(self) -> dict[str, str]:
        values = {"DOCUMENTS_URL": self.url, "KEYS_URL": self.keys_url, "TOKEN_KEYS": self.token_keys}
        return values | ({"GCS_ENDPOINT": self.gcs_endpoint} if self.gcs_endpoint else {})

    def at(self, url: str) -> "Place":
        """The same deployment with its documents elsewhere."""
        return replace(self, url=url)

    @asynccontextmanager
    async def stores(self) -> AsyncIterator[tuple[Documents, Vault]]:
        """The documents as the service has them, and the accounts' keys."""
        settings = Settings(
            documents_url=self.url, keys_url=self.keys_url, token_keys=self.token_keys, gcs_endpoint=self.gcs_endpoint
        )
        documents, vault = open_storage(settings, ManualClock())
        assert isinstance(vault, Vault)
        try:
            yield documents, vault
        finally:
            await documents.aclose()

    def opened(self) -> dict[str, Any]:
        """Every document that the service can read."""

        async def read() -> dict[str, Any]:
            async with self.stores() as (documents, _):
                found = [await documents.get(key) for key in await documents.list("")]
            return {document.key: document.body for document in found if document is not None}

        return asyncio.run(read())

    def stored(self) -> list[str]:
        """The keys of everything that lies in the store, readable or not."""

        async def read() -> list[str]:
            documents = open_documents(self.url, gcs_endpoint=self.gcs_endpoint)
            try:
                return await documents.list("")
            finally:
                await documents.aclose()

        return asyncio.run(read())

    def backup(self, *argv: str | Path) -> int:
        """The command line; its exit status."""
        return main([str(arg) for arg in argv], self.environ)


def sqlite_place(folder: Path, name: str = "live") -> Place:
    return Place(f"sqlite:///{folder}/{name}.db", f"sqlite:///{folder}/{name}.keys.db")


Work = Callable[[Documents, Vault], Coroutine[Any, Any, T]]


def run(place: Place, work: Work[T]) -> T:
    """Do something to a deployment's stores."""

    async def do() -> T:
        async with place.stores() as (documents, vault):
            return await work(documents, vault)

    return asyncio.run(do())


def tokens_at(account: str, days: int) -> TokenSet:
    """What the maker gave so many days after the first."""
    return TokenSet(f"access-{account}-{days}", f"refresh-{account}-{days}", DAY + timedelta(days=days, hours=1))


async def rotate(documents: Documents, account: str, days: int) -> None:
    """New tokens, as a rotation so many days after the first login stores them."""
    clock = ManualClock(wall=DAY + timedelta(days=days))
    await TokenKeeper(documents, clock).save(account, tokens_at(account, days))


async def link(documents: Documents, vault: Vault, name: str) -> str:
    """An account with everything that an account can have; its id."""
    identity = identity_of(PRINCIPAL, "mybmw", Region.REST_OF_WORLD, f"{name}@example.com")
    account = await LinkBook(documents).account_id_for(identity)
    await vault.create(account, "mybmw", PRINCIPAL)
    await rotate(documents, account, 0)
    await LinkBook(documents).put(
        Link(
            account=Account(account, "mybmw", Region.REST_OF_WORLD),
            principal=PRINCIPAL,
            identity=identity,
            label=f"{name[0]}***",
            created_at=DAY,
            password_hash="scrypt",
        )
    )
    await command(documents, account)
    for key, body in stand_ins(account, name).items():
        await documents.create(key, body)
    return account


def stand_ins(account: str, name: str) -> dict[str, dict[str, str]]:
    """Short-lived documents, in no form that the service writes; by key."""
    return {
        f"slots/{name}": {"of": name},
        f"confirmations/{account}/one": {"of": name},
        f"claims/{name}/one": {"command_id": f"cmd_{account.removeprefix('acc_')}_one"},
    }


async def command(documents: Documents, account: str, number: str = "1", **changes: Any) -> Record:
    """A command as it is accepted and entered, with ``changes`` to its record."""
    accepted = replace(record(number, account=account), **changes)
    await enter(AuditTrail(documents, ManualClock(), key=KEY.encode()), accepted)
    await documents.create(key_of(accepted.id), to_body(accepted))
    return accepted


async def disconnect(documents: Documents, vault: Vault, account: str) -> None:
    """Delete every trace, in the order in which the service does it."""
    book = LinkBook(documents)
    found = await book.find(PRINCIPAL, account)
    await book.end(found)
    await TokenKeeper(documents, ManualClock()).delete(account)
    for collection in UNDER_THE_ACCOUNT:
        for key in await documents.list(f"{collection}/{account}"):
            await documents.delete(key)
    await book.release_identity(found)
    await vault.shred(account)
    await book.remove(found)


def filled(place: Place, *names: str) -> list[str]:
    """A deployment with an API key, a lockout and these accounts; the accounts' ids."""

    async def fill(documents: Documents, vault: Vault) -> list[str]:
        await KeyBook(documents, ManualClock()).issue("somebody", ALL_SCOPES)
        await documents.create("lockouts/somebody", {"tries": []})
        return [await link(documents, vault, name) for name in names]

    return run(place, fill)
