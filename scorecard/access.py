"""Rows 10, 17 and 18: nobody reaches what is not his, nor learns that it is there; unconfigured, nobody anything."""

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from itertools import islice
from typing import Any

from common.callers import Scope
from common.settings import load
from scorecard import access_timing
from scorecard.access_denied import denied
from scorecard.access_matrix import (
    NOT_IN_A_BATCH,
    SERVED,
    SUBSETS,
    Ask,
    Things,
    Whose,
    answered,
    asks,
    blanked,
    fields,
    twin,
    verdict,
)
from scorecard.access_people import NOBODYS_ACCOUNT, NOBODYS_VIN, Person, a_store, enrol, everybody, with_scopes
from scorecard.access_strangers import strangers
from scorecard.row import Finding, Row, Say
from scorecard.service import Deployment, deployed

_NOBODYS_COMMAND = f"cmd_{NOBODYS_ACCOUNT.removeprefix('acc_')}_{'N' * 22}"
_ENDS_IT = Ask("disconnect", Whose.OWN)
_PARTS = 20
_OF_THE_REQUEST = frozenset({"date", "x-request-id", "traceparent"})
"""Headers that differ between any two replies."""

Answers = dict[tuple[frozenset[Scope], Ask, str], tuple[str, bytes]]
"""By the caller's scopes, the cell and how it was asked: the outcome, and the reply without what is of the moment."""


def _matrix(say: Say) -> Finding:
    with (
        a_store() as store,
        deployed(1, TOKEN_KEYS=store["TOKEN_KEYS"], DOCUMENTS_URL=store["DOCUMENTS_URL"]) as service,
    ):
        settings = load({**store, "ENVIRONMENT": "development", "CALLERS": "api_keys"})
        (owner,) = asyncio.run(enrol(settings, service.maker, everybody(1)))
        (other,) = asyncio.run(enrol(settings, service.maker, everybody(1), fleets=1, first=1))
        callers = asyncio.run(with_scopes(settings, owner, SUBSETS))
        things = Things(
            owner.email,
            {Whose.OWN: owner.account, Whose.FOREIGN: other.account, Whose.NOBODYS: NOBODYS_ACCOUNT},
            {Whose.OWN: owner.vins[0], Whose.FOREIGN: other.vins[0], Whose.NOBODYS: NOBODYS_VIN},
            {Whose.OWN: _flash(service, owner), Whose.FOREIGN: _flash(service, other), Whose.NOBODYS: _NOBODYS_COMMAND},
        )
        answers: Answers = {}
        for caller in callers:
            say(f"as a caller with the scopes {', '.join(sorted(caller.scopes)) or 'of nobody'}")
            answers |= _alone(service, caller, things) | _in_batches(service, caller, things)
        sent = service.maker.stats()["commands_received"] - 2
        ended = service.instances[0].post(owner.headers, **fields(_ENDS_IT, things)).status_code
    wrong = Counter(
        "unauthorised" if outcome == SERVED else "refused wrongly"
        for (scopes, ask, _), (outcome, _) in answers.items()
        if outcome != verdict(scopes, ask)
    )
    pairs = [key for key in answers if twin(key[1]) != key[1]]
    unlike = sum(answers[key] != answers[key[0], twin(key[1]), key[2]] for key in pairs)
    times, visible = access_timing.measure(say)
    telling = [compared for compared in times if compared.tells]
    measured = f"{len(answers)} requests of {len(callers)} callers: {wrong['unauthorised']} unauthorised, "
    measured += f"{wrong['refused wrongly']} refused wrongly, {sent} commands sent; {unlike} of {len(pairs)} replies "
    measured += "differ between foreign and nonexistent; chance that the foreign one takes longer, one half if time "
    measured += f"tells nothing: {', '.join(map(str, times))}; for comparison {visible}"
    passed = not (wrong or sent or unlike or telling) and ended == 200 and visible.tells
    return Finding(measured, passed)


def _flash(service: Deployment, person: Person) -> str:
    asked = {"action": "flash", "account": person.account, "vin": person.vins[0], "wait_s": 5}
    return str(service.instances[0].post(person.headers, **asked).json()["result"]["command_id"])


def _alone(service: Deployment, caller: Person, things: Things) -> Answers:
    found: Answers = {}
    for ask in asks():
        if ask == _ENDS_IT and verdict(caller.scopes, ask) == SERVED:
            continue  # asked for once, last of all
        reply = service.instances[0].post(caller.headers, **fields(ask, things))
        headers = sorted((name, text) for name, text in reply.headers.items() if name not in _OF_THE_REQUEST)
        found[caller.scopes, ask, "alone"] = (
            answered(reply.status_code, reply.content),
            repr(headers).encode() + blanked(reply.content),
        )
    return found


def _in_batches(service: Deployment, caller: Person, things: Things) -> Answers:
    found: Answers = {}
    left = (
        ask
        for ask in asks()
        if ask.action not in NOT_IN_A_BATCH and not (ask == _ENDS_IT and verdict(caller.scopes, ask) == SERVED)
    )
    while some := list(islice(left, _PARTS)):
        parts = [fields(ask, things) for ask in some]
        reply = service.instances[0].post(caller.headers, action="batch", params={"requests": parts}).json()
        for ask, part in zip(some, reply["result"]["responses"], strict=True):
            outcome = SERVED if part["success"] else part["error"]["code"]
            found[caller.scopes, ask, "in a batch"] = (outcome, b"" if part["success"] else _without_moment(part))
    return found


def _without_moment(part: Mapping[str, Any]) -> bytes:
    return blanked(json.dumps(part, separators=(",", ":")).encode())


ROWS = (
    Row(10, "1,000 callers ask for each other's accounts, vehicles, commands", "0 foreign bytes", strangers),
    Row(17, "whole caller x vehicle x action matrix", "0 unauthorised; identical bodies, in the same time", _matrix),
    Row(18, "start with empty configuration", "100 % denied", denied),
)
