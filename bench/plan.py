"""How much to measure: the full run and the quick one."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """The size of a run. Durations are seconds of load a cell and round, after its warm-up."""

    name: str
    rounds: int
    duration_s: float
    warm_up_s: float
    connections: tuple[int, ...]
    latencies_ms: tuple[int, ...]
    import_rounds: int
    start_rounds: int
    overhead_pairs: tuple[tuple[int, int], ...]
    """For the cost of a fresh read: (upstream latency in ms, pairs of calls)."""
    burst: int
    """Identical reads at once against a cold cache."""
    burst_rounds: int


FULL = Plan(
    name="full",
    rounds=4,
    duration_s=2.0,
    warm_up_s=1.0,
    connections=(1, 32, 256),
    latencies_ms=(0, 50, 150),
    import_rounds=15,
    start_rounds=7,
    overhead_pairs=((0, 400), (50, 60)),
    burst=1_000,
    burst_rounds=3,
)

QUICK = Plan(
    name="quick",
    rounds=3,
    duration_s=1.0,
    warm_up_s=1.0,
    connections=(1, 32),
    latencies_ms=(50,),
    import_rounds=15,
    start_rounds=2,
    overhead_pairs=((0, 200), (50, 20)),
    burst=1_000,
    burst_rounds=1,
)
