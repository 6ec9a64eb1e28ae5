"""Any document store, with the bodies sealed before they reach it.

::

    a document of an account    {"sealed": "..."}              under the account's data key (common.vault)
    any other document          {"sealed": "...", "kid": "k2"} under a key derived from the deployment's keyset
    an excepted collection      as it is

Each body is bound to its document's key: copied to another document it does not open. What cannot be vouched for is
never served, a body that is not sealed included. When an account's data key is gone, its documents count as absent,
though they are still listed, to be deleted. What this cannot see is a document set back to one of its own earlier
bodies, or removed: whoever can write to the store can do both.
"""

import builtins
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import orjson

from common.crypto.encoding import framed, from_text, to_text
from common.crypto.errors import KeyGone, SealBroken
from common.loops import needs_loop
from common.stores.documents import (
    MAX_BODY_BYTES,
    Body,
    Document,
    DocumentExists,
    Documents,
    VersionConflict,
    check_key,
    encode_body,
)

if TYPE_CHECKING:  # so that who does not seal need not load the cryptography
    from common.crypto.keyset import Keyset
    from common.vault import Vault

MAX_PLAIN_BYTES = (MAX_BODY_BYTES - 256) // 4 * 3 - 64
"""Largest body, as JSON: sealed it is a third larger."""

AccountOf = Callable[[str], str | None]
"""Which account a document key belongs to; None for one that names none."""
OnBroken = Callable[[str, str], None]
"""Told the collection and the reason of each document that was refused; neither holds a value or a key."""


def segment(number: int) -> AccountOf:
    """The account whose id is this segment of the key; 0 is the collection."""

    def find(key: str) -> str | None:
        segments = key.split("/")
        return segments[number] if number < len(segments) else None

    return find


class SealedDocuments:
    """The port over ``inner``, closing ``vault`` with it.

    ``accounts`` says for each collection of accounts' documents how a key names its account, ``plain`` which
    collections stay as they are.
    """

    def __init__(
        self,
        inner: Documents,
        vault: "Vault",
        keyset: "Keyset",
        *,
        accounts: Mapping[str, AccountOf],
        plain: frozenset[str] = frozenset(),
        on_broken: OnBroken = lambda _collection, _reason: None,
    ) -> None:
        self._inner = inner
        self._vault = vault
        self._keyset = keyset
        self._accounts = accounts
        self._plain = plain
        self._on_broken = on_broken

    async def get(self, key: str) -> Document | None:
        """See :class:`Documents`. Raises SealBroken."""
        await needs_loop()
        found = await self._inner.get(key)
        if found is None or self._is_plain(key):
            return found
        try:
            return _with_body(found, await self._open(found))
        except KeyGone:
            return None

    async def create(self, key: str, body: Body) -> Document:
        """See :class:`Documents`. Raises KeyGone, SealBroken."""
        await needs_loop()
        if self._is_plain(key):
            return await self._inner.create(key, body)
        encoded = _encoded(body)
        sealed = await self._seal(check_key(key), encoded)
        while True:
            try:
                created = await self._inner.create(key, sealed)
            except DocumentExists:
                orphan = await self._inner.get(key)
                if orphan is None:
                    continue
                if not await self._is_orphan(orphan):
                    raise
                try:
                    created = await self._inner.replace(orphan, sealed)
                except VersionConflict:
                    continue
            return _with_body(created, orjson.loads(encoded))

    async def replace(self, document: Document, body: Body) -> Document:
        """See :class:`Documents`. An account without a key has no documents: VersionConflict. Raises SealBroken."""
        await needs_loop()
        if self._is_plain(document.key):
            return await self._inner.replace(document, body)
        encoded = _encoded(body)
        try:
            sealed = await self._seal(check_key(document.key), encoded)
        except KeyGone as gone:
            raise VersionConflict from gone
        # A store goes by key, version and lineage; the body that it gave was another.
        return _with_body(await self._inner.replace(document, sealed), orjson.loads(encoded))

    async def delete(self, key: str, version: str | None = None) -> bool:
        """See :class:`Documents`. What nobody can open any more can still be deleted."""
        return await self._inner.delete(key, version)

    async def list(self, prefix: str, *, limit: int = 1000, after: str | None = None) -> builtins.list[str]:
        """See :class:`Documents`. Lists what nobody can open any more, too."""
        return await self._inner.list(prefix, limit=limit, after=after)

    async def ping(self) -> None:
        """See :class:`Documents`. Without the data keys the store is no use."""
        await self._inner.ping()
        await self._vault.ping()

    async def aclose(self) -> None:
        """See :class:`Documents`."""
        await self._inner.aclose()
        await self._vault.aclose()

    def _is_plain(self, key: str) -> bool:
        return _collection(key) in self._plain

    async def _seal(self, key: str, plaintext: bytes) -> Body:
        account_of = self._accounts.get(_collection(key))
        if account_of is None:
            return seal_for_deployment(self._keyset, key, plaintext)
        account_id = account_of(key)
        if account_id is None:
            raise ValueError("the key names no account")
        return {"sealed": to_text(await self._vault.seal(account_id, key, plaintext))}

    async def _open(self, document: Document) -> Body:
        """The body in a document of the inner store. Raises KeyGone, SealBroken."""
        account_of = self._accounts.get(_collection(document.key))
        try:
            if account_of is None:
                return _loaded(open_for_deployment(self._keyset, document))
            account_id, sealed = _sealed_for_account(account_of, document)
            return _loaded(await self._vault.open(account_id, document.key, sealed))
        except SealBroken as broken:
            self._on_broken(_collection(document.key), broken.reason)
            raise

    async def _is_orphan(self, document: Document) -> bool:
        try:
            await self._open(document)
        except KeyGone:
            return True
        except SealBroken:
            return False
        return False


def seal_for_deployment(keyset: "Keyset", key: str, plaintext: bytes) -> Body:
    """The body to store under ``key``."""
    kid, sealed = keyset.seal(plaintext, _place(key))
    return {"sealed": to_text(sealed), "kid": kid}


def open_for_deployment(keyset: "Keyset", document: Document) -> bytes:
    """What :func:`seal_for_deployment` was given for this document. Raises SealBroken."""
    kid = kid_of(document.body)
    if kid is None:
        raise SealBroken("it is not sealed for the deployment")
    return keyset.open(kid, from_text(document.body["sealed"]), _place(document.key))


def _sealed_for_account(account_of: AccountOf, document: Document) -> tuple[str, bytes]:
    account_id = account_of(document.key)
    if account_id is None or not _has_fields(document.body, "sealed"):
        raise SealBroken("it is not sealed for an account")
    return account_id, from_text(document.body["sealed"])


def kid_of(body: Body) -> str | None:
    """The master key under which a body is sealed for the deployment; None for any other body."""
    kid = body["kid"] if _has_fields(body, "sealed", "kid") else None
    return kid if isinstance(kid, str) else None


def _place(key: str) -> bytes:
    return framed("1", key)


def _has_fields(body: object, *fields: str) -> bool:
    return isinstance(body, dict) and set(body) == set(fields)


def _collection(key: str) -> str:
    return key.partition("/")[0]


def _encoded(body: Body) -> bytes:
    encoded = encode_body(body)
    if len(encoded) > MAX_PLAIN_BYTES:
        raise ValueError(f"a sealed document's body is at most {MAX_PLAIN_BYTES} bytes of JSON")
    return encoded


def _loaded(encoded: bytes) -> Body:
    body: dict[str, Any] = orjson.loads(encoded)
    return body


def _with_body(document: Document, body: Body) -> Document:
    return Document(document.key, body, document.version, document.lineage)
