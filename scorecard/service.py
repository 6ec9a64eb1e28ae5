"""Instances of the service as real processes that share one document store, in front of one simulated maker."""

import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from common.settings import Settings
from ops.processes import Server, free_port
from ops.stack import issue_key, master_key
from sandbox.process import RunningSandbox, running_sandbox

_ROOT = Path(__file__).resolve().parent.parent


class Instance:
    """One server process and a client of it."""

    def __init__(self, environ: Mapping[str, str], log: Path, key: str) -> None:
        self._environ = environ
        self._key = key
        self._log = log
        self.start()

    @property
    def key(self) -> str:
        """The API key that its requests carry."""
        return self._key

    @property
    def port(self) -> int:
        """Where it listens now."""
        return self._port

    def log(self) -> str:
        """Everything that it has printed."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def start(self) -> None:
        """Start the process, anew after :meth:`kill`."""
        self._port = port = free_port()
        self._server = Server(
            "instance",
            [sys.executable, "-m", "functions_framework", "--target=bmw_api", "--host=127.0.0.1", f"--port={port}"],
            environ=self._environ,
            cwd=_ROOT,
            log=self._log,
        )
        self._server.__enter__()
        self._server.wait_until_answers(f"http://127.0.0.1:{port}/health")
        self._client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False, headers={"X-API-Key": self._key}
        )

    def post(self, headers: Mapping[str, str] | None = None, /, **fields: Any) -> httpx.Response:  # noqa: ANN401
        """One request to the endpoint."""
        return self._client.post("/", json=fields, headers=headers)

    def kill(self) -> None:
        """Kill -9 of the server and its workers, whatever they are doing."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._server.pid, signal.SIGKILL)
        self.close()

    def close(self) -> None:
        """End the process and the client."""
        self._client.close()
        self._server.end()


@dataclass(frozen=True, slots=True)
class Deployment:
    """Several instances."""

    instances: list[Instance]
    maker: RunningSandbox

    def connect(self, email: str, captcha: str) -> str:
        """Link an account; its id."""
        form = {"action": "connect", "email": email, "password": "demo-password", "hcaptcha": captcha}
        answered = self.instances[0].post(**form)
        answered.raise_for_status()
        account: str = answered.json()["result"]["account"]
        return account

    def vehicles(self, account: str) -> list[str]:
        """The VINs of an account."""
        answered = self.instances[0].post(action="vehicles", account=account)
        return [vehicle["vin"] for vehicle in answered.json()["result"]["vehicles"]]

    def sends(self) -> int:
        """How many command requests have reached the maker, accepted or not."""
        return sum(count for route, count in self.maker.stats()["requests"].items() if _is_send(route))


def _is_send(route: str) -> bool:
    return route.startswith("POST") and "remote-commands/{" in route


@contextmanager
def deployed(count: int, *, event_step_s: float = 0, **settings: str) -> Iterator[Deployment]:
    """``count`` instances, ended afterwards. ``settings`` are environment variables."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        maker = stack.enter_context(running_sandbox(event_step_s=event_step_s))
        environ = {
            **os.environ,
            "ENVIRONMENT": "development",
            "CALLERS": "api_keys",
            "TOKEN_KEYS": master_key(),
            "DOCUMENTS_URL": f"sqlite:///{folder}/documents.db",
            "MYBMW_ORIGIN": maker.origin,
            "THREADS": "32",
            "POLL_INTERVAL_S": "0.02",
            # What is measured sends more than any caller should.
            **{name.upper(): "" for name in Settings.model_fields if name.startswith("limit_")},
            **settings,
        }
        key = issue_key(environ)
        instances = []
        for number in range(count):
            instances.append(Instance(environ, folder / f"log-{number}", key))
            stack.callback(instances[-1].close)
        yield Deployment(instances, maker)
