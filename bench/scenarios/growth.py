"""Whether a request's cost grows with what there is: accounts in the stores, cars of an account, parts of a batch.

Cost is CPU time of the process, which nothing that runs beside it can change much, as a median of rounds. How it grows
with instances is measured with the workers.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from bench.crowding import crowd, size_of
from bench.inprocess import Instance, caller_of, instances, linked, raw, settings_of
from bench.outcome import Gate, Outcome, Table, ranged
from bench.population import Linked
from bench.stage import Stage
from bench.stats import Spread, exponent
from bench.upstream import DEMO_VIN
from functions.wire import RawRequest

ROUNDS = 5
BOUND = 0.1
"""Ten times as much may cost a quarter more; what is flat stays well below."""
STORE = "growth"
COLD_ROUNDS = 15
"""Each with an instance that has seen nothing yet."""

Costs = dict[int, list[float]]
"""By size: the cost in each round, CPU microseconds."""


class Growth:
    """In this process."""

    name = "growth"

    def run(self, stage: Stage) -> Outcome:
        """One kind of growth after the other."""
        stage.upstream.set_latency(0)
        cold, warm = self._accounts(stage)
        found: Mapping[str, Costs] = {
            "accounts in the stores: a request that has to look one up": cold,
            "accounts in the stores: a cached read": warm,
            "cars of an account: a cached read": self._vehicles(stage),
            "parts of a batch: a part": self._parts(stage),
        }
        gates, rows = [], []
        for what, costs in found.items():
            grows = exponent({size: Spread.of(taken).median for size, taken in costs.items()})
            gates.append(flat(f"growth with {what}", grows))
            shown = "; ".join(f"{size:,}: {ranged(Spread.of(taken))}" for size, taken in costs.items())
            rows.append([what, shown, f"{grows:+.3f}"])
        note = (
            "In one process, without HTTP. The exponent k of cost = c x size^k: 0 is flat, 1 is in proportion. A batch "
            "shares what it costs to be a request among its parts, so its exponent is negative."
        )
        table = Table("Growth", ("with the number of", "size: CPU us", "exponent"), rows, note)
        return Outcome(
            {what: {str(s): t for s, t in costs.items()} for what, costs in found.items()}, [table], gates=gates
        )

    def _accounts(self, stage: Stage) -> tuple[Costs, Costs]:
        headers, principal = caller_of(stage, STORE)
        settings = settings_of(stage, STORE)
        documents = Path(settings.documents_url.removeprefix("sqlite:///"))
        asked = [f"user-{number}@example.com" for number in range(stage.plan.accounts[0])]
        known = linked(stage, settings, principal, asked)
        there = len(known)
        cold: Costs = {}
        warm: Costs = {}
        for size in stage.plan.accounts:
            crowd(documents, known[0].account, size - there)
            there = size
            stage.say(f"{size:,} accounts, {size_of(documents):,} documents")
            cold[size], warm[size] = [], []
            for number in range(COLD_ROUNDS + 1):
                with instances(settings) as (instance,):
                    instance.ask(headers, {"action": "actions"})  # opens the stores
                    cached = [raw(headers, {"action": "fuel", "account": known[0].account, "vin": DEMO_VIN})]
                    found = instance.cpu_us(_about(headers, known))
                    instance.serve(cached[0])
                    held = instance.cpu_us(cached * stage.plan.samples)
                if number:
                    cold[size].append(found)
                    warm[size].append(held)
        return cold, warm

    def _vehicles(self, stage: Stage) -> Costs:
        headers, principal = caller_of(stage, STORE)
        settings = settings_of(stage, STORE)
        requests: dict[int, list[RawRequest]] = {}
        with instances(settings) as (instance,):
            for size in stage.plan.vehicles:
                (fleet,) = linked(stage, settings, principal, [f"fleet-{size}@example.com"])
                reads = [
                    raw(headers, {"action": "fuel", "account": fleet.account, "vin": f"WBA00000000D{index:05d}"})
                    for index in range(1, size + 1)
                ]
                requests[size] = (reads * stage.plan.samples)[: stage.plan.samples]
                for read in reads:
                    instance.serve(read)
            return _rounds(stage, instance, "cars", requests, lambda _size: 1)

    def _parts(self, stage: Stage) -> Costs:
        headers, principal = caller_of(stage, STORE)
        settings = settings_of(stage, STORE)
        requests: dict[int, list[RawRequest]] = {}
        with instances(settings) as (instance,):
            (fleet,) = linked(stage, settings, principal, [f"fleet-{max(stage.plan.parts)}@example.com"])
            reads = [
                {"action": "fuel", "account": fleet.account, "vin": f"WBA00000000D{index:05d}"}
                for index in range(1, max(stage.plan.parts) + 1)
            ]
            for read in reads:
                instance.ask(headers, read)
            for size in stage.plan.parts:
                batch = raw(headers, {"action": "batch", "params": {"requests": reads[:size]}})
                requests[size] = [batch] * max(1, stage.plan.samples // size)
            return _rounds(stage, instance, "parts", requests, lambda size: size)


def flat(what: str, grows: float) -> Gate:
    """The bound on an exponent."""
    return Gate(f"{what}, exponent", f"{grows:+.3f}", f"<= {BOUND:g}", grows <= BOUND)


def _about(headers: Mapping[str, str], known: list[Linked]) -> list[RawRequest]:
    return [raw(headers, {"action": "connect_status", "account": one.account}) for one in known]


def _rounds(
    stage: Stage,
    instance: Instance,
    what: str,
    requests: Mapping[int, list[RawRequest]],
    share: Callable[[int], int],
) -> Costs:
    """The sizes take turns, after a round that is not counted."""
    costs: Costs = {size: [] for size in requests}
    for number in range(ROUNDS + 1):
        for size, some in requests.items():
            cost = instance.cpu_us(some) / share(size)
            if number:
                costs[size].append(cost)
    stage.say(f"{', '.join(map(str, requests))} {what}")
    return costs
