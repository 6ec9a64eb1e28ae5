"""``/_sandbox/``: faults, clock, cars, tokens, settings and counters, for tests and for people."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from sandbox.mybmw_accounts import PASSWORD, Account
from sandbox.mybmw_cars import Car
from sandbox.mybmw_login import token_document
from sandbox.mybmw_wire import Call, Refusal, Reply, bad_request, json_reply, not_found
from sandbox.mybmw_world import World

CONTROL_PREFIX: Final = "/_sandbox/"

_ACCOUNTS: Final = {
    "demo@example.com": "all nine recorded cars",
    "one@example.com": "only WBA00000000DEMO01",
    "empty@example.com": "no car",
    "mini@example.com": "one Mini, WMW00000000DEMO01",
    "user-<n>@example.com": "all nine, its own copies",
    "fleet-<n>@example.com": "n cars, WBA00000000D00001 and up",
    "86138<8 digits>": "China: all nine, its own copies",
    "wrong-password@example.com": "its password is always refused",
    "captcha@example.com": "its captcha is always refused",
    "blocked@example.com": "489 Blocked from the password on",
    "quota@example.com": "logs in, then 403 with a quota message",
    "slow@example.com": "every answer is late by the setting slow_ms",
    "down@example.com": "503 from the password on",
}


class Controlled(Protocol):
    """What the control endpoint acts on."""

    world: World

    def reset(self) -> None:
        """Forget everything."""
        ...


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
        return bad_request("body", str(error)).reply
    return not_found("There is no such control: GET /_sandbox/ lists them.").reply


def _help(_sandbox: Controlled, _call: Call) -> object:
    return {
        "what": "A simulated MyBMW service. Nothing here reaches BMW.",
        "password": PASSWORD,
        "hcaptchatoken": "any text, once; 'refused' is refused",
        "accounts": _ACCOUNTS,
        "controls": {f"{method} {CONTROL_PREFIX}{template}": text for method, template, _, text in _CONTROLS},
    }


def _stats(sandbox: Controlled, call: Call) -> object:
    sandbox.world.settle()
    return sandbox.world.counters.report(call.query.get("account"))


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


def _advance(sandbox: Controlled, call: Call) -> object:
    sandbox.world.clock.advance(_number(call.json_object(), "advance_s"))
    return {"ahead_s": sandbox.world.clock.ahead_s}


def _cars(sandbox: Controlled, _call: Call, username: str) -> object:
    return sorted(_account(sandbox.world, username).cars)


def _car(sandbox: Controlled, _call: Call, username: str, vin: str) -> object:
    sandbox.world.settle()
    return _owned(sandbox.world, username, vin).truth()


def _patch_car(sandbox: Controlled, call: Call, username: str, vin: str) -> object:
    sandbox.world.settle()
    car = _owned(sandbox.world, username, vin)
    car.patch(call.json_object())
    return car.truth()


def _tokens(sandbox: Controlled, call: Call) -> object:
    world = sandbox.world
    body = call.json_object()
    done: dict[str, object] = {}
    for name, value in body.items():
        match name:
            case "expire_access":
                done[name] = world.tokens.expire_access(_account(world, value).username)
            case "revoke_refresh":
                done[name] = world.tokens.revoke_refresh(_account(world, value).username)
            case "issue":
                username = _account(world, value).username
                region = str(body.get("region", "row"))
                tokens = world.tokens.log_in(username, region, world.clock.monotonic(), world.settings.expires_in_s)
                done |= token_document(world, tokens)
            case "region":
                pass
            case _:
                raise ValueError(f"unknown {name!r}: use expire_access, revoke_refresh, issue (with region)")
    return done


def _settings(sandbox: Controlled, _call: Call) -> object:
    settings = sandbox.world.settings
    return {
        "latency_ms": settings.latency_ms,
        "expires_in": settings.expires_in_s,
        "event_step_s": settings.event_step_s,
        "times": "live" if settings.live_times else "recorded",
        "slow_ms": settings.slow_ms,
    }


def _set_settings(sandbox: Controlled, call: Call) -> object:
    body = call.json_object()
    settings = sandbox.world.settings
    if unknown := set(body) - {"latency_ms", "expires_in", "event_step_s", "times", "slow_ms"}:
        raise ValueError(f"unknown settings: {', '.join(sorted(unknown))}")
    if body.get("times", "live") not in ("live", "recorded"):
        raise ValueError('times is "live" or "recorded"')
    numbers = {name: _number(body, name) for name in body if name != "times"}
    settings.latency_ms = numbers.get("latency_ms", settings.latency_ms)
    settings.expires_in_s = int(numbers.get("expires_in", settings.expires_in_s))
    settings.event_step_s = numbers.get("event_step_s", settings.event_step_s)
    settings.slow_ms = numbers.get("slow_ms", settings.slow_ms)
    settings.live_times = body.get("times", "live" if settings.live_times else "recorded") == "live"
    return _settings(sandbox, call)


def _account(world: World, username: object) -> Account:
    account = world.accounts.find(str(username))
    if account is None:
        raise not_found("There is no such account.")
    return account


def _owned(world: World, username: str, vin: str) -> Car:
    car = _account(world, username).cars.get(vin)
    if car is None:
        raise not_found("The account has no such vehicle.")
    return car


def _number(body: Mapping[str, Any], name: str) -> float:
    value = body.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise ValueError(f"{name} is a number, at least 0")
    return float(value)


_CONTROLS: Final[tuple[tuple[str, str, Callable[..., object], str], ...]] = (
    ("GET", "", _help, "this page"),
    ("GET", "stats", _stats, "counters; ?account= for the commands of one account"),
    ("DELETE", "stats", _zero_stats, "counters to zero"),
    ("POST", "reset", _reset, "forget everything: accounts, tokens, faults, counters, clock, settings"),
    ("GET", "faults", _faults, "the fault rules and how often each was met"),
    ("POST", "faults", _add_fault, '{"match": {"path", "method", "account", "vin"}, "fault": kind, ...}'),
    ("DELETE", "faults", _clear_faults, "drop every fault rule"),
    ("POST", "clock", _advance, '{"advance_s": seconds}'),
    ("GET", "cars/{account}", _cars, "the VINs of an account"),
    ("GET", "cars/{account}/{vin}", _car, "all that is known of a car"),
    (
        "POST",
        "cars/{account}/{vin}",
        _patch_car,
        '{"state" | "capabilities" | "profile" | "charging_settings": a JSON merge patch}',
    ),
    ("POST", "tokens", _tokens, '{"expire_access" | "revoke_refresh" | "issue": account}'),
    ("GET", "settings", _settings, "the settings"),
    ("POST", "settings", _set_settings, '{"latency_ms", "expires_in", "event_step_s", "times", "slow_ms"}'),
)
