"""Tokens that the issuer itself has signed: for somebody or something else, or as somebody's input made them."""

import json
import random
from collections.abc import Mapping
from typing import Any, Final

from sandbox.forgery_target import Forger, Target
from sandbox.issuer import AUDIENCE, b64, segment, signed


def _critical_extension(target: Target, rng: random.Random) -> str:
    key = target.issuer.current
    extension = rng.choice(["b64", "exp", "urn:example:unknown"])
    crit = rng.choice([[extension], [], None, "b64", [extension, extension]])
    header = {**target.header(key), extension: False, "crit": crit}
    return signed(header, target.claims(rng), key)


def _unencoded_payload(target: Target, rng: random.Random) -> str:
    key = target.issuer.current
    header = segment(target.header(key, b64=False, crit=rng.choice([["b64"], None])))
    payload = json.dumps(target.claims(rng))
    signature = b64(key.sign(f"{header}.{payload}".encode()))
    return f"{header}.{rng.choice(['', payload, segment(payload.encode())])}.{signature}"


def _duplicate_claim(target: Target, rng: random.Random) -> str:
    key = target.issuer.current
    name, value = rng.choice([("sub", "victim"), ("aud", AUDIENCE), ("iss", target.issuer.origin), ("scope", "admin")])
    claims = json.dumps(target.claims(rng, scope="read"))
    return signed(target.header(key), f'{{"{name}":"{value}",{claims[1:]}'.encode(), key)


def _duplicate_header(target: Target, rng: random.Random) -> str:
    key = target.issuer.current
    name, value = rng.choice([("alg", "none"), ("alg", key.algorithm), ("kid", "ec-0"), ("kid", key.kid)])
    header = json.dumps(target.header(key))
    return signed(f'{{"{name}":"{value}",{header[1:]}'.encode(), target.claims(rng), key)


def _odd_json(target: Target, rng: random.Random) -> str:
    key = target.issuer.current
    good = json.dumps(target.claims(rng))
    claims = rng.choice(
        [
            f"[{good}]",
            json.dumps(good),
            "null",
            good + good,
            good[:-1],
            good[:-1] + ',"x":NaN}',
            good[:-1] + ',"x":1e999}',
            good[:-1] + ',"x":' + "9" * 3_000 + "}",
            good[:-1] + ',"x":' + "[" * 2_500 + "]" * 2_500 + "}",
            "\ufeff" + good,
        ]
    ).encode()
    return signed(target.header(key), rng.choice([claims, good.encode("utf-16"), good.encode() + b"\xff"]), key)


def _expired(target: Target, rng: random.Random) -> str:
    return target.issued(rng, exp=target.now_s - rng.choice([0, 1, 59, 61, 3_600, 10**9]))


def _no_expiry(target: Target, rng: random.Random) -> str:
    values: list[Any] = [None, "9999999999", True, [], {}, "", str(target.now_s + 600)]
    key = target.issuer.current
    claims = {**target.claims(rng), "exp": rng.choice(values)}
    if claims["exp"] is None and rng.random() < 0.5:
        del claims["exp"]
    return signed(target.header(key), claims, key)


def _not_yet(target: Target, rng: random.Random) -> str:
    late = target.now_s + rng.choice([61, 600, 10**6])
    values: list[Any] = [late, late, float(late), str(late), True, []]
    return target.issued(rng, **{rng.choice(["nbf", "iat", "auth_time"]): rng.choice(values)})


def _other_audience(target: Target, rng: random.Random) -> str:
    audiences: list[Any] = [
        "another-app",
        AUDIENCE.upper(),
        AUDIENCE + "-staging",
        AUDIENCE[:-1],
        f" {AUDIENCE}",
        f"{AUDIENCE} another-app",
        [AUDIENCE, "another-app"],
        ["another-app", AUDIENCE],
        [AUDIENCE, None],
        [[AUDIENCE]],
        {AUDIENCE: True},
        [],
        "",
        True,
        0,
        None,
    ]
    return target.issued(rng, aud=rng.choice(audiences))


def _other_name(target: Target, rng: random.Random) -> str:
    origin = target.issuer.origin
    names: list[Any] = [
        origin + "/",
        origin.upper(),
        origin.replace("http:", "https:"),
        origin.replace("127.0.0.1", "localhost"),
        origin[:-1],
        origin + "|victim",
        [origin],
        {"iss": origin},
        target.attacker.origin,
        "",
        1,
        None,
    ]
    return target.issued(rng, iss=rng.choice(names))


def _odd_subject(target: Target, rng: random.Random) -> str:
    subjects: list[Any] = [
        None,
        "",
        " ",
        1,
        True,
        ["victim"],
        {"sub": "victim"},
        "v" * 256,
        "victim\n",
        "victim\0",
        "v\u00edctim",
        "victim\u202e",
        "\ud800",
    ]
    return target.issued(rng, sub=rng.choice(subjects))


def _unverified_email(target: Target, rng: random.Random) -> str:
    values: list[Any] = [False, None, "true", "false", 1, 0, [True]]
    return target.issued(rng, email="victim@example.com", email_verified=rng.choice(values))


def _another_kind(target: Target, rng: random.Random) -> str:
    """Signed by the issuer for this very audience, and yet no proof that a user is here."""
    key = target.issuer.current
    event: dict[str, Any] = {"http://schemas.openid.net/event/backchannel-logout": {}}
    kinds: list[Any] = ["logout+jwt", "secevent+jwt", "dpop+jwt", "JOSE", "", 1, ["JWT"]]
    if rng.random() < 0.5:
        return signed(target.header(key), target.claims(rng, events=event), key)
    return signed(target.header(key, typ=rng.choice(kinds)), target.claims(rng), key)


def _too_long(target: Target, rng: random.Random) -> str:
    key, padding = target.issuer.current, "x" * rng.randint(6_500, 12_000)
    if rng.random() < 0.5:
        return signed(target.header(key, x=padding), target.claims(rng), key)
    return signed(target.header(key), target.claims(rng, x=padding), key)


FORGERS: Final[Mapping[str, Forger]] = {
    "critical extension": _critical_extension,
    "unencoded payload": _unencoded_payload,
    "duplicate claim": _duplicate_claim,
    "duplicate header": _duplicate_header,
    "odd JSON": _odd_json,
    "expired": _expired,
    "no expiry": _no_expiry,
    "not yet valid": _not_yet,
    "another audience": _other_audience,
    "another name of the issuer": _other_name,
    "odd subject": _odd_subject,
    "unverified email": _unverified_email,
    "another kind of token": _another_kind,
    "too long": _too_long,
}
"""By name."""
