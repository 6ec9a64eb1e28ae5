"""What is due at the workshop, and warnings: JSON inside texts. Part of :mod:`.mapping`.

BMW does not document these objects, so several names of each field are understood, and whatever has none of them is
``UNKNOWN`` rather than left out.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from functions.providers.cardata import descriptors as d
from functions.providers.cardata.sheet import Sheet
from functions.providers.cardata.signals import Signal
from functions.providers.cardata.values import moment, objects, whole
from functions.snapshot import CheckControlMessage, ServiceItem

NEXT_SERVICE: Final = "NEXT_SERVICE"
LEGAL_INSPECTION: Final = "LEGAL_INSPECTION"
_DUE: Final = frozenset({"PENDING", "OVERDUE"})
_MAX_ITEMS: Final = 50
_MAX_TEXT_CHARS: Final = 200


def to_services(sheet: Sheet) -> tuple[ServiceItem, ...] | None:
    """Each service that the car lists, then the next one in all and the legal inspection, where they are known."""
    at = "services"
    listed = sheet.put(at, objects(sheet.get(d.SERVICES)))
    items = [_service(entry) for entry in (listed or ())[:_MAX_ITEMS]]
    distance_km = sheet.put(
        f"{at}.{NEXT_SERVICE.lower()}", whole(sheet.get(d.SERVICE_DISTANCE), "km", -10_000_000, 10_000_000)
    )
    if distance_km is not None:
        items.append(ServiceItem(NEXT_SERVICE, "UNKNOWN", due_distance_km=distance_km))
    inspection_at = sheet.put(f"{at}.{LEGAL_INSPECTION.lower()}", moment(sheet.get(d.INSPECTION)))
    if inspection_at is not None:
        items.append(ServiceItem(LEGAL_INSPECTION, "UNKNOWN", due_at=inspection_at))
    return tuple(items) if items or listed is not None else None


def is_service_required(services: tuple[ServiceItem, ...] | None) -> bool | None:
    """Whether a listed service is due; ``None`` where the car lists none with a status that we know."""
    statuses = {item.status for item in services or () if item.kind not in (NEXT_SERVICE, LEGAL_INSPECTION)}
    if statuses & _DUE:
        return True
    return False if statuses == {"OK"} else None


def to_check_control(sheet: Sheet) -> tuple[CheckControlMessage, ...] | None:
    """The warnings; an empty list is none, while ``null`` and ``-`` leave it open."""
    listed = sheet.put("check_control", objects(sheet.get(d.CHECK_CONTROL)))
    if listed is None:
        return None
    return tuple(_message(entry) for entry in listed[:_MAX_ITEMS])


def _service(entry: Mapping[str, Any]) -> ServiceItem:
    return ServiceItem(
        kind=_text(entry, "type", "text", "name", "description", "title", "id") or "UNKNOWN",
        status=(_text(entry, "status", "state") or "UNKNOWN").upper(),
        due_at=_time(entry, "dueDate", "date", "dateTime"),
        due_distance_km=_distance(entry, "unitOfLengthRemaining", "dueMileage", "mileage", "distance"),
    )


def _message(entry: Mapping[str, Any]) -> CheckControlMessage:
    category = _text(entry, "type", "category", "id") or "UNKNOWN"
    return CheckControlMessage(
        text=_text(entry, "text", "longDescription", "description", "message", "title") or category,
        severity=(_text(entry, "severity", "status") or "UNKNOWN").upper(),
        category=category,
    )


def _text(entry: Mapping[str, Any], *names: str) -> str | None:
    for name in names:
        value = entry.get(name)
        if isinstance(value, str) and value:
            return value[:_MAX_TEXT_CHARS]
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
    return None


def _as_signal(entry: Mapping[str, Any], names: tuple[str, ...]) -> Signal | None:
    """A field of the object, to be read as signals are."""
    value = next((entry[name] for name in names if entry.get(name) is not None), None)
    if not isinstance(value, str | int | float):
        return None
    return Signal(value, None, None, _LONG_AGO, "rest")


def _time(entry: Mapping[str, Any], *names: str) -> datetime | None:
    return moment(_as_signal(entry, names)).value


def _distance(entry: Mapping[str, Any], *names: str) -> int | None:
    return whole(_as_signal(entry, names), "km", -10_000_000, 10_000_000).value


_LONG_AGO: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
