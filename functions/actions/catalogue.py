"""Every action there is: an explicit table, in the order in which it is documented."""

import functools
from collections.abc import Iterable
from types import MappingProxyType
from typing import Any

from common.errors import UnknownAction
from functions.actions.accounts import ACCOUNTS
from functions.actions.batch import BATCH
from functions.actions.commands import COMMANDS
from functions.actions.reads import READS
from functions.actions.records import RECORDS
from functions.actions.spec import ActionSpec, Answer, Call, Kind, Services, Target


async def _actions(_services: Services, _call: Call) -> Answer:
    described = _described()
    return Answer({"actions": described, "count": len(described)})


@functools.cache
def _described() -> list[dict[str, Any]]:
    # Once a process: pydantic takes some 20 ms over all these schemas.
    return [describe(spec) for spec in CATALOGUE]


CATALOGUE: tuple[ActionSpec, ...] = (
    *READS,
    *RECORDS,
    *COMMANDS,
    *ACCOUNTS,
    BATCH,
    ActionSpec("actions", Kind.SERVICE, None, Target.NOTHING, "This catalogue.", _actions),
)


def index(rows: Iterable[ActionSpec]) -> MappingProxyType[str, ActionSpec]:
    """Rows by name and alias; a name that stands twice is a defect and raises ValueError."""
    found: dict[str, ActionSpec] = {}
    for row in rows:
        for name in (row.name, *row.aliases):
            if name in found:
                raise ValueError(f"two actions are called {name}")
            found[name] = row
    return MappingProxyType(found)


_BY_NAME = index(CATALOGUE)


def find(name: str) -> ActionSpec:
    """The row of an action; raises UnknownAction, which lists the names."""
    try:
        return _BY_NAME[name]
    except KeyError:
        raise UnknownAction(details={"actions": sorted(_BY_NAME)}) from None


def example(spec: ActionSpec) -> dict[str, Any]:
    """A request for an action, as it could be sent."""
    request: dict[str, Any] = {"action": spec.name}
    if spec.name == "connect":
        request |= {
            "email": "demo@example.com",
            "password": "demo-password",
            "hcaptcha": "P1_...",
            "region": "rest_of_world",
        }
    if spec.target is not Target.NOTHING:
        request["account"] = "acc_AAAAAAAAAAAAAAAAAAAAAA"
    if spec.target is Target.VEHICLE:
        request["vin"] = "WBA00000000DEMO01"
    if spec.example:
        request["params"] = dict(spec.example)
    return request


def describe(spec: ActionSpec) -> dict[str, Any]:
    """A row as callers may see it."""
    return {
        "name": spec.name,
        "aliases": list(spec.aliases),
        "kind": spec.kind.value,
        "scope": spec.scope.value if spec.scope else None,
        "summary": spec.summary,
        "needs": spec.target.value,
        "cacheable": spec.cacheable,
        "params": spec.params.model_json_schema(),
        "example": example(spec),
    }
