"""The charging profile as it stands, for changing one thing of it: BMW takes a profile only as a whole."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from bimmer_connected.vehicle.charging_profile import ChargingMode, ChargingPreferences, ChargingProfile, TimerTypes

from common.errors import NotSupported, PreconditionFailed
from functions.providers.mybmw.vehicle_manager import RawVehicle


async def load_charging_profile(raw: RawVehicle, *, sets_mode: bool) -> None:
    """Read the car and give ``raw`` its charging profile, as the library wants it before it writes one.

    Raises NotSupported where the car has none, and PreconditionFailed where it holds something that we do not
    understand and would have to overwrite.
    """
    await raw.get_vehicle_state()
    plan = raw.data["state"].get("chargingProfile")
    if not raw.is_charging_plan_supported or not plan:
        raise NotSupported("This vehicle has no charging profile that could be changed.")
    settings = raw.data.get("charging_settings") or {}
    plan = {**_known_elsewhere(settings.get("chargeAndClimateTimerDetail") or {}), **plan}
    profile = ChargingProfile.from_vehicle_data({"state": {"chargingProfile": plan}, "charging_settings": settings})
    is_strange_mode = (
        profile.charging_mode is ChargingMode.UNKNOWN or profile.charging_preferences is ChargingPreferences.UNKNOWN
    )
    if profile.timer_type is TimerTypes.UNKNOWN or (is_strange_mode and not sets_mode):
        raise PreconditionFailed("The vehicle's charging profile holds settings that would be lost by a change.")
    raw.charging_profile = profile


def _known_elsewhere(detail: Mapping[str, Any]) -> dict[str, Any]:
    """What newer cars leave out of their state and the charging endpoint knows.

    The library takes what is left out for "off" and "from midnight to midnight", and would write that back.
    """
    found: dict[str, Any] = {}
    if "isPreconditionForDepartureActive" in detail:
        found["climatisationOn"] = detail["isPreconditionForDepartureActive"]
    mode = detail.get("chargingMode") or {}
    if "startTimeSlot" in mode and "endTimeSlot" in mode:
        window = {"start": mode["startTimeSlot"], "end": mode["endTimeSlot"]}
        found["reductionOfChargeCurrent"] = {name: _hour_and_minute(slot) for name, slot in window.items()}
    return found


def _hour_and_minute(slot: str) -> dict[str, int]:
    """Of a time that BMW writes on the first day of the calendar: ``0001-01-01T18:01:00``."""
    time = datetime.fromisoformat(slot)
    return {"hour": time.hour, "minute": time.minute}
