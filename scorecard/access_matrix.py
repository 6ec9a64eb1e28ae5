"""Who may do what, written down by hand from the contract, and the requests that ask for all of it.

Nothing here is derived from the catalogue: a row there that asks for too little must disagree with this table.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from itertools import product
from typing import Any, Final

from common.callers import ALL_SCOPES, Scope
from sandbox.mybmw_accounts import PASSWORD

SCOPE_OF: Final[Mapping[str, Scope | None]] = {
    **dict.fromkeys(
        ("vehicles", "status", "fuel", "mileage", "lock_status", "is_locked", "check_control", "charging"), Scope.READ
    ),
    **dict.fromkeys(("climate_status", "tires", "service", "capabilities", "image", "command_status"), Scope.READ),
    **dict.fromkeys(("charging_history", "tyre_diagnosis"), Scope.READ),
    **dict.fromkeys(("location", "charging_settings_by_place"), Scope.LOCATION),
    **dict.fromkeys(("lock", "flash", "horn", "ac", "ac_off", "charge_start", "charge_stop"), Scope.COMMAND),
    **dict.fromkeys(("charging_settings", "charging_profile", "send_poi", "find"), Scope.COMMAND),
    "unlock": Scope.UNLOCK,
    **dict.fromkeys(("connect", "connect_status", "accounts", "disconnect"), Scope.ACCOUNT),
    **dict.fromkeys(("batch", "actions"), None),
}
"""The scope that each action takes; None: any caller who is known."""
OF_AN_ACCOUNT: Final = frozenset({"vehicles", "connect_status", "disconnect"})
OF_NOTHING: Final = frozenset({"connect", "accounts", "batch", "actions", "command_status"})
"""All that is neither here nor above is about a vehicle."""
PARAMS: Final[Mapping[str, Mapping[str, Any]]] = {
    "charging_settings": {"target_soc": 80},
    "charging_profile": {"charging_mode": "IMMEDIATE_CHARGING"},
    "send_poi": {"latitude": 48.177, "longitude": 11.556},
}
COMMANDS: Final = frozenset(name for name, scope in SCOPE_OF.items() if scope in (Scope.COMMAND, Scope.UNLOCK))
SUBSETS: Final = (
    frozenset[Scope](),
    *(frozenset({scope}) for scope in Scope),
    frozenset({Scope.READ, Scope.LOCATION}),
    ALL_SCOPES,
)
"""The callers of the matrix: none, each scope by itself, the two that read, all."""
NOT_AT_MYBMW: Final = frozenset({"charging_history", "tyre_diagnosis", "charging_settings_by_place"})
"""What the maker of the matrix has not; who may ask is told so."""
NOT_IN_A_BATCH: Final = frozenset({"batch", "connect", "image"})


class Whose(Enum):
    """What a request names."""

    OWN = "own"
    FOREIGN = "foreign"
    NOBODYS = "nonexistent"


@dataclass(frozen=True, slots=True)
class Ask:
    """One cell of the matrix, for one caller."""

    action: str
    account: Whose
    vin: Whose = Whose.OWN


SERVED: Final = "served"


def asks() -> Iterator[Ask]:
    """Every action with every kind of account and of vehicle that it can name."""
    for action in SCOPE_OF:
        if action in OF_NOTHING - {"command_status"}:
            yield Ask(action, Whose.OWN)
        elif action in OF_AN_ACCOUNT | {"command_status"}:
            yield from (Ask(action, account) for account in Whose)
        else:
            yield from (Ask(action, account, vin) for account, vin in product(Whose, Whose))


def verdict(scopes: frozenset[Scope], ask: Ask) -> str:
    """What a caller must be answered: an error's code, or SERVED."""
    needed = SCOPE_OF[ask.action]
    if needed is not None and needed not in scopes:
        return "INSUFFICIENT_SCOPE"
    if ask.account is not Whose.OWN:
        return "COMMAND_NOT_FOUND" if ask.action == "command_status" else "ACCOUNT_NOT_FOUND"
    if ask.vin is not Whose.OWN:
        return "VEHICLE_NOT_FOUND"
    return "NOT_SUPPORTED" if ask.action in NOT_AT_MYBMW else SERVED


@dataclass(frozen=True, slots=True)
class Things:
    """What requests of the matrix name."""

    email: str
    """The owner's."""
    accounts: Mapping[Whose, str]
    vins: Mapping[Whose, str]
    commands: Mapping[Whose, str]


def fields(ask: Ask, things: Things) -> dict[str, Any]:
    """The request of a cell. Commands that would be served are dry runs, so that no cell disturbs the next one."""
    asked: dict[str, Any] = {"action": ask.action}
    if ask.action == "connect":
        return asked | {"email": things.email, "password": PASSWORD}
    if ask.action == "command_status":
        return asked | {"params": {"command_id": things.commands[ask.account]}}
    if ask.action == "batch":
        return asked | {"params": {"requests": [{"action": "actions"}]}}
    if ask.action not in OF_NOTHING:
        asked["account"] = things.accounts[ask.account]
        if ask.action not in OF_AN_ACCOUNT:
            asked["vin"] = things.vins[ask.vin]
    params = dict(PARAMS.get(ask.action, {}))
    if ask.action in COMMANDS and (ask.account, ask.vin) == (Whose.OWN, Whose.OWN):
        params["dry_run"] = True
    return asked | ({"params": params} if params else {})


def twin(ask: Ask) -> Ask:
    """The same request about what does not exist instead of what is somebody else's."""
    return Ask(ask.action, _unreal(ask.account), _unreal(ask.vin))


def _unreal(whose: Whose) -> Whose:
    return Whose.NOBODYS if whose is Whose.FOREIGN else whose


def answered(status: int, body: bytes) -> str:
    """An error's code, or SERVED."""
    if status == 200:
        return SERVED
    code: str = json.loads(body)["error"]["code"]
    return code


_OF_THE_MOMENT: Final = re.compile(rb'"(request_id|timestamp)":"[^"]*"')


def blanked(body: bytes) -> bytes:
    """A reply without what differs between any two requests."""
    return _OF_THE_MOMENT.sub(rb'"\1":""', body)
