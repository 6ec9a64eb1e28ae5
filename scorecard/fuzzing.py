"""Requests that nobody should send, as bytes, the same ones for the same seed."""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings

from functions import openapi
from functions.actions import catalogue
from functions.actions.spec import Kind

VIN = "WBA00000000DEMO01"


@dataclass(frozen=True, slots=True)
class Target:
    """Whom the requests are for."""

    key: str
    """An API key, so that they get as far as they can."""
    account: str
    """A linked account with the vehicle ``VIN``."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One connection's worth of bytes."""

    kind: str
    sent: bytes

    @property
    def is_head(self) -> bool:
        """Whether a reply to it has no body."""
        return self.sent.startswith(b"HEAD ")


def request(
    target: Target,
    body: bytes,
    *,
    method: bytes = b"POST",
    path: bytes = b"/",
    version: bytes = b"HTTP/1.1",
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> bytes:
    """A proper request; ``headers`` come instead of those of the same name and besides the others."""
    usual = [
        (b"Host", b"localhost"),
        (b"X-API-Key", target.key.encode()),
        (b"Content-Type", b"application/json"),
        (b"Content-Length", str(len(body)).encode()),
    ]
    given_names = {name.lower() for name, _ in headers}
    lines = [pair for pair in usual if pair[0].lower() not in given_names] + list(headers)
    return b"%s %s %s\r\n%s\r\n" % (method, path, version, b"".join(b"%s: %s\r\n" % pair for pair in lines)) + body


def from_the_schema(target: Target, count: int) -> Iterator[Attempt]:
    """Bodies and headers that the OpenAPI document allows, which is where the code behind the checks is reached."""
    document: dict[str, Any] = json.loads(json.dumps(openapi.document()))
    operation = schemathesis.openapi.from_dict(document)["/"]["POST"]
    found: list[Attempt] = []

    @seed(24)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def collect(case: Any) -> None:  # noqa: ANN401 - schemathesis leaves it open
        headers = [(name.encode(), value.encode("latin-1", "replace")) for name, value in case.headers.items()]
        body = _with_account(case.body, target) if len(found) % 2 else case.body
        found.append(Attempt("schema", request(target, json.dumps(body).encode(), headers=headers)))

    collect()
    yield from found


def mutated_bodies(target: Target, rng: random.Random, count: int) -> Iterator[Attempt]:
    """Readable requests of which a few bytes were changed. None of them begins as a command."""
    seeds = [json.dumps(body).encode() for body in _readable(target)]
    for _ in range(count):
        body = bytearray(rng.choice(seeds))
        for _ in range(rng.choice((1, 1, 2, 3, 8))):
            mutate(body, rng)
        yield Attempt("mutated body", request(target, bytes(body)))


def facts(target: Target) -> Iterator[Attempt]:
    """What parsers are known to trip over."""
    account = json.dumps(target.account).encode()
    bodies: dict[str, bytes] = {
        "depth 33": b'{"params":' + b"[" * 32 + b"]" * 32 + b"}",
        "depth 8,000": b'{"params":' + b"[" * 8_000 + b"]" * 8_000 + b"}",
        "depth 8,000 of objects": b'{"params":' + b'{"a":' * 1_600 + b"1" + b"}" * 1_600 + b"}",
        "never closed": b"[" * 16_000,
        "depth 100,000": b"[" * 100_000,
        "lone surrogate": b'{"action":"\\ud800"}',
        "lone surrogate as a key": b'{"params":{"\\udc00":1}}',
        "lone surrogate as a password": b'{"email":"a@b.c","password":"\\ud800"}',
        "swapped surrogates": b'{"action":"\\udc00\\ud800"}',
        "surrogates in UTF-8": b'{"action":"\xed\xa0\x80"}',
        "NaN": b'{"wait_s":NaN}',
        "Infinity": b'{"max_age_s":Infinity}',
        "1e400": b'{"wait_s":1e400}',
        "1e-400": b'{"wait_s":1e-400}',
        "16,000 digits": b'{"wait_s":' + b"9" * 16_000 + b"}",
        "16,000 decimals": b'{"wait_s":0.' + b"9" * 16_000 + b"}",
        "minus nothing": b'{"wait_s":-}',
        "minus zero": b'{"action":"fuel","account":' + account + b',"max_age_s":-0.0}',
        "NUL": b'{"action":"sta\\u0000tus"}',
        "overlong UTF-8": b'{"action":"\xc0\xae"}',
        "a byte order mark": b'\xef\xbb\xbf{"action":"actions"}',
        "UTF-16": '{"action":"actions"}'.encode("utf-16"),
        "UTF-32": '{"action":"actions"}'.encode("utf-32"),
        "two documents": b'{"action":"actions"}{"action":"actions"}',
        "a comment": b'{"action":"actions"/**/}',
        "a trailing comma": b'{"action":"actions",}',
        "16 KiB of keys": b"{" + b",".join(b'"%d":1' % number for number in range(1_700)) + b"}",
        "16 KiB of space": b" " * 16_000 + b'{"action":"actions"}',
        "a batch of 21": json.dumps({"action": "batch", "params": {"requests": [{}] * 21}}).encode(),
        "a batch of batches": json.dumps(
            {"action": "batch", "params": {"requests": [{"action": "batch", "params": {"requests": []}}]}}
        ).encode(),
        "empty": b"",
    }
    for name, body in bodies.items():
        yield Attempt(name, request(target, body))
    yield Attempt("33 MB announced", request(target, b"{", headers=[(b"Content-Length", b"33000000")]))
    yield Attempt("33 MB sent", request(target, b"{" + b" " * 33_000_000))


def duplicate_keys(target: Target, rng: random.Random, count: int) -> Iterator[Attempt]:
    """A harmless reading and a command in one body, depending on who reads it."""
    for number in range(count):
        read, command = rng.choice(("status", "fuel", "is_locked", "vehicles")), rng.choice(("unlock", "lock", "horn"))
        first, second = rng.sample((read, command), 2)
        spelt = rng.choice(('"action"', '"\\u0061ction"', '"actio\\u006e"', '"\\u0061\\u0063\\u0074\\u0069on"'))
        whom = f'"account":{json.dumps(target.account)},"vin":"{VIN}"'
        space = rng.choice(("", " ", "\n", "\t"))
        pairs = [f'"action":{space}"{first}"', f"{spelt}{space}:{space}{json.dumps(second)}"]
        if rng.random() < 0.2:
            pairs.append(f'"action":"{rng.choice((read, command))}"')
        members = [*pairs, whom] if rng.random() < 0.5 else [pairs[0], whom, *pairs[1:]]
        body = "{" + f",{space}".join(members) + "}"
        if number % 4 == 3:
            body = f'{{"action":"batch","params":{{"requests":[{body}]}}}}'
        yield Attempt("duplicate key", request(target, body.encode()))


def _with_account(body: dict[str, Any], target: Target) -> dict[str, Any]:
    """The same of an account that exists, where that commands nothing."""
    if catalogue.find(body.get("action", "status")).kind is not Kind.READ:
        return body
    others = {name: value for name, value in body.items() if name not in ("email", "password", "hcaptcha", "wkn")}
    return {**others, "account": target.account, "vin": VIN}


def _readable(target: Target) -> list[dict[str, Any]]:
    names = ("status", "fuel", "location", "mileage", "lock_status", "is_locked", "tires", "image", "capabilities")
    reads: list[dict[str, Any]] = [{"action": name, "account": target.account, "vin": VIN} for name in names]
    part = {"action": "fuel", "account": target.account}
    return [
        *reads,
        {"action": "vehicles", "account": target.account},
        {"action": "actions", "units": "imperial", "max_age_s": 12.5},
        {"action": "batch", "params": {"requests": [part, {"action": "actions"}]}},
        {"action": "command_status", "params": {"command_id": f"cmd_{'A' * 22}_{'B' * 22}"}},
        {"action": "image", "account": target.account, "params": {"view": "front"}, "cache_only": True},
        {"action": "connect_status", "account": target.account},
    ]


_TOKENS: tuple[bytes, ...] = (
    b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\", b"\\u0000", b"\\ud83d", b"null", b"true", b"NaN", b"-Infinity",
    b"1e999", b"1" * 30, b"\x00", b"\xff", b"\xed\xa0\x80", b"\xf0\x9f\x9a\x97", b"'", b"/*", b"\n", b"\r\n", b"%00",
)  # fmt: skip


def mutate(body: bytearray, rng: random.Random) -> None:
    """Change a few bytes."""
    at = rng.randrange(len(body) + 1)
    match rng.randrange(6):
        case 0:
            body[at : at + 1] = bytes([rng.randrange(256)])
        case 1:
            del body[at : at + rng.randrange(1, 8)]
        case 2:
            body[at:at] = rng.choice(_TOKENS)
        case 3:
            piece = body[at : at + rng.randrange(1, 40)]
            body[at:at] = piece * rng.randrange(1, 4)
        case 4:
            body[at : at + 1] = rng.choice(_TOKENS)
        case _:
            if at < len(body):
                body[at] ^= 1 << rng.randrange(8)
