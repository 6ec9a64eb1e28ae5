"""Reading vehicles, and who owns which."""

import io
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from bimmer_connected.account import MyBMWAccount
from bimmer_connected.tests import ALL_CHARGING_SETTINGS, ALL_PROFILES, ALL_STATES
from bimmer_connected.vehicle.vehicle import VehicleViewDirection
from PIL import Image

from common.clock import ManualClock

VEHICLES = "/eadrax-vcs/v5/vehicle-list"
PROFILE = "/eadrax-vcs/v5/vehicle-data/profile"
STATE = "/eadrax-vcs/v4/vehicles/state"
CHARGING = "/eadrax-crccs/v2/vehicles"
IMAGES = "/eadrax-ics/v5/presentation/vehicles/images"
CHARGING_QUERY = {"fields": "charging-profile", "has_charging_settings_capabilities": "True"}
VIN = "WBA00000000DEMO01"

Library = Callable[..., MyBMWAccount]


@pytest.mark.parametrize("vin", sorted(ALL_STATES))
async def test_every_car_is_served_as_it_was_recorded(app: Any, vin: str) -> None:
    await app.control("POST", "settings", {"times": "recorded"})
    session = await app.signed_in()

    assert (await session.get(STATE, vin)).json() == ALL_STATES[vin]
    assert (await session.get(PROFILE, vin)).json() == ALL_PROFILES[vin]
    charging = await session.get(CHARGING, vin, CHARGING_QUERY)
    assert charging.status_code == (200 if vin in ALL_CHARGING_SETTINGS else 404)
    assert vin not in ALL_CHARGING_SETTINGS or charging.json() == ALL_CHARGING_SETTINGS[vin]


async def test_cars_have_reported_just_now(app: Any, clock: ManualClock) -> None:
    session = await app.signed_in()

    clock.advance(1.5)
    state = await session.state(VIN)

    assert state["lastFetched"] == state["lastUpdatedAt"] == "2026-01-01T12:00:01.500Z"
    assert {k: v for k, v in state.items() if not k.startswith("last")} == {
        k: v for k, v in ALL_STATES[VIN]["state"].items() if not k.startswith("last")
    }


async def test_a_car_that_has_never_reported_still_has_not(app: Any) -> None:
    state = await (await app.signed_in()).state("WBA00000000000F31")

    assert state["lastUpdatedAt"] == "0001-01-01T00:00:00Z"
    assert state["lastFetched"] == "2026-01-01T12:00:00.000Z"


async def test_the_real_library_sees_fresh_times(library: Library, clock: ManualClock) -> None:
    account = library("one@example.com")
    await account.get_vehicles()

    assert account.vehicles[0].timestamp == clock.utc()


async def test_the_real_library_gets_a_png(library: Library) -> None:
    account = library("one@example.com")
    await account.get_vehicles()

    picture = await account.vehicles[0].get_vehicle_image(VehicleViewDirection.FRONTSIDE)

    with Image.open(io.BytesIO(picture)) as image:
        assert (image.format, image.size) == ("PNG", (160, 90))


@pytest.mark.parametrize(
    ("headers", "params", "status", "named"),
    [
        ({"accept": "application/json"}, {}, 406, "accept"),
        ({"bmw-app-vehicle-type": ""}, {}, 400, "bmw-app-vehicle-type"),
        ({"bmw-vin": ""}, {}, 400, "bmw-vin"),
        ({}, {"carView": "FromBelow"}, 400, "carView"),
        ({}, {"carView": ""}, 400, "carView"),
        ({}, {"toCrop": ""}, 400, "toCrop"),
    ],
)
async def test_a_picture_must_be_asked_for_properly(
    app: Any, headers: dict[str, str], params: dict[str, str], status: int, named: str
) -> None:
    session = await app.signed_in()
    proper = session.headers(VIN) | {"accept": "image/png", "bmw-app-vehicle-type": "connected"}

    answer = await app.http.get(
        IMAGES, params={"carView": "FrontView", "toCrop": "true"} | params, headers=proper | headers
    )

    assert answer.status_code == status
    assert named in answer.json().values()


@pytest.mark.parametrize(
    "header",
    ["authorization", "bmw-session-id", "bmw-units-preferences", "bmw-vin", "user-agent", "x-user-agent"],
)
@pytest.mark.parametrize("path", [STATE, PROFILE, CHARGING])
async def test_a_read_names_a_missing_header(app: Any, path: str, header: str) -> None:
    session = await app.signed_in()

    answer = await app.http.get(path, params=CHARGING_QUERY, headers=session.headers(VIN) | {header: ""})

    assert (answer.status_code, answer.json()["header"]) == (400, header)


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("user-agent", "curl/8.0"),
        ("x-user-agent", "android(AP2A.1.1);bmw;4.9.2(36892)"),
        ("x-user-agent", "android(AP2A.1.1);audi;4.9.2(36892);row"),
        ("x-user-agent", "android(AP2A.1.1);bmw;4.9.2(36892);mars"),
        ("x-user-agent", "android(AP2A.1.1);bmw;;row"),
        ("x-user-agent", "ios(AP2A.1.1);bmw;4.9.2(36892);row"),
    ],
)
async def test_whoever_does_not_look_like_the_app_is_refused(app: Any, header: str, value: str) -> None:
    session = await app.signed_in()

    answer = await app.http.get(STATE, headers=session.headers(VIN) | {header: value})

    assert (answer.status_code, answer.json()["header"]) == (400, header)


@pytest.mark.parametrize("parameter", sorted(CHARGING_QUERY))
async def test_charging_settings_name_a_missing_parameter(app: Any, parameter: str) -> None:
    session = await app.signed_in()
    query = {name: value for name, value in CHARGING_QUERY.items() if name != parameter}

    answer = await session.get(CHARGING, VIN, query)

    assert (answer.status_code, answer.json()["parameter"]) == (400, parameter)


@pytest.mark.parametrize("path", [STATE, PROFILE, CHARGING])
async def test_a_car_of_somebody_else_is_not_found(app: Any, path: str) -> None:
    session = await app.signed_in("one@example.com")

    foreign = await session.get(path, "WBA00000000DEMO02", CHARGING_QUERY)
    fictional = await session.get(path, "WBA00000000NOBODY", CHARGING_QUERY)

    assert (foreign.status_code, fictional.status_code) == (404, 404)
    assert foreign.content == fictional.content


async def test_vehicle_lists_are_split_by_brand(app: Any) -> None:
    session = await app.signed_in()

    assert len(await session.vehicles("bmw")) == 8
    assert await session.vehicles("mini") == []
    assert await session.vehicles("toyota") == ["WZ100000000000J29"]


async def test_a_vehicle_list_tells_the_accounts_gcid(app: Any) -> None:
    session = await app.signed_in()

    answer = await app.http.post(VEHICLES, headers=session.headers())

    assert answer.json()["gcid"] == session.tokens["gcid"]


@pytest.mark.parametrize(
    ("username", "brand", "vins"),
    [
        ("one@example.com", "bmw", [VIN]),
        ("empty@example.com", "bmw", []),
        ("mini@example.com", "mini", ["WMW00000000DEMO01"]),
        ("quota@example.com", "bmw", None),
        ("user-7@example.com", "toyota", ["WZ100000000000J29"]),
        ("fleet-0@example.com", "bmw", []),
        ("fleet-2@example.com", "bmw", ["WBA00000000D00001", "WBA00000000D00002"]),
    ],
)
async def test_each_magic_account_owns_what_the_table_says(
    app: Any, username: str, brand: str, vins: list[str] | None
) -> None:
    session = await app.signed_in(username)

    answer = await app.http.post(VEHICLES, headers=session.headers(brand=brand))

    assert [entry["vin"] for entry in answer.json().get("mappingInfos", ())] == (vins or [])
    assert answer.status_code == (403 if vins is None else 200)


async def test_a_fleet_is_made_of_all_recordings_under_vins_of_its_own(app: Any, library: Library) -> None:
    account = library("fleet-12@example.com")
    await account.get_vehicles()

    vins = sorted(vehicle.vin for vehicle in account.vehicles)
    assert vins == [f"WBA00000000D{n:05d}" for n in range(1, 13)]
    assert all(len(vin) == 17 for vin in vins)
    assert {vehicle.name for vehicle in account.vehicles} == {profile["model"] for profile in ALL_PROFILES.values()}


async def test_the_real_library_reads_a_mini(library: Library) -> None:
    account = library("mini@example.com")
    await account.get_vehicles()

    assert [(vehicle.brand.value, vehicle.name) for vehicle in account.vehicles] == [("mini", "Cooper SE")]


async def test_accounts_do_not_share_their_cars(app: Any) -> None:
    first, second = await app.signed_in("user-1@example.com"), await app.signed_in("user-2@example.com")

    await app.control("POST", f"cars/user-1@example.com/{VIN}", {"state": {"currentMileage": 7}})

    assert (await first.state(VIN))["currentMileage"] == 7
    assert (await second.state(VIN))["currentMileage"] == ALL_STATES[VIN]["state"]["currentMileage"]


async def test_two_cars_of_a_fleet_do_not_share_their_recording(app: Any) -> None:
    session = await app.signed_in("fleet-10@example.com")

    await app.control("POST", "cars/fleet-10@example.com/WBA00000000D00001", {"state": {"currentMileage": 7}})

    assert (await session.state("WBA00000000D00010"))["currentMileage"] == ALL_STATES[VIN]["state"]["currentMileage"]


@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("DELETE", STATE), ("GET", "/eadrax-vcs/v9/vehicles")])
async def test_anything_else_is_not_found(app: Any, method: str, path: str) -> None:
    answer: httpx.Response = await app.http.request(method, path)

    assert answer.status_code == 404
    assert (await app.control("GET", "stats"))["requests"] == {"unmatched": 1}


async def test_replies_are_json_in_utf_8(app: Any) -> None:
    session = await app.signed_in()

    answer = await session.get(STATE, VIN)

    assert answer.headers["content-type"] == "application/json"
    assert "München" in json.loads(answer.content)["state"]["location"]["address"]["formatted"]
