"""Commands that cannot work are refused before anything is sent."""

from dataclasses import replace
from typing import Any

import pytest

from common.errors import ApiError, NotSupported, PreconditionFailed, ValidationFailed
from functions.providers.mybmw.checks import check
from functions.providers.port import Command, CommandName
from functions.snapshot import Capabilities, Charging, Snapshot
from tests.providers.mybmw.harness import IX, snapshot_of

F31 = "WBA00000000000F31"
I4 = "WBA00000000DEMO02"


def refusal(snapshot: Snapshot, name: CommandName, /, **params: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        check(Command(name, params), snapshot)
    return caught.value


def charging(**changes: Any) -> Snapshot:
    snapshot = snapshot_of(IX)
    assert snapshot.charging is not None
    return replace(snapshot, charging=replace(snapshot.charging, **changes))


@pytest.mark.parametrize(
    ("name", "params"),
    [
        *[(name, {}) for name in ("lock", "unlock", "flash", "horn", "ac", "ac_off", "charge_start", "charge_stop")],
        ("charging_settings", {"target_soc": 20}),
        ("charging_settings", {"target_soc": 100, "ac_limit": 32}),
        ("charging_settings", {"ac_limit": 6}),
        ("charging_profile", {"charging_mode": "DELAYED_CHARGING"}),
        ("charging_profile", {"precondition_climate": False}),
        ("send_poi", {"latitude": -90, "longitude": 180.0}),
        ("find", {}),
        ("find", {"latitude": 48.1, "longitude": 11.5}),
    ],
)
def test_the_ix_can_do_everything(name: str, params: dict[str, Any]) -> None:
    check(Command(CommandName(name), params), snapshot_of(IX))


@pytest.mark.parametrize("name", ["ac_off", "charge_start", "charge_stop", "charging_settings", "charging_profile"])
def test_a_car_that_cannot_do_something_is_not_asked_to(name: str) -> None:
    failure = refusal(snapshot_of(F31), CommandName(name), target_soc=80)

    assert isinstance(failure, NotSupported)
    assert name in failure.message


@pytest.mark.parametrize("name", list(CommandName))
def test_what_bmw_does_not_say_that_a_car_can_do_is_not_tried(name: CommandName) -> None:
    assert isinstance(refusal(replace(snapshot_of(IX), capabilities=Capabilities()), name), NotSupported)


@pytest.mark.parametrize(
    ("plugged_in", "message"),
    [(False, "The vehicle is not plugged in."), (None, "The vehicle does not report that it is plugged in.")],
)
def test_a_car_that_is_not_known_to_be_plugged_in_does_not_start_to_charge(
    plugged_in: bool | None, message: str
) -> None:
    failure = refusal(charging(is_plugged_in=plugged_in), CommandName.CHARGE_START)

    assert isinstance(failure, PreconditionFailed)
    assert failure.message == message


@pytest.mark.parametrize("status", ["INVALID", "COMPLETE", "UNKNOWN", None])
def test_a_car_that_does_not_charge_does_not_stop_charging(status: str | None) -> None:
    assert isinstance(refusal(charging(status=status), CommandName.CHARGE_STOP), PreconditionFailed)


@pytest.mark.parametrize("name", [CommandName.CHARGE_START, CommandName.CHARGE_STOP])
def test_a_car_that_tells_nothing_of_its_battery_does_neither(name: CommandName) -> None:
    assert isinstance(refusal(replace(snapshot_of(IX), charging=None), name), PreconditionFailed)


@pytest.mark.parametrize("target", [15, 105, 81, 80.0, True, "80"])
def test_a_target_is_20_to_100_in_steps_of_5(target: object) -> None:
    failure = refusal(snapshot_of(IX), CommandName.CHARGING_SETTINGS, target_soc=target)

    assert isinstance(failure, ValidationFailed)
    assert failure.details["fields"] == [{"path": "params.target_soc", "problem": "is not 20 to 100 in steps of 5"}]


@pytest.mark.parametrize("limit", [5, 17, 33, 16.0, True])
def test_a_limit_is_one_that_the_car_accepts(limit: object) -> None:
    failure = refusal(snapshot_of(IX), CommandName.CHARGING_SETTINGS, ac_limit=limit)

    assert isinstance(failure, ValidationFailed)
    assert failure.details["fields"][0]["path"] == "params.ac_limit"


@pytest.mark.parametrize(
    ("flag", "params"), [("set_target_soc", {"target_soc": 80}), ("set_ac_limit", {"ac_limit": 16})]
)
def test_a_setting_that_the_car_does_not_have_is_not_set(flag: str, params: dict[str, Any]) -> None:
    snapshot = snapshot_of(IX)
    unable = replace(snapshot, capabilities=replace(snapshot.capabilities, **{flag: False}))  # type: ignore[arg-type]  # a field by name

    assert isinstance(refusal(unable, CommandName.CHARGING_SETTINGS, **params), NotSupported)


def test_a_limit_is_not_set_where_the_car_does_not_say_which_it_accepts() -> None:
    assert isinstance(refusal(charging(ac_limits_a=()), CommandName.CHARGING_SETTINGS, ac_limit=16), NotSupported)


def test_settings_without_a_setting_are_not_sent() -> None:
    assert isinstance(refusal(snapshot_of(IX), CommandName.CHARGING_SETTINGS), ValidationFailed)
    assert isinstance(refusal(snapshot_of(IX), CommandName.CHARGING_PROFILE), ValidationFailed)


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({"charging_mode": "SOLAR"}, "params.charging_mode"),
        ({"charging_mode": "NO_ACTION"}, "params.charging_mode"),
        ({"precondition_climate": 1}, "params.precondition_climate"),
    ],
)
def test_a_profile_is_changed_to_what_bmw_knows(params: dict[str, Any], path: str) -> None:
    failure = refusal(snapshot_of(IX), CommandName.CHARGING_PROFILE, **params)

    assert isinstance(failure, ValidationFailed)
    assert failure.details["fields"][0]["path"] == path


@pytest.mark.parametrize("without", [charging(mode=None), replace(snapshot_of(IX), charging=None)])
def test_a_profile_that_is_not_reported_is_not_changed(without: Snapshot) -> None:
    failure = refusal(without, CommandName.CHARGING_PROFILE, precondition_climate=True)

    assert isinstance(failure, NotSupported)


@pytest.mark.parametrize("name", [CommandName.SEND_POI, CommandName.FIND])
@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({"latitude": 90.1, "longitude": 0}, "params.latitude"),
        ({"latitude": 0, "longitude": -180.1}, "params.longitude"),
        ({"latitude": float("nan"), "longitude": 0}, "params.latitude"),
        ({"latitude": 0, "longitude": float("inf")}, "params.longitude"),
        ({"latitude": "48", "longitude": 0}, "params.latitude"),
        ({"latitude": True, "longitude": 0}, "params.latitude"),
        ({"latitude": 48.1}, "params.longitude"),
        ({"longitude": 11.5}, "params.latitude"),
    ],
)
def test_a_position_is_on_the_earth_and_complete(name: CommandName, params: dict[str, Any], path: str) -> None:
    failure = refusal(snapshot_of(IX), name, **params)

    assert isinstance(failure, ValidationFailed)
    assert failure.details["fields"][0]["path"] == path


def test_a_destination_needs_a_position() -> None:
    assert isinstance(refusal(snapshot_of(IX), CommandName.SEND_POI, name="Home"), ValidationFailed)


def test_what_a_car_charges_with_does_not_matter_to_its_doors() -> None:
    check(Command(CommandName.UNLOCK), replace(snapshot_of(I4), charging=Charging()))
