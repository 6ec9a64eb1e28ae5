"""Who is measured: four functions, each behind functions-framework's ordinary command line."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench import wire
from bench.servers import FunctionServer
from bench.upstream import DEMO_VIN, PASSWORD, Tokens, Upstream

LIMIT_S = 60.0


@dataclass(frozen=True)
class Contestant:
    """A server, and the requests that it is asked in turn."""

    key: str
    title: str
    server: FunctionServer
    bodies: tuple[bytes, ...]
    asks_upstream: bool
    """Its replies wait for the maker, so it is measured at each upstream latency."""
    is_slow: bool = False
    """A request costs it so much CPU time that only few connections and rounds are affordable."""

    def warm(self) -> bytes:
        """Ask each request once, in a row; gives the last reply. Raises ``AssertionError`` at anything but a 200."""
        reply = b""
        with wire.Connection(self.server.port, LIMIT_S) as connection:
            for body in self.bodies:
                answer = connection.ask(wire.post("/", body))
                if answer.status != 200:
                    raise AssertionError(
                        f"{self.key} answered {answer.status}: {answer.body[:500]!r}\n{self.server.printed()}"
                    )
                reply = answer.body
        return reply


class Stable:
    """Builds the contestants below ``folder``, and stops their servers."""

    def __init__(self, upstream: Upstream, folder: Path, threads: int) -> None:
        self._upstream = upstream
        self._folder = folder
        self._threads = threads
        self._servers: list[FunctionServer] = []

    def ours(self, name: str, threads: int | None = None) -> FunctionServer:
        """Our `bmw_api` with a document store of its own, which a second server of that name shares."""
        store = self._folder / f"{name}.db"
        env = {
            "ENVIRONMENT": "production",
            "CALLERS": "open",
            "LOG_LEVEL": "INFO",
            "DOCUMENTS_URL": f"sqlite:///{store}",
            "MYBMW_ORIGIN": self._upstream.origin,
        }
        return self._server("bmw_api", "main.py", env, threads)

    def cached(self) -> Contestant:
        """A read that is answered from the cache: started, linked and warm."""
        server = self.ours("cached")
        server.start()
        account = link(server, "one@example.com")
        contestant = Contestant("cached", "ours, cached", server, (_read(account),), asks_upstream=False)
        contestant.warm()
        return contestant

    def fresh(self, accounts: int) -> Contestant:
        """A read that must ask the maker, of so many accounts in turn, lest concurrent ones share an answer."""
        server = self.ours("fresh")
        server.start()
        linked = [link(server, f"user-{number}@example.com") for number in range(1, accounts + 1)]
        bodies = tuple(_read(account, vin=DEMO_VIN, fresh=True) for account in linked)
        contestant = Contestant("fresh", "ours, fresh", server, bodies, asks_upstream=True)
        contestant.warm()
        return contestant

    def empty(self, reply: bytes, body: bytes) -> Contestant:
        """A function that returns ``reply`` and does nothing else."""
        kept = self._folder / "reply.json"
        kept.write_bytes(reply)
        server = self._server("empty", "bench/targets/empty.py", {"BENCH_REPLY_FILE": str(kept)})
        server.start()
        return Contestant("empty", "empty function", server, (body,), asks_upstream=False)

    def naive(self, tokens: Tokens, body: bytes) -> Contestant:
        """What most people write: a new account and a new loop a request."""
        env = {
            "BENCH_ORIGIN": self._upstream.origin,
            "BENCH_EMAIL": tokens.email,
            "BENCH_PASSWORD": PASSWORD,
            "BENCH_ACCESS_TOKEN": tokens.access_token,
            "BENCH_REFRESH_TOKEN": tokens.refresh_token,
            "BENCH_GCID": tokens.gcid,
        }
        server = self._server("naive", "bench/targets/naive.py", env)
        server.start()
        contestant = Contestant("naive", "naive wrapper", server, (body,), asks_upstream=True, is_slow=True)
        contestant.warm()
        return contestant

    def close(self) -> None:
        """Stop every server that was built here."""
        for server in self._servers:
            server.stop()

    def _server(self, target: str, source: str, env: Mapping[str, str], threads: int | None = None) -> FunctionServer:
        server = FunctionServer(target, source, {"THREADS": str(threads or self._threads)} | dict(env))
        self._servers.append(server)
        return server


def link(server: FunctionServer, email: str) -> str:
    """Link a simulated account; gives its id."""
    body = {
        "action": "connect",
        "email": email,
        "password": PASSWORD,
        "hcaptcha": f"bench-{server.port}-{email}",
        "region": "rest_of_world",
    }
    reply = wire.ask_once(server.port, wire.post("/", json.dumps(body).encode()), LIMIT_S)
    if reply.status != 200:
        raise AssertionError(f"connect answered {reply.status}: {reply.body[:500]!r}\n{server.printed()}")
    return str(json.loads(reply.body)["result"]["account"])


def _read(account: str, **more: object) -> bytes:
    return json.dumps({"action": "fuel", "account": account} | more, separators=(",", ":")).encode()
