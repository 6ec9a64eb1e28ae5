"""BMW's names for what a car reports, as far as the snapshot has a place for them.

:data:`CONTAINER` is what one request asks for. Whoever changes it raises :data:`CONTAINER_VERSION`: a container
cannot be changed, and is found again by its purpose.
"""

import re
from typing import Final

_P: Final = "vehicle."
_ELECTRIC: Final = f"{_P}drivetrain.electricEngine."
_BATTERY: Final = f"{_P}powertrain.electric.battery."
_NAVIGATION: Final = f"{_P}cabin.infotainment.navigation."

MILEAGE: Final = f"{_P}vehicle.travelledDistance"
FUEL_PERCENT: Final = f"{_P}drivetrain.fuelSystem.level"
FUEL_LITRES: Final = f"{_P}drivetrain.fuelSystem.remainingFuel"
RANGE_LAST: Final = f"{_P}drivetrain.lastRemainingRange"
RANGE_TOTAL: Final = f"{_P}drivetrain.totalRemainingRange"
RANGE_ELECTRIC: Final = (f"{_ELECTRIC}kombiRemainingElectricRange", f"{_ELECTRIC}remainingElectricRange")
SOC: Final = (f"{_P}drivetrain.batteryManagement.header", f"{_BATTERY}stateOfCharge.displayed")
SOC_TARGET: Final = f"{_BATTERY}stateOfCharge.target"

CHARGING_STATUS: Final = f"{_ELECTRIC}charging.status"
CHARGING_MINUTES: Final = (f"{_ELECTRIC}charging.timeRemaining", f"{_ELECTRIC}charging.timeToFullyCharged")
AC_LIMIT: Final = f"{_BATTERY}charging.acLimit.selected"
PLUG: Final = (f"{_P}body.chargingPort.status", f"{_P}body.chargingPort.combinedStatus")

LATITUDE: Final = f"{_NAVIGATION}currentLocation.latitude"
LONGITUDE: Final = f"{_NAVIGATION}currentLocation.longitude"
HEADING: Final = f"{_NAVIGATION}currentLocation.heading"

LOCK: Final = (f"{_P}cabin.door.status", f"{_P}cabin.door.lock.status")
HOOD: Final = f"{_P}body.hood.isOpen"
TRUNK: Final = f"{_P}body.trunk.isOpen"
ROOF: Final = f"{_P}cabin.sunroof.status"
ROOF_TILT: Final = f"{_P}cabin.sunroof.tiltStatus"
ROWS: Final = {"front": "row1", "rear": "row2"}
SIDES: Final = ("driver", "passenger")


def door(row: str, side: str) -> str:
    """Whether a side door is open: ``row1``, ``driver``."""
    return f"{_P}cabin.door.{row}.{side}.isOpen"


def window(row: str, side: str) -> str:
    """How a side window stands."""
    return f"{_P}cabin.window.{row}.{side}.status"


CLIMATE: Final = f"{_P}vehicle.preConditioning.activity"
CLIMATE_MINUTES: Final = f"{_P}vehicle.preConditioning.remainingTime"

WHEELS: Final = {
    "front_left": "row1.wheel.left",
    "front_right": "row1.wheel.right",
    "rear_left": "row2.wheel.left",
    "rear_right": "row2.wheel.right",
}
"""The snapshot's position: BMW's."""


def pressure(wheel: str) -> str:
    """The pressure of a tire, by BMW's name of the wheel."""
    return f"{_P}chassis.axle.{wheel}.tire.pressure"


def target_pressure(wheel: str) -> str:
    """What the pressure should be."""
    return f"{_P}chassis.axle.{wheel}.tire.pressureTarget"


SERVICE_DISTANCE: Final = f"{_P}status.serviceDistance.next"
INSPECTION: Final = f"{_P}status.serviceTime.inspectionDateLegal"
SERVICES: Final = f"{_P}status.conditionBasedServices"
CHECK_CONTROL: Final = f"{_P}status.checkControlMessages"

OURS: Final = "draiv."
"""Names that begin so are ours and never BMW's."""
POSITION: Final = f"{OURS}position"
"""Latitude and longitude that were measured together, see :mod:`.signals`."""
CHARGE_ENDED: Final = f"{OURS}chargeEnded"
"""When the car was last known to have stopped charging."""
READ: Final = f"{OURS}read"
"""When the car was last asked by a request, which cost one of the day's."""
FAILED: Final = f"{OURS}failed"
"""When such a request last failed."""

CHARGING_ACTIVE: Final = "CHARGINGACTIVE"

MAPPED: Final = frozenset(
    {
        *(MILEAGE, FUEL_PERCENT, FUEL_LITRES, RANGE_LAST, RANGE_TOTAL, *RANGE_ELECTRIC, *SOC, SOC_TARGET),
        *(CHARGING_STATUS, *CHARGING_MINUTES, AC_LIMIT, *PLUG),
        *(LATITUDE, LONGITUDE, HEADING),
        *(*LOCK, HOOD, TRUNK, ROOF, ROOF_TILT),
        *(of(row, side) for of in (door, window) for row in ROWS.values() for side in SIDES),
        *(CLIMATE, CLIMATE_MINUTES),
        *(of(wheel) for of in (pressure, target_pressure) for wheel in WHEELS.values()),
        *(SERVICE_DISTANCE, INSPECTION, SERVICES, CHECK_CONTROL),
    }
)
"""Those that have a place in the snapshot; all others are its ``extra``."""

_ALSO: Final = (
    f"{_P}isMoving",
    f"{_P}drivetrain.engine.isActive",
    f"{_P}drivetrain.engine.isIgnitionOn",
    f"{_P}vehicle.deepSleepModeActive",
    f"{_P}drivetrain.batteryManagement.maxEnergy",
    f"{_ELECTRIC}charging.hvStatus",
    f"{_ELECTRIC}charging.method",
    f"{_ELECTRIC}charging.phaseNumber",
    f"{_BATTERY}charging.power",
    f"{_P}body.trunk.isLocked",
    f"{_P}electricalSystem.battery.voltage",
    f"{_P}electricalSystem.battery.stateOfCharge",
    *(f"{_P}chassis.axle.{wheel}.tire.temperature" for wheel in WHEELS.values()),
)

CONTAINER: Final = tuple(sorted({*MAPPED, *_ALSO}))
CONTAINER_NAME: Final = "draiv"
CONTAINER_VERSION: Final = 1
CONTAINER_PURPOSE: Final = f"draiv vehicle snapshot v{CONTAINER_VERSION}"

_PLACE: Final = re.compile(
    r"navigation|latitude|longitude|altitude|coordinate|location|position|gps|heading|destination|address|route",
    re.IGNORECASE,
)
"""BMW has names that we do not know, and the owner streams what he likes: rather too much is taken for a place."""


def is_about_place(descriptor: str) -> bool:
    """Whether a descriptor tells where the car is or goes, known to us or not."""
    return _PLACE.search(descriptor) is not None
