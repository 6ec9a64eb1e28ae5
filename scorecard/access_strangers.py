"""What a thousand callers are shown who ask for each other's things."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx

from common.settings import load
from functions.wire import JSON
from sandbox.mybmw_accounts import PASSWORD
from scorecard.access_matrix import NOT_IN_A_BATCH, OF_AN_ACCOUNT, OF_NOTHING, PARAMS, SCOPE_OF
from scorecard.access_people import NOBODYS_VIN, Person, a_store, enrol, everybody, mark_cars, shown
from scorecard.row import Finding, Say
from scorecard.service import Deployment, deployed

CALLERS = 1_000
EACH = 12
"""Requests of each caller; every fourth is for his own things."""
_FLEETS = 60
"""Callers who own cars of VINs that others do not."""
_COMMANDERS = 50
_THREADS = 8
_OWN_READS = ("status", "location", "vehicles", "fuel", "connect_status", "accounts")
_OF_AN_ACCOUNT = tuple(name for name in SCOPE_OF if name not in OF_NOTHING)
_OF_A_VEHICLE = tuple(name for name in _OF_AN_ACCOUNT if name not in OF_AN_ACCOUNT)


@dataclass(frozen=True, slots=True)
class Try:
    """A request, and how many of its parts ask for what is not the caller's."""

    fields: dict[str, Any]
    foreign: int


def strangers(say: Say) -> Finding:
    """Row 10."""
    with (
        a_store() as store,
        deployed(2, TOKEN_KEYS=store["TOKEN_KEYS"], DOCUMENTS_URL=store["DOCUMENTS_URL"]) as service,
    ):
        settings = load({**store, "ENVIRONMENT": "development", "CALLERS": "api_keys"})
        people = asyncio.run(enrol(settings, service.maker, everybody(CALLERS), fleets=_FLEETS))
        mark_cars(service.maker, people)
        say(f"{CALLERS} callers linked, each with a car that no one else has")
        commands = _flashed(service, people[:_COMMANDERS])
        seen = Counter[str]()
        with ThreadPoolExecutor(_THREADS) as pool:
            for number, found in enumerate(pool.map(lambda p: _attack(service, p, people, commands), people), 1):
                seen += found
                if number % 250 == 0:
                    say(f"{number} callers have asked")
        received = service.maker.stats()["commands_received"]
    measured = f"{seen['requests']} requests: {seen['foreign']} foreign bytes, {seen['served']} of {seen['tried']} "
    measured += (
        f"foreign things served, {received - _COMMANDERS} commands at foreign cars, {seen['errors']} errors 5xx; "
    )
    measured += f"{seen['own']} replies showed the caller's own"
    passed = not (seen["foreign"] or seen["served"] or seen["errors"]) and received == _COMMANDERS
    return Finding(measured, passed and seen["own"] >= CALLERS)


def _flashed(service: Deployment, people: Sequence[Person]) -> dict[str, str]:
    """A command of each, by its account."""
    sent = {}
    for person in people:
        reply = service.instances[0].post(
            person.headers, action="flash", account=person.account, vin=person.vins[0], wait_s=5
        )
        sent[person.account] = str(reply.json()["result"]["command_id"])
    return sent


def _attack(service: Deployment, me: Person, people: Sequence[Person], commands: dict[str, str]) -> Counter[str]:
    rng, seen = random.Random(me.account), Counter[str]()
    own = me.own | {commands.get(me.account, "")}
    for attempt in _tries(rng, me, people, commands):
        reply = rng.choice(service.instances).post(me.headers, **attempt.fields)
        seen["requests"] += 1
        seen["tried"] += attempt.foreign
        seen["errors"] += reply.status_code >= 500
        marks = shown(reply.content) | shown(" ".join(reply.headers.values()).encode())
        seen["foreign"] += sum(len(mark) for mark in marks - own)
        seen["own"] += bool({me.name_of_car, str(me.latitude)} & marks)
        if attempt.foreign:
            seen["served"] += _served(reply, attempt.foreign)
    return seen


def _served(reply: httpx.Response, foreign: int) -> int:
    """How many of the foreign things, which come first in a batch, were answered."""
    if reply.status_code >= 400:
        return 0
    responses = reply.json()["result"].get("responses") if reply.headers["content-type"] == JSON else None
    return 1 if responses is None else sum(part["status"] < 400 for part in responses[:foreign])


def _tries(rng: random.Random, me: Person, people: Sequence[Person], commands: dict[str, str]) -> Iterator[Try]:
    others = [person for person in people if person is not me]
    theirs = [command for account, command in commands.items() if account != me.account]
    for number in range(EACH):
        if number % 4 == 0:
            yield Try(_own(rng, me), 0)
        elif number % 4 == 1:
            parts = [_foreign(rng, me, rng.choice(others), theirs) for _ in range(5)]
            parts = [part for part in parts if part["action"] not in NOT_IN_A_BATCH]
            yield Try({"action": "batch", "params": {"requests": [*parts, _own(rng, me)]}}, len(parts))
        else:
            yield Try(_foreign(rng, me, rng.choice(others), theirs), 1)


def _own(rng: random.Random, me: Person) -> dict[str, Any]:
    return {"action": rng.choice(_OWN_READS), "account": me.account, "vin": me.vins[0]}


def _foreign(rng: random.Random, me: Person, other: Person, commands: Sequence[str]) -> dict[str, Any]:
    """A request that names something of another caller's, in one of the ways there are."""
    way = rng.randrange(6)
    if way == 0:
        return {"action": "command_status", "params": {"command_id": rng.choice(commands)}}
    if way == 1:
        form = {"email": other.email, "password": "guessed", "hcaptcha": f"captcha-{rng.getrandbits(64)}"}
        return {"action": "status", **form, "vin": other.vins[0]}
    action = rng.choice(_OF_A_VEHICLE if way == 2 else _OF_AN_ACCOUNT)
    asked: dict[str, Any] = {"action": action, "params": dict(PARAMS.get(action, {}))}
    if way == 2:
        vins = sorted(other.all_vins - me.all_vins) or [NOBODYS_VIN]
        return asked | {"account": me.account, "vin": rng.choice(vins)}
    asked["vin"] = rng.choice((*other.vins, *me.vins))
    if way == 3:
        # Even the right password: whoever does not prove it to the maker himself gets nobody's session.
        return asked | {"email": other.email, "password": PASSWORD}
    return asked | {"account": other.account}
