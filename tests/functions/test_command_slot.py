"""One command in flight a vehicle."""

import asyncio
from typing import Any

import pytest

from common.clock import ManualClock
from common.errors import (
    CommandInProgress,
    UpstreamError,
)
from functions.command_slot import SLOT_S
from functions.providers.port import Command, CommandName, Outcome, Progress
from tests.support.driver import Driver
from tests.support.fake_provider import SECOND, FakeMaker, fake_car
from tests.support.tapped_documents import TappedDocuments, When, failing
from tests.support.world import STRANGER


async def test_one_command_is_in_flight_a_vehicle(driver: Driver, second: Driver, maker: FakeMaker) -> None:
    maker.then("poll", *[Progress(Outcome.PENDING) for _ in range(2)])
    await driver.request("lock")
    for instance in (driver, second):
        with pytest.raises(CommandInProgress) as failed:
            await instance.request("flash")
        assert failed.value.details == {"operation": "lock"}
        assert failed.value.retry_after_s == 5
    assert maker.calls["send"] == 1


async def test_one_command_is_in_flight_a_vehicle_whoever_has_linked_it(driver: Driver, maker: FakeMaker) -> None:
    stranger = Driver(driver.world, await driver.world.placed(STRANGER), driver.vehicle)
    await driver.request("lock")
    with pytest.raises(CommandInProgress) as failed:
        await stranger.request("unlock")
    assert failed.value.details == {}
    assert (maker.calls["send"], maker.calls["poll"]) == (1, 0)
    shown = await stranger.world.commands.dry_run(stranger.link, stranger.vehicle, Command(CommandName.UNLOCK))
    assert shown["preconditions"][1]["reason"] == "another command is in flight"
    # It is for its own caller to ask how it ended.
    (sent,) = await driver.stored()
    assert (await driver.status(sent)).is_over
    assert not (await stranger.request("unlock")).deduplicated


async def test_a_vehicle_stays_held_although_the_account_that_holds_it_ends(
    driver: Driver, maker: FakeMaker, clock: ManualClock
) -> None:
    await driver.request("lock")
    await driver.world.accounts.disconnect(driver.link)
    again = Driver(driver.world, await driver.world.placed(), driver.vehicle)
    with pytest.raises(CommandInProgress):
        await again.request("unlock")
    clock.advance(SLOT_S)
    assert not (await again.request("unlock")).deduplicated


async def test_another_vehicle_is_not_held_up(driver: Driver, maker: FakeMaker, clock: ManualClock) -> None:
    maker.cars.append(fake_car(SECOND))
    await driver.request("lock")
    clock.advance(301)
    other = Driver(driver.world, driver.link, await driver.world.vehicles.find(driver.link, SECOND))
    assert not (await other.request("flash")).deduplicated


async def test_the_next_command_may_go_as_soon_as_the_maker_has_ended_the_first(
    driver: Driver, maker: FakeMaker
) -> None:
    await driver.request("lock")
    assert (await driver.request("flash")).record.command.name is CommandName.FLASH
    assert maker.calls["poll"] == 1


async def test_a_failed_command_frees_the_vehicle(driver: Driver, maker: FakeMaker) -> None:
    def refuse(_permit: Any) -> Any:
        raise UpstreamError

    maker.then("send", refuse)
    with pytest.raises(UpstreamError):
        await driver.request("lock")
    assert await driver.world.documents.list("slots") == []
    assert not (await driver.request("flash")).deduplicated


async def test_a_vehicle_is_not_held_for_ever(
    driver: Driver, maker: FakeMaker, clock: ManualClock, tapped: TappedDocuments
) -> None:
    maker.then("poll", *[UpstreamError() for _ in range(3)])
    await driver.request("lock")
    with pytest.raises(CommandInProgress):
        await driver.request("flash")
    maker.then("poll", *[Progress(Outcome.PENDING) for _ in range(100)])
    clock.advance(SLOT_S)
    assert not (await driver.request("flash")).deduplicated


async def test_a_slot_whose_command_was_never_recorded_is_held_until_its_time_is_up(
    driver: Driver, second: Driver, tapped: TappedDocuments, clock: ManualClock
) -> None:
    reached = asyncio.Event()

    async def hang(when: When, operation: str, key: str) -> None:
        if (when, operation) == (When.BEFORE, "create") and key.startswith("commands/"):
            reached.set()
            await asyncio.Event().wait()

    tapped.tap = hang
    dead = asyncio.create_task(driver.request("lock"))
    await reached.wait()
    tapped.tap = failing(0, "")
    with pytest.raises(CommandInProgress):
        await second.request("flash")
    clock.advance(SLOT_S)
    assert not (await second.request("flash")).deduplicated
    dead.cancel()
    await asyncio.gather(dead, return_exceptions=True)


async def test_of_two_different_commands_at_once_one_is_sent(driver: Driver, second: Driver, maker: FakeMaker) -> None:
    maker.then("poll", *[Progress(Outcome.PENDING) for _ in range(10)])
    outcomes = await asyncio.gather(driver.request("lock"), second.request("unlock"), return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["CommandInProgress", "Sent"]
    assert maker.calls["send"] == 1


async def test_a_slot_that_another_command_has_by_now_is_left_to_it(
    driver: Driver, clock: ManualClock, maker: FakeMaker
) -> None:
    maker.then("poll", *[Progress(Outcome.PENDING) for _ in range(2)])
    first = await driver.send("lock")
    clock.advance(SLOT_S)
    maker.then("poll", Progress(Outcome.PENDING))
    await driver.send("flash")
    held = await driver.world.documents.list("slots")
    await driver.world.ledger.advance(first, state="failed")
    assert await driver.world.documents.list("slots") == held


async def test_a_slot_taken_over_while_it_is_given_back_stays_taken(driver: Driver, tapped: TappedDocuments) -> None:
    first = await driver.send("lock")

    async def overtake(when: When, operation: str, key: str) -> None:
        if (when, operation) == (When.BEFORE, "delete") and key.startswith("slots/"):
            tapped.tap = failing(0, "")
            held = await tapped.get(key)
            assert held is not None
            await tapped.replace(held, {**held.body, "command_id": "cmd_other"})

    tapped.tap = overtake
    await driver.world.ledger.advance(first, state="failed")
    assert len(await tapped.list("slots")) == 1
