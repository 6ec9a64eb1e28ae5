"""Reading vehicles from the sandbox."""

import asyncio
import copy
from dataclasses import replace
from typing import Any

import pytest
from bimmer_connected.tests import ALL_PROFILES, ALL_STATES

from common.errors import (
    ApiError,
    AuthenticationFailed,
    ProviderBlocked,
    QuotaLimitExceeded,
    RelinkRequired,
    UpstreamError,
    UpstreamInvalid,
    UpstreamTimeout,
    ValidationFailed,
    VehicleNotFound,
)
from functions.providers.mybmw.failures import BMWAPIError
from tests.providers.mybmw.harness import IMPATIENT, IX, USER, Bmw, vehicle

M340I = "WBA00000000DEMO03"
SUPRA = "WZ100000000000J29"
PNG = b"\x89PNG\r\n\x1a\n"


async def test_the_list_tells_each_car_once_with_its_brand_and_asks_for_no_states(bmw: Bmw) -> None:
    await bmw.link()

    vehicles = await bmw.provider.reads.list_vehicles(bmw.account)

    assert {vehicle.vin for vehicle in vehicles} == set(ALL_PROFILES)
    assert {vehicle.brand for vehicle in vehicles} == {"BMW", "TOYOTA"}
    assert {(found.name, found.drivetrain) for found in vehicles if found.vin == IX} == {("iX xDrive50", "ELECTRIC")}
    assert bmw.sandbox.stats()["requests"] == {
        "GET /eadrax-vcs/v5/vehicle-data/profile": 9,
        "POST /eadrax-vcs/v5/vehicle-list": 3,
    }


async def test_an_account_without_cars_has_an_empty_list(bmw: Bmw) -> None:
    await bmw.link("empty@example.com")

    assert await bmw.provider.reads.list_vehicles(bmw.account) == ()


async def test_a_mini_is_a_mini(bmw: Bmw) -> None:
    await bmw.link("mini@example.com")

    [mini] = await bmw.provider.reads.list_vehicles(bmw.account)
    snapshot = await bmw.provider.reads.read_vehicle(bmw.account, mini)

    assert (mini.brand, mini.name, snapshot.info.brand) == ("MINI", "Cooper SE", "MINI")


async def test_a_car_that_is_listed_under_two_brands_counts_once_and_is_not_read(bmw: Bmw) -> None:
    await bmw.link("one@example.com")
    bmw.sandbox.fault(match={"path": "vehicle-list"}, fault="wrong_type", body={"mappingInfos": [{"vin": IX}]})

    [found] = await bmw.provider.reads.list_vehicles(bmw.account)

    assert found.vin == IX
    assert bmw.asked("state") == 0


@pytest.mark.parametrize("body", [[], {}, {"mappingInfos": None}, {"mappingInfos": [{}]}, {"mappingInfos": "x"}, "x"])
async def test_a_list_that_is_none_is_an_invalid_reply(bmw: Bmw, body: object) -> None:
    await bmw.link()
    bmw.sandbox.fault(match={"path": "vehicle-list"}, fault="wrong_type", body=body)

    with pytest.raises(UpstreamInvalid):
        await bmw.provider.reads.list_vehicles(bmw.account)


@pytest.mark.parametrize("vin", ALL_STATES)
async def test_each_recorded_car_is_read_with_one_request_or_two(bmw: Bmw, vin: str) -> None:
    await bmw.link()

    snapshot = await bmw.provider.reads.read_vehicle(bmw.account, vehicle(vin))

    assert snapshot.info.vin == vin
    assert snapshot.mileage_km == ALL_STATES[vin]["state"].get("currentMileage")
    assert snapshot.fetched_at == bmw.clock.utc()
    has_plan = ALL_STATES[vin]["capabilities"]["isChargingPlanSupported"]
    assert bmw.sandbox.stats()["requests_total"] == (2 if has_plan else 1)


async def test_the_vehicle_handed_in_stays_as_it_was(bmw: Bmw) -> None:
    await bmw.link()
    given = vehicle()
    profile = copy.deepcopy(dict(given.profile))

    await bmw.provider.reads.read_vehicle(bmw.account, given)

    assert given.profile == profile


@pytest.mark.parametrize("brand", ["DRITTKUNDE", "ALPINA", None])
async def test_a_brand_that_the_library_does_not_know_is_read_all_the_same(bmw: Bmw, brand: str | None) -> None:
    await bmw.link()
    given = vehicle(SUPRA)
    strange = replace(given, brand=brand or "UNKNOWN", profile={**given.profile, "brand": brand})

    assert (await bmw.provider.reads.read_vehicle(bmw.account, strange)).info.vin == SUPRA


async def test_another_accounts_car_is_not_found(bmw: Bmw) -> None:
    await bmw.link("one@example.com")

    with pytest.raises(VehicleNotFound):
        await bmw.provider.reads.read_vehicle(bmw.account, vehicle(M340I))


async def test_an_account_that_was_never_linked_has_to_be(bmw: Bmw) -> None:
    with pytest.raises(RelinkRequired):
        await bmw.provider.reads.read_vehicle(bmw.account, vehicle())

    assert bmw.sandbox.stats()["requests_total"] == 0


@pytest.mark.parametrize(
    ("fault", "failure"),
    [
        ({"fault": "status", "status": 400}, UpstreamError),
        ({"fault": "status", "status": 403, "body": "Forbidden"}, AuthenticationFailed),
        ({"fault": "status", "status": 403}, QuotaLimitExceeded),
        ({"fault": "status", "status": 429}, QuotaLimitExceeded),
        ({"fault": "status", "status": 489}, ProviderBlocked),
        ({"fault": "status", "status": 500}, UpstreamError),
        ({"fault": "status", "status": 503, "retry_after_s": 7}, UpstreamError),
        ({"fault": "status", "status": 204}, UpstreamInvalid),
        ({"fault": "reset"}, UpstreamError),
        ({"fault": "truncated"}, UpstreamError),
        ({"fault": "malformed"}, UpstreamInvalid),
        ({"fault": "empty"}, UpstreamInvalid),
        ({"fault": "wrong_type", "body": []}, UpstreamInvalid),
        ({"fault": "wrong_type", "body": "x"}, UpstreamInvalid),
        ({"fault": "wrong_type", "body": [[1, 2]]}, UpstreamInvalid),
        ({"fault": "wrong_type", "body": {}}, UpstreamInvalid),
        ({"fault": "wrong_type", "body": {"state": []}}, UpstreamInvalid),
        ({"fault": "wrong_type", "body": {"state": None, "capabilities": None}}, UpstreamInvalid),
        ({"fault": "wrong_type", "body": {"state": {}, "capabilities": {}}}, UpstreamInvalid),
        ({"fault": "wrong_type", "body": {"state": {"a": 1}, "capabilities": [1]}}, UpstreamInvalid),
        ({"fault": "wrong_type", "body": "[" * 100_000}, UpstreamInvalid),
    ],
)
async def test_a_read_that_goes_wrong_has_one_failure_and_is_not_repeated(
    bmw: Bmw, fault: dict[str, Any], failure: type[ApiError]
) -> None:
    await bmw.link()
    bmw.sandbox.fault(match={"path": "vehicles/state"}, **fault)

    with pytest.raises(failure) as caught:
        await bmw.provider.reads.read_vehicle(bmw.account, vehicle())

    assert isinstance(caught.value, BMWAPIError)
    assert caught.value.may_have_succeeded is False
    assert bmw.sandbox.stats()["requests_total"] == 1


@IMPATIENT
async def test_a_read_that_is_not_answered_times_out(bmw: Bmw) -> None:
    await bmw.link()
    bmw.sandbox.fault(match={"path": "vehicles/state"}, fault="hang")

    with pytest.raises(UpstreamTimeout):
        await bmw.provider.reads.read_vehicle(bmw.account, vehicle())


async def test_how_long_bmw_wants_to_be_left_alone_is_passed_on(bmw: Bmw) -> None:
    await bmw.link()
    bmw.sandbox.fault(match={"path": "vehicles/state"}, fault="status", status=503, retry_after_s=7)

    with pytest.raises(UpstreamError) as caught:
        await bmw.provider.reads.read_vehicle(bmw.account, vehicle())

    assert caught.value.retry_after_s == 7


async def test_charging_settings_that_are_missing_do_not_make_the_car_unknown(bmw: Bmw) -> None:
    await bmw.link()
    bmw.sandbox.fault(match={"path": "eadrax-crccs"}, fault="status", status=404)

    with pytest.raises(UpstreamError):
        await bmw.provider.reads.read_vehicle(bmw.account, vehicle())


@pytest.mark.parametrize("body", [[], "x", None, 7])
async def test_charging_settings_of_the_wrong_type_cost_nothing_but_themselves(bmw: Bmw, body: object) -> None:
    await bmw.link()
    bmw.sandbox.fault(match={"path": "eadrax-crccs"}, fault="wrong_type", body="null" if body is None else body)

    snapshot = await bmw.provider.reads.read_vehicle(bmw.account, vehicle())

    assert snapshot.charging is not None
    assert snapshot.charging.ac_limits_a == ()
    assert snapshot.charging.status == "CHARGING"


@pytest.mark.parametrize(
    "state",
    [
        {"location": {"coordinates": {"latitude": 999.0}}},
        {"electricChargingState": {"chargingLevelPercent": "much"}},
        {"doorsState": {"combinedSecurityState": 7}},
    ],
)
async def test_a_value_that_the_library_would_stumble_over_costs_nothing_but_itself(
    bmw: Bmw, state: dict[str, Any]
) -> None:
    await bmw.link()
    bmw.sandbox.patch_car(USER, IX, state=state)

    snapshot = await bmw.provider.reads.read_vehicle(bmw.account, vehicle())

    assert len(snapshot.unknown) == 1
    assert snapshot.mileage_km == 1121


async def test_a_car_that_changed_is_read_as_it_is_now(bmw: Bmw) -> None:
    await bmw.link()
    before = await bmw.provider.reads.read_vehicle(bmw.account, vehicle())
    bmw.sandbox.patch_car(USER, IX, state={"currentMileage": 1200})

    after = await bmw.provider.reads.read_vehicle(bmw.account, vehicle())

    assert (before.mileage_km, after.mileage_km) == (1121, 1200)


async def test_a_read_that_is_given_up_does_not_hurt_the_next(bmw: Bmw) -> None:
    await bmw.link()
    bmw.sandbox.fault(match={"path": "vehicles/state"}, fault="hang", times=1)

    read = asyncio.create_task(bmw.provider.reads.read_vehicle(bmw.account, vehicle()))
    await bmw.until_met("hang")
    read.cancel()
    with pytest.raises(asyncio.CancelledError):
        await read

    assert (await bmw.provider.reads.read_vehicle(bmw.account, vehicle())).mileage_km == 1121


async def test_a_picture_is_a_png(bmw: Bmw) -> None:
    await bmw.link()

    for view in bmw.provider.image_views:
        assert (await bmw.images.read_image(bmw.account, vehicle(), view)).startswith(PNG)
    assert "front" in bmw.provider.image_views
    assert "unknown" not in bmw.provider.image_views


async def test_a_view_that_does_not_exist_is_refused_before_bmw_is_asked(bmw: Bmw) -> None:
    await bmw.link()

    with pytest.raises(ValidationFailed) as caught:
        await bmw.images.read_image(bmw.account, vehicle(), "below")

    assert caught.value.details["fields"][0]["path"] == "params.view"
    assert bmw.sandbox.stats()["requests_total"] == 0


async def test_a_picture_that_is_none_is_an_invalid_reply(bmw: Bmw) -> None:
    await bmw.link()
    bmw.sandbox.fault(match={"path": "images"}, fault="wrong_type", body={"no": "picture"})

    with pytest.raises(UpstreamInvalid):
        await bmw.images.read_image(bmw.account, vehicle(), "front")
