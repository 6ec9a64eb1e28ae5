"""Child processes that serve HTTP on this machine: start, wait until they answer, end by their own pid."""

import errno
import http.client
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

OnLine = Callable[[str], None]
_TAIL_LINES = 15
_LOWEST_PORT = 10_000
_USUAL_FIRST = 32_768
_GIVEN_BY_THE_SYSTEM = Path("/proc/sys/net/ipv4/ip_local_port_range")
_DRAWS = 1_000
_RANDOM = random.SystemRandom()
"""Different in every process, forked ones too, whoever seeds the module's."""


class StartFailed(Exception):
    """A child ended or stayed silent before it answered; the message holds its last lines."""


class Server:
    """One child process. Entering starts it; leaving ends it, whatever happened in between.

    It runs in a session of its own, so that Ctrl-C reaches it only through us. Everything that it prints goes to
    ``log`` and line by line to ``on_line``.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        environ: Mapping[str, str],
        cwd: Path,
        log: Path,
        on_line: OnLine = lambda _line: None,
    ) -> None:
        self.name = name
        self._command = command
        self._environ = environ
        self._cwd = cwd
        self._log = log
        self._on_line = on_line
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command,
            cwd=self._cwd,
            env={**self._environ, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, name=f"{self.name}-output", daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.end()

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the child still lives."""
        return self._process.poll() is None

    def wait_until_answers(
        self, url: str, *, timeout_s: float = 30.0, give_up: Callable[[], bool] = lambda: False
    ) -> None:
        """Return as soon as ``GET url`` gets any HTTP answer, or ``give_up`` says so; raises StartFailed."""
        until = time.monotonic() + timeout_s
        while not answers(url) and not give_up():
            if not self.is_running:
                # What it said last may still be on its way.
                self._reader.join(2.0)
                raise StartFailed(f"{self.name} ended with status {self._process.returncode}:\n{self.tail()}")
            if time.monotonic() > until:
                raise StartFailed(f"{self.name} did not answer on {url} within {timeout_s:g} s:\n{self.tail()}")
            time.sleep(0.05)

    def tail(self) -> str:
        """The last lines it printed."""
        return "".join(self._tail).rstrip()

    def end(self, timeout_s: float = 10.0) -> None:
        """Ask it to end, and make it after ``timeout_s``; its own children with it."""
        if self.is_running:
            self._process.terminate()
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        self._reader.join(timeout_s)

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - it was opened as a pipe
        with self._process.stdout as output, self._log.open("a") as log:
            for line in output:
                log.write(line)
                log.flush()
                self._tail.append(line)
                self._on_line(line.rstrip("\n"))


def answers(url: str) -> bool:
    """Whether anything HTTP answers there, be it an error."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=2)
    try:
        connection.request("GET", parts.path or "/")
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True


def free_port() -> int:
    """A port of this machine that nobody listens on just now.

    It lies below those that the system gives to whoever asks for any, so that no connection and no other server gets
    it by chance before ours listens there. Raises OSError where there is none.
    """
    for _ in range(_DRAWS):
        port = _RANDOM.randrange(_LOWEST_PORT, _first_given_by_the_system())
        if is_free(port):
            return port
    raise OSError(errno.EADDRINUSE, "found no free port")


def _first_given_by_the_system() -> int:
    try:
        first = int(_GIVEN_BY_THE_SYSTEM.read_text().split()[0])
    except OSError:
        return _USUAL_FIRST
    # Where the system gives away nearly all, one of those must do.
    return first if first >= _LOWEST_PORT + _DRAWS else _USUAL_FIRST


def is_free(port: int) -> bool:
    """Whether a server could listen there."""
    with socket.socket() as probe:
        # As servers do: connections of an earlier run that are still fading away do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
