"""Remote services: accepting commands, answering polls, and finding the car."""

from collections.abc import Callable
from typing import Any, Final

from bimmer_connected.tests import REMOTE_SERVICE_RESPONSE_ERROR

from sandbox.mybmw_cars import Car
from sandbox.mybmw_clock import iso_milliseconds
from sandbox.mybmw_commands import Command
from sandbox.mybmw_effects import (
    ERROR,
    EXECUTED,
    Effect,
    charging,
    charging_profile,
    charging_settings,
    climate,
    locked,
    nothing_visible,
    place,
)
from sandbox.mybmw_guard import take_vin
from sandbox.mybmw_wire import (
    Call,
    Refusal,
    Reply,
    gateway_error,
    json_reply,
    not_found,
    require_headers,
    require_query,
)
from sandbox.mybmw_world import World

_ERROR_REPLY: Final = Reply(body=REMOTE_SERVICE_RESPONSE_ERROR.read_bytes())
_FINDER: Final = "vehicle-finder"
_REMOTE: Final[dict[str, Effect]] = {
    "light-flash": nothing_visible,
    "horn-blow": nothing_visible,
    _FINDER: nothing_visible,
    "door-lock": locked("LOCKED"),
    "door-unlock": locked("UNLOCKED"),
}
_CLIMATE: Final[dict[str, Effect]] = {"START": climate(on=True), "STOP": climate(on=False)}
_CHARGING: Final[dict[str, Callable[[Car, dict[str, Any]], Effect]]] = {
    "start-charging": lambda _car, _body: charging(on=True),
    "stop-charging": lambda _car, _body: charging(on=False),
    "charging-settings": charging_settings,
    "charging-profile": lambda _car, body: charging_profile(body),
}


def remote_command(world: World, call: Call) -> Reply:
    """``POST /eadrax-vrccs/v4/presentation/remote-commands/{service}``."""
    take_vin(call)
    _json_body(call)
    service = call.params["service"]
    if service == "climate-now":
        require_query(call, "action")
        if call.query["action"] not in _CLIMATE:
            raise Refusal(gateway_error(400, "Not START or STOP: action", parameter="action"))
        return _accept(world, call, service, _CLIMATE[call.query["action"]])
    if service not in _REMOTE:
        raise not_found("There is no such remote service.")
    return _accept(world, call, service, _REMOTE[service])


def charging_command(world: World, call: Call) -> Reply:
    """``POST /eadrax-crccs/v1/vehicles/{vin}/{service}``."""
    call.vin = call.params["vin"]
    body = _json_body(call)
    service = call.params["service"]
    if service not in _CHARGING:
        raise not_found("There is no such charging service.")
    return _accept(world, call, service, _CHARGING[service](world.car(call), body))


def send_to_car(world: World, call: Call) -> Reply:
    """``POST /eadrax-dcs/v2/user/{gcid}/send-to-car``: 201 with no body and no event."""
    account = world.accounts.find(call.username)
    if account is None or call.params["gcid"] != account.gcid:
        raise not_found("There is no such user.")
    body = _json_body(call)
    vehicle = body.get("vehicleInformation")
    call.vin = str(vehicle.get("vin")) if isinstance(vehicle, dict) else ""
    car = world.car(call)
    car.places.append(place(body))
    world.counters.received(call.username, car.vin, "send-to-car")
    world.counters.executed(call.username, car.vin, "send-to-car")
    return Reply(201)


def event_status(world: World, call: Call) -> Reply:
    """``POST /eadrax-vrccs/v3/presentation/remote-commands/eventStatus?eventId=``."""
    command = _own_command(world, call)
    status = world.commands.poll(command, world.clock.monotonic(), world.settings.event_step_s)
    return _ERROR_REPLY if status == ERROR else json_reply({"eventStatus": status})


def event_position(world: World, call: Call) -> Reply:
    """``POST /eadrax-vrccs/v4/presentation/remote-commands/eventPosition?eventId=``: where the finder found it."""
    require_headers(call, "latitude", "longitude")
    command = _own_command(world, call)
    world.settle()
    location = command.car.documents.state.get("location")
    if command.service != _FINDER or command.outcome != EXECUTED or location is None:
        details = {"title": "Unknown position", "description": "The position of the vehicle is not known."}
        return json_reply({"positionData": None, "errorDetails": details})
    position = {
        **location["coordinates"],
        "formattedAddress": location["address"]["formatted"],
        "heading": location["heading"],
    }
    return json_reply({"positionData": {"status": "OK", "position": position}, "errorDetails": None})


def _accept(world: World, call: Call, service: str, effect: Effect) -> Reply:
    command = world.commands.send(
        call.username, world.car(call), service, effect, world.clock.monotonic(), call.outcome
    )
    call.event_id = command.event_id
    return json_reply({"creationTime": iso_milliseconds(world.clock.utc()), "eventId": command.event_id})


def _own_command(world: World, call: Call) -> Command:
    require_query(call, "eventId")
    command = world.commands.find(call.query["eventId"])
    if command is None or command.username != call.username:
        raise not_found("There is no such event.")
    return command


def _json_body(call: Call) -> dict[str, Any]:
    if not call.headers.get("content-type", "").startswith("application/json"):
        raise Refusal(gateway_error(400, "Not JSON: content-type", header="content-type"))
    return call.json_object()
