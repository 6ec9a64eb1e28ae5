"""The limits of a deployment that sets none of its own, over the whole service."""

import asyncio
import json
import re
from typing import Any

import pytest

from common.clock import ManualClock
from common.settings import Settings
from functions.wire import RawRequest
from sandbox.process import RunningSandbox
from scorecard.access_people import NOBODYS_ACCOUNT, Person, enrol, everybody
from tests.integration.conftest import PASSWORD, Answered, Api, MakeApi, captcha

DEFAULTS = {name: field.default for name, field in Settings.model_fields.items() if name.startswith("limit_")}
A_MINUTE_S = 60
AN_HOUR_S = 3_600


class Caller:
    """Somebody with a key, an account and a car, in front of one instance."""

    def __init__(self, api: Api, person: Person) -> None:
        self.api = api
        self.person = person

    def ask(self, **fields: Any) -> Answered:
        return self.api.post(self.person.headers, **fields)

    def read(self, **fields: Any) -> Answered:
        return self.ask(action="fuel", account=self.person.account, **{"vin": self.person.vins[0], **fields})

    def command(self, action: str = "flash", **fields: Any) -> Answered:
        named = {"account": self.person.account, "vin": self.person.vins[0]}
        return self.ask(action=action, **named, params={"dry_run": True}, **fields)

    def read_until_refused(self, **fields: Any) -> tuple[int, Answered]:
        """How many reads are served, and the first refusal."""
        for served in range(20_000):
            answered = self.read(**fields)
            if answered.status == 429:
                return served, answered
            assert answered.status == 200, answered.body
        raise AssertionError("never refused")


@pytest.fixture
def api(make_api: MakeApi, clock: ManualClock) -> Api:
    # The beginning of an hour, so that no window ends in the middle of a test.
    clock.advance(AN_HOUR_S - clock.utc().timestamp() % AN_HOUR_S)
    return make_api(clock, callers=("api_keys",), **DEFAULTS)


@pytest.fixture
def callers(api: Api, sandbox: RunningSandbox, clock: ManualClock) -> list[Caller]:
    sandbox.settings(expires_in=1_000_000)
    return [Caller(api, person) for person in asyncio.run(enrol(api.app.settings, sandbox, everybody(2), clock=clock))]


@pytest.fixture
def me(callers: list[Caller]) -> Caller:
    return callers[0]


@pytest.fixture
def other(callers: list[Caller]) -> Caller:
    return callers[1]


def left(answered: Answered) -> dict[str, int]:
    """What is left in each window, from the reply's header."""
    return {name: int(amount) for name, amount in re.findall(r'"([\w-]+)";r=(\d+)', answered.headers["RateLimit"])}


def refusal(answered: Answered) -> tuple[int, str, str, str]:
    details = answered.error["details"]
    return answered.status, answered.error["code"], details["limit"], details["reason"]


def test_every_reply_to_a_known_caller_says_how_his_limits_stand(me: Caller) -> None:
    bad_json = RawRequest("POST", "/", {"content-type": "application/json"} | me.person.headers, b"{")
    replies = [
        me.read(),
        me.command(),
        me.ask(action="accounts"),
        me.ask(action="connect_status", account=me.person.account),
        me.ask(action="actions"),
        me.ask(action="batch", params={"requests": [{"action": "actions"}]}),
        me.ask(action="image", account=me.person.account, vin=me.person.vins[0]),
        me.ask(action="teleport"),
        me.ask(action="status", account=NOBODYS_ACCOUNT),
        me.ask(action="status"),
        me.ask(action="connect", email="user-0@example.com", password=PASSWORD),
        me.api.send(bad_json),
    ]
    assert [reply.status for reply in replies] == [200, 200, 200, 200, 200, 200, 200, 400, 404, 400, 200, 400]
    for reply in replies:
        assert re.fullmatch(r'("[\w-]+";q=\d+;w=\d+(, )?)+', reply.headers["RateLimit-Policy"])
        assert re.fullmatch(r'("[\w-]+";r=\d+;t=\d+(, )?)+', reply.headers["RateLimit"])
    assert '"caller-read";q=600;w=60' in replies[0].headers["RateLimit-Policy"]
    assert left(replies[0]) == {"caller-read": 599, "caller-read-3600s": 9_999, "account-read": 299}


def test_whoever_is_not_known_is_told_no_limits_and_uses_up_nobodys(me: Caller) -> None:
    for _ in range(50):
        refused = me.api.post({"x-api-key": "wrong"}, action="fuel", account=me.person.account)
        assert refused.status == 401
        assert "RateLimit" not in refused.headers
    assert left(me.read())["caller-read"] == 599


def test_an_account_is_read_three_hundred_times_a_minute_and_a_caller_reads_six_hundred_times(
    me: Caller, other: Caller, clock: ManualClock
) -> None:
    served, refused = me.read_until_refused()
    assert (served, refusal(refused)) == (300, (429, "RATE_LIMIT_EXCEEDED", "account-read", "too_many_requests"))
    assert refused.headers["Retry-After"] == "60"
    assert refused.error["retry_after"] == 60
    assert left(refused)["account-read"] == 0
    # Another account of his, which does not exist, still costs him.
    for _ in range(600 - 301):
        assert me.ask(action="fuel", account=NOBODYS_ACCOUNT).status == 404
    by_caller = me.ask(action="fuel", account=NOBODYS_ACCOUNT)
    assert refusal(by_caller) == (429, "RATE_LIMIT_EXCEEDED", "caller-read", "too_many_requests")
    assert other.read().status == 200
    assert me.command().status == 200
    clock.advance(A_MINUTE_S)
    assert me.read().status == 200


def test_ten_thousand_reads_an_hour_are_the_most(me: Caller, clock: ManualClock) -> None:
    missing = {"action": "fuel", "account": NOBODYS_ACCOUNT}
    for asked in range(10_000):
        if asked % 600 == 0 and asked:
            clock.advance(A_MINUTE_S)
        assert me.ask(**missing).status == 404
    clock.advance(A_MINUTE_S)
    assert refusal(me.ask(**missing))[2] == "caller-read-3600s"


def test_commands_are_limited_by_account_and_dry_runs_count(me: Caller, other: Caller) -> None:
    assert {me.command().status for _ in range(20)} == {200}
    refused = me.command("lock")
    assert refusal(refused) == (429, "RATE_LIMIT_EXCEEDED", "account-command", "too_many_requests")
    assert other.command().status == 200
    assert me.read().status == 200


def test_a_command_that_is_refused_by_a_limit_never_reaches_the_car(me: Caller, sandbox: RunningSandbox) -> None:
    for _ in range(20):
        me.command()
    named = {"account": me.person.account, "vin": me.person.vins[0]}
    assert me.ask(action="unlock", **named).status == 429
    assert sandbox.stats()["commands_received"] == 0


def test_listing_and_ending_accounts_is_limited(me: Caller) -> None:
    assert {me.ask(action="accounts").status for _ in range(30)} == {200}
    assert refusal(me.ask(action="accounts"))[2] == "caller-account"
    assert refusal(me.ask(action="disconnect", account=me.person.account))[2] == "caller-account"


def test_nonsense_is_limited_like_questions_about_the_service(me: Caller) -> None:
    for number in range(120):
        match number % 3:
            case 0:
                status = me.ask(action="teleport").status
            case 1:
                status = me.ask(action="status", colour="red").status
            case _:
                status = me.api.post_bytes(b"{", me.person.headers).status
        assert status == 400
    for refused in (me.ask(action="teleport"), me.api.post_bytes(b"{", me.person.headers), me.ask(action="actions")):
        assert refusal(refused) == (429, "RATE_LIMIT_EXCEEDED", "caller-service", "too_many_requests")


def test_the_parts_of_a_batch_count_one_each(me: Caller) -> None:
    one = {"action": "fuel", "account": me.person.account, "vin": me.person.vins[0]}
    batch = me.ask(action="batch", params={"requests": [one] * 20})
    assert batch.result["succeeded"] == 20
    assert left(batch) == {
        "caller-service": 119, "caller-read": 580, "caller-read-3600s": 9_980, "account-read": 280,
    }  # fmt: skip
    assert left(me.read())["caller-read"] == 579


def test_a_batch_is_no_way_around_a_limit(me: Caller, sandbox: RunningSandbox) -> None:
    one = {"action": "flash", "account": me.person.account, "vin": me.person.vins[0], "params": {"dry_run": True}}
    for _ in range(18):
        me.command()
    parts = me.ask(action="batch", params={"requests": [one] * 5}).result["responses"]
    assert [part["status"] for part in parts] == [200, 200, 429, 429, 429]
    assert parts[2]["error"]["details"] == {"limit": "account-command", "reason": "too_many_requests"}


def test_an_accounts_cars_are_listed_afresh_twelve_times_an_hour(
    me: Caller, sandbox: RunningSandbox, clock: ManualClock
) -> None:
    def listed(**how: object) -> Answered:
        return me.ask(action="vehicles", account=me.person.account, **how)

    answers = [listed(fresh=True) for _ in range(13)]
    assert [answer.status for answer in answers] == [200] * 12 + [429]
    assert refusal(answers[-1]) == (429, "RATE_LIMIT_EXCEEDED", "vehicle-fresh", "too_many_lists")
    asked = sandbox.stats()["requests_total"]
    assert [listed(fresh=True).status, listed().status] == [429, 200]
    assert sandbox.stats()["requests_total"] == asked
    # A car is read afresh all the same.
    assert me.read(fresh=True).status == 200
    clock.advance(AN_HOUR_S)
    assert listed(fresh=True).status == 200


def test_a_car_is_read_afresh_twelve_times_an_hour_and_the_refusal_says_that_its_battery_is_spared(
    me: Caller, other: Caller, sandbox: RunningSandbox, clock: ManualClock
) -> None:
    served, refused = me.read_until_refused(fresh=True)
    assert (served, refusal(refused)) == (12, (429, "RATE_LIMIT_EXCEEDED", "vehicle-fresh", "protects_12v_battery"))
    assert "12 V battery" in refused.error["message"]
    assert 3_500 < int(refused.headers["Retry-After"]) <= AN_HOUR_S
    asked = sandbox.stats()["requests_total"]
    assert me.read(fresh=True).status == 429
    assert me.read(max_age_s=0).status == 429
    assert me.read().meta["cached"] is True
    assert sandbox.stats()["requests_total"] == asked
    assert me.read(vin="WBA00000000DEMO02", fresh=True).status == 200
    # It is one car and one battery, whoever has linked it.
    assert refusal(other.read(vin=me.person.vins[0], fresh=True))[3] == "protects_12v_battery"
    clock.advance(AN_HOUR_S)
    assert me.read(fresh=True).status == 200


def test_a_read_that_nobody_forces_is_never_refused_for_the_battery(me: Caller, clock: ManualClock) -> None:
    me.read_until_refused(fresh=True)
    clock.advance(400)
    renewed = me.read()
    assert (renewed.status, renewed.meta["cached"]) == (200, False)


def test_a_forced_read_that_an_open_circuit_refuses_does_not_count(
    me: Caller, sandbox: RunningSandbox, clock: ManualClock
) -> None:
    me.read()
    sandbox.fault(match={"path": "vehicles/state"}, fault="status", status=503, every=1)
    sent, codes = 0, []
    for _ in range(30):
        clock.advance(1)
        sandbox.zero_stats()
        codes.append(me.read(fresh=True).error["code"])
        sent += sandbox.stats()["requests_total"] > 0
    assert (codes[0], codes[-20:]) == ("UPSTREAM_ERROR", ["CIRCUIT_OPEN"] * 20)
    sandbox.clear_faults()
    clock.advance(120)
    served, refused = me.read_until_refused(fresh=True)
    # One that was sent counts once, however often it was tried again.
    assert (served, refusal(refused)[3]) == (12 - sent, "protects_12v_battery")
    assert 0 < sent < 6


def test_twenty_forced_reads_in_one_batch_wake_the_car_once(me: Caller, clock: ManualClock) -> None:
    me.read()
    clock.advance(1)
    one = {"action": "fuel", "account": me.person.account, "vin": me.person.vins[0], "fresh": True}
    assert me.ask(action="batch", params={"requests": [one] * 20}).result["succeeded"] == 20
    assert me.read_until_refused(fresh=True)[0] == 11


def form(email: str, password: str = PASSWORD) -> dict[str, Any]:
    return {"email": email, "password": password, "hcaptcha": captcha()}


@pytest.mark.parametrize("action", ["connect", "status"])
def test_the_fourth_wrong_password_waits_and_the_wait_doubles(me: Caller, clock: ManualClock, action: str) -> None:
    def guess() -> Answered:
        return me.ask(action=action, **form("one@example.com", "guessed"))

    assert [guess().status for _ in range(3)] == [401, 401, 401]
    for wait_s in (30, 60, 120):
        refused = guess()
        assert refusal(refused) == (429, "RATE_LIMIT_EXCEEDED", "login-failures", "too_many_failed_logins")
        assert refused.headers["Retry-After"] == str(wait_s)
        clock.advance(wait_s)
        assert guess().status == 401


def test_a_lockout_holds_on_both_roads_even_for_the_right_password_and_for_nobody_else(
    me: Caller, other: Caller, sandbox: RunningSandbox, clock: ManualClock
) -> None:
    for action in ("connect", "status", "connect"):
        assert me.ask(action=action, **form("one@example.com", "guessed")).status == 401
    sandbox.zero_stats()
    for action in ("connect", "status"):
        assert refusal(me.ask(action=action, **form("one@example.com")))[3] == "too_many_failed_logins"
    assert sandbox.stats()["requests_total"] == 0
    assert other.ask(action="connect", **form("one@example.com")).status == 200
    clock.advance(30)
    assert me.ask(action="connect", **form("one@example.com")).status == 200
    assert me.ask(action="connect", **form("one@example.com", "guessed")).status == 401


def test_a_lockout_holds_on_every_instance(me: Caller, make_api: MakeApi, clock: ManualClock) -> None:
    for _ in range(3):
        me.ask(action="connect", **form("one@example.com", "guessed"))
    elsewhere = Caller(make_api(clock, callers=("api_keys",), **DEFAULTS), me.person)
    assert refusal(elsewhere.ask(action="connect", **form("one@example.com")))[3] == "too_many_failed_logins"


def test_whoever_fails_for_ten_accounts_waits_before_the_eleventh(me: Caller, other: Caller) -> None:
    for number in range(10):
        assert me.ask(action="connect", **form(f"user-{100 + number}@example.com", "guessed")).status == 401
    refused = me.ask(action="connect", **form("user-110@example.com", "guessed"))
    assert refusal(refused)[2:] == ("login-accounts", "too_many_failing_accounts")
    assert other.ask(action="connect", **form("user-110@example.com")).status == 200
    # What he has linked is still his.
    named = {"email": me.person.email, "password": PASSWORD, "vin": me.person.vins[0]}
    assert me.ask(action="status", **named).status == 200


def test_passwords_are_verified_ten_times_a_minute_for_one_account_right_or_not(
    me: Caller, other: Caller, clock: ManualClock
) -> None:
    linked = {"email": me.person.email, "password": PASSWORD}
    assert {me.ask(action="connect", **linked).status for _ in range(10)} == {200}
    refused = me.ask(action="connect", **linked)
    assert refusal(refused) == (429, "RATE_LIMIT_EXCEEDED", "login-identity", "too_many_logins")
    assert other.ask(action="connect", email=other.person.email, password=PASSWORD).status == 200
    # A session that was proven before is answered from memory and costs no login.
    assert me.ask(action="status", vin=me.person.vins[0], **linked).status == 200
    clock.advance(A_MINUTE_S)
    assert me.ask(action="connect", **linked).status == 200


def test_a_limit_of_ours_is_told_apart_from_the_makers(me: Caller, sandbox: RunningSandbox) -> None:
    me.read()
    sandbox.fault(match={"path": "vehicles/state"}, fault="status", status=403, replenish_s=77)
    makers = me.read(fresh=True)
    assert (makers.status, makers.error["code"]) == (429, "QUOTA_LIMIT_EXCEEDED")
    assert (left(makers)["caller-read"] > 0, makers.headers["Retry-After"]) == (True, "77")


def test_pages_are_not_limited(me: Caller) -> None:
    for _ in range(200):
        assert me.api.get("/health").status == 200
    assert "RateLimit" not in me.api.get("/health").headers
    assert json.loads(me.api.get("/openapi.json").body)["openapi"] == "3.1.0"
