"""functions-framework servers, started as anyone starts them, and stopped by their own process id."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench import processes, wire
from ops.processes import free_port

ROOT = Path(__file__).resolve().parent.parent
START_LIMIT_S = 30.0
HEALTH = wire.request("GET", "/health")


class ServerFailedError(Exception):
    """A server did not come up, or died; the text holds the end of what it printed."""


class FunctionServer:
    """`functions-framework --target T --source S`, on a free port of the loopback interface.

    What it prints goes to a file, so that a server that logs pays for writing its lines.
    """

    def __init__(
        self,
        target: str,
        source: str,
        env: Mapping[str, str],
        headers: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
    ) -> None:
        """``headers`` go with each request to it, ``options`` are more of its command line."""
        self.port = 0
        self.headers = dict(headers or {})
        self._options = options
        self._target = target
        self._source = source
        self._env = environment() | dict(env)
        self._process: subprocess.Popen[bytes] | None = None
        self._output = Path(tempfile.mkstemp(prefix="bench-server-", suffix=".log")[1])

    @property
    def pid(self) -> int:
        """The id of the server's first process."""
        return self._running().pid

    def twin(self) -> "FunctionServer":
        """Another server like this one, not started."""
        return FunctionServer(self._target, self._source, self._env, self.headers, self._options)

    def launch(self) -> None:
        """Start the process and return at once."""
        self.port = free_port()
        command = [_executable("functions-framework"), "--target", self._target, "--source", self._source]
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [*command, "--host", "127.0.0.1", "--port", str(self.port), *self._options],
                cwd=ROOT,
                env=self._env,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def await_healthy(self, pause_s: float = 0.002) -> None:
        """Return at the first 200 from /health; raises :class:`ServerFailedError` where there is none."""
        deadline = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline and self._running().poll() is None:
            try:
                if wire.ask_once(self.port, HEALTH, timeout_s=5.0).status == 200:
                    return
            except OSError:
                pass  # nobody listens yet
            time.sleep(pause_s)
        raise ServerFailedError(f"{self._source} did not start:\n{self.printed()}")

    def start(self) -> None:
        """Start the process and wait until it answers."""
        self.launch()
        self.await_healthy()

    def restart(self) -> None:
        """End the process with whatever it still works on, and start another."""
        self.stop(remove_output=False)
        self.start()

    def stop(self, *, remove_output: bool = True) -> None:
        """End the process, politely first."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(timeout=3)
            except subprocess.TimeoutExpired:
                for pid in processes.tree_pids(self._process.pid):
                    _kill(pid)
                self._process.wait(timeout=5)
            self._process = None
        if remove_output:
            self._output.unlink(missing_ok=True)

    def settle(self, limit_s: float = 1.5) -> None:
        """Return once the server is idle; one still busy after ``limit_s`` with abandoned work is restarted."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            before = processes.cpu_s(self.pid)
            time.sleep(0.1)
            if processes.cpu_s(self.pid) - before < 0.02:
                return
        self.restart()

    def printed(self) -> str:
        """The end of what the server has printed."""
        return self._output.read_text(errors="replace")[-2000:]

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ServerFailedError(f"{self._source} is not running")
        return self._process


def environment() -> dict[str, str]:
    """This process's environment, without what would make a server slower than it is when deployed."""
    return {key: value for key, value in os.environ.items() if key not in {"PYTHONDONTWRITEBYTECODE", "DEBUG"}}


def _executable(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _kill(pid: int) -> None:
    try:
        os.kill(pid, 9)
    except ProcessLookupError:
        return
