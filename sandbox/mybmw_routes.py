"""The paths of the service: an explicit table."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from sandbox import mybmw_china as china
from sandbox import mybmw_data as data
from sandbox import mybmw_login as login
from sandbox import mybmw_remote as remote
from sandbox.mybmw_guard import admit_data, bearer, take_vin
from sandbox.mybmw_wire import Call, Refusal, Reply, gateway_error
from sandbox.mybmw_world import World

Handler = Callable[[World, Call], Reply]
Who = Callable[[World, Call], str | None]

UNMATCHED: Final = "unmatched"


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint."""

    method: str
    template: str
    handler: Handler
    who: Who
    """The account behind a request, be its credentials valid or not."""
    is_api: bool = True
    """It reads or commands cars, and needs an access token."""
    has_event: bool = False
    """It accepts a command whose outcome is polled."""
    pattern: re.Pattern[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "pattern", re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", self.template)))

    @property
    def name(self) -> str:
        """``METHOD template``, as it is counted."""
        return f"{self.method} {self.template}"


def _bearer_owner(world: World, call: Call) -> str | None:
    return world.tokens.owner(bearer(call))


def _nobody(_world: World, _call: Call) -> None:
    return None


def _of_vehicle(handler: Handler) -> Handler:
    def with_vin(world: World, call: Call) -> Reply:
        take_vin(call)
        return handler(world, call)

    return with_vin


def _get(template: str, handler: Handler) -> Route:
    return Route("GET", template, _of_vehicle(handler), _bearer_owner)


def _post(template: str, handler: Handler, *, has_event: bool = False) -> Route:
    return Route("POST", template, handler, _bearer_owner, has_event=has_event)


def _login(method: str, template: str, handler: Handler, who: Who) -> Route:
    return Route(method, template, handler, who, is_api=False)


ROUTES: Final = (
    _login("GET", "/eadrax-ucs/v1/presentation/oauth/config", login.config, _nobody),
    _login("POST", "/gcdm/oauth/authenticate", login.authenticate, login.who),
    _login("POST", "/gcdm/oauth/token", login.token, login.who),
    _login("GET", "/eadrax-coas/v1/cop/publickey", china.public_key, _nobody),
    _login("POST", "/eadrax-coas/v2/cop/slider-captcha", china.slider_captcha, china.who),
    _login("POST", "/eadrax-coas/v1/cop/check-captcha", china.check_captcha, china.who),
    _login("POST", "/eadrax-coas/v2/login/pwd", china.log_in, china.who),
    _login("POST", "/eadrax-coas/v2/oauth/token", china.refresh, china.who),
    _post("/eadrax-vcs/v5/vehicle-list", data.vehicle_list),
    _get("/eadrax-vcs/v5/vehicle-data/profile", data.profile),
    _get("/eadrax-vcs/v4/vehicles/state", data.state),
    _get("/eadrax-crccs/v2/vehicles", data.charging_settings),
    _get("/eadrax-ics/v5/presentation/vehicles/images", data.image),
    _post("/eadrax-vrccs/v3/presentation/remote-commands/eventStatus", remote.event_status),
    _post("/eadrax-vrccs/v4/presentation/remote-commands/eventPosition", remote.event_position),
    _post("/eadrax-vrccs/v4/presentation/remote-commands/{service}", remote.remote_command, has_event=True),
    _post("/eadrax-crccs/v1/vehicles/{vin}/{service}", remote.charging_command, has_event=True),
    _post("/eadrax-dcs/v2/user/{gcid}/send-to-car", remote.send_to_car),
)
_FIXED: Final = {(route.method, route.template): route for route in ROUTES if "{" not in route.template}
_VARIABLE: Final = tuple(route for route in ROUTES if "{" in route.template)


def find_route(method: str, path: str) -> tuple[Route, Mapping[str, str]] | None:
    """The route and the named parts of the path; None where there is none."""
    if route := _FIXED.get((method, path)):
        return route, {}
    for route in _VARIABLE:
        if route.method == method and (found := route.pattern.fullmatch(path)):
            return route, found.groupdict()
    return None


def perform(world: World, route: Route, call: Call) -> Reply:
    """Do what the request asks."""
    try:
        if route.is_api:
            admit_data(world, call)
        return route.handler(world, call)
    except Refusal as refusal:
        return refusal.reply


def subject_vin(world: World, call: Call) -> str | None:
    """The vehicle that a request is about, for fault rules, before anything is checked."""
    command = world.commands.find(call.query.get("eventId", ""))
    return call.headers.get("bmw-vin") or call.params.get("vin") or (command.car.vin if command else None)


def no_such_path() -> Reply:
    """404."""
    return gateway_error(404, "Resource not found.")
