"""A customer's day: charged before a request is sent, by all instances together, until midnight UTC."""

import asyncio
from datetime import datetime, timedelta

import pytest

from common.clock import ManualClock
from common.errors import StoreUnavailable
from common.stores.documents import Documents, VersionConflict
from functions.providers.cardata.failures import CarDataQuotaExceeded
from functions.providers.cardata.quota import LIMIT, RESERVE, QuotaLedger, digest, seconds_to_midnight
from tests.providers.cardata.harness import NOON
from tests.support.tapped_documents import TappedDocuments, When, failing

GCID = "demo-gcid"


@pytest.fixture
def ledger(documents: Documents, clock: ManualClock) -> QuotaLedger:
    return QuotaLedger(documents, clock)


async def spend(ledger: QuotaLedger, count: int, *, is_forced: bool = False) -> None:
    for _ in range(count):
        await ledger.reserve(GCID, is_forced=is_forced)


async def test_the_reserve_is_for_forced_reads_alone(ledger: QuotaLedger) -> None:
    await spend(ledger, LIMIT - RESERVE)

    with pytest.raises(CarDataQuotaExceeded, match="kept for fresh reads") as refused:
        await ledger.reserve(GCID)
    await spend(ledger, RESERVE, is_forced=True)
    with pytest.raises(CarDataQuotaExceeded, match="used up"):
        await ledger.reserve(GCID, is_forced=True)
    assert refused.value.retry_after_s == 12 * 3600
    assert (await ledger.look(GCID)).used == LIMIT


async def test_a_new_day_begins_at_midnight_utc(ledger: QuotaLedger, clock: ManualClock) -> None:
    await spend(ledger, 3)
    clock.advance(12 * 3600 - 1)
    assert (await ledger.look(GCID)).used == 3

    clock.advance(1)

    assert (await ledger.look(GCID)).used == 0
    assert (await ledger.reserve(GCID)).used == 1


async def test_a_request_in_the_last_minute_counts_on_both_days(ledger: QuotaLedger, clock: ManualClock) -> None:
    clock.advance(12 * 3600 - 61)
    await spend(ledger, 1)
    clock.advance(31)
    await spend(ledger, 2)
    clock.advance(60)

    assert (await ledger.look(GCID)).used == 2
    clock.advance(86_400)
    assert (await ledger.look(GCID)).used == 0


async def test_what_is_late_on_one_day_does_not_count_a_week_after(ledger: QuotaLedger, clock: ManualClock) -> None:
    clock.advance(12 * 3600 - 30)
    await spend(ledger, 2)
    clock.advance(7 * 86_400)

    assert (await ledger.look(GCID)).used == 0


async def test_a_clock_that_is_set_back_gives_no_day_back(ledger: QuotaLedger, clock: ManualClock) -> None:
    await spend(ledger, 3)
    clock.step_wall(-86_400)

    assert (await ledger.look(GCID)).used == 3


async def test_after_a_refusal_nothing_is_sent_before_midnight(ledger: QuotaLedger, clock: ManualClock) -> None:
    refusal = await ledger.block(GCID, (await ledger.look(GCID)).day)

    assert refusal.retry_after_s == 12 * 3600
    with pytest.raises(CarDataQuotaExceeded):
        await ledger.reserve(GCID, is_forced=True)
    shown = (await ledger.look(GCID)).shown(clock.utc())
    assert (shown["used"], shown["remaining"], shown["reserved"]) == (LIMIT, 0, 0)
    clock.advance(12 * 3600)
    assert (await ledger.reserve(GCID)).used == 1


async def test_a_refusal_of_yesterdays_request_leaves_today_open(ledger: QuotaLedger, clock: ManualClock) -> None:
    clock.advance(12 * 3600 - 1)
    yesterday = (await ledger.reserve(GCID)).day
    clock.advance(2)

    refusal = await ledger.block(GCID, yesterday)

    assert refusal.retry_after_s == 1
    assert (await ledger.look(GCID)).left(is_forced=True) == LIMIT - 1
    clock.advance(600)
    assert (await ledger.reserve(GCID)).used == 2


async def test_a_refusal_just_after_midnight_makes_wait_for_minutes_and_not_for_the_day(
    ledger: QuotaLedger, clock: ManualClock
) -> None:
    clock.advance(12 * 3600 + 30)
    today = (await ledger.reserve(GCID)).day

    refusal = await ledger.block(GCID, today)

    assert refusal.retry_after_s == 90
    with pytest.raises(CarDataQuotaExceeded) as held_back:
        await ledger.reserve(GCID, is_forced=True)
    assert held_back.value.retry_after_s == 90
    clock.advance(90)
    assert (await ledger.reserve(GCID)).used == 2
    # Said again when midnight is over, it is meant.
    assert (await ledger.block(GCID, today)).retry_after_s == 86_400 - 120


async def test_instances_charge_one_account(documents: Documents, clock: ManualClock) -> None:
    instances = [QuotaLedger(documents, clock) for _ in range(4)]
    attempts = [instance.reserve(GCID, is_forced=True) for instance in instances for _ in range(LIMIT // 2)]

    outcomes = await asyncio.gather(*attempts, return_exceptions=True)

    granted = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    assert len(granted) <= LIMIT
    assert {type(o) for o in outcomes if isinstance(o, BaseException)} <= {CarDataQuotaExceeded, StoreUnavailable}
    assert (await instances[0].look(GCID)).used == len(granted)


async def test_without_the_store_nothing_is_granted(documents: Documents, clock: ManualClock) -> None:
    tapped = TappedDocuments(documents, failing(1, "create", "quota/"))

    with pytest.raises(StoreUnavailable):
        await QuotaLedger(tapped, clock).reserve(GCID)


async def test_a_store_that_is_too_busy_grants_nothing_either(documents: Documents, clock: ManualClock) -> None:
    await QuotaLedger(documents, clock).reserve(GCID)

    async def always_late(moment: When, operation: str, _key: str) -> None:
        if operation == "replace" and moment is When.BEFORE:
            raise VersionConflict

    with pytest.raises(StoreUnavailable):
        await QuotaLedger(TappedDocuments(documents, always_late), clock, attempts=3).reserve(GCID)


async def test_customers_are_told_apart_and_not_named(documents: Documents, ledger: QuotaLedger) -> None:
    await spend(ledger, 2)

    assert (await ledger.look("another")).used == 0
    assert await documents.list("quota") == [f"quota/{digest(GCID)}"]
    assert GCID not in digest(GCID)


async def test_the_caller_is_shown_the_day(ledger: QuotaLedger, clock: ManualClock) -> None:
    await spend(ledger, 2)

    assert dict((await ledger.look(GCID)).shown(clock.utc())) == {
        "limit": 50,
        "used": 2,
        "remaining": 48,
        "reserved": 5,
        "resets_at": NOON + timedelta(hours=12),
    }


def test_midnight_is_always_ahead() -> None:
    assert seconds_to_midnight(datetime.fromisoformat("2026-01-05T00:00:00+00:00")) == 86_400
    assert seconds_to_midnight(datetime.fromisoformat("2026-01-05T00:30:00+01:00")) == 1_800
