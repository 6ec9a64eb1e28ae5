"""Projections: what is known is shown, what is not is null with a reason, and nothing is claimed on silence."""

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from functions.actions import shapes
from functions.contract import Units
from functions.snapshot import (
    Capabilities,
    Charging,
    CheckControlMessage,
    Climate,
    DepartureTimer,
    FuelAndBattery,
    Location,
    Openings,
    ServiceItem,
    Snapshot,
    Tire,
    VehicleInfo,
)
from tests.support.fake_provider import FIRST, bare_snapshot

NO_SCOPE = "the caller lacks the scope `location`"
AT = datetime(2026, 1, 1, 12, tzinfo=UTC)
LATITUDE, LONGITUDE, HEADING = 48.177123, 11.556456, 271

RICH = Snapshot(
    info=VehicleInfo(FIRST, "BMW", "X5 xDrive45e", "PLUGIN_HYBRID", 2022, "G05", "ID7", "07/2025.00"),
    fetched_at=AT,
    measured_at=AT,
    mileage_km=12_345,
    fuel_and_battery=FuelAndBattery("hybrid", 30.5, 65, 400, 60, 460, 80),
    charging=Charging(
        status="CHARGING",
        is_plugged_in=True,
        target_percent=90,
        ends_at=AT,
        starts_at_local="2026-01-01T22:00",
        mode="DELAYED_CHARGING",
        preference="CHARGING_WINDOW",
        ac_limit_a=16,
        ac_limits_a=(6, 16, 32),
        preconditions_climate=True,
        timer_type="WEEKLY_PLANNER",
        window_start="22:00",
        window_end="06:00",
        departure_timers=(DepartureTimer(1, "ACTIVATE", "07:30", ("MONDAY", "FRIDAY")),),
    ),
    location=Location(LATITUDE, LONGITUDE, HEADING, AT - timedelta(minutes=1)),
    openings=Openings(
        lock_state="LOCKED",
        doors={"left_front": "CLOSED", "right_front": "CLOSED"},
        windows={"left_front": "CLOSED", "right_front": "CLOSED"},
        hood="CLOSED",
        trunk="CLOSED",
        roof="CLOSED",
        roof_type="SUN_ROOF",
    ),
    check_control=(CheckControlMessage("Check the tires.", "LOW", "TIRE_PRESSURE"),),
    climate=Climate("HEATING", AT),
    tires={
        position: Tire(240, 250, "2", "2021-W40")
        for position in ("front_left", "front_right", "rear_left", "rear_right")
    },
    services=(ServiceItem("BRAKE_FLUID", "OK", AT, 10_000),),
    service_required=False,
    capabilities=Capabilities({"lock": True, "unlock": False}, set_target_soc=True, set_ac_limit=False, location=True),
)
EMPTY = bare_snapshot()
SPARSE = replace(
    EMPTY,
    charging=Charging(
        window_end="06:00", departure_timers=(DepartureTimer(None, None, None), DepartureTimer(2, "x", None))
    ),
    location=Location(0.0, 0.0),
    openings=Openings(doors={"left_front": "CLOSED"}, roof="OPEN"),
    tires={"front_left": Tire(), "rear_right": Tire(pressure_kpa=200)},
    services=(ServiceItem("OIL", "OK"), ServiceItem("BRAKES", "PENDING", due_distance_km=0)),
    climate=Climate(),
)
Projection = Callable[[Snapshot, Units], shapes.Shape]


def _status(snapshot: Snapshot, units: Units) -> shapes.Shape:
    return shapes.status(snapshot, units, with_location=True)


def _status_without_location(snapshot: Snapshot, units: Units) -> shapes.Shape:
    return shapes.status(snapshot, units, with_location=False)


PROJECTIONS: list[Projection] = [
    shapes.fuel,
    shapes.location,
    shapes.mileage,
    shapes.lock_status,
    shapes.is_locked,
    shapes.check_control,
    shapes.charging,
    shapes.climate_status,
    shapes.tires,
    shapes.service,
    shapes.capabilities,
    shapes.vehicle_info,
    _status,
    _status_without_location,
]
EveryProjection = pytest.mark.parametrize("project", PROJECTIONS, ids=lambda project: project.__name__)


def nulls(value: object, path: str = "") -> Iterator[str]:
    """The dotted paths of everything that is null."""
    if value is None:
        yield path.removeprefix(".")
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from nulls(part, f"{path}.{key}")
    elif isinstance(value, list):
        for position, part in enumerate(value):
            yield from nulls(part, f"{path}.{position}")


def shown(project: Projection, snapshot: Snapshot, units: Units = "metric") -> dict[str, Any]:
    return project(snapshot, units).result()


# --- what holds for all -----------------------------------------------------------------------------------------------


@EveryProjection
@pytest.mark.parametrize("snapshot", [RICH, EMPTY, SPARSE], ids=["rich", "empty", "sparse"])
def test_every_null_has_its_reason_under_its_own_path_and_nothing_else_has_one(
    project: Projection, snapshot: Snapshot
) -> None:
    result = shown(project, snapshot)
    reasons = result.pop("unavailable")
    assert set(nulls(result)) == set(reasons)
    assert all(reasons.values())


@EveryProjection
def test_of_a_rich_car_nothing_is_unavailable(project: Projection) -> None:
    expected = {"location": NO_SCOPE} if project is _status_without_location else {}
    assert shown(project, RICH)["unavailable"] == expected


@EveryProjection
def test_rich_and_empty_cars_answer_the_same_fields(project: Projection) -> None:
    optional = {"roof"}
    assert set(shown(project, RICH)) - optional == set(shown(project, EMPTY)) - optional


@EveryProjection
def test_units_change_values_and_no_names(project: Projection) -> None:
    assert set(shown(project, RICH)) == set(shown(project, RICH, "imperial"))
    assert shown(project, EMPTY) == shown(project, EMPTY, "imperial")


def test_what_only_one_maker_reports_is_shown_and_where_the_car_goes_only_to_who_may_know() -> None:
    speed = {"tripComputer.averageSpeed": {"value": "48", "unit": "km/h"}}
    car = replace(RICH, extra={"location.destination": {"value": "x"}, **speed})
    assert set(_status(car, "metric").result()["extra"]) == {"location.destination", *speed}
    assert _status_without_location(car, "metric").result()["extra"] == speed
    assert "extra" not in _status(RICH, "metric").result()


def test_every_part_of_a_snapshot_is_shown_somewhere_in_the_status() -> None:
    unseen = {"info", "fetched_at", "unavailable", "unknown", "extra", "measured", "capabilities"}
    for one in fields(Snapshot):
        if one.name not in unseen:
            without: dict[str, Any] = {one.name: getattr(EMPTY, one.name)}
            assert shown(_status, replace(RICH, **without)) != shown(_status, RICH), one.name


@pytest.mark.parametrize("group", ["fuel_and_battery", "charging", "openings", "climate", "location"])
def test_every_field_of_every_group_is_shown(group: str) -> None:
    part: Any = getattr(RICH, group)
    for one in fields(part):
        if one.name == "timer_type":
            continue  # the timers themselves are shown
        value = getattr(part, one.name)
        other: Any = type(value)() if isinstance(value, tuple | dict | float) else None
        changed: dict[str, Any] = {group: replace(part, **{one.name: other})}
        assert shown(_status, replace(RICH, **changed)) != shown(_status, RICH), one.name


# --- each projection --------------------------------------------------------------------------------------------------


def test_fuel() -> None:
    assert shown(shapes.fuel, RICH) == {
        "remaining_fuel": {"value": 30.5, "unit": "L"},
        "remaining_fuel_percent": 65,
        "remaining_range_fuel": {"value": 400, "unit": "km"},
        "remaining_range_electric": {"value": 60, "unit": "km"},
        "remaining_range_total": {"value": 460, "unit": "km"},
        "fuel_type": "hybrid",
        "charging_status": "CHARGING",
        "battery_level": {"value": 80, "unit": "%"},
        "unavailable": {},
    }


def test_fuel_in_imperial_units() -> None:
    result = shown(shapes.fuel, RICH, "imperial")
    assert result["remaining_fuel"] == {"value": 8.06, "unit": "gal"}
    assert result["remaining_range_fuel"] == {"value": 249, "unit": "mi"}
    assert result["remaining_range_electric"] == {"value": 37, "unit": "mi"}
    assert result["remaining_range_total"] == {"value": 286, "unit": "mi"}
    assert result["battery_level"] == {"value": 80, "unit": "%"}
    assert isinstance(result["remaining_range_total"]["value"], int)


def test_location() -> None:
    assert shown(shapes.location, RICH) == {
        "latitude": LATITUDE,
        "longitude": LONGITUDE,
        "heading": HEADING,
        "google_maps_url": f"https://www.google.com/maps/search/?api=1&query={LATITUDE},{LONGITUDE}",
        "timestamp": AT - timedelta(minutes=1),
        "unavailable": {},
    }


def test_a_position_at_zero_is_a_position() -> None:
    result = shown(shapes.location, SPARSE)
    assert (result["latitude"], result["longitude"]) == (0.0, 0.0)
    assert result["google_maps_url"].endswith("query=0.0,0.0")


def test_mileage_in_both_units() -> None:
    assert shown(shapes.mileage, RICH) == {"value": 12_345, "unit": "km", "unavailable": {}}
    assert shown(shapes.mileage, RICH, "imperial") == {"value": 7_671, "unit": "mi", "unavailable": {}}


def test_a_mileage_of_nothing_is_known() -> None:
    assert shown(shapes.mileage, replace(EMPTY, mileage_km=0)) == {"value": 0, "unit": "km", "unavailable": {}}


def test_locks() -> None:
    assert shown(shapes.lock_status, RICH) == {
        "lock_state": "LOCKED",
        "all_windows_closed": True,
        "all_doors_closed": True,
        "hood_closed": True,
        "trunk_closed": True,
        "doors": {"left_front": "CLOSED", "right_front": "CLOSED"},
        "windows": {"left_front": "CLOSED", "right_front": "CLOSED"},
        "roof": {"type": "SUN_ROOF", "state": "CLOSED"},
        "unavailable": {},
    }


@pytest.mark.parametrize(
    ("doors", "hood", "trunk", "closed"),
    [
        ({"left": "CLOSED", "right": "CLOSED"}, "CLOSED", "CLOSED", True),
        ({"left": "CLOSED", "right": "OPEN"}, "CLOSED", "CLOSED", False),
        ({"left": "UNKNOWN", "right": "OPEN"}, "CLOSED", "CLOSED", False),
        ({"left": "CLOSED"}, "OPEN", "CLOSED", False),
        ({"left": "CLOSED"}, "CLOSED", "OPEN", False),
        ({"left": "CLOSED"}, "CLOSED", "INTERMEDIATE", False),
        ({"left": "CLOSED", "right": "AJAR_SOMEHOW"}, "CLOSED", "CLOSED", False),
        ({"left": "CLOSED", "right": "UNKNOWN"}, "CLOSED", "CLOSED", None),
        ({"left": "CLOSED", "right": "INVALID"}, "CLOSED", "CLOSED", None),
        ({"left": "CLOSED"}, "UNKNOWN", "CLOSED", None),
        ({"left": "CLOSED"}, "CLOSED", "INVALID", None),
        ({}, "CLOSED", "CLOSED", None),
        ({}, "OPEN", "CLOSED", None),
        ({}, None, None, None),
    ],
)
def test_all_doors_are_closed_only_where_each_says_so(
    doors: dict[str, str], hood: str | None, trunk: str | None, closed: bool | None
) -> None:
    openings = Openings(doors=doors, hood=hood, trunk=trunk)
    assert shown(shapes.lock_status, replace(EMPTY, openings=openings))["all_doors_closed"] is closed


@pytest.mark.parametrize(
    ("windows", "closed"),
    [
        ({}, None),
        ({"left": "CLOSED"}, True),
        ({"left": "CLOSED", "right": "UNKNOWN"}, None),
        ({"left": "INVALID"}, None),
        ({"left": "INTERMEDIATE"}, False),
        ({"left": "UNKNOWN", "right": "OPEN"}, False),
    ],
)
def test_all_windows_are_closed_only_where_each_says_so(windows: dict[str, str], closed: bool | None) -> None:
    openings = Openings(windows=windows)
    assert shown(shapes.lock_status, replace(EMPTY, openings=openings))["all_windows_closed"] is closed


@pytest.mark.parametrize("word", [None, "UNKNOWN", "INVALID"])
def test_of_a_silent_car_nothing_is_claimed_to_be_closed_or_locked(word: str | None) -> None:
    openings = Openings(lock_state=word, hood=word, trunk=word)
    result = shown(shapes.lock_status, replace(EMPTY, openings=openings))
    closed = ("all_windows_closed", "all_doors_closed", "hood_closed", "trunk_closed")
    assert [result[name] for name in closed] == [None] * 4
    assert shown(shapes.is_locked, replace(EMPTY, openings=openings)) == {"locked": "unknown", "unavailable": {}}


def test_is_locked_is_one_word() -> None:
    assert shown(shapes.is_locked, RICH) == {"locked": True, "unavailable": {}}


def test_check_control() -> None:
    assert shown(shapes.check_control, RICH) == {
        "has_messages": True,
        "messages": [{"text": "Check the tires.", "severity": "LOW", "category": "TIRE_PRESSURE"}],
        "count": 1,
        "unavailable": {},
    }


def test_no_messages_is_not_the_same_as_no_word() -> None:
    none = shown(shapes.check_control, replace(EMPTY, check_control=()))
    assert none == {"has_messages": False, "messages": [], "count": 0, "unavailable": {}}
    assert shown(shapes.check_control, EMPTY)["has_messages"] is None


def test_charging() -> None:
    assert shown(shapes.charging, RICH) == {
        "charging_status": "CHARGING",
        "is_plugged_in": True,
        "battery_level": {"value": 80, "unit": "%"},
        "charging_target_percent": 90,
        "charging_end_time": AT,
        "charging_start_time_local": "2026-01-01T22:00",
        "charging_mode": "DELAYED_CHARGING",
        "charging_preference": "CHARGING_WINDOW",
        "ac_limit": {"value": 16, "unit": "A"},
        "ac_limits_available": [6, 16, 32],
        "precondition_climate": True,
        "charging_window": {"start": "22:00", "end": "06:00"},
        "departure_timers": [{"id": 1, "action": "ACTIVATE", "time": "07:30", "weekdays": ["MONDAY", "FRIDAY"]}],
        "unavailable": {},
    }


def test_half_a_charging_window_says_which_half_is_missing() -> None:
    result = shown(shapes.charging, SPARSE)
    assert result["charging_window"] == {"start": None, "end": "06:00"}
    assert "charging_window.start" in result["unavailable"]


def test_climate() -> None:
    heating = {"activity": "HEATING", "is_climate_on": True, "activity_end_time": AT, "unavailable": {}}
    assert shown(shapes.climate_status, RICH) == heating
    assert shown(shapes.climate_status, replace(EMPTY, climate=Climate("NEW_WORD")))["is_climate_on"] is None


def test_tires() -> None:
    wheel = {
        "pressure": {"value": 240, "unit": "kPa"},
        "target_pressure": {"value": 250, "unit": "kPa"},
        "season": "2",
        "manufactured_week": "2021-W40",
    }
    result = shown(shapes.tires, RICH)
    assert [result[position] for position in ("front_left", "front_right", "rear_left", "rear_right")] == [wheel] * 4
    assert shown(shapes.tires, RICH, "imperial")["rear_left"]["pressure"] == {"value": 34.8, "unit": "psi"}


def test_a_wheel_that_is_missing_is_null_and_one_that_is_silent_is_not() -> None:
    result = shown(shapes.tires, SPARSE)
    assert result["front_right"] is None
    assert result["front_left"]["pressure"] is None
    assert set(result["unavailable"]) >= {"front_right", "front_left.pressure", "rear_right.season"}


def test_service() -> None:
    item = {"type": "BRAKE_FLUID", "status": "OK", "due_date": AT, "due_distance": {"value": 10_000, "unit": "km"}}
    assert shown(shapes.service, RICH) == {"is_service_required": False, "services": [item], "unavailable": {}}
    assert shown(shapes.service, RICH, "imperial")["services"][0]["due_distance"] == {"value": 6_214, "unit": "mi"}


def test_a_service_without_date_or_distance_says_why_item_by_item() -> None:
    result = shown(shapes.service, SPARSE)
    assert set(result["unavailable"]) == {
        "is_service_required",
        "services.0.due_date",
        "services.0.due_distance",
        "services.1.due_date",
    }
    assert result["services"][1]["due_distance"] == {"value": 0, "unit": "km"}


def test_capabilities() -> None:
    assert shown(shapes.capabilities, RICH) == {
        "commands": {"lock": True, "unlock": False},
        "set_target_soc": True,
        "set_ac_limit": False,
        "location": True,
        "unavailable": {},
    }


def test_status_is_every_group() -> None:
    result = shown(_status, RICH)
    assert set(result) == {
        "vehicle_info", "fuel_and_battery", "location", "mileage", "doors_and_windows", "check_control", "climate",
        "charging", "tires", "service", "last_updated", "unavailable",
    }  # fmt: skip
    for group, project in (
        ("vehicle_info", shapes.vehicle_info),
        ("fuel_and_battery", shapes.fuel),
        ("location", shapes.location),
        ("mileage", shapes.mileage),
        ("doors_and_windows", shapes.lock_status),
        ("check_control", shapes.check_control),
        ("climate", shapes.climate_status),
        ("charging", shapes.charging),
        ("tires", shapes.tires),
        ("service", shapes.service),
    ):
        assert {**result[group], "unavailable": {}} == shown(project, RICH)
    assert result["last_updated"] == AT
    assert result["vehicle_info"]["vin"] == FIRST


def test_words_that_we_do_not_know_are_shown_as_such() -> None:
    strange = replace(RICH, unknown={"openings.lock_state": "AJAR"})
    assert shown(_status, strange)["unknown_values"] == {"openings.lock_state": "AJAR"}
    assert "unknown_values" not in shown(_status, RICH)


@pytest.mark.parametrize("units", ["metric", "imperial"])
def test_without_the_scope_the_position_stands_nowhere_in_the_status(units: Units) -> None:
    leaky = replace(
        RICH, unknown={"location.heading_deg": f"{HEADING}.5", "location": f"{LATITUDE}", "mileage_km": "x"}
    )
    text = repr(shown(_status_without_location, leaky, units))
    for private in (LATITUDE, LONGITUDE, HEADING, "google"):
        assert str(private) not in text
    result = shown(_status_without_location, leaky, units)
    assert result["location"] is None
    assert "scope" in result["unavailable"]["location"]
    assert result["unknown_values"] == {"mileage_km": "x"}
    assert str(LATITUDE) in repr(shown(_status, leaky, units))


# --- reasons ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("project", "path", "where"),
    [
        (shapes.fuel, "fuel_and_battery.remaining_fuel_l", "remaining_fuel"),
        (shapes.fuel, "fuel_and_battery", "remaining_fuel_percent"),
        (shapes.fuel, "charging", "charging_status"),
        (shapes.location, "location", "latitude"),
        (shapes.location, "location.heading_deg", "heading"),
        (shapes.location, "measured_at", "timestamp"),
        (shapes.mileage, "mileage_km", "value"),
        (shapes.mileage, "mileage_km", "unit"),
        (shapes.lock_status, "openings.lock_state", "lock_state"),
        (shapes.lock_status, "openings.hood", "hood_closed"),
        (shapes.lock_status, "openings", "doors"),
        (shapes.check_control, "check_control", "count"),
        (shapes.charging, "charging", "charging_mode"),
        (shapes.charging, "charging.target_percent", "charging_target_percent"),
        (shapes.charging, "charging.window_start", "charging_window"),
        (shapes.charging, "fuel_and_battery.battery_percent", "battery_level"),
        (shapes.climate_status, "climate.activity", "activity"),
        (shapes.climate_status, "climate", "is_climate_on"),
        (shapes.tires, "tires", "rear_left"),
        (shapes.tires, "tires.rear_left", "rear_left"),
        (shapes.service, "services", "services"),
        (shapes.service, "service_required", "is_service_required"),
        (shapes.capabilities, "capabilities.set_ac_limit", "set_ac_limit"),
        (shapes.vehicle_info, "info.model_year", "model_year"),
        (_status, "measured_at", "last_updated"),
        (_status, "location", "location.latitude"),
        (_status, "climate.activity", "climate.activity"),
    ],
)
def test_the_makers_reason_is_given_where_there_is_one(project: Projection, path: str, where: str) -> None:
    result = shown(project, replace(EMPTY, unavailable={path: "a very good reason"}))
    assert result["unavailable"][where] == "a very good reason"


def test_the_nearest_reason_wins() -> None:
    reasons = {"tires": "far", "tires.rear_left": "near"}
    result = shown(shapes.tires, replace(EMPTY, unavailable=reasons))
    assert result["unavailable"]["rear_left"] == "near"
    assert result["unavailable"]["rear_right"] == "far"


@EveryProjection
def test_without_a_reason_of_the_makers_it_says_that_the_car_did_not_report_it(project: Projection) -> None:
    reasons = set(shown(project, EMPTY)["unavailable"].values())
    assert reasons <= {"the car did not report it", NO_SCOPE}
