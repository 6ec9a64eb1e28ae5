"""Run a sandbox as a process of its own, for tests and benches.

>>> with running_sandbox(event_step_s=0) as sandbox:  # doctest: +SKIP
...     sandbox.fault(match={"path": "door-lock"}, fault="status", status=503, times=1)
...     sandbox.stats()["requests_total"]
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx

_ROOT: Final = Path(__file__).resolve().parent.parent
_STOP_WITHIN_S: Final = 5.0


class SandboxError(Exception):
    """The sandbox did not start, or refused a control request."""


class RunningSandbox:
    """A sandbox in another process. Control requests are not counted in its stats."""

    def __init__(self, origin: str, pid: int, client: httpx.Client) -> None:
        self.origin = origin
        """Such as ``http://127.0.0.1:38017``."""
        self.pid = pid
        self._client = client

    def control(self, method: str, path: str, json: object = None) -> Any:  # noqa: ANN401 - whatever JSON it answers
        """A request to ``/_sandbox/{path}``; its JSON answer. Raises SandboxError where it is refused."""
        answer = self._client.request(method, f"/_sandbox/{path.removeprefix('/_sandbox/')}", json=json)
        if answer.is_error:
            raise SandboxError(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer.json()

    def fault(self, **rule: object) -> int:
        """Add a fault rule; its number."""
        number: int = self.control("POST", "faults", rule)["id"]
        return number

    def faults(self) -> list[dict[str, Any]]:
        """The fault rules, and how often each was met."""
        rules: list[dict[str, Any]] = self.control("GET", "faults")
        return rules

    def clear_faults(self) -> None:
        """Drop every fault rule."""
        self.control("DELETE", "faults")

    def reset(self) -> None:
        """Forget everything."""
        self.control("POST", "reset")

    def stats(self, account: str | None = None) -> dict[str, Any]:
        """The counters; with ``account`` only that account's commands."""
        report: dict[str, Any] = self.control("GET", f"stats?account={account}" if account else "stats")
        return report

    def zero_stats(self) -> None:
        """Counters to zero."""
        self.control("DELETE", "stats")

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass at once on the sandbox's clock."""
        self.control("POST", "clock", {"advance_s": seconds})

    def settings(self, **values: object) -> dict[str, Any]:
        """Change settings; all of them as they are now."""
        current: dict[str, Any] = self.control("POST", "settings", values)
        return current

    def car(self, account: str, vin: str) -> dict[str, Any]:
        """All that is known of a car."""
        known: dict[str, Any] = self.control("GET", f"cars/{account}/{vin}")
        return known

    def patch_car(self, account: str, vin: str, **sections: object) -> None:
        """Change a car by hand: ``state``, ``capabilities``, ``profile``, ``charging_settings``, as merge patches."""
        self.control("POST", f"cars/{account}/{vin}", sections)

    def issue_tokens(self, account: str, region: str = "row") -> dict[str, Any]:
        """Tokens without a login, in the shape of BMW's token endpoint."""
        tokens: dict[str, Any] = self.control("POST", "tokens", {"issue": account, "region": region})
        return tokens

    def expire_access(self, account: str) -> None:
        """Expire the account's access tokens."""
        self.control("POST", "tokens", {"expire_access": account})

    def revoke_refresh(self, account: str) -> None:
        """Revoke the account's refresh tokens."""
        self.control("POST", "tokens", {"revoke_refresh": account})


@contextmanager
def running_sandbox(module: str = "sandbox.mybmw", **options: object) -> Iterator[RunningSandbox]:
    """Start ``python -m {module}`` on a free port of 127.0.0.1, and end it afterwards.

    ``options`` are its command line: ``event_step_s=0`` becomes ``--event-step-s 0``. The process ends with this
    one even if this one is killed. Raises SandboxError where it does not start.
    """
    flags = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    process = subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-m", module, "--port", "0", "--stop-on-eof", *flags],
        cwd=_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline() if process.stdout else ""
        origin = line.strip().rpartition(" ")[2]
        if not origin.startswith("http://"):
            raise SandboxError(f"{module} did not start")
        with httpx.Client(base_url=origin, timeout=30.0, trust_env=False) as client:
            yield RunningSandbox(origin, process.pid, client)
    finally:
        _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
