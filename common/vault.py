"""The accounts' data keys: one each, wrapped, in a store of its own that is in no backup.

::

    keys/<account id>    {"version", "provider", "principal_digest", "key", "kid", "wrapped"}

Whatever is sealed for an account is bound to the account, its provider and its principal, to the document's place and
to the very key, so that it opens nowhere else. To delete the one small document is to shred everything that was ever
sealed for the account, in whichever copy.

A key is held unwrapped for at most ``HELD_S``; while it is held, sealing and opening do no I/O and stay on the calling
thread. That is also how long another instance may go on opening what was shredded here.
"""

import hashlib
import os
import secrets
from dataclasses import dataclass, field
from typing import Any

from common.cache import Cache
from common.clock import Clock
from common.crypto.encoding import framed, from_text, to_text
from common.crypto.envelope import KEY_BYTES, Box
from common.crypto.errors import KeyGone, SealBroken
from common.crypto.wrapping import KeyWrapper, WrappedKey
from common.lru import ENTRY_OVERHEAD_BYTES
from common.stores.documents import Body, Document, DocumentExists, Documents, VersionConflict

COLLECTION = "keys"
VERSION = "1"
HELD_S = 30.0
_HELD_BYTES = 1_024
_MARK = VERSION.encode()
_SALT_BYTES, _CHECK_BYTES = 9, 6
_NAME_BYTES = _SALT_BYTES + _CHECK_BYTES
_FIELDS = frozenset({"version", "provider", "principal_digest", "key", "kid", "wrapped"})


@dataclass(frozen=True, slots=True)
class _DataKey:
    """One account's key, unwrapped."""

    name: bytes
    box: Box = field(repr=False)
    bound: bytes
    """What all that it seals is bound to, but for the place."""


class Vault:
    """Seals for accounts. ``max_held`` keys are held unwrapped at most, the least recently used go first."""

    def __init__(self, keys: Documents, wrapper: KeyWrapper, clock: Clock, *, max_held: int = 4_096) -> None:
        self._keys = keys
        self._wrapper = wrapper
        self._held: Cache[_DataKey] = Cache(
            "data keys",
            ttl_s=HELD_S,
            jitter=0,
            max_bytes=max_held * (_HELD_BYTES + ENTRY_OVERHEAD_BYTES),
            weigh=lambda _key: _HELD_BYTES,
            clock=clock,
            failure_ttl_s=0,
        )

    async def create(self, account_id: str, provider: str, principal: str) -> None:
        """Make the account's key, if it has none yet.

        Raises SealBroken where it has one that was made for another provider or principal, StoreUnavailable.
        """
        digest = hashlib.sha256(principal.encode()).hexdigest()
        while True:
            held = await self._keys.get(_key(account_id))
            if held is not None:
                body, _ = _parsed(held)
                if (body["provider"], body["principal_digest"]) != (provider, digest):
                    raise SealBroken("the account's key was made for another provider or principal")
                await self._data_key(account_id, max_age_s=0)
                return
            body = {"version": VERSION, "provider": provider, "principal_digest": digest, "key": _new_name(account_id)}
            wrapped = await self._wrapper.wrap(secrets.token_bytes(KEY_BYTES), _wrap_context(account_id, body))
            try:
                await self._keys.create(_key(account_id), _with_wrapped(body, wrapped))
            except DocumentExists:
                continue
            self._held.invalidate(account_id)
            return

    async def shred(self, account_id: str) -> bool:
        """Delete the account's key for good; whether there was one. Other instances may hold it for ``HELD_S`` more."""
        try:
            return await self._keys.delete(_key(account_id))
        finally:
            self._held.invalidate(account_id)

    async def seal(self, account_id: str, place: str, plaintext: bytes) -> bytes:
        """``plaintext`` for the account's eyes, at this place only. Raises KeyGone, SealBroken, StoreUnavailable."""
        key = await self._data_key(account_id)
        return _MARK + key.name + key.box.seal(plaintext, key.bound + framed(place))

    async def open(self, account_id: str, place: str, sealed: bytes) -> bytes:
        """What :meth:`seal` was given for this account and place.

        Raises KeyGone where the key it was sealed under is shredded, even if the account has another one since;
        SealBroken for everything else that is not to the bit what was sealed; StoreUnavailable.
        """
        key = await self._data_key(account_id)
        mark, name, rest = sealed[:1], sealed[1 : 1 + _NAME_BYTES], sealed[1 + _NAME_BYTES :]
        if mark != _MARK or not _is_name_of(account_id, name):
            raise SealBroken("it was not sealed for this account")
        if name != key.name:
            # Elsewhere the account may have been ended and linked again since this key was read.
            key = await self._data_key(account_id, max_age_s=0)
        if name != key.name:
            raise KeyGone
        return key.box.open(rest, key.bound + framed(place))

    def forget(self, account_id: str) -> None:
        """Hold an account's key no longer: another instance has shredded it."""
        self._held.invalidate(account_id)

    async def rewrap(self, account_id: str, active: str) -> str | None:
        """Wrap the account's key anew unless it is under ``active`` already; under which it was, None for no key.

        The data key stays what it is, so whoever holds or loads it meanwhile notices nothing. Raises SealBroken,
        StoreUnavailable.
        """
        while True:
            held = await self._keys.get(_key(account_id))
            if held is None:
                return None
            body, wrapped = _parsed(held)
            context = _wrap_context(account_id, body)
            key = await self._wrapper.unwrap(wrapped, context)
            if wrapped.kid != active:
                try:
                    await self._keys.replace(held, _with_wrapped(body, await self._wrapper.wrap(key, context)))
                except VersionConflict:
                    continue
            return wrapped.kid

    async def ping(self) -> None:
        """Raise StoreUnavailable where the keys cannot be read."""
        await self._keys.ping()

    async def aclose(self) -> None:
        """Close the store of the keys and forget those that are held."""
        self._held.clear()
        await self._keys.aclose()

    async def _data_key(self, account_id: str, *, max_age_s: float = HELD_S) -> _DataKey:
        # The age is bounded from the read on, the time in the cache only from its end.
        hit = await self._held.get_or_load(
            account_id, lambda: self._load(account_id), max_age_s=max_age_s, on_error_stale=False
        )
        return hit.value

    async def _load(self, account_id: str) -> _DataKey:
        document = await self._keys.get(_key(account_id))
        if document is None:
            raise KeyGone
        body, wrapped = _parsed(document)
        key = await self._wrapper.unwrap(wrapped, _wrap_context(account_id, body))
        if len(key) != KEY_BYTES:
            raise SealBroken("the account's key is no key")
        bound = framed("seal", *_bound(account_id, body))
        return _DataKey(from_text(body["key"]), Box(key), bound)


def _key(account_id: str) -> str:
    return f"{COLLECTION}/{account_id}"


def _bound(account_id: str, body: Body) -> tuple[str, str, str, str, str]:
    return VERSION, body["provider"], body["principal_digest"], account_id, body["key"]


def _wrap_context(account_id: str, body: Body) -> bytes:
    return framed("wrap", *_bound(account_id, body))


def _with_wrapped(body: dict[str, Any], wrapped: WrappedKey) -> dict[str, Any]:
    return {**body, "kid": wrapped.kid, "wrapped": to_text(wrapped.blob)}


def _parsed(document: Document) -> tuple[Body, WrappedKey]:
    """A key document's own fields and the wrapped key. Raises SealBroken where it is not one."""
    body = document.body
    if not _has_form(body):
        raise SealBroken("the account's key document has another form")
    if body["version"] != VERSION:
        raise SealBroken("the account's key document is of another version")
    return body, WrappedKey(body["kid"], from_text(body["wrapped"]))


def _has_form(body: object) -> bool:
    return isinstance(body, dict) and set(body) == _FIELDS and all(isinstance(value, str) for value in body.values())


def _new_name(account_id: str) -> str:
    salt = os.urandom(_SALT_BYTES)
    return to_text(salt + _check(account_id, salt))


def _is_name_of(account_id: str, name: bytes) -> bool:
    """Whether ``name`` is that of a key which the account has or had.

    This tells what was sealed under an account's earlier, shredded key from what was moved or damaged. Who forges a
    name makes a document seem deleted, which whoever can write to the store can have by deleting it.
    """
    return len(name) == _NAME_BYTES and _check(account_id, name[:_SALT_BYTES]) == name[_SALT_BYTES:]


def _check(account_id: str, salt: bytes) -> bytes:
    return hashlib.sha256(framed("key name", account_id, salt)).digest()[:_CHECK_BYTES]
