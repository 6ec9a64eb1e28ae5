"""Cars over time: a pure function of time and a script."""

import itertools
from datetime import UTC, datetime
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.cardata_cars import DRIVING_REPORT_S, IDLE_REPORT_S, Timeline, default_timeline
from sandbox.cardata_catalogue import DESCRIPTORS, LATITUDE, LONGITUDE, MILEAGE, position
from sandbox.cardata_descriptors import measured_at_s, reading
from sandbox.cardata_scripts import DAY_S, MODELS, WEEK_S, Kind, Phase, Script

MONDAY: Final = datetime(2026, 1, 5, tzinfo=UTC).timestamp()
HOUR: Final = 3600
TIMES: Final = st.floats(min_value=MONDAY - 3 * WEEK_S, max_value=MONDAY + 3 * WEEK_S)
KEYS: Final = st.sampled_from(sorted(MODELS))


@given(KEYS, TIMES)
def test_the_same_time_always_has_the_same_truth(key: str, at_s: float) -> None:
    script = default_timeline(key).script

    assert Timeline(MODELS[key], script).at(at_s) == default_timeline(key).at(at_s)


@given(KEYS, TIMES, st.floats(min_value=0, max_value=DAY_S))
def test_the_odometer_never_goes_back_and_only_moves_when_the_car_does(key: str, at_s: float, later_s: float) -> None:
    timeline = default_timeline(key)
    before, after = timeline.at(at_s), timeline.at(at_s + later_s)

    assert after.travelled_km >= before.travelled_km - 1e-6
    if after.travelled_km > before.travelled_km + 1e-3:
        drive = timeline.last_drive_s(at_s + later_s)
        assert drive is not None
        assert drive[1] > at_s


@given(KEYS, TIMES)
def test_tank_and_battery_stay_within_their_bounds(key: str, at_s: float) -> None:
    moment = default_timeline(key).at(at_s)
    model = moment.model

    assert -1e-9 <= moment.fuel_l <= model.tank_l
    assert 0.05 * model.battery_kwh - 1e-6 <= moment.battery_kwh <= moment.target_kwh + 1e-6


@given(KEYS, TIMES)
def test_a_week_later_the_car_is_where_it_was(key: str, at_s: float) -> None:
    timeline = default_timeline(key)
    now, later = timeline.at(at_s), timeline.at(at_s + WEEK_S)

    assert later.battery_kwh == pytest.approx(now.battery_kwh, abs=1e-5)
    assert later.travelled_km - now.travelled_km == pytest.approx(320, abs=1e-5)
    assert position(later) == pytest.approx(position(now), abs=1e-5)


def test_the_workday_of_an_i4() -> None:
    timeline = default_timeline("i4")
    at = {hour: timeline.at(MONDAY + hour * HOUR) for hour in (4, 6, 6.6, 7.25, 12, 22.5, 24 + 4)}

    assert [moment.moving for moment in at.values()] == [False, False, False, True, False, False, False]
    assert (at[4].plugged, at[4].charging) == (True, False)
    assert Kind.SLEEP in at[6].doing
    assert Kind.CLIMATE in at[6.6].doing
    assert at[7.25].travelled_km - at[4].travelled_km == pytest.approx(10)
    assert at[12].battery_kwh < at[7.25].battery_kwh < at[4].battery_kwh
    assert at[22.5].charging
    assert at[22.5].minutes_to_target == pytest.approx(60 * (64.8 - at[22.5].battery_kwh) / 11, abs=1)
    assert at[28].soc_percent == pytest.approx(80)


def test_a_plug_in_burns_fuel_only_once_its_battery_is_empty() -> None:
    timeline = default_timeline("x3")
    workday = timeline.at(MONDAY).fuel_l - timeline.at(MONDAY + DAY_S).fuel_l
    saturday = timeline.at(MONDAY + 5 * DAY_S).fuel_l - timeline.at(MONDAY + 6 * DAY_S).fuel_l

    assert workday == pytest.approx(0)
    assert 0 < saturday < 120 * 0.075


def test_a_petrol_car_is_refuelled_on_the_way() -> None:
    levels = [default_timeline("x1").at(MONDAY + day * DAY_S).fuel_l for day in range(21)]

    assert any(later > earlier for earlier, later in itertools.pairwise(levels))
    assert min(levels) >= 0.2 * 49 - 1e-6


@given(KEYS, TIMES)
def test_a_report_lies_in_the_past_and_is_the_last_one(key: str, at_s: float) -> None:
    timeline = default_timeline(key)
    last_s = timeline.last_report_s(at_s)

    assert last_s <= at_s
    if Kind.SLEEP not in timeline.at(at_s).doing:
        assert at_s - last_s < IDLE_REPORT_S + 1e-3
    assert [report_s for report_s in timeline.reports(last_s, at_s) if report_s > last_s + 1e-3] == []


@given(KEYS, TIMES, st.floats(min_value=0, max_value=DAY_S), st.floats(min_value=0, max_value=DAY_S))
@settings(max_examples=30)
def test_the_reports_of_a_span_are_those_of_its_parts(
    key: str, start_s: float, first_s: float, second_s: float
) -> None:
    timeline = default_timeline(key)
    middle_s, end_s = start_s + first_s, start_s + first_s + second_s

    whole = list(timeline.reports(start_s, end_s))

    assert whole == [*timeline.reports(start_s, middle_s), *timeline.reports(middle_s, end_s)]
    assert whole == sorted(set(whole))


def test_a_car_reports_each_minute_of_a_drive_and_never_asleep() -> None:
    timeline = default_timeline("i4")
    driving = list(timeline.reports(MONDAY + 7 * HOUR, MONDAY + 7.5 * HOUR))
    asleep = list(timeline.reports(MONDAY + 8 * HOUR, MONDAY + 17 * HOUR - 1))

    assert driving == [MONDAY + 7 * HOUR + DRIVING_REPORT_S * n for n in range(1, 31)]
    assert asleep == []


@given(KEYS, TIMES)
@settings(max_examples=50)
def test_what_a_car_says_was_true_when_it_was_measured(key: str, at_s: float) -> None:
    timeline = default_timeline(key)
    for descriptor in DESCRIPTORS.values():
        said = reading(timeline, descriptor, at_s)
        measured_s = measured_at_s(timeline, descriptor.when, at_s)
        assert measured_s is not None
        assert measured_s <= at_s
        if said is not None:
            assert said.value == descriptor.of(timeline.at(measured_s))


def test_a_parked_car_is_at_home_after_work() -> None:
    timeline = default_timeline("i4")

    latitude = reading(timeline, DESCRIPTORS[LATITUDE], MONDAY + 20 * HOUR)
    longitude = reading(timeline, DESCRIPTORS[LONGITUDE], MONDAY + 20 * HOUR)
    elsewhere = reading(timeline, DESCRIPTORS[LATITUDE], MONDAY + 7.25 * HOUR)

    assert latitude is not None
    assert longitude is not None
    assert elsewhere is not None
    assert (latitude.value, longitude.value) == pytest.approx((48.137154, 11.576124), abs=1e-5)
    assert latitude.timestamp == longitude.timestamp == "2026-01-05T17:45:00Z"
    assert abs(float(elsewhere.value or 0) - 48.137154) > 0.01


def test_a_script_of_ones_own_is_followed() -> None:
    script = Script(HOUR, (Phase(Kind.DRIVE, 0, 600, 15.0), Phase(Kind.CHARGE, 1200, 3600)))
    timeline = Timeline(MODELS["i4"], script, start_km=100.0)
    start = MONDAY // HOUR * HOUR

    assert timeline.at(start + 300).travelled_km - timeline.at(start).travelled_km == pytest.approx(7.5)
    assert timeline.at(start + 3599).soc_percent == pytest.approx(80)


def test_a_car_that_never_drives_has_no_position_and_no_charges() -> None:
    timeline = Timeline(MODELS["i4"], Script(HOUR, (Phase(Kind.SLEEP, 0, HOUR),)))

    assert reading(timeline, DESCRIPTORS[LATITUDE], MONDAY) is None
    assert timeline.charges(MONDAY - DAY_S, MONDAY) == []


def test_two_drives_one_after_the_other_keep_their_own_speed() -> None:
    script = Script(HOUR, (Phase(Kind.DRIVE, 0, 600, 10.0), Phase(Kind.DRIVE, 600, 1200, 0.0)))
    timeline = Timeline(MODELS["x1"], script)
    start = MONDAY // HOUR * HOUR

    assert timeline.at(start + 1199).travelled_km - timeline.at(start).travelled_km == pytest.approx(10)


@pytest.mark.parametrize(
    ("period_s", "phases", "reason"),
    [
        (0, (), "longer than 0"),
        (100, (Phase(Kind.DRIVE, 50, 150, 1),), "within the period"),
        (100, (Phase(Kind.DRIVE, 50, 50, 1),), "within the period"),
        (100, (Phase(Kind.DRIVE, 0, 50, -1),), "km"),
        (100, (Phase(Kind.CHARGE, 0, 50, 1),), "km"),
        (100, (Phase(Kind.DRIVE, 0, 50, 1), Phase(Kind.CHARGE, 49, 60)), "overlap"),
    ],
)
def test_a_script_that_contradicts_itself_is_refused(period_s: float, phases: tuple[Phase, ...], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Script(period_s, phases)


def test_a_battery_that_only_loses_ends_empty() -> None:
    script = Script(HOUR, (Phase(Kind.DRIVE, 0, 600, 15.0),))

    assert Timeline(MODELS["i4"], script).at(MONDAY).battery_kwh == pytest.approx(0.05 * 81)


def test_a_script_that_never_comes_round_is_refused() -> None:
    drain = Script(HOUR, (Phase(Kind.DRIVE, 0, 600, 0.001),))

    with pytest.raises(ValueError, match="never ends"):
        Timeline(MODELS["i4"], drain)


def test_the_catalogue_covers_every_area() -> None:
    assert len(DESCRIPTORS) > 60
    assert all(key.startswith("vehicle.") for key in DESCRIPTORS)
    assert MILEAGE in DESCRIPTORS
