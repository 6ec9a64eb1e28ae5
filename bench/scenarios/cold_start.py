"""Cold start: what importing `main` costs, and how long a new process takes to its first replies."""

import subprocess
import sys
import time
from collections.abc import Callable

from bench import processes, wire
from bench.contestants import Contestant
from bench.outcome import Gate, Outcome, Table, at_most, ranged
from bench.servers import ROOT, FunctionServer, environment
from bench.stage import Stage
from bench.stats import Spread

BOUND = 1.3
BASE = "functions_framework, flask"
OURS = "functions_framework, flask, main"
TIMED = "import time; started = time.process_time(); import {}; print((time.process_time() - started) * 1e3)"


class ColdStart:
    """Fresh processes only, taking turns."""

    name = "cold start"

    def run(self, stage: Stage) -> Outcome:
        """Imports first, then whole servers."""
        imports = self._imports(stage)
        starts = self._starts(stage)
        ratio = Spread.of(ours / base for ours, base in zip(imports[OURS], imports[BASE], strict=True))
        gates: list[Gate] = [at_most("CPU to import `main`, times that of functions_framework and flask", ratio, BOUND)]
        import_rows = [[f"`import {what}`", ranged(Spread.of(times), 1)] for what, times in imports.items()]
        import_rows.append(["ratio", ranged(ratio, 2)])
        start_rows = [
            [key, *(ranged(Spread.of(row[i] for row in rows)) for i in range(4))] for key, rows in starts.items()
        ]
        header = ("contestant", "first 200, wall ms", "first 200, CPU ms", "first read, wall ms", "first read, CPU ms")
        note = (
            "From the start of the process; the maker answers at once. The first read of ours goes all the way: store, "
            "vehicle list, state. CPU is counted in ticks of 10 ms."
        )
        return Outcome(
            raw={"imports_cpu_ms": imports, "starts_ms": starts},
            tables=[
                Table(f"Imports, {stage.plan.import_rounds} fresh processes each", ("", "CPU ms"), import_rows),
                Table("Process start", header, start_rows, note),
            ],
            gates=gates,
        )

    def _imports(self, stage: Stage) -> dict[str, list[float]]:
        _import_cpu_ms(OURS)  # unmeasured: whoever comes first writes the byte code
        stage.say(f"imports, {stage.plan.import_rounds} rounds")
        times: dict[str, list[float]] = {BASE: [], OURS: []}
        for _ in range(stage.plan.import_rounds):
            for what, taken in times.items():
                taken.append(_import_cpu_ms(what))
        return times

    def _starts(self, stage: Stage) -> dict[str, list[list[float]]]:
        stage.upstream.set_latency(0)
        makers: dict[Contestant, Callable[[], FunctionServer]] = {
            stage.empty: stage.empty.server.twin,
            stage.cached: stage.cached.server.twin,
            stage.naive: stage.naive.server.twin,
        }
        starts: dict[str, list[list[float]]] = {contestant.title: [] for contestant in makers}
        for number in range(stage.plan.start_rounds):
            for contestant, make in makers.items():
                starts[contestant.title].append(_start_ms(make(), contestant.bodies[0]))
            stage.say(f"process start, round {number + 1}/{stage.plan.start_rounds}")
        return starts


def _import_cpu_ms(modules: str) -> float:
    command = [sys.executable, "-c", TIMED.format(modules)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def _start_ms(server: FunctionServer, body: bytes) -> list[float]:
    started = time.perf_counter()
    server.launch()
    try:
        server.await_healthy()
        healthy = [(time.perf_counter() - started) * 1e3, processes.cpu_s(server.pid) * 1e3]
        reply = wire.ask_once(server.port, wire.post("/", body, server.headers))
        if reply.status != 200:
            raise AssertionError(f"the first read answered {reply.status}: {reply.body[:300]!r}")
        return [*healthy, (time.perf_counter() - started) * 1e3, processes.cpu_s(server.pid) * 1e3]
    finally:
        server.stop()
