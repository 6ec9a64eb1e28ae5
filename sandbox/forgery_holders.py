"""Forgers who hold a genuine token, or a genuine key that must not sign, or not like this."""

import base64
import json
import random
from collections.abc import Mapping
from typing import Any, Final

from sandbox.forgery_target import Forger, Target
from sandbox.issuer import b64, segment, signed

_ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def _signature_cut_off(target: Target, rng: random.Random) -> str:
    head, body, _ = target.good(rng).split(".")
    return f"{head}.{body}{rng.choice(['.', ''])}"


def _signature_removed_by_google(target: Target, rng: random.Random) -> str:
    head, body, _ = target.good(rng).split(".")
    return f"{head}.{body}.SIGNATURE_REMOVED_BY_GOOGLE"


def _flipped_bit(target: Target, rng: random.Random) -> str:
    head, body, signature = target.good(rng).split(".")
    raw = bytearray(_decoded(signature))
    raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    return f"{head}.{body}.{b64(bytes(raw))}"


def _truncated_signature(target: Target, rng: random.Random) -> str:
    head, body, signature = target.good(rng).split(".")
    raw = _decoded(signature)
    return f"{head}.{body}.{b64(raw[: rng.randrange(1, len(raw))])}"


def _swapped_claims(target: Target, rng: random.Random) -> str:
    head, _, signature = target.good(rng).split(".")
    return f"{head}.{segment(target.claims(rng, scope='admin'))}.{signature}"


def _swapped_header(target: Target, rng: random.Random) -> str:
    _, body, signature = target.good(rng).split(".")
    changes = rng.choice([{"cty": "JWT"}, {"typ": "at+jwt"}, {"alg": "RS512"}, {"kid": target.rsa.kid, "alg": "PS256"}])
    return f"{segment(target.header(target.issuer.current, **changes))}.{body}.{signature}"


def _other_spelling(target: Target, rng: random.Random) -> str:
    """The same bits in another text: base64 has padding and spare bits, headers have blanks."""
    token = target.good(rng)
    head, body, signature = token.split(".")
    # The last character of 64 or of 256 bytes has four bits to spare.
    changed = signature[:-1] + _ALPHABET[_ALPHABET.index(signature[-1]) ^ rng.randint(1, 15)]
    return rng.choice(
        [
            f"{head}.{body}.{changed}",
            token + "=" * rng.randint(1, 3),
            f"{head}=.{body}.{signature}",
            f"{head}.{body}\n.{signature}",
            f" {token}",
            f"{token} ",
            f"{token}\n",
            f"{token}.",
            f"{token}, {token}",
            f"{head}.{body}.{signature}\u00e9",
            f"{head}.{body}.\uff21{signature[1:]}",
        ]
    )


def _wrong_algorithm(target: Target, rng: random.Random) -> str:
    algorithm = rng.choice(["RS512", "PS256", "RS384"])
    return signed(target.header(target.rsa, alg=algorithm), target.claims(rng), target.rsa, algorithm)


def _odd_algorithm(target: Target, rng: random.Random) -> str:
    algorithms: list[Any] = [1, True, ["ES256"], {"alg": "ES256"}, "es256", "ES256 ", "ES256K", "dir", "RSA-OAEP", None]
    key = target.issuer.current
    return signed(target.header(key, alg=rng.choice(algorithms)), target.claims(rng), key)


def _encryption_key(target: Target, rng: random.Random) -> str:
    return signed(target.header(target.encryption), target.claims(rng), target.encryption)


def _retired_key(target: Target, rng: random.Random) -> str:
    return signed(target.header(target.retired), target.claims(rng), target.retired)


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _json_form(target: Target, rng: random.Random) -> str:
    head, body, signature = target.good(rng).split(".")
    return json.dumps({"protected": head, "payload": body, "signature": signature})


FORGERS: Final[Mapping[str, Forger]] = {
    "signature cut off": _signature_cut_off,
    "SIGNATURE_REMOVED_BY_GOOGLE": _signature_removed_by_google,
    "flipped bit": _flipped_bit,
    "truncated signature": _truncated_signature,
    "claims swapped": _swapped_claims,
    "header swapped": _swapped_header,
    "another spelling of a good token": _other_spelling,
    "another algorithm than the key's": _wrong_algorithm,
    "odd algorithm": _odd_algorithm,
    "key for encryption": _encryption_key,
    "retired key": _retired_key,
    "JSON serialisation": _json_form,
}
"""By name."""
