"""Several requests in one: the same answers as one by one, for less."""

import threading
from typing import Any

import pytest

from common.clock import ManualClock
from sandbox.process import RunningSandbox
from tests.integration.conftest import IX, M340I, Answered, Api, MakeApi


def batch(api: Api, *requests: dict[str, Any], headers: dict[str, str] | None = None) -> Answered:
    return api.post(headers, action="batch", params={"requests": list(requests)})


def fetches(sandbox: RunningSandbox) -> int:
    """How many reads of a vehicle's state have reached the maker."""
    return sum(count for route, count in sandbox.stats()["requests"].items() if route.endswith("/vehicles/state"))


def test_each_part_is_answered_in_order_as_it_would_be_by_itself(api: Api) -> None:
    account = api.connect("demo@example.com")
    requests = [
        {"action": "fuel", "account": account, "vin": IX},
        {"action": "mileage", "account": account, "vin": M340I, "units": "imperial"},
        {"action": "is_locked", "account": account, "vin": IX},
    ]
    answered = batch(api, *requests)
    assert answered.status == 200
    responses = answered.result["responses"]
    assert [response["status"] for response in responses] == [200, 200, 200]
    for request, response in zip(requests, responses, strict=True):
        alone = api.post(None, **request).json
        assert response["result"] == alone["result"]
        assert (response["action"], response["vin"]) == (alone["action"], alone["vin"])
    assert (answered.result["count"], answered.result["succeeded"], answered.result["failed"]) == (3, 3, 0)


def test_twenty_reads_of_one_vehicle_cost_one_fetch(api: Api, sandbox: RunningSandbox) -> None:
    account = api.connect()
    before = fetches(sandbox)
    names = ["status", "fuel", "location", "mileage", "lock_status"] * 4
    answered = batch(api, *({"action": name, "account": account, "vin": IX} for name in names))
    assert answered.result["succeeded"] == 20
    assert fetches(sandbox) - before == 1


@pytest.mark.parametrize("wish", [{"fresh": True}, {"max_age_s": 0}, {"max_age_s": 0.001}], ids=str)
def test_twenty_fresh_reads_of_one_vehicle_cost_one_fetch_too(
    api: Api, sandbox: RunningSandbox, wish: dict[str, Any]
) -> None:
    account = api.connect()
    api.post(action="fuel", account=account, vin=IX)
    sandbox.settings(latency_ms=5)
    before = fetches(sandbox)
    answered = batch(api, *({"action": "fuel", "account": account, "vin": IX, **wish} for _ in range(20)))
    assert answered.result["succeeded"] == 20
    assert fetches(sandbox) - before == 1
    assert [part["meta"]["cached"] for part in answered.result["responses"]] == [False] + [True] * 19


@pytest.mark.parametrize("wish", [{"fresh": True}, {"max_age_s": 0}, {"max_age_s": 0.001}], ids=str)
def test_a_fetch_that_fails_fails_once_for_all_the_reads_of_its_vehicle(
    make_api: MakeApi, sandbox: RunningSandbox, wish: dict[str, Any]
) -> None:
    api = make_api(read_attempts=1)
    account = api.connect()
    api.post(action="fuel", account=account, vin=IX)
    sandbox.fault(match={"path": "vehicles/state"}, fault="status", status=500, delay_ms=20)
    before = fetches(sandbox)
    answered = batch(api, *({"action": "fuel", "account": account, "vin": IX, **wish} for _ in range(20)))
    assert [part["error"]["code"] for part in answered.result["responses"]] == ["UPSTREAM_ERROR"] * 20
    assert fetches(sandbox) - before == 1


def test_no_command_of_a_batch_is_sent_later_than_one_that_comes_alone(
    make_api: MakeApi, clock: ManualClock, sandbox: RunningSandbox
) -> None:
    api = make_api(clock)
    account = api.connect()
    sandbox.fault(match={"path": "light-flash"}, fault="event", outcome="never")
    commands: list[dict[str, Any]] = [{"action": "flash", "wait_s": 50}, {"action": "unlock"}]
    answers: list[Answered] = []
    asking = threading.Thread(
        target=lambda: answers.append(batch(api, *({"account": account, "vin": IX, **command} for command in commands)))
    )
    asking.start()
    while sandbox.stats()["commands_received"] < 1:
        pass
    while asking.is_alive():
        clock.advance(5)
        asking.join(0.02)
    flash, unlock = answers[0].result["responses"]
    assert flash["status"] == 202
    assert (unlock["status"], unlock["error"]["code"]) == (504, "UPSTREAM_TIMEOUT")
    assert unlock["error"]["may_have_succeeded"] is False
    assert sandbox.stats()["commands_received"] == 1


def test_a_fresh_read_after_a_command_of_the_batch_is_a_new_one(api: Api, sandbox: RunningSandbox) -> None:
    account = api.connect()
    fresh = {"action": "fuel", "account": account, "vin": IX, "fresh": True}
    before = fetches(sandbox)
    answered = batch(api, fresh, fresh, {"action": "flash", "account": account, "vin": IX}, fresh, fresh)
    assert [part.get("meta", {}).get("cached") for part in answered.result["responses"]][:2] == [False, True]
    assert [part["meta"]["cached"] for part in answered.result["responses"][3:]] == [False, True]
    assert fetches(sandbox) - before == 2


def test_a_fresh_read_that_only_explains_or_fails_makes_no_other_one_fresh(api: Api, sandbox: RunningSandbox) -> None:
    account = api.connect()
    api.post(action="fuel", account=account, vin=IX)
    fresh = {"action": "fuel", "account": account, "vin": IX, "fresh": True}
    answered = batch(api, {**fresh, "params": {"explain": True}}, {**fresh, "params": {"explain": 1}}, fresh)
    assert [part["status"] for part in answered.result["responses"]] == [200, 400, 200]
    assert answered.result["responses"][2]["meta"]["cached"] is False


def test_one_part_that_fails_leaves_the_others_alone(api: Api) -> None:
    account = api.connect()
    answered = batch(
        api,
        {"action": "fuel", "account": account, "vin": IX},
        {"action": "fuel", "account": account, "vin": "WBA00000000DEMO99"},
        {"action": "nonsense", "account": account},
        {"action": "fuel", "account": "acc_" + "0" * 22, "vin": IX},
        {"action": "charging_settings", "account": account, "vin": IX},
        {"action": "mileage", "account": account, "vin": IX},
    )
    assert answered.status == 200
    codes = [response.get("error", {}).get("code") for response in answered.result["responses"]]
    assert codes == [None, "VEHICLE_NOT_FOUND", "UNKNOWN_ACTION", "ACCOUNT_NOT_FOUND", "VALIDATION_ERROR", None]
    assert [response["status"] for response in answered.result["responses"]] == [200, 404, 400, 404, 400, 200]
    assert (answered.result["succeeded"], answered.result["failed"]) == (2, 4)


def test_parts_carry_the_request_id_of_the_whole(api: Api) -> None:
    answered = batch(api, {"action": "actions"}, {"action": "nonsense"}, headers={"x-request-id": "whole-1"})
    assert answered.result["responses"][0]["meta"]["request_id"] == "whole-1"
    assert answered.result["responses"][1]["error"]["request_id"] == "whole-1"


def test_a_command_and_the_read_after_it_run_in_the_order_given(api: Api) -> None:
    account = api.connect()
    answered = batch(
        api,
        {"action": "lock", "account": account, "vin": IX, "wait_s": 10},
        {"action": "is_locked", "account": account, "vin": IX, "fresh": True},
    )
    lock, locked = answered.result["responses"]
    assert (lock["status"], lock["result"]["state"]) == (200, "confirmed")
    assert locked["result"]["locked"] is True


def test_the_same_batch_again_sends_no_command_again(api: Api) -> None:
    account = api.connect("demo@example.com")
    requests = [
        {"action": "flash", "account": account, "vin": IX, "wait_s": 10},
        {"action": "flash", "account": account, "vin": M340I, "wait_s": 10},
    ]
    first = batch(api, *requests, headers={"idempotency-key": "night-1"}).result["responses"]
    again = batch(api, *requests, headers={"idempotency-key": "night-1"}).result["responses"]
    assert [part["result"]["command_id"] for part in again] == [part["result"]["command_id"] for part in first]
    assert [part["result"]["deduplicated"] for part in again] == [True, True]


def test_the_same_key_with_other_parts_or_another_order_runs_nothing(api: Api, sandbox: RunningSandbox) -> None:
    account = api.connect("demo@example.com")
    key = {"idempotency-key": "night-2"}
    first: dict[str, Any] = {"action": "flash", "account": account, "vin": IX, "wait_s": 10}
    second = {**first, "vin": M340I}
    assert batch(api, first, second, headers=key).result["succeeded"] == 2
    before = sandbox.stats()["requests_total"]
    for others in ([second, first], [first], [first, {**second, "action": "horn"}], [first, second, first]):
        refused = batch(api, *others, headers=key)
        assert (refused.status, refused.error["code"]) == (422, "IDEMPOTENCY_MISMATCH")
    assert sandbox.stats()["requests_total"] == before
    # How long to wait is no part of what is asked.
    assert batch(api, {**first, "wait_s": 0}, second, headers=key).result["succeeded"] == 2
    assert sandbox.stats()["commands_received"] == 2


def test_a_key_on_a_batch_that_commands_nothing_is_not_used_up(api: Api) -> None:
    account = api.connect()
    key = {"idempotency-key": "night-3"}
    for reads in (["fuel"], ["mileage", "fuel"]):
        assert batch(api, *({"action": name, "account": account} for name in reads), headers=key).status == 200
    dry = {"action": "lock", "account": account, "params": {"dry_run": True}}
    assert batch(api, dry, headers=key).result["succeeded"] == 1
    assert batch(api, {"action": "lock", "account": account}, headers=key).result["succeeded"] == 1


def test_a_part_may_bring_a_key_of_its_own(api: Api) -> None:
    account = api.connect()
    command = {"action": "flash", "account": account, "vin": IX, "wait_s": 10}
    alone = api.post({"idempotency-key": "mine"}, **command).result
    (part,) = batch(api, command | {"idempotency_key": "mine"}).result["responses"]
    assert (part["result"]["command_id"], part["result"]["deduplicated"]) == (alone["command_id"], True)


def test_what_has_no_place_in_a_batch_is_refused_before_anything_is_done(api: Api, sandbox: RunningSandbox) -> None:
    account = api.connect()
    before = sandbox.stats()["requests_total"]
    for bad in (
        {"action": "batch", "params": {"requests": [{"action": "actions"}]}},
        {"action": "connect", "email": "one@example.com", "password": "demo-password"},
        {"action": "image", "account": account, "vin": IX},
        {"action": "fuel", "acount": account},
        {"action": "fuel", "account": account, "fresh": True, "cache_only": True},
        {"action": "flash", "account": account, "vin": IX, "idempotency_key": ""},
    ):
        answered = batch(api, {"action": "flash", "account": account, "vin": IX}, bad)
        assert answered.status == 400
        assert all(field["path"].startswith("params.requests.1") for field in answered.error["details"]["fields"])
    assert sandbox.stats()["requests_total"] == before


def test_a_batch_holds_one_to_twenty_requests(api: Api) -> None:
    assert batch(api).status == 400
    assert batch(api, *({"action": "actions"} for _ in range(20))).result["count"] == 20
    assert batch(api, *({"action": "actions"} for _ in range(21))).status == 400
    assert api.post(action="batch").status == 400
    assert api.post(action="batch", params={"requests": {"action": "actions"}}).status == 400
