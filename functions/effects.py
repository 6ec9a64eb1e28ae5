"""What a command should look like in the car's own data once it has happened."""

from collections.abc import Callable, Mapping

from functions.providers.port import Command, CommandName
from functions.snapshot import CHARGING, NOT_CHARGING_STATES, Charging, Snapshot

Shows = Callable[[Snapshot, Command], bool]


def shows(snapshot: Snapshot, command: Command) -> bool:
    """Whether ``snapshot`` shows the state that ``command`` wanted. ``False`` where the car does not say."""
    return TRACES[command.name](snapshot, command)


def _climate_is(on: bool) -> Shows:
    return lambda snapshot, _command: snapshot.climate is not None and snapshot.climate.is_on is on


def _charging_is(on: bool) -> Shows:
    def shows_it(snapshot: Snapshot, _command: Command) -> bool:
        status = snapshot.charging.status if snapshot.charging else None
        return status == CHARGING if on else status in NOT_CHARGING_STATES

    return shows_it


def _has_settings(snapshot: Snapshot, command: Command) -> bool:
    charging = snapshot.charging or Charging()
    return _matches(command, {"target_soc": charging.target_percent, "ac_limit": charging.ac_limit_a})


def _has_profile(snapshot: Snapshot, command: Command) -> bool:
    charging = snapshot.charging or Charging()
    return _matches(command, {"charging_mode": charging.mode, "precondition_climate": charging.preconditions_climate})


def _matches(command: Command, shown: Mapping[str, object]) -> bool:
    wanted = {name: value for name, value in command.params.items() if value is not None}
    return all(shown[name] == value for name, value in wanted.items())


TRACES: Mapping[CommandName, Shows] = {
    CommandName.LOCK: lambda snapshot, _command: snapshot.openings.is_locked is True,
    CommandName.UNLOCK: lambda snapshot, _command: snapshot.openings.is_locked is False,
    CommandName.AC: _climate_is(on=True),
    CommandName.AC_OFF: _climate_is(on=False),
    CommandName.CHARGE_START: _charging_is(on=True),
    CommandName.CHARGE_STOP: _charging_is(on=False),
    CommandName.CHARGING_SETTINGS: _has_settings,
    CommandName.CHARGING_PROFILE: _has_profile,
}
"""By command. A horn leaves no trace: what is not listed here cannot be confirmed."""

TRACEABLE = frozenset(TRACES)
