"""``/_sandbox/``: faults, clock, customers, consent, cars, tokens, stream, truth and counters."""

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from typing import Any, Final

from sandbox import cardata_people as people
from sandbox.cardata_controlled import Controlled, number
from sandbox.cardata_customers import DEMO_VINS, parse_moment
from sandbox.cardata_mqtt import Why
from sandbox.cardata_scripts import MODELS
from sandbox.cardata_time import iso_ms, parse_iso
from sandbox.cardata_wire import Call
from sandbox.cardata_world import Settings
from sandbox.mybmw_wire import Refusal, Reply, json_reply, not_found

CONTROL_PREFIX: Final = "/_sandbox/"


def control(sandbox: Controlled, call: Call) -> Reply:
    """Answer a control request: 200 with a JSON document, or 400 or 404 saying why not."""
    try:
        for method, template, handler, _ in _CONTROLS:
            pattern = CONTROL_PREFIX + re.sub(r"\{\w+\}", "([^/]+)", template)
            if method == call.method and (found := re.fullmatch(pattern, call.path)):
                return json_reply(handler(sandbox, call, *found.groups()))
    except Refusal as refusal:
        return refusal.reply
    except ValueError as error:
        return json_reply({"message": str(error)}, 400)
    return not_found("There is no such control: GET /_sandbox/ lists them.").reply


def _help(sandbox: Controlled, _call: Call) -> object:
    demo = sandbox.world.customers.demo
    return {
        "what": "A simulated CarData service. Nothing here reaches BMW.",
        "demo": {"gcid": demo.gcid, "client_id": demo.client_id, "cars": DEMO_VINS},
        "controls": {f"{method} {CONTROL_PREFIX}{template}": text for method, template, _, text in _CONTROLS},
    }


def _stats(sandbox: Controlled, _call: Call) -> object:
    world = sandbox.world
    used = {customer.gcid: world.quota_used(customer.gcid) for customer in world.customers}
    return {
        **world.counters.report(),
        "quota_used": {gcid: requests for gcid, requests in used.items() if requests},
        "stream_connections": len(sandbox.stream.connections()),
    }


def _zero_stats(sandbox: Controlled, _call: Call) -> object:
    sandbox.world.counters.zero()
    return {}


def _reset(sandbox: Controlled, _call: Call) -> object:
    sandbox.reset()
    return {}


def _faults(sandbox: Controlled, _call: Call) -> object:
    return sandbox.world.faults.report()


def _add_fault(sandbox: Controlled, call: Call) -> object:
    return {"id": sandbox.world.faults.add(call.json_object())}


def _clear_faults(sandbox: Controlled, _call: Call) -> object:
    sandbox.world.faults.clear()
    return {}


def _clock(sandbox: Controlled, _call: Call) -> object:
    return {"now": iso_ms(sandbox.world.now_s), "ahead_s": sandbox.world.clock.ahead_s}


def _advance(sandbox: Controlled, call: Call) -> object:
    world, body = sandbox.world, call.json_object()
    if unknown := set(body) - {"advance_s", "to", "stream"}:
        raise ValueError(f"the clock knows advance_s, to and stream, not {', '.join(sorted(unknown))}")
    before_s = world.now_s
    seconds = parse_iso(body["to"]) - before_s if "to" in body else number(body, "advance_s")
    if seconds < 0:
        raise ValueError("time does not go back")
    world.clock.advance(seconds)
    if body.get("stream"):
        for connection in sandbox.stream.connections():
            sandbox.stream.publish_span(connection["gcid"], None, before_s, world.now_s)
    sandbox.stream.sweep()
    return _clock(sandbox, call)


def _stream(sandbox: Controlled, _call: Call) -> object:
    host, port = sandbox.stream.address
    return {
        "host": host,
        "port": port,
        "ca_pem": sandbox.stream.certificates.authority_pem,
        "connections": sandbox.stream.connections(),
    }


def _publish(sandbox: Controlled, call: Call) -> object:
    world, body = sandbox.world, call.json_object()
    gcid = people.find_customer(world, str(body.get("gcid"))).gcid
    vin = body.get("vin")
    if "raw" in body:
        return {"messages": 1, "delivered": int(sandbox.stream.publish(gcid, str(vin), str(body["raw"]).encode()))}
    until_s = parse_moment(body.get("to"), world.now_s)
    after_s = parse_moment(body.get("from"), until_s - 3600)
    published, delivered = sandbox.stream.publish_span(gcid, vin, after_s, until_s)
    return {"messages": published, "delivered": delivered}


def _drop(sandbox: Controlled, call: Call) -> object:
    if gcid := call.query.get("gcid"):
        return {"dropped": int(sandbox.stream.drop(gcid, Why.SERVER_SHUTTING_DOWN))}
    return {"dropped": sandbox.stream.drop_all(Why.SERVER_SHUTTING_DOWN)}


def _settings(sandbox: Controlled, _call: Call) -> object:
    return asdict(sandbox.world.settings)


def _set_settings(sandbox: Controlled, call: Call) -> object:
    body, settings = call.json_object(), sandbox.world.settings
    kinds = {field.name: type(getattr(settings, field.name)) for field in fields(Settings)}
    if unknown := set(body) - set(kinds):
        raise ValueError(f"unknown settings: {', '.join(sorted(unknown))}")
    checked = {name: _setting(body, name, kinds[name]) for name in body}
    for name, value in checked.items():
        setattr(settings, name, value)
    return asdict(settings)


def _setting(body: Mapping[str, Any], name: str, kind: type) -> object:
    if kind is bool:
        if not isinstance(body[name], bool):
            raise ValueError(f"{name} is true or false")
        return body[name]
    return kind(number(body, name))


_CONTROLS: Final[tuple[tuple[str, str, Callable[..., object], str], ...]] = (
    ("GET", "", _help, "this page"),
    ("GET", "stats", _stats, "counters, and the quota used today by GCID"),
    ("DELETE", "stats", _zero_stats, "counters to zero; the quota stays"),
    ("POST", "reset", _reset, "forget everything: customers, tokens, faults, counters, clock, settings"),
    ("GET", "faults", _faults, "the fault rules and how often each was met"),
    ("POST", "faults", _add_fault, '{"match": {"path", "method", "account" (a GCID), "vin"}, "fault": kind, ...}'),
    ("DELETE", "faults", _clear_faults, "drop every fault rule"),
    ("GET", "clock", _clock, "the simulated time"),
    ("POST", "clock", _advance, '{"advance_s": seconds | "to": time, "stream": true to stream what happens meanwhile}'),
    ("GET", "customers", people.customers, "all customers"),
    (
        "POST",
        "customers",
        people.add_customers,
        f'{{"gcid", "client_id", "cars": [{{"vin", "model": {"|".join(MODELS)}, "mapping", "script"}}]}}; ?count=',
    ),
    ("GET", "customers/{gcid}", people.customer, "one customer"),
    (
        "POST",
        "customers/{gcid}",
        people.change_customer,
        '{"api_subscribed", "stream_subscribed", "streamed": [descriptor], "quota_used"}',
    ),
    ("GET", "devices", people.devices, "device logins that wait for a decision or a poll"),
    ("POST", "devices", people.decide, '{"user_code", "approve": true | false}'),
    ("POST", "tokens", people.tokens, '{"issue" | "expire_access" | "revoke_refresh": gcid}'),
    ("GET", "stream", _stream, "where the stream listens, whom to trust, who is connected"),
    (
        "POST",
        "stream/publish",
        _publish,
        '{"gcid", "vin", "from", "to"}: what the cars said then; {"gcid", "vin", "raw": text}',
    ),
    ("DELETE", "stream/connections", _drop, "drop all stream connections; ?gcid= for one"),
    ("GET", "truth", people.truth, "?vin=&descriptor=&at=: what is true of a car then, and what it had said by then"),
    ("GET", "cars/{vin}", people.car, "what a car is doing"),
    (
        "POST",
        "cars/{vin}",
        people.patch_car,
        '{"asleep": true | false, "overrides": {descriptor: {"value", "unit", "timestamp"} | "absent" | null}}',
    ),
    ("GET", "settings", _settings, "the settings"),
    ("POST", "settings", _set_settings, "any of the settings"),
)
