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

    @property
    def will_hardly_charge(self) -> bool:
        return self.charged_today and not self.is_charging


def day(
    charges_from_s: tuple[float, ...], used: int, *, begins_s: float = 0.0, has_stream: bool = False
) -> tuple[int, list[float]]:
    """Requests used, and the age of each state of charge that was served during a charge, in minutes."""
    cars = [Car(start_s) for start_s in charges_from_s]
    spending = Spending(MIDNIGHT.date().isoformat(), used=used)
    ages: list[float] = []
    for at_s, car in _reads(cars, begins_s):
        now = MIDNIGHT + timedelta(seconds=at_s)
        until = now + timedelta(seconds=60) if has_stream else None
        others = [other for other in cars if other is not car]
        situation = Situation(
            now,
            spending,
            len(cars),
            car.read_at,
            is_charging=car.is_charging,
            will_hardly_charge=car.will_hardly_charge,
            others_charging=sum(other.is_charging for other in others),
            others_hardly=sum(other.will_hardly_charge for other in others),
            streams_until=until if car.read_at else None,
        )
        plan = decide(situation, forced=False)
        if plan.source == "poll":
            spending = spending.on(now).spent(now)
            car.read(at_s)
        measured_s = at_s - 2 if plan.source == "stream" else car.measured_s
        if car.charges(at_s):
            ages.append((at_s - measured_s) / 60)
    return spending.used, ages


def _reads(cars: list[Car], begins_s: float) -> Iterator[tuple[float, Car]]:
    """Reads in turn, as often as it takes to see a request within three minutes of when it is worth it."""
    return zip(
        itertools.takewhile(lambda at: at < DAY_S, itertools.count(begins_s + 9, 90)),
        itertools.cycle(cars),
        strict=False,
    )


LATEST_S = DAY_S - CHARGE_S
STARTS = [at_s * LATEST_S / 6 for at_s in range(7)]
LINKED = 6
"""What linking may cost of the day: the list, three cars' master data, and two requests for the container."""


@pytest.mark.parametrize(
    ("used", "begins_h"), [(0, 0), (LINKED, 0), (LINKED, 6), (LINKED, 12)], ids=["any day", "linked", "at 6", "at noon"]
)
def test_a_day_keeps_the_reserve_and_a_charge_is_seen(
    used: int, begins_h: int, capsys: pytest.CaptureFixture[str]
) -> None:
    begins_s = begins_h * 3_600.0
    starts = [at_s for at_s in STARTS if at_s >= begins_s]
    days = [day((one, min(other + 1_100, LATEST_S)), used, begins_s=begins_s) for one in starts for other in starts]

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
