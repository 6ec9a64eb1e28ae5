"""Reading: the list of an account's vehicles, the state of one, its picture."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from bimmer_connected.const import ATTR_CHARGING_SETTINGS, VEHICLE_CHARGING_DETAILS_URL, VEHICLE_STATE_URL
from bimmer_connected.vehicle.vehicle import MyBMWVehicle, VehicleViewDirection

from common.clock import Clock
from common.errors import ValidationFailed
from common.loops import needs_loop
from functions.providers.mybmw.auth_manager import AuthManager
from functions.providers.mybmw.failures import BMWInvalidReply, translated
from functions.providers.mybmw.mapping import to_snapshot, to_vehicle
from functions.providers.mybmw.session import PooledClient, Session
from functions.providers.port import Account, Vehicle
from functions.snapshot import Snapshot

IMAGE_VIEWS: Mapping[str, VehicleViewDirection] = MappingProxyType(
    {
        "front_side": VehicleViewDirection.FRONTSIDE,
        "front": VehicleViewDirection.FRONT,
        "side": VehicleViewDirection.SIDE,
        "dashboard": VehicleViewDirection.DASHBOARD,
        "driver_door": VehicleViewDirection.DRIVERDOOR,
        "front_left": VehicleViewDirection.FRONT_LEFT,
        "front_right": VehicleViewDirection.FRONT_RIGHT,
        "rear_left": VehicleViewDirection.REAR_LEFT,
        "rear_right": VehicleViewDirection.REAR_RIGHT,
        "rear": VehicleViewDirection.REAR_VIEW,
        "angle_40": VehicleViewDirection.ANGLE_SIDE_VIEW_FORTY,
        "angle_60": VehicleViewDirection.ANGLE_SIDE_VIEW_SIXTY,
    }
)
"""BMW's camera positions by the contract's names."""

_REMEMBERED_CARS = 10_000

_PNG = b"\x89PNG\r\n\x1a\n"


class RawVehicle(MyBMWVehicle):
    """The library's vehicle as far as it fetches; what it fetched is kept as it came, for :mod:`.mapping`."""

    def update_state(self, data: dict[str, Any] | list[dict[str, Any]], fetched_at: datetime | None = None) -> None:
        """Keep the answers. The library's parsers guess where nothing was reported, and raise where it is odd."""
        self.data = self.combine_data(data, fetched_at)

    async def read_both(self, *, has_settings: bool) -> None:
        """State and charging settings at once, for a car that is known to have both; the library asks in turn."""
        read_at = datetime.now(UTC).replace(microsecond=0)
        async with PooledClient(self.account.config, brand=self.brand) as client:
            state, settings = await asyncio.gather(
                client.get(
                    VEHICLE_STATE_URL,
                    params={"apptimezone": 0, "appDateTime": int(read_at.timestamp() * 1000)},
                    headers={**client.generate_default_header(self.brand), "bmw-vin": self.vin},
                ),
                client.get(
                    VEHICLE_CHARGING_DETAILS_URL,
                    params={"fields": "charging-profile", "has_charging_settings_capabilities": has_settings},
                    headers={
                        **client.generate_default_header(self.brand),
                        "bmw-current-date": read_at.isoformat(),
                        "bmw-vin": self.vin,
                    },
                ),
            )
        self.update_state([state.json(), {ATTR_CHARGING_SETTINGS: settings.json()}], read_at)


def raw_vehicle(session: Session, vehicle: Vehicle) -> RawVehicle:
    """The library's vehicle without any request: all that it needs is a VIN and a profile."""
    # The library knows three brands and fails on any other; to their servers any other car is a BMW.
    brand = vehicle.brand if vehicle.brand in ("BMW", "MINI", "TOYOTA") else "BMW"
    return RawVehicle(session, {"vin": vehicle.vin, "attributes": {**vehicle.profile, "brand": brand}})


class _Listing(Session):
    """The library's account while it lists vehicles: takes each down, and asks nothing about its state."""

    def __init__(self, session: Session) -> None:
        super().__init__(session.authentication)
        self.found: dict[str, Vehicle] = {}

    async def add_vehicle(self, vehicle_base: dict[str, Any], fetched_at: datetime | None = None) -> None:  # noqa: ARG002 - the library's signature
        """Take a vehicle down; one that is listed under two brands counts once."""
        vehicle = to_vehicle(vehicle_base["vin"], vehicle_base["attributes"])
        self.found.setdefault(vehicle.vin, vehicle)


class VehicleManager:
    """Implements :class:`functions.providers.port.ReadVehicles` and :class:`functions.providers.port.ReadImages`.

    Everything raises BMW's failures (:mod:`.failures`), and about one car VehicleNotFound.
    """

    def __init__(self, auth: AuthManager, clock: Clock) -> None:
        self._auth = auth
        self._clock = clock
        self._has_settings: dict[tuple[str, str], bool] = {}
        """What the last read of a car with a charging plan said of its charging settings, by account and VIN."""

    async def list_vehicles(self, account: Account, *, forced: bool = False) -> tuple[Vehicle, ...]:  # noqa: ARG002
        """The account's vehicles: three requests, and one for each vehicle."""
        await needs_loop()
        listing = _Listing(self._auth.session(account))
        with translated():
            await listing._init_vehicles()
        return tuple(listing.found.values())

    async def read_vehicle(self, account: Account, vehicle: Vehicle, *, forced: bool = False) -> Snapshot:  # noqa: ARG002
        """The state of one car, read now: one request, and one more for a car that has a charging plan.

        Both at once where an earlier read has shown that there is one: it saves a round trip.
        """
        await needs_loop()
        raw = raw_vehicle(self._auth.session(account), vehicle)
        key = (account.id, vehicle.vin)
        # Forgotten until this read has succeeded: one that fails is followed by one that asks in turn.
        has_settings = self._has_settings.pop(key, None)
        with translated():
            if has_settings is None:
                await raw.get_vehicle_state()
            else:
                await raw.read_both(has_settings=has_settings)
            if raw.is_charging_plan_supported or raw.is_charging_settings_supported:
                self._remember(key, raw.is_charging_settings_supported)
        return to_snapshot(vehicle, raw.data, fetched_at=self._clock.utc(), region=account.region)

    def _remember(self, key: tuple[str, str], has_settings: bool) -> None:
        if len(self._has_settings) >= _REMEMBERED_CARS:
            del self._has_settings[next(iter(self._has_settings))]
        self._has_settings[key] = has_settings

    async def read_image(self, account: Account, vehicle: Vehicle, view: str) -> bytes:
        """A PNG of the car as ``view`` shows it, one of :data:`IMAGE_VIEWS`. Raises ValidationFailed for another."""
        await needs_loop()
        if view not in IMAGE_VIEWS:
            problem = f"is none of {', '.join(IMAGE_VIEWS)}"
            raise ValidationFailed(details={"fields": [{"path": "params.view", "problem": problem}]})
        raw = raw_vehicle(self._auth.session(account), vehicle)
        with translated():
            picture: bytes = await raw.get_vehicle_image(IMAGE_VIEWS[view])
        if not picture.startswith(_PNG):
            raise BMWInvalidReply
        return picture
