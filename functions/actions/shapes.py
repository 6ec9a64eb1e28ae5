"""Projections of a snapshot to the contract's results: pure, one function an action.

Quantities become ``{"value", "unit"}`` in the asked-for units. A value that is not known is ``null``, and its reason
stands in ``unavailable`` under the same name. Where a maker dates each value by itself, ``measured`` holds the times,
under the same names too.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from functions.contract import Units
from functions.snapshot import CLOSED, Charging, DepartureTimer, ServiceItem, Snapshot, Tire

_NOT_REPORTED = "the car did not report it"
_IMPERIAL = {"km": ("mi", 0.621371, 0), "L": ("gal", 0.264172, 2), "kPa": ("psi", 0.145038, 1)}
"""Unit, factor, decimals. Gallons are US gallons."""

Result = dict[str, Any]


class Shape:
    """A result under construction, which notes why values are missing and when the others were measured."""

    def __init__(self, snapshot: Snapshot, units: Units, prefix: str) -> None:
        self._snapshot = snapshot
        self._units = units
        self._prefix = prefix
        self.fields: Result = {}
        self.unavailable: dict[str, str] = {}
        self.measured: dict[str, datetime] = {}

    def put(self, name: str, value: object, path: str | None = None) -> None:
        """A plain value; ``path`` is the snapshot's own name for it where it differs."""
        self.fields[name] = value
        if value is None:
            self.unavailable[name] = self._reason(path or name)
        elif self._snapshot.measured:
            self._date(name, path or name)

    def each(self, name: str, values: Mapping[str, str]) -> None:
        """Values by position, each with a time of its own."""
        self.put(name, dict(values) or None)
        if self._snapshot.measured:
            for position in values:
                self._date(f"{name}.{position}", f"{name}.{position}")

    def quantity(self, name: str, value: float | None, unit: str, path: str | None = None) -> None:
        """A value with its unit, converted where imperial units were asked for."""
        self.put(name, None if value is None else quantity(value, unit, self._units), path)

    def group(self, name: str, part: "Shape") -> None:
        """A group of values with reasons of its own."""
        self.fields[name] = part.fields
        self._adopt(name, part)

    def groups(self, name: str, parts: "Sequence[Shape]") -> None:
        """A list of groups; reasons are found by position (``services.0.due_date``)."""
        self.fields[name] = [part.fields for part in parts]
        for position, part in enumerate(parts):
            self._adopt(f"{name}.{position}", part)

    def part(self, prefix: str) -> "Shape":
        """A shape for a group of the same snapshot."""
        return Shape(self._snapshot, self._units, prefix)

    def result(self) -> Result:
        """The contract's result."""
        if self.measured:
            return {**self.fields, "unavailable": self.unavailable, "measured": self.measured}
        return {**self.fields, "unavailable": self.unavailable}

    def _adopt(self, name: str, part: "Shape") -> None:
        self.unavailable.update({f"{name}.{key}": reason for key, reason in part.unavailable.items()})
        if part.measured:
            self.measured.update({f"{name}.{key}": at for key, at in part.measured.items()})

    def _date(self, name: str, path: str) -> None:
        times = self._snapshot.measured
        at = times.get(f"{self._prefix}.{path}") or times.get(self._prefix) or times.get(path)
        if at is not None:
            self.measured[name] = at

    def _reason(self, path: str) -> str:
        reasons = self._snapshot.unavailable
        group = self._prefix
        return reasons.get(f"{group}.{path}") or reasons.get(group) or reasons.get(path) or _NOT_REPORTED


def quantity(value: float, unit: str, units: Units) -> Result:
    """``{"value", "unit"}``, converted where imperial units were asked for."""
    if units == "imperial" and unit in _IMPERIAL:
        unit, factor, decimals = _IMPERIAL[unit]
        converted = round(value * factor, decimals)
        return {"value": int(converted) if decimals == 0 else converted, "unit": unit}
    return {"value": value, "unit": unit}


def fuel(snapshot: Snapshot, units: Units) -> Shape:
    """What is left in tank and battery."""
    shape, level = Shape(snapshot, units, "fuel_and_battery"), snapshot.fuel_and_battery
    shape.quantity("remaining_fuel", level.remaining_fuel_l, "L", "remaining_fuel_l")
    shape.put("remaining_fuel_percent", level.remaining_fuel_percent)
    shape.quantity("remaining_range_fuel", level.remaining_range_fuel_km, "km", "remaining_range_fuel_km")
    shape.quantity("remaining_range_electric", level.remaining_range_electric_km, "km", "remaining_range_electric_km")
    shape.quantity("remaining_range_total", level.remaining_range_total_km, "km", "remaining_range_total_km")
    shape.put("fuel_type", level.fuel_type)
    path = "charging.status" if snapshot.charging else "charging"
    shape.put("charging_status", snapshot.charging.status if snapshot.charging else None, path)
    shape.quantity("battery_level", level.battery_percent, "%", "battery_percent")
    return shape


def location(snapshot: Snapshot, units: Units) -> Shape:
    """Where the car last said it was."""
    shape, where = Shape(snapshot, units, "location"), snapshot.location
    shape.put("latitude", where.latitude if where else None)
    shape.put("longitude", where.longitude if where else None)
    shape.put("heading", where.heading_deg if where else None, "heading_deg")
    url = f"https://www.google.com/maps/search/?api=1&query={where.latitude},{where.longitude}" if where else None
    shape.put("google_maps_url", url)
    shape.put("timestamp", (where.measured_at or snapshot.measured_at) if where else None, "measured_at")
    return shape


def mileage(snapshot: Snapshot, units: Units) -> Shape:
    """The odometer."""
    shape = Shape(snapshot, units, "mileage_km")
    shown = shape.part("mileage_km")
    shown.quantity("mileage", snapshot.mileage_km, "km")
    quantity = shown.fields["mileage"] or {"value": None, "unit": None}
    shape.put("value", quantity["value"], "mileage_km")
    shape.put("unit", quantity["unit"], "mileage_km")
    return shape


def lock_status(snapshot: Snapshot, units: Units) -> Shape:
    """Locks, doors, lids and windows."""
    shape, openings = Shape(snapshot, units, "openings"), snapshot.openings
    shape.put("lock_state", openings.lock_state)
    shape.put("all_windows_closed", _all_closed(openings.windows))
    lids = {**openings.doors, **{k: v for k, v in (("hood", openings.hood), ("trunk", openings.trunk)) if v}}
    shape.put("all_doors_closed", _all_closed(lids if openings.doors else {}))
    shape.put("hood_closed", _closed(openings.hood), "hood")
    shape.put("trunk_closed", _closed(openings.trunk), "trunk")
    shape.each("doors", openings.doors)
    shape.each("windows", openings.windows)
    if openings.roof is not None:
        roof = shape.part("openings")
        roof.put("type", openings.roof_type, "roof_type")
        roof.put("state", openings.roof, "roof")
        shape.group("roof", roof)
    return shape


def is_locked(snapshot: Snapshot, units: Units) -> Shape:
    """One word about the locks."""
    shape = Shape(snapshot, units, "openings")
    shape.put("locked", snapshot.openings.is_locked, "lock_state")
    return shape


def check_control(snapshot: Snapshot, units: Units) -> Shape:
    """Warnings on the dashboard."""
    shape, messages = Shape(snapshot, units, "check_control"), snapshot.check_control
    shape.put("has_messages", None if messages is None else bool(messages))
    shown = [{"text": m.text, "severity": m.severity, "category": m.category} for m in messages or ()]
    shape.put("messages", None if messages is None else shown)
    shape.put("count", None if messages is None else len(messages))
    return shape


def charging(snapshot: Snapshot, units: Units) -> Shape:
    """The charging session and its settings."""
    shape, state = Shape(snapshot, units, "charging"), snapshot.charging or Charging()
    shape.put("charging_status", state.status, "status")
    shape.put("is_plugged_in", state.is_plugged_in)
    shape.quantity("battery_level", snapshot.fuel_and_battery.battery_percent, "%", "fuel_and_battery.battery_percent")
    shape.put("charging_target_percent", state.target_percent, "target_percent")
    shape.put("charging_end_time", state.ends_at, "ends_at")
    shape.put("charging_start_time_local", state.starts_at_local, "starts_at_local")
    shape.put("charging_mode", state.mode, "mode")
    shape.put("charging_preference", state.preference, "preference")
    shape.quantity("ac_limit", state.ac_limit_a, "A", "ac_limit_a")
    shape.put("ac_limits_available", list(state.ac_limits_a) or None, "ac_limits_a")
    shape.put("precondition_climate", state.preconditions_climate, "preconditions_climate")
    if state.window_start or state.window_end:
        window = shape.part("charging")
        window.put("start", state.window_start, "window_start")
        window.put("end", state.window_end, "window_end")
        shape.group("charging_window", window)
    else:
        shape.put("charging_window", None, "window_start")
    if state.departure_timers:
        shape.groups("departure_timers", [_timer(shape.part("charging"), timer) for timer in state.departure_timers])
    else:
        shape.put("departure_timers", None)
    return shape


def climate_status(snapshot: Snapshot, units: Units) -> Shape:
    """Air conditioning while parked."""
    shape, state = Shape(snapshot, units, "climate"), snapshot.climate
    shape.put("activity", state.activity if state else None)
    shape.put("is_climate_on", state.is_on if state else None, "activity")
    shape.put("activity_end_time", state.ends_at if state else None, "ends_at")
    return shape


def tires(snapshot: Snapshot, units: Units) -> Shape:
    """Pressures, wheel by wheel."""
    shape = Shape(snapshot, units, "tires")
    for position in ("front_left", "front_right", "rear_left", "rear_right"):
        tire = (snapshot.tires or {}).get(position)
        if tire is None:
            shape.put(position, None)
        else:
            shape.group(position, _tire(shape.part(f"tires.{position}"), tire))
    return shape


def service(snapshot: Snapshot, units: Units) -> Shape:
    """What is due at the workshop."""
    shape, items = Shape(snapshot, units, "services"), snapshot.services
    shape.put("is_service_required", snapshot.service_required, "service_required")
    if items is None:
        shape.put("services", None)
        return shape
    shape.groups("services", [_service_item(shape.part(_service_path(snapshot, item)), item) for item in items])
    return shape


def capabilities(snapshot: Snapshot, units: Units) -> Shape:
    """What can be asked of this car."""
    shape, can = Shape(snapshot, units, "capabilities"), snapshot.capabilities
    shape.put("commands", dict(can.commands) or None)
    shape.put("set_target_soc", can.set_target_soc)
    shape.put("set_ac_limit", can.set_ac_limit)
    shape.put("location", can.location)
    return shape


def vehicle_info(snapshot: Snapshot, units: Units) -> Shape:
    """Who the car is."""
    shape, info = Shape(snapshot, units, "info"), snapshot.info
    for name in ("vin", "brand", "name", "drivetrain", "model_year", "body_type", "head_unit", "software_version"):
        shape.put(name, getattr(info, name))
    return shape


def status(snapshot: Snapshot, units: Units, *, with_location: bool) -> Shape:
    """Everything at once."""
    shape = Shape(snapshot, units, "")
    shape.group("vehicle_info", vehicle_info(snapshot, units))
    shape.group("fuel_and_battery", fuel(snapshot, units))
    if with_location:
        shape.group("location", location(snapshot, units))
    else:
        shape.fields["location"] = None
        shape.unavailable["location"] = "the caller lacks the scope `location`"
    shape.group("mileage", mileage(snapshot, units))
    shape.group("doors_and_windows", lock_status(snapshot, units))
    shape.group("check_control", check_control(snapshot, units))
    shape.group("climate", climate_status(snapshot, units))
    shape.group("charging", charging(snapshot, units))
    shape.group("tires", tires(snapshot, units))
    shape.group("service", service(snapshot, units))
    shape.put("last_updated", snapshot.measured_at, "measured_at")
    # Words of the maker's that we do not know yet: shown, so that nobody takes silence for an answer.
    unknown = {
        path: word for path, word in snapshot.unknown.items() if with_location or path.partition(".")[0] != "location"
    }
    if unknown:
        shape.fields["unknown_values"] = unknown
    # What only this maker reports, under its own names.
    extra = {name: value for name, value in snapshot.extra.items() if with_location or not name.startswith("location.")}
    if extra:
        shape.fields["extra"] = extra
    return shape


def _timer(shape: Shape, timer: DepartureTimer) -> Shape:
    shape.put("id", timer.id)
    shape.put("action", timer.action)
    shape.put("time", timer.at, "at")
    shape.put("weekdays", list(timer.weekdays))
    return shape


def _service_path(snapshot: Snapshot, item: ServiceItem) -> str:
    own = f"services.{item.kind.lower()}"
    return own if own in snapshot.measured else "services"


def _service_item(shape: Shape, item: ServiceItem) -> Shape:
    shape.put("type", item.kind)
    shape.put("status", item.status)
    shape.put("due_date", item.due_at, "due_at")
    shape.quantity("due_distance", item.due_distance_km, "km", "due_distance_km")
    return shape


def _tire(shape: Shape, tire: Tire) -> Shape:
    shape.quantity("pressure", tire.pressure_kpa, "kPa", "pressure_kpa")
    shape.quantity("target_pressure", tire.target_pressure_kpa, "kPa", "target_pressure_kpa")
    shape.put("season", tire.season)
    shape.put("manufactured_week", tire.manufactured_week)
    return shape


def _closed(state: str | None) -> bool | None:
    return None if state is None or state in ("UNKNOWN", "INVALID") else state == CLOSED


def _all_closed(states: Mapping[str, str]) -> bool | None:
    """``False`` if any is open, ``None`` if none is open but not all are known, ``True`` only if all are closed."""
    closed = [_closed(state) for state in states.values()]
    if False in closed:
        return False
    return None if not closed or None in closed else True
