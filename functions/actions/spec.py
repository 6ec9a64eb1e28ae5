"""What an action is: one row of the catalogue, and what its function receives and returns."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from pydantic import BaseModel

from common.callers import Caller, Scope
from common.clock import Clock
from functions.accounts import AccountManager
from functions.commands import CommandManager
from functions.contract import Envelope, NoParams
from functions.device_login import DeviceLogins
from functions.links import Link
from functions.providers.port import Vehicle
from functions.providers.registry import Providers
from functions.snapshot import EMPTY
from functions.vehicles import VehicleManager


class Kind(StrEnum):
    """What an action does to the world."""

    READ = "read"
    COMMAND = "command"
    ACCOUNT = "account"
    SERVICE = "service"


class Target(StrEnum):
    """What a request must name before the action's function is called."""

    NOTHING = "nothing"
    ACCOUNT = "account"
    VEHICLE = "vehicle"


@dataclass(frozen=True, slots=True)
class Services:
    """What the actions' functions work with."""

    accounts: AccountManager
    logins: DeviceLogins
    vehicles: VehicleManager
    commands: CommandManager
    providers: Providers
    clock: Clock


@dataclass(frozen=True, slots=True)
class Part:
    """The answer to one action of a batch."""

    status: int
    body: Mapping[str, Any]
    """The contract's success or error object."""


ServePart = Callable[[Envelope, Caller, str | None], Awaitable[Part]]
"""Performs one action of a batch: its envelope, who asks, its idempotency key."""


class Call(NamedTuple):
    """One request, decoded, identified, authorised and with its target found."""

    envelope: Envelope
    params: Any
    """An instance of the row's ``params`` model."""
    caller: Caller
    idempotency_key: str | None = None
    link: Link | None = None
    vehicle: Vehicle | None = None
    serve_part: ServePart | None = None
    """How a batch performs its parts; given to calls without a target."""
    arrived_s: float | None = None
    """When the request came, a batch's parts with it, on the monotonic clock; ``None``: just now."""


class Source(NamedTuple):
    """Where an answer's data come from."""

    cached: bool
    stale: bool
    fetched_at: datetime
    measured_at: datetime | None
    age_s: float
    quota: Mapping[str, Any] | None = None
    """What is left of the maker's ration, where he rations."""


class Answer(NamedTuple):
    """What an action found or did."""

    result: Mapping[str, Any] = EMPTY
    status: int = 200
    source: Source | None = None
    png: bytes | None = None
    """A picture, sent instead of JSON."""


Handler = Callable[[Services, Call], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class ActionSpec:
    """A row of the catalogue."""

    name: str
    kind: Kind
    scope: Scope | None
    """``None``: any authenticated caller; what a batch holds is checked part by part."""
    target: Target
    summary: str
    handler: Handler
    params: type[BaseModel] = NoParams
    aliases: tuple[str, ...] = ()
    cacheable: bool = False
    """Answered from the cache where it is fresh enough."""
    example: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    """The ``params`` of an example request."""


def found_link(call: Call) -> Link:
    """The link that the pipeline found; rows with a target never lack it."""
    if call.link is None:
        raise LookupError("the row declares no account target")
    return call.link


def found_vehicle(call: Call) -> Vehicle:
    """The vehicle that the pipeline found; rows with a vehicle target never lack it."""
    if call.vehicle is None:
        raise LookupError("the row declares no vehicle target")
    return call.vehicle
