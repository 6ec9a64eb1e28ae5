"""Commanding a car, with the simulated maker counting what it really received."""

import threading
from typing import Any

import pytest

from common.clock import ManualClock
from sandbox.process import RunningSandbox
from tests.integration.conftest import IX, M340I, Answered, Api, MakeApi

ONE = "one@example.com"


def commands_received(sandbox: RunningSandbox) -> int:
    received: int = sandbox.stats()["commands_received"]
    return received


def finish(api: Api, sent: Any) -> Any:
    return api.post(action="command_status", params={"command_id": sent.result["command_id"]}, wait_s=5)


def test_a_lock_is_accepted_then_confirmed_by_the_cars_own_data(api: Api, sandbox: RunningSandbox) -> None:
    account = api.connect()
    sandbox.patch_car(ONE, IX, state={"doorsState": {"combinedSecurityState": "UNLOCKED"}})
    assert api.post(action="is_locked", account=account).result["locked"] is False
    sent = api.post(action="lock", account=account)
    assert sent.status == 202
    assert sent.result["state"] == "accepted"
    assert sent.result["status"] == "pending"
    done = finish(api, sent)
    assert done.status == 200
    assert (done.result["state"], done.result["status"]) == ("confirmed", "success")
    assert done.result["confirmed_by"] == "telemetry"
    assert done.result["confirmed_after_s"] > 0
    assert api.post(action="is_locked", account=account).result["locked"] is True
    assert commands_received(sandbox) == 1


@pytest.mark.parametrize(
    ("action", "params", "path", "wanted"),
    [
        ("lock", {}, ("lock_status", "lock_state"), "LOCKED"),
        ("unlock", {}, ("is_locked", "locked"), False),
        ("ac", {}, ("climate_status", "is_climate_on"), True),
        ("climate", {}, ("climate_status", "is_climate_on"), True),
        ("ac_off", {}, ("climate_status", "is_climate_on"), False),
        ("charge_stop", {}, ("charging", "charging_status"), "PLUGGED_IN"),
        ("charging_settings", {"target_soc": 90}, ("charging", "charging_target_percent"), 90),
        ("charging_settings", {"ac_limit": 32}, ("charging", "ac_limit"), {"value": 32, "unit": "A"}),
        ("charging_profile", {"charging_mode": "DELAYED_CHARGING"}, ("charging", "charging_mode"), "DELAYED_CHARGING"),
        ("charging_profile", {"precondition_climate": True}, ("charging", "precondition_climate"), True),
    ],
)
def test_a_commands_effect_is_read_back(
    api: Api, sandbox: RunningSandbox, action: str, params: dict[str, Any], path: tuple[str, str], wanted: object
) -> None:
    account = api.connect()
    sent = api.post(action=action, account=account, params=params, wait_s=5)
    assert sent.status == 200, sent.json
    assert sent.result["state"] == "confirmed"
    read, field = path
    assert api.post(action=read, account=account).result[field] == wanted
    assert commands_received(sandbox) == 1


@pytest.mark.parametrize("action", ["flash", "horn"])
def test_a_command_that_leaves_no_trace_ends_executed(api: Api, sandbox: RunningSandbox, action: str) -> None:
    done = api.post(action=action, account=api.connect(), wait_s=5)
    assert (done.status, done.result["state"], done.result["confirmed_by"]) == (200, "executed", None)
    assert commands_received(sandbox) == 1


def test_charging_starts_again_after_it_was_stopped(api: Api) -> None:
    account = api.connect()
    assert api.post(action="charge_stop", account=account, wait_s=5).result["state"] == "confirmed"
    assert api.post(action="charge_start", account=account, wait_s=5).result["state"] == "confirmed"


def test_a_destination_is_accepted_and_nothing_more_is_claimed(api: Api, sandbox: RunningSandbox) -> None:
    sent = api.post(action="send_poi", account=api.connect(), params={"latitude": 48.1, "longitude": 11.5})
    assert (sent.status, sent.result["state"], sent.result["status"]) == (200, "delivered", "success")
    assert sent.result["note"]
    assert commands_received(sandbox) == 1


def test_the_car_tells_where_it_is_to_somebody_who_says_where_he_stands(api: Api) -> None:
    account = api.connect()
    here = {"latitude": 48.1, "longitude": 11.5}
    found = api.post(action="find", account=account, params=here, wait_s=5)
    assert found.result["state"] == "executed"
    assert found.result["position"]["latitude"] == pytest.approx(48.177334)
    without = api.post(action="find", account=account, wait_s=5).result
    assert without.get("position") is None
    assert without["note"]


def test_what_a_car_cannot_do_is_refused_before_anything_is_sent(api: Api, sandbox: RunningSandbox) -> None:
    account = api.connect("demo@example.com")
    refused = api.post(action="charge_start", account=account, vin=M340I)
    assert (refused.status, refused.error["code"]) == (501, "NOT_SUPPORTED")
    assert refused.error["message"]
    assert commands_received(sandbox) == 0


def test_charging_does_not_start_unplugged(api: Api, sandbox: RunningSandbox) -> None:
    account = api.connect()
    sandbox.patch_car(
        ONE, IX, state={"electricChargingState": {"isChargerConnected": False, "chargingStatus": "INVALID"}}
    )
    refused = api.post(action="charge_start", account=account)
    assert (refused.status, refused.error["code"]) == (409, "PRECONDITION_FAILED")
    assert commands_received(sandbox) == 0


@pytest.mark.parametrize(
    ("action", "params", "path"),
    [
        ("charging_settings", {}, "params"),
        ("charging_settings", {"target_soc": 83}, "params.target_soc"),
        ("charging_settings", {"target_soc": 15}, "params.target_soc"),
        ("charging_settings", {"target_soc": 80.5}, "params.target_soc"),
        ("charging_settings", {"target_soc": True}, "params.target_soc"),
        ("charging_settings", {"ac_limit": 17}, "params.ac_limit"),
        ("charging_profile", {"charging_mode": "NOW"}, "params.charging_mode"),
        ("send_poi", {"latitude": 91, "longitude": 0}, "params.latitude"),
        ("send_poi", {"longitude": 0}, "params.latitude"),
        ("find", {"latitude": 1}, "params"),
        ("lock", {"speed": 1}, "params.speed"),
    ],
)
def test_bad_parameters_name_their_path_and_send_nothing(
    api: Api, sandbox: RunningSandbox, action: str, params: dict[str, Any], path: str
) -> None:
    refused = api.post(action=action, account=api.connect(), params=params)
    assert (refused.status, refused.error["code"]) == (400, "VALIDATION_ERROR"), refused.json
    assert path in [field["path"] for field in refused.error["details"]["fields"]]
    assert commands_received(sandbox) == 0


@pytest.mark.parametrize(
    ("fault", "code", "status", "state", "doubt"),
    [
        ({"fault": "status", "status": 503}, "UPSTREAM_ERROR", 502, "unknown", True),
        ({"fault": "reset_after"}, "UPSTREAM_ERROR", 502, "unknown", True),
        ({"fault": "reset"}, "UPSTREAM_ERROR", 502, "unknown", True),
        ({"fault": "malformed"}, "UPSTREAM_INVALID", 502, "unknown", True),
        ({"fault": "status", "status": 429}, "QUOTA_LIMIT_EXCEEDED", 429, "failed", False),
        ({"fault": "status", "status": 489}, "PROVIDER_BLOCKED", 503, "failed", False),
        ({"fault": "status", "status": 400}, "REMOTE_SERVICE_ERROR", 503, "failed", False),
    ],
)
def test_a_failing_send_is_sent_once_and_says_whether_it_may_have_happened(
    api: Api, sandbox: RunningSandbox, fault: dict[str, Any], code: str, status: int, state: str, doubt: bool
) -> None:
    account = api.connect()
    api.post(action="status", account=account)
    sandbox.zero_stats()
    sandbox.fault(match={"path": "door-unlock"}, **fault)
    failed = api.post(action="unlock", account=account)
    assert (failed.status, failed.error["code"]) == (status, code), failed.json
    assert failed.error["may_have_succeeded"] is doubt
    if doubt:
        assert failed.error["retryable"] is False
    asked = sandbox.stats()["requests"].get("POST /eadrax-vrccs/v4/presentation/remote-commands/{service}", 0)
    assert asked <= 1
    sandbox.clear_faults()
    record = api.post(action="command_status", params={"command_id": failed.error["details"]["command_id"]}).result
    assert record["state"] == state
    assert record["may_have_succeeded"] is doubt


def test_an_empty_answer_is_unknown_and_never_executed(api: Api, sandbox: RunningSandbox) -> None:
    account = api.connect()
    sandbox.fault(match={"path": "door-lock"}, fault="empty")
    done = api.post(action="lock", account=account, wait_s=5)
    assert (done.status, done.result["state"], done.result["status"]) == (200, "unknown", "unknown")
    assert done.result["may_have_succeeded"] is True


@pytest.mark.parametrize("outcome", ["ERROR", "IGNORED"])
def test_a_command_that_the_maker_reports_failed_is_failed(api: Api, sandbox: RunningSandbox, outcome: str) -> None:
    account = api.connect()
    sandbox.fault(match={"path": "door-lock"}, fault="event", outcome=outcome)
    done = api.post(action="lock", account=account, wait_s=5)
    assert (done.result["state"], done.result["status"]) == ("failed", "failed")


def test_a_command_without_end_stays_pending(api: Api, sandbox: RunningSandbox) -> None:
    account = api.connect()
    sandbox.fault(match={"path": "door-lock"}, fault="event", outcome="never")
    sent = api.post(action="lock", account=account, wait_s=0.2)
    assert sent.status == 202
    assert sent.result["status"] == "pending"


def test_an_effect_that_the_car_does_not_show_is_executed_and_says_so(
    make_api: MakeApi, clock: ManualClock, sandbox: RunningSandbox
) -> None:
    api = make_api(clock)
    account = api.connect()
    sandbox.patch_car(ONE, IX, state={"doorsState": {"combinedSecurityState": "UNLOCKED"}})
    sent = api.post(action="lock", account=account)
    command = {"command_id": sent.result["command_id"]}
    for _ in range(3):
        api.post(action="command_status", params=command)
        clock.advance(0.01)
    # Somebody opens it again before the first look at its data.
    sandbox.patch_car(ONE, IX, state={"doorsState": {"combinedSecurityState": "UNLOCKED"}})
    waiting = api.post(action="command_status", params=command)
    assert (waiting.status, waiting.result["state"]) in ((202, "executed"), (200, "confirmed"))


def test_any_instance_can_take_up_a_command(make_api: MakeApi) -> None:
    sender = make_api()
    sent = sender.post(action="lock", account=sender.connect())
    done = finish(make_api(), sent)
    assert done.result["state"] == "confirmed"


def test_a_command_that_nobody_sent_is_not_found(api: Api) -> None:
    api.connect()
    unknown = api.post(action="command_status", params={"command_id": f"cmd_{'A' * 22}_{'B' * 22}"})
    assert (unknown.status, unknown.error["code"]) == (404, "COMMAND_NOT_FOUND")


def test_a_disconnect_that_was_answered_is_followed_by_no_command_of_another_instance(
    make_api: MakeApi, sandbox: RunningSandbox
) -> None:
    one, other = make_api(), make_api()
    account = one.connect()
    other.post(action="vehicles", account=account)
    sandbox.fault(match={"path": "vehicles/state"}, fault="slow", delay_ms=800)
    answers: list[Answered] = []
    unlocking = threading.Thread(target=lambda: answers.append(other.post(action="unlock", account=account)))
    unlocking.start()
    while not sandbox.stats()["in_flight"]:
        pass
    assert one.post(action="disconnect", account=account).status == 200
    assert unlocking.is_alive()
    unlocking.join()
    assert (answers[0].status, answers[0].error["code"]) == (404, "ACCOUNT_NOT_FOUND")
    assert commands_received(sandbox) == 0
