"""What some makers have on record beside the car's state: past charges, tyre wear, charging settings by place.

Each costs a rationing maker's request of its own and changes seldom, so it is kept: charges for an hour, the rest as
long as pictures.
"""

from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import orjson

from common.callers import Scope
from common.errors import NotSupported, ValidationFailed
from common.loops import needs_loop
from functions.actions.shapes import quantity
from functions.actions.spec import ActionSpec, Answer, Call, Kind, Services, Source, Target, found_link, found_vehicle
from functions.contract import MAX_HISTORY_DAYS, ChargingHistoryParams, Units
from functions.providers.port import ChargingHistory, ChargingSession, Provider, TyreWear
from functions.vehicles import Freshness

T = TypeVar("T")

USUAL_SPAN: Final = timedelta(days=30)
MAX_SPAN: Final = timedelta(days=MAX_HISTORY_DAYS)
CHARGES_KEPT_S: Final = 3_600.0
NO_SCOPE: Final = "the caller lacks the scope `location`"
_NOT_TOLD: Final = "the maker did not tell it"
_POSITIONS: Final = ("front_left", "front_right", "rear_left", "rear_right")


async def _charging_history(services: Services, call: Call) -> Answer:
    charges = _offered(_provider(services, call), lambda provider: provider.charges, "charging history")
    params: ChargingHistoryParams = call.params
    start, end = _span(params, services.clock.utc())
    link, vehicle = found_link(call), found_vehicle(call)
    with_location = Scope.LOCATION in call.caller.scopes

    async def load() -> dict[str, Any]:
        found = await charges.charging_history(link.account, vehicle, start, end)
        return {**_as_json(found), "from": start, "to": end}

    # What is asked up to now is kept under what was said and not under the moment at which it was.
    name = f"charging_history {params.start and params.start.timestamp()} {params.end and params.end.timestamp()}"
    return await _answered(
        services,
        call,
        name,
        load,
        lambda kept: _history(kept, call.envelope.units, with_location=with_location),
        CHARGES_KEPT_S,
    )


def _span(params: ChargingHistoryParams, now: datetime) -> tuple[datetime, datetime]:
    end = params.end or now
    start = params.start or end - USUAL_SPAN
    if not start <= end <= start + MAX_SPAN:
        problem = f"is not between `from` and {MAX_HISTORY_DAYS} days later"
        raise ValidationFailed(details={"fields": [{"path": "params.to", "problem": problem}]})
    return start.astimezone(UTC), end.astimezone(UTC)


def _as_json(history: ChargingHistory) -> dict[str, Any]:
    names = ChargingSession.__slots__
    sessions = [{name: getattr(session, name) for name in names} for session in history.sessions]
    return {"sessions": sessions, "is_complete": history.is_complete, "note": history.note}


def _history(kept: Mapping[str, Any], units: Units, *, with_location: bool) -> dict[str, Any]:
    unavailable: dict[str, str] = {}
    shown = []
    for position, session in enumerate(kept["sessions"]):
        fields = {
            "started_at": session["started_at"],
            "ended_at": session["ended_at"],
            "start_percent": session["start_percent"],
            "end_percent": session["end_percent"],
            "energy": _quantity(session["energy_kwh"], "kWh", units),
            "mileage": _quantity(session["mileage_km"], "km", units),
            "place": session["place"] if with_location else None,
        }
        unavailable |= {f"sessions.{position}.{name}": _NOT_TOLD for name, value in fields.items() if value is None}
        if not with_location:
            unavailable[f"sessions.{position}.place"] = NO_SCOPE
        shown.append(fields)
    return {
        "from": kept["from"],
        "to": kept["to"],
        "sessions": shown,
        "count": len(shown),
        "is_complete": kept["is_complete"],
        "note": kept["note"],
        "unavailable": unavailable,
    }


async def _tyre_diagnosis(services: Services, call: Call) -> Answer:
    tyres = _offered(_provider(services, call), lambda provider: provider.tyres, "tyre diagnosis")

    async def load() -> dict[str, Any]:
        found = await tyres.tyre_diagnosis(found_link(call).account, found_vehicle(call))
        return {
            position: {name: getattr(wear, name) for name in TyreWear.__slots__} for position, wear in found.items()
        }

    return await _answered(services, call, "tyre_diagnosis", load, lambda kept: _tyres(kept, call.envelope.units))


def _tyres(kept: Mapping[str, Any], units: Units) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    unavailable: dict[str, str] = {}
    for position in _POSITIONS:
        wear = kept.get(position)
        if wear is None:
            shown[position] = None
            unavailable[position] = "the maker has no diagnosis of it"
            continue
        fields = {
            "label": wear["label"],
            "remaining_distance": _quantity(wear["due_mileage_km"], "km", units),
            "color": wear["color"],
        }
        shown[position] = fields
        unavailable |= {f"{position}.{name}": _NOT_TOLD for name, value in fields.items() if value is None}
    return {**shown, "unavailable": unavailable}


async def _charging_settings_by_place(services: Services, call: Call) -> Answer:
    places = _offered(
        _provider(services, call), lambda provider: provider.charging_places, "charging settings by place"
    )

    async def load() -> dict[str, Any]:
        found = await places.charging_settings_by_place(found_link(call).account, found_vehicle(call))
        return {"places": [dict(place) for place in found], "count": len(found), "unavailable": {}}

    return await _answered(services, call, "charging_settings_by_place", load, dict)


def _provider(services: Services, call: Call) -> Provider:
    return services.providers.get(found_link(call).account.provider)


def _offered(provider: Provider, capability: Callable[[Provider], T | None], what: str) -> T:
    offered = capability(provider)
    if offered is None:
        raise NotSupported(f"{provider.name} has no {what}.")
    return offered


def _quantity(value: float | None, unit: str, units: Units) -> dict[str, Any] | None:
    return None if value is None else quantity(value, unit, units)


async def _answered(
    services: Services,
    call: Call,
    name: str,
    load: Callable[[], Coroutine[Any, Any, dict[str, Any]]],
    show: Callable[[Mapping[str, Any]], dict[str, Any]],
    kept_s: float | None = None,
) -> Answer:
    """What was kept, or is asked for now; ``kept_s`` is how long it may be kept where the caller does not say."""
    link, vehicle, envelope = found_link(call), found_vehicle(call), call.envelope

    async def load_bytes() -> bytes:
        await needs_loop()
        return orjson.dumps(await load())

    max_age_s = 0 if envelope.fresh else kept_s if envelope.max_age_s is None else envelope.max_age_s
    hit = await services.vehicles.records(link, vehicle, name, load_bytes, Freshness(max_age_s, envelope.cache_only))
    source = Source(
        cached=not hit.loaded,
        stale=hit.stale,
        fetched_at=services.clock.utc() - timedelta(seconds=hit.age_s),
        measured_at=None,
        age_s=hit.age_s,
        quota=await services.vehicles.quota(link),
    )
    return Answer(show(orjson.loads(hit.value)), source=source)


RECORDS = (
    ActionSpec(
        "charging_history",
        Kind.READ,
        Scope.READ,
        Target.VEHICLE,
        "Past charges, newest first; their places only for who has the scope `location`.",
        _charging_history,
        ChargingHistoryParams,
        cacheable=True,
        example={"from": "2026-01-01T00:00:00Z", "to": "2026-01-31T00:00:00Z"},
    ),
    ActionSpec(
        "tyre_diagnosis",
        Kind.READ,
        Scope.READ,
        Target.VEHICLE,
        "How worn the tyres are.",
        _tyre_diagnosis,
        cacheable=True,
    ),
    ActionSpec(
        "charging_settings_by_place",
        Kind.READ,
        Scope.LOCATION,
        Target.VEHICLE,
        "How the car charges at each place that it knows, as the maker words it.",
        _charging_settings_by_place,
        cacheable=True,
    ),
)
"""Rows of what few makers offer; the others answer NOT_SUPPORTED."""
