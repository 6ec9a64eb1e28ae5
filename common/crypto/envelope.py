"""AES-256-GCM with a random nonce, and the context that every ciphertext is bound to.

A nonce is 96 random bits, never derived and never counted, so that no two processes need to agree on anything; one
key may then seal 2^32 messages before a repeated nonce becomes likelier than 2^-32 (NIST SP 800-38D, 8.3). A data key
lives for one account and seals some thousands.

Python cannot wipe a key from memory: bytes are copied and freed as the interpreter sees fit. What is done instead is
to hold few keys and to hold them briefly.
"""

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from common.crypto.errors import SealBroken

KEY_BYTES = 32
_NONCE_BYTES = 12
_TAG_BYTES = 16

OVERHEAD_BYTES = _NONCE_BYTES + _TAG_BYTES
"""How much longer a sealed text is than the plain one."""


class Box:
    """One AES-256-GCM key. May be used on any thread."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key is {KEY_BYTES} bytes")
        self._cipher = AESGCM(key)

    def seal(self, plaintext: bytes, context: bytes) -> bytes:
        """Nonce, ciphertext and tag, bound to ``context``."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plaintext, context)

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """What :meth:`seal` was given. Raises SealBroken where a bit of it, of the key or of the context differs."""
        if len(sealed) < OVERHEAD_BYTES:
            raise SealBroken("it is cut short")
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], context)
        except InvalidTag:
            raise SealBroken("it was changed, moved, or sealed under another key") from None
