"""Reading: the customer's cars, the state of one, its picture, its past charges, its tyres."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from common.clock import Clock
from common.errors import ApiError, NotSupported, RelinkRequired, StoreUnavailable, ValidationFailed, VehicleNotFound
from common.loops import needs_loop
from functions.providers.cardata import descriptors as d
from functions.providers.cardata.containers import ContainerBook
from functions.providers.cardata.failures import (
    NO_PICTURE,
    CarDataBusy,
    CarDataInvalidReply,
    CarDataMisunderstood,
    CarDataQuotaExceeded,
    CarDataRefused,
    CarDataTimeout,
    CarDataUnavailable,
    ContainerGone,
    NoData,
    PageExpired,
)
from functions.providers.cardata.garage import to_mappings, to_profile, to_vehicle
from functions.providers.cardata.garage_store import Garage, GarageBook, Profile
from functions.providers.cardata.history import MAX_SPAN, to_page, to_settings, to_tyres
from functions.providers.cardata.mapping import to_snapshot
from functions.providers.cardata.rest import Rest, json_of, object_of
from functions.providers.cardata.signals import Signal, Signals, SignalStore, mark, merge, received
from functions.providers.port import Account, ChargingHistory, ChargingSession, TyreWear, Vehicle
from functions.snapshot import Snapshot

IMAGE_VIEWS: Final = ("front_side",)
"""BMW has one picture of a car, from the front and the side."""

_CAR: Final = "/customers/vehicles/{vin}"
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_PASSING: Final = (CarDataUnavailable, CarDataTimeout, CarDataInvalidReply, CarDataQuotaExceeded)

_COST_NOTHING: Final = (CarDataQuotaExceeded, CarDataBusy, RelinkRequired, StoreUnavailable)

Spent = Callable[[Account, Vehicle], None]


class VehicleManager:
    """Implements the port's ReadVehicles, ReadImages, ReadCharges, ReadTyres and ReadChargingPlaces.

    Everything raises CarData's failures (:mod:`.failures`), StoreUnavailable, and about one car VehicleNotFound. Each
    method says what it costs of the customer's day; ``forced`` may spend the reserve.
    """

    def __init__(
        self,
        rest: Rest,
        containers: ContainerBook,
        garages: GarageBook,
        signals: SignalStore,
        clock: Clock,
        *,
        spent: Spent = lambda _account, _vehicle: None,
    ) -> None:
        self._rest = rest
        self._containers = containers
        self._garages = garages
        self._signals = signals
        self._clock = clock
        self._spent = spent

    async def list_vehicles(self, account: Account, *, forced: bool = False) -> tuple[Vehicle, ...]:
        """The customer's cars: none to one request a week, and one a car and month; one at least where ``forced``.

        A car whose master data cannot be had now is listed without them.
        """
        await needs_loop()
        now = self._clock.utc()
        garage = known = await self._garages.load(account.id)
        if forced or not garage.is_listed(now):
            answer = json_of(await self._rest.get(account, "/customers/vehicles/mappings", is_forced=forced))
            garage = known = replace(garage, vins=to_mappings(answer), listed_at=now)
            # At once: whatever becomes of the master data, the list is paid for.
            await self._garages.save(account.id, garage)
        profiles = {vin: profile for vin, profile in garage.profiles.items() if vin in garage.vins}
        for vin in garage.vins:
            if not garage.is_profiled(vin, now):
                profile = await self._profile(account, vin, is_forced=forced)
                if profile is not None:
                    profiles[vin] = Profile(profile, now)
        garage = Garage(garage.vins, garage.listed_at, profiles)
        if garage != known:
            await self._garages.save(account.id, garage)
        return tuple(to_vehicle(vin, profiles[vin].data if vin in profiles else {}) for vin in garage.vins)

    async def read_vehicle(self, account: Account, vehicle: Vehicle, *, forced: bool = False) -> Snapshot:
        """What BMW knows of the car now: one request, and the first time one or two more for the container."""
        await needs_loop()
        try:
            incoming = await self._telematic_data(account, vehicle, is_forced=forced)
        except ApiError as failure:
            if not isinstance(failure, _COST_NOTHING):
                await self._note(account, vehicle, d.FAILED)
            raise
        finally:
            self._spent(account, vehicle)
        now = self._clock.utc()
        try:
            signals = await self._signals.upsert(account.id, vehicle.vin, {**incoming, d.READ: mark(now)})
        except StoreUnavailable:
            # It is paid for: better without what was known before than not at all.
            signals = merge({}, incoming)
        return to_snapshot(vehicle, signals, fetched_at=now)

    async def recall(self, account: Account, vehicle: Vehicle) -> Snapshot | None:
        """What is known from earlier readings and from the stream, for nothing; ``None`` where nothing is."""
        await needs_loop()
        return recalled(vehicle, await self._signals.load(account.id, vehicle.vin))

    async def read_image(self, account: Account, vehicle: Vehicle, view: str) -> bytes:
        """A PNG: one request a month, also where BMW has none, which is NotSupported.

        Raises ValidationFailed for another view.
        """
        await needs_loop()
        if view not in IMAGE_VIEWS:
            problem = f"is none of {', '.join(IMAGE_VIEWS)}"
            raise ValidationFailed(details={"fields": [{"path": "params.view", "problem": problem}]})
        now = self._clock.utc()
        held = await self._garages.picture(account.id, vehicle.vin, now)
        if held is not None:
            if not held:
                raise NotSupported(NO_PICTURE)
            return held
        try:
            # BMW words its refusals as JSON, so that must be acceptable too.
            accept = "image/png, application/json"
            reply = await self._rest.get(account, f"{_CAR}/image", accept=accept, vin=vehicle.vin)
        except NotSupported:
            await self._garages.save_picture(account.id, vehicle.vin, b"", now)
            raise
        if not reply.body.startswith(_PNG):
            raise CarDataInvalidReply
        await self._garages.save_picture(account.id, vehicle.vin, reply.body, now)
        return reply.body

    async def charging_history(
        self, account: Account, vehicle: Vehicle, start: datetime, end: datetime, *, max_pages: int = 3
    ) -> ChargingHistory:
        """Charges from ``start`` to ``end``, newest first: a request for each ten.

        What fails after the first page leaves the history incomplete, with a note. Raises ValidationFailed for more
        than 45 days.
        """
        await needs_loop()
        if not start <= end <= start + MAX_SPAN:
            problem = f"is not between `from` and {MAX_SPAN.days} days later"
            raise ValidationFailed(details={"fields": [{"path": "params.to", "problem": problem}]})
        query = {"from": _iso(start), "to": _iso(end)}
        found: list[ChargingSession] = []
        for requests in range(1, max_pages + 1):
            try:
                page, token = to_page(await self._object(account, f"{_CAR}/chargingHistory", vehicle, query))
            except (*_PASSING, CarDataMisunderstood, PageExpired) as failure:
                if requests > 1:
                    return ChargingHistory(tuple(found), False, _why_partial(failure), requests)
                if isinstance(failure, PageExpired):
                    raise CarDataInvalidReply from failure
                raise
            except NoData:
                return ChargingHistory(tuple(found), True, None, requests)
            found += page
            if token is None:
                return ChargingHistory(tuple(found), True, None, requests)
            query["nextToken"] = token
        note = f"There are more charges than {max_pages} requests bring."
        return ChargingHistory(tuple(found), False, note, max_pages)

    async def tyre_diagnosis(self, account: Account, vehicle: Vehicle) -> Mapping[str, TyreWear]:
        """Wear by position; empty where BMW has no diagnosis. One request."""
        await needs_loop()
        try:
            return to_tyres(await self._object(account, f"{_CAR}/smartMaintenanceTyreDiagnosis", vehicle))
        except NoData:
            return {}

    async def charging_settings_by_place(self, account: Account, vehicle: Vehicle) -> tuple[Mapping[str, Any], ...]:
        """Charging settings as BMW words them, one object a place, which it names by its coordinates. One request."""
        await needs_loop()
        try:
            return to_settings(await self._object(account, f"{_CAR}/locationBasedChargingSettings", vehicle))
        except NoData:
            return ()

    async def _profile(self, account: Account, vin: str, *, is_forced: bool) -> dict[str, Any] | None:
        try:
            return to_profile(
                object_of(await self._rest.get(account, f"{_CAR}/basicData", is_forced=is_forced, vin=vin))
            )
        except _PASSING:
            return None
        except (NoData, VehicleNotFound, CarDataRefused, CarDataMisunderstood):
            # Kept as it is: the next look would be refused, and charged, too.
            return {}

    async def _telematic_data(self, account: Account, vehicle: Vehicle, *, is_forced: bool) -> dict[str, Signal]:
        async def ask(container_id: str) -> dict[str, Signal]:
            query = {"containerId": container_id}
            try:
                answer = await self._object(account, f"{_CAR}/telematicData", vehicle, query, is_forced=is_forced)
            except NoData:
                return {}
            data = answer.get("telematicData")
            if not isinstance(data, dict):
                raise CarDataInvalidReply
            return received(data, at=self._clock.utc(), via="rest")

        return await self._with_container(account, ask, is_forced=is_forced)

    async def _with_container(
        self, account: Account, ask: Callable[[str], Awaitable[dict[str, Signal]]], *, is_forced: bool
    ) -> dict[str, Signal]:
        container_id = await self._containers.get(account, is_forced=is_forced)
        try:
            return await ask(container_id)
        except ContainerGone:
            container_id = await self._containers.renew(account, container_id, is_forced=is_forced)
        try:
            return await ask(container_id)
        except ContainerGone as again:
            raise CarDataMisunderstood from again

    async def _object(
        self,
        account: Account,
        endpoint: str,
        vehicle: Vehicle,
        query: Mapping[str, str] | None = None,
        *,
        is_forced: bool = False,
    ) -> dict[str, Any]:
        reply = await self._rest.get(account, endpoint, query=query, is_forced=is_forced, vin=vehicle.vin)
        return object_of(reply)

    async def _note(self, account: Account, vehicle: Vehicle, name: str) -> None:
        try:
            await self._signals.upsert(account.id, vehicle.vin, {name: mark(self._clock.utc())})
        except StoreUnavailable:
            return  # the failure itself is what the caller must hear of


def recalled(vehicle: Vehicle, signals: Signals) -> Snapshot | None:
    """A snapshot of what is known; ``fetched_at`` is when the last of it came in."""
    times = [signal.received_at for name, signal in signals.items() if not name.startswith(d.OURS) or name == d.READ]
    return to_snapshot(vehicle, signals, fetched_at=max(times)) if times else None


def _why_partial(failure: Exception) -> str:
    if isinstance(failure, CarDataQuotaExceeded):
        return "The customer's requests of today were used up before the end."
    return "BMW failed before the end: older charges are missing."


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
