"""A day of two cars, 200 reads an hour and a charge of three hours a car, in numbers."""

import itertools
import statistics
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from functions.providers.cardata.planner import Situation, decide
from functions.providers.cardata.quota import LIMIT, RESERVE, Spending

MIDNIGHT = datetime(2026, 1, 5, tzinfo=UTC)
DAY_S, CHARGE_S = 86_400, 3 * 3600
REPORT_S = 300
"""How often a car reports; it reports at the beginning and the end of a charge, too."""


class Car:
    """What a car says, and what was read of it."""

    def __init__(self, charge_from_s: float) -> None:
        self.charge_from_s, self.charge_to_s = charge_from_s, charge_from_s + CHARGE_S
        self.read_at: datetime | None = None
        self.measured_s = 0.0
        self.is_charging = self.charged_today = False

    def charges(self, at_s: float) -> bool:
        return self.charge_from_s <= at_s < self.charge_to_s

    def read(self, at_s: float) -> None:
        edges = [edge for edge in (self.charge_from_s, self.charge_to_s) if edge <= at_s]
        self.measured_s = max(at_s // REPORT_S * REPORT_S, *edges, 0.0)
        was_charging, self.is_charging = self.is_charging, self.charges(self.measured_s)
        self.charged_today = self.charged_today or (was_charging and not self.is_charging)
        self.read_at = MIDNIGHT + timedelta(seconds=at_s)


def day(charges_from_s: tuple[float, ...], used: int, *, has_stream: bool = False) -> tuple[int, list[float]]:
    """Requests used, and the age of each state of charge that was served during a charge, in minutes."""
    cars = [Car(start_s) for start_s in charges_from_s]
    spending = Spending(MIDNIGHT.date().isoformat(), used=used)
    ages: list[float] = []
    for at_s, car in _reads(cars):
        now = MIDNIGHT + timedelta(seconds=at_s)
        until = now + timedelta(seconds=60) if has_stream else None
        situation = Situation(
            now, spending, len(cars), car.read_at, car.is_charging, car.charged_today, until if car.read_at else None
        )
        plan = decide(situation, forced=False)
        if plan.source == "poll":
            spending = spending.on(now).spent(now)
            car.read(at_s)
        measured_s = at_s - 2 if plan.source == "stream" else car.measured_s
        if car.charges(at_s):
            ages.append((at_s - measured_s) / 60)
    return spending.used, ages


def _reads(cars: list[Car]) -> Iterator[tuple[float, Car]]:
    """200 reads an hour in all, the cars in turn."""
    return zip(itertools.takewhile(lambda at: at < DAY_S, itertools.count(9, 18)), itertools.cycle(cars), strict=False)


STARTS = [hour * 3600 + 700 for hour in range(1, 21, 6)]


@pytest.mark.parametrize("used", [0, 6], ids=["any day", "first day"])
def test_a_day_keeps_the_reserve_and_a_charge_is_seen(used: int, capsys: pytest.CaptureFixture[str]) -> None:
    days = [day((one, other + 1_100), used) for one in STARTS for other in STARTS]

    medians = [statistics.median(ages) for _, ages in days]
    requests = [count for count, _ in days]
    with capsys.disabled():
        print(  # noqa: T201 - the figures are what this test is for
            f"\n{len(days)} days from {used} used: requests {min(requests)}-{max(requests)}, "
            f"age of state of charge while charging: median {statistics.median(medians):.1f} min, "
            f"worst day {max(medians):.1f} min"
        )
    assert max(requests) <= LIMIT - RESERVE
    assert max(medians) <= 20


def test_with_the_stream_a_day_takes_a_handful_of_requests() -> None:
    used, ages = day((3_600, 40_000), 0, has_stream=True)

    assert used <= 10
    assert statistics.median(ages) * 60 <= 5
