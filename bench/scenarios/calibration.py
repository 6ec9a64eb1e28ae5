"""What the load generator can do against a trivial server: how far it is from being the bottleneck."""

import subprocess
import sys
from dataclasses import dataclass, field

from bench.load import Load
from bench.outcome import Outcome, Table, ranged
from bench.servers import ROOT, environment
from bench.stage import Stage
from bench.stats import Spread

ROUNDS = 3
CONNECTIONS = 32
BODY = b'{"action":"fuel"}'


@dataclass(frozen=True)
class Trivial:
    """The server."""

    port: int
    headers: dict[str, str] = field(default_factory=dict)


class Calibration:
    """The generators of the other scenarios against a server that does nothing at all."""

    name = "calibration"

    def run(self, stage: Stage) -> Outcome:
        """A few rounds of each generator."""
        command = [sys.executable, "bench/targets/trivial.py"]
        server = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True)
        try:
            trivial = Trivial(int(server.stdout.readline()) if server.stdout else 0)
            generators = {generator.name: generator for generator in (stage.quick_replies, stage.slow_replies)}
            loads: dict[str, list[Load]] = {name: [] for name in generators}
            for _ in range(ROUNDS):
                for name, generator in generators.items():
                    loads[name].append(generator.drive(trivial, (BODY,), CONNECTIONS, 1.0))
        finally:
            server.terminate()
            server.wait(timeout=5)
        rows = [[name, *_figures(rounds)] for name, rounds in loads.items()]
        stage.say("; ".join(f"{name} {figures[0]} replies/s" for name, *figures in rows))
        raw = {name: [load.per_second for load in rounds] for name, rounds in loads.items()}
        note = (
            f"Against a bare asyncio server that sends a fixed reply, {CONNECTIONS} connections. wrk drives the "
            "contestants that answer from memory. Those that ask the maker are driven by a generator in Python, which "
            "lets the requests in flight at the end finish and counts them. Without wrk the latter drives all."
        )
        return Outcome(
            raw, [Table("The load generators", ("generator", "replies/s", "own CPU us a reply"), rows, note)]
        )


def _figures(rounds: list[Load]) -> list[str]:
    return [
        ranged(Spread.of(load.per_second for load in rounds)),
        ranged(Spread.of(load.generator_cpu_s / load.requests * 1e6 for load in rounds), 1),
    ]
