"""The paths of the service: an explicit table."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from sandbox import cardata_auth as auth
from sandbox import cardata_rest as rest
from sandbox.cardata_customers import Customer
from sandbox.cardata_guard import admit, bearer, spend
from sandbox.cardata_wire import Call, cu_reply
from sandbox.cardata_world import World
from sandbox.mybmw_wire import JSON, Refusal, Reply

UNMATCHED: Final = "unmatched"


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint."""

    method: str
    template: str
    handler: Callable[[World, Call], Reply]
    who: Callable[[World, Call], str | None]
    """The GCID behind a request, be its credentials valid or not."""
    is_api: bool
    """It costs one of the day's requests."""
    pattern: re.Pattern[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "pattern", re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", self.template)))

    @property
    def name(self) -> str:
        """``METHOD template``, as it is counted."""
        return f"{self.method} {self.template}"

    def perform(self, world: World, call: Call) -> Reply:
        """Do what the request asks."""
        try:
            return self.handler(world, call)
        except Refusal as refusal:
            return refusal.reply


def _bearer_owner(world: World, call: Call) -> str | None:
    return world.tokens.owner(bearer(call))


def _api(method: str, template: str, handler: Callable[[World, Customer, Call], Reply], *also_accepts: str) -> Route:
    def admitted(world: World, call: Call) -> Reply:
        return handler(world, admit(world, call, JSON, *also_accepts), call)

    return Route(method, template, admitted, _bearer_owner, is_api=True)


def _auth(template: str, handler: Callable[[World, Call], Reply]) -> Route:
    return Route("POST", template, handler, auth.who, is_api=False)


_VEHICLE: Final = "/customers/vehicles/{vin}"
ROUTES: Final = (
    _auth("/gcdm/oauth/device/code", auth.device_code),
    _auth("/gcdm/oauth/token", auth.token),
    _api("GET", "/customers/vehicles/mappings", rest.mappings),
    _api("GET", f"{_VEHICLE}/basicData", rest.basic),
    _api("GET", f"{_VEHICLE}/telematicData", rest.telematic),
    _api("GET", f"{_VEHICLE}/chargingHistory", rest.charging_history),
    _api("GET", f"{_VEHICLE}/smartMaintenanceTyreDiagnosis", rest.tyres),
    _api("GET", f"{_VEHICLE}/locationBasedChargingSettings", rest.settings),
    _api("GET", f"{_VEHICLE}/image", rest.image, "image/", "*/*"),
    _api("GET", "/customers/containers", rest.list_containers),
    _api("POST", "/customers/containers", rest.create_container),
    _api("GET", "/customers/containers/{id}", rest.container_details),
    _api("DELETE", "/customers/containers/{id}", rest.delete_container),
)


def find_route(method: str, path: str) -> tuple[Route, Mapping[str, str]] | None:
    """The route and the named parts of the path; None where there is none."""
    for route in ROUTES:
        if route.method == method and (found := route.pattern.fullmatch(path)):
            return route, found.groupdict()
    return None


def spend_if_api(world: World, route: Route, call: Call) -> None:
    """Count a request of the REST API against the quota, before anything can go wrong with it."""
    if route.is_api:
        spend(world, call)


def no_such_path() -> Reply:
    """404."""
    return cu_reply("CU-400", "Resource not found.", 404)
