"""``make demo``: the tour, by itself, over HTTP: connect, read, lock, a fault, the recovery, CarData.

Starts the API and the simulated maker on free ports with their files in a temporary directory, prints each request
with its reply, checks that each reply is what it should be, and exits non-zero with the failing step's name.
"""

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from ops.client import Client, Reply
from ops.console import Style, pretty
from ops.processes import StartFailed
from ops.stack import Stack, running

VIN = "WBA00000000DEMO01"
CARDATA_VIN = "WBA00000000DEMO12"
EMAIL, PASSWORD = "demo@example.com", "demo-password"
_MAX_LINES = 32
_SETTINGS = {"BREAKER_RECOVERY_TIMEOUT_S": "2", "POLL_INTERVAL_S": "0.2"}
"""A tour has less time than production: the circuit tries again sooner and outcomes are asked for more often."""


class StepFailed(Exception):
    """A reply was not what it should be."""


class Tour:
    """Prints and checks the steps against a running stack."""

    def __init__(self, stack: Stack, style: Style) -> None:
        self._stack = stack
        self._style = style
        self._client = Client(stack.api_url, stack.key)
        self._account = ""
        self._step = "start"
        self._count = 0

    def run(self) -> None:
        """All steps; raises StepFailed."""
        steps: list[Callable[[], None]] = [
            self._connect,
            self._vehicles,
            self._read,
            self._read_again,
            self._lock,
            self._see_it_locked,
            self._fault,
            self._circuit_opens,
            self._recover,
            self._disconnect,
            self._link_cardata,
            self._read_cardata,
        ]
        for step in steps:
            step()
        self._client.close()

    def _connect(self) -> None:
        self._title(
            "Connect the account", "One login at the maker; the password is not kept, an account id comes back."
        )
        reply = self._ask(action="connect", email=EMAIL, password=PASSWORD, hcaptcha="demo-captcha")
        self._expect("the account is connected", reply.status == 200 and reply.at("result.status") == "connected")
        self._account = reply.at("result.account")

    def _vehicles(self) -> None:
        self._title("List its vehicles", "Recorded real cars, as bimmer-connected ships them.")
        reply = self._ask(action="vehicles", account=self._account)
        self._expect("there are nine", reply.at("result.count") == 9)

    def _read(self) -> None:
        self._title("Read one", "Everything that the car last reported, read at the maker now.")
        reply = self._ask(action="status", account=self._account, vin=VIN)
        self._expect("it was read, not remembered", reply.status == 200 and reply.at("meta.cached") is False)
        charge = reply.at("result.fuel_and_battery.battery_level.value")
        self._expect("the battery's charge is known", isinstance(charge, int))

    def _read_again(self) -> None:
        self._title("Read a part of it", "The snapshot from before answers: the maker hears nothing of it.")
        before = self._asked_of_the_maker()
        reply = self._ask(action="fuel", account=self._account, vin=VIN)
        self._expect("it came from the cache", reply.status == 200 and reply.at("meta.cached") is True)
        self._expect("the maker was not asked", self._asked_of_the_maker() == before)

    def _lock(self) -> None:
        self._title(
            "Lock it", "Somebody has left it unlocked. The command is recorded, then sent once; then we ask on."
        )
        self._stack.sandbox.patch_car(EMAIL, VIN, state={"doorsState": {"combinedSecurityState": "UNLOCKED"}})
        unlocked = self._ask(action="is_locked", account=self._account, vin=VIN, fresh=True)
        self._expect("it is unlocked", unlocked.at("result.locked") is False)
        lock = {"action": "lock", "account": self._account, "vin": VIN}
        reply = self._send(lock, {"Idempotency-Key": "tour-1"})
        self._expect("it is on its way", reply.status == 202 and reply.at("result.status") == "pending")
        command_id = reply.at("result.command_id")
        again = self._client.post(lock, {"Idempotency-Key": "tour-1"})
        same = again.at("result.command_id") == command_id and again.at("result.deduplicated") is True
        self._expect("the same request again is the same command", same)
        for _ in range(10):
            reply = self._ask(action="command_status", params={"command_id": command_id}, wait_s=2)
            if reply.status == 200:
                break
        self._expect("the car's own data show it", reply.at("result.state") == "confirmed")
        sent = self._stack.sandbox.stats(EMAIL)["commands"][VIN]["door-lock"]["received"]
        self._expect("the maker received exactly one lock command", sent == 1)

    def _see_it_locked(self) -> None:
        self._title("See that it is locked", "Confirming has read the car, so the cache knows.")
        reply = self._ask(action="is_locked", account=self._account, vin=VIN)
        self._expect("it is locked", reply.at("result.locked") is True)

    def _fault(self) -> None:
        self._title("The maker fails", "From now on it answers 503 to every read of a car.")
        self._stack.sandbox.fault(match={"path": "/vehicles/state"}, fault="status", status=503)
        reply = self._ask(action="status", account=self._account, vin=VIN, fresh=True)
        self._expect(
            "it is told as the maker's failure, worth retrying",
            reply.status == 502 and reply.at("error.code") == "UPSTREAM_ERROR" and reply.at("error.retryable") is True,
        )
        self._say("What we have already still answers:")
        reply = self._ask(action="is_locked", account=self._account, vin=VIN)
        self._expect("the cache answers", reply.status == 200 and reply.at("meta.cached") is True)

    def _circuit_opens(self) -> None:
        self._title("The circuit opens", "After five failures in a row the maker is left alone for a while.")
        for _ in range(5):
            reply = self._client.post({"action": "status", "account": self._account, "vin": VIN, "fresh": True})
            if reply.at("error.code") == "CIRCUIT_OPEN":
                break
        before = self._asked_of_the_maker()
        reply = self._ask(action="status", account=self._account, vin=VIN, fresh=True)
        self._expect(
            "it is refused at once, with the time to wait",
            reply.status == 503 and reply.at("error.code") == "CIRCUIT_OPEN" and "retry-after" in reply.headers,
        )
        self._expect("the maker was not asked", self._asked_of_the_maker() == before)

    def _recover(self) -> None:
        self._title("The maker recovers", "One request is let through to see, and the circuit closes.")
        self._stack.sandbox.clear_faults()
        until = time.monotonic() + 15
        reply = self._client.post({"action": "is_locked", "account": self._account, "vin": VIN, "fresh": True})
        while reply.status != 200 and time.monotonic() < until:
            time.sleep(0.2)
            reply = self._client.post({"action": "is_locked", "account": self._account, "vin": VIN, "fresh": True})
        reply = self._ask(action="is_locked", account=self._account, vin=VIN, fresh=True)
        self._expect("reads work again", reply.status == 200 and reply.at("meta.cached") is False)
        health = self._client.get("/health")
        self._show("GET /health", health)
        self._expect("the service says it is healthy", health.at("status") == "healthy")

    def _disconnect(self) -> None:
        self._title("Disconnect", "Link, tokens and command records are deleted.")
        reply = self._ask(action="disconnect", account=self._account)
        self._expect("it is gone", reply.at("result.disconnected") is True)
        reply = self._ask(action="status", account=self._account, vin=VIN)
        self._expect("nobody can use it any more", reply.at("error.code") == "ACCOUNT_NOT_FOUND")

    def _link_cardata(self) -> None:
        self._title("Link a CarData account", "BMW's official API: the owner confirms a code on BMW's own page.")
        bmw = self._stack.cardata
        # A tour has less time than an owner: BMW lets us ask each second instead of every five.
        bmw.settings(interval_s=1)
        params = {"provider": "cardata", "client_id": bmw.demo["client_id"]}
        begun = self._ask(action="connect", params=params)
        self._expect("there is a code to confirm", begun.status == 202 and bool(begun.at("result.user_code")))
        bmw.decide(begun.at("result.user_code"), approve=True)
        self._say("The owner has confirmed it:")
        time.sleep(1.1)
        reply = self._ask(action="connect_status", params={"connect_id": begun.at("result.connect_id")})
        self._expect("the account is connected", reply.status == 200 and reply.at("result.status") == "connected")
        self._account = reply.at("result.account")

    def _read_cardata(self) -> None:
        self._title(
            "Read its car", "The same action, the same fields; BMW allows 50 requests a day, so each is counted."
        )
        reply = self._ask(action="fuel", account=self._account, vin=CARDATA_VIN)
        self._expect("the battery's charge is known", isinstance(reply.at("result.battery_level.value"), int))
        used = reply.at("meta.quota.used")
        self._expect("what it cost is told", isinstance(used, int) and 0 < used < reply.at("meta.quota.limit"))
        plan = self._ask(action="fuel", account=self._account, vin=CARDATA_VIN, params={"explain": True})
        self._expect("the next read costs nothing", plan.at("result.explain.cost") == 0)
        reply = self._ask(action="unlock", account=self._account, vin=CARDATA_VIN)
        self._expect("commands say why not", reply.status == 501 and reply.at("error.code") == "NOT_SUPPORTED")

    def _title(self, title: str, explanation: str) -> None:
        self._count += 1
        self._step = title
        print(f"\n{self._style.bold(f'{self._count}. {title}')}\n{explanation}")

    def _say(self, text: str) -> None:
        print(f"\n{text}")

    def _ask(self, **request: Any) -> Reply:  # noqa: ANN401 - fields of a request
        return self._send(request)

    def _send(self, request: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Reply:
        reply = self._client.post(request, headers)
        shown = "".join(f"\n  {name}: {value}" for name, value in (headers or {}).items())
        self._show(f"POST {pretty(request, width=10_000)}{shown}", reply)
        return reply

    def _show(self, request: str, reply: Reply) -> None:
        print(f"\n  {self._style.bold(request)}")
        print(self._style.dim(f"  -> {reply.status} in {reply.took_ms:.1f} ms"))
        print("  " + pretty(reply.body, max_lines=_MAX_LINES).replace("\n", "\n  "))

    def _expect(self, what: str, holds: bool) -> None:
        if not holds:
            print(f"  {self._style.bad('NOT SO:')} {what}")
            raise StepFailed(f"step {self._count} ({self._step}): expected that {what}")
        print(f"  {self._style.good('ok:')} {what}")

    def _asked_of_the_maker(self) -> int:
        return int(self._stack.sandbox.stats()["requests_total"])


def main() -> int:
    """Returns the exit status."""
    signal.signal(signal.SIGTERM, _end)
    style = Style.of_stdout()
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="draiv-demo-") as state_dir:
        try:
            with running(Path(state_dir), {**os.environ, **_SETTINGS}, event_step_s=0.5) as stack:
                print(f"The API and the simulated maker answer after {time.monotonic() - began_s:.1f} s.")
                Tour(stack, style).run()
        except (StepFailed, StartFailed) as failure:
            print(style.bad(f"\nThe demo failed: {failure}"), file=sys.stderr)
            return 1
    print(style.good(f"\nThe tour is complete: every step was as it should be ({time.monotonic() - began_s:.1f} s)."))
    return 0


def _end(_number: int, _frame: object) -> NoReturn:
    sys.exit(143)


if __name__ == "__main__":
    sys.exit(main())
