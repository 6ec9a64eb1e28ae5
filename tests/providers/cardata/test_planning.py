"""The planner on live facts, against the sandbox: right, and for nothing."""

from datetime import timedelta

import pytest

from common.errors import QuotaLimitExceeded, RelinkRequired, UpstreamError
from functions.providers.cardata import descriptors as d
from functions.providers.cardata import planner as p
from functions.providers.cardata.planning import LOOKED_UP_FOR_S
from functions.providers.cardata.signals import Signal
from functions.providers.port import ReadPlan
from tests.providers.cardata.harness import I4, X1, X3, Bench


@pytest.fixture
async def linked(bench: Bench) -> Bench:
    await bench.link()
    await bench.cardata.vehicles.list_vehicles(bench.account)
    return bench


async def plan(bench: Bench, vin: str = I4, *, forced: bool = False) -> ReadPlan:
    return await bench.cardata.planner.plan(bench.account, await bench.vehicle(vin), None, forced=forced)


async def read(bench: Bench, vin: str = I4) -> None:
    await bench.cardata.vehicles.read_vehicle(bench.account, await bench.vehicle(vin))


async def test_planning_spends_nothing(linked: Bench) -> None:
    before, sent = linked.used(), len(linked.requests)

    assert (await plan(linked)).source == "poll"
    await linked.cardata.planner.quota(linked.account)

    assert (linked.used(), len(linked.requests)) == (before, sent)


async def test_a_reading_makes_the_next_one_wait(linked: Bench) -> None:
    await read(linked)

    assert (await plan(linked)).source == "cache"
    assert (await plan(linked, X1)).source == "poll"
    assert (await plan(linked, forced=True)).source == "poll"
    linked.advance((await plan(linked)).max_age_s)
    assert (await plan(linked)).source == "poll"


async def test_reads_in_a_row_are_planned_from_memory(linked: Bench) -> None:
    await read(linked)
    vehicle = await linked.vehicle(I4)
    first = await linked.cardata.planner.plan(linked.account, vehicle, None, forced=False)

    # Without a loop: an `await` that has to wait would show.
    step = linked.cardata.planner.plan(linked.account, vehicle, None, forced=False)
    with pytest.raises(StopIteration) as done:
        step.send(None)

    assert done.value.value.source == first.source == "cache"
    linked.advance(LOOKED_UP_FOR_S)
    assert (await plan(linked)).source == "cache"


async def charge(bench: Bench, status: str) -> None:
    now = bench.clock.utc()
    signal = Signal(status, None, now, now, "rest")
    await bench.cardata.signals.upsert(bench.account.id, I4, {d.CHARGING_STATUS: signal})
    bench.advance(LOOKED_UP_FOR_S)


async def test_a_charging_car_is_read_more_often_and_a_charged_one_less(linked: Bench) -> None:
    await read(linked)
    idle = (await plan(linked)).max_age_s
    await charge(linked, d.CHARGING_ACTIVE)
    charging = (await plan(linked)).max_age_s
    await charge(linked, "NOCHARGING")
    charged = (await plan(linked)).max_age_s

    assert charging < idle < charged


async def test_the_stream_is_trusted_while_it_is_up_and_brings_the_state_of_charge(linked: Bench) -> None:
    await read(linked)
    linked.advance(2 * 3_600)
    until = linked.clock.utc() + timedelta(seconds=60)
    await linked.cardata.streams.beat(linked.account.id, until)
    assert (await plan(linked)).source == "poll"

    now = linked.clock.utc()
    streamed = {d.SOC[0]: Signal(70.5, "%", now, now, "stream")}
    await linked.cardata.signals.upsert(linked.account.id, I4, streamed)

    assert (await plan(linked)).source == "stream"
    found = await linked.cardata.vehicles.recall(linked.account, await linked.vehicle(I4))
    assert found is not None
    assert found.fuel_and_battery.battery_percent == 70
    assert found.fetched_at == now
    await linked.cardata.streams.beat(linked.account.id, until + timedelta(seconds=60))
    linked.advance(121)
    assert (await plan(linked)).source == "poll"


async def streams(bench: Bench, **values: object) -> None:
    """Something comes by the stream, which is up."""
    now = bench.clock.utc()
    incoming = {getattr(d, name): Signal(value, None, now, now, "stream") for name, value in values.items()}
    await bench.cardata.signals.upsert(bench.account.id, I4, incoming)
    await bench.cardata.streams.beat(bench.account.id, now + timedelta(hours=6))


async def test_a_charge_that_the_stream_says_nothing_of_is_read_by_requests(linked: Bench) -> None:
    await read(linked)
    soc = Signal(50, "%", linked.clock.utc(), linked.clock.utc(), "stream")
    await linked.cardata.signals.upsert(linked.account.id, I4, {d.SOC[0]: soc})
    await streams(linked, CHARGING_STATUS=d.CHARGING_ACTIVE)
    linked.advance(29 * 60)
    assert (await plan(linked)).source == "stream"
    linked.advance(60)
    await streams(linked, LATITUDE=48.1)

    assert (await plan(linked)).source == "poll"


async def test_a_state_of_charge_that_a_request_knew_better_is_not_streamed(linked: Bench) -> None:
    await streams(linked, CHARGING_STATUS=d.CHARGING_ACTIVE, MILEAGE=5)
    linked.advance(60)
    await read(linked)
    linked.advance(2 * 3_600)
    await streams(linked, CHARGING_STATUS=d.CHARGING_ACTIVE)

    assert (await plan(linked)).source == "poll"


async def test_a_failed_request_makes_the_next_one_wait_too(linked: Bench) -> None:
    linked.sandbox.fault(match={"path": "telematicData"}, fault="cu", code="CU-500", times=1)
    with pytest.raises(UpstreamError):
        await read(linked)

    assert (await plan(linked)).source == "cache"
    assert (await plan(linked, forced=True)).source == "poll"
    linked.advance(p.RETRY_UNKNOWN_S)
    assert (await plan(linked)).source == "poll"
    await read(linked)
    linked.advance(p.IDLE_AT_MOST_S)
    assert (await plan(linked)).source == "poll"


async def test_a_link_that_is_dead_has_no_plan(linked: Bench) -> None:
    linked.sandbox.revoke_refresh(linked.sandbox.demo["gcid"])
    linked.advance(3_600)
    with pytest.raises(RelinkRequired):
        await read(linked)

    with pytest.raises(RelinkRequired):
        await plan(linked)


async def test_while_bmws_login_is_down_there_are_plans_and_figures_all_the_same(linked: Bench) -> None:
    await read(linked)
    vehicle = await linked.vehicle(I4)
    linked.sandbox.fault(match={"path": "/gcdm/oauth/token"}, fault="status", status=503)
    linked.advance(3_590)
    linked.advance(20)

    planned = await linked.cardata.planner.plan(linked.account, vehicle, None, forced=False)
    figures = await linked.cardata.planner.quota(linked.account)

    assert (planned.source, figures["used"]) == ("cache", linked.used())


async def test_a_plan_that_asks_nobody_says_why_and_until_when(linked: Bench) -> None:
    await read(linked)
    paced = await plan(linked)
    linked.advance(1)
    linked.sandbox.fault(match={"path": "telematicData"}, fault="cu", code="CU-500", times=1)
    with pytest.raises(UpstreamError):
        await linked.cardata.vehicles.read_vehicle(linked.account, await linked.vehicle(I4), forced=True)
    linked.advance(60)
    failed = await plan(linked)
    linked.sandbox.fault(match={"path": "telematicData"}, fault="cu", code="CU-429", times=1)
    with pytest.raises(QuotaLimitExceeded):
        await read(linked, X3)
    linked.advance(LOOKED_UP_FOR_S)
    used_up = await plan(linked, forced=True)

    assert (paced.because, paced.retry_after_s) == ("paced", paced.max_age_s)
    assert (failed.because, failed.retry_after_s) == ("failed", p.RETRY_S - 60)
    assert (used_up.because, used_up.retry_after_s) == ("used_up", 12 * 3_600 - 61 - LOOKED_UP_FOR_S)


async def wanted_s(bench: Bench, vin: str) -> float:
    bench.advance(LOOKED_UP_FOR_S)
    return (await plan(bench, vin)).max_age_s


async def test_what_the_other_cars_do_is_seen(linked: Bench) -> None:
    linked.sandbox.change_customer(linked.sandbox.demo["gcid"], quota_used=10)
    for vin in (I4, X3):
        await read(linked, vin)
    three_may_charge = await wanted_s(linked, X3)
    await charge(linked, d.CHARGING_ACTIVE)
    one_charges = await wanted_s(linked, X3)
    await charge(linked, "NOCHARGING")
    one_has_charged = await wanted_s(linked, X3)
    await read(linked, X1)
    one_has_no_battery = await wanted_s(linked, X3)

    assert three_may_charge > one_charges > one_has_no_battery
    assert three_may_charge > one_has_charged > one_has_no_battery


async def test_a_charge_of_yesterday_says_nothing_of_today(linked: Bench) -> None:
    await read(linked)
    await charge(linked, d.CHARGING_ACTIVE)
    await charge(linked, "NOCHARGING")
    charged = await wanted_s(linked, I4)
    linked.advance(13 * 3_600)
    await read(linked)

    assert await wanted_s(linked, I4) < charged
