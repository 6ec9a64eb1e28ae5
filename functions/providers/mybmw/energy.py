"""What drives a car: the tank, the high-voltage battery, and how it is charged. Part of :mod:`.mapping`."""

from datetime import datetime, timedelta

from functions.providers.mybmw.fields import Fields, Notes
from functions.providers.mybmw.words import (
    BATTERIES,
    CHARGING_MODES,
    CHARGING_PREFERENCES,
    CHARGING_STATES,
    ENGINES,
    NOT_CHARGING,
    TIME_OF_DAY_ONLY,
    TIMERS,
)
from functions.snapshot import CHARGING, Charging, DepartureTimer, FuelAndBattery

_FUEL_TYPES = {(True, False): "fuel", (False, True): "electric", (True, True): "hybrid"}


def to_fuel_and_battery(state: Fields, drivetrain: str, notes: Notes) -> FuelAndBattery:
    """The tank of a car that has an engine, and the battery of one that has a high-voltage battery."""
    at = "fuel_and_battery"
    has_engine, has_battery = drivetrain in ENGINES, drivetrain in BATTERIES
    nothing = Fields({}, notes)
    fuel = state.part("combustionFuelLevel", at) if has_engine else nothing
    battery = state.part("electricChargingState", at) if has_battery else nothing
    fuel_km = fuel.whole("range", f"{at}.remaining_range_fuel_km", 0, 10_000)
    electric_km = battery.whole("range", f"{at}.remaining_range_electric_km", 0, 10_000)
    total_km = fuel_km if has_engine else electric_km
    if drivetrain == "ELECTRIC_WITH_RANGE_EXTENDER":
        total_km = None if fuel_km is None or electric_km is None else fuel_km + electric_km
    elif has_engine and has_battery:
        fuel_km = _difference(total_km, electric_km)
    return FuelAndBattery(
        fuel_type=_FUEL_TYPES.get((has_engine, has_battery)),
        remaining_fuel_l=fuel.number("remainingFuelLiters", f"{at}.remaining_fuel_l", 0, 1_000),
        remaining_fuel_percent=fuel.whole("remainingFuelPercent", f"{at}.remaining_fuel_percent", 0, 100),
        remaining_range_fuel_km=fuel_km,
        remaining_range_electric_km=electric_km,
        remaining_range_total_km=total_km,
        battery_percent=battery.whole("chargingLevelPercent", f"{at}.battery_percent", 0, 100),
    )


def to_charging(
    state: Fields, settings: Fields, drivetrain: str, counts_from: datetime, notes: Notes
) -> Charging | None:
    """How a car with a high-voltage battery is charged; ``remainingChargingMinutes`` count from ``counts_from``."""
    if drivetrain not in BATTERIES:
        return None
    at = "charging"
    now = state.part("electricChargingState", at)
    plan = state.part("chargingProfile", at)
    window = plan.part("reductionOfChargeCurrent", f"{at}.window_start")
    status = now.word("chargingStatus", f"{at}.status", CHARGING_STATES)
    minutes = now.number("remainingChargingMinutes", f"{at}.ends_at", 0, 100_000)
    amperes = plan.part("chargingSettings", f"{at}.ac_limit_a")
    limits = settings.part("chargingSettingsDetail", f"{at}.ac_limits_a").part("acLimit", f"{at}.ac_limits_a")
    if status == "WAITING_FOR_CHARGING":
        notes.missing(f"{at}.starts_at_local", TIME_OF_DAY_ONLY)
    elif status is not None and status != CHARGING:
        notes.missing(f"{at}.ends_at", NOT_CHARGING)
    return Charging(
        status=status,
        is_plugged_in=now.flag("isChargerConnected", f"{at}.is_plugged_in"),
        target_percent=now.whole("chargingTarget", f"{at}.target_percent", 0, 100),
        ends_at=counts_from + timedelta(minutes=minutes) if minutes is not None and status == CHARGING else None,
        mode=plan.word("chargingMode", f"{at}.mode", CHARGING_MODES),
        preference=plan.word("chargingPreference", f"{at}.preference", CHARGING_PREFERENCES),
        ac_limit_a=amperes.whole("acCurrentLimit", f"{at}.ac_limit_a", 0, 1_000),
        ac_limits_a=limits.wholes("values", f"{at}.ac_limits_a"),
        preconditions_climate=_preconditions(plan, settings),
        timer_type=plan.word("chargingControlType", f"{at}.timer_type", TIMERS),
        window_start=window.clock("start", f"{at}.window_start"),
        window_end=window.clock("end", f"{at}.window_end"),
        departure_timers=_departure_timers(plan),
    )


def _difference(total: int | None, part: int | None) -> int | None:
    return total - part if total is not None and part is not None and total >= part else None


def _preconditions(plan: Fields, settings: Fields) -> bool | None:
    """Newer cars leave it out of their state; the charging endpoint knows it of all."""
    at = "charging.preconditions_climate"
    in_state = plan.flag("climatisationOn", at)
    if in_state is not None:
        return in_state
    return settings.part("chargeAndClimateTimerDetail", at).flag("isPreconditionForDepartureActive", at)


def _departure_timers(plan: Fields) -> tuple[DepartureTimer, ...]:
    at = "charging.departure_timers"
    return tuple(
        DepartureTimer(
            id=timer.whole("id", f"{at}.id", 0, 1_000),
            action=timer.text("action", f"{at}.action"),
            at=timer.clock("timeStamp", f"{at}.at"),
            weekdays=timer.texts("timerWeekDays", f"{at}.weekdays"),
        )
        for timer in plan.parts("departureTimes", at) or ()
    )
