"""The words of BMW's that we know, from the library's enumerations, and the reasons that we give ourselves."""

from enum import Enum

from bimmer_connected.vehicle.charging_profile import ChargingMode, ChargingPreferences, TimerTypes
from bimmer_connected.vehicle.climate import ClimateActivityState
from bimmer_connected.vehicle.const import COMBUSTION_ENGINE_DRIVE_TRAINS, HV_BATTERY_DRIVE_TRAINS, DriveTrainType
from bimmer_connected.vehicle.doors_windows import LidState, LockState
from bimmer_connected.vehicle.fuel_and_battery import ChargingState
from bimmer_connected.vehicle.reports import CheckControlStatus, ConditionBasedServiceStatus


def _words(enumeration: type[Enum]) -> frozenset[str]:
    return frozenset(member.value for member in enumeration)


LIDS = _words(LidState)
LOCKS = _words(LockState) | {"INVALID"}
CHARGING_STATES = _words(ChargingState)
CHARGING_MODES = _words(ChargingMode)
CHARGING_PREFERENCES = _words(ChargingPreferences)
TIMERS = _words(TimerTypes)
CLIMATE_STATES = _words(ClimateActivityState)
SEVERITIES = _words(CheckControlStatus)
SERVICE_STATES = _words(ConditionBasedServiceStatus)
DRIVETRAINS = _words(DriveTrainType)
ENGINES = frozenset(drivetrain.value for drivetrain in COMBUSTION_ENGINE_DRIVE_TRAINS)
"""Drivetrains with a combustion engine."""
BATTERIES = frozenset(drivetrain.value for drivetrain in HV_BATTERY_DRIVE_TRAINS)
"""Drivetrains with a high-voltage battery."""

SILENT = "the car sends no state"
NOT_REPORTED = "the car did not report it"
NO_ENGINE = "the car has no combustion engine"
NO_BATTERY = "the car has no high-voltage battery"
STRANGE_DRIVETRAIN = "the car's drivetrain is not known"
NOT_CHARGING = "the car is not charging"
TRACKING_OFF = "vehicle tracking is off"
TIME_OF_DAY_ONLY = "the car reports the time of day alone: window_start"
