"""One request, one command: with a key, and for a short time without one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from common.clock import ManualClock
from common.errors import (
    ApiError,
    IdempotencyInFlight,
    IdempotencyMismatch,
    NotSupported,
    UpstreamError,
    ValidationFailed,
)
from common.stores.documents import Documents
from functions.idempotency import KEY_TTL_S, REPEAT_WINDOW_S, fingerprint
from functions.links import identity_of
from functions.providers.port import Command, CommandName, Region
from functions.snapshot import Capabilities
from tests.support.driver import Driver, drive
from tests.support.fake_provider import FIRST, SECOND, FakeMaker
from tests.support.tapped_documents import TappedDocuments, When, failing
from tests.support.world import STRANGER, build_world


@asynccontextmanager
async def sending(driver: Driver, maker: FakeMaker, **how: Any) -> AsyncIterator["asyncio.Task[Any]"]:
    """A command that the maker has received and not answered; it is answered at the end of the block."""
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        del maker.before["send"]
        asked.set()
        await answer.wait()

    maker.before["send"] = slow
    task = asyncio.create_task(driver.request(**how))
    await asked.wait()
    yield task
    answer.set()
    await asyncio.wait({task})


# --- keys -------------------------------------------------------------------------------------------------------------


async def test_one_key_is_one_command_whatever_has_become_of_it(
    driver: Driver, second: Driver, maker: FakeMaker
) -> None:
    first = await driver.request(key="a-key")
    for instance in (driver, second):
        again = await instance.request(key="a-key")
        assert (again.deduplicated, again.record.id) == (True, first.record.id)
    done = await driver.request(key="a-key", wait_s=10)
    assert (done.deduplicated, done.record.state) == (True, "confirmed")
    assert (await second.request(key="a-key")).record.state == "confirmed"
    assert maker.calls["send"] == 1


async def test_a_key_lasts_a_day(driver: Driver, maker: FakeMaker, clock: ManualClock) -> None:
    first = await driver.request(key="a-key", wait_s=10)
    clock.advance(KEY_TTL_S - 60)
    assert (await driver.request(key="a-key")).deduplicated
    clock.advance(60)
    again = await driver.request(key="a-key")
    assert (again.deduplicated, again.record.id != first.record.id) == (False, True)


@pytest.mark.parametrize(
    ("name", "params"), [("unlock", {}), ("charging_settings", {"target_soc": 85}), ("lock", {"x": 1})]
)
async def test_a_key_is_for_one_meaning(driver: Driver, maker: FakeMaker, name: str, params: dict[str, Any]) -> None:
    await driver.request("charging_settings", {"target_soc": 80}, key="a-key", wait_s=10)
    with pytest.raises(IdempotencyMismatch):
        await driver.request(name, params, key="a-key")
    assert maker.calls["send"] == 1


async def test_a_key_is_for_one_account_too(driver: Driver, maker: FakeMaker) -> None:
    await driver.request("unlock", key="a-key", wait_s=10)
    identity = identity_of(driver.link.principal, "mybmw", Region.REST_OF_WORLD, "another@example.com")
    account = replace(driver.link.account, id=await driver.world.links.account_id_for(identity))
    link = replace(driver.link, account=account, identity=identity)
    await driver.world.links.put(link)
    with pytest.raises(IdempotencyMismatch):
        await Driver(driver.world, link, driver.vehicle).request("unlock", key="a-key")
    assert maker.calls["send"] == 1


async def test_a_key_stays_used_when_its_account_is_disconnected_and_linked_again(
    driver: Driver, maker: FakeMaker, clock: ManualClock
) -> None:
    await driver.request("unlock", key="a-key", wait_s=10)
    await driver.world.accounts.disconnect(driver.link)
    again = Driver(driver.world, await driver.world.placed(), driver.vehicle)
    clock.advance(3_600)
    with pytest.raises(IdempotencyMismatch):
        await again.request("unlock", key="a-key")
    assert maker.calls["send"] == 1


async def test_anothers_equal_key_has_nothing_to_do_with_it(driver: Driver, maker: FakeMaker) -> None:
    await driver.request(key="a-key", wait_s=10)
    stranger = Driver(driver.world, await driver.world.placed(STRANGER), driver.vehicle)
    assert not (await stranger.request("flash", key="a-key")).deduplicated


# --- batches ----------------------------------------------------------------------------------------------------------


LOCK = {"action": "lock", "params": {}}
UNLOCK = {"action": "unlock", "params": {"target": 10**30}}


async def test_a_batchs_key_is_for_its_parts_in_their_order(driver: Driver, second: Driver) -> None:
    me = driver.link.principal
    await driver.world.commands.bind_batch(me, "a-key", [LOCK, UNLOCK])
    await second.world.commands.bind_batch(me, "a-key", [LOCK, dict(reversed(UNLOCK.items()))])
    for other in ([UNLOCK, LOCK], [LOCK], [LOCK, UNLOCK, LOCK], []):
        with pytest.raises(IdempotencyMismatch):
            await second.world.commands.bind_batch(me, "a-key", other)
    await driver.world.commands.bind_batch(STRANGER, "a-key", [UNLOCK])


async def test_a_key_is_for_a_batch_or_for_one_command(driver: Driver, maker: FakeMaker) -> None:
    me = driver.link.principal
    await driver.world.commands.bind_batch(me, "a-batch", [LOCK])
    with pytest.raises(IdempotencyMismatch):
        await driver.request(key="a-batch")
    await driver.request(key="a-command", wait_s=10)
    with pytest.raises(IdempotencyMismatch):
        await driver.world.commands.bind_batch(me, "a-command", [LOCK])
    assert maker.calls["send"] == 1


async def test_a_batchs_key_lasts_a_day(driver: Driver, clock: ManualClock) -> None:
    await driver.world.commands.bind_batch("me", "a-key", [LOCK])
    clock.advance(KEY_TTL_S)
    await driver.world.commands.bind_batch("me", "a-key", [UNLOCK])


async def test_a_key_whose_command_is_being_sent_is_in_flight(driver: Driver, second: Driver, maker: FakeMaker) -> None:
    async with sending(driver, maker, key="a-key") as first:
        with pytest.raises(IdempotencyInFlight) as failed:
            await second.request(key="a-key")
        assert failed.value.retry_after_s == 1
    assert first.result().record.id == failed.value.details["command_id"]
    assert maker.calls["send"] == 1


async def test_who_asks_again_for_what_a_dead_process_was_sending_is_told_that_nobody_knows(
    driver: Driver, second: Driver, maker: FakeMaker, clock: ManualClock
) -> None:
    async with sending(driver, maker, key="a-key"):
        clock.advance(30)
        with pytest.raises(IdempotencyInFlight):  # its process may be about to write down what it knows
            await second.request(key="a-key")
        clock.advance(60)
        again = await second.request(key="a-key")
        assert again.record.state == "unknown"
    assert maker.calls["send"] == 1


async def test_a_failed_command_repeats_its_error_for_its_key_and_sends_nothing(
    driver: Driver, second: Driver, maker: FakeMaker
) -> None:
    def lose(permit: Any) -> Any:
        permit.take()
        raise UpstreamError("Ours.", retry_after_s=3, may_have_succeeded=True)

    maker.then("send", lose)
    with pytest.raises(UpstreamError) as first:
        await driver.request(key="a-key")
    with pytest.raises(UpstreamError) as again:
        await second.request(key="a-key")
    repeated = again.value
    assert (repeated.message, repeated.retry_after_s, repeated.may_have_succeeded) == ("Ours.", 3, True)
    assert repeated.details == {**first.value.details, "deduplicated": True}
    assert maker.calls["send"] == 1


@pytest.mark.parametrize("key", [None, "a-key"])
async def test_a_request_refused_before_anything_was_sent_may_be_made_again(
    driver: Driver, maker: FakeMaker, key: str | None
) -> None:
    car = maker.cars[0]
    able = car.snapshot
    car.snapshot = replace(able, capabilities=Capabilities())
    with pytest.raises(NotSupported):
        await driver.request(key=key)
    car.snapshot = able
    await driver.world.vehicles.changed(driver.link.account.id, FIRST)
    assert not (await driver.request(key=key)).deduplicated


async def test_giving_a_key_back_may_fail_and_the_refusal_is_still_told(
    driver: Driver, maker: FakeMaker, tapped: TappedDocuments, clock: ManualClock
) -> None:
    maker.cars[0].snapshot = replace(maker.cars[0].snapshot, capabilities=Capabilities())
    tapped.tap = failing(1, "delete", "claims/")
    with pytest.raises(NotSupported):
        await driver.request(key="a-key")
    with pytest.raises(IdempotencyInFlight):
        await driver.request(key="a-key")
    clock.advance(60)
    with pytest.raises(NotSupported):
        await driver.request(key="a-key")


async def test_a_claim_that_somebody_took_over_is_not_given_up(
    driver: Driver, second: Driver, maker: FakeMaker, tapped: TappedDocuments, clock: ManualClock
) -> None:
    maker.cars[0].snapshot = replace(maker.cars[0].snapshot, capabilities=Capabilities())

    async def overtake(when: When, operation: str, key: str) -> None:
        if (when, operation) == (When.BEFORE, "delete") and key.startswith("claims/"):
            tapped.tap = failing(0, "")
            held = await tapped.get(key)
            assert held is not None
            await tapped.replace(held, {**held.body, "command_id": "cmd_other"})

    tapped.tap = overtake
    with pytest.raises(NotSupported):
        await driver.request(key="a-key")
    (claim,) = await tapped.list("claims")
    held = await tapped.get(claim)
    assert held is not None
    assert held.body["command_id"] == "cmd_other"


async def test_a_claim_whose_process_died_before_it_recorded_anything_is_free_after_a_minute(
    driver: Driver, second: Driver, maker: FakeMaker, tapped: TappedDocuments, clock: ManualClock
) -> None:
    reached = asyncio.Event()

    async def hang(when: When, operation: str, key: str) -> None:
        if (when, operation) == (When.BEFORE, "create") and key.startswith("slots/"):
            reached.set()
            await asyncio.Event().wait()

    tapped.tap = hang
    dead = asyncio.create_task(driver.request(key="a-key"))
    await reached.wait()
    tapped.tap = failing(0, "")
    clock.advance(59)
    with pytest.raises(IdempotencyInFlight):
        await second.request(key="a-key")
    clock.advance(1)
    outcomes = await asyncio.gather(*(second.request(key="a-key") for _ in range(10)), return_exceptions=True)
    sent = [outcome for outcome in outcomes if not isinstance(outcome, ApiError)]
    assert len(sent) >= 1
    assert maker.calls["send"] == 1
    dead.cancel()
    await asyncio.gather(dead, return_exceptions=True)


async def test_an_abandoned_claim_that_goes_while_it_is_taken_over_is_in_flight(
    driver: Driver, maker: FakeMaker, tapped: TappedDocuments, clock: ManualClock
) -> None:
    maker.cars[0].snapshot = replace(maker.cars[0].snapshot, capabilities=Capabilities())
    tapped.tap = failing(1, "delete", "claims/")
    with pytest.raises(NotSupported):
        await driver.request(key="a-key")
    clock.advance(60)

    async def take_it_away(when: When, operation: str, key: str) -> None:
        if (when, operation) == (When.BEFORE, "get") and key.startswith("commands/"):
            tapped.tap = failing(0, "")
            (claim,) = await tapped.list("claims")
            await tapped.delete(claim)

    tapped.tap = take_it_away
    with pytest.raises(IdempotencyInFlight):
        await driver.request(key="a-key")


async def test_many_requests_with_one_key_at_two_instances_send_once(
    driver: Driver, second: Driver, maker: FakeMaker
) -> None:
    outcomes = await asyncio.gather(
        *(instance.request(key="a-key") for instance in (driver, second) for _ in range(20)), return_exceptions=True
    )
    assert maker.calls["send"] == 1
    assert {type(outcome) for outcome in outcomes if isinstance(outcome, BaseException)} <= {IdempotencyInFlight}
    assert len(await driver.stored()) == 1


async def test_a_deployment_may_demand_a_key(documents: Documents, clock: ManualClock, maker: FakeMaker) -> None:
    driver = await drive(build_world(documents, clock, maker, require_key=True))
    with pytest.raises(ValidationFailed) as failed:
        await driver.request()
    assert failed.value.details["fields"][0]["path"] == "Idempotency-Key"
    assert maker.calls["send"] == 0
    assert not (await driver.request(key="a-key")).deduplicated


# --- without keys -----------------------------------------------------------------------------------------------------


async def test_the_same_command_within_fifteen_seconds_is_the_same_command(
    driver: Driver, second: Driver, maker: FakeMaker, clock: ManualClock
) -> None:
    first = await driver.request(wait_s=1)
    clock.advance(REPEAT_WINDOW_S - 1.1)
    again = await second.request()
    assert (again.deduplicated, again.record.id) == (True, first.record.id)
    clock.advance(0.1)
    assert not (await driver.request()).deduplicated
    assert maker.calls["send"] == 2


async def test_another_callers_same_command_is_another_command(driver: Driver, maker: FakeMaker) -> None:
    await driver.request(wait_s=10)
    stranger = Driver(driver.world, await driver.world.placed(STRANGER), driver.vehicle)
    assert not (await stranger.request()).deduplicated


async def test_a_command_that_provably_did_nothing_may_be_repeated_at_once_without_a_key(
    driver: Driver, maker: FakeMaker
) -> None:
    def refuse(_permit: Any) -> Any:
        raise UpstreamError

    maker.then("send", refuse)
    with pytest.raises(UpstreamError):
        await driver.request()
    assert not (await driver.request()).deduplicated
    assert len(maker.sent) == 1


async def test_a_command_that_may_have_happened_may_not(driver: Driver, maker: FakeMaker) -> None:
    def lose(permit: Any) -> Any:
        permit.take()
        raise UpstreamError(may_have_succeeded=True)

    maker.then("send", lose)
    for _ in range(2):
        with pytest.raises(UpstreamError) as failed:
            await driver.request()
        assert failed.value.may_have_succeeded
    assert maker.calls["send"] == 1


def test_a_meaning_is_the_same_in_any_order_and_differs_with_everything_that_counts() -> None:
    def of(params: dict[str, Any], vin: str = FIRST, account: str = "acc_1", name: str = "charging_settings") -> str:
        return fingerprint(account, vin, Command(CommandName(name), params))

    meaning = of({"target_soc": 80, "ac_limit": 16})
    assert of({"ac_limit": 16, "target_soc": 80}) == meaning
    others = [
        of({"target_soc": 80}),
        of({"target_soc": 85, "ac_limit": 16}),
        of({"target_soc": 80, "ac_limit": 16}, vin=SECOND),
        of({"target_soc": 80, "ac_limit": 16}, account="acc_2"),
        of({"target_soc": 80, "ac_limit": 16}, name="charging_profile"),
    ]
    assert len({meaning, *others}) == 6
