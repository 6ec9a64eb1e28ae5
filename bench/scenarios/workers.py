"""Four workers behind one port against one: what two cores make of them, and what a request costs them.

``WORKERS`` is functions-framework's own setting: as many gunicorn workers take connections from one listening socket.
Each is an instance of its own, with its own memory; they share the store and the Valkey.
"""

from dataclasses import asdict, dataclass

from bench import processes
from bench.contestants import link, read
from bench.outcome import Outcome, Table, at_least, ranged
from bench.scenarios.growth import flat
from bench.servers import FunctionServer
from bench.stage import Stage
from bench.stats import Spread, exponent
from ops.valkey import running_valkey

STORE = "workers"
CONNECTIONS = 64
CARS = 32
BOUND = 1.7


@dataclass(frozen=True, slots=True)
class _Sample:
    per_second: float
    cpu_us: float
    p95_ms: float
    upstream: int
    errors: int


class Workers:
    """Cached reads of 32 accounts."""

    name = "workers"

    def run(self, stage: Stage) -> Outcome:
        """Each number of workers takes its turn in each round."""
        stage.upstream.set_latency(0)
        counts = stage.plan.instances
        samples: dict[int, list[_Sample]] = {count: [] for count in counts}
        with running_valkey() as valkey:
            servers = {c: stage.stable.ours(STORE, WORKERS=str(c), REDIS_URL=valkey.url) for c in counts}
            for server in servers.values():
                server.start()
            first = servers[counts[0]]
            bodies = [read(link(first, f"user-{n}@example.com"), vin="WBA00000000DEMO01") for n in range(CARS)]
            for number in range(stage.plan.rounds):
                for count, server in servers.items():
                    sample = _measure(stage, server, bodies)
                    samples[count].append(sample)
                    stage.say(f"round {number + 1}/{stage.plan.rounds}  {count} workers: {sample.per_second:,.0f}/s")
            for server in servers.values():
                server.stop()
        return _outcome(samples)


def _measure(stage: Stage, server: FunctionServer, bodies: list[bytes]) -> _Sample:
    stage.slow_replies.drive(server, bodies, 2 * CONNECTIONS, stage.plan.warm_up_s)
    cpu_s, before = processes.cpu_s(server.pid), stage.upstream.seen()
    load = stage.quick_replies.drive(server, bodies, CONNECTIONS, stage.plan.duration_s)
    cpu_s = processes.cpu_s(server.pid) - cpu_s
    upstream = stage.upstream.seen().since(before).requests
    return _Sample(load.per_second, cpu_s / load.requests * 1e6, load.p95_ms or 0.0, upstream, load.errors)


def _outcome(samples: dict[int, list[_Sample]]) -> Outcome:
    one, *_, most = samples
    gain = Spread.of(m.per_second / s.per_second for m, s in zip(samples[most], samples[one], strict=True))
    costs: dict[float, float] = {
        count: Spread.of(sample.cpu_us for sample in rounds).median for count, rounds in samples.items()
    }
    grows = exponent(costs)
    rows = [
        [
            str(count),
            ranged(Spread.of(s.per_second for s in rounds)),
            ranged(Spread.of(s.p95_ms for s in rounds), 1),
            ranged(Spread.of(s.cpu_us for s in rounds)),
            str(sum(s.upstream for s in rounds)),
            str(sum(s.errors for s in rounds)),
        ]
        for count, rounds in samples.items()
    ]
    header = ("workers", "replies/s", "p95 ms", "CPU us/reply", "upstream requests", "failed")
    note = (
        f"Cached reads of {CARS} accounts over {CONNECTIONS} connections to one port; all workers share a SQLite store "
        "and a Valkey. CPU is that of the workers and their parent. CPU a reply grows with instances by an exponent of "
        f"{grows:+.3f}."
    )
    gates = [
        at_least(f"{most} workers behind one port, throughput against one worker's", gain, BOUND),
        flat("growth with instances: a cached read's CPU", grows),
    ]
    raw = {str(count): [asdict(s) for s in rounds] for count, rounds in samples.items()}
    return Outcome(raw, [Table("Workers", header, rows, note)], gates=gates)
