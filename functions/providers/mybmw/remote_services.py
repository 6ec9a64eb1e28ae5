"""Commands: each sent once, its outcome asked for apart.

The library's ``trigger_*`` block for up to 240 s, read the whole account again after a success, and call a timeout what
they call a failure. Here its request is used, and nothing that it does afterwards.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any
from urllib.parse import quote

from bimmer_connected.api.client import MyBMWClient
from bimmer_connected.models import PointOfInterest, PointOfInterestAddress
from bimmer_connected.vehicle.charging_profile import ChargingMode
from bimmer_connected.vehicle.remote_services import RemoteServices, RemoteServiceStatus, Services

from common.errors import ApiError
from common.loops import needs_loop
from functions.providers.mybmw import checks
from functions.providers.mybmw.auth_manager import AuthManager
from functions.providers.mybmw.charging_plan import load_charging_profile
from functions.providers.mybmw.failures import BMWInvalidReply, BMWRelinkRequired, translated
from functions.providers.mybmw.fields import Fields, Notes
from functions.providers.mybmw.mapping import position_of
from functions.providers.mybmw.session import Session
from functions.providers.mybmw.transport import sending
from functions.providers.mybmw.vehicle_manager import RawVehicle, raw_vehicle
from functions.providers.port import Account, Command, CommandName, Outcome, Progress, Receipt, SendPermit, Vehicle
from functions.snapshot import Snapshot

_SERVICES: Mapping[CommandName, tuple[Services, dict[str, str] | None]] = {
    CommandName.LOCK: (Services.DOOR_LOCK, None),
    CommandName.UNLOCK: (Services.DOOR_UNLOCK, None),
    CommandName.FLASH: (Services.LIGHT_FLASH, None),
    CommandName.HORN: (Services.HORN, None),
    CommandName.AC: (Services.AIR_CONDITIONING, {"action": "START"}),
    CommandName.AC_OFF: (Services.AIR_CONDITIONING, {"action": "STOP"}),
    CommandName.CHARGE_START: (Services.CHARGE_START, None),
    CommandName.CHARGE_STOP: (Services.CHARGE_STOP, None),
    CommandName.FIND: (Services.VEHICLE_FINDER, None),
}

_OUTCOMES = {
    "EXECUTED": (Outcome.EXECUTED, None),
    "DELIVERED": (Outcome.DELIVERED, None),
    "ERROR": (Outcome.FAILED, "BMW reports that the command failed."),
    "IGNORED": (Outcome.FAILED, "BMW reports that the vehicle ignored the command."),
}
"""INITIATED, PENDING, UNKNOWN and words never seen are all pending: none of them says that the command has ended."""

_Send = Callable[[], Awaitable[RemoteServiceStatus]]


class _SendOnce(RemoteServices):
    """The library's remote services up to the moment when BMW has answered the command."""

    async def trigger_remote_service(
        self,
        service_id: Services,
        params: dict[str, Any] | None = None,
        data: object = None,
        refresh: bool = False,  # noqa: ARG002 - the library's signature
    ) -> RemoteServiceStatus:
        """Send a command, and never read the whole account again afterwards."""
        return await super().trigger_remote_service(service_id, params, data)

    async def _block_until_done(self, _client: MyBMWClient, event_id: str) -> RemoteServiceStatus:
        """Do not block: asking for the outcome is :meth:`RemoteServiceManager.poll`'s."""
        return RemoteServiceStatus({}, event_id)


class RemoteServiceManager:
    """Implements :class:`functions.providers.port.SendCommands`."""

    def __init__(self, auth: AuthManager) -> None:
        self._auth = auth

    def check(self, command: Command, snapshot: Snapshot) -> None:
        """Refuse what cannot work, before anything is sent: see :func:`.checks.check`."""
        checks.check(command, snapshot)

    async def send(self, account: Account, vehicle: Vehicle, command: Command, permit: SendPermit) -> Receipt:
        """Send the command's one request.

        Raises BMW's failures; ``may_have_succeeded`` is set wherever the request left and the answer does not prove
        a refusal (no answer, a broken one, 5xx).
        """
        await needs_loop()
        session = self._auth.session(account)
        with translated():
            # Tokens are renewed, and what is to be changed is read, before the permit's time begins to matter.
            await session.authentication.ready()
            send = await _prepared(raw_vehicle(session, vehicle), command)
        if session.gcid is None:
            raise BMWRelinkRequired
        with sending(permit) as passage:
            try:
                with translated():
                    status = await send()
                return _receipt(command, status.event_id)
            except ApiError as failure:
                failure.may_have_succeeded = passage.in_doubt
                raise

    async def poll(self, account: Account, vehicle: Vehicle, command: Command, event_id: str) -> Progress:
        """Ask where a command stands; for a ``find`` that was carried out, also where the car is."""
        await needs_loop()
        session = self._auth.session(account)
        with translated():
            services = RemoteServices(raw_vehicle(session, vehicle))
            status = await services._get_remote_service_status(quote(event_id, safe=""))
            word = status.details.get("eventStatus")
        outcome, note = _OUTCOMES.get(str(word).upper(), (Outcome.PENDING, None))
        if command.name is CommandName.FIND and outcome is Outcome.EXECUTED:
            return await _found(account, session, vehicle, command, event_id)
        return Progress(outcome, note=note)


async def _prepared(raw: RawVehicle, command: Command) -> _Send:
    """Everything but the command's own request; awaiting what is returned sends it."""
    services, params = _SendOnce(raw), command.params
    if command.name is CommandName.CHARGING_PROFILE:
        mode = params.get("charging_mode")
        await load_charging_profile(raw, sets_mode=mode is not None)
        return lambda: services.trigger_charging_profile_update(
            ChargingMode(mode) if mode else None, params.get("precondition_climate")
        )
    if command.name is CommandName.CHARGING_SETTINGS:
        return lambda: services.trigger_remote_service(Services.CHARGING_SETTINGS, data=_settings(params))
    if command.name is CommandName.SEND_POI:
        return lambda: services.trigger_remote_service(Services.SEND_POI, data=_destination(raw.vin, params))
    service, query = _SERVICES[command.name]
    return lambda: services.trigger_remote_service(service, query)


def _settings(params: Mapping[str, Any]) -> dict[str, Any]:
    """The two settings, each only where it is given: the library posts a null for the other."""
    given = {"chargingTarget": params.get("target_soc"), "acLimitValue": params.get("ac_limit")}
    return {name: value for name, value in given.items() if value is not None}


def _destination(vin: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """A place. The library writes "None" for each part of the address that is missing; it is null here."""
    address: list[Any] = [params.get(part) for part in ("street", "postal_code", "city", "country")]
    place = PointOfInterest(params["latitude"], params["longitude"], None, *address)
    place.title = params.get("name") or place.formattedAddress
    place.address = PointOfInterestAddress(*address)
    return {"places": [asdict(place)], "vehicleInformation": {"vin": vin}}


def _receipt(command: Command, event_id: object) -> Receipt:
    if event_id is not None:
        if not isinstance(event_id, str):
            raise BMWInvalidReply
        return Receipt(Outcome.ACCEPTED, event_id)
    if command.name is CommandName.SEND_POI:
        return Receipt(Outcome.DELIVERED, note="BMW has taken the destination; it does not say when the car has it.")
    # The library calls this "executed".
    return Receipt(Outcome.UNKNOWN, note="BMW answered without an event to ask about, so the outcome is not known.")


async def _found(account: Account, session: Session, vehicle: Vehicle, command: Command, event_id: str) -> Progress:
    """Where the car is, which BMW tells only to somebody who says where he is himself."""
    latitude, longitude = command.params.get("latitude"), command.params.get("longitude")
    if latitude is None or longitude is None:
        return Progress(
            Outcome.EXECUTED, note="BMW tells where the car is only if the command carries latitude and longitude."
        )
    with translated():
        services = RemoteServices(raw_vehicle(session.seen_from(latitude, longitude), vehicle))
        answer: Any = await services._get_event_position(quote(event_id, safe=""))
    notes = Notes()
    part = Fields(answer if isinstance(answer, dict) else {}, notes).part("positionData", "position")
    position = part.part("position", "position")
    found = position_of(
        position,
        heading_deg=position.whole("heading", "position", 0, 360),
        region=account.region,
        measured_at=None,
    )
    return Progress(Outcome.EXECUTED, found, note=None if found else "BMW does not know where the car is.")
