"""The main comparison: one read, four ways, at each number of connections and each latency of the maker."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from bench import processes
from bench.contestants import Contestant
from bench.load import Generator
from bench.outcome import Chart, Gate, Outcome, Table, always, at_least, at_most, ranged
from bench.stage import Stage
from bench.stats import Spread, known

CACHED_BOUND = 0.80
NAIVE_BOUND, NAIVE_CONNECTIONS, NAIVE_LATENCY_MS = 20.0, 32, 50
FILLING_MS = 300
FEWEST_FOR = {"p50_ms": 5, "p95_ms": 40, "p99_ms": 200}
"""Replies in a round below which a percentile says nothing."""
SLOW_ROUNDS, SLOW_ROUNDS_OVER_32 = 3, 1
"""A slow contestant takes part in no more rounds than these, the second figure for more than 32 connections."""


@dataclass(frozen=True)
class Cell:
    """One row of the table; ``latency_ms`` is ``None`` for a contestant that does not ask the maker."""

    contestant: str
    connections: int
    latency_ms: int | None


@dataclass(frozen=True)
class Sample:
    """One cell, one round."""

    cell: Cell
    round: int
    generator: str
    requests: int
    errors: int
    per_second: float
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    cpu_us: float | None
    """CPU of the server's process tree a reply; ``None`` where abandoned requests would distort it."""
    upstream_requests: float
    upstream_connections: int
    upstream_cpu_share: float
    """Cores that the simulated maker used; near 1 it, and not the contestant, is measured."""
    generator_cpu_share: float


class Reads:
    """See the module."""

    name = "reads"

    def run(self, stage: Stage) -> Outcome:
        """All rounds, contestants taking turns in each."""
        contestants = (stage.empty, stage.empty_patient, stage.cached, stage.fresh, stage.naive)
        samples = [
            measure(stage, contestant, cell, number)
            for number in range(stage.plan.rounds)
            for contestant, cell in _turns(stage, contestants, number)
        ]
        stage.upstream.set_latency(0)
        table = Results(samples, {contestant.key: contestant.title for contestant in contestants})
        memory = {contestant.title: processes.memory(contestant.server.pid) for contestant in contestants}
        return Outcome(
            raw={
                "samples": [asdict(sample) for sample in samples],
                "memory": {title: asdict(held) for title, held in memory.items()},
                "request_bytes": len(stage.cached.bodies[0]),
                "reply_bytes": len(stage.cached.warm()),
            },
            tables=[table.as_table(), _memory_table(memory)],
            charts=table.charts(stage.plan.latencies_ms, stage.plan.connections),
            gates=table.gates(),
        )


class Results:
    """The samples of all rounds, by cell."""

    def __init__(self, samples: list[Sample], titles: dict[str, str]) -> None:
        self._titles = titles
        self._cells: dict[Cell, list[Sample]] = {}
        for sample in samples:
            self._cells.setdefault(sample.cell, []).append(sample)

    def gates(self) -> list[Gate]:
        """The bounds on throughput and on what the maker sees."""
        cached = self._cells[Cell("cached", NAIVE_CONNECTIONS, None)]
        fresh = [sample for cell, samples in self._cells.items() if cell.contestant == "fresh" for sample in samples]
        gates = [
            *self._shares(),
            at_most(
                "upstream requests a fresh read",
                Spread.of(sample.upstream_requests for sample in fresh),
                2,
                remark="all cells",
            ),
            always(
                "new upstream connections in a warm round of fresh reads",
                [sample.upstream_connections for sample in fresh],
                0,
                remark="all cells",
            ),
            always("failed requests, all contestants", [sum(s.errors for s in self._all())], 0),
        ]
        naive = self._cells.get(Cell("naive", NAIVE_CONNECTIONS, NAIVE_LATENCY_MS))
        if naive:
            times = _ratio(cached[: len(naive)], naive)
            name = f"cached read, throughput against the naive wrapper's at {NAIVE_LATENCY_MS} ms upstream"
            gates.insert(0, at_least(name, times, NAIVE_BOUND))
        return gates

    def _shares(self) -> Iterator[Gate]:
        for connections in self._counts():
            name = f"cached read, throughput as a share of the empty function's, {connections} connections"
            yield at_least(name, self._share("empty", connections), CACHED_BOUND)

    def _share(self, of: str, connections: int) -> Spread:
        return _ratio(*(self._cells[Cell(key, connections, None)] for key in ("cached", of)))

    def _counts(self) -> list[int]:
        return sorted({cell.connections for cell in self._cells if cell.contestant == "empty"})

    def as_table(self) -> Table:
        """A row a cell, ordered by connections, then by contestant."""
        order = list(self._titles)
        cells = sorted(self._cells, key=lambda c: (c.connections, order.index(c.contestant), c.latency_ms or 0))
        header = (
            "contestant", "connections", "upstream ms", "replies/s", "x empty", "p50 ms", "p95 ms", "p99 ms",
            "CPU us/reply", "upstream requests/reply", "new upstream connections/reply",
        )  # fmt: skip
        note = (
            "`-`: a round had too few replies to say (5 for p50, 40 for p95, 200 for p99). The empty function and the "
            "cached read never ask the maker, so its latency does not matter to them. The naive wrapper takes part in "
            "three rounds only, above 32 connections in one. CPU is that of the server's whole process tree. Our "
            "worker serves even the empty function faster than the framework's own, so that a part of the cached "
            f"read's share is the worker's: of the empty function under our worker it is {self._under_our_worker()}."
        )
        return Table("One read, four ways", header, [self._row(cell) for cell in cells], note)

    def _under_our_worker(self) -> str:
        shares = [
            f"{ranged(self._share('empty_patient', count), 2)} at {count} connections" for count in self._counts()
        ]
        return ", ".join(shares)

    def charts(self, latencies_ms: tuple[int, ...], connections: tuple[int, ...]) -> list[Chart]:
        """Throughput and median latency, by connections and by latency of the maker."""
        places = [(count, latency) for count in connections for latency in latencies_ms]
        labels = [f"{count} conn.\n{latency} ms" for count, latency in places]
        return [
            Chart(name, title, label, labels, {
                title_of: [self._spread(key, count, latency, field) for count, latency in places]
                for key, title_of in self._titles.items()
            })
            for name, title, label, field in (
                ("throughput", "Throughput by connections and upstream latency", "replies/s (log)", "per_second"),
                ("latency", "Median latency by connections and upstream latency", "p50, ms (log)", "p50_ms"),
            )
        ]  # fmt: skip

    def _row(self, cell: Cell) -> list[str]:
        samples = self._cells[cell]
        empty = self._cells[Cell("empty", cell.connections, None)]
        latency = "any" if cell.latency_ms is None else str(cell.latency_ms)
        upstream = sum(s.upstream_requests * s.requests for s in samples) / max(1, sum(s.requests for s in samples))
        opened = sum(s.upstream_connections for s in samples) / max(1, sum(s.requests for s in samples))
        return [
            self._titles[cell.contestant], str(cell.connections), latency,
            ranged(_over(samples, "per_second"), 0 if samples[0].per_second > 100 else 1),
            f"{_ratio(samples, empty[: len(samples)]).median:.3f}",
            *(ranged(_over(samples, field), 2) for field in ("p50_ms", "p95_ms", "p99_ms")),
            ranged(_over(samples, "cpu_us")), f"{upstream:.2f}", f"{opened:.2f}",
        ]  # fmt: skip

    def _spread(self, key: str, connections: int, latency_ms: int, field: str) -> Spread | None:
        samples = self._cells.get(Cell(key, connections, latency_ms)) or self._cells.get(Cell(key, connections, None))
        return _over(samples, field) if samples else None

    def _all(self) -> Iterator[Sample]:
        for samples in self._cells.values():
            yield from samples


def measure(stage: Stage, contestant: Contestant, cell: Cell, number: int) -> Sample:
    """Warm up, measure, and let the server come to rest."""
    generator: Generator = stage.slow_replies if contestant.asks_upstream else stage.quick_replies
    server, bodies = contestant.server, contestant.bodies
    if not contestant.is_slow:
        if cell.latency_ms is not None:
            # A pool is warm when it holds as many connections as can ever be busy at once: a slow maker has them all.
            stage.upstream.set_latency(max(cell.latency_ms, FILLING_MS))
        stage.slow_replies.drive(server, bodies, 2 * cell.connections, stage.plan.warm_up_s)
    if cell.latency_ms is not None:
        stage.upstream.set_latency(cell.latency_ms)
    server.settle()
    cpu, maker_cpu, seen = processes.cpu_s(server.pid), processes.cpu_s(stage.upstream.pid), stage.upstream.seen()
    load = generator.drive(server, bodies, cell.connections, stage.plan.duration_s)
    cpu, maker_cpu = processes.cpu_s(server.pid) - cpu, processes.cpu_s(stage.upstream.pid) - maker_cpu
    asked = stage.upstream.seen().since(seen)
    sample = Sample(
        cell=cell,
        round=number,
        generator=generator.name,
        requests=load.requests,
        errors=load.errors,
        per_second=load.per_second,
        p50_ms=_if_enough(load.requests, "p50_ms", load.p50_ms),
        p95_ms=_if_enough(load.requests, "p95_ms", load.p95_ms),
        p99_ms=_if_enough(load.requests, "p99_ms", load.p99_ms),
        cpu_us=cpu / load.requests * 1e6 if load.requests else None,
        upstream_requests=asked.requests / max(1, load.requests),
        upstream_connections=asked.connections,
        upstream_cpu_share=maker_cpu / load.seconds,
        generator_cpu_share=load.generator_cpu_s / load.seconds,
    )
    server.settle()
    _tell(stage, sample)
    return sample


def _turns(stage: Stage, contestants: tuple[Contestant, ...], number: int) -> Iterator[tuple[Contestant, Cell]]:
    plan = stage.plan
    for connections in plan.connections:
        for contestant in contestants:
            if not contestant.asks_upstream:
                yield contestant, Cell(contestant.key, connections, None)
        for latency_ms in plan.latencies_ms:
            stage.upstream.set_latency(latency_ms)
            for contestant in contestants:
                affordable = number < (SLOW_ROUNDS if connections <= 32 else SLOW_ROUNDS_OVER_32)
                if contestant.asks_upstream and (affordable or not contestant.is_slow):
                    yield contestant, Cell(contestant.key, connections, latency_ms)


def _if_enough(requests: int, quantile: str, value: float | None) -> float | None:
    return value if requests >= FEWEST_FOR[quantile] else None


def _over(samples: list[Sample], field: str) -> Spread | None:
    values = known(getattr(sample, field) for sample in samples)
    return Spread.of(values) if len(values) == len(samples) else None


def _ratio(ours: list[Sample], theirs: list[Sample]) -> Spread:
    return Spread.of(a.per_second / b.per_second for a, b in zip(ours, theirs, strict=True))


def _tell(stage: Stage, sample: Sample) -> None:
    cell = sample.cell
    latency = "" if cell.latency_ms is None else f" upstream {cell.latency_ms} ms"
    p50 = "-" if sample.p50_ms is None else f"{sample.p50_ms:.2f} ms"
    where = (
        f"round {sample.round + 1}/{stage.plan.rounds}  {cell.contestant:<6}{cell.connections:>4} connections{latency}"
    )
    stage.say(f"{where}: {sample.per_second:,.0f}/s, p50 {p50}")


def _memory_table(memory: dict[str, processes.Memory]) -> Table:
    rows = [(title, f"{held.largest_rss_mib:.0f}", f"{held.tree_mib:.0f}") for title, held in memory.items()]
    note = (
        "After all rounds. The instance counts pages that the master and its worker share once, which is what a "
        "container is charged for."
    )
    return Table("Memory an instance", ("contestant", "worker RSS, MiB", "instance, MiB"), rows, note)
