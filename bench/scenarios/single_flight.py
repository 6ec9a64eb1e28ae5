"""A thousand identical reads at once against a cold cache: the maker must see one."""

import json

from bench.contestants import link
from bench.outcome import Outcome, Table, always
from bench.stage import THREADS, Stage
from bench.upstream import STATE

LATENCY_MS = 150


class SingleFlight:
    """A new server each time, for a cold cache; also with a thread a request, so that all are inside."""

    name = "single flight"

    def run(self, stage: Stage) -> Outcome:
        """Bursts with as many threads as requests, and with those of the other scenarios."""
        burst = stage.plan.burst
        first = stage.stable.ours("burst")
        first.start()
        account = link(first, "one@example.com")
        first.stop()
        body = json.dumps({"action": "fuel", "account": account}).encode()
        stage.upstream.set_latency(LATENCY_MS)
        samples = [
            self._burst(stage, body, threads) for threads in (burst, THREADS) for _ in range(stage.plan.burst_rounds)
        ]
        stage.upstream.set_latency(0)
        rows = [[str(value) for value in sample.values()] for sample in samples]
        header = ("threads", "replies", "failed", "state fetches", "upstream requests", "last reply after, ms")
        states = [sample["states"] for sample in samples]
        unanswered = [burst - sample["replies"] + sample["failed"] for sample in samples]
        gates = [
            always(f"vehicle states fetched for {burst:,} concurrent identical reads, cold cache", states, 1),
            always(f"of those {burst:,} reads, not answered with success", unanswered, 0),
        ]
        note = f"The maker takes {LATENCY_MS} ms a request. A cold server also lists the account's vehicles."
        return Outcome({"samples": samples}, [Table(f"{burst:,} reads at once", header, rows, note)], gates=gates)

    def _burst(self, stage: Stage, body: bytes, threads: int) -> dict[str, float]:
        server = stage.stable.ours("burst", threads)
        server.start()
        try:
            before = stage.upstream.seen()
            load = stage.slow_replies.burst(server, body, stage.plan.burst)
            seen = stage.upstream.seen().since(before)
        finally:
            server.stop()
        states = seen.by_route.get(STATE, 0)
        stage.say(f"{stage.plan.burst} at once over {threads} threads: {load.requests} replies, {states} state fetches")
        return {
            "threads": threads,
            "replies": load.requests,
            "failed": load.errors,
            "states": states,
            "upstream_requests": seen.requests,
            "last_reply_ms": round(load.seconds * 1e3),
        }
