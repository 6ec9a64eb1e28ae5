"""Requests full of planted secrets, and a maker that quotes some in all it says."""

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sandbox.canaries import CANARIES
from sandbox.process import RunningSandbox
from scorecard.fuzzing import Target, request

Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Owner:
    """A linked account, and what its owner tells the service to use it."""

    account: str
    email: str
    password: str
    vin: str


_LATITUDE, _LONGITUDE = float(CANARIES["latitude"]), float(CANARIES["longitude"])
_HEADERS: tuple[tuple[str, str], ...] = (
    ("Authorization", f"Bearer {CANARIES['bearer']}"),
    ("Authorization", f"Basic {CANARIES['basic']}"),
    ("Cookie", CANARIES["cookie"]),
    ("Idempotency-Key", CANARIES["idempotency key"]),
    ("Origin", CANARIES["origin"]),
    ("User-Agent", CANARIES["user agent"]),
    ("X-Request-ID", CANARIES["email"]),
    ("X-Request-ID", CANARIES["vin"]),
    ("X-Request-ID", CANARIES["bearer"]),
    ("traceparent", CANARIES["bearer"]),
    ("X-Cloud-Trace-Context", f"{CANARIES['phone']}/{CANARIES['vin']}"),
    ("X-API-Key", CANARIES["api key"]),
    ("Referer", f"https://example.org/?token={CANARIES['bearer']}"),
    ("X-Forwarded-For", CANARIES["email"]),
)
_PATHS = (
    "/" + CANARIES["path"],
    f"/{CANARIES['vin']}/status",
    f"/?token={CANARIES['query']}",
    f"/health?email={CANARIES['email']}",
    f"/metrics?{CANARIES['query']}",
    f"/reset/{CANARIES['email']}/{CANARIES['bearer']}",
)


def planted(target: Target, owner: Owner, rng: random.Random) -> bytes:
    """One request."""
    fields = rng.choice(_FIELDS)(owner)
    headers = [pair for pair in rng.sample(_HEADERS, rng.randrange(3)) if _fits(pair[0], fields)]
    path, method = (
        (rng.choice(_PATHS), rng.choice(("POST", "GET", "DELETE", CANARIES["method"])))
        if rng.random() < 0.08
        else ("/", "POST")
    )
    body = json.dumps(fields, ensure_ascii=rng.random() < 0.5).encode()
    if rng.random() < 0.05:
        body = body[: rng.randrange(len(body))] + b"\xff" + CANARIES["password"].encode()
    encoded = [(name.encode(), value.encode()) for name, value in headers]
    return request(target, body, method=method.encode(), path=path.encode(), headers=encoded)


def _fits(name: str, fields: Fields) -> bool:
    # A request with somebody else's key gets nowhere, and one with a wrong bearer neither: a few are enough.
    return name not in ("X-API-Key", "Authorization") or "password" in fields


def _stranger(_owner: Owner) -> Fields:
    return {"action": "status", "email": CANARIES["email"], "password": CANARIES["password"], "vin": CANARIES["vin"]}


_FIELDS: tuple[Callable[[Owner], Fields], ...] = (
    _stranger,
    lambda _: {
        "action": "connect",
        "email": CANARIES["email"],
        "password": CANARIES["password"],
        "hcaptcha": CANARIES["captcha"],
    },
    lambda _: {
        "action": "connect",
        "email": CANARIES["phone"],
        "password": CANARIES["password"],
        "region": "china",
        "hcaptcha": CANARIES["captcha"],
    },
    lambda one: {"action": "status", "email": one.email, "password": CANARIES["password"]},
    lambda one: {"action": "status", "email": one.email, "password": one.password, "vin": one.vin},
    lambda one: {"action": "status", "account": one.account, "vin": CANARIES["vin"]},
    lambda one: {"action": "status", "account": one.account, "vin": one.vin, "fresh": True},
    lambda one: {"action": "location", "account": one.account, "vin": one.vin},
    lambda one: {"action": "charging", "account": one.account, "vin": one.vin, "fresh": True},
    lambda _: {"action": "fuel", "account": CANARIES["account"]},
    lambda one: {"action": CANARIES["action"], "account": one.account},
    lambda one: {"action": "fuel", "account": one.account, CANARIES["unknown field"]: CANARIES["password"]},
    lambda one: {"action": "fuel", "account": one.account, "region": CANARIES["region"], "units": CANARIES["region"]},
    lambda one: {"action": "fuel", "account": one.account, "params": {CANARIES["unknown field"]: CANARIES["place"]}},
    lambda one: {"action": "vehicles", "account": one.account, "hcaptcha": CANARIES["captcha"]},
    lambda _: {"action": "command_status", "params": {"command_id": CANARIES["command id"]}},
    lambda one: {
        "action": "send_poi",
        "account": one.account,
        "vin": one.vin,
        "params": {
            "latitude": _LATITUDE,
            "longitude": _LONGITUDE,
            "name": CANARIES["place"],
            "street": CANARIES["place"],
            "city": CANARIES["place"],
        },
    },
    lambda one: {
        "action": "find",
        "account": one.account,
        "vin": one.vin,
        "params": {"latitude": _LATITUDE, "longitude": _LONGITUDE},
    },
    lambda one: {"action": "unlock", "account": one.account, "vin": one.vin, "params": {"confirm": CANARIES["code"]}},
    lambda one: {
        "action": "batch",
        "params": {
            "requests": [
                _stranger(one),
                {"action": "fuel", "account": one.account, "idempotency_key": CANARIES["idempotency key"]},
            ]
        },
    },
    lambda _: {"action": "disconnect", "account": CANARIES["account"], "password": CANARIES["password"]},
)


_WORDS = (
    f"{CANARIES['upstream words']} {CANARIES['email']} {CANARIES['vin']} {CANARIES['password']} "
    f"({CANARIES['latitude']}, {CANARIES['longitude']}) Bearer {CANARIES['bearer']}"
)
_QUOTING: Mapping[str, Any] = {
    "statusCode": 500,
    "message": _WORDS,
    "gcid": CANARIES["subject"],
    "access_token": CANARIES["access token"],
    "refresh_token": CANARIES["refresh token"],
    CANARIES["unknown field"]: [_WORDS],
}
_PLANTED_HEADERS = {"X-Canary": CANARIES["upstream header"], "Set-Cookie": f"canary={CANARIES['upstream header']}"}
_MAKERS_API = {"path": "eadrax-(?!coas)"}


def _error(status: int, body: object, **headers: str) -> Mapping[str, Any]:
    return {"fault": "status", "status": status, "body": body, "headers": {**_PLANTED_HEADERS, **headers}}


_FAULTS: tuple[Mapping[str, Any], ...] = (
    *(_error(status, body) for status in (400, 404, 500, 503) for body in (_WORDS, _QUOTING)),
    _error(302, _WORDS, Location=f"/{CANARIES['vin']}?token={CANARIES['bearer']}"),
    {"fault": "wrong_type", "body": _QUOTING},
    {"fault": "wrong_type", "body": [_QUOTING, _WORDS]},
    # What is no error but data of an unknown kind, the car's owner gets to see.
    {"fault": "wrong_type", "body": CANARIES["upstream data"]},
)
_LAST_WORDS: tuple[Mapping[str, Any], ...] = tuple(_error(status, _WORDS) for status in (401, 429, 403, 489))


def quoting_faults(maker: RunningSandbox) -> None:
    """Let every fourth answer of the maker be an error, in turn, that quotes secrets as text, JSON and in headers."""
    for number, fault in enumerate(_FAULTS):
        maker.fault(**fault, match=_MAKERS_API, every=4 * len(_FAULTS), after=4 * number)


def last_words(maker: RunningSandbox) -> None:
    """The same with errors that end all further requests: no access, too many, blocked."""
    maker.clear_faults()
    for fault in _LAST_WORDS:
        maker.fault(**fault, match=_MAKERS_API, times=1)


def quoting_login(maker: RunningSandbox, account: str) -> None:
    """Let the next login of an account give tokens that are canaries."""
    tokens = {
        "access_token": CANARIES["access token"],
        "refresh_token": CANARIES["refresh token"],
        "gcid": CANARIES["subject"],
        "token_type": "Bearer",
        "expires_in": 3599,
    }
    maker.fault(fault="wrong_type", body=tokens, match={"path": "/gcdm/oauth/token", "account": account}, times=1)
