"""How contexts are put together and how bytes are written into documents."""

import base64
import binascii

from common.crypto.errors import SealBroken


def framed(*parts: str | bytes) -> bytes:
    """The parts in one, each behind its length (4 bytes, big-endian): different parts never give the same bytes."""
    encoded = [part.encode() if isinstance(part, str) else part for part in parts]
    return b"".join([len(part).to_bytes(4, "big") + part for part in encoded])


def to_text(raw: bytes) -> str:
    """URL-safe base64."""
    return base64.urlsafe_b64encode(raw).decode()


def from_text(text: object) -> bytes:
    """What :func:`to_text` was given. Raises SealBroken for everything that it does not spell to the letter."""
    try:
        raw = base64.urlsafe_b64decode(text) if isinstance(text, str) else None
    except (binascii.Error, ValueError):
        raw = None
    # Base64 can spell the same bytes in several ways; only one of them was stored.
    if raw is None or to_text(raw) != text:
        raise SealBroken("it is not written as it was stored")
    return raw
