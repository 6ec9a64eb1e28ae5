"""The nine recorded cars: what each snapshot must say, and what it must not."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from bimmer_connected.tests import ALL_STATES

from functions.providers.port import CommandName, Region
from tests.providers.mybmw.harness import FETCHED_AT, snapshot_of

ALWAYS = {"lock", "unlock", "flash", "horn", "ac", "send_poi", "find"}
FOUR_DOORS = {"left_front": "CLOSED", "left_rear": "CLOSED", "right_front": "CLOSED", "right_rear": "CLOSED"}
FIVE_WINDOWS = {**FOUR_DOORS, "rear": "CLOSED"}
TIRES = ["front_left", "front_right", "rear_left", "rear_right"]


@dataclass(frozen=True)
class Expected:
    """One row of the table."""

    name: str
    brand: str
    drivetrain: str
    km: int | None
    measured_at: datetime | None
    fuel_type: str
    fuel_l: float | None = None
    fuel_percent: int | None = None
    range_km: tuple[int | None, int | None, int | None] = (None, None, None)
    """On fuel, on electricity, in all."""
    battery_percent: int | None = None
    charging: tuple[str, bool, int] | None = None
    """Status, plugged in, target."""
    lock: str | None = "LOCKED"
    windows: tuple[tuple[str, str], ...] = tuple(FIVE_WINDOWS.items())
    roof: str | None = None
    climate: str | None = None
    has_tires: bool = True
    location: tuple[float, float, int] | None = (48.177334, 11.556274, 180)
    services: int | None = None
    service_required: bool | None = False
    can: frozenset[str] = frozenset()
    """Beyond what all of them can."""
    severities: tuple[str, ...] = ()


def _at(year: int, month: int, day: int, hour: int, minute: int, second: int, millisecond: int = 0) -> datetime:
    return datetime(year, month, day, hour, minute, second, millisecond * 1000, tzinfo=UTC)


EV = frozenset({"ac_off", "charging_profile", "charging_settings"})
CARS = {
    "WBA00000000DEMO01": Expected(
        "iX xDrive50", "BMW", "ELECTRIC", 1121, _at(2023, 1, 4, 14, 57, 6, 383), "electric",
        range_km=(None, 340, 340), battery_percent=70, charging=("CHARGING", True, 80), roof="CLOSED",
        climate="INACTIVE", services=5, can=EV | {"charge_start", "charge_stop"}, severities=("LOW",),
    ),
    "WBA00000000DEMO02": Expected(
        "i4 eDrive40", "BMW", "ELECTRIC", 1121, _at(2023, 1, 4, 14, 57, 6, 407), "electric",
        range_km=(None, 472, 472), battery_percent=80, charging=("INVALID", False, 80), climate="HEATING",
        services=5, can=EV, severities=("LOW",),
    ),
    "WBA00000000DEMO03": Expected(
        "M340i xDrive", "BMW", "COMBUSTION", 1121, _at(2023, 1, 4, 14, 57, 6, 348), "fuel",
        fuel_l=40.0, fuel_percent=80, range_km=(629, None, 629), climate="INACTIVE", services=6,
        can=frozenset({"ac_off"}), severities=("LOW", "LOW"),
    ),
    "WBA00000000DEMO04": Expected(
        "X3 xDrive30e", "BMW", "PLUGIN_HYBRID", 1121, _at(2023, 1, 4, 14, 57, 6, 352), "hybrid",
        fuel_l=40.0, fuel_percent=80, range_km=(436, 40, 476), battery_percent=80, charging=("INVALID", False, 100),
        climate="STANDBY", services=4, can=frozenset({"ac_off", "charging_profile"}), severities=("LOW", "MEDIUM"),
    ),
    "WBA00000000DEMO05": Expected(
        "i7 xDrive60", "BMW", "ELECTRIC", 1121, _at(2023, 1, 4, 14, 57, 6, 383), "electric",
        range_km=(None, 340, 340), battery_percent=70, charging=("CHARGING", True, 80), roof="CLOSED",
        climate="INACTIVE", services=5, can=EV, severities=("LOW",),
    ),
    "WBY00000000REXI01": Expected(
        "i3 (+ REX)", "BMW", "ELECTRIC_WITH_RANGE_EXTENDER", 137009, _at(2022, 6, 22, 13, 58, 52), "hybrid",
        fuel_l=6.0, range_km=(105, 174, 279), battery_percent=82, charging=("WAITING_FOR_CHARGING", True, 100),
        lock="UNLOCKED", windows=(("left_front", "CLOSED"), ("right_front", "CLOSED")), roof="CLOSED",
        has_tires=False, location=None, services=3, can=frozenset({"charging_profile"}),
    ),
    "WBY000000NOREXI01": Expected(
        "i3", "BMW", "ELECTRIC", 79165, _at(2022, 6, 22, 14, 24, 26), "electric",
        range_km=(None, 279, 279), battery_percent=89, charging=("CHARGING", True, 100),
        lock="UNLOCKED", windows=(("left_front", "OPEN"), ("right_front", "OPEN")), has_tires=False,
        location=(12.3456, 34.5678, 123), services=3, can=frozenset({"charging_profile"}),
    ),
    "WBA00000000000F31": Expected(
        "320d xDrive", "BMW", "COMBUSTION", None, None, "fuel", lock=None, windows=(), has_tires=False,
        location=None, service_required=None, severities=("LOW",),
    ),
    "WZ100000000000J29": Expected(
        "SPX 40i", "TOYOTA", "COMBUSTION", None, None, "fuel", lock=None, windows=(), has_tires=False,
        location=None, service_required=None, severities=("LOW",),
    ),
}  # fmt: skip


def test_all_recorded_cars_are_in_the_table() -> None:
    assert set(CARS) == set(ALL_STATES)


@pytest.mark.parametrize("vin", CARS)
def test_a_recorded_car_says_who_it_is_and_how_far_it_has_come(vin: str) -> None:
    snapshot, expected = snapshot_of(vin), CARS[vin]

    assert (snapshot.info.vin, snapshot.info.name, snapshot.info.brand, snapshot.info.drivetrain) == (
        vin,
        expected.name,
        expected.brand,
        expected.drivetrain,
    )
    assert snapshot.mileage_km == expected.km
    assert (snapshot.measured_at, snapshot.fetched_at) == (expected.measured_at, FETCHED_AT)
    assert snapshot.unknown == {}


@pytest.mark.parametrize("vin", CARS)
def test_a_recorded_car_says_what_is_left_in_it(vin: str) -> None:
    energy, expected = snapshot_of(vin).fuel_and_battery, CARS[vin]

    assert energy.fuel_type == expected.fuel_type
    assert (energy.remaining_fuel_l, energy.remaining_fuel_percent) == (expected.fuel_l, expected.fuel_percent)
    assert (
        energy.remaining_range_fuel_km,
        energy.remaining_range_electric_km,
        energy.remaining_range_total_km,
    ) == expected.range_km
    assert energy.battery_percent == expected.battery_percent


@pytest.mark.parametrize("vin", CARS)
def test_a_recorded_car_says_how_it_charges_and_one_without_a_battery_says_nothing(vin: str) -> None:
    charging, expected = snapshot_of(vin).charging, CARS[vin].charging

    if expected is None:
        assert charging is None
    else:
        assert charging is not None
        assert (charging.status, charging.is_plugged_in, charging.target_percent) == expected
        assert (charging.ends_at is not None) == (expected[0] == "CHARGING")


@pytest.mark.parametrize("vin", CARS)
def test_a_recorded_car_says_what_is_open_and_one_that_reports_nothing_claims_nothing(vin: str) -> None:
    openings, expected = snapshot_of(vin).openings, CARS[vin]

    assert openings.lock_state == expected.lock
    assert openings.is_locked == {"LOCKED": True, "UNLOCKED": False, None: "unknown"}[expected.lock]
    assert openings.doors == (FOUR_DOORS if expected.lock else {})
    assert openings.windows == dict(expected.windows)
    assert (openings.hood, openings.trunk) == (("CLOSED", "CLOSED") if expected.lock else (None, None))
    assert openings.roof == expected.roof


@pytest.mark.parametrize("vin", CARS)
def test_a_recorded_car_says_where_it_is_and_why_if_it_does_not(vin: str) -> None:
    snapshot, expected = snapshot_of(vin), CARS[vin].location

    if expected is None:
        assert snapshot.location is None
        tracked = vin == "WZ100000000000J29"
        assert snapshot.unavailable["location"] == ("the car sends no state" if tracked else "vehicle tracking is off")
    else:
        assert snapshot.location is not None
        location = snapshot.location
        assert (location.latitude, location.longitude, location.heading_deg) == expected
        assert location.measured_at == snapshot.measured_at


@pytest.mark.parametrize("vin", CARS)
def test_a_recorded_car_tells_of_its_climate_its_tires_and_its_services(vin: str) -> None:
    snapshot, expected = snapshot_of(vin), CARS[vin]

    assert (snapshot.climate.activity if snapshot.climate else None) == expected.climate
    assert (sorted(snapshot.tires) if snapshot.tires else None) == (TIRES if expected.has_tires else None)
    assert (len(snapshot.services) if snapshot.services else None) == expected.services
    assert snapshot.service_required is expected.service_required
    assert tuple(message.severity for message in snapshot.check_control or ()) == expected.severities


@pytest.mark.parametrize("vin", CARS)
def test_a_recorded_car_can_do_what_its_flags_say(vin: str) -> None:
    commands = snapshot_of(vin).capabilities.commands

    assert set(commands) == {command.value for command in CommandName}
    assert {name for name, possible in commands.items() if possible} == ALWAYS | CARS[vin].can


@pytest.mark.parametrize("vin", CARS)
def test_everything_that_a_recorded_car_does_not_tell_has_a_reason(vin: str) -> None:
    snapshot = snapshot_of(vin)

    for name in ("measured_at", "mileage_km", "location", "charging", "check_control", "climate", "tires", "services"):
        assert (getattr(snapshot, name) is None) == (name in snapshot.unavailable), name
    for name in ("lock_state", "doors", "windows", "hood", "trunk"):
        assert (not getattr(snapshot.openings, name)) == (f"openings.{name}" in snapshot.unavailable), name


def test_a_battery_electric_car_reports_no_fuel_although_its_data_carry_some() -> None:
    assert ALL_STATES["WBA00000000DEMO01"]["state"]["combustionFuelLevel"] == {"remainingFuelPercent": 10}

    snapshot = snapshot_of("WBA00000000DEMO01")

    assert snapshot.fuel_and_battery.remaining_fuel_percent is None
    assert snapshot.unavailable["fuel_and_battery.remaining_fuel_percent"] == "the car has no combustion engine"


def test_the_end_of_charging_and_of_conditioning_counts_from_when_the_car_measured() -> None:
    charging = snapshot_of("WBY000000NOREXI01").charging
    heating = snapshot_of("WBA00000000DEMO02").climate

    assert charging is not None
    assert heating is not None
    assert charging.ends_at == _at(2022, 6, 22, 14, 24, 26) + timedelta(minutes=119)
    assert heating.ends_at == _at(2023, 1, 4, 14, 57, 6, 407) + timedelta(seconds=1790.846)
    assert heating.is_on is True


def test_a_charging_plan_is_told_in_the_cars_own_time() -> None:
    charging = snapshot_of("WBY00000000REXI01").charging

    assert charging is not None
    assert (charging.mode, charging.preference, charging.timer_type) == (
        "DELAYED_CHARGING",
        "CHARGING_WINDOW",
        "WEEKLY_PLANNER",
    )
    assert (charging.window_start, charging.window_end, charging.starts_at_local) == ("18:01", "01:30", None)
    assert [(timer.id, timer.action, timer.at, len(timer.weekdays)) for timer in charging.departure_timers] == [
        (1, "DEACTIVATE", "07:35", 5),
        (2, "DEACTIVATE", "18:00", 7),
        (3, "DEACTIVATE", "07:00", 0),
        (4, "DEACTIVATE", None, 0),
    ]


def test_preconditioning_that_the_state_leaves_out_is_taken_from_the_charging_endpoint() -> None:
    settings = {"chargeAndClimateTimerDetail": {"isPreconditionForDepartureActive": True}}

    charging = snapshot_of("WBA00000000DEMO02", charging_settings=settings).charging

    assert charging is not None
    assert "climatisationOn" not in ALL_STATES["WBA00000000DEMO02"]["state"]["chargingProfile"]
    assert charging.preconditions_climate is True


def test_the_limits_that_a_car_accepts_come_from_the_charging_endpoint() -> None:
    charging = snapshot_of("WBA00000000DEMO01").charging

    assert charging is not None
    assert charging.ac_limit_a == 16
    assert charging.ac_limits_a == (6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 20, 32)


def test_tires_services_and_the_head_unit_are_told_in_full() -> None:
    snapshot = snapshot_of("WBA00000000DEMO02")

    assert snapshot.tires is not None
    assert snapshot.services is not None
    tire = snapshot.tires["front_right"]
    assert (tire.pressure_kpa, tire.target_pressure_kpa, tire.season, tire.manufactured_week) == (
        255,
        269,
        "2",
        "2019-W24",
    )
    brake_fluid, wear = snapshot.services[0], snapshot.services[3]
    assert (brake_fluid.kind, brake_fluid.due_at, brake_fluid.due_distance_km) == (
        "BRAKE_FLUID",
        _at(2024, 12, 1, 0, 0, 0),
        50000,
    )
    assert (wear.kind, wear.due_at, wear.due_distance_km) == ("TIRE_WEAR_REAR", None, None)
    assert (snapshot.info.head_unit, snapshot.info.software_version) == ("MGU", "11/2021.70")


def test_positions_of_chinese_accounts_are_turned_into_wgs_84() -> None:
    beijing = {"coordinates": {"latitude": 39.908722, "longitude": 116.397499}, "heading": 90}
    state = {**ALL_STATES["WBA00000000DEMO01"]["state"], "location": beijing}

    chinese = snapshot_of("WBA00000000DEMO01", Region.CHINA, state=state).location
    german = snapshot_of("WBA00000000DEMO01", state=state).location

    assert chinese is not None
    assert german is not None
    assert (german.latitude, german.longitude) == (39.908722, 116.397499)
    assert 0.0005 < german.latitude - chinese.latitude < 0.003
    assert 0.004 < german.longitude - chinese.longitude < 0.008
