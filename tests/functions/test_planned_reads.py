"""Reads from a maker who rations requests: made when they are worth it, and what is known serves in between."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pytest

from common.clock import ManualClock
from common.errors import ApiError, UpstreamError, UpstreamTimeout
from common.stores.documents import Documents
from functions.providers.port import Account, ReadPlan, Vehicle
from functions.snapshot import Snapshot
from functions.vehicles import Freshness
from tests.support.driver import Driver, drive
from tests.support.fake_provider import FakeMaker
from tests.support.world import READ_TTL_S, build_world

WORTH_IT_S = READ_TTL_S + 100


@dataclass
class Rationing:
    """Plans a request where what is known is so old. It knows what the maker answered last."""

    clock: ManualClock
    maker: FakeMaker
    worth_it_s: float = WORTH_IT_S
    is_used_up: bool = False
    is_streamed: bool = False
    because: Literal["used_up", "failed", "paced"] = "paced"
    known: Snapshot | None = None
    quota_fails: ApiError | None = None
    planned: list[str] = field(default_factory=list)

    async def plan(self, account: Account, vehicle: Vehicle, held: Snapshot | None, *, forced: bool) -> ReadPlan:
        age_s = None if held is None else (self.clock.utc() - held.fetched_at).total_seconds()
        is_worth_it = not self.is_used_up and (forced or age_s is None or age_s >= self.worth_it_s)
        source: Literal["cache", "stream", "poll"] = (
            "poll" if is_worth_it else "stream" if self.is_streamed else "cache"
        )
        self.planned.append(source)
        cost = int(is_worth_it)
        return ReadPlan(source, cost, self.worth_it_s, "Because.", because=self.because, retry_after_s=40)

    async def recall(self, account: Account, vehicle: Vehicle) -> Snapshot | None:
        return self.known

    async def quota(self, account: Account) -> Mapping[str, Any]:
        if self.quota_fails is not None:
            raise self.quota_fails
        return {}

    async def read_vehicle(self, account: Account, vehicle: Vehicle, *, forced: bool = False) -> Snapshot:
        self.known = await self.maker.read_vehicle(account, vehicle, forced=forced)
        return self.known

    async def list_vehicles(self, account: Account, *, forced: bool = False) -> tuple[Vehicle, ...]:
        return await self.maker.list_vehicles(account, forced=forced)


@pytest.fixture
def rationing(clock: ManualClock, maker: FakeMaker) -> Rationing:
    return Rationing(clock, maker)


@pytest.fixture
async def owner(documents: Documents, clock: ManualClock, maker: FakeMaker, rationing: Rationing) -> Driver:
    offered = replace(maker.provider(), reads=rationing, planner=rationing)
    return await drive(build_world(documents, clock, maker, provider=offered))


async def test_a_read_is_made_when_it_is_worth_it_and_not_when_the_cache_next_looks(
    owner: Driver, clock: ManualClock, maker: FakeMaker
) -> None:
    made_at = []
    began_s = clock.monotonic()
    for _ in range(100):
        before = maker.calls["read_vehicle"]
        await owner.world.vehicles.snapshot(owner.link, owner.vehicle)
        if maker.calls["read_vehicle"] > before:
            made_at.append(clock.monotonic() - began_s)
        clock.advance(10)
    assert made_at == [0, WORTH_IT_S, 2 * WORTH_IT_S]


async def test_in_between_planning_is_rare(owner: Driver, clock: ManualClock, rationing: Rationing) -> None:
    for _ in range(40):
        await owner.world.vehicles.snapshot(owner.link, owner.vehicle)
        clock.advance(10)
    assert rationing.planned == ["poll", "cache"]


async def test_what_is_older_than_a_plan_wants_is_held_as_long_as_ever(
    owner: Driver, clock: ManualClock, rationing: Rationing
) -> None:
    await owner.world.vehicles.snapshot(owner.link, owner.vehicle)
    clock.advance(2 * WORTH_IT_S)

    rationing.is_used_up = True
    rationing.planned.clear()
    for _ in range(10):
        hit = await owner.world.vehicles.snapshot(owner.link, owner.vehicle)
        assert hit.age_s >= 2 * WORTH_IT_S
        clock.advance(10)
    assert rationing.planned == ["cache"]


@pytest.mark.parametrize(
    ("because", "code"),
    [("used_up", "QUOTA_LIMIT_EXCEEDED"), ("failed", "UPSTREAM_ERROR"), ("paced", "RATE_LIMIT_EXCEEDED")],
)
async def test_younger_data_than_are_known_are_not_made_up_and_the_refusal_says_why_and_for_how_long(
    owner: Driver, clock: ManualClock, rationing: Rationing, because: Any, code: str
) -> None:
    await owner.world.vehicles.snapshot(owner.link, owner.vehicle)
    clock.advance(60)
    rationing.because = because
    with pytest.raises(ApiError, match="Because") as refused:
        await owner.world.vehicles.snapshot(owner.link, owner.vehicle, Freshness(max_age_s=30, is_callers=True))
    assert (refused.value.code, refused.value.retry_after_s) == (code, 40)


async def test_what_is_streamed_is_seen_within_seconds_without_being_announced(
    owner: Driver, clock: ManualClock, rationing: Rationing
) -> None:
    first = (await owner.world.vehicles.snapshot(owner.link, owner.vehicle)).value
    clock.advance(READ_TTL_S)
    rationing.is_streamed = True
    await owner.world.vehicles.snapshot(owner.link, owner.vehicle)
    rationing.known = replace(first, fetched_at=clock.utc(), mileage_km=4_711)
    clock.advance(3)

    hit = await owner.world.vehicles.snapshot(owner.link, owner.vehicle)

    assert hit.value.mileage_km == 4_711


@pytest.mark.parametrize("failure", [UpstreamError(), UpstreamTimeout()])
async def test_while_the_maker_is_down_what_is_known_answers_whoever_names_no_age(
    owner: Driver, clock: ManualClock, maker: FakeMaker, rationing: Rationing, failure: ApiError
) -> None:
    first = await owner.world.vehicles.snapshot(owner.link, owner.vehicle)
    clock.advance(2 * WORTH_IT_S)
    owner.world.vehicles.forget_snapshots(owner.link.account.id)
    maker.then("read_vehicle", failure, failure)

    hit = await owner.world.vehicles.snapshot(owner.link, owner.vehicle)
    with pytest.raises(type(failure)):
        await owner.world.vehicles.snapshot(owner.link, owner.vehicle, Freshness(max_age_s=0, is_callers=True))

    assert (hit.value, hit.age_s) == (first.value, 2 * WORTH_IT_S)
    assert (hit.stale, hit.loaded) == (True, False)


async def test_a_ration_that_cannot_be_told_costs_no_answer(owner: Driver, rationing: Rationing) -> None:
    rationing.quota_fails = UpstreamError()

    assert await owner.world.vehicles.quota(owner.link) is None
