"""Why a value is missing. Part of :mod:`.mapping`."""

from dataclasses import fields

from functions.providers.mybmw.fields import Notes
from functions.providers.mybmw.words import (
    BATTERIES,
    ENGINES,
    NO_BATTERY,
    NO_ENGINE,
    STRANGE_DRIVETRAIN,
    TRACKING_OFF,
)
from functions.snapshot import Snapshot

_WHOLES = ("measured_at", "mileage_km", "location", "check_control", "climate", "tires", "services")
_GROUPS = ("fuel_and_battery", "openings", "charging")
_BY_BATTERY = ("charging", "fuel_and_battery.battery_percent", "fuel_and_battery.remaining_range_electric_km")
_BY_ENGINE = (
    "fuel_and_battery.remaining_fuel_l",
    "fuel_and_battery.remaining_fuel_percent",
    "fuel_and_battery.remaining_range_fuel_km",
)
_OPTIONAL = frozenset({"openings.roof", "openings.roof_type", "charging.departure_timers", "charging.starts_at_local"})
"""What most cars do not have, or only at times: not worth a reason."""


def explain(snapshot: Snapshot, reason: str, notes: Notes) -> None:
    """Note why each value is missing: ``reason``, unless the car's build or its settings say more."""
    drivetrain = snapshot.info.drivetrain
    if snapshot.location is None and snapshot.capabilities.location is False:
        notes.missing("location", TRACKING_OFF)
    for parts, paths, why in ((BATTERIES, _BY_BATTERY, NO_BATTERY), (ENGINES, _BY_ENGINE, NO_ENGINE)):
        if drivetrain not in parts:
            for path in paths:
                notes.missing(path, why if drivetrain in BATTERIES | ENGINES else STRANGE_DRIVETRAIN)
    for path in _missing(snapshot):
        notes.missing(path, reason)


def _missing(snapshot: Snapshot) -> list[str]:
    found = [name for name in _WHOLES if getattr(snapshot, name) is None]
    for name in _GROUPS:
        group = getattr(snapshot, name)
        if group is None:
            found.append(name)
        else:
            found += [f"{name}.{one.name}" for one in fields(group) if getattr(group, one.name) in (None, {}, ())]
    return [path for path in found if path not in _OPTIONAL]
