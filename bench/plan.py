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
    """Identical reads at once against a cold cache: an instance keeps fewer than 1,000 connections."""
    burst_rounds: int
    accounts: tuple[int, ...]
    """Accounts in the store, for the growth of a request's cost; so are the next three."""
    vehicles: tuple[int, ...]
    parts: tuple[int, ...]
    instances: tuple[int, ...]
    samples: int
    """Requests a round whose cost is taken together."""
    shared_vehicles: int
    """Vehicles that one instance reads for another."""
    endurance_requests: int
    """Cached reads of one instance between the first and the last look at its memory."""


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
    burst=990,
    burst_rounds=3,
    accounts=(10, 100, 1_000, 10_000, 100_000),
    vehicles=(1, 5, 20, 50),
    parts=(1, 2, 5, 10, 20),
    instances=(1, 2, 4),
    samples=300,
    shared_vehicles=300,
    endurance_requests=1_000_000,
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
    burst=990,
    burst_rounds=1,
    accounts=(10, 1_000, 10_000),
    vehicles=(1, 10, 50),
    parts=(1, 5, 20),
    instances=(1, 4),
    samples=100,
    shared_vehicles=60,
    endurance_requests=5_000,
)
