"""Where a load test happens: four instances behind one port, a Valkey, a store, and a maker that sometimes fails."""

import asyncio
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench import processes
from bench.contestants import raised_limits
from bench.loadtest.mix import Car
from bench.population import link_all
from bench.servers import FunctionServer
from common.api_keys import PRINCIPAL_PREFIX, ApiKey
from common.settings import load
from ops.stack import issue_key, master_key
from ops.valkey import Valkey, running_valkey
from sandbox.process import RunningSandbox, running_sandbox

INSTANCES = 4
CALLERS = 4
ACCOUNTS_EACH = 8
FLEET = 25
CARS = tuple(f"WBA00000000DEMO0{number}" for number in range(1, 6))
LATENCY_MS = 150
ONE_IN = 100
"""So many of the maker's requests go well for each that does not."""


@dataclass(frozen=True)
class Place:
    """Everything that runs."""

    server: FunctionServer
    maker: RunningSandbox
    valkey: Valkey
    cars: tuple[Car, ...]
    """To be read."""
    commanded: tuple[Car, ...]
    """To get one command each."""

    def instances(self) -> list[psutil.Process]:
        """The workers behind the port."""
        return psutil.Process(self.server.pid).children()

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds so far; of the instances without one that was killed."""
        pids = {"instances": self.server.pid, "simulated maker": self.maker.pid, "load generator": os.getpid()}
        own = psutil.Process().cpu_times()
        return {who: own.user + own.system if pid == os.getpid() else processes.cpu_s(pid) for who, pid in pids.items()}

    def begin_trouble(self) -> None:
        """From now on the maker is far away and fails now and then."""
        self.maker.settings(latency_ms=LATENCY_MS)
        self.maker.fault(match={"path": "/eadrax-"}, fault="status", status=503, every=ONE_IN)
        self.maker.zero_stats()


@contextmanager
def set_up(commands: int) -> Iterator[Place]:
    """Start and fill it, for so many commands; ended afterwards."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="load-test-")))
        maker = stack.enter_context(running_sandbox(event_step_s=0))
        maker.settings(expires_in=86_400)
        valkey = stack.enter_context(running_valkey())
        env = {
            **raised_limits(),
            "ENVIRONMENT": "production",
            "CALLERS": "api_keys",
            "TOKEN_KEYS": master_key(),
            "DOCUMENTS_URL": f"sqlite:///{folder / 'documents.db'}",
            "REDIS_URL": valkey.url,
            "MYBMW_ORIGIN": maker.origin,
            "REQUIRE_IDEMPOTENCY_KEY": "true",
            "THREADS": "32",
            "WORKERS": str(INSTANCES),
        }
        cars, commanded = _link(env, maker, commands)
        server = FunctionServer("bmw_api", "main.py", env)
        stack.callback(server.stop)
        server.start()
        yield Place(server, maker, valkey, cars, commanded)


def _link(env: dict[str, str], maker: RunningSandbox, commands: int) -> tuple[tuple[Car, ...], tuple[Car, ...]]:
    """Accounts of several callers, some whose cars are read and some whose cars get commands."""
    settings = load(env)
    fleets = -(-commands // (CALLERS * FLEET))
    cars: list[Car] = []
    commanded: list[Car] = []
    for caller in range(CALLERS):
        text = issue_key(env)
        key = ApiKey.parse(text)
        if key is None:
            raise AssertionError("the key that was issued is none")
        headers = {"X-API-Key": text}
        people = [f"user-{caller * ACCOUNTS_EACH + number}@example.com" for number in range(ACCOUNTS_EACH)]
        # A fleet's cars are numbered from 1, whoever owns it, and a car takes one command at a time, whoever sends it:
        # so each fleet is larger than the one before, and only what is new in it gets commands.
        first = {f"fleet-{(nth + 1) * FLEET}@example.com": nth * FLEET + 1 for nth in _nths(caller, fleets)}
        linked = asyncio.run(link_all(settings, maker, f"{PRINCIPAL_PREFIX}{key.id}", people + list(first)))
        for one in linked:
            if one.email in people:
                cars += [Car(headers, one.email, one.account, vin) for vin in CARS]
            else:
                vins = [f"WBA00000000D{first[one.email] + number:05d}" for number in range(FLEET)]
                commanded += [Car(headers, one.email, one.account, vin) for vin in vins]
    return tuple(cars), tuple(commanded)


def _nths(caller: int, fleets: int) -> range:
    return range(caller * fleets, (caller + 1) * fleets)
