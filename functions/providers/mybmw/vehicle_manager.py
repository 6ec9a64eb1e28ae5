"""Reading: the list of an account's vehicles, the state of one, its picture."""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any

from bimmer_connected.vehicle.vehicle import MyBMWVehicle, VehicleViewDirection

from common.clock import Clock
from common.errors import ValidationFailed
from common.loops import needs_loop
from functions.providers.mybmw.auth_manager import AuthManager
from functions.providers.mybmw.failures import BMWInvalidReply, translated
from functions.providers.mybmw.mapping import to_snapshot, to_vehicle
from functions.providers.mybmw.session import Session
from functions.providers.port import Account, Vehicle
from functions.snapshot import Snapshot

IMAGE_VIEWS: Mapping[str, VehicleViewDirection] = MappingProxyType(
    {view.name.lower(): view for view in VehicleViewDirection if view is not VehicleViewDirection.UNKNOWN}
)
"""BMW's camera positions by our names: ``front``, ``rear_left``, ``dashboard`` ..."""

_PNG = b"\x89PNG\r\n\x1a\n"


class RawVehicle(MyBMWVehicle):
    """The library's vehicle as far as it fetches; what it fetched is kept as it came, for :mod:`.mapping`."""

    def update_state(self, data: dict[str, Any] | list[dict[str, Any]], fetched_at: datetime | None = None) -> None:
        """Keep the answers. The library's parsers guess where nothing was reported, and raise where it is odd."""
        self.data = self.combine_data(data, fetched_at)


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

    async def list_vehicles(self, account: Account) -> tuple[Vehicle, ...]:
        """The account's vehicles: three requests, and one for each vehicle."""
        await needs_loop()
        listing = _Listing(self._auth.session(account))
        with translated():
            await listing._init_vehicles()
        return tuple(listing.found.values())

    async def read_vehicle(self, account: Account, vehicle: Vehicle) -> Snapshot:
        """The state of one car, read now: one request, and one more for a car that has a charging plan."""
        await needs_loop()
        raw = raw_vehicle(self._auth.session(account), vehicle)
        with translated():
            await raw.get_vehicle_state()
        return to_snapshot(vehicle, raw.data, fetched_at=self._clock.utc(), region=account.region)

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
