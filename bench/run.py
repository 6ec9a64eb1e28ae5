"""`python -m bench.run`: measure everything side by side, keep the raw figures, write the page, check the bounds.

Exits with 1 where a bound does not hold.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from bench import report
from bench.outcome import Gate, Outcome
from bench.plan import FULL, QUICK, Plan
from bench.scenarios import SCENARIOS
from bench.servers import ROOT
from bench.stage import THREADS, Stage, load_average, set_up

RESULTS = ROOT / "bench" / "results"
PACKAGES = ("functions-framework", "flask", "gunicorn", "bimmer-connected", "httpx", "pydantic")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; gives the exit code."""
    options = _parse(arguments)
    plan = QUICK if options.quick else FULL
    started = datetime.now(UTC)
    clock = time.monotonic()
    with set_up(plan) as stage:
        circumstances = _circumstances(plan, stage, started)
        outcomes = _run(stage, options.only)
    circumstances |= {"load_average_after": round(load_average(), 2), "took_s": round(time.monotonic() - clock)}
    gates = [gate for outcome in outcomes.values() for gate in outcome.gates]
    if not options.only:
        _keep(started, circumstances, outcomes, gates)
        if plan is FULL or options.docs:
            print(f"\nwrote {report.write(outcomes, circumstances, ROOT / 'docs').relative_to(ROOT)}")
    for outcome in outcomes.values():
        for table in outcome.tables:
            print(f"\n{report.markdown(table)}", end="")
    print(f"\n{plan.name} run, {circumstances['took_s']} s")
    for gate in gates:
        print(gate.line)
    return 0 if all(gate.passed for gate in gates) else 1


def _run(stage: Stage, only: Sequence[str]) -> dict[str, Outcome]:
    outcomes: dict[str, Outcome] = {}
    for scenario in SCENARIOS:
        if not only or scenario.name in only:
            print(f"\n{scenario.name}", flush=True)
            outcomes[scenario.name] = scenario.run(stage)
    return outcomes


def _circumstances(plan: Plan, stage: Stage, started: datetime) -> dict[str, Any]:
    return {
        "started_utc": started.strftime("%Y-%m-%d %H:%M"),
        "plan": f"{plan.name}: {plan.rounds} rounds of {plan.duration_s:g} s a cell",
        "processors": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": ", ".join(f"{name} {version(name)}" for name in PACKAGES),
        "threads": THREADS,
        "generator": stage.quick_replies.name,
        "load_average_before": round(load_average(), 2),
    }


def _keep(started: datetime, circumstances: dict[str, Any], outcomes: dict[str, Outcome], gates: list[Gate]) -> None:
    RESULTS.mkdir(exist_ok=True)
    record = {
        "run": circumstances,
        "gates": [gate.as_dict() for gate in gates],
        "scenarios": {name: outcome.raw for name, outcome in outcomes.items()},
    }
    path = RESULTS / f"{started.strftime('%Y%m%dT%H%M%SZ')}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"\nkept {path.relative_to(ROOT)}")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="about three minutes, fewer connections and latencies")
    parser.add_argument("--docs", action="store_true", help="write docs/benchmarks.md after a quick run too")
    names = [scenario.name for scenario in SCENARIOS]
    parser.add_argument("--only", action="append", default=[], choices=names, help="these scenarios; keeps nothing")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
