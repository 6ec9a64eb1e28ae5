"""Reading cars, against the sandbox: what each look costs, and what goes wrong."""

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from common.errors import (
    ApiError,
    AuthenticationFailed,
    NotSupported,
    PreconditionFailed,
    QuotaLimitExceeded,
    RelinkRequired,
    StoreUnavailable,
    UpstreamError,
    UpstreamInvalid,
    ValidationFailed,
    VehicleNotFound,
)
from common.stores.documents import Documents
from functions.providers.cardata import descriptors as d
from functions.providers.cardata.containers import CLAIM_S
from functions.providers.cardata.failures import CarDataBusy, CarDataMisunderstood
from functions.providers.cardata.provider import COMMANDS_ADVICE, CarData, assemble, build
from functions.providers.port import Account, Region
from functions.snapshot import Snapshot
from tests.providers.cardata.harness import I4, NOON, X1, X3, Bench
from tests.support.tapped_documents import TappedDocuments, When, failing

TELEMATIC, MAPPINGS, BASIC, CONTAINERS = "telematicData", "mappings", "basicData", "containers"


@pytest.fixture
async def linked(bench: Bench) -> Bench:
    """With the cars listed, which costs four requests."""
    await bench.link()
    await bench.cardata.vehicles.list_vehicles(bench.account)
    return bench


async def read(bench: Bench, vin: str = I4, *, forced: bool = False) -> Snapshot:
    return await bench.cardata.vehicles.read_vehicle(bench.account, await bench.vehicle(vin), forced=forced)


async def test_the_cars_are_listed_with_what_is_known_of_them(linked: Bench) -> None:
    found = await linked.cardata.vehicles.list_vehicles(linked.account)

    assert [(car.vin, car.brand, car.name, car.drivetrain) for car in found] == [
        (X1, "BMW", "X1 sDrive18i", "COMBUSTION"),
        (I4, "BMW", "i4 eDrive40", "ELECTRIC"),
        (X3, "BMW", "X3 30e xDrive", "PLUGIN_HYBRID"),
    ]


async def test_the_list_costs_nothing_for_a_week_and_master_data_for_a_month(linked: Bench) -> None:
    assert linked.used() == 4
    linked.advance(7 * 86_400 - 1)
    await linked.cardata.vehicles.list_vehicles(linked.account)
    assert linked.used() == 0  # another day, and nothing of it
    linked.advance(1)
    await linked.cardata.vehicles.list_vehicles(linked.account)
    assert linked.used() == 1
    await linked.cardata.vehicles.list_vehicles(linked.account, forced=True)
    assert linked.used() == 2
    for _ in range(2):  # one long idle stretch would kill the link
        linked.advance(12 * 86_400)
        await linked.cardata.auth.keep_alive(linked.account)
    await linked.cardata.vehicles.list_vehicles(linked.account)
    assert linked.used() == 4


async def test_a_car_whose_master_data_cannot_be_had_is_listed_all_the_same(bench: Bench) -> None:
    await bench.link()
    bench.sandbox.fault(match={"path": BASIC, "vin": I4}, fault="cu", code="CU-500", times=1)

    first = await bench.cardata.vehicles.list_vehicles(bench.account)
    second = await bench.cardata.vehicles.list_vehicles(bench.account)

    assert [car.drivetrain for car in first] == ["COMBUSTION", "UNKNOWN", "PLUGIN_HYBRID"]
    assert [car.drivetrain for car in second] == ["COMBUSTION", "ELECTRIC", "PLUGIN_HYBRID"]


@pytest.mark.parametrize("code", ["CU-127", "CU-104", "CU-103", "CU-403", "CU-400", "CU-401"])
async def test_master_data_that_bmw_refuses_cost_a_request_a_day_and_not_the_list(bench: Bench, code: str) -> None:
    await bench.link()
    bench.sandbox.fault(match={"path": BASIC, "vin": I4}, fault="cu", code=code, times=1)

    found = await bench.cardata.vehicles.list_vehicles(bench.account)
    await bench.cardata.vehicles.list_vehicles(bench.account)

    assert ([car.drivetrain for car in found], bench.used()) == (["COMBUSTION", "UNKNOWN", "PLUGIN_HYBRID"], 4)
    bench.advance(86_400)
    found = await bench.cardata.vehicles.list_vehicles(bench.account)
    assert ([car.drivetrain for car in found], bench.used()) == (["COMBUSTION", "ELECTRIC", "PLUGIN_HYBRID"], 1)


async def test_a_list_is_paid_for_once_whatever_becomes_of_the_master_data(bench: Bench) -> None:
    await bench.link()
    bench.sandbox.fault(match={"path": BASIC}, fault="cu", code="CU-101", times=2)
    with pytest.raises(RelinkRequired):
        await bench.cardata.vehicles.list_vehicles(bench.account)
    bench.advance(3_600)
    before = bench.used()

    await bench.cardata.vehicles.list_vehicles(bench.account)

    assert bench.used() - before == 3


async def test_a_list_without_a_car_is_trusted_for_minutes(bench: Bench) -> None:
    customer = bench.sandbox.add_customer(cars=[])
    await bench.link(customer["gcid"])
    assert await bench.cardata.vehicles.list_vehicles(bench.account) == ()
    await bench.cardata.vehicles.list_vehicles(bench.account)
    assert bench.sandbox.stats()["quota_used"][customer["gcid"]] == 1
    bench.advance(1_800)

    await bench.cardata.vehicles.list_vehicles(bench.account)

    assert bench.sandbox.stats()["quota_used"][customer["gcid"]] == 2


async def test_who_links_anew_has_his_cars_listed_anew(linked: Bench) -> None:
    follows = linked.cardata.provider.follows
    assert follows is not None
    before = linked.used()
    await follows.linked(linked.account.id, await linked.link())

    await linked.cardata.vehicles.list_vehicles(linked.account)

    assert linked.used() - before == 1


async def test_a_new_token_that_is_refused_too_is_not_tried_again(linked: Bench) -> None:
    linked.sandbox.fault(match={"path": TELEMATIC}, fault="cu", code="CU-101")
    with pytest.raises(RelinkRequired):
        await read(linked)
    before = linked.used()
    for _ in range(3):
        with pytest.raises(RelinkRequired):
            await read(linked)
    assert linked.used() == before

    await linked.link()
    linked.sandbox.control("DELETE", "faults")
    assert (await read(linked)).mileage_km is not None


async def test_that_bmw_has_no_picture_is_asked_once_a_month(linked: Bench) -> None:
    vehicle = await linked.vehicle(X3)
    for _ in range(2):
        with pytest.raises(NotSupported, match="no picture"):
            await linked.cardata.vehicles.read_image(linked.account, vehicle, "front_side")
    assert linked.used() == 5


async def test_a_second_users_car_is_not_listed(bench: Bench) -> None:
    secondary = {"vin": "WBA00000000DEMO92", "mapping": "SECONDARY"}
    customer = bench.sandbox.add_customer(cars=[{"vin": "WBA00000000DEMO91"}, secondary])
    await bench.link(customer["gcid"])

    assert [car.vin for car in await bench.cardata.vehicles.list_vehicles(bench.account)] == ["WBA00000000DEMO91"]


@pytest.mark.parametrize("body", ["{}", "[5]", '[{"vin": "short"}]', "7", "<html>"])
async def test_a_list_that_is_none_is_an_invalid_reply(bench: Bench, body: str) -> None:
    await bench.link()
    bench.sandbox.fault(match={"path": MAPPINGS}, fault="status", status=200, body=body)

    with pytest.raises(UpstreamInvalid):
        await bench.cardata.vehicles.list_vehicles(bench.account)


async def test_a_reading_is_true_at_the_times_it_names(linked: Bench) -> None:
    for vin, drivetrain in ((X1, "COMBUSTION"), (I4, "ELECTRIC"), (X3, "PLUGIN_HYBRID")):
        found = await read(linked, vin)
        assert found.info.drivetrain == drivetrain
        at = found.measured["mileage_km"]
        truth = linked.sandbox.truth(vin, d.MILEAGE, at.isoformat().replace("+00:00", "Z"))
        assert found.mileage_km == round(truth["value"])
        if drivetrain != "COMBUSTION":
            at = found.measured["fuel_and_battery.battery_percent"]
            soc = linked.sandbox.truth(vin, d.SOC[0], at.isoformat().replace("+00:00", "Z"))["value"]
            assert abs((found.fuel_and_battery.battery_percent or 0) - soc) <= 0.55
        assert found.location is not None
        position = [linked.sandbox.truth(vin, half)["said"]["value"] for half in (d.LATITUDE, d.LONGITUDE)]
        assert [found.location.latitude, found.location.longitude] == position


async def test_a_reading_costs_one_request_and_the_container_is_made_once(linked: Bench) -> None:
    before = linked.used()
    await read(linked)
    assert linked.used() - before == 3  # list, create, read
    await read(linked, X3)
    assert linked.used() - before == 4
    assert linked.sandbox.control("GET", f"customers/{linked.sandbox.demo['gcid']}")["containers"] == 1


def assembled(bench: Bench, documents: Documents) -> CarData:
    """Another instance, which holds nothing in memory."""
    return assemble(
        tokens=bench.keeper,
        documents=documents,
        clock=bench.clock,
        auth_origin=bench.sandbox.origin,
        api_origin=bench.sandbox.origin,
    )


async def another_instance(bench: Bench) -> Bench:
    """The same account on another instance."""
    return replace(bench, cardata=assembled(bench, bench.documents))


async def test_another_instance_knows_the_container_and_the_cars(linked: Bench) -> None:
    await read(linked)
    before = linked.used()
    other = await another_instance(linked)

    await read(other)

    assert linked.used() - before == 1
    await other.cardata.provider.close()


async def test_another_account_of_the_customer_finds_his_container(linked: Bench) -> None:
    await read(linked)
    other = replace(linked, account=Account("acc_2", "cardata", Region.REST_OF_WORLD))
    await other.link(account=other.account)

    await read(other)

    assert linked.sandbox.control("GET", f"customers/{linked.sandbox.demo['gcid']}")["containers"] == 1


async def test_a_container_that_is_gone_is_found_anew_once(linked: Bench) -> None:
    await read(linked)
    before = linked.used()
    linked.sandbox.fault(match={"path": TELEMATIC}, fault="cu", code="CU-105", times=1)

    assert (await read(linked)).mileage_km is not None
    # the refusal, the list, another one (for that one is known to be gone), the reading
    assert linked.used() - before == 4

    linked.sandbox.fault(match={"path": TELEMATIC}, fault="cu", code="CU-105", times=2)
    with pytest.raises(CarDataMisunderstood):
        await read(linked)


async def test_a_container_that_another_instance_has_renewed_is_taken(linked: Bench) -> None:
    await read(linked)
    other = await another_instance(linked)
    await read(other)
    linked.sandbox.fault(match={"path": TELEMATIC}, fault="cu", code="CU-105", times=1)
    await read(linked)
    before = linked.used()
    linked.sandbox.fault(match={"path": TELEMATIC}, fault="cu", code="CU-105", times=1)

    await read(other)

    assert linked.used() - before == 2
    await other.cardata.provider.close()


async def test_ten_containers_come_with_advice_and_are_not_asked_for_again_at_once(linked: Bench) -> None:
    linked.sandbox.fault(match={"path": CONTAINERS, "method": "POST"}, fault="cu", code="CU-124")

    with pytest.raises(PreconditionFailed, match="ten data containers"):
        await read(linked)
    plan = await linked.cardata.planner.plan(linked.account, await linked.vehicle(I4), None, forced=False)
    assert plan.source == "cache"
    linked.sandbox.clear_faults()
    assert (await read(linked)).mileage_km is not None


async def test_of_instances_that_read_at_once_one_makes_the_container(linked: Bench) -> None:
    other = await another_instance(linked)
    vehicle = await linked.vehicle(I4)

    outcomes = await asyncio.gather(
        *[one.cardata.vehicles.read_vehicle(one.account, vehicle) for one in (linked, other)], return_exceptions=True
    )

    assert {type(outcome) for outcome in outcomes} <= {Snapshot, CarDataBusy}
    assert linked.sandbox.control("GET", f"customers/{linked.sandbox.demo['gcid']}")["containers"] == 1
    await read(other)
    await other.cardata.provider.close()


async def test_a_claim_of_an_instance_that_was_killed_lapses(linked: Bench) -> None:
    until = (NOON + timedelta(seconds=CLAIM_S)).isoformat()
    body = {"id": None, "purpose": d.CONTAINER_PURPOSE, "claimed_until": until}
    await linked.documents.create(f"cardata/{linked.account.id}/container", body)

    with pytest.raises(CarDataBusy):
        await read(linked)
    linked.advance(CLAIM_S)
    assert (await read(linked)).mileage_km is not None


@pytest.mark.parametrize("body", ["{}", '{"containers": 5}', '{"containers": [{"name": "draiv"}, 5]}', "[]"])
async def test_containers_that_are_none(linked: Bench, body: str) -> None:
    linked.sandbox.fault(match={"path": CONTAINERS, "method": "GET"}, fault="status", status=200, body=body)
    linked.sandbox.fault(match={"path": CONTAINERS, "method": "POST"}, fault="status", status=201, body="{}")

    with pytest.raises(UpstreamInvalid):
        await read(linked)


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        ("CU-103", AuthenticationFailed),
        ("CU-104", VehicleNotFound),
        ("CU-120", VehicleNotFound),
        ("CU-403", AuthenticationFailed),
        ("CU-400", CarDataMisunderstood),
        ("CU-401", CarDataMisunderstood),
        ("CU-402", CarDataMisunderstood),
        ("CU-429", QuotaLimitExceeded),
        ("CU-500", UpstreamError),
        ("CU-503", UpstreamError),
    ],
)
async def test_each_error_has_one_meaning(linked: Bench, code: str, failure: type[ApiError]) -> None:
    linked.sandbox.fault(match={"path": TELEMATIC}, fault="cu", code=code, times=1)

    with pytest.raises(failure):
        await read(linked)


@pytest.mark.parametrize("body", ["{}", '{"telematicData": []}', "[]", "<html>"])
async def test_a_reading_that_is_none_is_an_invalid_reply(linked: Bench, body: str) -> None:
    linked.sandbox.fault(match={"path": TELEMATIC}, fault="status", status=200, body=body)

    with pytest.raises(UpstreamInvalid):
        await read(linked)


async def test_a_car_without_data_says_nothing(linked: Bench) -> None:
    linked.sandbox.fault(match={"path": TELEMATIC}, fault="cu", code="CU-127", times=1)

    found = await read(linked)

    assert found.mileage_km is None
    assert found.unavailable["mileage_km"]
    assert await linked.cardata.vehicles.recall(linked.account, await linked.vehicle(I4)) is not None


@pytest.mark.parametrize("code", ["CU-100", "CU-101", "CU-102"])
async def test_a_token_that_is_refused_is_renewed_once(linked: Bench, code: str) -> None:
    linked.sandbox.fault(match={"path": TELEMATIC}, fault="cu", code=code, times=1)
    assert (await read(linked)).mileage_km is not None
    assert linked.sandbox.stats()["auth"]["refreshes"] == 1

    linked.sandbox.fault(match={"path": TELEMATIC}, fault="cu", code=code, times=2)
    with pytest.raises(RelinkRequired):
        await read(linked)


async def test_a_token_that_bmw_has_ended_early_is_renewed(linked: Bench) -> None:
    linked.sandbox.expire_access(linked.sandbox.demo["gcid"])

    assert (await read(linked)).mileage_km is not None


async def test_when_bmw_says_the_day_is_used_up_nothing_more_is_sent(linked: Bench) -> None:
    await read(linked)
    linked.sandbox.change_customer(linked.sandbox.demo["gcid"], quota_used=50)
    with pytest.raises(QuotaLimitExceeded) as refused:
        await read(linked, forced=True)
    sent = len(linked.requests)

    with pytest.raises(QuotaLimitExceeded):
        await read(linked, forced=True)

    assert len(linked.requests) == sent
    assert refused.value.retry_after_s == 12 * 3600
    assert (await linked.cardata.planner.quota(linked.account))["remaining"] == 0
    linked.advance(12 * 3600)
    assert (await read(linked)).mileage_km is not None


async def test_a_day_that_is_used_up_is_told_even_where_it_cannot_be_noted(linked: Bench) -> None:
    await read(linked)
    linked.sandbox.change_customer(linked.sandbox.demo["gcid"], quota_used=50)
    replaced: list[str] = []

    async def second_time(moment: When, operation: str, key: str) -> None:
        if moment is When.BEFORE and operation == "replace" and key.startswith("quota/"):
            replaced.append(key)
            if len(replaced) > 1:
                raise StoreUnavailable

    other = replace(linked, cardata=assembled(linked, TappedDocuments(linked.documents, second_time)))

    with pytest.raises(QuotaLimitExceeded):
        await read(other)
    assert len(replaced) == 2
    await other.cardata.provider.close()


async def test_our_account_of_the_day_is_bmws(linked: Bench) -> None:
    linked.sandbox.fault(match={"path": TELEMATIC}, fault="cu", code="CU-127", after=1, times=1, perform=True)
    for _ in range(3):
        await read(linked)

    assert (await linked.cardata.planner.quota(linked.account))["used"] == linked.used()


async def test_the_last_requests_are_for_reads_that_somebody_wants_fresh(linked: Bench) -> None:
    while (await linked.cardata.planner.quota(linked.account))["remaining"] > 5:
        await read(linked)

    with pytest.raises(QuotaLimitExceeded, match="kept for fresh reads"):
        await read(linked)
    for _ in range(5):
        await read(linked, forced=True)
    with pytest.raises(QuotaLimitExceeded):
        await read(linked, forced=True)
    assert linked.used() == 50


async def test_what_was_read_is_recalled_for_nothing(linked: Bench) -> None:
    vehicle = await linked.vehicle(I4)
    assert await linked.cardata.vehicles.recall(linked.account, vehicle) is None
    read_now = await read(linked)
    before = linked.used()

    assert await linked.cardata.vehicles.recall(linked.account, vehicle) == read_now
    assert linked.used() == before


async def test_a_reading_that_cannot_be_stored_is_given_all_the_same(linked: Bench) -> None:
    await read(linked)
    tapped = TappedDocuments(linked.documents, failing(1, "get", "signals/"))
    cardata = build(
        tokens=linked.keeper,
        documents=tapped,
        clock=linked.clock,
        auth_origin=linked.sandbox.origin,
        api_origin=linked.sandbox.origin,
    )

    found = await cardata.reads.read_vehicle(linked.account, await linked.vehicle(I4))

    assert found.mileage_km is not None
    tapped.tap = failing(1, "get", "signals/")
    linked.sandbox.fault(match={"path": TELEMATIC}, fault="cu", code="CU-500", times=1)
    with pytest.raises(UpstreamError):
        await cardata.reads.read_vehicle(linked.account, await linked.vehicle(I4))
    await cardata.close()


async def test_a_container_whose_id_cannot_be_stored_is_used_and_found_again(linked: Bench) -> None:
    tapped = TappedDocuments(linked.documents, failing(1, "replace", "cardata/"))
    other = replace(
        linked,
        cardata=assembled(linked, tapped),
    )

    assert (await read(other)).mileage_km is not None
    linked.advance(CLAIM_S)
    assert (await read(linked)).mileage_km is not None
    assert linked.sandbox.control("GET", f"customers/{linked.sandbox.demo['gcid']}")["containers"] == 1
    await other.cardata.provider.close()


async def test_without_the_store_nothing_is_sent(linked: Bench) -> None:
    await read(linked)
    tapped = TappedDocuments(linked.documents, failing(1, "get", "quota/"))
    other = assembled(linked, tapped)
    before = linked.used()

    with pytest.raises(StoreUnavailable):
        await other.vehicles.read_vehicle(linked.account, await linked.vehicle(I4))
    assert linked.used() == before
    await other.provider.close()


async def test_a_picture_costs_one_request_a_month(linked: Bench) -> None:
    before, vehicle = linked.used(), await linked.vehicle(I4)

    first = await linked.cardata.vehicles.read_image(linked.account, vehicle, "front_side")
    second = await linked.cardata.vehicles.read_image(linked.account, vehicle, "front_side")

    assert first == second
    assert first.startswith(b"\x89PNG")
    assert linked.used() - before == 1
    for _ in range(3):
        linked.advance(10 * 86_400)
        await linked.cardata.auth.keep_alive(linked.account)
    await linked.cardata.vehicles.read_image(linked.account, vehicle, "front_side")
    assert linked.used() == 1


async def test_pictures_that_are_none(linked: Bench) -> None:
    with pytest.raises(NotSupported, match="no picture"):
        await linked.cardata.vehicles.read_image(linked.account, await linked.vehicle(X3), "front_side")
    with pytest.raises(ValidationFailed):
        await linked.cardata.vehicles.read_image(linked.account, await linked.vehicle(I4), "dashboard")
    linked.sandbox.fault(match={"path": "image"}, fault="status", status=200, body="<svg>")
    with pytest.raises(UpstreamInvalid):
        await linked.cardata.vehicles.read_image(linked.account, await linked.vehicle(I4), "front_side")


MONTH_AGO = NOON - timedelta(days=30)


async def test_charges_are_read_page_by_page(linked: Bench) -> None:
    before = linked.used()

    found = await linked.cardata.vehicles.charging_history(linked.account, await linked.vehicle(I4), MONTH_AGO, NOON)

    assert found.is_complete
    assert len(found.sessions) > 10
    assert linked.used() - before == found.requests > 1
    starts = [one.started_at for one in found.sessions if one.started_at]
    assert starts == sorted(starts, reverse=True)
    assert len(set(starts)) == len(found.sessions)
    newest = found.sessions[0]
    assert (newest.start_percent or 0) < (newest.end_percent or 0)
    assert newest.energy_kwh
    assert newest.place


@pytest.mark.parametrize(("code", "word"), [("CU-500", "failed"), ("CU-125", "failed"), ("CU-429", "used up")])
async def test_a_page_that_fails_leaves_the_history_partial(linked: Bench, code: str, word: str) -> None:
    linked.sandbox.fault(match={"path": "chargingHistory"}, fault="cu", code=code, after=1, times=1)

    found = await linked.cardata.vehicles.charging_history(linked.account, await linked.vehicle(I4), MONTH_AGO, NOON)

    assert (len(found.sessions), found.is_complete, found.requests) == (10, False, 2)
    assert word in (found.note or "")


async def test_a_history_without_a_first_page_is_a_failure(linked: Bench) -> None:
    vehicle = await linked.vehicle(I4)
    for code, failure in (("CU-500", UpstreamError), ("CU-125", UpstreamInvalid)):
        linked.sandbox.fault(match={"path": "chargingHistory"}, fault="cu", code=code, times=1)
        with pytest.raises(failure):
            await linked.cardata.vehicles.charging_history(linked.account, vehicle, MONTH_AGO, NOON)


@pytest.mark.parametrize("start", [NOON - timedelta(days=46), NOON + timedelta(seconds=1)])
async def test_more_than_45_days_are_not_asked_for(linked: Bench, start: datetime) -> None:
    before = linked.used()

    with pytest.raises(ValidationFailed):
        await linked.cardata.vehicles.charging_history(linked.account, await linked.vehicle(I4), start, NOON)
    assert linked.used() == before


async def test_a_history_ends_after_so_many_pages(linked: Bench) -> None:
    vehicle = await linked.vehicle(I4)
    found = await linked.cardata.vehicles.charging_history(linked.account, vehicle, MONTH_AGO, NOON, max_pages=1)

    assert (len(found.sessions), found.is_complete) == (10, False)
    assert "1 requests" in (found.note or "")


async def test_a_car_that_never_charges_has_an_empty_history(linked: Bench) -> None:
    found = await linked.cardata.vehicles.charging_history(linked.account, await linked.vehicle(X1), MONTH_AGO, NOON)

    assert (found.sessions, found.is_complete, found.note) == ((), True, None)


async def test_tyres(linked: Bench) -> None:
    worn = await linked.cardata.vehicles.tyre_diagnosis(linked.account, await linked.vehicle(I4))

    assert set(worn) == {"front_left", "front_right", "rear_left", "rear_right"}
    assert worn["front_left"].due_mileage_km
    assert worn["front_left"].color in ("GREEN", "YELLOW")
    assert await linked.cardata.vehicles.tyre_diagnosis(linked.account, await linked.vehicle(X1)) == {}
    linked.sandbox.fault(match={"path": "Tyre"}, fault="cu", code="CU-127", times=1)
    assert await linked.cardata.vehicles.tyre_diagnosis(linked.account, await linked.vehicle(I4)) == {}


async def test_charging_settings_by_place(linked: Bench) -> None:
    [home] = await linked.cardata.vehicles.charging_settings_by_place(linked.account, await linked.vehicle(I4))

    assert home["acCurrentLimit"] == 16
    assert await linked.cardata.vehicles.charging_settings_by_place(linked.account, await linked.vehicle(X1)) == ()


def test_the_provider_says_what_it_can_do(bench: Bench) -> None:
    provider = bench.cardata.provider

    assert provider.commands is None
    assert provider.commands_advice == COMMANDS_ADVICE
    assert "read-only" in COMMANDS_ADVICE
    assert provider.log_in is None
    assert provider.image_views == ("front_side",)
