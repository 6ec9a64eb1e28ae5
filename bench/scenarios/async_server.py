"""functions-framework's async server against its default one, with the same handlers."""

from importlib.util import find_spec

from bench import processes
from bench.contestants import link, read
from bench.outcome import Outcome, Table, ranged
from bench.servers import FunctionServer
from bench.stage import Stage
from bench.stats import Spread

STORE = "servers"
DEFAULT, ASYNC = "default (gunicorn, threads)", "async (gunicorn, uvicorn)"


class AsyncServer:
    """Cached reads; informative, so there is no gate."""

    name = "async server"

    def run(self, stage: Stage) -> Outcome:
        """Both take turns, at each number of connections."""
        stage.upstream.set_latency(0)
        servers: dict[str, FunctionServer] = {DEFAULT: stage.stable.ours(STORE), ASYNC: stage.stable.asgi(STORE)}
        for server in servers.values():
            server.start()
        bodies = [read(link(servers[DEFAULT], "one@example.com"))]
        found: dict[tuple[int, str], list[tuple[float, float, float]]] = {}
        for number in range(stage.plan.rounds):
            for connections in stage.plan.connections:
                for name, server in servers.items():
                    stage.slow_replies.drive(server, bodies, connections, stage.plan.warm_up_s)
                    cpu_s = processes.cpu_s(server.pid)
                    load = stage.quick_replies.drive(server, bodies, connections, stage.plan.duration_s)
                    if load.errors:
                        raise AssertionError(f"{name}: {load.errors} errors\n{server.printed()}")
                    cpu_us = (processes.cpu_s(server.pid) - cpu_s) / load.requests * 1e6
                    found.setdefault((connections, name), []).append((load.per_second, load.p95_ms or 0.0, cpu_us))
            stage.say(f"round {number + 1}/{stage.plan.rounds}")
        for server in servers.values():
            server.stop()
        return _outcome(found)


def _outcome(found: dict[tuple[int, str], list[tuple[float, float, float]]]) -> Outcome:
    rows = []
    for (connections, name), rounds in sorted(found.items()):
        base = found[connections, DEFAULT]
        times = Spread.of(a[0] / b[0] for a, b in zip(rounds, base, strict=True))
        per_second, p95_ms, cpu_us = (Spread.of(column) for column in zip(*rounds, strict=True))
        rows.append([str(connections), name, ranged(per_second), ranged(times, 2), ranged(p95_ms, 2), ranged(cpu_us)])
    parser = "httptools" if find_spec("httptools") else "h11"
    loop = "uvloop" if find_spec("uvloop") else "asyncio"
    note = (
        f"Here uvicorn parses with {parser} and runs on {loop}. It is not offered for deployment: bimmer-connected's "
        "httpx holds h11 below the release that refuses malformed chunked bodies (CVE-2025-43859); its requests come "
        "as Starlette's, without the bounds on slow clients and on connections that the default server's worker has "
        "here; and a callback that computes holds up every other request. The same handlers run under it unchanged "
        "(`bench/targets/asgi.py`), should that change."
    )
    header = ("connections", "server", "replies/s", "x default", "p95 ms", "CPU us/reply")
    raw = {f"{connections} {name}": rounds for (connections, name), rounds in found.items()}
    return Outcome(raw, [Table("The async server", header, rows, note)])
