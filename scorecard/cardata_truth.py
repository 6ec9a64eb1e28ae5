"""What a CarData reply must say, told from the simulated truth and from nothing of the service's own mapping."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

GROUPS: Final = {
    "status": "",
    "fuel": "fuel_and_battery",
    "location": "location",
    "mileage": "mileage",
    "lock_status": "doors_and_windows",
    "is_locked": "is_locked",
    "check_control": "check_control",
    "climate_status": "climate",
    "charging": "charging",
    "tires": "tires",
    "service": "service",
}
"""By action, the group of ``status`` that holds the same fields."""

_V: Final = "vehicle."
_ENGINE: Final = f"{_V}drivetrain.electricEngine."
_BATTERY: Final = f"{_V}powertrain.electric.battery."
_PLACE: Final = f"{_V}cabin.infotainment.navigation.currentLocation."
_TOTAL: Final = f"{_V}drivetrain.totalRemainingRange"
_ELECTRIC: Final = (f"{_ENGINE}kombiRemainingElectricRange", f"{_ENGINE}remainingElectricRange")
_SERVICES: Final = f"{_V}status.conditionBasedServices"
_NEXT_SERVICE: Final = f"{_V}status.serviceDistance.next"
_INSPECTION: Final = f"{_V}status.serviceTime.inspectionDateLegal"
_NOTHINGS: Final = (None, "INVALID", "-NA-", "-", "null", "")
_STATUSES: Final = {"CHARGINGACTIVE": "CHARGING", "CHARGINGENDED": "NOT_CHARGING", "NOCHARGING": "NOT_CHARGING"}
_LIDS: Final = {True: "OPEN", False: "CLOSED"}


class Truths(Protocol):
    """The truth of one car."""

    def value(self, descriptor: str, at: str) -> Any:  # noqa: ANN401 - any JSON scalar
        """What was true at a time."""
        ...

    def said(self, descriptor: str, at: str) -> Any:  # noqa: ANN401 - any JSON scalar
        """What the car had said by then; ``None`` where nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Wrong:
    """A served value that was not true."""

    path: str
    served: Any
    measured_at: str | None
    expected: Any


@dataclass(frozen=True, slots=True)
class _Rule:
    """Where a field comes from: any one of the descriptors, and how its truth is shown."""

    descriptors: tuple[str, ...]
    shown: Callable[[Any, str], Any] = lambda value, _at: value
    """From the true value, and the time at which it was."""


def _rounded(value: Any, _at: str) -> Any:  # noqa: ANN401 - a number, or nothing
    return round(value) if isinstance(value, int | float) else value


def _upper(value: Any, _at: str) -> Any:  # noqa: ANN401 - a word, or nothing
    return value.upper().replace("-", "_") if isinstance(value, str) else value


def _in_minutes(value: Any, at: str) -> Any:  # noqa: ANN401 - a number, or nothing
    return None if value is None else _text(_moment(at) + timedelta(minutes=value))


def _lid(value: Any, _at: str) -> Any:  # noqa: ANN401 - a boolean or a word
    return _LIDS[value] if isinstance(value, bool) else value


def _rules() -> Iterator[tuple[str, _Rule]]:
    fuel, doors, charging = "fuel_and_battery", "doors_and_windows", "charging"
    soc = _Rule((f"{_V}drivetrain.batteryManagement.header", f"{_BATTERY}stateOfCharge.displayed"), _rounded)
    status = _Rule((f"{_ENGINE}charging.status",), lambda value, _at: _STATUSES.get(value, value))
    minutes = (f"{_ENGINE}charging.timeRemaining", f"{_ENGINE}charging.timeToFullyCharged")
    locks = (f"{_V}cabin.door.status", f"{_V}cabin.door.lock.status")
    activity = (f"{_V}vehicle.preConditioning.activity",)
    yield f"{fuel}.remaining_fuel", _Rule((f"{_V}drivetrain.fuelSystem.remainingFuel",))
    yield f"{fuel}.remaining_fuel_percent", _Rule((f"{_V}drivetrain.fuelSystem.level",))
    yield f"{fuel}.remaining_range_electric", _Rule(_ELECTRIC)
    yield f"{fuel}.remaining_range_total", _Rule((_TOTAL,))
    yield f"{fuel}.battery_level", soc
    yield f"{fuel}.charging_status", status
    yield "location.latitude", _Rule((f"{_PLACE}latitude",))
    yield "location.longitude", _Rule((f"{_PLACE}longitude",))
    yield "location.heading", _Rule((f"{_PLACE}heading",))
    yield "mileage.value", _Rule((f"{_V}vehicle.travelledDistance",), _rounded)
    yield f"{doors}.lock_state", _Rule(locks, _upper)
    yield "is_locked.locked", _Rule(locks, lambda value, _at: value in ("LOCKED", "SECURED"))
    yield f"{doors}.hood_closed", _Rule((f"{_V}body.hood.isOpen",), lambda value, at: _lid(value, at) == "CLOSED")
    yield f"{doors}.trunk_closed", _Rule((f"{_V}body.trunk.isOpen",), lambda value, at: _lid(value, at) == "CLOSED")
    yield f"{doors}.roof.state", _Rule((f"{_V}cabin.sunroof.status", f"{_V}cabin.sunroof.tiltStatus"))
    for end, row in (("front", "row1"), ("rear", "row2")):
        for side, seat in (("left", "driver"), ("right", "passenger")):
            yield f"{doors}.doors.{side}_{end}", _Rule((f"{_V}cabin.door.{row}.{seat}.isOpen",), _lid)
            yield f"{doors}.windows.{side}_{end}", _Rule((f"{_V}cabin.window.{row}.{seat}.status",))
            tire = f"{_V}chassis.axle.{row}.wheel.{side}.tire."
            yield f"tires.{end}_{side}.pressure", _Rule((f"{tire}pressure",))
            yield f"tires.{end}_{side}.target_pressure", _Rule((f"{tire}pressureTarget",))
    messages = f"{_V}status.checkControlMessages"
    yield "check_control.has_messages", _Rule((messages,), lambda value, _at: bool(json.loads(value)))
    yield "check_control.count", _Rule((messages,), lambda value, _at: len(json.loads(value)))
    yield "check_control.messages", _Rule((messages,), _messages)
    yield "climate.activity", _Rule(activity, _upper)
    yield "climate.is_climate_on", _Rule(activity, lambda value, _at: value == "heating")
    yield "climate.activity_end_time", _Rule((f"{_V}vehicle.preConditioning.remainingTime",), _in_minutes)
    yield f"{charging}.charging_status", status
    yield f"{charging}.battery_level", soc
    yield (
        f"{charging}.is_plugged_in",
        _Rule((f"{_V}body.chargingPort.status",), lambda value, _at: value == "CONNECTED"),
    )
    yield f"{charging}.charging_target_percent", _Rule((f"{_BATTERY}stateOfCharge.target",))
    yield f"{charging}.charging_end_time", _Rule(minutes, _in_minutes)
    yield f"{charging}.ac_limit", _Rule((f"{_BATTERY}charging.acLimit.selected",))
    yield "service.is_service_required", _Rule((_SERVICES,), lambda _value, _at: False)


def _messages(value: str, _at: str) -> list[dict[str, Any]]:
    return [{"text": one["text"], "severity": one["status"], "category": str(one["id"])} for one in json.loads(value)]


RULES: Final[Mapping[str, _Rule]] = dict(_rules())
STATIC: Final = frozenset(
    {
        *(f"vehicle_info.{name}" for name in ("vin", "brand", "name", "drivetrain", "head_unit")),
        *("fuel_and_battery.fuel_type", "mileage.unit"),
        # Made of other fields of the same reply, which are compared.
        *("location.google_maps_url", "location.timestamp", "last_updated", "doors_and_windows.roof.type"),
        *("doors_and_windows.all_doors_closed", "doors_and_windows.all_windows_closed"),
    }
)
"""What no descriptor tells, or another field tells already."""
_ONLY_SOMETIMES: Final = frozenset({"charging.charging_end_time", "climate.activity_end_time"})
"""Shown only while the car charges or is conditioned, although it may report minutes at other times."""
_FUEL_RANGE: Final = "fuel_and_battery.remaining_range_fuel"
_LISTED: Final = "service.services"


def leaves(result: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Path and value of each field of a result; a quantity is its value."""
    for name, value in result.items():
        path = f"{prefix}{name}"
        if path in ("unavailable", "measured", "extra", "unknown_values") or name in ("unavailable", "measured"):
            continue
        if isinstance(value, dict) and set(value) == {"value", "unit"} and path != "mileage":
            yield path, value["value"]
        elif isinstance(value, dict):
            yield from leaves(value, f"{path}.")
        else:
            yield path, value


def compare(action: str, answer: Mapping[str, Any], truths: Truths) -> tuple[int, list[Wrong]]:
    """How many values of a reply were compared, and those that were not true when they say they were measured."""
    result, group = answer["result"], GROUPS[action]
    prefix = f"{group}." if group else ""
    measured = {f"{prefix}{name}": at for name, at in result.get("measured", {}).items()}
    fetched_at = answer["meta"]["fetched_at"]
    wrong: list[Wrong] = []
    count = 0
    for path, served in leaves(result, prefix):
        if path in STATIC:
            continue
        count += 1
        wrong += _wrong(path, served, measured, fetched_at, truths)
    for name, signal in result.get("extra", {}).items():
        count += 1
        descriptor, at = name.removeprefix("location."), signal["measured_at"]
        true = truths.value(descriptor, at) if at else truths.said(descriptor, fetched_at)
        if signal["value"] != _rest(true):
            wrong.append(Wrong(f"extra.{name}", signal["value"], at, true))
    return count, wrong


def _wrong(
    path: str,
    served: Any,  # noqa: ANN401 - any JSON
    measured: Mapping[str, str],
    fetched_at: str,
    truths: Truths,
) -> Iterator[Wrong]:
    if path == _LISTED and served is not None:
        yield from _wrong_services(served, measured, truths)
        return
    at = measured.get(path)
    if path == _FUEL_RANGE and served is not None and at is not None:
        ranges = {truths.value(_TOTAL, at) - truths.value(electric, at) for electric in _ELECTRIC}
        if served not in ranges:
            yield Wrong(path, served, at, ranges)
        return
    rule = RULES.get(path)
    if served is None or served == "INVALID":
        told = [truths.said(descriptor, fetched_at) for descriptor in (rule.descriptors if rule else ())]
        if path not in _ONLY_SOMETIMES and any(value not in _NOTHINGS for value in told):
            yield Wrong(path, served, fetched_at, told)
        return
    if rule is None or at is None:
        yield Wrong(path, served, at, "nothing that could be told from the truth")
        return
    expected = [rule.shown(truths.value(descriptor, at), at) for descriptor in rule.descriptors]
    if served not in expected:
        yield Wrong(path, served, at, expected)


def _wrong_services(served: list[dict[str, Any]], measured: Mapping[str, str], truths: Truths) -> Iterator[Wrong]:
    for position, item in enumerate(served):
        path = f"{_LISTED}.{position}"
        at = measured.get(f"{path}.type")
        if at is None:
            yield Wrong(path, item, None, "a time")
            continue
        distance, due = (item["due_distance"] or {}).get("value"), item["due_date"]
        match item["type"]:
            case "NEXT_SERVICE":
                expected: Any = (truths.value(_NEXT_SERVICE, at), None)
            case "LEGAL_INSPECTION":
                day, month, year = truths.value(_INSPECTION, at).split()[0].split(".")
                expected = (None, f"{year}-{month}-{day}T00:00:00Z")
            case kind:
                listed = {one["text"]: one for one in json.loads(truths.value(_SERVICES, at))}
                expected = (listed[kind]["unitOfLengthRemaining"], None) if kind in listed else None
        if (distance, due) != expected:
            yield Wrong(path, item, at, expected)


def _rest(value: Any) -> Any:  # noqa: ANN401 - a scalar, as the REST API words it
    match value:
        case None:
            return None
        case bool():
            return "true" if value else "false"
        case _:
            return str(value)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
