"""Customers, the cars that are mapped to them, and their containers."""

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sandbox.cardata_cars import Timeline, default_timeline
from sandbox.cardata_catalogue import DESCRIPTORS, STREAMABLE
from sandbox.cardata_descriptors import Descriptor, Reading, reading
from sandbox.cardata_scripts import DAY_S, MODELS, Kind, Phase, Script
from sandbox.cardata_time import parse_iso

DEMO_VINS: Final = {"WBA00000000DEMO11": "x1", "WBA00000000DEMO12": "i4", "WBA00000000DEMO13": "x3"}
CONTAINERS_MAX: Final = 10
_PURGED_AFTER_S: Final = 29 * DAY_S
_NAMESPACE: Final = uuid.UUID("0f0f3a52-38b6-4d0e-9d8e-5a6b8c1d2e3f")
_OVERRIDE: Final = frozenset({"value", "unit", "timestamp"})


@dataclass(slots=True, eq=False)
class Car:
    """One vehicle. What it says can be bent by hand; what is true of it cannot."""

    vin: str
    timeline: Timeline
    asleep_since_s: float | None = None
    """It has reported nothing since; None: it sleeps as its script says."""
    overrides: dict[str, Mapping[str, Any] | None] = field(default_factory=dict)
    """By descriptor: parts of a reading, or None for a key that is gone."""

    def said(self, descriptor: Descriptor, at_s: float) -> Reading | None:
        """What the car has said of the descriptor by ``at_s``; None where it says nothing of it."""
        if self.asleep_since_s is not None:
            at_s = min(at_s, self.asleep_since_s)
        natural = reading(self.timeline, descriptor, at_s)
        if descriptor.key not in self.overrides:
            return natural
        override = self.overrides[descriptor.key]
        if override is None:
            return None
        usual = natural or Reading(None, descriptor.unit, None)
        return Reading(
            override.get("value", usual.value),
            override.get("unit", usual.unit),
            override.get("timestamp", usual.timestamp),
        )

    def reports(self, after_s: float, until_s: float) -> Iterator[float]:
        """When the car speaks, after ``after_s`` and until ``until_s``."""
        if self.asleep_since_s is not None:
            until_s = min(until_s, self.asleep_since_s)
        return self.timeline.reports(after_s, until_s)

    def patch(self, body: Mapping[str, Any], now_s: float) -> None:
        """Bend what it says: ``asleep`` true or false, ``overrides`` by descriptor. Raises ValueError."""
        if unknown := set(body) - {"asleep", "overrides"}:
            raise ValueError(f"a car has asleep and overrides, not {', '.join(sorted(unknown))}")
        overrides = body.get("overrides", {})
        for key, override in overrides.items():
            if key not in DESCRIPTORS:
                raise ValueError(f"unknown descriptor {key}")
            if override not in ("absent", None) and not (isinstance(override, dict) and set(override) <= _OVERRIDE):
                raise ValueError('an override is "absent", null to drop it, or any of value, unit, timestamp')
        if "asleep" in body:
            self.asleep_since_s = now_s if body["asleep"] is True else None
        for key, override in overrides.items():
            if override is None:
                self.overrides.pop(key, None)
            else:
                self.overrides[key] = None if override == "absent" else override


@dataclass(slots=True, eq=False)
class Container:
    """A choice of descriptors that telematic data is asked for by."""

    container_id: str
    name: str
    purpose: str
    descriptors: tuple[str, ...]
    created_s: float
    deleted_s: float | None = None


@dataclass(slots=True, eq=False)
class Customer:
    """Somebody with cars and a client id of the portal."""

    gcid: str
    client_id: str
    mapped_since_s: float
    vins: dict[str, str] = field(default_factory=dict)
    """VIN -> PRIMARY or SECONDARY. Only the primary user may read."""
    api_subscribed: bool = True
    stream_subscribed: bool = True
    streamed: frozenset[str] = STREAMABLE
    """The descriptors chosen for the stream, in the portal."""
    containers: dict[str, Container] = field(default_factory=dict)

    def may_read(self, vin: str) -> bool:
        """Whether the car is the customer's own."""
        return self.vins.get(vin) == "PRIMARY"

    def purge(self, now_s: float) -> None:
        """Forget containers that were deleted long ago."""
        for container in list(self.containers.values()):
            if container.deleted_s is not None and now_s - container.deleted_s >= _PURGED_AFTER_S:
                del self.containers[container.container_id]

    def active_containers(self) -> list[Container]:
        """Those that count."""
        return [container for container in self.containers.values() if container.deleted_s is None]


class Customers:
    """All customers, and all cars by VIN."""

    def __init__(self, now_s: float) -> None:
        self._by_gcid: dict[str, Customer] = {}
        self._by_client: dict[str, Customer] = {}
        self.cars: dict[str, Car] = {}
        self.demo = self.add(now_s, vins=dict.fromkeys(DEMO_VINS, "PRIMARY"), models=DEMO_VINS)

    def __iter__(self) -> Iterator[Customer]:
        return iter(self._by_gcid.values())

    def find(self, gcid: str) -> Customer | None:
        """The customer of that GCID."""
        return self._by_gcid.get(gcid)

    def of_client(self, client_id: str) -> Customer | None:
        """The customer whose client id it is."""
        return self._by_client.get(client_id)

    def add(
        self,
        now_s: float,
        vins: Mapping[str, str] | None = None,
        models: Mapping[str, str] | None = None,
        gcid: str | None = None,
        client_id: str | None = None,
        scripts: Mapping[str, Script] | None = None,
    ) -> Customer:
        """A new customer; without ``vins`` one with a car of each model.

        ``models`` and ``scripts`` are for VINs not seen before: an i4 that lives a week of work, where they say
        nothing. Raises ValueError where a name is taken or a model unknown.
        """
        number = len(self._by_gcid)
        gcid = gcid or str(uuid.uuid5(_NAMESPACE, f"gcid {number}"))
        client_id = client_id or str(uuid.uuid5(_NAMESPACE, f"client {number}"))
        if gcid in self._by_gcid or client_id in self._by_client:
            raise ValueError("the gcid or client_id is taken")
        if vins is None:
            made = dict(zip(_fleet_vins(number), MODELS, strict=False))
            vins, models = dict.fromkeys(made, "PRIMARY"), made
        for vin in vins:
            if vin not in self.cars:
                self.cars[vin] = self._new_car(vin, (models or {}).get(vin, "i4"), (scripts or {}).get(vin))
        customer = Customer(gcid, client_id, now_s - 90 * DAY_S, dict(vins))
        self._by_gcid[gcid] = self._by_client[client_id] = customer  # two indexes of one customer
        return customer

    def _new_car(self, vin: str, model_key: str, script: Script | None) -> Car:
        if model_key not in MODELS:
            raise ValueError(f"a model is any of {', '.join(MODELS)}")
        number = len(self.cars)
        start_km = 12_000.0 + 40.0 * (number % 50)
        if script is None:
            # The demo cars keep to the hour, the others come and go within one.
            shift_s = 60.0 * (number % 60) if number >= len(DEMO_VINS) else 0.0
            return Car(vin, default_timeline(model_key, shift_s, start_km))
        return Car(vin, Timeline(MODELS[model_key], script, 0.0, start_km))


def _fleet_vins(number: int) -> Iterator[str]:
    return (f"WBA00000000C{number * len(MODELS) + n:05d}" for n in range(len(MODELS)))


def parse_script(body: Mapping[str, Any]) -> Script:
    """``{"period_s", "phases": [{"kind", "start_s", "end_s", "km"?}]}``. Raises ValueError."""
    try:
        phases = tuple(
            Phase(Kind(phase["kind"]), float(phase["start_s"]), float(phase["end_s"]), float(phase.get("km", 0)))
            for phase in body["phases"]
        )
        return Script(float(body["period_s"]), phases)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("a script has period_s and phases of kind, start_s, end_s and km") from error


def parse_streamed(keys: object) -> frozenset[str]:
    """The descriptors to stream; None means all. Raises ValueError for one that cannot be."""
    if keys is None:
        return STREAMABLE
    if not isinstance(keys, list) or not set(keys) <= STREAMABLE:
        raise ValueError("streamed is null or a list of streamable descriptors")
    return frozenset(keys)


def parse_moment(text: object, now_s: float) -> float:
    """An ISO 8601 time; None is now. Raises ValueError."""
    return now_s if text is None else parse_iso(text)
