"""Reads: each a projection of the one snapshot, except the vehicle list and the pictures."""

from collections.abc import Callable, Mapping
from typing import Any

from common.cache import Hit
from common.callers import Scope
from functions.actions import shapes
from functions.actions.spec import (
    ActionSpec,
    Answer,
    Call,
    Handler,
    Kind,
    Services,
    Source,
    Target,
    found_link,
    found_vehicle,
)
from functions.contract import Envelope, ImageParams, ReadParams, Units
from functions.snapshot import Snapshot
from functions.vehicles import Freshness

Projection = Callable[[Snapshot, Units], shapes.Shape]


def freshness(envelope: Envelope) -> Freshness:
    """What the request says about the age of its data."""
    return Freshness(0 if envelope.fresh else envelope.max_age_s, envelope.cache_only, is_callers=True)


def source(hit: Hit[Snapshot], quota: Mapping[str, Any] | None = None) -> Source:
    """Where a snapshot comes from."""
    return Source(not hit.loaded, hit.stale, hit.value.fetched_at, hit.value.measured_at, hit.age_s, quota)


async def _read_snapshot(services: Services, call: Call, project: Projection) -> Answer:
    link, vehicle, wanted = found_link(call), found_vehicle(call), freshness(call.envelope)
    if call.params.explain:
        return Answer({"explain": await services.vehicles.explain(link, vehicle, wanted)})
    hit = await services.vehicles.snapshot(link, vehicle, wanted)
    quota = await services.vehicles.quota(link)
    return Answer(project(hit.value, call.envelope.units).result(), source=source(hit, quota))


def _of_snapshot(project: Projection) -> Handler:
    async def handle(services: Services, call: Call) -> Answer:
        return await _read_snapshot(services, call, project)

    return handle


async def _status(services: Services, call: Call) -> Answer:
    with_location = Scope.LOCATION in call.caller.scopes
    return await _read_snapshot(
        services, call, lambda snapshot, units: shapes.status(snapshot, units, with_location=with_location)
    )


async def _vehicles(services: Services, call: Call) -> Answer:
    link = found_link(call)
    asked_at = services.clock.utc()
    listed = await services.vehicles.list(link, freshness(call.envelope))
    age_s = max(0.0, (services.clock.utc() - listed.listed_at).total_seconds())
    shown = [
        {
            "vin": vehicle.vin,
            "brand": vehicle.brand,
            "name": vehicle.name,
            "drivetrain": vehicle.drivetrain,
            "capabilities": services.vehicles.known_capabilities(link, vehicle),
        }
        for vehicle in listed.vehicles
    ]
    unread = [f"vehicles.{i}.capabilities" for i, vehicle in enumerate(shown) if vehicle["capabilities"] is None]
    reasons = dict.fromkeys(unread, "known once the vehicle has been read")
    result = {"vehicles": shown, "count": len(shown), "unavailable": reasons}
    return Answer(
        result,
        source=Source(
            cached=listed.listed_at < asked_at,
            stale=False,
            fetched_at=listed.listed_at,
            measured_at=None,
            age_s=age_s,
        ),
    )


async def _image(services: Services, call: Call) -> Answer:
    hit = await services.vehicles.image(found_link(call), found_vehicle(call), call.params.view)
    return Answer(png=hit.value)


def _read(name: str, summary: str, project: Projection, scope: Scope = Scope.READ) -> ActionSpec:
    return ActionSpec(
        name, Kind.READ, scope, Target.VEHICLE, summary, _of_snapshot(project), ReadParams, cacheable=True
    )


READS = (
    ActionSpec("vehicles", Kind.READ, Scope.READ, Target.ACCOUNT, "The account's vehicles.", _vehicles, cacheable=True),
    ActionSpec(
        "status",
        Kind.READ,
        Scope.READ,
        Target.VEHICLE,
        "Everything the car reports.",
        _status,
        ReadParams,
        cacheable=True,
    ),
    _read("fuel", "Fuel, battery and range.", shapes.fuel),
    _read("location", "Where the car last said it was.", shapes.location, Scope.LOCATION),
    _read("mileage", "The odometer.", shapes.mileage),
    _read("lock_status", "Locks, doors, lids and windows.", shapes.lock_status),
    _read("is_locked", "Whether the car is locked, in one word.", shapes.is_locked),
    _read("check_control", "Warnings on the dashboard.", shapes.check_control),
    _read("charging", "The charging session and its settings.", shapes.charging),
    _read("climate_status", "Air conditioning while parked.", shapes.climate_status),
    _read("tires", "Tire pressures.", shapes.tires),
    _read("service", "What is due at the workshop.", shapes.service),
    _read("capabilities", "What can be asked of this car.", shapes.capabilities),
    ActionSpec(
        "image",
        Kind.READ,
        Scope.READ,
        Target.VEHICLE,
        "A rendered picture of the car, PNG.",
        _image,
        ImageParams,
        cacheable=True,
        example={"view": "front_side"},
    ),
)
