"""From BMW's JSON to the maker-neutral vehicle. Pure: no I/O, and the clock comes in as an argument.

It reads the raw answers that the library fetched, not the library's parsed objects, because those cannot say "not
reported": there a missing mileage is 0, an unseen word is UNKNOWN, a car without state has all windows closed, and one
odd field loses its whole group or raises.

Choices that are not obvious:

- ``measured_at`` is ``lastUpdatedAt``, when the car last reported to BMW (year 1: never). ``lastFetched`` is when BMW
  answered.
- ``INVALID`` and ``UNKNOWN`` are words of BMW's and are kept; only words we have never seen go to ``unknown``.
- Every battery-electric car carries a ``combustionFuelLevel``; fuel is reported for cars with an engine alone.
- BMW's "fuel range" of a plug-in hybrid is the range in all. The i3 with range extender reports the two apart.
- ``ends_at`` counts from ``measured_at``, and is given only while charging (or conditioning) goes on: BMW sends
  ``remainingChargingMinutes`` for parked cars too.
- An empty list of services says nothing: that is what a car without state has.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from bimmer_connected import coord_convert

from functions.providers.mybmw.capabilities import to_capabilities
from functions.providers.mybmw.energy import to_charging, to_fuel_and_battery
from functions.providers.mybmw.failures import BMWInvalidReply
from functions.providers.mybmw.fields import Fields, Notes
from functions.providers.mybmw.reasons import explain
from functions.providers.mybmw.words import (
    CLIMATE_STATES,
    DRIVETRAINS,
    LIDS,
    LOCKS,
    NOT_REPORTED,
    SERVICE_STATES,
    SEVERITIES,
    SILENT,
)
from functions.providers.port import Region, Vehicle
from functions.snapshot import (
    CLIMATE_ON_STATES,
    CheckControlMessage,
    Climate,
    Location,
    Openings,
    ServiceItem,
    Snapshot,
    Tire,
    VehicleInfo,
)

_DUE = frozenset({"PENDING", "OVERDUE"})
_BRANDS = {"BMW": "BMW", "MINI": "MINI", "TOYOTA": "TOYOTA", "DRITTKUNDE": "TOYOTA"}
"""By the part before an underscore (``BMW_I``). ``DRITTKUNDE`` ("third-party customer") is the Supra."""
_GCJ_TO_WGS: Callable[[float, float], tuple[float, float]] = coord_convert.gcj2wgs
_VIN = re.compile(r"[A-Z0-9]{17}")
_HUMP = re.compile(r"(?<=[a-z0-9])([A-Z])")


def brand_of(raw: str | None) -> str:
    """``BMW``, ``MINI`` or ``TOYOTA``; another one as BMW writes it; ``UNKNOWN`` where it does not."""
    first = (raw or "UNKNOWN").upper().split("_")[0]
    return _BRANDS.get(first, first)


def to_vehicle(vin: object, profile: Mapping[str, Any]) -> Vehicle:
    """An entry of the vehicle list. Raises BMWInvalidReply for a VIN that is none."""
    if not isinstance(vin, str) or not _VIN.fullmatch(vin):
        raise BMWInvalidReply
    data = Fields(dict(profile), Notes())
    return Vehicle(
        vin=vin,
        brand=brand_of(data.text("brand", "")),
        name=data.text("model", "") or "",
        drivetrain=data.word("driveTrain", "", DRIVETRAINS) or "UNKNOWN",
        profile=profile,
    )


def to_snapshot(vehicle: Vehicle, data: Mapping[str, Any], *, fetched_at: datetime, region: Region) -> Snapshot:
    """A car's state.

    ``data`` is what the library keeps of its requests: ``state`` and ``capabilities`` from the state endpoint,
    ``charging_settings`` (or ``None``) from the charging endpoint. Raises BMWInvalidReply where there is no state.
    """
    raw = data.get("state")
    if not isinstance(raw, dict) or not raw:
        raise BMWInvalidReply
    notes = Notes()
    whole = Fields(dict(data), notes)
    state, capabilities = Fields(raw, notes), whole.part("capabilities", "capabilities")
    settings = whole.part("charging_settings", "charging.ac_limits_a")
    measured_at = state.moment("lastUpdatedAt", "measured_at")
    counts_from = measured_at or fetched_at
    info = _info(vehicle, notes)
    snapshot = Snapshot(
        info=info,
        fetched_at=fetched_at,
        measured_at=measured_at,
        mileage_km=state.whole("currentMileage", "mileage_km", 0, 10_000_000),
        fuel_and_battery=to_fuel_and_battery(state, info.drivetrain, notes),
        charging=to_charging(state, settings, info.drivetrain, counts_from, notes),
        location=_location(state, region, measured_at),
        openings=_openings(state),
        check_control=_check_control(state),
        climate=_climate(state, counts_from),
        tires=_tires(state),
        services=_services(state),
        capabilities=to_capabilities(capabilities, state),
    )
    snapshot = replace(snapshot, service_required=_service_required(snapshot.services))
    is_silent = measured_at is None and raw.get("isLscSupported") is not True
    explain(snapshot, SILENT if is_silent else NOT_REPORTED, notes)
    return replace(snapshot, unavailable=notes.unavailable, unknown=notes.unknown)


def _info(vehicle: Vehicle, notes: Notes) -> VehicleInfo:
    profile = Fields(dict(vehicle.profile), notes)
    drivetrain = profile.word("driveTrain", "info.drivetrain", DRIVETRAINS)
    if vehicle.brand not in _BRANDS.values():
        notes.strange("info.brand", vehicle.brand)
    return VehicleInfo(
        vin=vehicle.vin,
        brand=vehicle.brand,
        name=profile.text("model", "info.name") or vehicle.name,
        drivetrain=drivetrain or vehicle.drivetrain,
        model_year=profile.whole("year", "info.model_year", 1900, 2200),
        body_type=profile.text("bodyType", "info.body_type"),
        head_unit=profile.text("headUnitType", "info.head_unit") or profile.text("headUnitRaw", "info.head_unit"),
        software_version=_software_version(profile),
    )


def _software_version(profile: Fields) -> str | None:
    path = "info.software_version"
    version = profile.part("softwareVersionCurrent", path)
    step, pu_step = version.whole("iStep", path, 0, 9_999), version.part("puStep", path)
    month, year = pu_step.whole("month", path, 1, 12), pu_step.whole("year", path, 0, 99)
    if step is None or month is None or year is None:
        return None
    return f"{month:02d}/20{year:02d}.{step % 100:02d}"


def _location(state: Fields, region: Region, measured_at: datetime | None) -> Location | None:
    location = state.part("location", "location")
    return position_of(
        location.part("coordinates", "location"),
        heading_deg=location.whole("heading", "location.heading_deg", 0, 360),
        region=region,
        measured_at=measured_at,
    )


def position_of(
    coordinates: Fields, *, heading_deg: int | None, region: Region, measured_at: datetime | None
) -> Location | None:
    """A position in WGS 84: China's servers give it in GCJ-02."""
    latitude = coordinates.number("latitude", "location", -90, 90)
    longitude = coordinates.number("longitude", "location", -180, 180)
    if latitude is None or longitude is None:
        return None
    if region is Region.CHINA:
        longitude, latitude = _GCJ_TO_WGS(longitude, latitude)
    return Location(latitude, longitude, heading_deg, measured_at)


def _openings(state: Fields) -> Openings:
    doors = state.part("doorsState", "openings.doors")
    windows = state.part("windowsState", "openings.windows")
    roof = state.part("roofState", "openings.roof")
    others = {"combinedState", "combinedSecurityState", "hood", "trunk"}
    return Openings(
        lock_state=doors.word("combinedSecurityState", "openings.lock_state", LOCKS),
        doors=_lids(doors, "openings.doors", others),
        windows=_lids(windows, "openings.windows", others),
        hood=doors.word("hood", "openings.hood", LIDS),
        trunk=doors.word("trunk", "openings.trunk", LIDS),
        roof=roof.word("roofState", "openings.roof", LIDS),
        roof_type=roof.text("roofStateType", "openings.roof_type"),
    )


def _lids(part: Fields, at: str, others: set[str]) -> dict[str, str]:
    lids = {}
    for key in sorted(set(part.keys()) - others):
        name = _HUMP.sub(r"_\1", key).lower()
        # A door that is there and cannot be read must not pass for one that is not there.
        lids[name] = part.word(key, f"{at}.{name}", LIDS) or "UNKNOWN"
    return lids


def _check_control(state: Fields) -> tuple[CheckControlMessage, ...] | None:
    at = "check_control"
    messages = state.parts("checkControlMessages", at)
    if messages is None:
        return None
    found = []
    for message in messages:
        category = message.text("type", f"{at}.category") or "UNKNOWN"
        severity = message.word("severity", f"{at}.severity", SEVERITIES) or "UNKNOWN"
        if severity != "OK":
            text = message.text("longDescription", f"{at}.text") or category.replace("_", " ").capitalize()
            found.append(CheckControlMessage(text, severity, category))
    return tuple(found)


def _climate(state: Fields, counts_from: datetime) -> Climate | None:
    part = state.part("climateControlState", "climate")
    activity = part.word("activity", "climate.activity", CLIMATE_STATES)
    seconds = part.number("remainingSeconds", "climate.ends_at", 0, 1_000_000)
    if activity is None:
        return None
    is_on = activity in CLIMATE_ON_STATES
    return Climate(activity, counts_from + timedelta(seconds=seconds) if seconds is not None and is_on else None)


def _tires(state: Fields) -> dict[str, Tire] | None:
    part = state.part("tireState", "tires")
    tires = {}
    for key, name in _TIRES.items():
        if key in part:
            at = f"tires.{name}"
            tire = part.part(key, at)
            status, details = tire.part("status", at), tire.part("details", at)
            season = details.whole("season", f"{at}.season", 0, 1_000)
            tires[name] = Tire(
                pressure_kpa=status.whole("currentPressure", f"{at}.pressure_kpa", 0, 10_000),
                target_pressure_kpa=status.whole("targetPressure", f"{at}.target_pressure_kpa", 0, 10_000),
                season=None if season is None else str(season),
                manufactured_week=_manufactured_week(details, f"{at}.manufactured_week"),
            )
    return tires or None


_TIRES = {
    "frontLeft": "front_left",
    "frontRight": "front_right",
    "rearLeft": "rear_left",
    "rearRight": "rear_right",
}


def _manufactured_week(details: Fields, at: str) -> str | None:
    """From the DOT code on the tire, ``4021``: week 40 of 2021."""
    code = details.whole("manufacturingWeek", at, 100, 5_399)
    return None if code is None else f"20{code % 100:02d}-W{code // 100:02d}"


def _services(state: Fields) -> tuple[ServiceItem, ...] | None:
    at = "services"
    services = state.parts("requiredServices", at) or None
    if services is None:
        return None
    return tuple(
        ServiceItem(
            kind=service.text("type", f"{at}.kind") or "UNKNOWN",
            status=service.word("status", f"{at}.status", SERVICE_STATES) or "UNKNOWN",
            due_at=service.moment("dateTime", f"{at}.due_at"),
            due_distance_km=service.whole("mileage", f"{at}.due_distance_km", -10_000_000, 10_000_000),
        )
        for service in services
    )


def _service_required(services: tuple[ServiceItem, ...] | None) -> bool | None:
    statuses = {service.status for service in services or ()}
    if statuses & _DUE:
        return True
    return False if statuses == {"OK"} else None
