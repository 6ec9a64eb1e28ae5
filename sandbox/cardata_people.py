"""Controls of customers: who they are, what they consent to, their tokens, their cars and the truth of them."""

from typing import Any, Final

from sandbox.cardata_auth import subscribe, token_document
from sandbox.cardata_catalogue import DESCRIPTORS
from sandbox.cardata_controlled import Controlled, number
from sandbox.cardata_customers import Car, Customer, parse_moment, parse_script, parse_streamed
from sandbox.cardata_descriptors import Missing
from sandbox.cardata_mqtt import Why
from sandbox.cardata_time import iso_ms
from sandbox.cardata_wire import Call
from sandbox.cardata_world import SCOPES, World
from sandbox.mybmw_wire import not_found

_CUSTOMERS_MAX: Final = 10_000


def customers(sandbox: Controlled, _call: Call) -> object:
    """All customers."""
    return [_document(sandbox.world, customer) for customer in sandbox.world.customers]


def add_customers(sandbox: Controlled, call: Call) -> object:
    """One new customer as described, or ``?count=`` many with a car of each model."""
    world, body = sandbox.world, call.json_object()
    if "count" in call.query:
        if not call.query["count"].isdecimal() or not 0 < int(call.query["count"]) <= _CUSTOMERS_MAX:
            raise ValueError(f"count is a whole number from 1 to {_CUSTOMERS_MAX}")
        made = [world.customers.add(world.now_s) for _ in range(int(call.query["count"]))]
        return [_document(world, customer) for customer in made]
    if unknown := set(body) - {"gcid", "client_id", "cars"}:
        raise ValueError(f"a customer has gcid, client_id and cars, not {', '.join(sorted(unknown))}")
    cars = body.get("cars")
    if cars is None:
        customer = world.customers.add(world.now_s, gcid=body.get("gcid"), client_id=body.get("client_id"))
        return _document(world, customer)
    try:
        vins = {car["vin"]: car.get("mapping", "PRIMARY") for car in cars}
        models = {car["vin"]: car.get("model", "i4") for car in cars}
        scripts = {car["vin"]: parse_script(car["script"]) for car in cars if "script" in car}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("cars is a list of vin, model, mapping and script") from error
    if not set(vins.values()) <= {"PRIMARY", "SECONDARY"}:
        raise ValueError("a mapping is PRIMARY or SECONDARY")
    customer = world.customers.add(world.now_s, vins, models, body.get("gcid"), body.get("client_id"), scripts)
    return _document(world, customer)


def customer(sandbox: Controlled, _call: Call, gcid: str) -> object:
    """One customer."""
    return _document(sandbox.world, find_customer(sandbox.world, gcid))


def change_customer(sandbox: Controlled, call: Call, gcid: str) -> object:
    """Change subscriptions, streamed descriptors or the used quota."""
    world, body = sandbox.world, call.json_object()
    customer = find_customer(world, gcid)
    if unknown := set(body) - {"api_subscribed", "stream_subscribed", "streamed", "quota_used"}:
        raise ValueError(
            f"use api_subscribed, stream_subscribed, streamed, quota_used, not {', '.join(sorted(unknown))}"
        )
    if "streamed" in body:
        customer.streamed = parse_streamed(body["streamed"])
    if "quota_used" in body:
        world.set_quota_used(gcid, int(number(body, "quota_used")))
    api = bool(body.get("api_subscribed", customer.api_subscribed))
    stream = bool(body.get("stream_subscribed", customer.stream_subscribed))
    subscribe(world, customer, api=api, stream=stream)
    if not stream:
        sandbox.stream.drop(gcid, Why.NOT_AUTHORIZED)
    return _document(world, customer)


def devices(sandbox: Controlled, _call: Call) -> object:
    """Device logins that wait for a decision or a poll."""
    return [
        {"user_code": login.user_code, "client_id": login.client_id, "approved": login.approved}
        for login in sandbox.world.devices.values()
        if not login.dead and sandbox.world.now_s < login.expires_s
    ]


def decide(sandbox: Controlled, call: Call) -> object:
    """What the customer does with a user code in the browser."""
    body = call.json_object()
    if not isinstance(body.get("approve"), bool):
        raise ValueError("approve is true or false")  # noqa: TRY004 - as every other bad control request
    for login in sandbox.world.devices.values():
        if login.user_code == body.get("user_code") and not login.dead:
            login.approved = body["approve"]
            return {"approved": login.approved}
    raise not_found("There is no such user code.")


def tokens(sandbox: Controlled, call: Call) -> object:
    """Issue tokens without a device flow, expire or revoke them."""
    world = sandbox.world
    done: dict[str, object] = {}
    for name, gcid in call.json_object().items():
        customer = find_customer(world, str(gcid))
        match name:
            case "issue":
                done |= token_document(world, world.issue_tokens(customer, SCOPES))
            case "expire_access":
                world.tokens.expire(customer.gcid)
            case "revoke_refresh":
                world.tokens.revoke_refresh(customer.gcid)
            case _:
                raise ValueError(f"unknown {name!r}: use issue, expire_access or revoke_refresh")
    return done


def truth(sandbox: Controlled, call: Call) -> object:
    """What is true of a car at a time, and what it had said by then."""
    world = sandbox.world
    car = find_car(world, call.query.get("vin", ""))
    descriptor = DESCRIPTORS.get(call.query.get("descriptor", ""))
    if descriptor is None:
        raise not_found("There is no such descriptor.")
    at_s = parse_moment(call.query.get("at"), world.now_s)
    value = descriptor.of(car.timeline.at(at_s))
    said = car.said(descriptor, at_s)
    return {
        "vin": car.vin,
        "descriptor": descriptor.key,
        "at": iso_ms(at_s),
        "exists": not isinstance(value, Missing),
        "value": None if isinstance(value, Missing) else value,
        "unit": descriptor.unit,
        "said": said and {"timestamp": said.timestamp, "unit": said.unit, "value": said.value},
    }


def car(sandbox: Controlled, _call: Call, vin: str) -> object:
    """What a car is doing."""
    car = find_car(sandbox.world, vin)
    moment = car.timeline.at(sandbox.world.now_s)
    return {
        "vin": car.vin,
        "model": car.timeline.model.key,
        "doing": sorted(moment.doing),
        "last_report": iso_ms(car.timeline.last_report_s(sandbox.world.now_s)),
        "asleep": car.asleep_since_s is not None,
        "overrides": car.overrides,
    }


def patch_car(sandbox: Controlled, call: Call, vin: str) -> object:
    """Bend what a car says."""
    find_car(sandbox.world, vin).patch(call.json_object(), sandbox.world.now_s)
    return car(sandbox, call, vin)


def find_customer(world: World, gcid: str) -> Customer:
    """The customer. Raises Refusal (404)."""
    customer = world.customers.find(gcid)
    if customer is None:
        raise not_found("There is no such customer.")
    return customer


def find_car(world: World, vin: str) -> Car:
    """The car. Raises Refusal (404)."""
    car = world.customers.cars.get(vin)
    if car is None:
        raise not_found("There is no such vehicle.")
    return car


def _document(world: World, customer: Customer) -> dict[str, Any]:
    return {
        "gcid": customer.gcid,
        "client_id": customer.client_id,
        "vins": customer.vins,
        "api_subscribed": customer.api_subscribed,
        "stream_subscribed": customer.stream_subscribed,
        "quota_used": world.quota_used(customer.gcid),
        "containers": len(customer.active_containers()),
    }
