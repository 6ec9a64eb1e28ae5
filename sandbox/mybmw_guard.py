"""What every request must carry: the app's headers, and for data a valid access token."""

from typing import Final

from bimmer_connected.const import CarBrands, Regions

from sandbox.mybmw_wire import AppClient, Call, Refusal, gateway_error, require_headers
from sandbox.mybmw_world import World

_BRANDS: Final = frozenset(brand.value for brand in CarBrands)
_REGIONS: Final = frozenset(region.value for region in Regions)
_BEARER: Final = "Bearer "


def app_client(call: Call) -> AppClient:
    """The app behind the request. Raises Refusal (400) unless it looks like the MyBMW app."""
    require_headers(call, "user-agent", "x-user-agent")
    if not call.headers["user-agent"].startswith("Dart/"):
        raise Refusal(gateway_error(400, "Not an app: user-agent", header="user-agent"))
    parts = call.headers["x-user-agent"].split(";")
    if (
        len(parts) != 4
        or not parts[0].startswith("android(")
        or parts[1] not in _BRANDS
        or not parts[2]
        or parts[3] not in _REGIONS
    ):
        raise Refusal(
            gateway_error(400, "Not android(build);brand;version;region: x-user-agent", header="x-user-agent")
        )
    return AppClient(parts[1], parts[3])


def admit_login(call: Call, *regions: str) -> None:
    """Let a login request in. Raises Refusal (400) for another region than these."""
    call.client = app_client(call)
    if call.client.region not in regions:
        raise Refusal(gateway_error(400, "Not a region of this endpoint: x-user-agent", header="x-user-agent"))


def admit_data(world: World, call: Call) -> None:
    """Let a data request in: sets ``call.username``.

    Raises Refusal: 400 for a missing header, 401 for a token that is unknown, expired or of another region.
    """
    require_headers(call, "authorization", "bmw-session-id", "bmw-units-preferences")
    call.client = app_client(call)
    family = world.tokens.session(bearer(call), world.clock.monotonic())
    if family is None or family.region != call.client.region:
        raise Refusal(gateway_error(401, "Access token is missing or invalid."))
    call.username = family.username


def bearer(call: Call) -> str:
    """The bearer token, empty where there is none."""
    header = call.headers.get("authorization", "")
    return header.removeprefix(_BEARER) if header.startswith(_BEARER) else ""


def take_vin(call: Call) -> None:
    """Set ``call.vin`` from the header. Raises Refusal (400) where it is missing."""
    require_headers(call, "bmw-vin")
    call.vin = call.headers["bmw-vin"]
