"""The maker-neutral vehicle: what a car last said about itself.

One snapshot answers every read of a vehicle. All quantities are metric and carry their unit in the name; showing
miles is the reply's business. ``None`` always means "the car did not report this", never "no" or "zero", and
:attr:`Snapshot.unavailable` may say why. Times are timezone-aware UTC.

Values that a maker enumerates (lock state, charging status ...) are upper-case strings of that maker's own, because a
value we have never seen must survive; the ones that the service reasons about are named in this module.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any

EMPTY: Mapping[str, Any] = MappingProxyType({})

CLOSED = "CLOSED"
"""A door, lid, window or roof that is closed."""

LOCKED_STATES = frozenset({"LOCKED", "SECURED"})
UNLOCKED_STATES = frozenset({"UNLOCKED"})
PARTIALLY_LOCKED_STATES = frozenset({"SELECTIVE_LOCKED", "PARTIALLY_LOCKED"})

CHARGING = "CHARGING"
NOT_CHARGING_STATES = frozenset(
    {
        "COMPLETE",
        "FINISHED_FULLY_CHARGED",
        "FINISHED_NOT_FULL",
        "FULLY_CHARGED",
        "NOT_CHARGING",
        "PLUGGED_IN",
        "TARGET_REACHED",
        "WAITING_FOR_CHARGING",
    }
)
"""Apart from these and ``CHARGING`` no word says whether the car charges: ``INVALID``, ``ERROR``, a new one."""
CLIMATE_ON_STATES = frozenset({"COOLING", "HEATING", "VENTILATION"})
CLIMATE_OFF_STATES = frozenset({"INACTIVE", "STANDBY"})


@dataclass(frozen=True, slots=True)
class VehicleInfo:
    """Who the car is. Changes at most with a software update."""

    vin: str
    brand: str
    """``BMW``, ``MINI``, ``TOYOTA`` ..."""
    name: str
    """The model as its maker writes it: ``iX xDrive50``."""
    drivetrain: str
    """``COMBUSTION``, ``PLUGIN_HYBRID``, ``ELECTRIC``, ``ELECTRIC_WITH_RANGE_EXTENDER``, ``MILD_HYBRID`` ..."""
    model_year: int | None = None
    body_type: str | None = None
    head_unit: str | None = None
    software_version: str | None = None


@dataclass(frozen=True, slots=True)
class FuelAndBattery:
    """What is left in the tank and in the high-voltage battery."""

    fuel_type: str | None = None
    """``fuel``, ``electric`` or ``hybrid``: what the drivetrain runs on."""
    remaining_fuel_l: float | None = None
    remaining_fuel_percent: int | None = None
    remaining_range_fuel_km: int | None = None
    remaining_range_electric_km: int | None = None
    remaining_range_total_km: int | None = None
    battery_percent: int | None = None


@dataclass(frozen=True, slots=True)
class DepartureTimer:
    """One planned departure. ``at`` is the car's local time, ``HH:MM``."""

    id: int | None
    action: str | None
    at: str | None
    weekdays: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Charging:
    """The charging session and how the car is told to charge."""

    status: str | None = None
    """``CHARGING``, ``COMPLETE``, ``NOT_CHARGING``, ``PLUGGED_IN`` ... as the maker says it."""
    is_plugged_in: bool | None = None
    target_percent: int | None = None
    ends_at: datetime | None = None
    starts_at_local: str | None = None
    """The planned start in the car's local time, ISO 8601 without an offset, because none is known."""
    mode: str | None = None
    preference: str | None = None
    ac_limit_a: int | None = None
    ac_limits_a: tuple[int, ...] = ()
    """The limits that this car accepts."""
    preconditions_climate: bool | None = None
    timer_type: str | None = None
    window_start: str | None = None
    window_end: str | None = None
    departure_timers: tuple[DepartureTimer, ...] = ()


@dataclass(frozen=True, slots=True)
class Location:
    """Where the car last said it was. WGS 84."""

    latitude: float
    longitude: float
    heading_deg: int | None = None
    measured_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Openings:
    """Locks, doors, lids, windows. ``None`` and an empty mapping mean: not reported, and so not known."""

    lock_state: str | None = None
    doors: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    """Side doors by position (``left_front``), each ``OPEN``, ``CLOSED`` ..."""
    windows: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    hood: str | None = None
    trunk: str | None = None
    roof: str | None = None
    roof_type: str | None = None

    @property
    def is_locked(self) -> bool | str:
        """``True``, ``False``, ``"partial"`` or ``"unknown"``."""
        if self.lock_state in LOCKED_STATES:
            return True
        if self.lock_state in UNLOCKED_STATES:
            return False
        return "partial" if self.lock_state in PARTIALLY_LOCKED_STATES else "unknown"


@dataclass(frozen=True, slots=True)
class CheckControlMessage:
    """A warning on the dashboard."""

    text: str
    severity: str
    category: str
    """The maker's own type: ``TIRE_PRESSURE``."""


@dataclass(frozen=True, slots=True)
class Climate:
    """Air conditioning while parked."""

    activity: str | None = None
    ends_at: datetime | None = None

    @property
    def is_on(self) -> bool | None:
        """Whether the cabin is being conditioned; ``None`` where the car does not say, or in words we do not know."""
        if self.activity in CLIMATE_ON_STATES:
            return True
        return False if self.activity in CLIMATE_OFF_STATES else None


@dataclass(frozen=True, slots=True)
class Tire:
    """One wheel. Pressures in kPa."""

    pressure_kpa: int | None = None
    target_pressure_kpa: int | None = None
    season: str | None = None
    manufactured_week: str | None = None
    """ISO week, ``2021-W40``."""


@dataclass(frozen=True, slots=True)
class ServiceItem:
    """One service due."""

    kind: str
    status: str
    due_at: datetime | None = None
    due_distance_km: int | None = None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What can be asked of this car; ``None`` where the maker does not tell."""

    commands: Mapping[str, bool] = field(default_factory=lambda: EMPTY)
    """By command name (``lock``, ``charge_start`` ...)."""
    set_target_soc: bool | None = None
    set_ac_limit: bool | None = None
    location: bool | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything a car last reported, read in one go."""

    info: VehicleInfo
    fetched_at: datetime
    """When we read it upstream."""
    measured_at: datetime | None
    """When the car measured it, as far as it is known for the whole."""
    mileage_km: int | None = None
    fuel_and_battery: FuelAndBattery = field(default_factory=FuelAndBattery)
    charging: Charging | None = None
    """``None`` for a car without a high-voltage battery."""
    location: Location | None = None
    openings: Openings = field(default_factory=Openings)
    check_control: tuple[CheckControlMessage, ...] | None = None
    climate: Climate | None = None
    tires: Mapping[str, Tire] | None = None
    """By position: ``front_left``, ``front_right``, ``rear_left``, ``rear_right``."""
    services: tuple[ServiceItem, ...] | None = None
    service_required: bool | None = None
    capabilities: Capabilities = field(default_factory=Capabilities)
    measured: Mapping[str, datetime] = field(default_factory=lambda: EMPTY)
    """Per signal, by dotted path, where a maker dates each value by itself."""
    unavailable: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    """Why a value is ``None``, by dotted path (``location``: ``vehicle tracking is off``)."""
    unknown: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    """Values that the mapping does not know, by dotted path, kept as the maker wrote them."""
    extra: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    """What a maker reports beyond all this, by the maker's own name: ``{"value", "unit", "measured_at"}``, as it was
    written. Names that begin with ``location.`` tell where the car is or goes."""
