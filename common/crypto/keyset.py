"""Master keys from the settings: ``TOKEN_KEYS="k2:<base64 of 32 bytes>,k1:<...>"``.

The first is active, it wraps and seals; the others only open what they once wrapped. A master key is never used
itself: a key for each purpose is derived from it by HKDF-SHA-256.
"""

import base64
import binascii
import re
from collections.abc import Sequence

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from common.crypto.encoding import framed
from common.crypto.envelope import KEY_BYTES, Box
from common.crypto.errors import SealBroken
from common.crypto.wrapping import WrappedKey

_KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,32}")


class Keyset:
    """An active master key and retired ones. Wraps data keys (:class:`KeyWrapper`) and seals for the deployment."""

    def __init__(self, keys: Sequence[tuple[str, bytes]]) -> None:
        """``keys`` are ids and 32 bytes each, the active one first. Raises ValueError, which names no key."""
        if not keys:
            raise ValueError("a keyset needs a key")
        for kid, key in keys:
            if _KEY_ID.fullmatch(kid) is None:
                raise ValueError("a key's id is 1 to 32 letters, digits, - and _")
            if len(key) != KEY_BYTES:
                raise ValueError(f"a key is {KEY_BYTES} bytes")
        if len({kid for kid, _ in keys}) < len(keys) or len({key for _, key in keys}) < len(keys):
            raise ValueError("no id and no key may be in a keyset twice")
        self.active = keys[0][0]
        self.kids = tuple(kid for kid, _ in keys)
        self._wrapping = {kid: Box(_derived(key, b"wrap")) for kid, key in keys}
        self._sealing = {kid: Box(_derived(key, b"documents")) for kid, key in keys}
        # Of one key whatever their order, so that promoting another one changes no name.
        self.naming_key = _derived(min(keys)[1], b"names")
        """For keyed digests that name what must not be guessed. Changes when a master key is added or dropped."""

    @classmethod
    def parse(cls, text: str) -> "Keyset":
        """The keyset that a setting spells. Raises ValueError, which repeats nothing of the setting."""
        return cls([_parsed(part.strip()) for part in text.split(",")])

    def __repr__(self) -> str:
        return f"Keyset({', '.join(self.kids)})"

    async def active_kid(self) -> str:
        """See :class:`KeyWrapper`."""
        return self.active

    def holds(self, kid: str) -> bool:
        """See :class:`KeyWrapper`."""
        return kid in self._wrapping

    async def wrap(self, key: bytes, context: bytes) -> WrappedKey:
        """See :class:`KeyWrapper`."""
        return WrappedKey(self.active, self._wrapping[self.active].seal(key, framed(self.active, context)))

    async def unwrap(self, wrapped: WrappedKey, context: bytes) -> bytes:
        """See :class:`KeyWrapper`."""
        return self._box(self._wrapping, wrapped.kid).open(wrapped.blob, framed(wrapped.kid, context))

    def seal(self, plaintext: bytes, context: bytes) -> tuple[str, bytes]:
        """The active key's id and what it seals for the deployment itself."""
        return self.active, self._sealing[self.active].seal(plaintext, framed(self.active, context))

    def open(self, kid: str, sealed: bytes, context: bytes) -> bytes:
        """What :meth:`seal` was given, under whichever key. Raises SealBroken."""
        return self._box(self._sealing, kid).open(sealed, framed(kid, context))

    def _box(self, boxes: dict[str, Box], kid: str) -> Box:
        box = boxes.get(kid)
        if box is None:
            raise SealBroken("it is under a master key that TOKEN_KEYS does not hold: was one dropped before `rotate`?")
        return box


def _derived(key: bytes, purpose: bytes) -> bytes:
    # Without a salt: the master key is random and not a password.
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=purpose).derive(key)


def _parsed(part: str) -> tuple[str, bytes]:
    kid, _, encoded = part.partition(":")
    try:
        return kid, base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("a key is written as id:base64, several with commas between") from None
