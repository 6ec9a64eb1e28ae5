"""What may be done to API keys, on the document store.

Each change of a key is one compare-and-swap, so that whoever is killed leaves what was or what was asked for. A
renewal touches two documents and makes the new one first: killed in between, it leaves the old key as it was and a
new one whose secret nobody has.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from common.api_keys import COLLECTION, PRINCIPAL_PREFIX, ApiKey, KeyRecord, document_key, is_key_id
from common.callers import Scope
from common.clock import Clock
from common.errors import StoreUnavailable
from common.stores.documents import Body, Document, Documents, VersionConflict, update
from ops.keys_command import Refused

MAX_NAME_CHARS = 64
_FOREVER = datetime.max.replace(tzinfo=UTC)
PAGE = 100
_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Issued:
    """A new key. Its text goes to its holder and is kept nowhere."""

    text: str = field(repr=False)
    record: KeyRecord


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A document among the keys that is none."""

    id: str


class KeyBook:
    """The keys in a store. Everything may raise StoreUnavailable."""

    def __init__(
        self, documents: Documents, clock: Clock, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._documents = documents
        self._clock = clock
        self._sleep = sleep

    async def issue(
        self,
        name: str,
        scopes: frozenset[Scope],
        *,
        valid_for: timedelta | None = None,
        principal: str | None = None,
    ) -> Issued:
        """A key for a new principal, or one more for the ``principal`` of other keys. Raises Refused."""
        if not (1 <= len(name) <= MAX_NAME_CHARS and name.isprintable() and name == name.strip()):
            raise Refused(f"A name is 1 to {MAX_NAME_CHARS} printable characters, without spaces around them.")
        if principal is not None:
            await self._check_principal(principal)
        key, now = ApiKey.generate(), self._clock.utc()
        record = KeyRecord(
            id=key.id,
            name=name,
            principal=principal or f"{PRINCIPAL_PREFIX}{key.id}",
            scopes=scopes,
            hash=key.hash,
            created_at=now,
            expires_at=None if valid_for is None else now + valid_for,
        )
        await self._documents.create(document_key(key.id), record.to_body())
        return Issued(key.text, record)

    async def all(self) -> list[KeyRecord | Unreadable]:
        """Every key, the oldest first, and behind them what cannot be read as one."""
        found: list[KeyRecord | Unreadable] = []
        after: str | None = None
        while page := await self._documents.list(COLLECTION, limit=PAGE, after=after):
            after = page[-1]
            for start in range(0, len(page), _AT_ONCE):
                some = await asyncio.gather(*(self._read(path) for path in page[start : start + _AT_ONCE]))
                found += [one for one in some if one is not None]
        return sorted(found, key=lambda one: (one.created_at if isinstance(one, KeyRecord) else _FOREVER, one.id))

    async def revoke(self, key_id: str) -> KeyRecord:
        """End a key for good. Of several at once one does it.

        Raises Refused where it is unknown or was revoked before.
        """
        now = self._clock.utc()

        def end(body: Body) -> Body:
            if KeyRecord.from_body(key_id, body).revoked_at is not None:
                raise Refused(f"The key {key_id} was revoked already.")
            return {**body, "revoked_at": now.isoformat()}

        return await self._change(key_id, end)

    async def renew(
        self, key_id: str, *, overlap: timedelta, valid_for: timedelta | None = None
    ) -> tuple[Issued, KeyRecord]:
        """A new key with an old one's name, principal and scopes; and the old one, which ends after ``overlap``.

        The new key is valid for as long as the old one was made for, if ``valid_for`` does not say otherwise. Of
        several renewals of one key at once one succeeds. Raises Refused where the key is unknown, was revoked or was
        renewed before.
        """
        old = await self._get(key_id)
        record = _renewable(KeyRecord.from_body(key_id, old.body))
        if valid_for is None and record.expires_at is not None:
            valid_for = record.expires_at - record.created_at
        key, now = ApiKey.generate(), self._clock.utc()
        fresh = {
            "hash": key.hash.hex(),
            "created_at": now.isoformat(),
            "expires_at": None if valid_for is None else (now + valid_for).isoformat(),
        }
        new = await self._documents.create(document_key(key.id), {**old.body, **fresh})

        def give_way(body: Body) -> Body:
            end = min(now + overlap, _renewable(KeyRecord.from_body(key_id, body)).expires_at or _FOREVER)
            return {**body, "replaced_by": key.id, "expires_at": end.isoformat()}

        try:
            replaced = await self._change(key_id, give_way)
        except Refused:
            # Whoever ended the old key meanwhile did not mean to leave another one behind.
            with contextlib.suppress(VersionConflict):
                await self._documents.delete(new.key, new.version)
            raise
        return Issued(key.text, KeyRecord.from_body(key.id, new.body)), replaced

    async def _check_principal(self, principal: str) -> None:
        first_id = principal.removeprefix(PRINCIPAL_PREFIX)
        if first_id != principal and is_key_id(first_id):
            document = await self._documents.get(document_key(first_id))
            if document is not None and KeyRecord.from_body(first_id, document.body).principal == principal:
                return
        raise Refused(f"No key has that principal; it is {PRINCIPAL_PREFIX}ID, as `list` shows it.")

    async def _read(self, path: str) -> KeyRecord | Unreadable | None:
        key_id = path.removeprefix(f"{COLLECTION}/")
        try:
            document = await self._documents.get(path)
            return None if document is None else KeyRecord.from_body(key_id, document.body)
        except StoreUnavailable:
            # Where it is the store and not the document, the next listing raises.
            return Unreadable(key_id)

    async def _get(self, key_id: str) -> Document:
        return _known(key_id, await self._documents.get(_path_of(key_id)))

    async def _change(self, key_id: str, change: Callable[[Body], Body]) -> KeyRecord:
        try:
            document = _known(key_id, await update(self._documents, _path_of(key_id), change, sleep=self._sleep))
        except VersionConflict:
            raise Refused(f"The key {key_id} is being changed by others; try again.") from None
        return KeyRecord.from_body(key_id, document.body)


def _path_of(key_id: str) -> str:
    if not is_key_id(key_id):
        # Not repeated: it may be a whole key.
        raise Refused("An id is 22 letters and digits, as `list` shows it.")
    return document_key(key_id)


def _known(key_id: str, document: Document | None) -> Document:
    if document is None:
        raise Refused(f"There is no key {key_id}.")
    return document


def _renewable(record: KeyRecord) -> KeyRecord:
    if record.revoked_at is not None:
        raise Refused(f"The key {record.id} was revoked already.")
    if record.replaced_by is not None:
        raise Refused(f"The key {record.id} was renewed already, by {record.replaced_by}.")
    return record
