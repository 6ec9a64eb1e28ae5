"""What a fresh read adds to the maker's own time: the same upstream requests replayed directly, turn by turn."""

import json
import time
from collections.abc import Sequence

from bench import wire
from bench.contestants import link
from bench.outcome import Outcome, Table, at_most, ranged
from bench.stage import Stage
from bench.stats import Spread, percentile

BOUND_MS = 5.0


class Overhead:
    """One connection; each call of ours is followed by its upstream requests, made one after the other."""

    name = "overhead"

    def run(self, stage: Stage) -> Outcome:
        """Pairs of calls at each latency."""
        server = stage.fresh.server
        account = link(server, "one@example.com")
        ours = wire.post(
            "/", json.dumps({"action": "fuel", "account": account, "fresh": True}).encode(), server.headers
        )
        direct = stage.upstream.read_messages(stage.tokens)
        raw, rows, gates = {}, [], []
        for latency_ms, pairs in stage.plan.overhead_pairs:
            stage.upstream.set_latency(latency_ms)
            stage.say(f"fresh read against its own upstream requests, {pairs} pairs at {latency_ms} ms")
            with wire.Connection(server.port) as ours_line, wire.Connection(stage.upstream.port) as direct_line:
                _take_turns(ours_line, (ours,), direct_line, direct, 5)
                took, own = _take_turns(ours_line, (ours,), direct_line, direct, pairs)
            added = Spread.of(_median_of_parts(took, own))
            raw[str(latency_ms)] = {"fresh_ms": took, "upstream_ms": own}
            medians = [percentile(sorted(times), 50) for times in (took, own)]
            rows.append([str(latency_ms), *(f"{median:.2f}" for median in medians), ranged(added, 2)])
            name = f"time that a fresh read adds to the maker's own, {latency_ms} ms upstream, one connection"
            gates.append(at_most(name, added, BOUND_MS, " ms"))
        stage.upstream.set_latency(0)
        header = ("upstream ms a request", "fresh read, p50 ms", "its upstream requests alone, p50 ms", "added ms")
        note = (
            "Both over one keep-alive connection, by turns; the upstream requests (vehicle state, then charging "
            "settings) one after the other; a warm service makes them at once. The spread is that of five parts of the "
            "run."
        )
        return Outcome(raw, [Table("What a fresh read adds", header, rows, note)], gates=gates)


def _take_turns(
    a: wire.Connection, a_messages: Sequence[bytes], b: wire.Connection, b_messages: Sequence[bytes], times: int
) -> tuple[list[float], list[float]]:
    a_ms, b_ms = [], []
    for _ in range(times):
        a_ms.append(_timed(a, a_messages))
        b_ms.append(_timed(b, b_messages))
    return a_ms, b_ms


def _timed(connection: wire.Connection, messages: Sequence[bytes]) -> float:
    started = time.perf_counter()
    for message in messages:
        reply = connection.ask(message)
        if reply.status != 200:
            raise AssertionError(f"answered {reply.status}: {reply.body[:300]!r}")
    return (time.perf_counter() - started) * 1e3


def _median_of_parts(took: list[float], own: list[float], parts: int = 5) -> list[float]:
    size = max(1, len(took) // parts)
    return [
        percentile(sorted(took[at : at + size]), 50) - percentile(sorted(own[at : at + size]), 50)
        for at in range(0, size * parts, size)
    ]
