"""What a command should look like in the car's own data."""

from dataclasses import replace
from typing import Any

import pytest

from functions.effects import TRACEABLE, TRACES, shows
from functions.providers.port import Command, CommandName
from functions.snapshot import Charging, Climate, Openings, Snapshot
from tests.support.fake_provider import bare_snapshot

SILENT = bare_snapshot()


def locked(state: str | None) -> Snapshot:
    return replace(SILENT, openings=Openings(lock_state=state))


def charging(**fields: Any) -> Snapshot:
    return replace(SILENT, charging=Charging(**fields))


def climate(activity: str) -> Snapshot:
    return replace(SILENT, climate=Climate(activity))


@pytest.mark.parametrize(
    ("name", "params", "snapshot", "shown"),
    [
        ("lock", {}, locked("SECURED"), True),
        ("lock", {}, locked("LOCKED"), True),
        ("lock", {}, locked("UNLOCKED"), False),
        ("lock", {}, locked("SELECTIVE_LOCKED"), False),
        ("lock", {}, locked("UNKNOWN"), False),
        ("unlock", {}, locked("UNLOCKED"), True),
        ("unlock", {}, locked("LOCKED"), False),
        ("unlock", {}, locked("SELECTIVE_LOCKED"), False),
        ("unlock", {}, locked("UNKNOWN"), False),
        ("ac", {}, climate("COOLING"), True),
        ("ac", {}, climate("STANDBY"), False),
        ("ac", {}, climate("NEW_WORD"), False),
        ("ac_off", {}, climate("INACTIVE"), True),
        ("ac_off", {}, climate("HEATING"), False),
        ("ac_off", {}, climate("UNKNOWN"), False),
        ("ac_off", {}, climate("NEW_WORD"), False),
        ("charge_start", {}, charging(status="CHARGING"), True),
        ("charge_start", {}, charging(status="PLUGGED_IN"), False),
        ("charge_stop", {}, charging(status="PLUGGED_IN"), True),
        ("charge_stop", {}, charging(status="COMPLETE"), True),
        ("charge_stop", {}, charging(status="CHARGING"), False),
        ("charge_stop", {}, charging(status="UNKNOWN"), False),
        ("charge_stop", {}, charging(status="INVALID"), False),
        ("charge_stop", {}, charging(status="FAST_CHARGING"), False),
        ("charge_stop", {}, charging(status=None), False),
        ("charging_settings", {"target_soc": 80}, charging(target_percent=80), True),
        ("charging_settings", {"target_soc": 80}, charging(target_percent=85), False),
        ("charging_settings", {"target_soc": 80, "ac_limit": 16}, charging(target_percent=80, ac_limit_a=16), True),
        ("charging_settings", {"target_soc": 80, "ac_limit": 16}, charging(target_percent=80), False),
        ("charging_settings", {"target_soc": 80, "ac_limit": None}, charging(target_percent=80, ac_limit_a=6), True),
        ("charging_profile", {"charging_mode": "DELAYED_CHARGING"}, charging(mode="DELAYED_CHARGING"), True),
        ("charging_profile", {"charging_mode": "DELAYED_CHARGING"}, charging(mode="IMMEDIATE_CHARGING"), False),
        ("charging_profile", {"precondition_climate": False}, charging(preconditions_climate=False), True),
        ("charging_profile", {"precondition_climate": False}, charging(preconditions_climate=None), False),
    ],
)
def test_a_command_shows_only_in_what_the_car_says(
    name: str, params: dict[str, Any], snapshot: Snapshot, shown: bool
) -> None:
    assert shows(snapshot, Command(CommandName(name), params)) is shown


PARAMS: dict[CommandName, dict[str, Any]] = {
    CommandName.CHARGING_SETTINGS: {"target_soc": 80},
    CommandName.CHARGING_PROFILE: {"precondition_climate": False},
}


@pytest.mark.parametrize("name", sorted(TRACES))
def test_silence_is_never_taken_for_an_effect(name: CommandName) -> None:
    assert shows(SILENT, Command(name, PARAMS.get(name, {}))) is False


def test_a_horn_leaves_no_trace() -> None:
    assert set(CommandName) - TRACEABLE == {
        CommandName.FLASH,
        CommandName.HORN,
        CommandName.SEND_POI,
        CommandName.FIND,
    }
