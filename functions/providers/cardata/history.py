"""Past charges, tyre wear and charging settings by place, from BMW's JSON. Pure."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from functions.providers.cardata.failures import CarDataInvalidReply
from functions.providers.port import ChargingSession, TyreWear

MAX_SPAN: Final = timedelta(days=45)
"""BMW refuses 60 days."""
_MILES_KM: Final = 1.609344
_WHEELS: Final = {
    "frontLeft": "front_left",
    "frontRight": "front_right",
    "rearLeft": "rear_left",
    "rearRight": "rear_right",
}


def to_page(answer: Mapping[str, Any]) -> tuple[tuple[ChargingSession, ...], str | None]:
    """The charges of a page, and the token of the next one. Raises CarDataInvalidReply."""
    entries = answer.get("data")
    if not isinstance(entries, list):
        raise CarDataInvalidReply
    token = answer.get("next_token") or answer.get("nextToken")
    sessions = tuple(_session(entry) for entry in entries if isinstance(entry, dict))
    return sessions, token if isinstance(token, str) and token else None


def to_tyres(answer: Mapping[str, Any]) -> dict[str, TyreWear]:
    """Wear by position (``front_left``), of the tyres that BMW knows of."""
    mounted = _part(_part(answer, "passengerCar"), "mountedTyres")
    wear = {name: _part(_part(mounted, key), "tyreWear") for key, name in _WHEELS.items()}
    return {
        name: TyreWear(
            label=_text(part.get("label")),
            due_mileage_km=_km(part.get("dueMileage"), part.get("unit")),
            color=_text(part.get("statusColor")),
        )
        for name, part in wear.items()
        if part
    }


def to_settings(answer: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """Settings as BMW words them, one object a place. Raises CarDataInvalidReply."""
    entries = answer.get("data")
    if not isinstance(entries, list):
        raise CarDataInvalidReply
    return tuple(entry for entry in entries if isinstance(entry, dict))


def _session(entry: Mapping[str, Any]) -> ChargingSession:
    return ChargingSession(
        started_at=_epoch(entry.get("startTime")),
        ended_at=_epoch(entry.get("endTime")),
        start_percent=_whole(entry.get("displayedStartSoc"), 0, 100),
        end_percent=_whole(entry.get("displayedSoc"), 0, 100),
        energy_kwh=_number(entry.get("energyConsumedFromPowerGridKwh"), 0, 10_000),
        mileage_km=_km(entry.get("mileage"), entry.get("mileageUnits")),
        place=_text(_part(entry, "chargingLocation").get("formattedAddress")),
    )


def _part(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = data.get(name)
    return part if isinstance(part, dict) else {}


def _text(value: object) -> str | None:
    return value[:200] if isinstance(value, str) and value else None


def _number(value: object, least: float, most: float) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value) if least <= value <= most else None


def _whole(value: object, least: float, most: float) -> int | None:
    number = _number(value, least, most)
    return None if number is None else round(number)


def _km(value: object, unit: object) -> int | None:
    number = _number(value, -10_000_000, 10_000_000)
    if number is None:
        return None
    return round(number * _MILES_KM) if isinstance(unit, str) and unit.upper().startswith("MI") else round(number)


def _epoch(value: object) -> datetime | None:
    seconds = _number(value, 0, 10_000_000_000)
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
