"""Whether a read is worth a request."""

from dataclasses import replace
from datetime import timedelta

import pytest

from functions.providers.cardata import planner as p
from functions.providers.cardata.planner import Situation, acceptable_age_s, decide
from functions.providers.cardata.quota import LIMIT, RESERVE, Spending
from tests.providers.cardata.harness import NOON


def ago(seconds: float) -> Situation:
    """A lone car at noon with little spent, read so long ago."""
    return Situation(NOON, Spending("2026-01-05", used=10), 1, NOON - timedelta(seconds=seconds))


def test_nothing_known_is_worth_a_request() -> None:
    plan = decide(replace(ago(0), read_at=None), forced=False)

    assert (plan.source, plan.cost) == ("poll", 1)


def test_young_data_are_not_worth_a_request_and_old_data_are() -> None:
    young, old = decide(ago(p.IDLE_S - 1), forced=False), decide(ago(p.IDLE_S), forced=False)

    assert (young.source, young.cost, young.max_age_s) == ("cache", 0, p.IDLE_S)
    assert (old.source, old.cost) == ("poll", 1)
    assert "35 requests left" in young.why
    assert "1:00 h" in old.why


def test_a_forced_read_spends_the_reserve() -> None:
    at = replace(ago(1), spending=Spending("2026-01-05", used=LIMIT - RESERVE))

    assert decide(at, forced=True).source == "poll"
    unforced = decide(replace(at, read_at=NOON - timedelta(days=1)), forced=False)
    assert (unforced.source, unforced.cost, unforced.max_age_s) == ("cache", 0, 12 * 3600)
    assert "kept for fresh reads" in unforced.why


@pytest.mark.parametrize("spending", [Spending("2026-01-05", used=LIMIT), Spending("2026-01-05", is_blocked=True)])
def test_a_day_that_is_used_up_is_used_up_for_all(spending: Spending) -> None:
    plan = decide(replace(ago(1), spending=spending, read_at=None), forced=True)

    assert (plan.source, plan.cost) == ("cache", 0)
    assert "used up" in plan.why


def test_yesterdays_requests_do_not_count() -> None:
    at = replace(ago(7200), spending=Spending("2026-01-04", used=LIMIT, is_blocked=True))

    assert decide(at, forced=False).source == "poll"


def test_more_cars_and_fewer_requests_stretch_the_age_and_charging_shortens_it() -> None:
    alone = replace(ago(0), spending=Spending("2026-01-05", used=25))
    many, poor = replace(alone, cars=2), replace(alone, spending=Spending("2026-01-05", used=40))
    charging, charged = replace(many, is_charging=True), replace(many, will_hardly_charge=True)

    assert p.IDLE_S <= acceptable_age_s(alone) < acceptable_age_s(many)
    assert acceptable_age_s(alone) < acceptable_age_s(poor)
    assert acceptable_age_s(charging) < acceptable_age_s(many) < acceptable_age_s(charged)
    assert acceptable_age_s(replace(ago(0), is_charging=True)) == p.CHARGING_S


def test_what_the_other_cars_do_counts() -> None:
    two = replace(ago(0), spending=Spending("2026-01-05", used=20), cars=2)
    both_charge = replace(two, is_charging=True, others_charging=1)

    assert acceptable_age_s(replace(two, others_hardly=1)) < acceptable_age_s(two)
    poor = replace(both_charge, spending=Spending("2026-01-05", used=39))
    assert acceptable_age_s(replace(poor, others_charging=0)) < acceptable_age_s(poor)


def test_an_owner_without_a_battery_is_read_hourly() -> None:
    petrol = replace(ago(0), will_hardly_charge=True)

    assert acceptable_age_s(petrol) == p.IDLE_S


def test_more_cars_that_charge_than_there_are_is_no_contradiction() -> None:
    at = replace(ago(0), others_charging=3, others_hardly=3)

    assert p.IDLE_S <= acceptable_age_s(at) <= p.IDLE_AT_MOST_S


def test_ages_stay_within_their_bounds_while_requests_are_left() -> None:
    for used in range(LIMIT - RESERVE):
        for cars in (1, 2, 10):
            idle = replace(ago(0), spending=Spending("2026-01-05", used=used), cars=cars)
            assert p.IDLE_S <= acceptable_age_s(idle) <= p.IDLE_AT_MOST_S
            assert p.CHARGING_S <= acceptable_age_s(replace(idle, is_charging=True)) <= p.CHARGING_AT_MOST_S


def test_the_stream_makes_requests_rare() -> None:
    streamed = replace(ago(p.STREAMED_S - 1), streams_until=NOON + timedelta(seconds=1))

    assert (decide(streamed, forced=False).source, decide(streamed, forced=False).cost) == ("stream", 0)
    assert decide(replace(streamed, streams_until=NOON - timedelta(seconds=1)), forced=False).source == "poll"
    assert decide(replace(streamed, read_at=NOON - timedelta(seconds=p.STREAMED_S)), forced=False).source == "poll"
    spent = replace(streamed, spending=Spending("2026-01-05", used=LIMIT))
    assert decide(spent, forced=False).source == "stream"


def test_after_a_failure_the_next_request_waits_unless_it_is_forced() -> None:
    failed = replace(ago(7200), failed_at=NOON - timedelta(seconds=p.RETRY_S - 1))

    assert decide(failed, forced=False).source == "cache"
    assert decide(failed, forced=True).source == "poll"
    assert decide(replace(failed, failed_at=NOON - timedelta(seconds=p.RETRY_S)), forced=False).source == "poll"
    unknown = replace(failed, read_at=None, failed_at=NOON - timedelta(seconds=p.RETRY_UNKNOWN_S))
    assert decide(unknown, forced=False).source == "poll"
