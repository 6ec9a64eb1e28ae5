"""What one instance reads, another need not: a read from the level that they share, beside the first and the maker."""

from bench.inprocess import Instance, caller_of, instances, linked, raw, settings_of
from bench.outcome import Outcome, Table, always, ranged
from bench.stage import Stage
from bench.stats import Spread
from functions.wire import RawRequest
from ops.valkey import running_valkey

ROUNDS = 3
STORE = "second-level"
MAKER, SHARED, OWN = "asked of the maker (0 ms away)", "read by another instance", "in this instance's memory"


class SecondLevel:
    """Two instances and a Valkey; each round a fleet of cars that neither has seen."""

    name = "second level"

    def run(self, stage: Stage) -> Outcome:
        """The first reads a fleet, the second reads it after it, twice."""
        stage.upstream.set_latency(0)
        headers, principal = caller_of(stage, STORE)
        size = stage.plan.shared_vehicles
        medians: dict[str, list[float]] = {MAKER: [], SHARED: [], OWN: []}
        asked: list[float] = []
        with running_valkey() as valkey:
            settings = settings_of(stage, STORE, REDIS_URL=valkey.url)
            with instances(settings, settings) as (first, second):
                for number in range(ROUNDS):
                    (account,) = linked(stage, settings, principal, [f"fleet-{size + number}@example.com"])
                    whole = {"account": account.account}
                    for instance in (first, second):
                        instance.ask(headers, {"action": "vehicles", **whole})
                    cars = [f"WBA00000000D{index:05d}" for index in range(1, size + 1)]
                    reads = [raw(headers, {"action": "status", **whole, "vin": vin}) for vin in cars]
                    medians[MAKER].append(_median_us(first, reads))
                    before = stage.upstream.seen()
                    medians[SHARED].append(_median_us(second, reads))
                    asked.append(stage.upstream.seen().since(before).requests)
                    medians[OWN].append(_median_us(second, reads))
                    stage.say(f"{size} cars, round {number + 1}/{ROUNDS}")
        table = Table(
            "The second level",
            ("a status", "p50 us"),
            [[kind, ranged(Spread.of(times))] for kind, times in medians.items()],
            f"In one process, without HTTP; {size} cars a round. What is shared is sealed under its account's key.",
        )
        gate = always(f"upstream requests for {size} cars that another instance has read", asked, 0)
        return Outcome({"medians_us": medians, "upstream_requests": asked}, [table], gates=[gate])


def _median_us(instance: Instance, requests: list[RawRequest]) -> float:
    return Spread.of(instance.times_us(requests)).median
