"""Memory of one instance over a million cached reads: it must level off, and stay level.

Takes a quarter of an hour in the full run, so it comes last.
"""

from bench import processes
from bench.contestants import link, read
from bench.outcome import Gate, Outcome, Table
from bench.stage import Stage

STORE = "endurance"
ACCOUNTS = 20
CONNECTIONS = 32
VINS = tuple(f"WBA00000000DEMO0{number}" for number in range(1, 6))
SLICE_S = 20.0
BOUND_MIB = 130.0
SETTLED_AFTER = 0.2
GROWTH_BOUND_MIB = 5.0


class Endurance:
    """Reads of a hundred cars in turn, with whatever falls due meanwhile: they expire every five minutes."""

    name = "endurance"

    def run(self, stage: Stage) -> Outcome:
        """A slice of load, a look at the memory, and again."""
        stage.upstream.set_latency(0)
        server = stage.stable.ours(STORE)
        server.start()
        accounts = [link(server, f"user-{number}@example.com") for number in range(ACCOUNTS)]
        bodies = [read(account, vin=vin) for vin in VINS for account in accounts]
        goal = stage.plan.endurance_requests
        done = errors = 0
        held = [(0, processes.memory(server.pid).largest_rss_mib)]
        while done < goal:
            load = stage.quick_replies.drive(server, bodies, CONNECTIONS, min(SLICE_S, goal / 5_000))
            done, errors = done + load.requests, errors + load.errors
            held.append((done, processes.memory(server.pid).largest_rss_mib))
            stage.say(f"{done:,} of {goal:,} requests, {load.per_second:,.0f}/s, RSS {held[-1][1]:.1f} MiB")
        server.stop()
        return _outcome(held, errors)


def _outcome(held: list[tuple[int, float]], errors: int) -> Outcome:
    total = held[-1][0]
    settled = [rss for done, rss in held if done >= SETTLED_AFTER * total]
    grown, most = settled[-1] - settled[0], max(rss for _, rss in held)
    step = max(1, len(held) // 10)
    shown = [*held[:-1:step], held[-1]]
    rows = [[f"{done:,}", f"{rss:.1f}"] for done, rss in shown]
    note = (
        f"Resident set of the worker; reads of {ACCOUNTS * len(VINS)} cars over {CONNECTIONS} connections. {errors} of "
        f"the {total:,} failed."
    )
    after = f"after {SETTLED_AFTER:.0%} of them"
    gates = [
        Gate(
            f"RSS of an instance over {total:,} requests", f"{most:.1f} MiB", f"<= {BOUND_MIB:g} MiB", most <= BOUND_MIB
        ),
        Gate(f"its growth {after}", f"{grown:+.1f} MiB", f"<= {GROWTH_BOUND_MIB:g} MiB", grown <= GROWTH_BOUND_MIB),
        Gate(f"of {total:,} requests in a row, failed", str(errors), "= 0", errors == 0),
    ]
    raw = {"rss_mib": held, "errors": errors}
    return Outcome(raw, [Table("Memory over a million requests", ("requests", "RSS, MiB"), rows, note)], gates=gates)
