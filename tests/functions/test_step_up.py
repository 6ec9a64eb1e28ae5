"""Dry runs, confirmations and caps: more than a valid request for the commands that hurt most."""

import asyncio
import contextlib
from dataclasses import replace
from typing import Any

import pytest

from common.clock import ManualClock
from common.errors import (
    ConfirmationRequired,
    RateLimitExceeded,
    ValidationFailed,
)
from common.stores.documents import VersionConflict
from functions.command_record import Record
from functions.idempotency import fingerprint
from functions.links import Link
from functions.providers.port import Command, CommandName
from functions.snapshot import Capabilities
from functions.step_up import CODE_TTL_S
from tests.support.driver import Driver, drive
from tests.support.fake_provider import FIRST, FakeMaker
from tests.support.tapped_documents import TappedDocuments, When, failing
from tests.support.world import ME, STRANGER, build_world


async def dry(driver: Driver, name: str = "unlock", params: dict[str, Any] | None = None) -> dict[str, Any]:
    return await driver.world.commands.dry_run(driver.link, driver.vehicle, Command(CommandName(name), params or {}))


async def test_a_dry_run_sends_and_records_nothing(driver: Driver, maker: FakeMaker) -> None:
    shown = await dry(driver, "charging_settings", {"target_soc": 80})
    assert shown == {
        "dry_run": True,
        "would_send": {"operation": "charging_settings", "params": {"target_soc": 80}},
        "would_be_sent": True,
        "preconditions": [
            {"name": "vehicle_allows_it", "met": True, "reason": None},
            {"name": "no_command_in_flight", "met": True, "reason": None},
        ],
        "confirm": None,
    }
    assert (maker.calls["send"], await driver.stored()) == (0, [])


async def test_a_dry_run_names_what_stands_in_the_way(driver: Driver, maker: FakeMaker) -> None:
    await driver.request("lock")
    car = maker.cars[0]
    car.snapshot = replace(car.snapshot, capabilities=Capabilities())
    shown = await dry(driver)
    assert shown["would_be_sent"] is False
    allowed, in_flight = shown["preconditions"]
    assert (allowed["met"], allowed["code"]) == (False, "NOT_SUPPORTED")
    assert (in_flight["met"], in_flight["reason"]) == (False, "lock is in flight")


async def test_a_dry_run_names_a_value_that_the_car_does_not_take(driver: Driver, maker: FakeMaker) -> None:
    problem = {"path": "params.ac_limit", "problem": "is none of 6, 16"}

    class Picky(FakeMaker):
        def check(self, command: Command, snapshot: object) -> None:
            raise ValidationFailed(details={"fields": [problem]})

    picky = Picky(driver.world.clock)
    world = build_world(driver.world.documents, driver.world.clock, picky)
    shown = await dry(Driver(world, driver.link, driver.vehicle))
    assert shown["preconditions"][0]["reason"] == "is none of 6, 16"


@pytest.fixture
async def guarded(tapped: TappedDocuments, clock: ManualClock, maker: FakeMaker) -> Driver:
    """A deployment where unlocking needs a code and is capped."""
    return await drive(
        build_world(tapped, clock, maker, confirm=frozenset({"unlock"}), caps_per_hour={"unlock": 2, "horn": 0})
    )


async def code_of(driver: Driver, name: str = "unlock") -> str:
    code: str = (await dry(driver, name))["confirm"]["code"]
    return code


async def test_a_code_from_a_dry_run_lets_the_command_through_once(guarded: Driver, maker: FakeMaker) -> None:
    with pytest.raises(ConfirmationRequired):
        await guarded.request("unlock")
    maker.locks("UNLOCKED")
    code = await code_of(guarded)
    assert (await guarded.request("unlock", code=code, wait_s=10)).record.is_final
    with pytest.raises(ConfirmationRequired):
        await guarded.request("unlock", code=code, key="another")
    assert maker.calls["send"] == 1


async def test_a_code_used_by_two_at_once_works_once(
    guarded: Driver, maker: FakeMaker, tapped: TappedDocuments
) -> None:
    record = await a_record(guarded, "unlock")
    step_up = guarded.world.step_up
    code = (await step_up.issue(record)).code
    reading = 0
    both = asyncio.Event()

    async def meet(when: When, operation: str, key: str) -> None:
        nonlocal reading
        if (when, operation) == (When.AFTER, "get") and key.startswith("confirmations/"):
            reading += 1
            if reading == 2:
                both.set()
            await both.wait()

    tapped.tap = meet
    outcomes = await asyncio.gather(*(step_up.spend(record, code) for _ in range(2)), return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["ConfirmationRequired", "NoneType"]


class Forgiving(TappedDocuments):
    """A store that lost a reply and so takes what is not there any more for what it has removed itself."""

    async def delete(self, key: str, version: str | None = None) -> bool:
        with contextlib.suppress(VersionConflict):
            await super().delete(key, version)
        return True


async def test_a_code_used_by_two_at_once_works_once_even_where_both_are_told_that_they_removed_it(
    tapped: TappedDocuments, clock: ManualClock, maker: FakeMaker
) -> None:
    forgiving = Forgiving(tapped.inner)
    guarded = await drive(build_world(forgiving, clock, maker, confirm=frozenset({"unlock"})))
    await test_a_code_used_by_two_at_once_works_once(guarded, maker, forgiving)


async def test_a_code_that_was_spent_and_could_not_be_removed_is_spent(
    guarded: Driver, tapped: TappedDocuments
) -> None:
    record = await a_record(guarded, "unlock")
    step_up = guarded.world.step_up
    code = (await step_up.issue(record)).code
    tapped.tap = failing(1, "delete", "confirmations/")
    await step_up.spend(record, code)
    with pytest.raises(ConfirmationRequired):
        await step_up.spend(record, code)


async def a_record(driver: Driver, name: str) -> Record:
    """What a request for this command would be recorded as."""
    link: Link = driver.link
    now = driver.world.clock.utc()
    command = Command(CommandName(name))
    return Record(
        "cmd_x_y", link.principal, link.account.id, FIRST, "a-car", command,
        fingerprint(link.account.id, FIRST, command), now, now, now,
    )  # fmt: skip


@pytest.mark.parametrize("code", ["A" * 22, ""])
async def test_a_wrong_code_is_no_code(guarded: Driver, maker: FakeMaker, code: str) -> None:
    await code_of(guarded)
    with pytest.raises(ConfirmationRequired):
        await guarded.request("unlock", code=code)
    assert maker.calls["send"] == 0


async def test_a_code_ends_after_two_minutes(guarded: Driver, clock: ManualClock) -> None:
    code = await code_of(guarded)
    clock.advance(CODE_TTL_S)
    with pytest.raises(ConfirmationRequired):
        await guarded.request("unlock", code=code)


async def test_a_code_is_for_one_caller(guarded: Driver) -> None:
    code = await code_of(guarded)
    stranger = Driver(guarded.world, await guarded.world.placed(STRANGER), guarded.vehicle)
    with pytest.raises(ConfirmationRequired):
        await stranger.request("unlock", code=code)


async def test_codes_are_not_stored(guarded: Driver) -> None:
    code = await code_of(guarded)
    documents = guarded.world.documents
    keys = await documents.list("")
    assert code not in repr(keys) + repr([(await documents.get(key)) and key for key in keys])
    held = [await documents.get(key) for key in keys]
    assert code not in repr([document.body for document in held if document is not None])


async def test_commands_that_need_no_code_take_none(guarded: Driver) -> None:
    assert (await dry(guarded, "lock"))["confirm"] is None
    assert not (await guarded.request("lock")).deduplicated


async def test_a_cap_counts_what_is_sent_within_the_hour(guarded: Driver, maker: FakeMaker, clock: ManualClock) -> None:
    maker.locks("UNLOCKED")
    for _ in range(2):
        assert not (await guarded.request("unlock", code=await code_of(guarded), wait_s=10)).deduplicated
        clock.advance(60)
    shown = await dry(guarded)
    assert shown["preconditions"][-1] == {"name": "within_hourly_cap", "met": False, "reason": "0 left this hour"}
    assert shown["confirm"] is None
    clock.advance(3_600 - 140)
    code = await code_of_capped(guarded)
    with pytest.raises(RateLimitExceeded) as failed:
        await guarded.request("unlock", code=code)
    assert failed.value.retry_after_s is not None
    assert 0 < failed.value.retry_after_s <= 20
    assert maker.calls["send"] == 2
    clock.advance(failed.value.retry_after_s)
    assert not (await guarded.request("unlock", code=await code_of(guarded))).deduplicated


async def test_a_cap_is_the_vehicles_whoever_has_linked_it_and_however_often(
    tapped: TappedDocuments, clock: ManualClock, maker: FakeMaker
) -> None:
    maker.locks("UNLOCKED")
    world = build_world(tapped, clock, maker, caps_per_hour={"unlock": 1})
    first = await drive(world)
    assert (await first.request("unlock", wait_s=10)).record.is_final
    await world.accounts.disconnect(first.link)
    for principal in (ME, STRANGER):
        other = Driver(world, await world.placed(principal), first.vehicle)
        with pytest.raises(RateLimitExceeded):
            await other.request("unlock")
    assert maker.calls["send"] == 1


async def code_of_capped(driver: Driver) -> str:
    """A code that was given out before the cap was reached."""
    issued = await driver.world.step_up.issue(await a_record(driver, "unlock"))
    return issued.code


async def test_a_cap_of_none_forbids(guarded: Driver, maker: FakeMaker) -> None:
    with pytest.raises(RateLimitExceeded):
        await guarded.request("horn")
    assert maker.calls["send"] == 0


async def test_many_at_once_do_not_slip_under_the_cap(guarded: Driver, tapped: TappedDocuments) -> None:
    record = await a_record(guarded, "unlock")
    step_up = guarded.world.step_up
    outcomes = await asyncio.gather(*(step_up.count(record) for _ in range(10)), return_exceptions=True)
    assert outcomes.count(None) == 2
