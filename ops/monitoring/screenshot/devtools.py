"""Chromium's DevTools protocol over its pipe: commands in, answers out, no port and no library."""

import json
import os
import select
import signal
import time
from collections.abc import Sequence
from fcntl import F_DUPFD_CLOEXEC, fcntl
from typing import Any, Self

_COMMANDS_FD, _ANSWERS_FD = 3, 4
"""Where Chromium expects its pipe."""
_FREE_FD = 10
_ANSWER_TIMEOUT_S, _END_TIMEOUT_S = 60.0, 10.0


class DevToolsError(Exception):
    """Chromium refused a command, ended, or said nothing."""


class Browser:
    """A Chromium that runs while the ``with`` block does."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = [*command, "--remote-debugging-pipe"]
        self._number = 0
        self._unread = b""

    def __enter__(self) -> Self:
        (theirs_in, self._to), (self._from, theirs_out) = _pipe(), _pipe()
        self._pid = os.posix_spawnp(
            self._command[0],
            self._command,
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, theirs_in, _COMMANDS_FD),
                (os.POSIX_SPAWN_DUP2, theirs_out, _ANSWERS_FD),
                # It complains of buses and cards that no server has.
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ],
        )
        os.close(theirs_in)
        os.close(theirs_out)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._to)
        os.close(self._from)
        # It ends when its pipe does; one that hangs is made to.
        until = time.monotonic() + _END_TIMEOUT_S
        while os.waitpid(self._pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > until:
                os.kill(self._pid, signal.SIGKILL)
            time.sleep(0.05)

    def call(self, method: str, session: str = "", **parameters: object) -> dict[str, Any]:
        """Send a command and return its result. Raises DevToolsError."""
        self._number += 1
        command: dict[str, object] = {"id": self._number, "method": method, "params": parameters}
        if session:
            command["sessionId"] = session
        try:
            os.write(self._to, json.dumps(command).encode() + b"\0")
        except BrokenPipeError:
            raise DevToolsError("Chromium ended") from None
        until = time.monotonic() + _ANSWER_TIMEOUT_S
        while (answer := self._message(until)).get("id") != self._number:
            pass
        if "error" in answer:
            raise DevToolsError(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    def _message(self, until: float) -> dict[str, Any]:
        """The next message, be it an answer or an event."""
        parts = [self._unread]
        while b"\0" not in parts[-1]:
            if not select.select([self._from], [], [], max(0.0, until - time.monotonic()))[0]:
                raise DevToolsError(f"Chromium said nothing for {_ANSWER_TIMEOUT_S:g} s")
            if not (part := os.read(self._from, 1 << 20)):
                raise DevToolsError("Chromium ended")
            parts.append(part)
        text, _, self._unread = b"".join(parts).partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        return message


def _pipe() -> tuple[int, int]:
    """A pipe whose ends are out of the way of what Chromium's own are to be."""
    ends = os.pipe()
    moved = [fcntl(end, F_DUPFD_CLOEXEC, _FREE_FD) for end in ends]
    for end in ends:
        os.close(end)
    return moved[0], moved[1]
