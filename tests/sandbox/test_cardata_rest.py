"""The REST API: what it asks of a request, what it costs, and the shapes of its answers."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from sandbox.cardata_catalogue import DESCRIPTORS, DISPLAYED_SOC, HEADER, MILEAGE
from tests.support.cardata import I4, X1, X3, Client, error_of, simulated

REST_ONLY = ("vehicle.cabin.door.lock.status", "vehicle.body.chargingPort.combinedStatus")


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with simulated() as client:
        await client.log_in()
        yield client


async def test_mappings_are_an_array(client: Client) -> None:
    mappings = await client.read("vehicles/mappings")

    assert [(mapping["vin"], mapping["mappingType"]) for mapping in mappings] == [
        (X1, "PRIMARY"),
        (I4, "PRIMARY"),
        (X3, "PRIMARY"),
    ]
    assert mappings[0]["mappedSince"] == "2025-10-07T12:00:00.000Z"


async def test_basic_data_lacks_fields_and_has_unknown_ones(client: Client) -> None:
    x1, i4, x3 = [await client.read(f"vehicles/{vin}/basicData") for vin in (X1, I4, X3)]

    assert (i4["brand"], i4["modelName"], i4["driveTrain"], i4["countryCode"]) == ("BMWi", "i4 eDrive40", "BEV", "DE")
    assert "propulsionType" not in x1
    assert "colourCodeRaw" in x1
    assert x3["headUnit"] is None
    assert all(isinstance(data["numberOfDoors"], int) for data in (x1, i4, x3))


async def test_telematic_values_are_strings_or_null_with_unit_and_timestamp(client: Client) -> None:
    said = await client.telematic(I4, *DESCRIPTORS)

    assert all(set(entry) == {"timestamp", "unit", "value"} for entry in said.values())
    assert all(isinstance(entry["value"], str | None) for entry in said.values())
    assert said[MILEAGE] == {"timestamp": "2026-01-05T08:00:00Z", "unit": "km", "value": "45660.0"}
    assert said["vehicle.body.trunk.isLocked"]["value"] == "true"
    assert said["vehicle.vehicle.deepSleepModeActive"]["value"] == "true"


async def test_a_value_null_a_sentinel_and_an_absent_key_are_four_things(client: Client) -> None:
    x1, i4 = await client.telematic(X1, *DESCRIPTORS), await client.telematic(I4, *DESCRIPTORS)

    fuel = "vehicle.drivetrain.fuelSystem.level"
    assert x1[fuel]["value"].isdecimal()
    assert i4[fuel] == {"timestamp": None, "unit": None, "value": None}
    assert x1["vehicle.chassis.axle.row2.wheel.right.tire.pressure"]["value"] == "-NA-"
    assert x1["vehicle.body.chargingPort.status"]["value"] == "INVALID"
    assert HEADER not in x1
    assert HEADER in i4


async def test_cars_differ_in_how_they_say_that_a_door_is_shut(client: Client) -> None:
    door = "vehicle.cabin.door.row2.passenger.isOpen"

    said = [(await client.telematic(vin, door))[door]["value"] for vin in (X1, I4, X3)]

    assert said == ["CLOSED", "false", "INVALID"]


async def test_some_values_are_json_in_a_string_or_a_sentinel_of_it(client: Client) -> None:
    cbs, check_control = "vehicle.status.conditionBasedServices", "vehicle.status.checkControlMessages"

    x1, x3 = await client.telematic(X1, cbs, check_control), await client.telematic(X3, cbs, check_control)

    assert (x1[cbs]["value"], x1[check_control]["value"]) == ("-", "null")
    assert json.loads(x3[cbs]["value"])[0]["status"] == "OK"
    assert json.loads(x3[check_control]["value"])[0]["id"] == 955


async def test_a_legal_inspection_is_worded_as_no_other_time(client: Client) -> None:
    key = "vehicle.status.serviceTime.inspectionDateLegal"

    assert (await client.telematic(X1, key))[key]["value"] == "17.01.2027 00:00:00 UTC"


async def test_a_timestamp_may_lie_in_the_future(client: Client) -> None:
    await client.at("2026-01-06T07:10:00Z")
    key = "vehicle.status.serviceDistance.next"

    said = (await client.telematic(X1, key))[key]

    assert said["timestamp"] == "2026-01-06T08:00:00Z"


async def test_a_sleeping_car_says_what_it_said_before_it_slept(client: Client) -> None:
    door = "vehicle.cabin.door.row1.driver.isOpen"
    before = await client.telematic(I4, MILEAGE, door)

    await client.at("2026-01-05T16:59:59Z")

    assert await client.telematic(I4, MILEAGE, door) == before


async def test_a_charging_car_reports_a_rising_state_of_charge(client: Client) -> None:
    await client.at("2026-01-05T22:01:00Z")
    first = await client.telematic(I4, DISPLAYED_SOC, "vehicle.drivetrain.electricEngine.charging.status")
    await client.at("2026-01-05T22:31:00Z")
    second = await client.telematic(I4, DISPLAYED_SOC, "vehicle.drivetrain.electricEngine.charging.status")

    assert first["vehicle.drivetrain.electricEngine.charging.status"]["value"] == "CHARGINGACTIVE"
    assert int(second[DISPLAYED_SOC]["value"]) > int(first[DISPLAYED_SOC]["value"])
    assert second[DISPLAYED_SOC]["timestamp"] == "2026-01-05T22:30:00Z"


async def test_telematic_data_needs_a_container(client: Client) -> None:
    path = f"vehicles/{I4}/telematicData"

    assert error_of(await client.call(path)) == (400, "CU-401")
    assert error_of(await client.call(path, {"containerId": "nonsense"})) == (400, "CU-121")
    assert error_of(await client.call(path, {"containerId": f"S{'0' * 31}"})) == (403, "CU-105")


async def test_containers_are_made_listed_shown_and_deleted(client: Client) -> None:
    container_id = await client.container(MILEAGE, HEADER, MILEAGE)

    details = await client.read(f"containers/{container_id}")
    assert details == {
        "containerId": container_id,
        "name": "lean",
        "purpose": "tests v1",
        "state": "ACTIVE",
        "created": "2026-01-05T12:00:00.000Z",
        "technicalDescriptors": [MILEAGE, HEADER],
    }
    listed = await client.read("containers")
    assert [entry["containerId"] for entry in listed["containers"]] == [container_id]
    assert "technicalDescriptors" not in listed["containers"][0]

    gone = await client.call(f"containers/{container_id}", method="DELETE")
    assert (gone.status_code, gone.content) == (204, b"")
    assert (await client.read(f"containers/{container_id}"))["state"] == "DELETED"
    again = await client.call(f"containers/{container_id}", method="DELETE")
    assert error_of(again) == (400, "CU-122")
    data = await client.call(f"vehicles/{I4}/telematicData", {"containerId": container_id})
    assert error_of(data) == (403, "CU-105")


async def test_a_deleted_container_is_purged_after_29_days(client: Client) -> None:
    container_id = await client.container(MILEAGE)
    await client.call(f"containers/{container_id}", method="DELETE")

    client.clock.advance(29 * 86_400 - 1)
    await client.log_in()
    assert len((await client.read("containers"))["containers"]) == 1
    client.clock.advance(1)

    assert (await client.read("containers"))["containers"] == []
    assert error_of(await client.call(f"containers/{container_id}")) == (403, "CU-105")


async def test_the_eleventh_container_is_refused_as_forbidden_until_one_is_deleted(client: Client) -> None:
    made = [await client.container(MILEAGE) for _ in range(10)]
    body = {"name": "one more", "purpose": "tests", "technicalDescriptors": [MILEAGE]}

    assert error_of(await client.call("containers", method="POST", json=body)) == (403, "CU-124")
    await client.call(f"containers/{made[0]}", method="DELETE")

    assert (await client.call("containers", method="POST", json=body)).status_code == 201


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"purpose": "p", "technicalDescriptors": [MILEAGE]}, (400, "CU-400")),
        ({"name": "n", "purpose": "", "technicalDescriptors": [MILEAGE]}, (400, "CU-400")),
        ({"name": "n", "purpose": "p", "technicalDescriptors": []}, (400, "CU-400")),
        ({"name": "n", "purpose": "p", "technicalDescriptors": [MILEAGE, "vehicle.flux"]}, (400, "CU-402")),
        ([], (400, "CU-400")),
    ],
)
async def test_a_container_that_is_wrong_is_refused(client: Client, body: Any, expected: tuple[int, str]) -> None:
    assert error_of(await client.call("containers", method="POST", json=body)) == expected


async def test_charging_history_comes_ten_a_page_newest_first_each_page_a_request(client: Client) -> None:
    span = {"from": "2025-11-25T00:00:00.000Z", "to": "2026-01-05T00:00:00.000Z"}
    path = f"vehicles/{I4}/chargingHistory"
    pages = [await client.read(path, span)]
    while "next_token" in pages[-1]:
        pages.append(await client.read(path, {**span, "nextToken": pages[-1]["next_token"]}))

    sessions = [session for page in pages for session in page["data"]]
    assert [len(page["data"]) for page in pages[:-1]] == [10] * (len(pages) - 1)
    assert len(pages) > 3
    starts = [session["startTime"] for session in sessions]
    assert starts == sorted(set(starts), reverse=True)
    assert all(isinstance(start, int) for start in starts)
    assert sessions[0]["displayedStartSoc"] < sessions[0]["displayedSoc"] == 80
    assert (await client.control("GET", "stats"))["quota_used"][client.gcid] == len(pages)


async def test_a_charging_session_agrees_with_what_was_true(client: Client) -> None:
    span = {"from": "2025-12-28T00:00:00Z", "to": "2026-01-05T12:00:00Z"}

    session = (await client.read(f"vehicles/{I4}/chargingHistory", span))["data"][-1]

    at = f"{session['startTime']}"
    moment = client.sandbox.world.customers.cars[I4].timeline.at(float(at))
    assert session["displayedStartSoc"] == round(moment.soc_percent)
    assert session["mileage"] == int(moment.travelled_km)
    spent = session["energyConsumedFromPowerGridKwh"] * 0.92
    assert spent == pytest.approx(81.0 * (80 - moment.soc_percent) / 100, abs=0.02)


async def test_a_page_token_expires_and_belongs_to_its_query(client: Client) -> None:
    span = {"from": "2025-11-25T00:00:00Z", "to": "2026-01-05T00:00:00Z"}
    path = f"vehicles/{I4}/chargingHistory"
    token = (await client.read(path, span))["next_token"]

    moved = {**span, "to": "2026-01-04T00:00:00Z", "nextToken": token}
    assert error_of(await client.call(path, moved)) == (400, "CU-401")
    client.clock.advance(300)

    assert error_of(await client.call(path, {**span, "nextToken": token})) == (400, "CU-125")


@pytest.mark.parametrize(
    "span",
    [
        {},
        {"from": "2026-01-01T00:00:00Z"},
        {"from": "yesterday", "to": "2026-01-01T00:00:00Z"},
        {"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"},
        {"from": "2025-11-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"},
    ],
)
async def test_a_span_that_is_missing_wrong_or_longer_than_45_days_is_a_bad_parameter(
    client: Client, span: dict[str, str]
) -> None:
    assert error_of(await client.call(f"vehicles/{I4}/chargingHistory", span)) == (400, "CU-401")


async def test_45_days_are_accepted(client: Client) -> None:
    span = {"from": "2025-11-17T00:00:00Z", "to": "2026-01-01T00:00:00Z"}

    assert (await client.call(f"vehicles/{I4}/chargingHistory", span)).status_code == 200


async def test_a_petrol_car_has_no_charging_data(client: Client) -> None:
    span = {"from": "2025-12-17T00:00:00Z", "to": "2026-01-01T00:00:00Z"}

    assert error_of(await client.call(f"vehicles/{X1}/chargingHistory", span)) == (404, "CU-127")
    assert error_of(await client.call(f"vehicles/{X1}/locationBasedChargingSettings")) == (404, "CU-127")


async def test_tyres_and_charging_settings_have_their_shapes(client: Client) -> None:
    tyres = await client.read(f"vehicles/{I4}/smartMaintenanceTyreDiagnosis")
    undiagnosed = await client.read(f"vehicles/{X1}/smartMaintenanceTyreDiagnosis")
    settings = await client.read(f"vehicles/{I4}/locationBasedChargingSettings")

    wear = tyres["passengerCar"]["mountedTyres"]["frontLeft"]["tyreWear"]
    assert set(wear) == {"label", "dueMileage", "unit", "statusColor"}
    assert "frontLeft" not in undiagnosed["passengerCar"]["mountedTyres"]
    assert settings["data"][0]["acCurrentLimit"] == 16.0


async def test_an_image_is_a_png_and_may_be_missing(client: Client) -> None:
    answer = await client.http.get(f"/customers/vehicles/{I4}/image", headers=client.headers(accept="*/*"))

    assert answer.headers["content-type"] == "image/png"
    assert answer.content.startswith(b"\x89PNG")
    assert error_of(await client.call(f"vehicles/{X3}/image")) == (404, "CU-126")


@pytest.mark.parametrize("vin", ["short", "WBA00000000DEMO1!", "wba00000000demo11"])
async def test_a_vin_that_is_none_is_refused(client: Client, vin: str) -> None:
    assert error_of(await client.call(f"vehicles/{vin}/basicData")) == (400, "CU-120")


async def test_only_the_primary_user_may_read_a_car(client: Client) -> None:
    other = await client.control("POST", "customers", {"cars": [{"vin": X1, "mapping": "SECONDARY"}]})
    await client.log_in(other["gcid"])

    assert [mapping["mappingType"] for mapping in await client.read("vehicles/mappings")] == ["SECONDARY"]
    assert error_of(await client.call(f"vehicles/{X1}/basicData")) == (403, "CU-104")
    assert error_of(await client.call(f"vehicles/{I4}/basicData")) == (403, "CU-104")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"authorization": None}, (401, "CU-100")),
        ({"authorization": "Basic abc"}, (401, "CU-100")),
        ({"authorization": "Bearer abc"}, (401, "CU-101")),
        ({"x_version": None}, (400, "CU-400")),
        ({"x_version": "v2"}, (400, "CU-400")),
        ({"accept": "text/html"}, (400, "CU-400")),
    ],
)
async def test_a_request_without_what_it_must_carry_is_refused(
    client: Client, changes: dict[str, str | None], expected: tuple[int, str]
) -> None:
    answer = await client.http.get("/customers/vehicles/mappings", headers=client.headers(**changes))

    assert error_of(answer) == expected
    assert set(answer.json()) == {"exveErrorId", "exveErrorMsg", "exveErrorRef", "exveNote"}


async def test_an_access_token_ends_after_an_hour(client: Client) -> None:
    client.clock.advance(3599)
    assert (await client.call("vehicles/mappings")).status_code == 200
    client.clock.advance(1)

    assert error_of(await client.call("vehicles/mappings")) == (401, "CU-102")


async def test_a_token_without_the_api_scope_is_refused_as_forbidden(client: Client) -> None:
    await client.control("POST", f"customers/{client.gcid}", {"api_subscribed": False})
    await client.log_in()
    await client.control("POST", f"customers/{client.gcid}", {"api_subscribed": True})

    assert error_of(await client.call("vehicles/mappings")) == (403, "CU-103")


async def test_fifty_requests_a_day_for_all_cars_and_failures_count(client: Client) -> None:
    for n in range(50):
        await client.call(f"vehicles/{'nonsense' if n % 2 else I4}/basicData")

    assert error_of(await client.call(f"vehicles/{X1}/basicData")) == (403, "CU-429")
    assert (await client.control("GET", "stats"))["quota_used"] == {client.gcid: 51}


async def test_a_request_that_goes_wrong_by_a_fault_counts_too(client: Client) -> None:
    await client.control("POST", "faults", {"fault": "cu", "code": "CU-500"})

    await client.call("vehicles/mappings")

    assert (await client.control("GET", "stats"))["quota_used"] == {client.gcid: 1}


async def test_the_quota_resets_at_midnight_utc(client: Client) -> None:
    await client.control("POST", f"customers/{client.gcid}", {"quota_used": 50})
    await client.control("POST", "clock", {"to": "2026-01-05T23:59:59Z"})
    await client.log_in()
    assert error_of(await client.call("vehicles/mappings")) == (403, "CU-429")

    await client.control("POST", "clock", {"advance_s": 1})

    assert (await client.call("vehicles/mappings")).status_code == 200


async def test_each_customer_has_a_quota_of_their_own(client: Client) -> None:
    await client.control("POST", f"customers/{client.gcid}", {"quota_used": 50})
    other = await client.control("POST", "customers", {})
    await client.log_in(other["gcid"])

    assert (await client.call("vehicles/mappings")).status_code == 200


async def test_an_unknown_path_is_404(client: Client) -> None:
    assert error_of(await client.call("vehicles")) == (404, "CU-400")


async def test_keys_that_only_the_rest_api_has_are_answered(client: Client) -> None:
    said = await client.telematic(I4, *REST_ONLY)

    assert {key: entry["value"] for key, entry in said.items()} == dict(
        zip(REST_ONLY, ("SECURED", "DISCONNECTED"), strict=True)
    )
