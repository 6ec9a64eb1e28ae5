"""Whether a command can work on a car as it last reported. Decides; asks nobody."""

from collections.abc import Callable, Mapping
from typing import Any

from common.errors import NotSupported, PreconditionFailed, ValidationFailed
from functions.providers.port import Command, CommandName
from functions.snapshot import CHARGING, Snapshot

CHARGING_MODES = ("IMMEDIATE_CHARGING", "DELAYED_CHARGING")


def check(command: Command, snapshot: Snapshot) -> None:
    """Refuse what cannot work.

    Raises NotSupported (this car cannot, or BMW does not say that it can), PreconditionFailed (not now),
    ValidationFailed (the car does not take that value; ``details["fields"]``).
    """
    if not snapshot.capabilities.commands.get(command.name.value):
        raise NotSupported(f"This vehicle does not support {command.name.value}.")
    further = _FURTHER.get(command.name)
    if further is not None:
        further(command.params, snapshot)


def _charge_start(_params: Mapping[str, Any], snapshot: Snapshot) -> None:
    plugged_in = snapshot.charging.is_plugged_in if snapshot.charging else None
    if not plugged_in:
        raise PreconditionFailed(
            "The vehicle is not plugged in."
            if plugged_in is False
            else "The vehicle does not report that it is plugged in."
        )


def _charge_stop(_params: Mapping[str, Any], snapshot: Snapshot) -> None:
    if snapshot.charging is None or snapshot.charging.status != CHARGING:
        raise PreconditionFailed("The vehicle is not charging.")


def _charging_settings(params: Mapping[str, Any], snapshot: Snapshot) -> None:
    target_soc, ac_limit = params.get("target_soc"), params.get("ac_limit")
    if target_soc is None and ac_limit is None:
        raise _invalid("params", "needs target_soc or ac_limit")
    if target_soc is not None:
        if not snapshot.capabilities.set_target_soc:
            raise NotSupported("This vehicle does not support setting target_soc.")
        if type(target_soc) is not int or not 20 <= target_soc <= 100 or target_soc % 5:
            raise _invalid("params.target_soc", "is not 20 to 100 in steps of 5")
    if ac_limit is not None:
        limits = snapshot.charging.ac_limits_a if snapshot.charging else ()
        if not snapshot.capabilities.set_ac_limit or not limits:
            raise NotSupported("This vehicle does not support setting ac_limit.")
        if type(ac_limit) is not int or ac_limit not in limits:
            raise _invalid("params.ac_limit", f"is none of {', '.join(map(str, limits))}")


def _charging_profile(params: Mapping[str, Any], snapshot: Snapshot) -> None:
    mode, precondition = params.get("charging_mode"), params.get("precondition_climate")
    if mode is None and precondition is None:
        raise _invalid("params", "needs charging_mode or precondition_climate")
    if mode is not None and mode not in CHARGING_MODES:
        raise _invalid("params.charging_mode", f"is none of {', '.join(CHARGING_MODES)}")
    if precondition is not None and not isinstance(precondition, bool):
        raise _invalid("params.precondition_climate", "is not true or false")
    if snapshot.charging is None or snapshot.charging.mode is None:
        raise NotSupported("This vehicle does not report a charging profile that could be changed.")


def _send_poi(params: Mapping[str, Any], _snapshot: Snapshot) -> None:
    _position(params)


def _find(params: Mapping[str, Any], _snapshot: Snapshot) -> None:
    if params.get("latitude") is not None or params.get("longitude") is not None:
        _position(params)


def _position(params: Mapping[str, Any]) -> None:
    for name, most in (("latitude", 90), ("longitude", 180)):
        value = params.get(name)
        # A NaN is not between anything.
        if not isinstance(value, int | float) or isinstance(value, bool) or not -most <= value <= most:
            raise _invalid(f"params.{name}", f"is not a number from -{most} to {most}")


def _invalid(path: str, problem: str) -> ValidationFailed:
    return ValidationFailed(details={"fields": [{"path": path, "problem": problem}]})


_FURTHER: Mapping[CommandName, Callable[[Mapping[str, Any], Snapshot], None]] = {
    CommandName.CHARGE_START: _charge_start,
    CommandName.CHARGE_STOP: _charge_stop,
    CommandName.CHARGING_SETTINGS: _charging_settings,
    CommandName.CHARGING_PROFILE: _charging_profile,
    CommandName.SEND_POI: _send_poi,
    CommandName.FIND: _find,
}
