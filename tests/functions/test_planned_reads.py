"""Reads from a maker who rations requests: made when they are worth it, and what is known serves in between."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from common.clock import ManualClock
from common.errors import QuotaLimitExceeded
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
    known: Snapshot | None = None
    planned: list[str] = field(default_factory=list)

    async def plan(self, account: Account, vehicle: Vehicle, held: Snapshot | None, *, forced: bool) -> ReadPlan:
        age_s = None if held is None else (self.clock.utc() - held.fetched_at).total_seconds()
        is_worth_it = not self.is_used_up and (forced or age_s is None or age_s >= self.worth_it_s)
        self.planned.append("poll" if is_worth_it else "cache")
        return ReadPlan("poll" if is_worth_it else "cache", int(is_worth_it), self.worth_it_s, "Because.")

    async def recall(self, account: Account, vehicle: Vehicle) -> Snapshot | None:
        return self.known

    async def quota(self, account: Account) -> Mapping[str, Any]:
        return {}

    async def read_vehicle(self, account: Account, vehicle: Vehicle, *, forced: bool = False) -> Snapshot:
        self.known = await self.maker.read_vehicle(account, vehicle, forced=forced)
        return self.known

    async def list_vehicles(self, account: Account) -> tuple[Vehicle, ...]:
        return await self.maker.list_vehicles(account)


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


async def test_younger_data_than_are_known_are_not_made_up(owner: Driver, clock: ManualClock) -> None:
    await owner.world.vehicles.snapshot(owner.link, owner.vehicle)
    clock.advance(60)
    with pytest.raises(QuotaLimitExceeded, match="Because"):
        await owner.world.vehicles.snapshot(owner.link, owner.vehicle, Freshness(max_age_s=30, is_callers=True))
