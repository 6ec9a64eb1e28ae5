"""The telematic descriptors: what each is called, its unit, and what is true of it.

Values are native, as the stream sends them; the REST API makes strings of them. Cars differ in what they leave
unsaid, on purpose: a client must keep a value, ``null``, ``-NA-`` or ``INVALID``, and a missing key apart.
"""

import functools
import json
import math
from collections.abc import Callable, Mapping
from typing import Final

from sandbox.cardata_cars import Moment
from sandbox.cardata_descriptors import ABSENT, Descriptor, Missing, Value, When
from sandbox.cardata_scripts import Kind
from sandbox.cardata_time import iso_s

_HOME: Final = (48.137154, 11.576124)
_LOOP_KM: Final = 40.0
_KM_PER_DEGREE: Final = 111.32


def _angle(m: Moment) -> float:
    """Cars drive in circles of 40 km that begin and end at home."""
    return 2 * math.pi * (m.travelled_km % _LOOP_KM) / _LOOP_KM


def position(m: Moment) -> tuple[float, float]:
    """Latitude and longitude in degrees."""
    radius = _LOOP_KM / (2 * math.pi) / _KM_PER_DEGREE
    latitude, longitude = _HOME
    angle = _angle(m)
    return (
        round(latitude + radius * math.sin(angle), 6),
        round(longitude + radius * (1 - math.cos(angle)) / math.cos(math.radians(latitude)), 6),
    )


def _petrol(value: Callable[[Moment], Value]) -> Callable[[Moment], Value | Missing]:
    # The i4 sends the keys of a tank, without a value.
    return lambda m: value(m) if m.model.tank_l else None


def _electric(value: Callable[[Moment], Value]) -> Callable[[Moment], Value | Missing]:
    return lambda m: value(m) if m.model.battery_kwh else ABSENT


def _by_model(**values: Value | Missing) -> Callable[[Moment], Value | Missing]:
    return lambda m: values[m.model.key]


def _door(kind: Kind | None) -> Callable[[Moment], Value]:
    """The X1 says OPEN and CLOSED where the others say true and false."""

    def of(m: Moment) -> Value:
        is_open = kind is not None and kind in m.doing and not m.moving
        return ("OPEN" if is_open else "CLOSED") if m.model.key == "x1" else is_open

    return of


def _asn(truth: Callable[[Moment], bool]) -> Callable[[Moment], Value]:
    return lambda m: "ASN_isTrue" if truth(m) else "ASN_isFalse"


def _lock(m: Moment) -> Value:
    if Kind.UNLOCKED in m.doing:
        return "UNLOCKED"
    return "LOCKED" if m.moving else "SECURED"


def _charging_status(m: Moment) -> Value:
    if m.charging:
        return "CHARGINGACTIVE"
    return "CHARGINGENDED" if m.plugged else "NOCHARGING"


def _pressure(m: Moment) -> Value:
    return 260 if m.moving else 250


def _until_service_km(m: Moment) -> Value:
    return round(30_000 - m.travelled_km % 30_000)


def _legal_inspection(m: Moment) -> Value:
    return f"17.01.{int(iso_s(m.at_s)[:4]) + 1} 00:00:00 UTC"


def _service_messages(m: Moment) -> Value:
    if m.model.key == "x1":
        return "-"
    services = [{"id": 1, "text": "Engine oil", "status": "OK", "unitOfLengthRemaining": _until_service_km(m)}]
    return json.dumps(services)


def _check_control(m: Moment) -> Value:
    if m.model.key == "x3":
        return json.dumps([{"id": 955, "text": "Washer fluid low", "status": "SHOWN"}])
    return "null"


def _one_hour_fast(m: Moment) -> float:
    # The clock of the X1 was set to local time.
    return 3600.0 if m.model.key == "x1" else 0.0


def _total_range_km(m: Moment) -> Value:
    fuel_km = m.fuel_range_km if m.model.tank_l else 0.0
    return round(fuel_km + (m.electric_range_km if m.model.battery_kwh else 0.0))


def _plug(m: Moment) -> Value:
    if not m.model.battery_kwh:
        return "INVALID"
    return "CONNECTED" if m.plugged else "DISCONNECTED"


_ENGINE: Final = "vehicle.drivetrain.electricEngine"
_NAVIGATION: Final = "vehicle.cabin.infotainment.navigation.currentLocation"
LATITUDE: Final = f"{_NAVIGATION}.latitude"
LONGITUDE: Final = f"{_NAVIGATION}.longitude"
HEADER: Final = "vehicle.drivetrain.batteryManagement.header"
MILEAGE: Final = "vehicle.vehicle.travelledDistance"
DISPLAYED_SOC: Final = "vehicle.powertrain.electric.battery.stateOfCharge.displayed"

_D = Descriptor
_ROWS: Final = (
    _D(MILEAGE, "km", lambda m: round(m.travelled_km, 1)),
    _D("vehicle.drivetrain.fuelSystem.level", "%", _petrol(lambda m: round(100 * m.fuel_l / m.model.tank_l))),
    _D("vehicle.drivetrain.fuelSystem.remainingFuel", "l", _petrol(lambda m: round(m.fuel_l))),
    _D("vehicle.drivetrain.lastRemainingRange", "km", _total_range_km),
    _D("vehicle.drivetrain.totalRemainingRange", "km", _total_range_km),
    _D(HEADER, "%", _electric(lambda m: round(m.soc_percent, 1))),
    _D(DISPLAYED_SOC, "%", _electric(lambda m: round(m.soc_percent))),
    _D(
        "vehicle.powertrain.electric.battery.stateOfCharge.target",
        "%",
        _by_model(x1=ABSENT, i4=80, x3=None),
    ),
    _D(f"{_ENGINE}.kombiRemainingElectricRange", "km", _electric(lambda m: round(m.electric_range_km))),
    _D(f"{_ENGINE}.remainingElectricRange", "km", _electric(lambda m: round(m.electric_range_km))),
    _D("vehicle.drivetrain.batteryManagement.maxEnergy", "kWh", _electric(lambda m: m.model.battery_kwh)),
    _D("vehicle.drivetrain.batteryManagement.batterySizeMax", "kWh", _by_model(x1=ABSENT, i4=84.0, x3=ABSENT)),
    _D("vehicle.cabin.door.row1.driver.isOpen", None, _door(Kind.UNLOCKED)),
    _D("vehicle.cabin.door.row1.passenger.isOpen", None, _door(None)),
    _D("vehicle.cabin.door.row2.driver.isOpen", None, _door(None)),
    _D(
        "vehicle.cabin.door.row2.passenger.isOpen", None, lambda m: "INVALID" if m.model.key == "x3" else _door(None)(m)
    ),
    _D("vehicle.body.hood.isOpen", None, _door(None)),
    _D("vehicle.body.trunk.isOpen", None, _door(None)),
    _D("vehicle.body.trunk.isLocked", None, lambda m: Kind.UNLOCKED not in m.doing),
    _D("vehicle.cabin.door.status", None, _lock),
    _D("vehicle.cabin.door.lock.status", None, _lock, streamed=False),
    _D(
        "vehicle.cabin.window.row1.driver.status",
        None,
        lambda m: "INTERMEDIATE" if Kind.CLIMATE in m.doing else "CLOSED",
    ),
    _D("vehicle.cabin.window.row1.passenger.status", None, _by_model(x1="CLOSED", i4="CLOSED", x3="CLOSED")),
    _D("vehicle.cabin.window.row2.driver.status", None, _by_model(x1="CLOSED", i4="CLOSED", x3="CLOSED")),
    _D("vehicle.cabin.window.row2.passenger.status", None, _by_model(x1="CLOSED", i4="INVALID", x3="CLOSED")),
    _D("vehicle.cabin.sunroof.status", None, _by_model(x1="INVALID", i4=ABSENT, x3="CLOSED")),
    _D("vehicle.cabin.sunroof.tiltStatus", None, _by_model(x1=None, i4=ABSENT, x3="CLOSED"), When.STARTS),
    _D(LATITUDE, "degrees", lambda m: position(m)[0], When.DRIVES),
    _D(LONGITUDE, "degrees", lambda m: position(m)[1], When.DRIVES),
    _D(f"{_NAVIGATION}.heading", "degrees", lambda m: round(math.degrees(_angle(m))), When.DRIVES),
    _D(f"{_NAVIGATION}.altitude", "m", _by_model(x1=519, i4=None, x3=519), When.DRIVES),
    _D(f"{_NAVIGATION}.fixStatus", None, _by_model(x1="FIX_3D", i4="FIX_3D", x3="FIX_3D"), When.DRIVES),
    _D("vehicle.isMoving", None, lambda m: m.moving),
    _D("vehicle.drivetrain.engine.isIgnitionOn", None, _asn(lambda m: m.moving)),
    _D(
        "vehicle.drivetrain.engine.isActive",
        None,
        lambda m: "ASN_isUnknown" if m.model.key == "i4" else _asn(lambda n: n.moving)(m),
    ),
    _D("vehicle.vehicle.deepSleepModeActive", None, lambda m: Kind.SLEEP in m.doing),
    _D(f"{_ENGINE}.charging.status", None, _electric(_charging_status)),
    _D(f"{_ENGINE}.charging.hvStatus", None, _electric(lambda m: "CHARGING" if m.charging else "NOT_CHARGING")),
    _D(f"{_ENGINE}.charging.timeRemaining", "min", _electric(lambda m: m.minutes_to_target if m.charging else None)),
    _D(
        f"{_ENGINE}.charging.timeToFullyCharged",
        "min",
        _electric(lambda m: m.minutes_to_target if m.charging else None),
    ),
    _D(
        f"{_ENGINE}.charging.phaseNumber",
        None,
        _electric(lambda m: (3 if m.model.key == "i4" else 1) if m.charging else 0),
    ),
    _D(f"{_ENGINE}.charging.method", None, _electric(lambda m: "AC_TYPE2PLUG" if m.plugged else "NOCHARGING")),
    _D(
        "vehicle.powertrain.electric.battery.charging.power",
        "W",
        _electric(lambda m: round(m.model.charge_kw * 1000) if m.charging else 0),
    ),
    _D("vehicle.powertrain.electric.battery.charging.acLimit.selected", "A", _by_model(x1=ABSENT, i4=16, x3=16)),
    _D("vehicle.body.chargingPort.status", None, _plug),
    _D("vehicle.body.chargingPort.combinedStatus", None, _plug, streamed=False),
    _D(
        "vehicle.vehicle.preConditioning.activity", None, lambda m: "heating" if Kind.CLIMATE in m.doing else "inactive"
    ),
    _D("vehicle.vehicle.preConditioning.remainingTime", "min", lambda m: 15 if Kind.CLIMATE in m.doing else 0),
    _D(
        "vehicle.cabin.hvac.preconditioning.status.comfortState",
        None,
        lambda m: "COMFORT_HEATING" if Kind.CLIMATE in m.doing else "COMFORT_OFF",
    ),
    *(
        descriptor
        for row in (1, 2)
        for side in ("left", "right")
        for wheel in (f"vehicle.chassis.axle.row{row}.wheel.{side}.tire",)
        for descriptor in (
            _D(
                f"{wheel}.pressure",
                "kPa",
                functools.partial(
                    lambda m, last: "-NA-" if last and m.model.key == "x1" else _pressure(m),
                    last=(row, side) == (2, "right"),
                ),
                When.DRIVES,
            ),
            _D(f"{wheel}.pressureTarget", "kPa", _by_model(x1=250, i4=260, x3="-NA-"), When.DRIVES),
            _D(
                f"{wheel}.temperature",
                "Celsius",
                lambda m: "-NA-" if m.model.key == "x1" else 24 if m.moving else 12,
                When.DRIVES,
            ),
        )
    ),
    _D("vehicle.status.serviceDistance.next", "km", _until_service_km, When.STARTS, ahead_s=_one_hour_fast),
    _D("vehicle.status.serviceTime.inspectionDateLegal", None, _legal_inspection, When.STARTS),
    _D("vehicle.status.conditionBasedServices", None, _service_messages, When.STARTS, streamed=False),
    _D("vehicle.status.checkControlMessages", None, _check_control, When.STARTS, streamed=False),
    _D("vehicle.electricalSystem.battery.voltage", "V", lambda m: 14.2 if m.moving else 12.6),
    _D("vehicle.electricalSystem.battery.stateOfCharge", "%", lambda m: 90 if m.moving else 85),
)


DESCRIPTORS: Final[Mapping[str, Descriptor]] = {row.key: row for row in _ROWS}
STREAMABLE: Final = frozenset(row.key for row in _ROWS if row.streamed)
