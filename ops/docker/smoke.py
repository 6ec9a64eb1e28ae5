"""``python -m ops.docker.smoke URL [--cars]``: whether the service at ``URL`` is up and does what it should.

Without ``--cars`` it changes nothing and reaches no maker. With it the service must let callers in (``CALLERS=open``)
and stand in front of the simulated maker: one demo account is connected, read, commanded and disconnected.
"""

import argparse
import http.client
import sys
import time
from collections.abc import Callable
from typing import Any

from ops.client import Client, Reply

_VIN = "WBA00000000DEMO01"
_DEMO = {"email": "one@example.com", "password": "demo-password"}
_POLL_S = 0.05
_PATIENCE_S = 10.0


class SmokeFailed(Exception):
    """Something was not as it should be; the message says what."""


def check(url: str, *, cars: bool = False, say: Callable[[str], None] = lambda _line: None) -> None:
    """All checks, in order; ``say`` hears of each that holds. Raises SmokeFailed at the first that does not."""
    client = Client(url)
    try:
        for holds in (_pages(client), _cars(client) if cars else _closed(client)):
            for line in holds:
                say(f"ok: {line}")
    except (OSError, http.client.HTTPException) as broken:
        raise SmokeFailed(f"no proper answer: {type(broken).__name__}: {broken}") from broken
    finally:
        client.close()


def wait_until_healthy(url: str, within_s: float) -> float:
    """Ask ``/health`` until it is 200; how long that took, seconds. Raises SmokeFailed."""
    began_s = time.monotonic()
    while True:
        last = _health_status(url)
        took_s = time.monotonic() - began_s
        if last == 200:
            return took_s
        if took_s > within_s:
            raise SmokeFailed(f"{url}/health is not 200 within {within_s:g} s (last: {last or 'no answer'})")
        time.sleep(_POLL_S)


def _health_status(url: str) -> int | None:
    client = Client(url, timeout_s=2)
    try:
        return client.get("/health").status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        client.close()


def _pages(client: Client) -> list[str]:
    health, began_s = client.get("/health"), time.monotonic()
    # A store that answered slowly a moment ago, as while everything starts at once, is no verdict yet.
    while health.at("status") == "degraded" and time.monotonic() - began_s < _PATIENCE_S:
        time.sleep(_POLL_S)
        health = client.get("/health")
    _expect(health.status == 200 and health.at("status") == "healthy", "/health says healthy", health)
    described = client.get("/openapi.json")
    _expect(str(described.at("openapi")).startswith("3."), "/openapi.json describes the service", described)
    metrics = client.get("/metrics")
    _expect(metrics.status == 200, "/metrics answers", metrics)
    nowhere = client.get("/no-such-page")
    _expect(nowhere.at("error.code") == "ENDPOINT_NOT_FOUND", "another page is 404 in our own words", nowhere)
    return [
        f"/health says healthy (version {health.at('version')}, {health.at('environment')})",
        "/openapi.json, /metrics and the 404 are ours",
    ]


def _closed(client: Client) -> list[str]:
    refused = client.post({"action": "status"})
    _expect(refused.status == 401, "nobody is let in without credentials", refused)
    return ["nobody is let in without credentials"]


def _cars(client: Client) -> list[str]:
    captcha = f"smoke-{time.time_ns()}"
    linked = _ask(client, "an account is connected", action="connect", **_DEMO, hcaptcha=captcha)
    account = linked.at("result.account")
    _ask(client, "a car is read", action="status", account=account, vin=_VIN)
    again = _ask(client, "it is read again", action="fuel", account=account, vin=_VIN)
    _expect(again.at("meta.cached") is True, "the second read comes from the cache", again)
    command = client.post({"action": "lock", "account": account, "vin": _VIN, "wait_s": 30})
    _expect(command.at("result.state") == "confirmed" or command.at("state") == "confirmed", "it is locked", command)
    _ask(client, "the account is disconnected", action="disconnect", account=account)
    return ["connected, read, read from the cache, locked and confirmed, disconnected"]


def _ask(client: Client, what: str, **request: Any) -> Reply:  # noqa: ANN401 - fields of a request
    reply = client.post(request)
    _expect(reply.status == 200, what, reply)
    return reply


def _expect(holds: bool, what: str, reply: Reply) -> None:
    if not holds:
        raise SmokeFailed(f"expected that {what}, and got {reply.status} {str(reply.body)[:300]}")


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="ops.docker.smoke", description=__doc__)
    parser.add_argument("url", help="such as http://127.0.0.1:8080")
    parser.add_argument("--cars", action="store_true", help="also drive a car of the simulated maker")
    parser.add_argument("--wait-s", type=float, default=60.0, help="how long it may take to be healthy, seconds")
    given = parser.parse_args(argv)
    try:
        print(f"healthy after {wait_until_healthy(given.url, given.wait_s):.1f} s")
        check(given.url, cars=given.cars, say=print)
    except SmokeFailed as failure:
        print(f"FAILED: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
