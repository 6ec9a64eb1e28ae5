"""Reading a car."""

import threading
from collections import Counter

import pytest

from common.clock import ManualClock
from sandbox.process import RunningSandbox
from tests.integration.conftest import IX, M340I, PASSWORD, Api, MakeApi, captcha

READS = (
    "status", "fuel", "location", "mileage", "lock_status", "is_locked", "check_control", "charging", "climate_status",
    "tires", "service", "capabilities",
)  # fmt: skip
FLEET = (
    "WBA00000000DEMO01", "WBA00000000DEMO02", "WBA00000000DEMO03", "WBA00000000DEMO04", "WBA00000000DEMO05",
    "WBY00000000REXI01", "WBY000000NOREXI01", "WBA00000000000F31", "WZ100000000000J29",
)  # fmt: skip


def test_the_account_lists_all_nine_recorded_cars(api: Api) -> None:
    listed = api.post(action="vehicles", account=api.connect("demo@example.com")).result
    assert listed["count"] == 9
    assert {v["vin"] for v in listed["vehicles"]} == set(FLEET)
    assert Counter(v["brand"] for v in listed["vehicles"]) == {"BMW": 8, "TOYOTA": 1}


@pytest.mark.parametrize("action", READS)
def test_every_read_answers_for_every_recorded_car(api: Api, action: str) -> None:
    account = api.connect("demo@example.com")
    for vin in FLEET:
        answered = api.post(action=action, account=account, vin=vin)
        assert answered.status == 200, answered.json
        assert answered.json["vin"] == vin
        assert answered.json["action"] == action
        assert answered.meta["provider"] == "mybmw"
        assert set(answered.json) == {
            "success", "action", "brand", "vehicle_name", "vin", "result", "timestamp", "environment", "meta",
        }  # fmt: skip


def test_fuel_after_status_costs_nothing_upstream(api: Api, sandbox: RunningSandbox) -> None:
    account = api.connect()
    assert api.post(action="status", account=account).meta["cached"] is False
    before = sandbox.stats()["requests_total"]
    fuel = api.post(action="fuel", account=account)
    assert fuel.meta["cached"] is True
    assert fuel.result["battery_level"] == {"value": 70, "unit": "%"}
    assert fuel.result["remaining_range_electric"] == {"value": 340, "unit": "km"}
    assert fuel.result["remaining_fuel"] is None
    assert "remaining_fuel" in fuel.result["unavailable"]
    assert sandbox.stats()["requests_total"] == before


def test_a_fresh_status_is_two_upstream_requests_and_no_new_connection(api: Api, sandbox: RunningSandbox) -> None:
    account = api.connect()
    for _ in range(2):
        api.post(action="status", account=account, fresh=True)
    before = sandbox.stats()
    for _ in range(5):
        assert api.post(action="status", account=account, fresh=True).meta["cached"] is False
    after = sandbox.stats()
    assert after["requests_total"] - before["requests_total"] == 10
    assert after["connections_opened"] == before["connections_opened"]


def test_a_thousand_concurrent_identical_reads_are_one_upstream_fetch(api: Api, sandbox: RunningSandbox) -> None:
    account = api.connect()
    api.post(action="vehicles", account=account)
    sandbox.settings(latency_ms=200)
    sandbox.zero_stats()
    statuses: list[int] = []
    start = threading.Barrier(100)

    def read_ten() -> None:
        start.wait()
        statuses.extend(api.post(action="status", account=account).status for _ in range(10))

    threads = [threading.Thread(target=read_ten) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 1000
    assert sandbox.stats()["requests_total"] == 2


def test_data_older_than_five_minutes_are_read_anew(
    make_api: MakeApi, clock: ManualClock, sandbox: RunningSandbox
) -> None:
    api = make_api(clock)
    account = api.connect()
    api.post(action="mileage", account=account)
    clock.advance(250)
    held = api.post(action="mileage", account=account)
    assert (held.meta["cached"], held.meta["age_s"]) == (True, 250)
    assert held.headers["Age"] == "250"
    clock.advance(100)
    assert api.post(action="mileage", account=account).meta["cached"] is False
    assert sandbox.stats()["requests"]["GET /eadrax-vcs/v4/vehicles/state"] == 2


def test_max_age_s_is_the_oldest_acceptable_data(make_api: MakeApi, clock: ManualClock) -> None:
    api = make_api(clock)
    account = api.connect()
    api.post(action="mileage", account=account)
    clock.advance(60)
    assert api.post(action="mileage", account=account, max_age_s=61).meta["cached"] is True
    assert api.post(action="mileage", account=account, max_age_s=30).meta["cached"] is False


def test_cache_only_never_asks_the_maker(api: Api, sandbox: RunningSandbox) -> None:
    account = api.connect()
    api.post(action="vehicles", account=account)
    before = sandbox.stats()["requests_total"]
    missed = api.post(action="fuel", account=account, cache_only=True)
    assert (missed.status, missed.error["code"]) == (404, "NOT_CACHED")
    assert sandbox.stats()["requests_total"] == before
    api.post(action="fuel", account=account)
    assert api.post(action="fuel", account=account, cache_only=True).meta["cached"] is True


def test_imperial_units_are_converted(api: Api) -> None:
    account = api.connect()
    assert api.post(action="mileage", account=account).result["value"] == 1121
    imperial = api.post(action="mileage", account=account, units="imperial").result
    assert (imperial["value"], imperial["unit"]) == (697, "mi")


def test_a_petrol_car_has_fuel_and_no_battery(api: Api) -> None:
    fuel = api.post(action="fuel", account=api.connect("demo@example.com"), vin=M340I).result
    assert fuel["remaining_fuel"]["unit"] == "L"
    assert fuel["battery_level"] is None
    assert fuel["fuel_type"] == "fuel"


def test_a_car_that_sends_no_state_is_unknown_and_never_closed(api: Api) -> None:
    status = api.post(action="status", account=api.connect("demo@example.com"), vin="WBA00000000000F31").result
    assert status["doors_and_windows"]["lock_state"] is None
    assert status["doors_and_windows"]["all_doors_closed"] is None
    assert status["doors_and_windows"]["all_windows_closed"] is None
    assert status["mileage"]["value"] is None
    assert status["location"]["latitude"] is None


def test_the_vin_may_be_left_out_only_where_there_is_one_car(api: Api) -> None:
    assert api.post(action="mileage", account=api.connect("one@example.com")).json["vin"] == IX
    several = api.post(action="mileage", account=api.connect("demo@example.com"))
    assert (several.status, several.error["code"]) == (400, "VALIDATION_ERROR")
    assert several.error["details"]["fields"][0]["path"] == "vin"
    assert "DEMO0" not in several.body.decode()
    none = api.post(action="mileage", account=api.connect("empty@example.com"))
    assert none.error["code"] == "VEHICLE_NOT_FOUND"


def test_another_vin_is_not_found_and_no_vin_is_told(api: Api) -> None:
    account = api.connect()
    foreign = api.post(action="status", account=account, vin=M340I)
    absent = api.post(action="status", account=account, vin="WBA99999999999999")
    assert (foreign.status, foreign.error["code"]) == (404, "VEHICLE_NOT_FOUND")
    for body in (foreign.error, absent.error):
        body["request_id"] = body["timestamp"] = ""
    assert foreign.error["details"] == {}
    assert absent.error["message"] == foreign.error["message"]


def test_wkn_is_another_name_for_vin(api: Api) -> None:
    account = api.connect("demo@example.com")
    assert api.post(action="mileage", account=account, wkn=M340I.lower()).json["vin"] == M340I


def test_the_picture_is_a_png(api: Api, sandbox: RunningSandbox) -> None:
    account = api.connect()
    picture = api.post(action="image", account=account, params={"view": "side"})
    assert picture.status == 200
    assert picture.body.startswith(b"\x89PNG")
    before = sandbox.stats()["requests_total"]
    api.post(action="image", account=account, params={"view": "side"})
    assert sandbox.stats()["requests_total"] == before


@pytest.mark.parametrize(
    "view", ["front_side", "front", "side", "dashboard", "driver_door", "front_left", "front_right", "rear_left",
             "rear_right", "rear", "angle_40", "angle_60"],
)  # fmt: skip
def test_every_view_of_the_contract_is_a_picture(api: Api, view: str) -> None:
    assert api.post(action="image", account=api.connect(), params={"view": view}).body.startswith(b"\x89PNG")


def test_a_warm_read_asks_both_questions_at_once(api: Api, sandbox: RunningSandbox) -> None:
    account = api.connect()
    api.post(action="status", account=account)
    sandbox.settings(latency_ms=1000)  # the second may come that much later
    sandbox.zero_stats()
    answered = api.post(action="status", account=account, fresh=True)
    stats = sandbox.stats()
    assert (stats["requests_total"], stats["in_flight_max"]) == (2, 2)
    assert answered.result["charging"]["ac_limit"] == {"value": 16, "unit": "A"}


def test_an_outage_is_answered_with_what_is_held_and_says_so(
    make_api: MakeApi, clock: ManualClock, sandbox: RunningSandbox
) -> None:
    api = make_api(clock, read_attempts=1)
    account = api.connect()
    api.post(action="mileage", account=account)
    clock.advance(400)
    sandbox.fault(match={"path": "vehicles/state"}, fault="status", status=503)
    stale = api.post(action="mileage", account=account)
    assert stale.status == 200
    assert (stale.meta["cached"], stale.meta["stale"], stale.meta["age_s"]) == (True, True, 400)
    demanding = api.post(action="mileage", account=account, fresh=True)
    assert (demanding.status, demanding.error["code"]) == (502, "UPSTREAM_ERROR")


def test_the_credential_form_reads_without_an_account_id(api: Api, sandbox: RunningSandbox) -> None:
    form = {"email": "one@example.com", "password": PASSWORD, "hcaptcha": captcha()}
    assert api.post(action="mileage", **form).result["value"] == 1121
    before = sandbox.stats()
    again = api.post(action="mileage", email="One@Example.com ", password=PASSWORD)
    assert again.meta["cached"] is True
    assert sandbox.stats()["requests_total"] == before["requests_total"]


def test_another_instance_reads_without_logging_in(make_api: MakeApi, sandbox: RunningSandbox) -> None:
    account = make_api().connect()
    first = make_api()
    first.post(action="status", account=account)
    before = sandbox.stats()
    second = make_api()
    assert second.post(action="status", account=account).status == 200
    after = sandbox.stats()
    assert after["logins"] == before["logins"] == 1
    assert after["requests_total"] - before["requests_total"] == 2
