"""Reading: mappings, master data, telematic data, charging history, tyres, settings, pictures; and containers."""

import functools
import secrets
from typing import Any, Final

from sandbox.cardata_catalogue import DESCRIPTORS
from sandbox.cardata_customers import CONTAINERS_MAX, Car, Container, Customer
from sandbox.cardata_documents import basic_data, charging_session, charging_settings, tyre_diagnosis
from sandbox.cardata_guard import own_car, own_container, require_active
from sandbox.cardata_scripts import DAY_S
from sandbox.cardata_time import iso_ms, parse_iso
from sandbox.cardata_wire import Call, cu_error
from sandbox.cardata_world import Page, World
from sandbox.mybmw_png import Colour, png
from sandbox.mybmw_wire import PNG, Reply, json_reply

_PAGE: Final = 10
_HISTORY_MAX_S: Final = 45 * DAY_S
_PAINT: Final[dict[str, Colour]] = {"x1": (40, 60, 120), "i4": (160, 30, 40)}
"""There is no picture of an X3."""


def mappings(_world: World, customer: Customer, _call: Call) -> Reply:
    """``GET /customers/vehicles/mappings``: an array, though the specification says object."""
    since = iso_ms(customer.mapped_since_s)
    return json_reply([{"vin": vin, "mappedSince": since, "mappingType": kind} for vin, kind in customer.vins.items()])


def basic(world: World, customer: Customer, call: Call) -> Reply:
    """``GET /customers/vehicles/{vin}/basicData``."""
    return json_reply(basic_data(own_car(world, customer, call)))


def telematic(world: World, customer: Customer, call: Call) -> Reply:
    """``GET /customers/vehicles/{vin}/telematicData?containerId=``."""
    car = own_car(world, customer, call)
    if "containerId" not in call.query:
        raise cu_error("CU-401", "containerId")
    container = require_active(own_container(world, customer, call.query["containerId"]))
    said = ((key, car.said(DESCRIPTORS[key], world.now_s)) for key in container.descriptors)
    return json_reply({"telematicData": {key: reading.rest() for key, reading in said if reading is not None}})


def charging_history(world: World, customer: Customer, call: Call) -> Reply:
    """``GET /customers/vehicles/{vin}/chargingHistory?from&to[&nextToken]``: ten a page, newest first."""
    car = own_car(world, customer, call)
    if not car.timeline.model.battery_kwh:
        raise cu_error("CU-127")
    page = _page(world, car, call)
    charges = car.timeline.charges(page.from_s, min(page.until_s, world.now_s))
    rest = charges[page.offset :]
    document: dict[str, Any] = {"data": [charging_session(car.timeline, charge) for charge in rest[:_PAGE]]}
    if len(rest) > _PAGE:
        token = secrets.token_urlsafe(24)
        expires_s = world.now_s + world.settings.page_life_s
        world.pages[token] = Page(car.vin, page.from_s, page.until_s, page.offset + _PAGE, expires_s)
        document["next_token"] = token
    return json_reply(document)


def tyres(world: World, customer: Customer, call: Call) -> Reply:
    """``GET /customers/vehicles/{vin}/smartMaintenanceTyreDiagnosis``."""
    return json_reply(tyre_diagnosis(own_car(world, customer, call), world.now_s))


def settings(world: World, customer: Customer, call: Call) -> Reply:
    """``GET /customers/vehicles/{vin}/locationBasedChargingSettings``."""
    car = own_car(world, customer, call)
    if not car.timeline.model.battery_kwh:
        raise cu_error("CU-127", "No LBCS data found")
    return json_reply({"data": [charging_settings(car, world.now_s)]})


def image(world: World, customer: Customer, call: Call) -> Reply:
    """``GET /customers/vehicles/{vin}/image``: a PNG."""
    paint = _PAINT.get(own_car(world, customer, call).timeline.model.key)
    if paint is None:
        raise cu_error("CU-126")
    return Reply(body=_picture(paint), content_type=PNG)


def list_containers(world: World, customer: Customer, _call: Call) -> Reply:
    """``GET /customers/containers``: those deleted not long ago too."""
    customer.purge(world.now_s)
    return json_reply({"containers": [_summary(container) for container in customer.containers.values()]})


def create_container(world: World, customer: Customer, call: Call) -> Reply:
    """``POST /customers/containers``."""
    try:
        body = call.json_object()
    except ValueError as error:
        raise cu_error("CU-400", "body") from error
    name, purpose, descriptors = (body.get(field) for field in ("name", "purpose", "technicalDescriptors"))
    if not isinstance(name, str) or not isinstance(purpose, str) or not name or not purpose:
        raise cu_error("CU-400", "name, purpose")
    if not isinstance(descriptors, list) or not descriptors:
        raise cu_error("CU-400", "technicalDescriptors")
    if unknown := [key for key in descriptors if not isinstance(key, str) or key not in DESCRIPTORS]:
        raise cu_error("CU-402", str(unknown[0]))
    if len(customer.active_containers()) >= CONTAINERS_MAX:
        raise cu_error("CU-124")
    container_id = f"S{secrets.token_hex(16)[1:].upper()}"
    container = Container(container_id, name, purpose, tuple(dict.fromkeys(descriptors)), world.now_s)
    customer.containers[container_id] = container
    return json_reply(_details(container), 201)


def container_details(world: World, customer: Customer, call: Call) -> Reply:
    """``GET /customers/containers/{id}``."""
    return json_reply(_details(own_container(world, customer, call.params["id"])))


def delete_container(world: World, customer: Customer, call: Call) -> Reply:
    """``DELETE /customers/containers/{id}``: inactive from now on, forgotten after 29 days."""
    container = own_container(world, customer, call.params["id"])
    if container.deleted_s is not None:
        raise cu_error("CU-122")
    container.deleted_s = world.now_s
    return Reply(204)


def _summary(container: Container) -> dict[str, Any]:
    return {
        "containerId": container.container_id,
        "name": container.name,
        "purpose": container.purpose,
        "state": "ACTIVE" if container.deleted_s is None else "DELETED",
        "created": iso_ms(container.created_s),
    }


def _details(container: Container) -> dict[str, Any]:
    return {**_summary(container), "technicalDescriptors": list(container.descriptors)}


def _page(world: World, car: Car, call: Call) -> Page:
    """The page that is asked for. Raises Refusal."""
    try:
        from_s, until_s = parse_iso(call.query.get("from")), parse_iso(call.query.get("to"))
    except ValueError as error:
        raise cu_error("CU-401", "from, to") from error
    if not 0 <= until_s - from_s <= _HISTORY_MAX_S:
        raise cu_error("CU-401", "from, to")
    token = call.query.get("nextToken")
    if token is None:
        return Page(car.vin, from_s, until_s, 0, world.now_s)
    page = world.pages.get(token)
    if page is None or (page.vin, page.from_s, page.until_s) != (car.vin, from_s, until_s):
        raise cu_error("CU-401", "nextToken")
    if world.now_s >= page.expires_s:
        raise cu_error("CU-125")
    return page


@functools.cache
def _picture(paint: Colour) -> bytes:
    def colour(x: int, y: int) -> Colour:
        wheel = any((x - centre) ** 2 + (y - 36) ** 2 < 36 for centre in (24, 60))
        body = (8 <= x < 76 and 24 <= y < 36) or (24 <= x < 60 and 14 <= y < 24)
        return (20, 20, 20) if wheel else paint if body else (236, 240, 244)

    return png(84, 48, colour)
