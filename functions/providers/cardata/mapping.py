"""From BMW's signals to the maker-neutral vehicle. Pure: no I/O and no clock.

Choices that are not obvious:

- Each value carries its own time in ``Snapshot.measured``; ``measured_at`` of the whole is the latest of all signals,
  those aside that claim to come from the future.
- Where BMW has two names for one thing (state of charge, lock, plug), the one that was measured last counts.
- ``ends_at`` counts from when the minutes were measured, and is given only while the car charges (or conditions).
- Doors are named by the driver's side; which side that is, the master data tells. Where they do not, the names are
  ``driver_front`` ..., because a guess would call the wrong door open.
- What has no place in the snapshot is under ``extra``, as BMW wrote it; with ``location.`` before the name where it
  tells a place.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from functions.providers.cardata import descriptors as d
from functions.providers.cardata.energy import is_older, to_charging, to_fuel_and_battery
from functions.providers.cardata.garage import left_side
from functions.providers.cardata.service import is_service_required, to_check_control, to_services
from functions.providers.cardata.sheet import NOT_IN_CARDATA, Sheet
from functions.providers.cardata.signals import UNREADABLE, Signals
from functions.providers.cardata.values import Nothing, number, position, whole, word
from functions.providers.port import CommandName, Vehicle
from functions.snapshot import (
    CLIMATE_OFF_STATES,
    CLIMATE_ON_STATES,
    Capabilities,
    Climate,
    Location,
    Openings,
    Snapshot,
    Tire,
    VehicleInfo,
)

_LIDS: Final = frozenset({"OPEN", "CLOSED", "INTERMEDIATE"})
_LOCKS: Final = frozenset({"SECURED", "LOCKED", "UNLOCKED", "SELECTIVE_LOCKED"})
_NO_COMMANDS: Final = Capabilities(commands={name.value: False for name in CommandName})
SPLIT_POSITION: Final = "the latitude and the longitude that the car reported were not measured together"


def to_snapshot(vehicle: Vehicle, signals: Signals, *, fetched_at: datetime) -> Snapshot:
    """A car's state from what it last said. ``fetched_at`` is when we last got any of it."""
    sheet = Sheet(signals)
    drivetrain = vehicle.drivetrain
    services = to_services(sheet)
    tires = _tires(sheet)
    return Snapshot(
        info=_info(vehicle, sheet),
        fetched_at=fetched_at,
        measured_at=_measured_at(signals, sheet),
        mileage_km=sheet.put("mileage_km", whole(sheet.get(d.MILEAGE), "km", 0, 10_000_000)),
        fuel_and_battery=to_fuel_and_battery(sheet, drivetrain),
        charging=to_charging(sheet, drivetrain),
        location=_location(sheet),
        openings=_openings(sheet, vehicle.profile),
        check_control=to_check_control(sheet),
        climate=_climate(sheet),
        tires=tires,
        services=services,
        service_required=is_service_required(services),
        capabilities=_NO_COMMANDS,
        measured=sheet.measured,
        unavailable=sheet.unavailable,
        unknown=sheet.unknown,
        extra=_extra(signals),
    )


def _measured_at(signals: Signals, sheet: Sheet) -> datetime | None:
    times = [one.measured_at for one in signals.values() if one.measured_at and not one.is_from_the_future]
    if not times:
        sheet.missing("measured_at", Nothing.ABSENT.value)
    return max(times, default=None)


def _info(vehicle: Vehicle, sheet: Sheet) -> VehicleInfo:
    for name in ("model_year", "body_type", "software_version"):
        sheet.missing(f"info.{name}", NOT_IN_CARDATA)
    head_unit = vehicle.profile.get("headUnit")
    if not isinstance(head_unit, str) or not head_unit:
        sheet.missing("info.head_unit", Nothing.ABSENT.value)
        head_unit = None
    if vehicle.drivetrain == "UNKNOWN":
        sheet.strange("info.drivetrain", vehicle.profile.get("driveTrain") or vehicle.profile.get("propulsionType"))
    return VehicleInfo(vehicle.vin, vehicle.brand, vehicle.name, vehicle.drivetrain, head_unit=head_unit)


def _location(sheet: Sheet) -> Location | None:
    found = sheet.put("location", position(sheet.get(d.POSITION)))
    if found is None:
        if d.POSITION not in sheet.signals and d.LATITUDE in sheet.signals and d.LONGITUDE in sheet.signals:
            sheet.unavailable["location"] = _why_no_position(sheet.signals)
        return None
    heading_deg = sheet.put("location.heading_deg", whole(sheet.get(d.HEADING), "degrees", 0, 360))
    return Location(found[0], found[1], heading_deg, sheet.measured.get("location"))


def _why_no_position(signals: Signals) -> str:
    if any(signals[half].value is None for half in (d.LATITUDE, d.LONGITUDE)):
        return Nothing.NULL.value
    return SPLIT_POSITION


def _openings(sheet: Sheet, profile: Mapping[str, Any]) -> Openings:
    at = "openings"
    lock_state = sheet.put(f"{at}.lock_state", sheet.newest(d.LOCK, word))
    if lock_state is not None and lock_state not in _LOCKS:
        sheet.strange(f"{at}.lock_state", lock_state)
    # Only what decides is noted: each of the two has a time of its own.
    aside = Sheet(sheet.signals)
    roof, tilt = (aside.lid(descriptor, f"{at}.roof", _LIDS) for descriptor in (d.ROOF, d.ROOF_TILT))
    # A roof that is shut and tilted lets the rain in.
    is_tilted = roof in (None, "CLOSED") and tilt in ("OPEN", "INTERMEDIATE")
    return Openings(
        lock_state=lock_state,
        doors=_by_side(sheet, f"{at}.doors", profile, d.door),
        windows=_by_side(sheet, f"{at}.windows", profile, d.window),
        hood=sheet.lid(d.HOOD, f"{at}.hood", _LIDS),
        trunk=sheet.lid(d.TRUNK, f"{at}.trunk", _LIDS),
        roof=sheet.lid(d.ROOF_TILT if is_tilted else d.ROOF, f"{at}.roof", _LIDS),
    )


def _by_side(sheet: Sheet, at: str, profile: Mapping[str, Any], of: Any) -> dict[str, str]:  # noqa: ANN401 - d.door or d.window
    left = left_side(profile)
    names = {side: side if left is None else "left" if side == left else "right" for side in d.SIDES}
    lids: dict[str, str] = {}
    for end, row in d.ROWS.items():
        for side in d.SIDES:
            name = f"{names[side]}_{end}"
            descriptor = of(row, side)
            if descriptor in sheet.signals:
                lids[name] = sheet.lid(descriptor, f"{at}.{name}", _LIDS) or "UNKNOWN"
    if not lids:
        sheet.missing(at, Nothing.ABSENT.value)
    return lids


def _climate(sheet: Sheet) -> Climate | None:
    reading = word(sheet.get(d.CLIMATE))
    activity = sheet.put("climate.activity", reading)
    if activity is None:
        sheet.missing("climate", sheet.unavailable["climate.activity"])
        return None
    if activity not in CLIMATE_ON_STATES | CLIMATE_OFF_STATES:
        sheet.strange("climate.activity", activity)
    left = number(sheet.get(d.CLIMATE_MINUTES), "min", 0, 10_000)
    counts_from = left.signal.counts_from if left.signal is not None else None
    # Minutes that are older than the activity belong to an earlier run.
    is_stale = left.signal is None or is_older(left.signal, reading.signal)
    if activity not in CLIMATE_ON_STATES or counts_from is None or is_stale:
        sheet.missing("climate.ends_at", Nothing.ABSENT.value)
        return Climate(activity)
    minutes = sheet.put("climate.ends_at", left)
    return Climate(activity, None if minutes is None else counts_from + timedelta(minutes=minutes))


def _tires(sheet: Sheet) -> dict[str, Tire] | None:
    tires: dict[str, Tire] = {}
    for name, wheel in d.WHEELS.items():
        at = f"tires.{name}"
        now, target = d.pressure(wheel), d.target_pressure(wheel)
        if now in sheet.signals or target in sheet.signals:
            tires[name] = Tire(
                pressure_kpa=sheet.put(f"{at}.pressure_kpa", whole(sheet.get(now), "kpa", 0, 10_000)),
                target_pressure_kpa=sheet.put(f"{at}.target_pressure_kpa", whole(sheet.get(target), "kpa", 0, 10_000)),
            )
            for never in ("season", "manufactured_week"):
                sheet.missing(f"{at}.{never}", NOT_IN_CARDATA)
    if not tires:
        sheet.missing("tires", Nothing.ABSENT.value)
    return tires or None


def _extra(signals: Signals) -> dict[str, Any]:
    return {
        f"location.{name}" if d.is_about_place(name) else name: {
            "value": None if signal.value == UNREADABLE else signal.value,
            "unit": signal.unit,
            "measured_at": signal.measured_at,
        }
        for name, signal in signals.items()
        if name not in d.MAPPED and not name.startswith(d.OURS)
    }
