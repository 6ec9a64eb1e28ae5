"""Commands: each a row; the function is one, because the life of a command is the same for all."""

from common.callers import Scope
from common.errors import AccountNotFound, CommandNotFound
from functions.actions.spec import ActionSpec, Answer, Call, Kind, Services, Target, found_link, found_vehicle
from functions.command_record import Record, account_of
from functions.contract import (
    ChargingProfileParams,
    ChargingSettingsParams,
    CommandParams,
    CommandStatusParams,
    FindParams,
    SendPoiParams,
)
from functions.providers.port import Command, CommandName


async def _send(services: Services, call: Call, name: CommandName) -> Answer:
    params: CommandParams = call.params
    command = Command(name, params.model_dump(exclude_none=True, exclude={"dry_run", "confirm"}))
    link, vehicle = found_link(call), found_vehicle(call)
    if params.dry_run:
        return Answer(await services.commands.dry_run(link, vehicle, command))
    sent = await services.commands.send(
        link,
        vehicle,
        command,
        wait_s=call.envelope.wait_s,
        key=call.idempotency_key,
        code=params.confirm,
        arrived_s=call.arrived_s,
    )
    return _answer(call, sent.record, deduplicated=sent.deduplicated)


async def _command_status(services: Services, call: Call) -> Answer:
    principal, command_id = call.caller.principal, call.params.command_id
    # The account first: another caller's command then ends exactly where one that never was does, and as soon.
    try:
        link = await services.accounts.by_id(principal, account_of(command_id))
    except AccountNotFound:
        raise CommandNotFound from None
    record = await services.commands.find(principal, command_id)
    vehicle = await services.vehicles.find(link, record.vin)
    return _answer(call, await services.commands.status(link, vehicle, record, call.envelope.wait_s))


def _answer(call: Call, record: Record, *, deduplicated: bool = False) -> Answer:
    result = record.result(deduplicated=deduplicated)
    if record.position is not None and Scope.LOCATION not in call.caller.scopes:
        result |= {"position": None, "note": "The caller lacks the scope `location`."}
    return Answer(result, status=200 if record.is_final else 202)


def _command(
    name: CommandName,
    summary: str,
    *,
    scope: Scope = Scope.COMMAND,
    params: type[CommandParams] = CommandParams,
    aliases: tuple[str, ...] = (),
    example: dict[str, object] | None = None,
) -> ActionSpec:
    async def handle(services: Services, call: Call) -> Answer:
        return await _send(services, call, name)

    return ActionSpec(
        name.value, Kind.COMMAND, scope, Target.VEHICLE, summary, handle, params, aliases, example=example or {}
    )


COMMANDS = (
    _command(CommandName.LOCK, "Lock the doors."),
    _command(CommandName.UNLOCK, "Unlock the doors.", scope=Scope.UNLOCK),
    _command(CommandName.FLASH, "Flash the headlights."),
    _command(CommandName.HORN, "Sound the horn."),
    _command(CommandName.AC, "Start the air conditioning.", aliases=("climate",)),
    _command(CommandName.AC_OFF, "Stop the air conditioning."),
    _command(CommandName.CHARGE_START, "Start charging."),
    _command(CommandName.CHARGE_STOP, "Stop charging."),
    _command(
        CommandName.CHARGING_SETTINGS,
        "Set the charging target and the AC limit.",
        params=ChargingSettingsParams,
        example={"target_soc": 80},
    ),
    _command(
        CommandName.CHARGING_PROFILE,
        "Set when to charge and whether to condition the cabin.",
        params=ChargingProfileParams,
        example={"charging_mode": "IMMEDIATE_CHARGING"},
    ),
    _command(
        CommandName.SEND_POI,
        "Send a destination to the car's navigation.",
        params=SendPoiParams,
        example={"latitude": 48.177, "longitude": 11.556, "name": "BMW Welt"},
    ),
    _command(
        CommandName.FIND,
        "Ask the car where it is now.",
        params=FindParams,
        example={"latitude": 48.177, "longitude": 11.556},
    ),
    ActionSpec(
        "command_status",
        Kind.READ,
        Scope.READ,
        Target.NOTHING,
        "How a command stands, asking the maker where that is still open.",
        _command_status,
        CommandStatusParams,
        example={"command_id": "cmd_AAAAAAAAAAAAAAAAAAAAAA_BBBBBBBBBBBBBBBBBBBBBB"},
    ),
)
