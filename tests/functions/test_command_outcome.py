"""Following a command to its end: what the maker says, what the car says, what a dead process left."""

import asyncio
import logging
from datetime import timedelta

import pytest

from common.clock import ManualClock
from common.errors import (
    CommandNotFound,
    StoreUnavailable,
    UpstreamError,
    UpstreamTimeout,
)
from functions.command_outcome import FORGOTTEN_AFTER_S
from functions.command_record import Record
from functions.providers.port import Outcome, Progress, Receipt
from functions.snapshot import Location
from tests.support.driver import Driver, drive
from tests.support.fake_provider import FakeMaker
from tests.support.tapped_documents import TappedDocuments, When, failing
from tests.support.world import COMMAND_TTL_S, STRANGER, TIMES, build_world

POLL_S = TIMES.poll_interval_s


# --- what the maker answers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "receipt", "state", "status", "final"),
    [
        ("lock", Receipt(Outcome.ACCEPTED, "e"), "accepted", "pending", False),
        ("lock", Receipt(Outcome.PENDING, "e"), "pending", "pending", False),
        ("lock", Receipt(Outcome.DELIVERED, "e"), "delivered", "pending", False),
        ("lock", Receipt(Outcome.EXECUTED, "e"), "executed", "success", False),
        ("horn", Receipt(Outcome.EXECUTED, "e"), "executed", "success", True),
        ("lock", Receipt(Outcome.FAILED, "e"), "failed", "failed", True),
        ("lock", Receipt(Outcome.UNKNOWN, None), "unknown", "unknown", True),
        ("send_poi", Receipt(Outcome.DELIVERED, None), "delivered", "success", True),
        ("lock", Receipt(Outcome.EXECUTED, None), "executed", "success", True),
    ],
)
async def test_a_receipt_is_recorded_as_the_maker_meant_it(
    driver: Driver, maker: FakeMaker, name: str, receipt: Receipt, state: str, status: str, final: bool
) -> None:
    maker.then("send", receipt)
    sent = await driver.send(name)
    assert (sent.state, sent.result()["status"], sent.is_final) == (state, status, final)
    assert (await driver.status(sent)).is_final or not final


async def test_a_receipts_note_is_for_the_caller(driver: Driver, maker: FakeMaker) -> None:
    maker.then("send", Receipt(Outcome.UNKNOWN, None, "No usable word."))
    assert (await driver.send()).result()["note"] == "No usable word."


# --- asking on --------------------------------------------------------------------------------------------------------


async def test_a_command_goes_from_accepted_to_confirmed_step_by_step(
    driver: Driver, maker: FakeMaker, clock: ManualClock
) -> None:
    maker.locks("UNLOCKED")
    sent = await driver.send()
    for outcome in (Outcome.PENDING, Outcome.DELIVERED, Outcome.EXECUTED):
        maker.then("poll", Progress(outcome))
        clock.advance(TIMES.poll_interval_s)
        assert (await driver.status(sent)).state == outcome.value
    maker.locks("LOCKED")
    clock.advance(1)
    done = await driver.status(sent)
    assert (done.state, done.is_final, done.confirmed_at) == ("confirmed", True, clock.utc())
    shown = done.result()
    assert (shown["confirmed_by"], shown["confirmed_after_s"], shown["status"]) == ("telemetry", 7.0, "success")
    assert [record.state for record in driver.world.seen] == [
        "accepted", "pending", "delivered", "executed", "confirmed",
    ]  # fmt: skip
    assert maker.calls["send"] == 1


async def test_however_often_somebody_asks_the_maker_is_asked_at_his_interval(
    driver: Driver, maker: FakeMaker, clock: ManualClock
) -> None:
    maker.then("poll", *[Progress(Outcome.PENDING) for _ in range(20)])
    sent = await driver.send()
    for _ in range(40):
        assert not (await driver.status(sent)).is_final
        clock.advance(TIMES.poll_interval_s / 4)
    assert maker.calls["poll"] == 10


async def test_a_final_command_is_not_asked_about_again(driver: Driver, maker: FakeMaker) -> None:
    done = await driver.send(wait_s=10)
    asked = maker.calls["poll"]
    assert await driver.status(done, wait_s=10) == done
    assert maker.calls["poll"] == asked


@pytest.mark.parametrize("earlier", [Outcome.PENDING, Outcome.DELIVERED])
@pytest.mark.parametrize(("outcome", "state"), [(Outcome.FAILED, "failed"), (Outcome.UNKNOWN, "unknown")])
async def test_a_command_may_fail_at_any_stage(
    driver: Driver, maker: FakeMaker, clock: ManualClock, earlier: Outcome, outcome: Outcome, state: str
) -> None:
    maker.then("poll", Progress(earlier), Progress(outcome, note="The maker says so."))
    sent = await driver.send()
    await driver.status(sent)
    clock.advance(TIMES.poll_interval_s)
    done = await driver.status(sent)
    assert (done.state, done.is_final, done.note) == (state, True, "The maker says so.")


async def test_a_late_answer_never_takes_a_command_back(driver: Driver, maker: FakeMaker) -> None:
    maker.then("poll", Progress(Outcome.DELIVERED), Progress(Outcome.PENDING), Progress(Outcome.ACCEPTED))
    sent = await driver.send()
    assert [(await driver.status(sent)).state for _ in range(3)] == ["delivered"] * 3


async def test_a_late_answer_to_another_instance_never_takes_a_command_back_either(
    driver: Driver, second: Driver, maker: FakeMaker
) -> None:
    maker.locks("UNLOCKED")
    sent = await driver.send()
    early = await second.world.commands.find(second.link.principal, sent.id)
    assert (await driver.status(sent)).state == "executed"
    maker.then("poll", Progress(Outcome.DELIVERED))
    seen = await second.world.commands.status(second.link, second.vehicle, early, 0)
    assert seen.state == "executed"
    assert [record.state for record in await driver.stored()] == ["executed"]


async def test_two_instances_that_follow_one_command_agree(driver: Driver, second: Driver, maker: FakeMaker) -> None:
    sent = await driver.send()
    ends = await asyncio.gather(driver.status(sent, 20), second.status(sent, 20))
    assert {end.state for end in ends} == {"confirmed"}


@pytest.mark.parametrize("name", ["flash", "horn", "find", "send_poi"])
async def test_what_leaves_no_trace_ends_executed_without_reading_the_car(
    driver: Driver, maker: FakeMaker, name: str
) -> None:
    sent = await driver.send(name)
    reads = maker.calls["read_vehicle"]
    done = await driver.status(sent)
    assert (done.state, done.is_final, done.result()["confirmed_by"]) == ("executed", True, None)
    assert maker.calls["read_vehicle"] == reads


async def test_a_position_found_is_kept_with_the_command(driver: Driver, maker: FakeMaker) -> None:
    maker.then("poll", Progress(Outcome.EXECUTED, Location(48.1, 11.5, 90)))
    sent = await driver.send("find")
    assert "position" not in sent.result()
    shown = (await driver.status(sent)).result()
    assert shown["position"] == {"latitude": 48.1, "longitude": 11.5, "heading": 90}


# --- what the car says ------------------------------------------------------------------------------------------------


async def test_what_the_car_measured_before_the_command_was_sent_confirms_nothing(
    driver: Driver, maker: FakeMaker, clock: ManualClock
) -> None:
    maker.cars[0].measured_at = clock.utc() - timedelta(seconds=1)
    sent = await driver.send()
    assert (await driver.status(sent)).state == "executed"
    maker.cars[0].measured_at = sent.sent_at
    assert (await driver.status(sent)).state == "confirmed"


async def test_a_car_that_does_not_say_when_it_measured_confirms_nothing(driver: Driver, maker: FakeMaker) -> None:
    sent = await driver.send()
    maker.then("read_vehicle", maker.cars[0].snapshot)
    assert maker.cars[0].snapshot.measured_at is None
    assert (await driver.status(sent)).state == "executed"


async def test_the_car_is_read_anew_for_a_confirmation(driver: Driver, maker: FakeMaker, clock: ManualClock) -> None:
    maker.locks("UNLOCKED")
    sent = await driver.send()
    await driver.status(sent)
    maker.locks("LOCKED")
    assert (await driver.status(sent)).state == "confirmed"


async def test_an_effect_that_does_not_show_within_a_minute_is_noted_and_the_search_ends(
    driver: Driver, maker: FakeMaker, clock: ManualClock
) -> None:
    maker.locks("UNLOCKED")
    sent = await driver.send()
    assert (await driver.status(sent)).state == "executed"
    clock.advance(TIMES.confirm_window_s - 1)
    open_still = await driver.status(sent)
    assert (open_still.is_final, open_still.note) == (False, None)
    clock.advance(1)
    done = await driver.status(sent)
    assert (done.state, done.is_final, done.confirmed_at) == ("executed", True, None)
    assert "do not show" in (done.note or "")
    maker.locks("LOCKED")
    assert (await driver.status(sent)).state == "executed"


async def test_a_car_that_cannot_be_read_leaves_the_command_executed(
    driver: Driver, maker: FakeMaker, clock: ManualClock
) -> None:
    sent = await driver.send()
    maker.then("read_vehicle", *[UpstreamError() for _ in range(3)])
    unasked = await driver.status(sent)
    assert (unasked.state, unasked.note) == ("executed", "The maker could not be asked just now: UPSTREAM_ERROR.")
    (stored,) = await driver.stored()
    assert (stored.state, stored.note) == ("executed", None)
    assert (await driver.status(sent)).state == "confirmed"


async def test_what_was_read_before_the_command_was_executed_is_not_served_after_it(
    driver: Driver, maker: FakeMaker, clock: ManualClock
) -> None:
    sent = await driver.send()
    assert (await driver.world.vehicles.snapshot(driver.link, driver.vehicle)).loaded
    maker.then("read_vehicle", *[UpstreamError() for _ in range(3)])
    assert (await driver.status(sent)).state == "executed"
    clock.advance(2)  # a failure to read is remembered for a second
    assert (await driver.world.vehicles.snapshot(driver.link, driver.vehicle)).loaded


# --- waiting ----------------------------------------------------------------------------------------------------------


async def test_without_waiting_nothing_is_asked(driver: Driver, maker: FakeMaker) -> None:
    assert (await driver.send(wait_s=0)).state == "accepted"
    assert (maker.calls["poll"], driver.world.slept_s) == (0, [])


async def test_waiting_ends_with_the_command(driver: Driver, maker: FakeMaker) -> None:
    assert (await driver.send(wait_s=55)).state == "confirmed"
    assert driver.world.slept_s == [POLL_S]


async def test_waiting_ends_with_the_time(driver: Driver, maker: FakeMaker) -> None:
    maker.then("poll", *[Progress(Outcome.PENDING) for _ in range(10)])
    assert (await driver.send(wait_s=5)).state == "pending"
    assert driver.world.slept_s == [POLL_S, POLL_S, 1]
    assert maker.calls["poll"] == 3


@pytest.mark.parametrize("failure", [UpstreamError(), UpstreamTimeout(), KeyError("a defect of ours")])
async def test_a_failure_to_ask_does_not_lose_the_command(
    driver: Driver, maker: FakeMaker, failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    maker.then("poll", *[failure for _ in range(3)])
    with caplog.at_level(logging.ERROR):
        assert (await driver.send(wait_s=10)).state == "confirmed"
    assert ("command_poll_failed" in caplog.messages) is isinstance(failure, KeyError)


async def test_a_maker_that_cannot_be_asked_at_all_leaves_the_last_word_standing(
    driver: Driver, maker: FakeMaker
) -> None:
    maker.then("poll", *[UpstreamError() for _ in range(100)])
    assert (await driver.send(wait_s=10)).state == "accepted"
    (record,) = await driver.stored()
    unasked = await driver.status(record)
    assert unasked.state == "accepted"
    assert unasked.note
    assert "could not be asked" in unasked.note


async def test_what_the_maker_never_ends_is_unknown_after_ten_minutes(
    driver: Driver, maker: FakeMaker, clock: ManualClock
) -> None:
    maker.then("poll", *[Progress(Outcome.PENDING) for _ in range(3)])
    sent = await driver.send()
    clock.advance(FORGOTTEN_AFTER_S - TIMES.poll_interval_s)
    assert (await driver.status(sent)).state == "pending"
    clock.advance(TIMES.poll_interval_s)
    forgotten = await driver.status(sent)
    assert (forgotten.state, forgotten.is_final) == ("unknown", True)
    assert (await driver.status(sent)).state == "unknown"
    assert maker.calls["poll"] == 2


async def test_the_car_is_read_at_most_every_five_seconds_to_confirm(
    driver: Driver, maker: FakeMaker, clock: ManualClock
) -> None:
    maker.locks("UNLOCKED")
    sent = await driver.send("lock")
    before = maker.calls["read_vehicle"]
    for _ in range(10):
        assert (await driver.status(sent)).state == "executed"
        clock.advance(1)
    assert maker.calls["read_vehicle"] - before == 3
    maker.locks("LOCKED")
    clock.advance(5)
    assert (await driver.status(sent)).state == "confirmed"


async def test_a_disconnect_ends_the_waiting_at_once(driver: Driver, second: Driver, maker: FakeMaker) -> None:
    maker.then("poll", Progress(Outcome.PENDING), Progress(Outcome.DELIVERED))

    async def disconnect_at_the_second() -> None:
        if maker.calls["poll"] == 2:
            await second.world.accounts.disconnect(second.link)

    maker.before["poll"] = disconnect_at_the_second
    assert (await driver.send(wait_s=55)).state == "pending"
    assert maker.calls["poll"] == 2
    assert await driver.world.traces() == []


async def test_asking_about_a_command_of_an_account_that_has_ended_is_not_found(driver: Driver, second: Driver) -> None:
    sent = await driver.send()
    found = await driver.world.commands.find(driver.link.principal, sent.id)
    await second.world.accounts.disconnect(second.link)
    with pytest.raises(CommandNotFound):
        await driver.world.commands.status(driver.link, driver.vehicle, found, 0)
    with pytest.raises(CommandNotFound):
        await driver.world.commands.find(driver.link.principal, sent.id)


# --- whose it is, and what was left behind ----------------------------------------------------------------------------


async def test_anothers_command_and_nobodys_fail_alike(driver: Driver) -> None:
    sent = await driver.send()
    failures = []
    for command_id in (sent.id, f"cmd_{'A' * 22}_{'B' * 22}"):
        with pytest.raises(CommandNotFound) as failed:
            await driver.world.commands.find(STRANGER, command_id)
        failures.append((failed.value.message, failed.value.details))
    assert failures[0] == failures[1]


async def abandoned(driver: Driver, tapped: TappedDocuments) -> Record:
    """A record whose sender died before it could say how it went."""
    tapped.tap = failing(1, "replace", "commands/")
    _, record = await driver.failing(StoreUnavailable)
    return record


async def test_a_record_left_by_a_dead_process_becomes_unknown_after_its_time_and_is_never_sent_again(
    driver: Driver, second: Driver, tapped: TappedDocuments, maker: FakeMaker, clock: ManualClock
) -> None:
    record = await abandoned(driver, tapped)
    clock.advance(COMMAND_TTL_S + 59.9)
    assert (await second.status(record)).state == "accepted"
    clock.advance(0.1)
    taken_up = await second.status(record)
    assert (taken_up.state, taken_up.is_final, taken_up.result()["may_have_succeeded"]) == ("unknown", True, True)
    assert (maker.calls["send"], maker.calls["poll"]) == (1, 0)


async def test_waiting_for_a_command_whose_account_ends_before_its_sender_has_spoken_ends(
    driver: Driver, second: Driver, tapped: TappedDocuments
) -> None:
    record = await abandoned(driver, tapped)
    await second.world.accounts.disconnect(second.link)
    with pytest.raises(CommandNotFound):
        await driver.world.commands.status(driver.link, driver.vehicle, record, 55)
    assert driver.world.slept_s == []


async def test_a_record_that_looked_abandoned_is_not_written_off_when_its_sender_has_spoken(
    driver: Driver, second: Driver, tapped: TappedDocuments, maker: FakeMaker, clock: ManualClock
) -> None:
    record = await abandoned(driver, tapped)
    clock.advance(COMMAND_TTL_S + 60)

    async def speak_late(when: When, operation: str, key: str) -> None:
        if (when, operation) == (When.BEFORE, "replace") and key.startswith("commands/"):
            tapped.tap = failing(0, "")
            await driver.world.ledger.advance(record, event_id="event-1")

    tapped.tap = speak_late
    seen = await second.status(record)
    assert (seen.state, seen.event_id) == ("accepted", "event-1")


async def test_somebody_elses_final_word_stands(driver: Driver, second: Driver, clock: ManualClock) -> None:
    sent = await driver.send()
    done = await second.world.ledger.advance(sent, state="failed", note="first")
    assert await driver.world.ledger.advance(sent, state="unknown", note="second") == done


async def test_waiting_for_a_command_that_another_request_is_sending_sees_how_it_went(
    driver: Driver, second: Driver, maker: FakeMaker
) -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        asked.set()
        await answer.wait()

    maker.before["send"] = slow
    first = asyncio.create_task(driver.request(wait_s=20))
    await asked.wait()
    waiting = asyncio.create_task(second.request(wait_s=20))
    await second.world.slept.wait()
    answer.set()
    sent, repeated = await asyncio.gather(first, waiting)
    assert (sent.deduplicated, repeated.deduplicated) == (False, True)
    assert (sent.record.id, repeated.record.state) == (repeated.record.id, "confirmed")
    assert maker.calls["send"] == 1


# --- who may wait -----------------------------------------------------------------------------------------------------


async def test_who_finds_no_place_to_wait_in_is_answered_at_once_and_told(
    tapped: TappedDocuments, clock: ManualClock, maker: FakeMaker
) -> None:
    driver = await drive(build_world(tapped, clock, maker, max_waiters=2))
    sent = await driver.send()
    asking, answer = asyncio.Event(), asyncio.Event()

    async def slow_the_second_time() -> None:
        if maker.calls["poll"] == 2:
            asking.set()
            await answer.wait()

    maker.then("poll", *[Progress(Outcome.PENDING) for _ in range(3)])
    maker.before["poll"] = slow_the_second_time
    waiting = asyncio.create_task(driver.status(sent, wait_s=50))
    await asking.wait()
    slept = len(driver.world.slept_s)
    turned_away = await driver.status(sent, wait_s=50)
    assert len(driver.world.slept_s) == slept
    assert (turned_away.is_final, "command_status" in (turned_away.note or "")) == (False, True)
    assert turned_away.result()["note"] == turned_away.note
    answer.set()
    assert (await waiting).state == "confirmed"
    # What was said to one is not on record.
    assert (await driver.status(sent)).note is None
