"""Where a maker dates each value by itself, a reply says when each was measured, under the value's own name."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from functions.actions import shapes
from functions.snapshot import (
    Charging,
    CheckControlMessage,
    Climate,
    FuelAndBattery,
    Location,
    Openings,
    ServiceItem,
    Snapshot,
    Tire,
)
from tests.support.fake_provider import bare_snapshot

AT = datetime(2026, 1, 1, 12, tzinfo=UTC)
TIMES = {
    path: AT - timedelta(minutes=minute)
    for minute, path in enumerate(
        (
            "fuel_and_battery.battery_percent",
            "charging.status",
            "charging.ends_at",
            "location",
            "location.heading_deg",
            "mileage_km",
            "openings.lock_state",
            "openings.doors.left_front",
            "openings.doors.right_front",
            "openings.windows.left_front",
            "openings.hood",
            "openings.roof",
            "check_control",
            "climate.activity",
            "tires.front_left.pressure_kpa",
            "services",
            "services.next_service",
        )
    )
}
CAR: Snapshot = replace(
    bare_snapshot(),
    mileage_km=100,
    fuel_and_battery=FuelAndBattery(battery_percent=70),
    charging=Charging(status="CHARGING", ends_at=AT),
    location=Location(48.1, 11.5, 90),
    openings=Openings(
        "LOCKED", {"left_front": "CLOSED", "right_front": "OPEN"}, {"left_front": "CLOSED"}, "CLOSED", roof="CLOSED"
    ),
    check_control=(CheckControlMessage("Oil", "LOW", "ENGINE_OIL"),),
    climate=Climate("HEATING"),
    tires={"front_left": Tire(pressure_kpa=250)},
    services=(ServiceItem("OIL", "OK", due_distance_km=5), ServiceItem("NEXT_SERVICE", "UNKNOWN", due_distance_km=7)),
    measured=TIMES,
)


@pytest.mark.parametrize(
    ("project", "expected"),
    [
        (shapes.fuel, {"battery_level": "fuel_and_battery.battery_percent", "charging_status": "charging.status"}),
        (
            shapes.location,
            {
                **dict.fromkeys(("latitude", "longitude", "google_maps_url"), "location"),
                "heading": "location.heading_deg",
            },
        ),
        (shapes.mileage, dict.fromkeys(("value", "unit"), "mileage_km")),
        (
            shapes.lock_status,
            {
                "lock_state": "openings.lock_state",
                "hood_closed": "openings.hood",
                "doors.left_front": "openings.doors.left_front",
                "doors.right_front": "openings.doors.right_front",
                "windows.left_front": "openings.windows.left_front",
                "roof.state": "openings.roof",
            },
        ),
        (shapes.is_locked, {"locked": "openings.lock_state"}),
        (shapes.check_control, dict.fromkeys(("has_messages", "messages", "count"), "check_control")),
        (
            shapes.charging,
            {
                "charging_status": "charging.status",
                "charging_end_time": "charging.ends_at",
                "battery_level": "fuel_and_battery.battery_percent",
            },
        ),
        (shapes.climate_status, dict.fromkeys(("activity", "is_climate_on"), "climate.activity")),
        (shapes.tires, {"front_left.pressure": "tires.front_left.pressure_kpa"}),
        (
            shapes.service,
            {
                **{f"services.0.{name}": "services" for name in ("type", "status", "due_distance")},
                **{f"services.1.{name}": "services.next_service" for name in ("type", "status", "due_distance")},
            },
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_value_is_dated_by_its_own_time(project: Any, expected: dict[str, str]) -> None:
    assert project(CAR, "metric").result()["measured"] == {name: TIMES[path] for name, path in expected.items()}


def test_the_whole_status_has_the_times_of_its_groups() -> None:
    measured = shapes.status(CAR, "metric", with_location=True).result()["measured"]
    assert set(measured.values()) == set(TIMES.values())
    assert measured["doors_and_windows.doors.right_front"] == TIMES["openings.doors.right_front"]
    hidden = shapes.status(CAR, "metric", with_location=False).result()["measured"]
    assert {name for name in measured if name not in hidden} == {
        f"location.{name}" for name in ("latitude", "longitude", "google_maps_url", "heading")
    }


def test_a_maker_who_dates_the_car_as_a_whole_adds_nothing() -> None:
    result = shapes.status(replace(CAR, measured={}), "metric", with_location=True).result()
    assert "measured" not in result
