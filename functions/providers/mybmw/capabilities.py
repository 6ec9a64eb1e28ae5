"""What can be asked of a car. Part of :mod:`.mapping`.

``ac_off`` is possible where the car reports its climate control: the library's rule. ``find`` is always possible, for
BMW carries it out although ``vehicleFinder`` is false, says the library; whether the car's position is reported is
``Capabilities.location``.
"""

from functions.providers.mybmw.fields import Fields
from functions.providers.port import CommandName
from functions.snapshot import Capabilities

_FLAGS = {
    CommandName.LOCK: ("lock", "doorLock"),
    CommandName.UNLOCK: ("unlock", "doorUnlock"),
    CommandName.FLASH: ("lights", "lightFlash"),
    CommandName.HORN: ("horn", "hornBlow"),
    CommandName.AC: ("climateNow", None),
    CommandName.SEND_POI: ("sendPoi", None),
    CommandName.CHARGING_PROFILE: ("isChargingPlanSupported", None),
}
"""By command: BMW's flag, and where there is one the remote service that must be activated."""


def to_capabilities(capabilities: Fields, state: Fields) -> Capabilities:
    """Of a command that BMW does not mention nothing is said."""
    if not capabilities:
        return Capabilities()
    set_target_soc = capabilities.flag("isChargingTargetSocEnabled", "capabilities.set_target_soc")
    set_ac_limit = capabilities.flag("isChargingPowerLimitEnabled", "capabilities.set_ac_limit")
    settings = None if set_target_soc is None and set_ac_limit is None else bool(set_target_soc or set_ac_limit)
    at = _path(CommandName.CHARGE_START)
    charging = capabilities.part("remoteChargingCommands", at).texts("chargingControl", at)
    commands: dict[CommandName, bool | None] = {
        **{command: _is_enabled(capabilities, command) for command in _FLAGS},
        CommandName.AC_OFF: bool(state.part("climateControlState", "climate")),
        CommandName.CHARGE_START: "START" in charging,
        CommandName.CHARGE_STOP: "STOP" in charging,
        CommandName.CHARGING_SETTINGS: settings,
        CommandName.FIND: True,
    }
    return Capabilities(
        commands={name.value: possible for name, possible in commands.items() if possible is not None},
        set_target_soc=set_target_soc,
        set_ac_limit=set_ac_limit,
        location=capabilities.flag("vehicleFinder", "capabilities.location"),
    )


def _is_enabled(capabilities: Fields, command: CommandName) -> bool | None:
    flag, service = _FLAGS[command]
    enabled = capabilities.flag(flag, _path(command))
    if not enabled or service is None:
        return enabled
    activation = capabilities.part("remoteServices", "capabilities.commands").part(service, _path(command))
    return activation.text("state", _path(command)) in (None, "ACTIVATED")


def _path(command: CommandName) -> str:
    return f"capabilities.commands.{command.value}"
