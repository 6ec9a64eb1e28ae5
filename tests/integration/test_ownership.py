"""A caller reaches his own links, and the vehicles that the maker lists for them. The rest is as if it were not."""

import asyncio
import json
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from common.callers import ALL_SCOPES
from common.clock import ManualClock
from common.loops import needs_loop
from common.stores.documents import open_documents
from functions.app import App, build
from functions.wire import RawRequest, Reply
from sandbox.process import RunningSandbox
from scorecard.access_matrix import (
    COMMANDS,
    NOT_IN_A_BATCH,
    OF_AN_ACCOUNT,
    OF_NOTHING,
    PARAMS,
    SCOPE_OF,
    blanked,
)
from scorecard.access_people import (
    NOBODYS_ACCOUNT,
    NOBODYS_VIN,
    Person,
    enrol,
    everybody,
    mark_cars,
    shown,
    with_scopes,
)
from tests.integration.conftest import PASSWORD, Answered, Api, MakeApi, captcha
from tests.support.tapped_documents import TappedDocuments

ROOT = Path(__file__).parents[2]
OURS = (str(ROOT / "common"), str(ROOT / "functions"))
READS = tuple(name for name, scope in SCOPE_OF.items() if name not in (*COMMANDS, *OF_NOTHING, "disconnect"))
ON_AN_ACCOUNT = tuple(name for name in SCOPE_OF if name not in OF_NOTHING)
ON_A_VEHICLE = tuple(name for name in ON_AN_ACCOUNT if name not in OF_AN_ACCOUNT)
BY_FORM = tuple(name for name in ON_AN_ACCOUNT if name != "connect_status")
"""Actions that take `email` and `password` instead of the account."""
NOBODYS_COMMAND = "cmd_" + "N" * 22 + "_" + "N" * 22
OF_THE_REQUEST = {"X-Request-ID", "traceparent"}
HEARD_OF_WITHIN_S = 30


@dataclass
class Street:
    """One instance and callers who live next door to each other."""

    api: Api
    me: Person
    other: Person
    """Owns a car of a VIN that is not among mine."""
    another: Person

    def ask(self, person: Person, **fields: Any) -> Answered:
        return self.api.post(person.headers, **fields)

    def sent(self, person: Person) -> str:
        """The id of a command that he has sent to his car."""
        done = self.ask(person, action="flash", account=person.account, vin=person.vins[0], wait_s=5)
        command_id: str = done.result["command_id"]
        return command_id


@pytest.fixture
def street(make_api: MakeApi, sandbox: RunningSandbox, clock: ManualClock) -> Street:
    api = make_api(clock, callers=("api_keys",))
    other, another, me = asyncio.run(enrol(api.app.settings, sandbox, everybody(3), fleets=2, clock=clock))
    return Street(api, me, other, another)


def request(action: str, **fields: Any) -> dict[str, Any]:
    """A valid request for an action, of which only the target is in question."""
    params = {"params": dict(PARAMS[action])} if action in PARAMS else {}
    return {"action": action, **params, **fields}


def visible(answered: Answered) -> tuple[int, dict[str, str], bytes]:
    """Everything that a caller can see of a reply, without what differs between any two."""
    headers = {name: value for name, value in answered.headers.items() if name not in OF_THE_REQUEST}
    return answered.status, headers, blanked(answered.body)


@pytest.mark.parametrize("vin", ["mine", "theirs"])
def test_anothers_account_and_nobodys_are_the_same_bytes_to_every_action(street: Street, vin: str) -> None:
    named = street.me.vins[0] if vin == "mine" else street.other.vins[0]
    for action in ON_AN_ACCOUNT:
        fields = request(action, vin=named)
        foreign = street.ask(street.me, **fields, account=street.other.account)
        nobodys = street.ask(street.me, **fields, account=NOBODYS_ACCOUNT)
        assert (foreign.status, foreign.error["code"]) == (404, "ACCOUNT_NOT_FOUND"), action
        assert visible(foreign) == visible(nobodys), action


def test_anothers_vehicle_and_nobodys_are_the_same_bytes_and_never_reach_the_maker(
    street: Street, sandbox: RunningSandbox
) -> None:
    street.ask(street.me, action="vehicles", account=street.me.account)
    asked = sandbox.stats()["requests_total"]
    for action in ON_A_VEHICLE:
        fields = request(action, account=street.me.account)
        foreign = street.ask(street.me, **fields, vin=street.other.vins[0])
        nobodys = street.ask(street.me, **fields, vin=NOBODYS_VIN)
        assert (foreign.status, foreign.error["code"]) == (404, "VEHICLE_NOT_FOUND"), action
        assert foreign.error["details"] == {}
        assert visible(foreign) == visible(nobodys), action
    assert sandbox.stats()["requests_total"] == asked


def test_anothers_command_and_nobodys_are_the_same_bytes(street: Street) -> None:
    other = street.other
    sent = street.sent(other)
    never_sent = f"cmd_{other.account.removeprefix('acc_')}_{'N' * 22}"
    mine_never_sent = f"cmd_{street.me.account.removeprefix('acc_')}_{'N' * 22}"
    replies = [
        street.ask(street.me, action="command_status", params={"command_id": command_id})
        for command_id in (NOBODYS_COMMAND, sent, never_sent, mine_never_sent)
    ]
    assert {(reply.status, reply.error["code"]) for reply in replies} == {(404, "COMMAND_NOT_FOUND")}
    assert [visible(reply) for reply in replies] == [visible(replies[0])] * 4
    assert street.ask(other, action="command_status", params={"command_id": sent}).result["state"] == "executed"


def test_a_batch_tells_no_more_than_its_parts_would(street: Street) -> None:
    fit = [action for action in ON_AN_ACCOUNT if action not in NOT_IN_A_BATCH][:20]

    def parts(account: str) -> Any:
        requests = [request(action, account=account, vin=street.me.vins[0]) for action in fit]
        return street.ask(street.me, action="batch", params={"requests": requests})

    foreign, nobodys = parts(street.other.account), parts(NOBODYS_ACCOUNT)
    assert {part["error"]["code"] for part in foreign.result["responses"]} == {"ACCOUNT_NOT_FOUND"}
    assert visible(foreign) == visible(nobodys)


def test_the_right_password_of_anothers_account_opens_it_no_more_than_one_that_nobody_linked(
    street: Street, sandbox: RunningSandbox
) -> None:
    other = street.other
    owner = street.ask(other, action="status", email=other.email, password=PASSWORD, vin=other.vins[0])
    assert owner.status == 200
    asked = sandbox.stats()["requests_total"]
    for action in BY_FORM:
        form = request(action, password=PASSWORD, vin=other.vins[0])
        foreign = street.ask(street.me, **form, email=other.email)
        nobodys = street.ask(street.me, **form, email="fleet-9@example.com")
        assert (foreign.status, foreign.error["code"]) == (401, "CAPTCHA_REQUIRED"), action
        assert visible(foreign) == visible(nobodys), action
    assert sandbox.stats()["requests_total"] == asked


def test_a_form_that_proves_itself_to_the_maker_links_an_account_of_the_callers_own(street: Street) -> None:
    me, other = street.me, street.other
    form = {"email": other.email, "password": PASSWORD, "hcaptcha": captcha()}
    mine = street.ask(me, action="connect", **form).result["account"]
    assert mine != other.account
    assert street.ask(me, action="disconnect", account=mine).status == 200
    assert street.ask(me, action="status", account=mine, vin=other.vins[0]).status == 404
    assert street.ask(other, action="status", account=other.account, vin=other.vins[0]).status == 200


def letters(number: int) -> str:
    """As many as an id has, of one that nobody has."""
    return "N" * 21 + str(number)


def ways(me: Person, other: Person, command: str, number: int) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Requests for what is ``other``'s beside the same for what is nobody's; another ``number``, another nobody."""
    of_another = f"fleet-{number}@example.com"
    by_account = {"account": other.account, "vin": me.vins[0]}, {"account": f"acc_{letters(number)}", "vin": me.vins[0]}
    by_vin = {"account": me.account, "vin": other.vins[0]}, {"account": me.account, "vin": f"WBA0000000NOBODY{number}"}
    by_form = {"email": other.email, "password": PASSWORD}, {"email": of_another, "password": PASSWORD}
    by_command = command, f"cmd_{letters(number)}_{letters(number)}"
    return {
        "account": pair("status", *by_account),
        "account for a command": pair("unlock", *by_account),
        "account to end": pair("disconnect", *by_account),
        "vehicle": pair("status", *by_vin),
        "vehicle for a command": pair("unlock", *by_vin),
        "form": pair("status", *by_form),
        "form for a command": pair("unlock", *by_form),
        "command": pair("command_status", *({"params": {"command_id": each}} for each in by_command)),
    }


def pair(action: str, foreign: dict[str, Any], nobodys: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"action": action, **foreign}, {"action": action, **nobodys}


@pytest.mark.parametrize(
    "way",
    [
        "account", "account for a command", "account to end", "vehicle", "vehicle for a command", "form",
        "form for a command", "command",
    ],
)  # fmt: skip
def test_not_yours_and_not_there_take_the_same_steps_in_the_store_in_our_code_and_in_the_cryptography(
    street: Street, clock: ManualClock, way: str
) -> None:
    commands = [street.sent(person) for person in (street.another, street.other)]
    store = TappedDocuments(open_documents(street.api.app.settings.documents_url))
    app = build(street.api.app.settings, clock=clock, documents=store)
    try:
        # What is done once in a process or for a key is done before anything is counted.
        for fields in ways(street.me, street.another, commands[0], 7)[way]:
            stepped(app, store, street.me, fields)
        (foreign, foreign_ops, foreign_steps), (nobodys, nobodys_ops, nobodys_steps) = (
            stepped(app, store, street.me, fields) for fields in ways(street.me, street.other, commands[1], 8)[way]
        )
        own = {"action": "status", "account": street.me.account, "vin": street.me.vins[0]}
        served, _, served_steps = stepped(app, store, street.me, own)
    finally:
        app.close()
    assert (foreign.status, nobodys.status, served.status) == (nobodys.status, nobodys.status, 200)
    assert foreign_ops == nobodys_ops
    assert foreign_steps == nobodys_steps
    assert foreign_steps.total() > 50
    assert served_steps != foreign_steps


def stepped(
    app: App, store: TappedDocuments, person: Person, fields: dict[str, Any]
) -> tuple[Reply, list[str], Counter[str]]:
    """A reply, the operations on the store by collection, and every function of ours and of the cryptography called."""
    steps: Counter[str] = Counter()

    def note(frame: FrameType, event: str, arg: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(OURS):
            steps[frame.f_code.co_qualname] += 1
        elif event == "c_call":
            home = str(getattr(arg, "__module__", None) or type(getattr(arg, "__self__", None)).__module__)
            if home.startswith(("_hashlib", "_hmac", "hmac", "cryptography")):
                steps[f"{home}.{arg.__name__}"] += 1

    async def work() -> Reply:
        await needs_loop()
        sys.setprofile(note)
        try:
            return await app.pipeline.handle(asked)
        finally:
            sys.setprofile(None)

    asked = RawRequest("POST", "/", {"content-type": "application/json"} | person.headers, json.dumps(fields).encode())
    store.seen.clear()
    reply = app.loop.run(work())
    return reply, [line.partition("/")[0] for line in store.seen], steps


def test_no_reply_to_a_stranger_names_anything_of_the_owners(street: Street, sandbox: RunningSandbox) -> None:
    people = [street.me, street.other, street.another]
    mark_cars(sandbox, people)
    saw_own = 0
    for me in people:
        for other in people:
            for action in ON_AN_ACCOUNT:
                if action == "disconnect" or (me is other and action in COMMANDS):
                    continue
                answered = street.ask(me, **request(action, account=other.account, vin=other.vins[0]))
                marks = shown(answered.body)
                assert marks <= me.own, (action, marks - me.own)
                saw_own += me.name_of_car in marks
    assert saw_own > 20  # the owners themselves are shown theirs, or nothing would be proven


def test_a_list_of_accounts_holds_the_callers_own_and_any_of_his_keys_shows_the_same(street: Street) -> None:
    (second,) = asyncio.run(with_scopes(street.api.app.settings, street.me, [ALL_SCOPES]))
    mine = street.ask(street.me, action="accounts").result
    assert [entry["account"] for entry in mine["accounts"]] == [street.me.account]
    assert street.ask(second, action="accounts").result == mine


def test_two_callers_may_use_the_same_idempotency_key(street: Street, sandbox: RunningSandbox) -> None:
    sent = [
        street.api.post(
            person.headers | {"idempotency-key": "one"}, action="flash", account=person.account, vin=person.vins[0]
        )
        for person in (street.me, street.other)
    ]
    assert [answered.result["deduplicated"] for answered in sent] == [False, False]
    assert sandbox.stats()["commands_received"] == 2


def knowing(api: Api, me: Person) -> Api:
    """An instance that holds the account, its session and its car in memory."""
    for named in ({"account": me.account}, {"email": me.email, "password": PASSWORD}):
        assert api.post(me.headers, action="status", vin=me.vins[0], **named).status == 200
    return api


@pytest.fixture
def instances(make_api: MakeApi, sandbox: RunningSandbox, clock: ManualClock) -> tuple[Api, Api, Person]:
    """Two instances that both know the account, and whose it is."""
    first, second = (make_api(clock, callers=("api_keys",)) for _ in range(2))
    (me,) = asyncio.run(enrol(first.app.settings, sandbox, everybody(1), clock=clock))
    return knowing(first, me), knowing(second, me), me


def test_from_the_disconnect_on_its_own_instance_serves_nothing_not_even_from_memory(
    instances: tuple[Api, Api, Person],
) -> None:
    first, _, me = instances
    sent = first.post(me.headers, action="flash", account=me.account, vin=me.vins[0], wait_s=5).result["command_id"]
    assert first.post(me.headers, action="disconnect", account=me.account).status == 200
    for action in ON_AN_ACCOUNT:
        by_id = first.post(me.headers, **request(action, account=me.account, vin=me.vins[0]))
        assert (by_id.status, by_id.error["code"]) == (404, "ACCOUNT_NOT_FOUND"), action
    form = {"email": me.email, "password": PASSWORD}
    for action in BY_FORM:
        by_form = first.post(me.headers, **request(action, vin=me.vins[0], **form))
        assert (by_form.status, by_form.error["code"]) == (401, "CAPTCHA_REQUIRED"), action
    held = first.post(me.headers, action="status", account=me.account, vin=me.vins[0], cache_only=True)
    assert held.status == 404
    assert first.post(me.headers, action="command_status", params={"command_id": sent}).status == 404
    assert first.post(me.headers, action="accounts").result["count"] == 0


def test_from_the_disconnect_on_no_other_instance_sends_a_command(
    instances: tuple[Api, Api, Person], sandbox: RunningSandbox
) -> None:
    first, second, me = instances
    first.post(me.headers, action="disconnect", account=me.account)
    for action in sorted(COMMANDS):
        for named in ({"email": me.email, "password": PASSWORD}, {"account": me.account}):
            answered = second.post(me.headers, **request(action, vin=me.vins[0], **named))
            assert answered.status in (401, 404), action
            batch = {"requests": [request(action, vin=me.vins[0], **named)]}
            (part,) = second.post(me.headers, action="batch", params=batch).result["responses"]
            assert part["status"] in (401, 404), action
    assert sandbox.stats()["commands_received"] == 0


def test_thirty_seconds_after_the_disconnect_at_the_latest_no_other_instance_reads(
    instances: tuple[Api, Api, Person], make_api: MakeApi, clock: ManualClock
) -> None:
    first, second, me = instances
    # Several, because each keeps what it holds for a time that is partly chance.
    others = [second, *(knowing(make_api(clock, callers=("api_keys",)), me) for _ in range(5))]
    first.post(me.headers, action="disconnect", account=me.account)
    clock.advance(HEARD_OF_WITHIN_S)
    for other in others:
        for action in READS:
            for age in ({}, {"cache_only": True}, {"fresh": True}):
                by_id = other.post(me.headers, **request(action, account=me.account, vin=me.vins[0], **age))
                assert by_id.status == 404, action
        by_form = other.post(me.headers, action="status", email=me.email, password=PASSWORD, vin=me.vins[0])
        assert by_form.status == 401


def test_an_account_that_is_linked_again_is_another_one(instances: tuple[Api, Api, Person]) -> None:
    first, second, me = instances
    first.post(me.headers, action="disconnect", account=me.account)
    form = {"email": me.email, "password": PASSWORD, "hcaptcha": captcha()}
    anew = first.post(me.headers, action="connect", **form).result["account"]
    assert anew != me.account
    for api in (first, second):
        assert api.post(me.headers, action="unlock", account=me.account, vin=me.vins[0]).status == 404
        assert api.post(me.headers, action="status", account=anew, vin=me.vins[0]).status == 200
