"""Salted password hashes, for telling that a password is the one that worked before.

scrypt with N = 2^14, r = 8, p = 1: 16 MiB and some 40 ms a guess. Blocking: callers run it in a thread.
"""

import base64
import hashlib
import hmac
import os

_N, _R, _P = 2**14, 8, 1


def hash_password(password: str) -> str:
    """``scrypt$N$r$p$salt$hash``, with a salt of its own."""
    salt = os.urandom(16)
    return "$".join(["scrypt", str(_N), str(_R), str(_P), _b64(salt), _b64(_derive(password, salt, _N, _R, _P))])


def verify_password(password: str, stored: str) -> bool:
    """Whether ``password`` is the one behind ``stored``."""
    _scheme, n, r, p, salt, expected = stored.split("$")
    derived = _derive(password, base64.b64decode(salt), int(n), int(r), int(p))
    return hmac.compare_digest(derived, base64.b64decode(expected))


def _derive(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, maxmem=64 * 2**20, dklen=32)


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
