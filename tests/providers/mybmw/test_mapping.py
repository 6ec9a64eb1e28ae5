"""Single points of the mapping: words never seen, values of the wrong type, brands."""

import copy
from typing import Any

import pytest
from bimmer_connected.tests import ALL_PROFILES, ALL_STATES

from functions.providers.mybmw.mapping import to_snapshot, to_vehicle
from functions.providers.port import Region
from functions.snapshot import Snapshot
from tests.providers.mybmw.harness import FETCHED_AT, IX, snapshot_of

X3 = "WBA00000000DEMO04"


def state_with(vin: str = IX, **changes: Any) -> dict[str, Any]:
    """A recorded state with some of its top-level parts replaced; a dict is merged into the part it replaces."""
    state: dict[str, Any] = copy.deepcopy(ALL_STATES[vin]["state"])
    for name, value in changes.items():
        state[name] = {**state[name], **value} if isinstance(value, dict) and name in state else value
    return state


def changed(vin: str = IX, **changes: Any) -> Snapshot:
    return snapshot_of(vin, state=state_with(vin, **changes))


def able(**changes: Any) -> dict[str, bool]:
    """What the iX can do with other flags."""
    capabilities = {**ALL_STATES[IX]["capabilities"], **changes}
    return dict(snapshot_of(IX, capabilities=capabilities).capabilities.commands)


def test_a_lock_state_never_seen_before_survives_is_flagged_and_says_nothing_of_being_locked() -> None:
    snapshot = changed(doorsState={"combinedSecurityState": "Deep_Locked"})

    assert snapshot.openings.lock_state == "DEEP_LOCKED"
    assert snapshot.openings.is_locked == "unknown"
    assert snapshot.unknown == {"openings.lock_state": "Deep_Locked"}


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"electricChargingState": {"chargingStatus": "TURBO"}}, "charging.status"),
        ({"chargingProfile": {"chargingMode": "SOLAR"}}, "charging.mode"),
        ({"chargingProfile": {"chargingPreference": "CHEAP"}}, "charging.preference"),
        ({"chargingProfile": {"chargingControlType": "MOON"}}, "charging.timer_type"),
        ({"climateControlState": {"activity": "DRYING"}}, "climate.activity"),
        ({"doorsState": {"leftFront": "AJAR"}}, "openings.doors.left_front"),
        ({"windowsState": {"rear": "TINTED"}}, "openings.windows.rear"),
        ({"doorsState": {"hood": "AJAR"}}, "openings.hood"),
        ({"roofState": {"roofState": "FOLDED"}}, "openings.roof"),
        ({"checkControlMessages": [{"type": "X", "severity": "APOCALYPTIC"}]}, "check_control.severity"),
        ({"requiredServices": [{"type": "X", "status": "FORGOTTEN"}]}, "services.status"),
    ],
)
def test_a_word_never_seen_before_is_flagged_where_it_stands(changes: dict[str, Any], path: str) -> None:
    snapshot = changed(**changes)

    assert list(snapshot.unknown) == [path]
    assert path not in snapshot.unavailable


def test_a_drivetrain_never_seen_before_survives_and_claims_neither_tank_nor_battery() -> None:
    profile = {**ALL_PROFILES[IX], "driveTrain": "HYDROGEN"}
    vehicle = to_vehicle(IX, profile)

    snapshot = to_snapshot(vehicle, ALL_STATES[IX], fetched_at=FETCHED_AT, region=Region.REST_OF_WORLD)

    assert (vehicle.drivetrain, snapshot.info.drivetrain) == ("HYDROGEN", "HYDROGEN")
    assert snapshot.unknown == {"info.drivetrain": "HYDROGEN"}
    assert snapshot.charging is None
    assert snapshot.fuel_and_battery.fuel_type is None
    assert snapshot.unavailable["charging"] == "the car's drivetrain is not known"
    assert snapshot.unavailable["fuel_and_battery.remaining_fuel_l"] == "the car's drivetrain is not known"


@pytest.mark.parametrize("word", ["INVALID", "UNKNOWN"])
def test_words_by_which_bmw_says_that_it_does_not_know_stay_as_they_are(word: str) -> None:
    snapshot = changed(
        doorsState={"combinedSecurityState": word, "leftRear": word},
        electricChargingState={"chargingStatus": word},
        climateControlState={"activity": "UNKNOWN"},
    )

    assert snapshot.openings.is_locked == "unknown"
    assert snapshot.openings.doors["left_rear"] == word
    assert snapshot.charging is not None
    assert snapshot.charging.status == word
    assert snapshot.climate is not None
    assert snapshot.climate.is_on is None
    assert snapshot.unknown == {}


def test_a_door_that_is_reported_as_nothing_is_unknown_and_not_absent() -> None:
    assert changed(doorsState={"leftFront": None}).openings.doors["left_front"] == "UNKNOWN"


def test_a_part_of_the_wrong_type_is_missing_flagged_and_leaves_the_rest_alone() -> None:
    snapshot = snapshot_of(IX, state={**ALL_STATES[IX]["state"], "doorsState": ["CLOSED"], "currentMileage": "1121"})

    assert snapshot.openings.doors == {}
    assert snapshot.openings.is_locked == "unknown"
    assert snapshot.mileage_km is None
    assert snapshot.unknown == {"openings.doors": "[...]", "mileage_km": "1121"}
    assert snapshot.unavailable["mileage_km"] == "the maker sent something that cannot be understood"
    assert snapshot.openings.windows["left_front"] == "CLOSED"
    assert snapshot.fuel_and_battery.battery_percent == 70


@pytest.mark.parametrize(
    ("coordinates", "shown"),
    [
        ({"latitude": 999.0, "longitude": 11.5}, "999.0"),
        ({"latitude": "48.1", "longitude": 11.5}, "48.1"),
        ({"latitude": float("nan"), "longitude": 11.5}, "NaN"),
        ({"latitude": True, "longitude": 11.5}, "true"),
    ],
)
def test_a_position_that_is_none_is_no_position(coordinates: dict[str, Any], shown: str) -> None:
    snapshot = changed(location={"coordinates": coordinates})

    assert snapshot.location is None
    assert snapshot.unknown == {"location": shown}
    assert snapshot.unavailable["location"] == "the maker sent something that cannot be understood"


def test_a_strange_value_is_kept_short() -> None:
    assert changed(currentMileage="x" * 5000).unknown == {"mileage_km": "x" * 64}


@pytest.mark.parametrize("flag", [1, "true", None])
def test_only_a_real_yes_is_a_plugged_in_charger(flag: object) -> None:
    charging = changed(electricChargingState={"isChargerConnected": flag}).charging

    assert charging is not None
    assert charging.is_plugged_in is None


def test_a_plug_in_hybrid_whose_electric_range_is_not_told_has_no_fuel_range_either() -> None:
    energy = changed(X3, electricChargingState={"range": None}).fuel_and_battery

    assert (energy.remaining_range_total_km, energy.remaining_range_fuel_km) == (476, None)


def test_a_plug_in_hybrid_whose_ranges_contradict_each_other_has_no_fuel_range() -> None:
    energy = changed(X3, electricChargingState={"range": 500}).fuel_and_battery

    assert (energy.remaining_range_total_km, energy.remaining_range_fuel_km) == (476, None)


def test_the_range_extender_has_no_range_in_all_where_one_part_is_missing() -> None:
    rex = changed("WBY00000000REXI01", combustionFuelLevel={"range": None}).fuel_and_battery

    assert (rex.remaining_range_electric_km, rex.remaining_range_total_km) == (174, None)


def test_a_car_that_does_not_charge_has_no_end_of_charging_and_says_why() -> None:
    snapshot = snapshot_of("WBA00000000DEMO02")

    assert snapshot.charging is not None
    assert snapshot.charging.ends_at is None
    assert snapshot.unavailable["charging.ends_at"] == "the car is not charging"


@pytest.mark.parametrize(
    ("statuses", "required"),
    [(["OK", "OK"], False), (["OK", "PENDING"], True), (["OVERDUE"], True), (["OK", "UNKNOWN"], None), ([], None)],
)
def test_a_service_is_required_if_one_is_due_and_not_if_all_are_well(statuses: list[str], required: bool) -> None:
    services = [{"type": "OIL", "status": status} for status in statuses]

    assert changed(requiredServices=services).service_required is required


def test_a_warning_is_told_in_the_makers_words_where_there_are_any_and_one_that_is_none_is_left_out() -> None:
    snapshot = changed(
        checkControlMessages=[
            {"type": "ENGINE_OIL", "severity": "HIGH", "longDescription": "Top up the engine oil."},
            {"type": "TIRE_PRESSURE", "severity": "MEDIUM"},
            {"type": "WASHER_FLUID", "severity": "OK"},
            {},
        ]
    )

    assert snapshot.check_control is not None
    assert [(message.text, message.severity, message.category) for message in snapshot.check_control] == [
        ("Top up the engine oil.", "HIGH", "ENGINE_OIL"),
        ("Tire pressure", "MEDIUM", "TIRE_PRESSURE"),
        ("Unknown", "UNKNOWN", "UNKNOWN"),
    ]


def test_an_entry_of_a_list_that_is_no_object_is_left_out_and_flagged() -> None:
    snapshot = changed(checkControlMessages=["ENGINE_OIL", {"type": "ENGINE_OIL", "severity": "HIGH"}])

    assert snapshot.check_control is not None
    assert len(snapshot.check_control) == 1
    assert snapshot.unknown == {"check_control.0": "ENGINE_OIL"}


def test_a_list_that_is_none_is_missing_and_flagged() -> None:
    snapshot = changed(checkControlMessages=7, chargingProfile={"departureTimes": "never"})

    assert snapshot.check_control is None
    assert snapshot.charging is not None
    assert snapshot.charging.departure_timers == ()
    assert snapshot.unknown == {"check_control": "7", "charging.departure_timers": "never"}
    assert snapshot.unavailable["check_control"] == "the maker sent something that cannot be understood"


@pytest.mark.parametrize("when", ["yesterday", "2023-13-45T00:00:00Z", "9999-12-31T23:59:59-14:00"])
def test_a_time_that_is_none_is_no_time(when: str) -> None:
    snapshot = changed(lastUpdatedAt=when)

    assert snapshot.measured_at is None
    assert snapshot.unknown == {"measured_at": when}


def test_a_time_without_a_zone_is_utc() -> None:
    measured_at = changed(lastUpdatedAt="2023-01-04T14:57:06").measured_at

    assert measured_at is not None
    assert measured_at.isoformat() == "2023-01-04T14:57:06+00:00"


def test_a_car_that_stopped_reporting_is_told_apart_from_one_that_never_does() -> None:
    forgetful = snapshot_of(IX, state={"isLscSupported": True, "lastFetched": "2023-01-04T14:57:06Z"})
    silent = snapshot_of(IX, state={"isLscSupported": False, "lastFetched": "2023-01-04T14:57:06Z"})

    assert forgetful.unavailable["mileage_km"] == "the car did not report it"
    assert silent.unavailable["mileage_km"] == "the car sends no state"


def test_a_command_that_bmw_does_not_mention_is_not_mentioned() -> None:
    assert "lock" not in able(lock=None)
    assert "charging_settings" not in able(isChargingTargetSocEnabled=None, isChargingPowerLimitEnabled=None)
    assert snapshot_of(IX, capabilities=None).capabilities.commands == {}


@pytest.mark.parametrize(("activation", "possible"), [("ACTIVATED", True), ("NOT_AVAILABLE", False), (None, True)])
def test_a_remote_service_that_is_not_activated_cannot_be_used(activation: str | None, possible: bool) -> None:
    assert able(remoteServices={"doorUnlock": {"id": "doorUnlock", "state": activation}})["unlock"] is possible


def test_either_of_two_settings_is_enough_for_charging_settings() -> None:
    assert able(isChargingTargetSocEnabled=True, isChargingPowerLimitEnabled=False)["charging_settings"] is True
    assert able(isChargingTargetSocEnabled=False, isChargingPowerLimitEnabled=False)["charging_settings"] is False


@pytest.mark.parametrize(
    ("raw", "brand"),
    [("BMW", "BMW"), ("BMW_I", "BMW"), ("bmw_m", "BMW"), ("MINI", "MINI"), ("TOYOTA", "TOYOTA"),
     ("DRITTKUNDE", "TOYOTA"), ("ROLLS_ROYCE", "ROLLS"), (None, "UNKNOWN")],
)  # fmt: skip
def test_a_brand_is_told_by_its_first_word(raw: str | None, brand: str) -> None:
    assert to_vehicle(IX, {"brand": raw}).brand == brand


def test_a_brand_never_seen_before_is_flagged() -> None:
    profile = {**ALL_PROFILES[IX], "brand": "ALPINA"}

    snapshot = to_snapshot(to_vehicle(IX, profile), ALL_STATES[IX], fetched_at=FETCHED_AT, region=Region.REST_OF_WORLD)

    assert (snapshot.info.brand, snapshot.unknown) == ("ALPINA", {"info.brand": "ALPINA"})


def test_a_vehicle_whose_profile_says_nothing_is_listed_all_the_same() -> None:
    vehicle = to_vehicle(IX, {})

    assert (vehicle.vin, vehicle.brand, vehicle.name, vehicle.drivetrain) == (IX, "UNKNOWN", "", "UNKNOWN")
    assert IX in repr(vehicle)
