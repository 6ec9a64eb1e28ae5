"""Sending a command: recorded before it is sent, sent once, its failures never guessed."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

import pytest

from common.clock import ManualClock
from common.errors import (
    AccountNotFound,
    ApiError,
    CircuitOpen,
    CommandNotFound,
    InternalError,
    NotSupported,
    QuotaLimitExceeded,
    RelinkRequired,
    RemoteServiceError,
    StoreUnavailable,
    UpstreamError,
    UpstreamTimeout,
    VehicleNotFound,
)
from common.stores.documents import Documents, open_documents
from functions.command_record import Record
from functions.providers.port import Command, CommandName, Outcome, Receipt, SendPermit
from functions.send_permit import Expired
from functions.snapshot import Capabilities
from tests.support.driver import Driver, drive
from tests.support.fake_provider import FakeMaker
from tests.support.skipping_loop import SkippingLoop, skip
from tests.support.tapped_documents import TappedDocuments, When, failing
from tests.support.world import COMMAND_TTL_S, TIMES, build_world

POLL_S = TIMES.poll_interval_s


# --- sending ----------------------------------------------------------------------------------------------------------


async def test_a_command_is_recorded_durably_before_the_maker_sees_it(driver: Driver, maker: FakeMaker) -> None:
    seen: list[Record] = []

    async def look() -> None:
        seen.extend(await driver.stored())

    maker.before["send"] = look
    sent = await driver.send()
    assert [(record.id, record.state, record.is_final) for record in seen] == [(sent.id, "accepted", False)]
    assert seen[0].expires_at == driver.world.clock.utc() + timedelta(seconds=COMMAND_TTL_S)


async def test_an_accepted_command_can_be_asked_about(driver: Driver, maker: FakeMaker, clock: ManualClock) -> None:
    sent = await driver.send(params=None)
    assert (sent.state, sent.event_id, sent.sent_at, sent.is_final) == ("accepted", "event-1", clock.utc(), False)
    assert sent.command == Command(CommandName.LOCK)
    assert await driver.stored() == [sent]
    assert maker.sent == [(CommandName.LOCK, {})]


async def test_parameters_reach_the_maker_and_the_record(driver: Driver, maker: FakeMaker) -> None:
    sent = await driver.send("charging_settings", {"target_soc": 80})
    assert maker.sent == [(CommandName.CHARGING_SETTINGS, {"target_soc": 80})]
    assert dict((await driver.stored())[0].command.params) == {"target_soc": 80}
    assert sent.result()["operation"] == "charging_settings"


async def test_what_the_car_cannot_do_is_refused_and_nothing_is_recorded_or_sent(
    driver: Driver, maker: FakeMaker
) -> None:
    car = maker.cars[0]
    car.snapshot = replace(car.snapshot, capabilities=Capabilities(commands={"lock": False}))
    with pytest.raises(NotSupported):
        await driver.send()
    assert (maker.calls["send"], await driver.stored()) == (0, [])


async def test_a_maker_without_commands_is_not_supported_and_keeps_no_key(
    documents: Documents, clock: ManualClock, maker: FakeMaker
) -> None:
    driver = await drive(build_world(documents, clock, maker, provider=replace(maker.provider(), commands=None)))
    for _ in range(2):
        with pytest.raises(NotSupported, match="mybmw offers no commands"):
            await driver.send(key="a-key")


async def test_a_car_that_cannot_be_read_is_not_commanded(driver: Driver, maker: FakeMaker) -> None:
    maker.then("read_vehicle", *[UpstreamError() for _ in range(3)])
    with pytest.raises(UpstreamError) as failed:
        await driver.send()
    assert "command_id" not in failed.value.details
    assert (maker.calls["send"], await driver.stored()) == (0, [])


@pytest.mark.parametrize("collection", ["commands/", "claims/", "slots/"])
@pytest.mark.parametrize("when", list(When))
async def test_without_a_store_nothing_is_sent(
    driver: Driver, tapped: TappedDocuments, maker: FakeMaker, collection: str, when: When
) -> None:
    tapped.tap = failing(1, "create", collection, when)
    with pytest.raises(StoreUnavailable) as failed:
        await driver.send()
    assert maker.calls["send"] == 0
    assert not failed.value.may_have_succeeded


async def test_what_is_cached_is_read_again_after_a_command(driver: Driver) -> None:
    await driver.send()
    assert (await driver.world.vehicles.snapshot(driver.link, driver.vehicle)).loaded


async def test_what_is_cached_is_read_again_after_a_command_that_failed(driver: Driver, maker: FakeMaker) -> None:
    maker.then("send", lambda _permit: fail(UpstreamError()))
    with pytest.raises(UpstreamError):
        await driver.send()
    assert (await driver.world.vehicles.snapshot(driver.link, driver.vehicle)).loaded


async def test_a_caller_that_hangs_up_leaves_a_record_of_how_it_went(
    driver: Driver, maker: FakeMaker, tapped: TappedDocuments
) -> None:
    asked, answer, written = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        asked.set()
        await answer.wait()

    maker.before["send"] = slow

    async def watch(when: When, operation: str, key: str) -> None:
        if (when, operation) == (When.AFTER, "replace") and key.startswith("commands/"):
            written.set()

    tapped.tap = watch
    caller = asyncio.create_task(driver.send())
    await asked.wait()
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    answer.set()
    await written.wait()
    (record,) = await driver.stored()
    assert (record.state, record.event_id) == ("accepted", "event-1")


# --- failing to send --------------------------------------------------------------------------------------------------


def fail(error: Exception) -> NoReturn:
    raise error


def before(error: Exception) -> Callable[[SendPermit], Receipt]:
    return lambda _permit: fail(error)


def after(error: Exception) -> Callable[[SendPermit], Receipt]:
    def send(permit: SendPermit) -> Receipt:
        permit.take()
        raise error

    return send


def refused(error: Exception) -> Callable[[SendPermit], Receipt]:
    def send(permit: SendPermit) -> Receipt:
        permit.take()
        permit.refused()
        raise error

    return send


def accepted(permit: SendPermit) -> Receipt:
    permit.take()
    return Receipt(Outcome.ACCEPTED, "event-1")


def twice(permit: SendPermit) -> Receipt:
    permit.take()
    permit.take()
    raise AssertionError


@pytest.mark.parametrize(
    ("send", "raised", "state", "doubt"),
    [
        (before(UpstreamError()), UpstreamError, "failed", False),
        (before(UpstreamTimeout()), UpstreamTimeout, "failed", False),
        (before(UpstreamError(may_have_succeeded=True)), UpstreamError, "failed", False),
        (before(RelinkRequired()), RelinkRequired, "failed", False),
        (before(StoreUnavailable()), StoreUnavailable, "failed", False),
        (before(KeyError("defect")), InternalError, "failed", False),
        (after(UpstreamError()), UpstreamError, "failed", False),
        (after(RemoteServiceError()), RemoteServiceError, "failed", False),
        (after(QuotaLimitExceeded(retry_after_s=7)), QuotaLimitExceeded, "failed", False),
        (after(VehicleNotFound()), VehicleNotFound, "failed", False),
        (after(UpstreamError(may_have_succeeded=True)), UpstreamError, "unknown", True),
        (after(UpstreamTimeout()), UpstreamTimeout, "unknown", True),
        (after(KeyError("defect")), InternalError, "unknown", True),
        (after(InternalError()), InternalError, "unknown", True),
        (refused(UpstreamError(may_have_succeeded=True)), UpstreamError, "failed", False),
        (refused(UpstreamTimeout()), UpstreamTimeout, "failed", False),
        (twice, RemoteServiceError, "unknown", True),
    ],
)
async def test_a_failed_send_says_and_records_whether_it_may_have_happened(
    driver: Driver, maker: FakeMaker, send: object, raised: type[ApiError], state: str, doubt: bool
) -> None:
    maker.then("send", send)
    error, record = await driver.failing(raised)
    assert error.may_have_succeeded is doubt
    assert (record.state, record.is_final) == (state, True)
    assert record.result()["may_have_succeeded"] is doubt
    assert record.note
    assert maker.calls["send"] == 1


async def test_a_defect_of_ours_is_told_as_such_with_its_cause_for_the_log(driver: Driver, maker: FakeMaker) -> None:
    defect = KeyError("defect")
    maker.then("send", after(defect))
    error, _ = await driver.failing(InternalError)
    assert error.__cause__ is defect
    assert "defect" not in repr(error.details) + error.message


async def test_the_makers_error_keeps_its_message_details_and_time(driver: Driver, maker: FakeMaker) -> None:
    original = QuotaLimitExceeded("Ours.", details={"quota": "daily"}, retry_after_s=7)
    maker.then("send", after(original))
    error, record = await driver.failing(QuotaLimitExceeded)
    assert (error.message, error.retry_after_s) == ("Ours.", 7)
    assert error.details == {"quota": "daily", "command_id": record.id}


async def test_two_commands_that_fail_for_one_reason_each_name_their_own_record(
    driver: Driver, maker: FakeMaker, clock: ManualClock
) -> None:
    shared = RelinkRequired()
    named = []
    for name in ("lock", "flash"):
        maker.then("send", before(shared))
        with pytest.raises(RelinkRequired) as failed:
            await driver.send(name)
        named.append(failed.value.details["command_id"])
    assert sorted(named) == sorted(record.id for record in await driver.stored())
    assert shared.details == {}


async def test_an_open_circuit_sends_nothing(driver: Driver, maker: FakeMaker) -> None:
    driver.world.breakers.get(("mybmw", "rest_of_world", "command")).force_open()
    error, record = await driver.failing(CircuitOpen)
    assert (record.state, maker.calls["send"]) == ("failed", 0)
    assert not error.may_have_succeeded


@pytest.mark.parametrize("step_s", [0, -3_600])
async def test_a_command_whose_time_ran_out_is_never_sent(
    driver: Driver, maker: FakeMaker, clock: ManualClock, step_s: float
) -> None:
    async def dawdle() -> None:
        clock.advance(COMMAND_TTL_S)
        clock.step_wall(step_s)

    maker.before["send"] = dawdle
    error, record = await driver.failing(Expired)
    assert (record.state, record.sent_at, maker.sent) == ("expired", None, [])
    assert (error.may_have_succeeded, record.result()["status"]) == (False, "failed")


async def test_a_wall_clock_set_forward_expires_it_as_its_record_says(
    driver: Driver, maker: FakeMaker, clock: ManualClock
) -> None:
    async def correct() -> None:
        clock.step_wall(COMMAND_TTL_S)

    maker.before["send"] = correct
    await driver.failing(Expired)
    assert maker.sent == []


@pytest.mark.parametrize(("left", "state"), [(True, "unknown"), (False, "failed")])
def test_a_maker_that_never_answers_leaves_an_honest_record(
    clock: ManualClock, database: Path, left: bool, state: str
) -> None:
    async def scenario() -> None:
        documents = open_documents(f"sqlite:///{database}")
        maker = FakeMaker(clock)
        driver = await drive(build_world(documents, clock, maker))
        asked = asyncio.Event()

        async def hang() -> None:
            if left:
                maker.permits[-1].take()
            asked.set()
            await asyncio.Event().wait()

        maker.before["send"] = hang
        call = asyncio.create_task(driver.request())
        await asked.wait()
        skip(COMMAND_TTL_S)
        with pytest.raises(UpstreamTimeout) as failed:
            await call
        (record,) = await driver.stored()
        assert (record.state, failed.value.may_have_succeeded) == (state, left)
        await documents.aclose()

    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        runner.run(scenario())


async def test_a_store_that_fails_after_the_send_says_that_it_may_have_happened(
    driver: Driver, tapped: TappedDocuments, maker: FakeMaker, clock: ManualClock
) -> None:
    tapped.tap = failing(1, "replace", "commands/")
    error, record = await driver.failing(StoreUnavailable)
    assert error.may_have_succeeded
    assert (record.state, maker.calls["send"]) == ("accepted", 1)
    clock.advance(COMMAND_TTL_S + 60)
    assert (await driver.status(record)).state == "unknown"
    assert maker.calls["send"] == 1


async def test_a_store_that_fails_after_a_failed_send_does_not_hide_the_makers_error(
    driver: Driver, tapped: TappedDocuments, maker: FakeMaker, clock: ManualClock
) -> None:
    maker.then("send", after(UpstreamError(may_have_succeeded=True)))
    tapped.tap = failing(1, "replace", "commands/")
    error, record = await driver.failing(UpstreamError)
    assert error.may_have_succeeded
    clock.advance(COMMAND_TTL_S + 60)
    assert (await driver.status(record)).state == "unknown"


@pytest.mark.parametrize(
    ("send", "raised", "doubt"),
    [
        (accepted, CommandNotFound, True),
        (after(UpstreamError(may_have_succeeded=True)), UpstreamError, True),
        (before(UpstreamError()), UpstreamError, False),
    ],
)
async def test_an_account_that_ends_while_its_command_is_sent_does_not_hide_what_may_have_happened(
    driver: Driver, second: Driver, maker: FakeMaker, send: object, raised: type[ApiError], doubt: bool
) -> None:
    async def disconnect() -> None:
        await second.world.accounts.disconnect(second.link)

    maker.before["send"] = disconnect
    maker.then("send", send)
    with pytest.raises(raised) as failed:
        await driver.request()
    assert failed.value.may_have_succeeded is doubt
    assert "command_id" in failed.value.details
    assert await driver.world.traces() == []


@pytest.mark.parametrize("step", ["read_vehicle", "send"])
async def test_no_command_is_sent_once_a_disconnect_has_begun_at_another_instance(
    driver: Driver, second: Driver, maker: FakeMaker, step: str
) -> None:
    async def disconnect() -> None:
        del maker.before[step]
        await second.world.accounts.disconnect(second.link)

    maker.before[step] = disconnect
    with pytest.raises(AccountNotFound) as failed:
        await driver.request("unlock")
    assert not failed.value.may_have_succeeded
    assert maker.sent == []
    assert await driver.world.traces() == []


async def test_a_command_whose_account_has_ended_is_concluded_as_never_sent(
    driver: Driver, second: Driver, maker: FakeMaker
) -> None:
    async def begin_to_disconnect() -> None:
        await second.world.links.end(second.link)

    maker.before["read_vehicle"] = begin_to_disconnect
    with pytest.raises(AccountNotFound):
        await driver.request("unlock")
    assert [record.state for record in driver.world.seen] == ["failed"]
    assert await driver.world.documents.list("slots") == []


async def test_a_link_that_cannot_be_read_again_sends_nothing(
    driver: Driver, maker: FakeMaker, tapped: TappedDocuments
) -> None:
    async def fail_after_the_record(when: When, operation: str, key: str) -> None:
        if (when, operation) == (When.AFTER, "create") and key.startswith("commands/"):
            tapped.tap = failing(1, "get", "links/")

    tapped.tap = fail_after_the_record
    error, record = await driver.failing(StoreUnavailable, name="unlock")
    assert (record.state, error.may_have_succeeded, maker.sent) == ("failed", False, [])


async def test_a_command_whose_request_came_too_long_ago_is_refused_before_anything_is_asked(
    driver: Driver, maker: FakeMaker, clock: ManualClock
) -> None:
    command, arrived_s = Command(CommandName.UNLOCK), clock.monotonic()

    clock.advance(COMMAND_TTL_S)
    with pytest.raises(Expired) as refused:
        await driver.world.commands.send(
            driver.link, driver.vehicle, command, wait_s=0, key="a-key", code=None, arrived_s=arrived_s
        )
    assert not refused.value.may_have_succeeded
    assert (maker.calls["read_vehicle"], maker.calls["send"], await driver.stored()) == (0, 0, [])
    # The key is free: nothing was sent with it.
    assert not (await driver.request("unlock", key="a-key")).deduplicated
