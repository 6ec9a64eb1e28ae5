"""What each remote service does to a car. An effect changes the car and says how the command ended.

A car that does not report a part of its state still obeys: it executes the command, and nobody can see it.
"""

from collections.abc import Callable
from typing import Any, Final

from sandbox.mybmw_cars import Car
from sandbox.mybmw_wire import bad_request

EXECUTED: Final = "EXECUTED"
IGNORED: Final = "IGNORED"
ERROR: Final = "ERROR"

Effect = Callable[[Car], str]

_CLIMATE_RUNS_S: Final = 1800
_PROFILE_FIELDS: Final = ("chargingMode", "departureTimer", "isPreconditionForDepartureActive", "servicePack")
_MODES: Final = {
    "CHARGING_IMMEDIATELY": "IMMEDIATE_CHARGING",
    "TIME_SLOT": "DELAYED_CHARGING",
    "NO_ACTION": "NO_ACTION",
}
_MODE_OF_PREFERENCE: Final = {"NO_PRESELECTION": "CHARGING_IMMEDIATELY", "CHARGING_WINDOW": "TIME_SLOT"}


def nothing_visible(_: Car) -> str:
    """Flash, horn and finder leave no trace in the state."""
    return EXECUTED


def locked(state: str) -> Effect:
    """Lock or unlock the doors: ``state`` is LOCKED or UNLOCKED."""

    def effect(car: Car) -> str:
        if "doorsState" in car.documents.state:
            car.edit().state["doorsState"]["combinedSecurityState"] = state
        return EXECUTED

    return effect


def climate(*, on: bool) -> Effect:
    """Start or stop the climate control."""

    def effect(car: Car) -> str:
        if "climateControlState" in car.documents.state:
            car.edit().state["climateControlState"] = (
                {"activity": "COOLING", "remainingSeconds": _CLIMATE_RUNS_S} if on else {"activity": "STANDBY"}
            )
        return EXECUTED

    return effect


def charging(*, on: bool) -> Effect:
    """Start or stop charging: ignored while no charger is connected, an error without a battery."""

    def effect(car: Car) -> str:
        battery = car.documents.state.get("electricChargingState")
        if battery is None:
            return ERROR
        if not battery.get("isChargerConnected"):
            return IGNORED
        car.edit().state["electricChargingState"]["chargingStatus"] = "CHARGING" if on else "PLUGGED_IN"
        return EXECUTED

    return effect


def charging_settings(car: Car, body: dict[str, Any]) -> Effect:
    """Set the target and the AC limit; a null or absent value stays. Raises Refusal (400) naming the bad field.

    ``body`` is ``{"chargingTarget": percent | null, "acLimitValue": ampere | null}``.
    """
    target, limit = body.get("chargingTarget"), body.get("acLimitValue")
    detail = (car.documents.charging_settings or {}).get("chargingSettingsDetail")
    if target is not None and (type(target) is not int or not 20 <= target <= 100 or target % 5):
        raise bad_request("chargingTarget", "Not 20 to 100 percent in steps of 5.")
    if limit is not None and (detail is None or limit not in detail["acLimit"]["values"]):
        raise bad_request("acLimitValue", "Not one of the car's limits.")

    def effect(car: Car) -> str:
        if "electricChargingState" not in car.documents.state:
            return ERROR
        documents = car.edit()
        settings = documents.charging_settings or {}
        profile = documents.state.get("chargingProfile", {}).get("chargingSettings", {})
        if target is not None:
            documents.state["electricChargingState"]["chargingTarget"] = target
            profile["targetSoc"] = target
            if "chargingSettingsDetail" in settings:
                settings["chargingSettingsDetail"]["chargingTarget"] = target
        if limit is not None:
            profile["acCurrentLimit"] = limit
            settings["chargingSettingsDetail"]["acLimit"]["current"]["value"] = limit
        return EXECUTED

    return effect


def charging_profile(body: dict[str, Any]) -> Effect:
    """Replace the charging profile. Raises Refusal (400) naming the bad field.

    ``body`` is the whole profile as ``ChargingProfile.format_for_remote_service`` writes it.
    """
    for name in _PROFILE_FIELDS:
        if name not in body:
            raise bad_request(name, "A profile is replaced as a whole; this field is missing.")
    mode = body["chargingMode"]
    if not isinstance(mode, dict) or mode.get("type") not in _MODES:
        raise bad_request("chargingMode", f"Its type is none of {', '.join(_MODES)}.")
    preference = str(mode.get("chargingPreference"))
    if _MODE_OF_PREFERENCE.get(preference, mode["type"]) != mode["type"]:
        raise bad_request("chargingMode", "Its type and its preference contradict each other.")
    precondition = body["isPreconditionForDepartureActive"]
    if not isinstance(precondition, bool):
        raise bad_request("isPreconditionForDepartureActive", "Not a boolean.")

    def effect(car: Car) -> str:
        if "electricChargingState" not in car.documents.state:
            return ERROR
        documents = car.edit()
        documents.state["chargingProfile"] |= {
            "chargingPreference": preference,
            "chargingMode": _MODES[mode["type"]],
            "climatisationOn": precondition,
        }
        if documents.charging_settings is not None:
            timer = documents.charging_settings["chargeAndClimateTimerDetail"]
            timer["chargingMode"] |= {"chargingPreference": preference, "type": mode["type"]}
            timer["isPreconditionForDepartureActive"] = precondition
        return EXECUTED

    return effect


def place(body: dict[str, Any]) -> dict[str, Any]:
    """The first place of a send-to-car body. Raises Refusal (400) naming the bad field."""
    places = body.get("places")
    if not isinstance(places, list) or not places or not isinstance(places[0], dict):
        raise bad_request("places", "Not a list of places.")
    first: dict[str, Any] = places[0]
    position = first.get("position")
    if not isinstance(position, dict) or not all(isinstance(position.get(axis), float) for axis in ("lat", "lng")):
        raise bad_request("position", "Not a position of lat and lng.")
    if not first.get("title"):
        raise bad_request("title", "A place needs a title.")
    return first
