"""Reading: vehicle lists, profiles, states, charging settings and pictures."""

import functools
from typing import Final

from sandbox.mybmw_cars import Car
from sandbox.mybmw_clock import iso_milliseconds
from sandbox.mybmw_png import Colour, png
from sandbox.mybmw_wire import PNG, Call, Refusal, Reply, gateway_error, json_reply, not_found, require_query
from sandbox.mybmw_world import World

_IMAGE_WIDTH_PX: Final = 160
_IMAGE_HEIGHT_PX: Final = 90
_VIEWS: Final = frozenset(
    {
        "VehicleStatus",
        "FrontView",
        "SideViewLeft",
        "Dashboard",
        "Driverdoor",
        "AngleSideViewForty",
        "AngleSideViewSixty",
        "FrontLeft",
        "FrontRight",
        "RearLeft",
        "RearRight",
        "RearView",
    }
)


def vehicle_list(world: World, call: Call) -> Reply:
    """``POST /eadrax-vcs/v5/vehicle-list``: the account's cars of the app's brand."""
    account = world.accounts.find(call.username)
    cars = account.cars.values() if account else ()
    gcid = account.gcid if account else ""
    return json_reply({"gcid": gcid, "mappingInfos": [car.mapping for car in cars if car.brand == call.client.brand]})


def profile(world: World, call: Call) -> Reply:
    """``GET /eadrax-vcs/v5/vehicle-data/profile``."""
    car = world.car(call)
    return Reply(body=car.documents.encoded_profile(car.vin))


def state(world: World, call: Call) -> Reply:
    """``GET /eadrax-vcs/v4/vehicles/state``."""
    world.settle()
    now = iso_milliseconds(world.clock.utc()) if world.settings.live_times else None
    return Reply(body=world.car(call).documents.encoded_state(now))


def charging_settings(world: World, call: Call) -> Reply:
    """``GET /eadrax-crccs/v2/vehicles``."""
    require_query(call, "fields", "has_charging_settings_capabilities")
    world.settle()
    encoded = world.car(call).documents.encoded_charging_settings()
    if encoded is None:
        raise not_found("The vehicle has no charging settings.")
    return Reply(body=encoded)


def image(world: World, call: Call) -> Reply:
    """``GET /eadrax-ics/v5/presentation/vehicles/images``: a PNG in the car's own colour."""
    require_query(call, "carView", "toCrop")
    if call.query["carView"] not in _VIEWS:
        raise Refusal(gateway_error(400, "Unknown view: carView", parameter="carView"))
    if call.headers.get("accept") != PNG:
        raise Refusal(gateway_error(406, "Only image/png: accept", header="accept"))
    if not call.headers.get("bmw-app-vehicle-type"):
        raise Refusal(gateway_error(400, "Missing header: bmw-app-vehicle-type", header="bmw-app-vehicle-type"))
    return Reply(body=_picture(_paint(world.car(call))), content_type=PNG)


def _paint(car: Car) -> Colour:
    argb = int(car.documents.profile.get("color", 0))
    return (argb >> 16 & 255, argb >> 8 & 255, argb & 255)


@functools.lru_cache(maxsize=64)
def _picture(paint: Colour) -> bytes:
    sky: Colour = (236, 240, 244)

    def colour(x: int, y: int) -> Colour:
        body = 14 <= x < 146 and 45 <= y < 68
        cabin = 44 <= x < 116 and 25 <= y < 45
        wheel = any((x - centre) ** 2 + (y - 68) ** 2 < 121 for centre in (42, 118))
        return (20, 20, 20) if wheel else paint if body or cabin else sky

    return png(_IMAGE_WIDTH_PX, _IMAGE_HEIGHT_PX, colour)
