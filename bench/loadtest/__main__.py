"""`make load`: a minute of everyday load while things break; writes docs/load-test.md.

Exits with 1 where a bound does not hold.
"""

import argparse
import asyncio
import os
import platform
import random
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.loadtest import page, place, trouble, verdict
from bench.loadtest.client import Client, Sample
from bench.loadtest.mix import SHARES, Car, Command, Kind, Mix
from bench.loadtest.place import Place
from bench.servers import ROOT

SECONDS, PER_SECOND = 60.0, 100.0
QUICK_SECONDS = 12.0
SEED = 5


def main(arguments: Sequence[str] | None = None, docs: Path = ROOT / "docs") -> int:
    """Run; gives the exit code. The page goes to ``docs``."""
    options = _parse(arguments)
    duration_s = QUICK_SECONDS if options.quick else options.seconds
    started = datetime.now(UTC)
    commands = int(duration_s * options.rate * SHARES[Kind.COMMAND] / 100 * 2) + 20
    print("starting four instances, a Valkey and the simulated maker", flush=True)
    with place.set_up(commands) as where:
        findings = asyncio.run(
            _test(where, duration_s, options.rate, _circumstances(started, duration_s, options.rate))
        )
    if not options.quick:
        print(f"wrote {page.write(findings, docs).name}")
    gates = findings.gates()
    for gate in gates:
        print(gate.line)
    return 0 if all(gate.passed for gate in gates) else 1


async def _test(where: Place, duration_s: float, rate: float, circumstances: dict[str, Any]) -> page.Findings:
    client = Client(where.server.port)
    await client.open()
    mix = Mix(random.Random(SEED), where.cars, where.commanded)
    print(f"reading {len(where.cars)} cars once", flush=True)
    await _warm(client, where.cars + where.commanded[:: place.FLEET])
    await asyncio.to_thread(where.begin_trouble)
    print(f"{rate:g} requests a second for {duration_s:g} s", flush=True)
    events = trouble.Events()
    began = await asyncio.to_thread(where.cpu_s)
    samples, _ = await asyncio.gather(client.run(mix.next, rate, duration_s), trouble.happen(where, duration_s, events))
    used = {who: spent - began[who] for who, spent in (await asyncio.to_thread(where.cpu_s)).items()}
    circumstances["cores_used"] = ", ".join(f"{who} {cpu_s / duration_s:.2f}" for who, cpu_s in used.items())
    stats = await asyncio.to_thread(where.maker.stats)
    await asyncio.to_thread(where.maker.clear_faults)
    accounts = await _settle(where, client, samples)
    client.close()
    for at_s, what in events.marks:
        print(f"  {at_s:5.1f} s  {what}")
    return page.Findings.of(circumstances, samples, accounts, events, sum(stats["faults_injected"].values()))


async def _warm(client: Client, cars: Sequence[Car]) -> None:
    """Read every car once, and make every fleet known."""
    for car in cars:
        read = Command("warm", "status", car)
        reply = await client.ask(read.message)
        if reply is None or reply.status != 200:
            raise AssertionError(f"the first read of a car failed: {reply}")


async def _settle(where: Place, client: Client, samples: Sequence[Sample]) -> verdict.Accounts:
    """Ask again, with the same key, for each command that had no reply; then compare with what the maker received."""
    said: dict[str, bytes] = {}
    commands: list[Command] = []
    for sample in samples:
        if (command := sample.ask.command) is None:
            continue
        commands.append(command)
        body = sample.body
        if sample.status is None:
            again = await client.ask(command.message)
            body = again.body if again else b""
        said[command.key] = body
    received: dict[str, int] = {}
    for email in {command.car.email for command in commands}:
        counted = await asyncio.to_thread(where.maker.stats, email)
        for command in commands:
            if command.car.email == email:
                services = counted["commands"].get(command.car.vin, {})
                received[command.key] = services.get(verdict.SERVICES[command.action], {}).get("received", 0)
    return verdict.settle(commands, said, received)


def _circumstances(started: datetime, duration_s: float, rate: float) -> dict[str, Any]:
    return {
        "started_utc": started.strftime("%Y-%m-%d %H:%M"),
        "load": f"{rate:g} requests a second for {duration_s:g} s, open loop",
        "mix": ", ".join(f"{share} % {kind}" for kind, share in SHARES.items()),
        "instances": f"{place.INSTANCES} workers behind one port, 32 threads each; SQLite and Valkey shared",
        "accounts": f"{place.CALLERS * place.ACCOUNTS_EACH} of {place.CALLERS} callers, {len(place.CARS)} cars of each",
        "upstream_latency": f"{place.LATENCY_MS} ms a request",
        "upstream_faults": f"a 503 for every {place.ONE_IN}th request",
        "processors": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.loadtest", description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_SECONDS:g} s, writes no page")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--rate", type=float, default=PER_SECOND, help="requests a second")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
