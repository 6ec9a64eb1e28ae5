"""Identifiers that cannot be guessed."""

import secrets
import string

_ALPHABET = string.ascii_letters + string.digits
LENGTH = 22
"""131 bits in base 62."""


def random_id() -> str:
    """22 letters and digits from the system's generator."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(LENGTH))
