"""The tank, the high-voltage battery, and how it charges. Part of :mod:`.mapping`."""

from datetime import timedelta
from typing import Final

from functions.providers.cardata import descriptors as d
from functions.providers.cardata.sheet import NOT_IN_CARDATA, Sheet
from functions.providers.cardata.signals import Signal
from functions.providers.cardata.values import Nothing, Reading, flag, number, whole, word
from functions.snapshot import CHARGING, NOT_CHARGING_STATES, Charging, FuelAndBattery

ENGINES: Final = frozenset({"COMBUSTION", "MILD_HYBRID", "PLUGIN_HYBRID", "ELECTRIC_WITH_RANGE_EXTENDER"})
BATTERIES: Final = frozenset({"ELECTRIC", "PLUGIN_HYBRID", "ELECTRIC_WITH_RANGE_EXTENDER"})
NO_ENGINE: Final = "the car has no combustion engine"
NO_BATTERY: Final = "the car has no high-voltage battery"
NOT_CHARGING: Final = "the car is not charging"
NOT_APART: Final = "BMW CarData does not report it apart from the total"
_TOGETHER_WITHIN: Final = timedelta(seconds=1)
_FUEL_TYPES: Final = {(True, False): "fuel", (False, True): "electric", (True, True): "hybrid"}
_STATUSES: Final = {
    "CHARGINGACTIVE": CHARGING,
    "CHARGINGPAUSED": "WAITING_FOR_CHARGING",
    "CHARGINGENDED": "NOT_CHARGING",
    "NOCHARGING": "NOT_CHARGING",
    "INITIALIZATION": "INITIALIZATION",
    **{state: state for state in (CHARGING, *NOT_CHARGING_STATES)},
}
"""BMW's word: the one that the service knows. ``INITIALIZATION`` says neither that the car charges nor that not."""
_NEVER_REPORTED: Final = ("mode", "preference", "timer_type", "window_start", "window_end", "departure_timers")


def to_fuel_and_battery(sheet: Sheet, drivetrain: str) -> FuelAndBattery:
    """What is left. Of a car whose drivetrain is not known, whatever it reports."""
    at = "fuel_and_battery"
    is_known = drivetrain in ENGINES | BATTERIES
    has_engine, has_battery = drivetrain in ENGINES or not is_known, drivetrain in BATTERIES or not is_known
    litres = percent = fuel_km = electric_km = soc = None
    total = whole(sheet.get(d.RANGE_TOTAL), "km", 0, 10_000)
    last = whole(sheet.get(d.RANGE_LAST), "km", 0, 10_000)
    electric = sheet.newest(d.RANGE_ELECTRIC, lambda signal: whole(signal, "km", 0, 10_000))
    if has_engine:
        litres = sheet.put(f"{at}.remaining_fuel_l", number(sheet.get(d.FUEL_LITRES), "l", 0, 1_000))
        percent = sheet.put(f"{at}.remaining_fuel_percent", whole(sheet.get(d.FUEL_PERCENT), "%", 0, 100))
        fuel = _fuel_range(total if total.value is not None else last, electric, drivetrain)
        fuel_km = sheet.put(f"{at}.remaining_range_fuel_km", fuel)
        if has_battery and fuel_km is None:
            sheet.unavailable[f"{at}.remaining_range_fuel_km"] = NOT_APART
    else:
        for name in ("remaining_fuel_l", "remaining_fuel_percent", "remaining_range_fuel_km"):
            sheet.missing(f"{at}.{name}", NO_ENGINE)
    if has_battery:
        electric_km = sheet.put(f"{at}.remaining_range_electric_km", electric)
        soc = sheet.put(f"{at}.battery_percent", sheet.newest(d.SOC, lambda signal: whole(signal, "%", 0, 100)))
    else:
        for name in ("remaining_range_electric_km", "battery_percent"):
            sheet.missing(f"{at}.{name}", NO_BATTERY)
    return FuelAndBattery(
        fuel_type=_FUEL_TYPES[has_engine, has_battery] if is_known else None,
        remaining_fuel_l=litres,
        remaining_fuel_percent=percent,
        remaining_range_fuel_km=fuel_km,
        remaining_range_electric_km=electric_km,
        remaining_range_total_km=sheet.put(
            f"{at}.remaining_range_total_km",
            next((read for read in (total, last) if read.value is not None), total)
            if has_engine or total.value is not None
            else electric,
        ),
        battery_percent=soc,
    )


def _fuel_range(total: Reading[int], electric: Reading[int], drivetrain: str) -> Reading[int]:
    """The total of a car with an engine alone; of a hybrid what is left of it beside the electric range.

    Only of two that were measured together: the difference of an old and a new one is the range of no moment.
    """
    if drivetrain in ENGINES - BATTERIES or total.nothing is not None:
        return total
    if drivetrain not in BATTERIES or total.value is None or electric.value is None:
        return Reading(None, Nothing.ABSENT, None)
    is_together = _is_together(total.signal, electric.signal)
    if not is_together or total.value < electric.value:
        return Reading(None, Nothing.ABSENT, None)
    return Reading(total.value - electric.value, None, total.signal)


def _is_together(one: Signal | None, other: Signal | None) -> bool:
    if one is None or other is None or one.measured_at is None or other.measured_at is None:
        return False
    return abs(one.measured_at - other.measured_at) <= _TOGETHER_WITHIN


def to_charging(sheet: Sheet, drivetrain: str) -> Charging | None:
    """How the high-voltage battery charges; ``None`` for a car that has none."""
    if drivetrain in ENGINES - BATTERIES:
        sheet.missing("charging", NO_BATTERY)
        return None
    at = "charging"
    reading = word(sheet.get(d.CHARGING_STATUS))
    status = sheet.put(f"{at}.status", reading)
    if status is not None and status not in _STATUSES:
        sheet.strange(f"{at}.status", status)
    status = _STATUSES.get(status, status) if status is not None else None
    minutes = sheet.newest(d.CHARGING_MINUTES, lambda signal: number(signal, "min", 0, 100_000))
    ends_at = None
    if status == CHARGING:
        # Minutes that are older than the status belong to an earlier charge.
        if minutes.signal is not None and minutes.value is not None and is_older(minutes.signal, reading.signal):
            minutes = Reading(None, Nothing.ABSENT, None)
        left = sheet.put(f"{at}.ends_at", minutes)
        counts_from = minutes.signal.counts_from if minutes.signal is not None else None
        ends_at = counts_from + timedelta(minutes=left) if left is not None and counts_from is not None else None
    elif status is not None:
        sheet.missing(f"{at}.ends_at", NOT_CHARGING)
    for name in _NEVER_REPORTED:
        sheet.missing(f"{at}.{name}", NOT_IN_CARDATA)
    for name in ("ac_limits_a", "preconditions_climate", "starts_at_local"):
        sheet.missing(f"{at}.{name}", NOT_IN_CARDATA)
    return Charging(
        status=status,
        is_plugged_in=sheet.put(f"{at}.is_plugged_in", sheet.newest(d.PLUG, flag)),
        target_percent=sheet.put(f"{at}.target_percent", whole(sheet.get(d.SOC_TARGET), "%", 0, 100)),
        ends_at=ends_at,
        ac_limit_a=sheet.put(f"{at}.ac_limit_a", whole(sheet.get(d.AC_LIMIT), "a", 0, 1_000)),
    )


def is_older(one: Signal, other: Signal | None) -> bool:
    """Whether ``one`` was measured before ``other``, or that cannot be told."""
    if other is None or one.counts_from is None or other.counts_from is None:
        return True
    return one.counts_from < other.counts_from
