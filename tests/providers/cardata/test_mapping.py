"""From signals to the maker-neutral vehicle: what was said, when, and why not."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functions.providers.cardata import descriptors as d
from functions.providers.cardata.energy import NO_BATTERY, NO_ENGINE, NOT_APART, NOT_CHARGING
from functions.providers.cardata.mapping import SPLIT_POSITION, to_snapshot
from functions.providers.cardata.sheet import NOT_IN_CARDATA
from functions.providers.cardata.signals import merge, received
from functions.providers.cardata.values import Nothing
from functions.snapshot import CheckControlMessage, ServiceItem, Snapshot, Tire
from tests.providers.cardata.harness import NOON, car, said, signals

LATER = NOON + timedelta(minutes=5)
STATUS, MINUTES = d.CHARGING_STATUS, d.CHARGING_MINUTES[0]


def snapshot(values: dict[str, Any], drivetrain: str = "PLUGIN_HYBRID", **profile: Any) -> Snapshot:
    return to_snapshot(car(drivetrain, **profile), signals(values), fetched_at=LATER)


def test_each_value_carries_the_time_at_which_it_was_measured() -> None:
    found = snapshot({d.MILEAGE: ("12345.6", "km"), d.SOC[0]: said("63.4", "%", at=LATER, received_at=LATER)})

    assert found.mileage_km == 12346
    assert found.fuel_and_battery.battery_percent == 63
    assert found.measured["mileage_km"] == NOON
    assert found.measured["fuel_and_battery.battery_percent"] == LATER
    assert found.measured_at == LATER
    assert found.fetched_at == LATER


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (said(None), Nothing.NULL),
        (said("-NA-"), Nothing.INVALID),
        (said("INVALID"), Nothing.INVALID),
        (said("far"), Nothing.MALFORMED),
        (None, Nothing.ABSENT),
    ],
)
def test_four_kinds_of_nothing_have_four_reasons(raw: Any, reason: Nothing) -> None:
    found = snapshot({} if raw is None else {d.MILEAGE: raw})

    assert found.mileage_km is None
    assert found.unavailable["mileage_km"] == reason.value
    assert "mileage_km" not in found.measured
    assert found.unknown.get("mileage_km") == ("far" if reason is Nothing.MALFORMED else None)


def test_a_time_in_the_future_is_kept_and_flagged() -> None:
    ahead = NOON + timedelta(hours=1)
    found = snapshot({d.MILEAGE: said("5", "km", at=ahead), d.SOC[0]: ("50", "%")})

    assert found.mileage_km == 5
    assert found.measured["mileage_km"] == ahead
    assert found.unknown["measured.mileage_km"] == ahead.isoformat()
    assert found.measured_at == NOON


def test_without_any_signal_everything_has_a_reason() -> None:
    found = snapshot({})

    assert found.measured_at is None
    assert found.openings.is_locked == "unknown"
    for path in ("measured_at", "mileage_km", "location", "climate", "tires", "services", "check_control"):
        assert found.unavailable[path]
    assert found.unavailable["info.model_year"] == NOT_IN_CARDATA


def test_of_two_names_for_one_thing_the_later_measured_counts() -> None:
    header, displayed = d.SOC
    frozen = snapshot({header: ("40", "%"), displayed: said("55", "%", at=LATER, received_at=LATER)})
    unsure = snapshot({header: ("40", "%"), displayed: said("INVALID", at=LATER, received_at=LATER)})
    neither = snapshot({header: "INVALID"})

    assert frozen.fuel_and_battery.battery_percent == 55
    assert unsure.fuel_and_battery.battery_percent == 40
    assert neither.unavailable["fuel_and_battery.battery_percent"] == Nothing.INVALID.value


@pytest.mark.parametrize(
    ("drivetrain", "missing"),
    [
        ("COMBUSTION", {"battery_percent": NO_BATTERY, "remaining_range_electric_km": NO_BATTERY}),
        ("ELECTRIC", {"remaining_fuel_l": NO_ENGINE, "remaining_range_fuel_km": NO_ENGINE}),
    ],
)
def test_what_a_car_is_not_built_for_is_not_reported(drivetrain: str, missing: dict[str, str]) -> None:
    found = snapshot({d.FUEL_LITRES: ("0", "l"), d.SOC[0]: ("0", "%"), d.RANGE_TOTAL: ("300", "km")}, drivetrain)

    for name, reason in missing.items():
        assert getattr(found.fuel_and_battery, name) is None
        assert found.unavailable[f"fuel_and_battery.{name}"] == reason
    assert (found.charging is None) == (drivetrain == "COMBUSTION")
    assert found.fuel_and_battery.remaining_range_total_km == 300


def test_the_fuel_range_of_a_hybrid_is_what_is_left_of_the_total() -> None:
    total, electric = d.RANGE_TOTAL, d.RANGE_ELECTRIC[0]
    together = snapshot({total: ("600", "km"), electric: ("50", "km")})
    apart = snapshot({total: ("600", "km"), electric: said("50", "km", at=LATER, received_at=LATER)})
    absurd = snapshot({total: ("40", "km"), electric: ("50", "km")})

    assert together.fuel_and_battery.remaining_range_fuel_km == 550
    for found in (apart, absurd):
        assert found.fuel_and_battery.remaining_range_fuel_km is None
        assert found.unavailable["fuel_and_battery.remaining_range_fuel_km"] == NOT_APART
    alone = snapshot({total: ("600", "km")}, "COMBUSTION").fuel_and_battery
    assert (alone.remaining_range_fuel_km, alone.remaining_range_total_km) == (600, 600)
    electric_only = snapshot({electric: ("250", "km")}, "ELECTRIC").fuel_and_battery
    assert (electric_only.remaining_range_fuel_km, electric_only.remaining_range_total_km) == (None, 250)
    assert snapshot({electric: ("50", "km"), total: ("90", "km")}, "UNKNOWN").fuel_and_battery.fuel_type is None


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        ("CHARGINGACTIVE", "CHARGING"),
        ("CHARGINGPAUSED", "WAITING_FOR_CHARGING"),
        ("CHARGINGENDED", "NOT_CHARGING"),
        ("NOCHARGING", "NOT_CHARGING"),
        ("INITIALIZATION", "INITIALIZATION"),
        ("CHARGINGSIDEWAYS", "CHARGINGSIDEWAYS"),
    ],
)
def test_a_charge_ends_at_a_time_only_while_it_goes_on(raw: str, status: str) -> None:
    found = snapshot({STATUS: raw, MINUTES: ("90", "min")})

    assert found.charging is not None
    assert found.charging.status == status
    if status == "CHARGING":
        assert found.charging.ends_at == NOON + timedelta(minutes=90)
    else:
        assert found.charging.ends_at is None
        assert found.unavailable["charging.ends_at"] == NOT_CHARGING
    assert ("charging.status" in found.unknown) == (status == "CHARGINGSIDEWAYS")


def test_minutes_of_an_earlier_charge_do_not_end_this_one() -> None:
    found = snapshot({MINUTES: ("90", "min"), STATUS: said("CHARGINGACTIVE", at=LATER, received_at=LATER)})

    assert found.charging is not None
    assert found.charging.ends_at is None
    assert found.unavailable["charging.ends_at"] == Nothing.ABSENT.value


def test_how_a_car_charges() -> None:
    found = snapshot({d.PLUG[1]: "CONNECTED", d.SOC_TARGET: ("80", "%"), d.AC_LIMIT: ("16", "A")}).charging

    assert found is not None
    assert (found.is_plugged_in, found.target_percent, found.ac_limit_a) == (True, 80, 16)


@pytest.mark.parametrize(
    ("profile", "name"),
    [
        ({"countryCode": "DE"}, "left_front"),
        ({"countryCode": "GB"}, "right_front"),
        ({"countryCode": "GB", "steering": "LEFT"}, "left_front"),
        ({"countryCode": "DE", "steering": "RIGHT"}, "right_front"),
        ({"countryCode": ""}, "driver_front"),
    ],
)
def test_the_drivers_door_is_where_the_driver_sits(profile: dict[str, str], name: str) -> None:
    found = snapshot({d.door("row1", "driver"): "OPEN"}, **profile)

    assert found.openings.doors == {name: "OPEN"}
    assert found.measured[f"openings.doors.{name}"] == NOON


@pytest.mark.parametrize(
    ("raw", "state"),
    [
        (True, "OPEN"),
        ("true", "OPEN"),
        ("OPEN", "OPEN"),
        (False, "CLOSED"),
        ("false", "CLOSED"),
        ("CLOSED", "CLOSED"),
        ("INTERMEDIATE", "INTERMEDIATE"),
        ("INVALID", "INVALID"),
        (None, "UNKNOWN"),
        (7, "UNKNOWN"),
        ("AJAR", "AJAR"),
    ],
)
def test_a_lid_that_cannot_be_read_does_not_pass_for_closed_or_absent(raw: object, state: str) -> None:
    found = snapshot({d.TRUNK: said(raw), d.window("row2", "passenger"): said(raw)})

    assert found.openings.trunk == state
    assert found.openings.windows == {"right_rear": state}
    assert found.openings.hood is None
    assert ("openings.trunk" in found.unavailable) == (state in ("INVALID", "UNKNOWN"))
    assert ("openings.trunk" in found.unknown) == (raw in (7, "AJAR"))


@pytest.mark.parametrize(
    ("raw", "locked"),
    [
        ("SECURED", True),
        ("LOCKED", True),
        ("UNLOCKED", False),
        ("SELECTIVE-LOCKED", "partial"),
        ("INVALID", "unknown"),
        ("UNKNOWN", "unknown"),
        ("DOUBLE", "unknown"),
    ],
)
def test_locks(raw: str, locked: object) -> None:
    found = snapshot({d.LOCK[0]: raw})

    assert found.openings.is_locked == locked
    assert ("openings.lock_state" in found.unknown) == (raw == "DOUBLE")


@pytest.mark.parametrize(
    ("roof", "tilt", "state"),
    [
        ("CLOSED", "OPEN", "OPEN"),
        ("CLOSED", "CLOSED", "CLOSED"),
        ("OPEN", "CLOSED", "OPEN"),
        ("INVALID", None, "INVALID"),
    ],
)
def test_a_roof_that_is_tilted_is_not_closed(roof: str, tilt: str | None, state: str) -> None:
    values = {d.ROOF: roof} | ({d.ROOF_TILT: tilt} if tilt else {})

    assert snapshot(values).openings.roof == state


@pytest.mark.parametrize(("tilt", "measured_at"), [("CLOSED", NOON), ("OPEN", LATER)])
def test_a_roof_is_dated_by_what_decides_how_it_stands(tilt: str, measured_at: datetime) -> None:
    found = snapshot({d.ROOF: "CLOSED", d.ROOF_TILT: said(tilt, at=LATER, received_at=LATER)})

    assert found.measured["openings.roof"] == measured_at


def test_a_location_is_a_pair() -> None:
    pair = {d.LATITUDE: ("48.1", "degrees"), d.LONGITUDE: ("11.5", "degrees"), d.HEADING: ("359.6", "degrees")}
    found = snapshot(pair)
    split = snapshot({**pair, d.LONGITUDE: said("11.5", at=LATER, received_at=LATER)})
    blank = snapshot({**pair, d.LONGITUDE: said(None, at=LATER, received_at=LATER)})

    assert found.location is not None
    assert (found.location.latitude, found.location.longitude, found.location.heading_deg) == (48.1, 11.5, 360)
    assert found.location.measured_at == found.measured["location"] == NOON
    assert split.location is None
    assert split.unavailable["location"] == SPLIT_POSITION
    assert blank.unavailable["location"] == Nothing.NULL.value


@pytest.mark.parametrize(
    ("raw", "activity", "is_on"),
    [("heating", "HEATING", True), ("inactive", "INACTIVE", False), ("standby", "STANDBY", False), ("x", "X", None)],
)
def test_climate(raw: str, activity: str, is_on: bool | None) -> None:
    found = snapshot({d.CLIMATE: raw, d.CLIMATE_MINUTES: ("15", "min")})

    assert found.climate is not None
    assert (found.climate.activity, found.climate.is_on) == (activity, is_on)
    assert found.climate.ends_at == (NOON + timedelta(minutes=15) if is_on else None)
    assert ("climate.activity" in found.unknown) == (is_on is None)


def test_the_minutes_of_an_earlier_run_do_not_end_this_one() -> None:
    yesterday = said("15", "min", at=NOON - timedelta(days=1), received_at=NOON)
    found = snapshot({d.CLIMATE: "heating", d.CLIMATE_MINUTES: yesterday})

    assert found.climate is not None
    assert found.climate.ends_at is None
    assert found.unavailable["climate.ends_at"] == Nothing.ABSENT.value


@pytest.mark.parametrize(
    "name",
    [
        "vehicle.trip.lastGPSFix",
        "vehicle.status.parkedLatitude",
        "vehicle.cabin.infotainment.navigation.destinationSet.arrivalTime",
        "vehicle.tripDestination",
        "vehicle.charging.lastStation.postalAddress",
        "vehicle.currentLocation.fix",
        "vehicle.status.geoPosition",
        "vehicle.body.altitudeSensor",
    ],
)
def test_what_may_tell_a_place_is_called_so_whatever_bmw_calls_it(name: str) -> None:
    assert set(snapshot({name: "somewhere"}).extra) == {f"location.{name}"}


def test_tires_are_in_kilopascal() -> None:
    left, right = d.WHEELS["front_left"], d.WHEELS["rear_right"]
    found = snapshot({d.pressure(left): ("2.5", "bar"), d.target_pressure(left): "-NA-", d.pressure(right): said(None)})

    assert found.tires == {"front_left": Tire(pressure_kpa=250), "rear_right": Tire()}
    assert found.unavailable["tires.front_left.target_pressure_kpa"] == Nothing.INVALID.value
    assert found.unavailable["tires.rear_right.pressure_kpa"] == Nothing.NULL.value
    assert found.unavailable["tires.front_left.season"] == NOT_IN_CARDATA


def test_services_stand_in_json_inside_a_text() -> None:
    listed = (
        '[{"id": 1, "text": "Engine oil", "status": "OK", "unitOfLengthRemaining": 12000, "dueDate": "01.02.2027"}]'
    )
    found = snapshot({d.SERVICES: listed, d.SERVICE_DISTANCE: ("9000", "km"), d.INSPECTION: "17.01.2027 00:00:00 UTC"})

    assert found.services == (
        ServiceItem("Engine oil", "OK", datetime(2027, 2, 1, tzinfo=UTC), 12000),
        ServiceItem("NEXT_SERVICE", "UNKNOWN", due_distance_km=9000),
        ServiceItem("LEGAL_INSPECTION", "UNKNOWN", due_at=datetime(2027, 1, 17, tzinfo=UTC)),
    )
    assert found.service_required is False
    assert snapshot({d.SERVICES: '[{"status": "overdue"}]'}).service_required is True
    assert snapshot({d.SERVICES: '[{"x": [1]}]'}).services == (ServiceItem("UNKNOWN", "UNKNOWN"),)
    assert snapshot({d.SERVICES: "[]"}).services == ()
    assert snapshot({d.SERVICES: "-"}).services is None
    assert snapshot({d.SERVICES: "-"}).unavailable["services"] == Nothing.INVALID.value


def test_only_an_empty_list_says_that_there_is_no_warning() -> None:
    shown = '[{"id": 955, "text": "Washer fluid low", "status": "SHOWN"}, {}]'

    assert snapshot({d.CHECK_CONTROL: shown}).check_control == (
        CheckControlMessage("Washer fluid low", "SHOWN", "955"),
        CheckControlMessage("UNKNOWN", "UNKNOWN", "UNKNOWN"),
    )
    assert snapshot({d.CHECK_CONTROL: "[]"}).check_control == ()
    assert snapshot({d.CHECK_CONTROL: "null"}).check_control is None


def test_what_has_no_place_is_kept_as_it_was_written_and_places_are_marked() -> None:
    speed, altitude = "vehicle.never.seen", "vehicle.cabin.infotainment.navigation.currentLocation.altitude"
    found = snapshot({speed: ("12", "km/h"), altitude: ("519", "m"), d.MILEAGE: ("1", "km"), d.LATITUDE: "48"})

    assert found.extra == {
        speed: {"value": "12", "unit": "km/h", "measured_at": NOON},
        f"location.{altitude}": {"value": "519", "unit": "m", "measured_at": NOON},
    }


def test_no_command_is_possible() -> None:
    assert set(snapshot({}).capabilities.commands.values()) == {False}


def test_a_drivetrain_that_is_not_known_is_shown_as_bmw_writes_it() -> None:
    assert snapshot({}, "UNKNOWN", driveTrain="FCEV").unknown["info.drivetrain"] == "FCEV"


scalar = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=30)
    | st.sampled_from(["OPEN", "CLOSED", "INVALID", "-NA-", "SECURED", "CHARGINGACTIVE", "[{}]", '[{"id":{}}]', "1e9"])
)
anything = st.recursive(
    scalar, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
entry = anything | st.fixed_dictionaries(
    {},
    optional={
        "value": anything,
        "unit": st.sampled_from(["km", "%", "bar", "\ud800", "", None, 5]),
        "timestamp": st.sampled_from(["2026-01-05T11:00:00Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", None, 5]),
    },
)
names = st.sampled_from([*d.CONTAINER, d.POSITION, d.READ, "vehicle.new"]) | st.text(max_size=10)


@given(
    st.lists(st.dictionaries(names, entry, max_size=12) | anything, max_size=3),
    st.sampled_from(["ELECTRIC", "COMBUSTION", "PLUGIN_HYBRID", "UNKNOWN"]),
)
@settings(max_examples=120)
def test_damaged_data_crash_nothing_and_claim_nothing(replies: list[Any], drivetrain: str) -> None:
    state: dict[str, Any] = {}
    for reply in replies:
        state = merge(state, received(reply, at=LATER, via="rest"))

    found = to_snapshot(car(drivetrain), state, fetched_at=LATER)

    if found.openings.is_locked is True:
        assert {"SECURED", "LOCKED"} & {str(state[n].value).strip().upper() for n in d.LOCK if n in state}
    for lid, name in ((found.openings.trunk, d.TRUNK), (found.openings.hood, d.HOOD)):
        assert (lid is None) == (name not in state)
        assert lid != "CLOSED" or str(state[name].value).strip().upper() in ("FALSE", "CLOSED")
    assert found.mileage_km is None or "mileage_km" not in found.unavailable
