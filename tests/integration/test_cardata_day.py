"""A day of CarData as its owner sees it: within the ration, young while a car charges, and never wrong."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from scorecard.cardata_day import MOST_MEDIAN_MIN, MOST_REQUESTS, RESERVE, Day, Plan, live, measure
from scorecard.cardata_truth import Wrong, compare

EVERY_S = 120
"""The scorecard reads almost seven times as often; what is worth a request does not depend on it."""


@pytest.fixture(scope="module")
def linking_day() -> Day:
    """The hardest one: the account is linked at midnight, which costs five requests."""
    return live(Plan((8.5, 20.9), is_linking_day=True, every_s=EVERY_S))


def test_a_day_stays_within_the_ration_and_leaves_the_reserve_alone(linking_day: Day) -> None:
    assert linking_day.reads > 700
    assert linking_day.refused == []
    assert 0 < linking_day.requests <= MOST_REQUESTS - RESERVE
    assert linking_day.remaining == MOST_REQUESTS - linking_day.requests >= RESERVE


def test_while_a_car_charges_its_state_of_charge_is_young(linking_day: Day) -> None:
    assert len(linking_day.ages_min) > 40
    assert linking_day.median_min <= MOST_MEDIAN_MIN


def test_every_value_was_true_when_it_says_it_was_measured(linking_day: Day) -> None:
    assert linking_day.wrong == []
    assert linking_day.compared > 10 * linking_day.reads
    assert linking_day.passed


def test_an_ordinary_day_is_told_in_a_line() -> None:
    said: list[str] = []
    finding = measure(said.append, [Plan((1.0, 13.0), every_s=600)])
    assert finding.passed, said
    assert re.fullmatch(r"1 days: \d+ requests at most, .* min at worst, 0 of \d+ values wrong", finding.measured)
    assert len(said) == 1


GOOD = Day(reads=1, requests=MOST_REQUESTS - RESERVE, remaining=RESERVE, compared=1, ages_min=[MOST_MEDIAN_MIN])


def test_a_day_that_breaks_one_promise_falls_short() -> None:
    assert GOOD.passed
    for change in (
        {"requests": MOST_REQUESTS - RESERVE + 1},
        {"remaining": RESERVE - 1},
        {"ages_min": [MOST_MEDIAN_MIN + 0.1]},
        {"wrong": [Wrong("fuel", 1, None, 2)]},
        {"refused": ["UPSTREAM_ERROR"]},
    ):
        short = replace(GOOD, **change)
        assert not short.passed, change
        assert str(short)


# --- the comparison itself --------------------------------------------------------------------------------------------

AT = "2026-01-05T12:00:00Z"
SOC = "vehicle.drivetrain.batteryManagement.header"
STATUS = "vehicle.drivetrain.electricEngine.charging.status"


class Told:
    """A truth that is told here: the same at all times."""

    def __init__(self, **values: Any) -> None:
        self._values = {SOC: 70.4, STATUS: "CHARGINGACTIVE", **values}

    def value(self, descriptor: str, at: str) -> Any:
        assert at == AT
        return self._values.get(descriptor)

    def said(self, descriptor: str, at: str) -> Any:
        return self.value(descriptor, at)


def wrong(action: str, result: Mapping[str, Any], **values: Any) -> list[Wrong]:
    answer = {"result": {"unavailable": {}, **result}, "meta": {"fetched_at": AT}}
    return compare(action, json.loads(json.dumps(answer)), Told(**values))[1]


def level(percent: int | None, **measured: str) -> dict[str, Any]:
    return {"battery_level": percent and {"value": percent, "unit": "%"}, "measured": measured}


def test_a_true_value_passes() -> None:
    assert wrong("fuel", level(70, battery_level=AT)) == []


@pytest.mark.parametrize(
    ("action", "result"),
    [
        ("fuel", level(71, battery_level=AT)),
        ("fuel", level(70)),
        ("fuel", level(None)),
        ("fuel", {"charging_status": "NOT_CHARGING", "measured": {"charging_status": AT}}),
        ("charging", {"a_new_field": 5, "measured": {"a_new_field": AT}}),
        ("status", {"extra": {SOC: {"value": "70.5", "unit": "%", "measured_at": AT}}}),
        ("service", {"services": [{"type": "NEXT_SERVICE", "due_distance": None, "due_date": None}]}),
    ],
    ids=["untrue", "undated", "withheld", "another word", "untold", "untrue extra", "undated service"],
)
def test_a_value_that_is_not_the_truth_is_found(action: str, result: dict[str, Any]) -> None:
    assert len(wrong(action, result)) == 1
