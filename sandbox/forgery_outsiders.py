"""Forgers who hold no key of the issuer's."""

import base64
import json
import random
from collections.abc import Mapping
from typing import Any, Final

from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sandbox.forgery_target import Forger, Target
from sandbox.issuer import AUDIENCE, JWKS, b64, segment, signed


def _no_algorithm(target: Target, rng: random.Random) -> str:
    header = target.header(target.issuer.current, alg=rng.choice(["none", "None", "NONE", "nOnE", "", "null"]))
    return f"{segment(header)}.{segment(target.claims(rng))}.{rng.choice(['', b64(rng.randbytes(64))])}"


def _public_key_as_secret(target: Target, rng: random.Random) -> str:
    key = rng.choice([target.rsa, target.issuer.current])
    public = key.private.public_key()
    secret = rng.choice(
        [
            public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            json.dumps(key.jwk()).encode(),
        ]
    )
    return _hmac(target.header(key, alg="HS256"), target.claims(rng), secret)


def _guessed_secret(target: Target, rng: random.Random) -> str:
    secret = rng.choice([b"", b"\0", b"secret", AUDIENCE.encode(), target.issuer.origin.encode()])
    header = target.header(target.issuer.current, alg="HS256", kid=rng.choice([target.rsa.kid, None, "/dev/null"]))
    return _hmac(header, target.claims(rng), secret)


def _foreign_key(target: Target, rng: random.Random) -> str:
    key = target.stranger(rng)
    return signed(target.header(key), target.claims(rng), key)


def _unknown_kid(target: Target, rng: random.Random) -> str:
    key = target.attacker.current
    return signed(target.header(key, kid=f"key-{rng.randrange(10**9)}"), target.claims(rng), key)


def _odd_kid(target: Target, rng: random.Random) -> str:
    kids: list[Any] = [None, "", "../../../dev/null", "' OR '1'='1", 1, True, ["ec-1"], {"kid": "ec-1"}, "k" * 300]
    key = target.stranger(rng)
    return signed(target.header(key, kid=rng.choice(kids)), target.claims(rng), key)


def _embedded_key(target: Target, rng: random.Random) -> str:
    key = target.stranger(rng)
    return signed(target.header(key, jwk=key.jwk()), target.claims(rng), key)


def _key_address(target: Target, rng: random.Random) -> str:
    key = target.attacker.current
    kid = rng.choice([key.kid, target.issuer.current.kid, target.attacker.origin + JWKS])
    header = target.header(key, kid=kid, **{rng.choice(["jku", "x5u"]): target.attacker.origin + JWKS})
    return signed(header, target.claims(rng), key)


def _certificate(target: Target, rng: random.Random) -> str:
    key = target.stranger(rng)
    public = key.private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return signed(target.header(key, x5c=[base64.b64encode(public).decode()]), target.claims(rng), key)


def _own_issuer(target: Target, rng: random.Random) -> str:
    key = target.attacker.current
    return signed(target.header(key), target.claims(rng, iss=target.attacker.origin), key)


def _zero_signature(target: Target, rng: random.Random) -> str:
    size = rng.choice([64, 0, 1, 63, 65, 256])
    return f"{segment(target.header(target.issuer.current))}.{segment(target.claims(rng))}.{b64(bytes(size))}"


def _random_signature(target: Target, rng: random.Random) -> str:
    key, size = rng.choice([(target.issuer.current, 64), (target.rsa, 256)])
    return f"{segment(target.header(key))}.{segment(target.claims(rng))}.{b64(rng.randbytes(size))}"


def _garbage(target: Target, rng: random.Random) -> str:
    return rng.choice(
        [
            ".".join(b64(rng.randbytes(rng.randrange(1, 60))) for _ in range(3)),
            rng.randbytes(40).hex(),
            "..",
            "null.null.null",
            f"{segment(target.header(target.rsa))}.{segment(rng.randbytes(90))}.{b64(rng.randbytes(256))}",
            "." * rng.randrange(1, 8_000),
            b64(rng.randbytes(9_000)),
        ]
    )


def _hmac(header: Mapping[str, Any], claims: Mapping[str, Any], secret: bytes) -> str:
    message = f"{segment(header)}.{segment(claims)}"
    code = hmac.HMAC(secret, hashes.SHA256())
    code.update(message.encode())
    return f"{message}.{b64(code.finalize())}"


def _encrypted(target: Target, rng: random.Random) -> str:
    header = target.header(target.encryption, alg="ECDH-ES", enc="A128GCM")
    return ".".join([segment(header), "", *(b64(rng.randbytes(size)) for size in (12, 200, 16))])


FORGERS: Final[Mapping[str, Forger]] = {
    "no algorithm": _no_algorithm,
    "public key as HMAC secret": _public_key_as_secret,
    "guessed HMAC secret": _guessed_secret,
    "foreign key under a known id": _foreign_key,
    "unknown key id": _unknown_kid,
    "odd key id": _odd_kid,
    "embedded key": _embedded_key,
    "key at an address in the header": _key_address,
    "certificate in the header": _certificate,
    "the attacker's own issuer": _own_issuer,
    "zero signature": _zero_signature,
    "random signature": _random_signature,
    "garbage": _garbage,
    "encrypted": _encrypted,
}
"""By name."""
