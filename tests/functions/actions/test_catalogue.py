"""The table of actions."""

import json
from dataclasses import replace

import pytest
from pydantic import BaseModel

from common.callers import Scope
from common.errors import UnknownAction
from functions.actions.catalogue import CATALOGUE, describe, example, find, index
from functions.actions.spec import ActionSpec, Call, Kind, Target, found_link, found_vehicle
from functions.contract import Envelope
from functions.providers.port import CommandName
from functions.snapshot import EMPTY
from functions.wire import encode
from tests.support.world import World, caller

EveryAction = pytest.mark.parametrize("spec", CATALOGUE, ids=lambda spec: spec.name)

CONTRACT = {
    "read": {
        "vehicles", "status", "fuel", "location", "mileage", "lock_status", "is_locked", "check_control", "charging",
        "climate_status", "tires", "service", "capabilities", "image", "command_status",
    },
    "command": {name.value for name in CommandName},
    "account": {"connect", "connect_status", "disconnect", "accounts"},
    "service": {"actions"},
}  # fmt: skip


def test_every_action_of_the_contract_is_there_with_its_kind() -> None:
    for kind, names in CONTRACT.items():
        assert names <= {spec.name for spec in CATALOGUE if spec.kind.value == kind}, kind


def test_names_and_aliases_are_unique_and_found() -> None:
    names = [name for spec in CATALOGUE for name in (spec.name, *spec.aliases)]
    assert len(set(names)) == len(names)
    for spec in CATALOGUE:
        for name in (spec.name, *spec.aliases):
            assert find(name) is spec


def test_climate_is_another_name_of_ac() -> None:
    assert find("climate").name == "ac"


@pytest.mark.parametrize("name", ["", "Status", "status ", "unlok", "__class__"])
def test_an_unknown_name_is_told_which_there_are(name: str) -> None:
    with pytest.raises(UnknownAction) as failed:
        find(name)
    assert failed.value.details["actions"] == sorted(name for spec in CATALOGUE for name in (spec.name, *spec.aliases))
    assert failed.value.code == "UNKNOWN_ACTION"


def test_a_name_that_stands_twice_fails_at_build() -> None:
    first, second = CATALOGUE[:2]
    with pytest.raises(ValueError, match=f"two actions are called {first.name}"):
        index([first, replace(second, name=first.name)])
    with pytest.raises(ValueError, match=f"two actions are called {first.name}"):
        index([first, replace(second, aliases=("other", first.name))])


@EveryAction
def test_an_example_is_a_request_that_would_be_accepted(spec: ActionSpec) -> None:
    shown = example(spec)
    envelope = Envelope.model_validate(json.loads(json.dumps(shown)))
    assert find(envelope.action) is spec
    spec.params.model_validate(envelope.params)
    if spec.target is not Target.NOTHING:
        assert envelope.account is not None
    assert (envelope.vin is not None) is (spec.target is Target.VEHICLE)


@EveryAction
def test_a_description_is_json_and_whole(spec: ActionSpec) -> None:
    shown = json.loads(encode(describe(spec)))
    assert shown["name"] == spec.name
    assert shown["scope"] == (spec.scope.value if spec.scope else None)
    assert (shown["kind"], shown["needs"]) == (spec.kind.value, spec.target.value)
    assert shown["cacheable"] is spec.cacheable
    assert shown["params"]["type"] == "object"
    assert shown["params"]["additionalProperties"] is False
    assert spec.summary.endswith(".")


@EveryAction
def test_parameters_are_strict(spec: ActionSpec) -> None:
    assert issubclass(spec.params, BaseModel)
    assert spec.params.model_config.get("extra") == "forbid"
    assert spec.params.model_config.get("strict") is True


@EveryAction
def test_what_changes_something_never_needs_only_the_scope_to_read(spec: ActionSpec) -> None:
    if spec.kind is Kind.COMMAND:
        assert spec.scope in {Scope.COMMAND, Scope.UNLOCK}
        assert spec.target is Target.VEHICLE
    if spec.kind is Kind.ACCOUNT:
        assert spec.scope is Scope.ACCOUNT
    if spec.kind is Kind.READ:
        assert spec.scope in {Scope.READ, Scope.LOCATION}
    assert (spec.scope is None) is (spec.kind is Kind.SERVICE)
    assert spec.cacheable is (spec.kind is Kind.READ and spec.name != "command_status")


def test_unlocking_and_positions_have_scopes_of_their_own() -> None:
    assert (find("unlock").scope, find("location").scope) == (Scope.UNLOCK, Scope.LOCATION)


async def test_the_catalogue_is_an_action_itself(world: World) -> None:
    call = Call(Envelope(action="actions"), find("actions").params(), caller())
    answer = await find("actions").handler(world.services, call)
    assert answer.result["count"] == len(CATALOGUE)
    assert [row["name"] for row in answer.result["actions"]] == [spec.name for spec in CATALOGUE]
    encode(answer.result)


def test_a_row_that_declares_no_target_finds_none() -> None:
    call = Call(Envelope(), EMPTY, caller())
    with pytest.raises(LookupError, match="no account target"):
        found_link(call)
    with pytest.raises(LookupError, match="no vehicle target"):
        found_vehicle(call)
