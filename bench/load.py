"""The load generators: wrk where it is installed, else one in Python. Both run as processes of their own."""

import json
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from bench import pyload
from bench.servers import ROOT, environment

WRK_SCRIPT = Path(__file__).with_name("wrk.lua")
FIGURES = "FIGURES "
LIMIT_S = 300.0


@dataclass(frozen=True)
class Load:
    """What one run of a generator saw; ``generator_cpu_s`` is what the generator itself used."""

    requests: int
    errors: int
    seconds: float
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    generator_cpu_s: float

    @property
    def per_second(self) -> float:
        """Replies a second."""
        return self.requests / self.seconds


class Target(Protocol):
    """A server on the loopback interface."""

    @property
    def port(self) -> int:
        """Where it listens."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """What goes with each request."""
        ...


class Generator(Protocol):
    """Drives one server with keep-alive connections."""

    name: str

    def drive(self, server: Target, bodies: Sequence[bytes], connections: int, duration_s: float) -> Load:
        """POST the bodies in turn for ``duration_s`` over so many connections."""
        ...


class Wrk:
    """wrk: compiled, one thread. Requests in flight at the end are dropped, so it is for quick replies."""

    name = "wrk"

    def drive(self, server: Target, bodies: Sequence[bytes], connections: int, duration_s: float) -> Load:
        """POST the bodies in turn for ``duration_s`` (rounded up to wrk's whole seconds)."""
        with tempfile.NamedTemporaryFile(prefix="bench-bodies-", mode="wb") as lines:
            lines.write(b"\n".join(bodies))
            lines.flush()
            whole_s = max(1, round(duration_s))
            options = [
                "-t",
                "1",
                "-c",
                str(connections),
                "-d",
                f"{whole_s}s",
                "--timeout",
                "30s",
                "-s",
                str(WRK_SCRIPT),
                *(part for name, value in server.headers.items() for part in ("-H", f"{name}: {value}")),
            ]
            printed, cpu_s = _run(["wrk", *options, f"http://127.0.0.1:{server.port}/", "--", lines.name])
        figures = next(line for line in printed.splitlines() if line.startswith(FIGURES))
        return _load(json.loads(figures.removeprefix(FIGURES)), cpu_s)


class PythonGenerator:
    """:mod:`bench.pyload`: lets the requests in flight at the end finish, and counts them."""

    name = "python"

    def drive(self, server: Target, bodies: Sequence[bytes], connections: int, duration_s: float) -> Load:
        """POST the bodies in turn, beginning none after ``duration_s``."""
        texts = [body.decode() for body in bodies]
        return self._carry_out(pyload.Order(server.port, texts, connections, duration_s, headers=dict(server.headers)))

    def burst(self, server: Target, body: bytes, connections: int) -> Load:
        """One request a connection, all at once."""
        headers = dict(server.headers)
        return self._carry_out(pyload.Order(server.port, [body.decode()], connections, 60.0, each=1, headers=headers))

    def _carry_out(self, order: pyload.Order) -> Load:
        printed, cpu_s = _run([sys.executable, "-m", "bench.pyload", json.dumps(asdict(order))])
        return _load(json.loads(printed), cpu_s)


def fastest() -> Generator:
    """Choose wrk where it is installed."""
    return Wrk() if shutil.which("wrk") else PythonGenerator()


def _run(command: Sequence[str]) -> tuple[str, float]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False, timeout=LIMIT_S
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} failed: {done.stderr[-1000:]}")
    return done.stdout, (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)


def _load(figures: dict[str, Any], cpu_s: float) -> Load:
    return Load(**figures, generator_cpu_s=cpu_s)
