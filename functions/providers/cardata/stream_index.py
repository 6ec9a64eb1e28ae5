"""Which accounts have a stream: ``streams/<account id>``, written when an account is linked, deleted when it ends."""

import asyncio
import hashlib
from dataclasses import dataclass
from typing import Final, Protocol

from common.loops import needs_loop
from common.stores.documents import DocumentExists, Documents, update
from functions.tokens import TokenSet

COLLECTION: Final = "streams"
_PAGE: Final = 1000
_AT_ONCE: Final = 16


@dataclass(frozen=True, slots=True)
class Customer:
    """One customer of BMW's, who may be linked by several callers; he has one stream."""

    name: str
    """Digest of his GCID."""
    accounts: tuple[str, ...]


class Customers(Protocol):
    """Whose streams there are."""

    async def customers(self) -> tuple[Customer, ...]:
        """All of them. Raises StoreUnavailable."""
        ...


class StreamIndex:
    """Implements :class:`Customers` on the document store. Remembers what it has read: an account's GCID is its own."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._names: dict[str, str] = {}

    async def add(self, account_id: str, gcid: str) -> None:
        """An account was linked. Raises StoreUnavailable."""
        await needs_loop()
        key, body = f"{COLLECTION}/{account_id}", {"customer": name_of(gcid)}
        while await update(self._documents, key, lambda old: None if old == body else body) is None:
            try:
                await self._documents.create(key, body)
            except DocumentExists:
                continue
            return

    async def remove(self, account_id: str) -> None:
        """An account ends. Raises StoreUnavailable."""
        await needs_loop()
        await self._documents.delete(f"{COLLECTION}/{account_id}")

    async def linked(self, account_id: str, tokens: TokenSet) -> None:
        """See :class:`functions.providers.port.FollowLinks`."""
        await self.add(account_id, tokens.extra["gcid"])

    async def unlinked(self, account_id: str) -> None:
        """See :class:`functions.providers.port.FollowLinks`."""
        await self.remove(account_id)

    async def accounts(self) -> list[str]:
        """The ids of all linked accounts. Raises StoreUnavailable."""
        await needs_loop()
        found: list[str] = []
        while True:
            after = f"{COLLECTION}/{found[-1]}" if found else None
            page = await self._documents.list(COLLECTION, limit=_PAGE, after=after)
            found += [key.partition("/")[2] for key in page]
            if len(page) < _PAGE:
                return found

    async def customers(self) -> tuple[Customer, ...]:
        """See the port: two accounts of one GCID are one customer."""
        accounts = await self.accounts()
        turns = asyncio.Semaphore(_AT_ONCE)
        names = await asyncio.gather(*[self._name(account_id, turns) for account_id in accounts])
        self._names = {account: name for account, name in zip(accounts, names, strict=True) if name is not None}
        by_name: dict[str, list[str]] = {}
        for account_id, name in self._names.items():
            by_name.setdefault(name, []).append(account_id)
        return tuple(Customer(name, tuple(found)) for name, found in sorted(by_name.items()))

    async def _name(self, account_id: str, turns: asyncio.Semaphore) -> str | None:
        if account_id in self._names:
            return self._names[account_id]
        async with turns:
            document = await self._documents.get(f"{COLLECTION}/{account_id}")
        return None if document is None else str(document.body["customer"])


def name_of(gcid: str) -> str:
    """What a customer is called where his GCID must not be seen."""
    return hashlib.sha256(gcid.encode()).hexdigest()
