"""``python -m ops.cost``: what a million requests cost by component, and what a fleet needs and costs a month.

Prices, sizes and habits stand in ``ops/cost_inputs.json``, each group with its source, to be edited (``--inputs``); the
CPU time of a read comes from a run of ``make bench`` (``--bench``; default: the newest). What is left out: free tiers,
discounts, monitoring, backups, people.
"""

import argparse
import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parent.parent
INPUTS = _ROOT / "ops" / "cost_inputs.json"
RESULTS = _ROOT / "bench" / "results"
KINDS = ("cached read", "fresh read", "command")
FLEETS = (10, 1_000, 100_000)
_CONTESTANTS = {"cached read": "cached", "fresh read": "fresh"}
_CONNECTIONS = 32
_GIB = 2**30
_DAYS_A_MONTH = 30.4


@dataclass(frozen=True, slots=True)
class Inputs:
    """What is reckoned with; every mapping is by kind of request."""

    prices: Mapping[str, Any]
    measured: Mapping[str, Any]
    assumed: Mapping[str, Any]
    cpu_s: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Fleet:
    """What a number of cars needs and costs."""

    cars: int
    requests_month: float
    peak_per_s: float
    instances: int
    """At the peak, by CPU."""
    dollars_month: float


def million(inputs: Inputs, kind: str) -> dict[str, float]:
    """Dollars for a million requests of a kind, by component."""
    prices, measured, assumed = inputs.prices, inputs.measured, inputs.assumed
    # An instance is paid for while at least one request is in it: those that are in it together share the bill.
    seconds = inputs.cpu_s[kind] + assumed["maker_ms"][kind] / 1000
    paid_s = max(seconds / assumed["concurrency_in_use"], inputs.cpu_s[kind] / assumed["cpu_in_use_at_most"])
    each = {
        "CPU": paid_s * assumed["instance_cpu"] * prices["cpu_s"],
        "memory": paid_s * assumed["instance_memory_gib"] * prices["memory_gib_s"],
        "requests": prices["million_requests"] / 1e6,
        "logs": measured["log_bytes"][kind] / _GIB * prices["log_gib"],
        "document store": measured["store_writes"][kind] / 1000 * prices["store_write_1000"]
        + measured["store_reads"][kind] / 1000 * prices["store_read_1000"],
        "network": measured["reply_bytes"][kind] / _GIB * prices["egress_gib"],
    }
    return {component: dollars * 1e6 for component, dollars in each.items()}


def fleet(inputs: Inputs, cars: int) -> Fleet:
    """What so many cars need, with one warm instance at least, and a shared store once there are two."""
    prices, assumed = inputs.prices, inputs.assumed
    month = {kind: a_day * cars * _DAYS_A_MONTH for kind, a_day in assumed["requests_a_car_and_day"].items()}
    mean_per_s = sum(month.values()) / (assumed["hours_a_month"] * 3600)
    peak_per_s = mean_per_s * assumed["peak_times_the_mean"]
    share = {kind: count / sum(month.values()) for kind, count in month.items()}
    cpu_per_request_s = sum(share[kind] * inputs.cpu_s[kind] for kind in KINDS)
    busy = peak_per_s * cpu_per_request_s / (assumed["instance_cpu"] * assumed["cpu_in_use_at_most"])
    instances = max(1, math.ceil(busy))
    warm_s = assumed["hours_a_month"] * 3600
    warm = warm_s * (
        assumed["instance_cpu"] * prices["idle_cpu_s"] + assumed["instance_memory_gib"] * prices["idle_memory_gib_s"]
    )
    used = sum(month[kind] / 1e6 * sum(million(inputs, kind).values()) for kind in KINDS)
    shared = prices["shared_store_month"] if instances > 1 else 0.0
    return Fleet(cars, sum(month.values()), peak_per_s, instances, used + warm + shared)


def load(inputs: Path, bench: Path) -> Inputs:
    """The inputs. Raises ValueError where the results of the bench are not as expected."""
    given = json.loads(inputs.read_text(encoding="utf-8"))
    cpu_s = measured_cpu_s(json.loads(bench.read_text(encoding="utf-8")))
    cpu_s["command"] = cpu_s["fresh read"] * given["assumed"]["cpu_of_a_command_in_fresh_reads"]
    return Inputs(given["prices"], given["measured"], given["assumed"], cpu_s)


def measured_cpu_s(results: Mapping[str, Any]) -> dict[str, float]:
    """CPU seconds a read, by kind: the median of the rounds with 32 connections."""
    try:
        samples = results["scenarios"]["reads"]["samples"]
        found = {
            kind: [
                float(sample["cpu_us"]) / 1e6
                for sample in samples
                if sample["cell"]["contestant"] == contestant and sample["cell"]["connections"] == _CONNECTIONS
            ]
            for kind, contestant in _CONTESTANTS.items()
        }
        return {kind: statistics.median(values) for kind, values in found.items()}
    except (KeyError, TypeError, statistics.StatisticsError) as strange:
        raise ValueError("not the results of a bench with cached and fresh reads at 32 connections") from strange


def newest(results: Path) -> Path:
    """The newest run. Raises ValueError where there is none."""
    runs = sorted(results.glob("*.json"))
    if not runs:
        raise ValueError(f"no run in {results}; `make bench` makes one")
    return runs[-1]


def report(inputs: Inputs, fleets: Sequence[int]) -> str:
    """Both tables, in Markdown."""
    columns = {kind: million(inputs, kind) for kind in KINDS}
    lines = ["| dollars a million | " + " | ".join(KINDS) + " |", "|---|" + "---:|" * len(KINDS)]
    lines += [
        f"| {component} | " + " | ".join(f"{columns[kind][component]:.2f}" for kind in KINDS) + " |"
        for component in columns[KINDS[0]]
    ]
    lines.append("| **together** | " + " | ".join(f"**{sum(columns[kind].values()):.2f}**" for kind in KINDS) + " |")
    lines.append("| CPU ms a request | " + " | ".join(f"{inputs.cpu_s[kind] * 1e3:.2f}" for kind in KINDS) + " |")
    lines += ["", "| cars | requests a month | at the peak | instances then | dollars a month |", "|" + "---:|" * 5]
    for cars in fleets:
        one = fleet(inputs, cars)
        lines.append(
            f"| {one.cars:,} | {one.requests_month:,.0f} | {one.peak_per_s:,.1f}/s | {one.instances} "
            f"| {one.dollars_month:,.0f} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="ops.cost", description=__doc__)
    parser.add_argument("--inputs", type=Path, default=INPUTS)
    parser.add_argument("--bench", type=Path, help="a file of bench/results; default: the newest")
    parser.add_argument("--cars", type=int, nargs="+", default=FLEETS)
    asked = parser.parse_args(argv)
    try:
        bench = asked.bench or newest(RESULTS)
        print(report(load(asked.inputs, bench), asked.cars))
    except (OSError, ValueError, KeyError) as bad:
        print(f"ops.cost: {bad}", file=sys.stderr)
        return 2
    print(f"\nCPU: {bench.name}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
