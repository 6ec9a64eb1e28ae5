"""A caller's vehicles: the list, which one is meant, and how old what they said may be."""

import asyncio
from dataclasses import replace

import pytest

from common.clock import ManualClock
from common.errors import (
    AccountNotFound,
    CacheMiss,
    NotSupported,
    RelinkRequired,
    UpstreamError,
    ValidationFailed,
    VehicleNotFound,
)
from common.loops import LoopThread
from common.stores.documents import Documents, open_documents
from functions.links import Link
from functions.vehicles import ANY_AGE, Freshness
from tests.support.fake_provider import FIRST, PNG, SECOND, UNKNOWN_VIN, FakeMaker, fake_car
from tests.support.tapped_documents import TappedDocuments
from tests.support.world import LIST_TTL_S, ME, READ_TTL_S, World, build_world

NOW = Freshness(max_age_s=0)

CACHE_ONLY = Freshness(cache_only=True)


@pytest.fixture
async def link(world: World) -> Link:
    return await world.placed()


@pytest.fixture
def second(tapped: TappedDocuments, clock: ManualClock, maker: FakeMaker) -> World:
    """Another instance, with the same store and maker."""
    return build_world(tapped, clock, maker)


# --- the list ---------------------------------------------------------------------------------------------------------


async def test_the_list_is_asked_for_once_and_trusted_for_a_day(
    world: World, link: Link, maker: FakeMaker, clock: ManualClock
) -> None:
    first = await world.vehicles.list(link)
    assert [vehicle.vin for vehicle in first.vehicles] == [FIRST]
    assert first.listed_at == clock.utc()
    clock.advance(LIST_TTL_S - 1)
    assert await world.vehicles.list(link) == first
    assert maker.calls["list_vehicles"] == 1
    clock.advance(1)
    assert (await world.vehicles.list(link)).listed_at == clock.utc()
    assert maker.calls["list_vehicles"] == 2


async def test_a_cold_instance_takes_the_list_from_the_store_and_asks_the_maker_nothing(
    world: World, second: World, link: Link, maker: FakeMaker, clock: ManualClock
) -> None:
    listed = await world.vehicles.list(link)
    clock.advance(60)
    assert await second.vehicles.list(link) == listed
    assert maker.calls["list_vehicles"] == 1


async def test_a_stored_list_that_is_too_old_is_asked_for_anew(
    world: World, second: World, link: Link, maker: FakeMaker, clock: ManualClock
) -> None:
    await world.vehicles.list(link)
    clock.advance(LIST_TTL_S)
    assert (await second.vehicles.list(link)).listed_at == clock.utc()
    assert maker.calls["list_vehicles"] == 2


async def test_a_list_taken_from_the_store_is_not_trusted_longer_than_the_makers_word(
    world: World, second: World, link: Link, maker: FakeMaker, clock: ManualClock
) -> None:
    await world.vehicles.list(link)
    clock.advance(LIST_TTL_S - 10)
    await second.vehicles.list(link)
    clock.advance(10)
    await second.vehicles.list(link)
    assert maker.calls["list_vehicles"] == 2


async def test_fresh_asks_the_maker_now_whatever_is_held_or_stored(
    world: World, link: Link, maker: FakeMaker, clock: ManualClock
) -> None:
    await world.vehicles.list(link)
    await world.vehicles.list(link, NOW)
    clock.step_wall(-3_600)
    await world.vehicles.list(link, NOW)
    assert maker.calls["list_vehicles"] == 3


async def test_an_age_may_be_asked_for(world: World, link: Link, maker: FakeMaker, clock: ManualClock) -> None:
    await world.vehicles.list(link)
    await world.vehicles.list(link, Freshness(max_age_s=0.1))
    clock.advance(59)
    await world.vehicles.list(link, Freshness(max_age_s=60))
    assert maker.calls["list_vehicles"] == 1
    clock.advance(1)
    await world.vehicles.list(link, Freshness(max_age_s=60))
    assert maker.calls["list_vehicles"] == 2


async def test_another_instances_clock_may_be_ahead(
    world: World, second: World, link: Link, maker: FakeMaker, clock: ManualClock
) -> None:
    listed = await world.vehicles.list(link)
    clock.step_wall(-5)
    assert await second.vehicles.list(link) == listed
    assert maker.calls["list_vehicles"] == 1


async def test_cache_only_never_asks_the_maker_for_a_list(world: World, link: Link, maker: FakeMaker) -> None:
    with pytest.raises(CacheMiss):
        await world.vehicles.list(link, CACHE_ONLY)
    listed = await world.vehicles.list(link)
    assert await world.vehicles.list(link, CACHE_ONLY) == listed
    assert maker.calls["list_vehicles"] == 1


async def test_the_list_of_an_account_that_has_ended_is_not_read(world: World, second: World, link: Link) -> None:
    await second.accounts.disconnect(link)
    with pytest.raises(AccountNotFound):
        await world.vehicles.list(link)


async def test_an_account_that_ends_while_its_list_is_read_stays_deleted(
    world: World, second: World, link: Link, maker: FakeMaker, documents: Documents
) -> None:
    async def disconnect() -> None:
        await second.accounts.disconnect(link)

    maker.before["list_vehicles"] = disconnect
    with pytest.raises(AccountNotFound):
        await world.vehicles.list(link)
    assert await documents.list("") == []


async def test_many_who_ask_at_once_share_one_list(world: World, link: Link, maker: FakeMaker) -> None:
    await asyncio.gather(*(world.vehicles.list(link) for _ in range(30)))
    assert maker.calls["list_vehicles"] == 1


# --- which vehicle ----------------------------------------------------------------------------------------------------


async def test_the_only_vehicle_need_not_be_named(world: World, link: Link) -> None:
    assert (await world.vehicles.find(link, None)).vin == FIRST


async def test_of_several_one_must_be_named_and_the_others_are_not_told(
    world: World, link: Link, maker: FakeMaker
) -> None:
    maker.cars.append(fake_car(SECOND))
    with pytest.raises(ValidationFailed) as failed:
        await world.vehicles.find(link, None)
    assert failed.value.details["fields"][0]["path"] == "vin"
    assert "DEMO" not in repr(failed.value.details)
    assert (await world.vehicles.find(link, SECOND)).vin == SECOND


async def test_an_account_without_vehicles_has_none(world: World, link: Link, maker: FakeMaker) -> None:
    maker.cars.clear()
    with pytest.raises(VehicleNotFound):
        await world.vehicles.find(link, None)
    with pytest.raises(VehicleNotFound):
        await world.vehicles.find(link, FIRST)


async def test_a_vin_is_found_in_any_case(world: World, link: Link) -> None:
    assert (await world.vehicles.find(link, FIRST.lower())).vin == FIRST


async def test_an_unknown_vin_is_not_found_and_no_other_is_told(world: World, link: Link) -> None:
    with pytest.raises(VehicleNotFound) as failed:
        await world.vehicles.find(link, UNKNOWN_VIN)
    assert failed.value.details == {}
    assert "DEMO" not in failed.value.message


async def test_an_unknown_vin_has_the_list_asked_for_again_but_at_most_every_five_minutes(
    world: World, link: Link, maker: FakeMaker, clock: ManualClock
) -> None:
    async def wrong_vins(number: int) -> None:
        for _ in range(number):
            with pytest.raises(VehicleNotFound):
                await world.vehicles.find(link, UNKNOWN_VIN)

    await wrong_vins(20)
    assert maker.calls["list_vehicles"] == 1
    clock.advance(300)
    await wrong_vins(20)
    assert maker.calls["list_vehicles"] == 1
    clock.advance(1)
    await wrong_vins(20)
    assert maker.calls["list_vehicles"] == 2
    clock.advance(301)
    await asyncio.gather(*(wrong_vins(1) for _ in range(20)))
    assert maker.calls["list_vehicles"] == 3


async def test_a_car_bought_since_is_found(world: World, link: Link, maker: FakeMaker, clock: ManualClock) -> None:
    await world.vehicles.find(link, FIRST)
    maker.cars.append(fake_car(SECOND))
    with pytest.raises(VehicleNotFound):
        await world.vehicles.find(link, SECOND)
    clock.advance(301)
    assert (await world.vehicles.find(link, SECOND)).vin == SECOND


async def test_cache_only_finds_a_vehicle_without_the_maker_or_not_at_all(
    world: World, link: Link, maker: FakeMaker, clock: ManualClock
) -> None:
    with pytest.raises(CacheMiss):
        await world.vehicles.find(link, FIRST, cache_only=True)
    assert maker.calls["list_vehicles"] == 0
    await world.vehicles.find(link, FIRST)
    clock.advance(1_000)
    assert (await world.vehicles.find(link, FIRST, cache_only=True)).vin == FIRST
    with pytest.raises(VehicleNotFound):
        await world.vehicles.find(link, UNKNOWN_VIN, cache_only=True)
    assert maker.calls["list_vehicles"] == 1


# --- snapshots --------------------------------------------------------------------------------------------------------


async def test_a_snapshot_is_read_once_and_then_held(
    world: World, link: Link, maker: FakeMaker, clock: ManualClock
) -> None:
    vehicle = await world.vehicles.find(link, None)
    first = await world.vehicles.snapshot(link, vehicle)
    assert (first.loaded, first.stale) == (True, False)
    clock.advance(READ_TTL_S - 1)
    again = await world.vehicles.snapshot(link, vehicle)
    assert (again.loaded, again.value, again.age_s) == (False, first.value, READ_TTL_S - 1)
    clock.advance(1)
    assert (await world.vehicles.snapshot(link, vehicle)).loaded
    assert maker.calls["read_vehicle"] == 2


def test_what_is_held_is_answered_on_the_callers_own_thread(database: object, clock: ManualClock) -> None:
    loop = LoopThread()
    world = build_world(open_documents(f"sqlite:///{database}"), clock)

    async def warm() -> tuple[Link, object]:
        link = await world.placed()
        return link, await world.vehicles.snapshot(link, await world.vehicles.find(link, None))

    async def read(link: Link) -> bool:
        return (await world.vehicles.snapshot(link, await world.vehicles.find(link, FIRST))).loaded

    try:
        link, _ = loop.run(warm())
        with pytest.raises(StopIteration) as done:
            read(link).send(None)
        assert done.value.value is False
        loop.run(world.documents.aclose())
    finally:
        loop.close()


async def test_fresh_reads_now(world: World, link: Link, maker: FakeMaker) -> None:
    vehicle = await world.vehicles.find(link, None)
    await world.vehicles.snapshot(link, vehicle)
    assert (await world.vehicles.snapshot(link, vehicle, NOW)).loaded
    assert maker.calls["read_vehicle"] == 2


async def test_many_who_ask_at_once_share_one_read(world: World, link: Link, maker: FakeMaker) -> None:
    vehicle = await world.vehicles.find(link, None)
    await asyncio.gather(*(world.vehicles.snapshot(link, vehicle) for _ in range(100)))
    assert maker.calls["read_vehicle"] == 1


async def test_an_age_bounds_what_is_served(world: World, link: Link, maker: FakeMaker, clock: ManualClock) -> None:
    vehicle = await world.vehicles.find(link, None)
    await world.vehicles.snapshot(link, vehicle)
    clock.advance(60)
    assert not (await world.vehicles.snapshot(link, vehicle, Freshness(max_age_s=61))).loaded
    assert (await world.vehicles.snapshot(link, vehicle, Freshness(max_age_s=60))).loaded


async def test_cache_only_serves_what_is_held_and_never_reads(
    world: World, link: Link, maker: FakeMaker, clock: ManualClock
) -> None:
    vehicle = await world.vehicles.find(link, None)
    with pytest.raises(CacheMiss):
        await world.vehicles.snapshot(link, vehicle, CACHE_ONLY)
    await world.vehicles.snapshot(link, vehicle)
    clock.advance(100)
    assert (await world.vehicles.snapshot(link, vehicle, CACHE_ONLY)).age_s == 100
    with pytest.raises(CacheMiss):
        await world.vehicles.snapshot(link, vehicle, Freshness(max_age_s=100, cache_only=True))
    clock.advance(READ_TTL_S)
    with pytest.raises(CacheMiss):
        await world.vehicles.snapshot(link, vehicle, CACHE_ONLY)
    assert maker.calls["read_vehicle"] == 1


async def test_while_the_maker_fails_what_was_read_before_is_served_and_marked_stale(
    world: World, link: Link, maker: FakeMaker, clock: ManualClock
) -> None:
    vehicle = await world.vehicles.find(link, None)
    first = await world.vehicles.snapshot(link, vehicle)
    clock.advance(READ_TTL_S + 1)
    maker.then("read_vehicle", *[UpstreamError() for _ in range(3)])
    stale = await world.vehicles.snapshot(link, vehicle, ANY_AGE)
    assert (stale.stale, stale.value) == (True, first.value)
    assert stale.age_s >= READ_TTL_S + 1


@pytest.mark.parametrize("freshness", [NOW, Freshness(max_age_s=60)])
async def test_who_asked_for_an_age_is_never_served_anything_older(
    world: World, link: Link, maker: FakeMaker, clock: ManualClock, freshness: Freshness
) -> None:
    vehicle = await world.vehicles.find(link, None)
    await world.vehicles.snapshot(link, vehicle)
    clock.advance(READ_TTL_S + 1)
    maker.then("read_vehicle", *[UpstreamError() for _ in range(3)])
    with pytest.raises(UpstreamError):
        await world.vehicles.snapshot(link, vehicle, freshness)


async def test_a_dead_authorisation_is_never_covered_up_with_old_data(
    world: World, link: Link, maker: FakeMaker, clock: ManualClock
) -> None:
    vehicle = await world.vehicles.find(link, None)
    await world.vehicles.snapshot(link, vehicle)
    clock.advance(READ_TTL_S + 1)
    maker.then("read_vehicle", RelinkRequired())
    with pytest.raises(RelinkRequired):
        await world.vehicles.snapshot(link, vehicle)


async def test_two_cars_and_two_accounts_are_never_mixed_up(world: World, link: Link, maker: FakeMaker) -> None:
    maker.cars.append(fake_car(SECOND))
    maker.cars[1].snapshot = replace(maker.cars[1].snapshot, mileage_km=999)
    other = await world.placed("issuer|other")
    seen = {}
    for whose in (link, other):
        for vin in (FIRST, SECOND):
            hit = await world.vehicles.snapshot(whose, await world.vehicles.find(whose, vin))
            seen[whose.account.id, vin] = (hit.loaded, hit.value.info.vin, hit.value.mileage_km)
    assert [read[1:] for read in seen.values()] == [(FIRST, 100), (SECOND, 999)] * 2
    assert all(read[0] for read in seen.values())


async def test_invalidating_has_one_vehicle_read_again(world: World, link: Link, maker: FakeMaker) -> None:
    maker.cars.append(fake_car(SECOND))
    first, other = [await world.vehicles.find(link, vin) for vin in (FIRST, SECOND)]
    for vehicle in (first, other):
        await world.vehicles.snapshot(link, vehicle)
    await world.vehicles.changed(link.account.id, FIRST)
    assert (await world.vehicles.snapshot(link, first)).loaded
    assert not (await world.vehicles.snapshot(link, other)).loaded


async def test_capabilities_are_told_only_from_what_is_held(world: World, link: Link, maker: FakeMaker) -> None:
    vehicle = await world.vehicles.find(link, None)
    assert world.vehicles.known_capabilities(link, vehicle) is None
    await world.vehicles.snapshot(link, vehicle)
    known = world.vehicles.known_capabilities(link, vehicle)
    assert known is not None
    assert known["lock"] is True


# --- pictures ---------------------------------------------------------------------------------------------------------


async def test_a_picture_is_fetched_once_a_view(world: World, link: Link, maker: FakeMaker) -> None:
    vehicle = await world.vehicles.find(link, None)
    for _ in range(2):
        assert (await world.vehicles.image(link, vehicle, "front")).value == PNG + b"front"
    assert (await world.vehicles.image(link, vehicle, "rear")).value == PNG + b"rear"
    assert maker.calls["read_image"] == 2


async def test_a_maker_without_pictures_is_not_supported(
    documents: Documents, clock: ManualClock, maker: FakeMaker
) -> None:
    world = build_world(documents, clock, maker, provider=replace(maker.provider(), images=None))
    link = await world.placed()
    vehicle = await world.vehicles.find(link, None)
    with pytest.raises(NotSupported, match="mybmw has no pictures"):
        await world.vehicles.image(link, vehicle, "front")


async def test_forgetting_an_account_drops_everything_of_it_and_nothing_else(
    world: World, link: Link, maker: FakeMaker
) -> None:
    other = await world.placed("issuer|other")
    for whose in (link, other):
        vehicle = await world.vehicles.find(whose, None)
        await world.vehicles.snapshot(whose, vehicle)
        await world.vehicles.image(whose, vehicle, "front")
    world.vehicles.forget(link.account.id)
    for whose in (link, other):
        vehicle = await world.vehicles.find(whose, None)
        for read in (world.vehicles.snapshot(whose, vehicle), world.vehicles.image(whose, vehicle, "front")):
            assert (await read).loaded is (whose.principal == ME)
    world.vehicles.forget(link.account.id)
    with pytest.raises(CacheMiss):
        await world.vehicles.list(link, CACHE_ONLY)


async def test_only_a_fresh_list_is_forced(world: World, link: Link, maker: FakeMaker) -> None:
    await world.vehicles.list(link, Freshness(max_age_s=60))
    assert maker.calls["list_vehicles, forced"] == 0
    await world.vehicles.list(link, Freshness(max_age_s=0))
    assert maker.calls["list_vehicles, forced"] == 1


async def test_a_list_without_a_vehicle_is_asked_again_after_minutes(
    world: World, link: Link, clock: ManualClock, maker: FakeMaker
) -> None:
    cars, maker.cars = maker.cars, []
    assert (await world.vehicles.list(link, Freshness(max_age_s=0))).vehicles == ()
    maker.cars = cars
    clock.advance(299)
    assert (await world.vehicles.list(link)).vehicles == ()
    clock.advance(1)
    assert (await world.vehicles.list(link)).vehicles != ()
