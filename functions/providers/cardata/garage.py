"""Which cars a customer has and what each is: the mappings and the master data, as vehicles. Pure."""

import re
from collections.abc import Mapping
from typing import Any, Final

from functions.providers.cardata.failures import CarDataInvalidReply
from functions.providers.port import Vehicle

_VIN: Final = re.compile(r"[A-Z0-9]{17}")
_DRIVETRAINS: Final = {
    "BEV": "ELECTRIC",
    "ELECTRIC": "ELECTRIC",
    "PHEV": "PLUGIN_HYBRID",
    "PLUGIN_HYBRID": "PLUGIN_HYBRID",
    "PLUG_IN_HYBRID": "PLUGIN_HYBRID",
    "REX": "ELECTRIC_WITH_RANGE_EXTENDER",
    "BEVE": "ELECTRIC_WITH_RANGE_EXTENDER",
    "ELECTRIC_WITH_RANGE_EXTENDER": "ELECTRIC_WITH_RANGE_EXTENDER",
    "MHEV": "MILD_HYBRID",
    "MILD_HYBRID": "MILD_HYBRID",
    "CONV": "COMBUSTION",
    "ICE": "COMBUSTION",
    "COMBUSTION": "COMBUSTION",
    "DIESEL": "COMBUSTION",
    "PETROL": "COMBUSTION",
}
"""BMW's word in ``driveTrain`` or ``propulsionType``: the snapshot's."""
_DRIVES_ON_THE_LEFT: Final = frozenset({"GB", "UK", "IE", "MT", "CY"})
_MAX_TEXT_CHARS: Final = 200
_KEPT: Final = (
    "brand",
    "modelName",
    "series",
    "driveTrain",
    "propulsionType",
    "headUnit",
    "countryCode",
    "steering",
    "numberOfDoors",
    "simStatus",
)
"""What of the master data is worth keeping."""


def to_mappings(answer: object) -> tuple[str, ...]:
    """The VINs of the customer's cars, those of the primary user alone: BMW serves nobody else's.

    BMW answers an array, and documents an object. Raises CarDataInvalidReply.
    """
    entries = [answer] if isinstance(answer, dict) else answer
    if not isinstance(entries, list):
        raise CarDataInvalidReply
    vins: dict[str, None] = {}
    for entry in entries:
        vin = entry.get("vin") if isinstance(entry, dict) else None
        if not isinstance(entry, dict) or not isinstance(vin, str) or not _VIN.fullmatch(vin):
            raise CarDataInvalidReply
        if entry.get("mappingType", "PRIMARY") != "SECONDARY":
            vins[vin] = None
    return tuple(vins)


def to_profile(answer: object) -> dict[str, Any]:
    """The part of the master data that is kept; fields may be missing, and unknown ones are left out."""
    if not isinstance(answer, dict):
        raise CarDataInvalidReply
    return {
        name: answer[name]
        for name in _KEPT
        if isinstance(answer.get(name), str | int) and len(str(answer[name])) <= _MAX_TEXT_CHARS
    }


def to_vehicle(vin: str, profile: Mapping[str, Any]) -> Vehicle:
    """A car by its master data; without any, a BMW of which nothing more is known."""
    words = (str(profile.get(name, "")).upper().replace("-", "_") for name in ("driveTrain", "propulsionType"))
    return Vehicle(
        vin=vin,
        brand=brand_of(profile.get("brand")),
        name=str(profile.get("modelName") or profile.get("series") or ""),
        drivetrain=next((_DRIVETRAINS[word] for word in words if word in _DRIVETRAINS), "UNKNOWN"),
        profile=profile,
    )


def brand_of(raw: object) -> str:
    """``BMW`` for ``BMW``, ``BMWi``, ``BMW_I``; any other brand as BMW writes it, in upper case."""
    brand = raw.upper() if isinstance(raw, str) and raw else "BMW"
    return "BMW" if brand.startswith("BMW") else brand


def left_side(profile: Mapping[str, Any]) -> str | None:
    """Who sits on the left, ``driver`` or ``passenger``; ``None`` where the master data do not tell."""
    steering = str(profile.get("steering", "")).upper()[:1]
    if steering in ("L", "R"):
        return "driver" if steering == "L" else "passenger"
    country = str(profile.get("countryCode") or "").upper()
    if not country:
        return None
    return "passenger" if country in _DRIVES_ON_THE_LEFT else "driver"
