"""What every REST request must carry, and what it costs: a header, a token, one of the day's fifty."""

import re
from typing import Final

from sandbox.cardata_customers import Car, Container, Customer
from sandbox.cardata_time import iso_s
from sandbox.cardata_tokens import API_SCOPE, Issued
from sandbox.cardata_wire import Call, cu_error
from sandbox.cardata_world import World

_BEARER: Final = "Bearer "
_VIN: Final = re.compile(r"[A-HJ-NPR-Z0-9O]{17}")
_CONTAINER_ID: Final = re.compile(r"S[0-9A-F]{31}")


def bearer(call: Call) -> str:
    """The bearer token, empty where there is none."""
    header = call.headers.get("authorization", "")
    return header.removeprefix(_BEARER) if header.startswith(_BEARER) else ""


def spend(world: World, call: Call) -> None:
    """Count the request where it carries a valid token, be it answered or not."""
    if issued := _valid(world, call):
        call.over_quota = world.spend(issued.grant.gcid) > world.settings.quota_per_day


def admit(world: World, call: Call, *accepts: str) -> Customer:
    """Let a request in that was counted and takes any of the media types; whose it is. Raises Refusal."""
    token = bearer(call)
    if not token:
        raise cu_error("CU-100")
    issued = _valid(world, call)
    if issued is None:
        raise cu_error("CU-102" if token in world.tokens.access else "CU-101")
    customer = world.customers.find(issued.grant.gcid)
    if customer is None:
        raise cu_error("CU-101")
    if call.over_quota:
        raise cu_error("CU-429")
    if not customer.api_subscribed:
        raise cu_error("CU-403", "The client is not subscribed to the CarData API.")
    if API_SCOPE not in issued.grant.scope:
        raise cu_error("CU-103")
    if call.headers.get("x-version") != "v1":
        raise cu_error("CU-400", "Missing or unknown header: x-version")
    if not any(media in call.headers.get("accept", "") for media in accepts):
        raise cu_error("CU-400", "Missing or unknown header: Accept")
    return customer


def own_car(world: World, customer: Customer, call: Call) -> Car:
    """The customer's car that the request is about. Raises Refusal."""
    vin = call.params["vin"]
    if not _VIN.fullmatch(vin):
        raise cu_error("CU-120")
    if not customer.may_read(vin):
        raise cu_error("CU-104")
    return world.customers.cars[vin]


def own_container(world: World, customer: Customer, container_id: str) -> Container:
    """The customer's container, deleted or not. Raises Refusal."""
    customer.purge(world.now_s)
    if not _CONTAINER_ID.fullmatch(container_id):
        raise cu_error("CU-121")
    container = customer.containers.get(container_id)
    if container is None:
        raise cu_error("CU-105")
    return container


def require_active(container: Container) -> Container:
    """The container, where it is active. Raises Refusal."""
    if container.deleted_s is not None:
        raise cu_error("CU-105", f"Deleted at {iso_s(container.deleted_s)}")
    return container


def _valid(world: World, call: Call) -> Issued | None:
    issued = world.tokens.access.get(bearer(call))
    return issued if issued is not None and world.now_s < issued.expires_s else None
