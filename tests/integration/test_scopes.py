"""What a caller may do: each action takes one scope, and a key has no more than it was given."""

import asyncio
from typing import Any

import pytest

from common.callers import Scope
from common.clock import ManualClock
from common.issuers import parse_issuers
from functions.actions.catalogue import CATALOGUE
from ops import keys
from sandbox.process import RunningSandbox
from scorecard.access_matrix import (
    COMMANDS,
    NOT_IN_A_BATCH,
    SCOPE_OF,
    SERVED,
    SUBSETS,
    Ask,
    Things,
    Whose,
    answered,
    asks,
    blanked,
    fields,
    verdict,
)
from scorecard.access_people import NOBODYS_ACCOUNT, NOBODYS_VIN, Person, enrol, everybody, with_scopes
from tests.integration.conftest import Api, MakeApi

NAMES = [", ".join(sorted(subset)) or "none" for subset in SUBSETS]
POSITION = {"params": {"latitude": 48.17, "longitude": 11.55}}


@pytest.fixture
def api(make_api: MakeApi) -> Api:
    return make_api(callers=("api_keys",))


@pytest.fixture
def owner(api: Api, sandbox: RunningSandbox) -> Person:
    (person,) = asyncio.run(enrol(api.app.settings, sandbox, everybody(1)))
    return person


def holding(api: Api, owner: Person, *scopes: Scope) -> Person:
    """The owner with a key for these scopes only."""
    (person,) = asyncio.run(with_scopes(api.app.settings, owner, [frozenset(scopes)]))
    return person


def environ_of(api: Api) -> dict[str, str]:
    """What an operator sets to work on the service's own store."""
    return {"DOCUMENTS_URL": api.app.settings.documents_url, "TOKEN_KEYS": api.app.settings.token_keys or ""}


def sent(api: Api, person: Person, action: str) -> str:
    body: dict[str, Any] = {"account": person.account, "vin": person.vins[0], "wait_s": 5}
    command_id: str = api.post(person.headers, action=action, **body).result["command_id"]
    return command_id


def test_every_action_there_is_takes_the_scope_that_the_contract_gives_it() -> None:
    assert {spec.name: spec.scope for spec in CATALOGUE} == SCOPE_OF


def test_only_what_reads_nothing_and_does_nothing_by_itself_takes_no_scope() -> None:
    assert {name for name, scope in SCOPE_OF.items() if scope is None} == {"batch", "actions"}


@pytest.mark.parametrize("scopes", SUBSETS, ids=NAMES)
def test_a_caller_does_what_his_scopes_allow_to_what_is_his_and_nothing_else(
    api: Api, owner: Person, sandbox: RunningSandbox, scopes: frozenset[Scope]
) -> None:
    (other,) = asyncio.run(enrol(api.app.settings, sandbox, everybody(1), fleets=1, first=1))
    things = Things(
        owner.email,
        {Whose.OWN: owner.account, Whose.FOREIGN: other.account, Whose.NOBODYS: NOBODYS_ACCOUNT},
        {Whose.OWN: owner.vins[0], Whose.FOREIGN: other.vins[0], Whose.NOBODYS: NOBODYS_VIN},
        {
            Whose.OWN: sent(api, owner, "flash"),
            Whose.FOREIGN: sent(api, other, "flash"),
            Whose.NOBODYS: "cmd_" + "N" * 22 + "_" + "N" * 22,
        },
    )
    (caller,) = asyncio.run(with_scopes(api.app.settings, owner, [scopes]))
    # The end of the account comes last, and for whoever may ask for it.
    for ask in sorted(asks(), key=lambda ask: ask == Ask("disconnect", Whose.OWN)):
        expected, asked = verdict(scopes, ask), fields(ask, things)
        if ask.action not in NOT_IN_A_BATCH and not (ask.action == "disconnect" and expected == SERVED):
            batch = api.post(caller.headers, action="batch", params={"requests": [asked]})
            (part,) = batch.result["responses"]
            assert (SERVED if part["success"] else part["error"]["code"]) == expected, ask
        alone = api.post(caller.headers, **asked)
        assert answered(alone.status, alone.body) == expected, ask
    assert sandbox.stats()["commands_received"] == 2


def test_who_lacks_the_scope_learns_nothing_about_what_he_names(api: Api, owner: Person) -> None:
    reader = holding(api, owner, Scope.READ)
    for action in sorted(COMMANDS):
        replies = [
            api.post(reader.headers, action=action, account=account, vin=vin)
            for account in (owner.account, NOBODYS_ACCOUNT)
            for vin in (owner.vins[0], NOBODYS_VIN)
        ]
        assert {(reply.status, reply.error["code"]) for reply in replies} == {(403, "INSUFFICIENT_SCOPE")}
        assert len({blanked(reply.body) for reply in replies}) == 1, action


def test_a_refusal_names_the_scope_that_is_missing(api: Api, owner: Person) -> None:
    refused = api.post(
        holding(api, owner, Scope.READ, Scope.COMMAND).headers,
        action="unlock", account=owner.account, vin=owner.vins[0],
    )  # fmt: skip
    assert (refused.status, refused.error["details"]) == (403, {"scope": "unlock"})
    assert refused.error["resolution"]["type"] == "FIX_REQUEST"


@pytest.mark.parametrize("scopes", [(Scope.READ,), (Scope.READ, Scope.COMMAND, Scope.UNLOCK, Scope.ACCOUNT)])
def test_no_read_shows_where_the_car_stands_without_the_scope_for_it(
    api: Api, owner: Person, sandbox: RunningSandbox, scopes: tuple[Scope, ...]
) -> None:
    place = {"coordinates": {"latitude": 47.12345, "longitude": 11.98765}, "address": {"formatted": "Geheimweg 7"}}
    sandbox.patch_car(owner.email, owner.vins[0], state={"location": place | {"heading": 123}})
    shown = {"account": owner.account, "vin": owner.vins[0]}
    seeing = api.post(owner.headers, action="status", **shown)
    assert seeing.result["location"]["latitude"] == 47.12345
    caller = holding(api, owner, *scopes)
    for action, needed in SCOPE_OF.items():
        if needed is not Scope.READ or action == "command_status":
            continue
        body = api.post(caller.headers, action=action, **shown).body
        assert not [secret for secret in (b"47.12345", b"11.98765", b"Geheimweg") if secret in body], action
    assert api.post(caller.headers, action="status", **shown).result["location"] is None
    assert api.post(caller.headers, action="location", **shown).status == 403


def test_who_may_command_but_not_locate_finds_the_car_without_being_told_where(api: Api, owner: Person) -> None:
    finder = holding(api, owner, Scope.READ, Scope.COMMAND)
    target = {"account": owner.account, "vin": owner.vins[0]}
    found = api.post(finder.headers, action="find", **target, **POSITION, wait_s=5).result
    assert (found["state"], found["position"]) == ("executed", None)
    asked = {"action": "command_status", "params": {"command_id": found["command_id"]}}
    assert api.post(finder.headers, **asked).result["position"] is None
    assert api.post(owner.headers, **asked).result["position"]["latitude"] == pytest.approx(48.17, abs=0.1)


def test_a_command_recorded_under_one_key_is_shown_to_another_of_the_same_caller_that_may_read(
    api: Api, owner: Person
) -> None:
    command_id = sent(api, owner, "unlock")
    asked = {"action": "command_status", "params": {"command_id": command_id}}
    assert api.post(holding(api, owner, Scope.READ).headers, **asked).result["operation"] == "unlock"
    assert api.post(holding(api, owner, Scope.UNLOCK).headers, **asked).status == 403


def test_an_unlock_cannot_be_had_through_another_commands_key_or_confirmation(
    make_api: MakeApi, sandbox: RunningSandbox
) -> None:
    api = make_api(callers=("api_keys",), confirm_commands=("unlock",))
    (owner,) = asyncio.run(enrol(api.app.settings, sandbox, everybody(1)))
    target = {"account": owner.account, "vin": owner.vins[0]}
    code = api.post(owner.headers, action="unlock", **target, params={"dry_run": True}).result["confirm"]["code"]
    driver = holding(api, owner, Scope.READ, Scope.COMMAND)
    key = {"idempotency-key": "one-intention"}
    assert api.post(driver.headers | key, action="lock", **target).status == 202
    refused = api.post(driver.headers | key, action="unlock", **target, params={"confirm": code})
    assert (refused.status, refused.error["code"]) == (403, "INSUFFICIENT_SCOPE")
    dry = api.post(driver.headers, action="unlock", **target, params={"dry_run": True})
    assert dry.status == 403


def test_who_is_given_no_scope_by_name_may_only_read(capsys: pytest.CaptureFixture[str], api: Api) -> None:
    assert keys.main(["new", "an app"], environ_of(api)) == 0
    holder = {"x-api-key": capsys.readouterr().out.splitlines()[-1]}
    for action, needed in SCOPE_OF.items():
        if needed not in (Scope.READ, None):
            assert api.post(holder, action=action, account=NOBODYS_ACCOUNT).status == 403, action
    assert api.post(holder, action="status", account=NOBODYS_ACCOUNT).status == 404
    (firebase,) = parse_issuers('[{"firebase": "demo-project"}]')
    assert firebase.scopes == {Scope.READ}


def test_a_revoked_key_may_do_nothing_thirty_seconds_later(
    make_api: MakeApi, sandbox: RunningSandbox, clock: ManualClock
) -> None:
    api = make_api(clock, callers=("api_keys",))
    (owner,) = asyncio.run(enrol(api.app.settings, sandbox, everybody(1), clock=clock))
    target = {"account": owner.account, "vin": owner.vins[0]}
    assert api.post(owner.headers, action="status", **target).status == 200
    assert keys.main(["revoke", owner.principal.removeprefix("key|")], environ_of(api), clock=clock) == 0
    clock.advance(30)
    for action in SCOPE_OF:
        refused = api.post(owner.headers, action=action, **target)
        assert (refused.status, refused.error["code"]) == (401, "CALLER_UNAUTHENTICATED"), action
