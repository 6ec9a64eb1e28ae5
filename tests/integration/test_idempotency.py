"""One request, one command: keys, repeats, the vehicle's slot, dry runs and second thoughts."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from common.clock import ManualClock
from sandbox.process import RunningSandbox
from tests.integration.conftest import Answered, Api, MakeApi

ONE = "one@example.com"
KEY = {"idempotency-key": "a-key"}


def received(sandbox: RunningSandbox) -> int:
    count: int = sandbox.stats()["commands_received"]
    return count


@contextmanager
def stopped(sandbox: RunningSandbox) -> Iterator[None]:
    """The maker answers nobody before the end of the block."""
    os.kill(sandbox.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(sandbox.pid, signal.SIGCONT)


def test_the_same_key_is_the_same_command(api: Api, sandbox: RunningSandbox) -> None:
    account = api.connect()
    first = api.post(KEY, action="unlock", account=account, wait_s=5)
    again = api.post(KEY, action="unlock", account=account)
    assert again.result["command_id"] == first.result["command_id"]
    assert (first.result["deduplicated"], again.result["deduplicated"]) == (False, True)
    assert again.result["state"] == "confirmed"
    assert received(sandbox) == 1


@pytest.mark.parametrize(
    "other", [{"action": "lock"}, {"action": "charging_settings", "params": {"target_soc": 80}}], ids=str
)
def test_a_key_is_not_used_for_something_else(api: Api, sandbox: RunningSandbox, other: dict[str, Any]) -> None:
    account = api.connect()
    api.post(KEY, action="charging_settings", account=account, params={"target_soc": 90}, wait_s=5)
    refused = api.post(KEY, account=account, **other)
    assert (refused.status, refused.error["code"]) == (422, "IDEMPOTENCY_MISMATCH")
    assert received(sandbox) == 1


def test_a_key_is_not_used_for_another_account(api: Api, sandbox: RunningSandbox) -> None:
    accounts = [api.connect(), api.connect("demo@example.com")]
    assert api.post(KEY, action="flash", account=accounts[0], wait_s=5).status == 200
    refused = api.post(KEY, action="flash", account=accounts[1], vin="WBA00000000DEMO03")
    assert (refused.status, refused.error["code"]) == (422, "IDEMPOTENCY_MISMATCH")
    assert received(sandbox) == 1


def test_ending_a_link_and_making_it_anew_frees_no_key_no_cap_and_no_forced_read(
    make_api: MakeApi, clock: ManualClock, sandbox: RunningSandbox
) -> None:
    api = make_api(clock, command_caps={"horn": 1}, limit_vehicle_fresh="1/hour")
    account = api.connect()
    assert api.post(KEY, action="horn", account=account, wait_s=5).status == 200
    assert api.post(action="fuel", account=account, fresh=True).status == 200
    assert api.post(action="disconnect", account=account).status == 200
    clock.advance(120)
    account = api.connect()
    assert api.post(KEY, action="horn", account=account).error["code"] == "IDEMPOTENCY_MISMATCH"
    assert api.post(action="horn", account=account).error["code"] == "RATE_LIMIT_EXCEEDED"
    spared = api.post(action="fuel", account=account, fresh=True)
    assert (spared.status, spared.error["details"]["reason"]) == (429, "protects_12v_battery")
    assert received(sandbox) == 1


def test_a_key_in_flight_is_a_conflict(api: Api, sandbox: RunningSandbox) -> None:
    account = api.connect()
    api.post(action="status", account=account)
    sandbox.fault(match={"path": "door-unlock"}, fault="slow", delay_ms=1000)
    answers: list[Answered] = []
    first = threading.Thread(target=lambda: answers.append(api.post(KEY, action="unlock", account=account)))
    first.start()
    while not sandbox.stats()["in_flight"]:
        pass
    with stopped(sandbox):
        second = api.post(KEY, action="unlock", account=account)
    first.join()
    assert (second.status, second.error["code"]) == (409, "IDEMPOTENCY_IN_FLIGHT")
    assert answers[0].status == 202
    assert received(sandbox) == 1


def test_without_a_key_the_same_command_is_the_same_for_fifteen_seconds(
    make_api: MakeApi, clock: ManualClock, sandbox: RunningSandbox
) -> None:
    api, account = (one := make_api(clock)), one.connect()
    first = api.post(action="flash", account=account, wait_s=5)
    clock.advance(14)
    again = api.post(action="flash", account=account)
    assert again.result["command_id"] == first.result["command_id"]
    assert again.result["deduplicated"] is True
    assert received(sandbox) == 1
    clock.advance(2)
    later = api.post(action="flash", account=account)
    assert later.result["deduplicated"] is False
    assert received(sandbox) == 2


def test_two_hundred_unlocks_with_one_key_over_several_instances_are_one(
    make_api: MakeApi, sandbox: RunningSandbox
) -> None:
    instances = [make_api() for _ in range(4)]
    account = instances[0].connect()
    for instance in instances:
        instance.post(action="status", account=account)
    sandbox.zero_stats()
    answers: list[Answered] = []

    def send(number: int) -> None:
        answers.append(instances[number % 4].post(KEY, action="unlock", account=account))

    threads = [threading.Thread(target=send, args=(number,)) for number in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert received(sandbox) == 1
    assert {a.status for a in answers} <= {200, 202, 409}
    assert len({a.result["command_id"] for a in answers if a.status < 300}) == 1


def test_a_key_that_was_refused_before_anything_was_sent_can_be_used_again(api: Api, sandbox: RunningSandbox) -> None:
    account = api.connect()
    sandbox.patch_car(ONE, "WBA00000000DEMO01", state={"electricChargingState": {"isChargerConnected": False}})
    assert api.post(KEY, action="charge_start", account=account).error["code"] == "PRECONDITION_FAILED"
    assert api.post(KEY, action="lock", account=account).status == 202


def test_a_failed_command_repeats_its_error_for_its_key(api: Api, sandbox: RunningSandbox) -> None:
    account = api.connect()
    api.post(action="status", account=account)
    sandbox.fault(match={"path": "door-unlock"}, fault="reset_after", times=1)
    first = api.post(KEY, action="unlock", account=account)
    again = api.post(KEY, action="unlock", account=account)
    assert (first.status, first.error["code"]) == (again.status, again.error["code"]) == (502, "UPSTREAM_ERROR")
    assert again.error["may_have_succeeded"] is True
    assert again.error["details"]["command_id"] == first.error["details"]["command_id"]
    keyless = api.post(action="unlock", account=account)
    assert keyless.status == 202
    assert received(sandbox) == 2


def test_a_person_may_try_again_at_once_what_provably_did_nothing(api: Api, sandbox: RunningSandbox) -> None:
    account = api.connect()
    api.post(action="status", account=account)
    sandbox.fault(match={"path": "door-lock"}, fault="status", status=400, times=1)
    assert api.post(action="lock", account=account).error["may_have_succeeded"] is False
    assert api.post(action="lock", account=account).status == 202


def test_one_command_is_in_flight_a_vehicle(make_api: MakeApi, sandbox: RunningSandbox) -> None:
    one, other = make_api(), make_api()
    account = one.connect()
    sandbox.fault(match={"path": "door-lock"}, fault="event", outcome="never")
    one.post(action="lock", account=account)
    refused = other.post(action="unlock", account=account)
    assert (refused.status, refused.error["code"]) == (409, "COMMAND_IN_PROGRESS")
    assert refused.error["details"] == {"operation": "lock"}
    assert received(sandbox) == 1


def test_a_car_is_free_again_once_the_maker_has_executed(api: Api, sandbox: RunningSandbox) -> None:
    account = api.connect()
    api.post(action="lock", account=account, wait_s=5)
    assert api.post(action="unlock", account=account, wait_s=5).result["state"] == "confirmed"
    assert received(sandbox) == 2


def test_a_deployment_may_demand_keys(make_api: MakeApi, sandbox: RunningSandbox) -> None:
    api = make_api(require_idempotency_key=True)
    account = api.connect()
    refused = api.post(action="lock", account=account)
    assert (refused.status, refused.error["code"]) == (400, "VALIDATION_ERROR")
    assert refused.error["details"]["fields"][0]["path"] == "Idempotency-Key"
    assert api.post(action="is_locked", account=account).status == 200
    assert api.post(KEY, action="lock", account=account).status == 202


@pytest.mark.parametrize("key", ["", "x" * 256, "schlüssel", "tab\there"])
def test_a_malformed_key_is_refused(api: Api, key: str) -> None:
    refused = api.post({"idempotency-key": key}, action="lock", account=api.connect())
    assert refused.error["details"]["fields"][0]["path"] == "Idempotency-Key"


def test_a_dry_run_says_what_would_happen_and_sends_nothing(api: Api, sandbox: RunningSandbox) -> None:
    account = api.connect()
    dry = api.post(action="charging_settings", account=account, params={"target_soc": 90, "dry_run": True})
    assert dry.status == 200
    assert dry.result["would_send"] == {"operation": "charging_settings", "params": {"target_soc": 90}}
    assert dry.result["would_be_sent"] is True
    assert all(precondition["met"] for precondition in dry.result["preconditions"])
    sandbox.patch_car(ONE, "WBA00000000DEMO01", state={"electricChargingState": {"isChargerConnected": False}})
    api.post(action="status", account=account, fresh=True)
    refused = api.post(action="charge_start", account=account, params={"dry_run": True})
    assert refused.result["would_be_sent"] is False
    assert refused.result["preconditions"][0]["code"] == "PRECONDITION_FAILED"
    assert received(sandbox) == 0


def test_a_dangerous_command_needs_a_code_that_works_once(
    make_api: MakeApi, clock: ManualClock, sandbox: RunningSandbox
) -> None:
    api = make_api(clock, confirm_commands=("unlock",))
    account = api.connect()
    bare = api.post(action="unlock", account=account)
    assert (bare.status, bare.error["code"]) == (428, "CONFIRMATION_REQUIRED")
    code = api.post(action="unlock", account=account, params={"dry_run": True}).result["confirm"]["code"]
    for_another = api.post(action="horn", account=account, params={"dry_run": True}).result["confirm"]
    assert for_another is None
    assert api.post(action="unlock", account=account, params={"confirm": "A" * 22}).status == 428
    done = api.post(action="unlock", account=account, params={"confirm": code}, wait_s=5)
    assert done.result["state"] == "confirmed"
    clock.advance(20)
    assert api.post(action="unlock", account=account, params={"confirm": code}).status == 428
    late = api.post(action="unlock", account=account, params={"dry_run": True}).result["confirm"]["code"]
    clock.advance(121)
    assert api.post(action="unlock", account=account, params={"confirm": late}).status == 428
    assert received(sandbox) == 1


def test_a_cap_an_hour_limits_dangerous_commands(
    make_api: MakeApi, clock: ManualClock, sandbox: RunningSandbox
) -> None:
    api = make_api(clock, command_caps={"horn": 2})
    account = api.connect()
    for _ in range(2):
        assert api.post(action="horn", account=account, wait_s=5).status == 200
        clock.advance(20)
    capped = api.post(action="horn", account=account)
    assert (capped.status, capped.error["code"]) == (429, "RATE_LIMIT_EXCEEDED")
    assert 3500 <= capped.error["retry_after"] <= 3600
    clock.advance(3601)
    assert api.post(action="horn", account=account).status == 202
    assert received(sandbox) == 3


def test_nothing_is_sent_after_thirty_seconds(make_api: MakeApi, sandbox: RunningSandbox) -> None:
    class Slow(ManualClock):
        """Half a minute passes between a command's acceptance and its send."""

        armed = False

        def monotonic(self) -> float:
            if self.armed:
                self.advance(11)
            return super().monotonic()

    clock = Slow(wall=datetime.now(UTC))
    api = make_api(clock)
    account = api.connect()
    api.post(action="status", account=account)
    clock.armed = True
    late = api.post(action="unlock", account=account)
    assert late.status in (503, 504)
    assert late.error["may_have_succeeded"] is False
    assert received(sandbox) == 0
