"""Who is measured: four functions, each behind functions-framework's ordinary command line."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import wire
from bench.servers import ROOT, FunctionServer
from bench.upstream import DEMO_VIN, PASSWORD, Tokens, Upstream
from common.settings import Settings
from ops.stack import issue_key, master_key

LIMIT_S = 60.0
UNREFUSED = 10_000_000
"""What every amount of the default limits is raised to: they are counted as ever, and refuse nothing."""


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
                answer = connection.ask(wire.post("/", body, self.server.headers))
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
        self._deployments: dict[str, tuple[dict[str, str], dict[str, str]]] = {}

    def deployment(self, name: str) -> tuple[dict[str, str], dict[str, str]]:
        """The settings of ours with a store of that name, everything on, and the headers of its one caller."""
        if name not in self._deployments:
            env = {
                **raised_limits(),
                "ENVIRONMENT": "production",
                "CALLERS": "api_keys",
                "TOKEN_KEYS": master_key(),
                "LOG_LEVEL": "INFO",
                "DOCUMENTS_URL": f"sqlite:///{self._folder / name}.db",
                "MYBMW_ORIGIN": self._upstream.origin,
            }
            self._deployments[name] = env, {"X-API-Key": issue_key(env)}
        return self._deployments[name]

    def ours(self, name: str, threads: int | None = None, **settings: str) -> FunctionServer:
        """Our `bmw_api` with a document store of its own, which a second server of that name shares."""
        env, headers = self.deployment(name)
        return self._server("bmw_api", "main.py", env | settings, headers, threads)

    def asgi(self, name: str) -> FunctionServer:
        """The same handlers under functions-framework's async server, on the store of that name."""
        env, headers = self.deployment(name)
        return self._server(
            "draiv", "bench/targets/asgi.py", env | {"PYTHONPATH": str(ROOT)}, headers, options=["--asgi"]
        )

    def cached(self) -> Contestant:
        """A read that is answered from the cache: started, linked and warm."""
        server = self.ours("cached")
        server.start()
        account = link(server, "one@example.com")
        contestant = Contestant("cached", "ours, cached", server, (read(account),), asks_upstream=False)
        contestant.warm()
        return contestant

    def fresh(self, accounts: int) -> Contestant:
        """A read that must ask the maker, of so many accounts in turn, lest concurrent ones share an answer."""
        server = self.ours("fresh")
        server.start()
        linked = [link(server, f"user-{number}@example.com") for number in range(1, accounts + 1)]
        bodies = tuple(read(account, vin=DEMO_VIN, fresh=True) for account in linked)
        contestant = Contestant("fresh", "ours, fresh", server, bodies, asks_upstream=True)
        contestant.warm()
        return contestant

    def empty(self, reply: bytes, body: bytes, headers: Mapping[str, str]) -> Contestant:
        """A function that returns ``reply`` and does nothing else."""
        return self._empty("empty", "empty function", "bench/targets/empty.py", (reply, body, headers))

    def empty_patient(self, reply: bytes, body: bytes, headers: Mapping[str, str]) -> Contestant:
        """The same under our worker, in place of the framework's own."""
        title = "empty function, our worker"
        return self._empty("empty_patient", title, "bench/targets/empty_patient.py", (reply, body, headers))

    def _empty(self, key: str, title: str, source: str, asked: tuple[bytes, bytes, Mapping[str, str]]) -> Contestant:
        reply, body, headers = asked
        kept = self._folder / "reply.json"
        kept.write_bytes(reply)
        env = {"BENCH_REPLY_FILE": str(kept), "PYTHONPATH": str(ROOT)}
        server = self._server("empty", source, env, headers)
        server.start()
        return Contestant(key, title, server, (body,), asks_upstream=False)

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

    def _server(
        self,
        target: str,
        source: str,
        env: Mapping[str, str],
        headers: Mapping[str, str] | None = None,
        threads: int | None = None,
        options: Sequence[str] = (),
    ) -> FunctionServer:
        whole = {"THREADS": str(threads or self._threads)} | dict(env)
        server = FunctionServer(target, source, whole, headers, options)
        self._servers.append(server)
        return server


def raised_limits() -> dict[str, str]:
    """The default limits, each with the same windows and amounts that no measurement reaches."""
    return {
        name.upper(): re.sub(r"\d+(?=/)", str(UNREFUSED), field.default)
        for name, field in Settings.model_fields.items()
        if name.startswith("limit_")
    }


def link(server: FunctionServer, email: str) -> str:
    """Link a simulated account; gives its id."""
    body = {
        "action": "connect",
        "email": email,
        "password": PASSWORD,
        "hcaptcha": f"bench-{server.port}-{email}",
        "region": "rest_of_world",
    }
    reply = wire.ask_once(server.port, wire.post("/", json.dumps(body).encode(), server.headers), LIMIT_S)
    if reply.status != 200:
        raise AssertionError(f"connect answered {reply.status}: {reply.body[:500]!r}\n{server.printed()}")
    return str(json.loads(reply.body)["result"]["account"])


def read(account: str, **more: object) -> bytes:
    """The body of a read of an account's car."""
    return json.dumps({"action": "fuel", "account": account} | more, separators=(",", ":")).encode()
