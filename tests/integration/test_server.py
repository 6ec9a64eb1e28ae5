"""The entry points behind the ordinary server, as Google Cloud Functions starts them."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from ops.processes import free_port
from sandbox.process import RunningSandbox
from tests.integration.conftest import MASTER_KEY, PASSWORD, captcha
from tests.support.keys import issued_key


@contextmanager
def serving(target: str, log: Path, **environ: str) -> Iterator[tuple[httpx.Client, subprocess.Popen[bytes]]]:
    port = free_port()
    command = [sys.executable, "-m", "functions_framework", "--target", target, "--host", "127.0.0.1"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, "--port", str(port)], stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **environ}
        )
    try:
        transport = httpx.HTTPTransport(retries=0)
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}", timeout=20, transport=transport, trust_env=False
        ) as client:
            _wait_for(client, process)
            yield client, process
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(client: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        try:
            client.get("/health")
        except httpx.TransportError:
            continue
        return
    raise AssertionError("the server did not start")


@pytest.fixture
def environ(sandbox: RunningSandbox, tmp_path: Path) -> dict[str, str]:
    return {
        "CALLERS": "open",
        "ENVIRONMENT": "development",
        "TOKEN_KEYS": MASTER_KEY,
        "DOCUMENTS_URL": f"sqlite:///{tmp_path}/documents.db",
        "MYBMW_ORIGIN": sandbox.origin,
        "THREADS": "16",
    }


def connect(client: httpx.Client) -> str:
    form = {"action": "connect", "email": "one@example.com", "password": PASSWORD, "hcaptcha": captcha()}
    answered = client.post("/", json=form)
    assert answered.status_code == 200, answered.text
    account: str = answered.json()["result"]["account"]
    return account


def test_whoever_waits_for_commands_leaves_threads_for_the_others(
    environ: dict[str, str], tmp_path: Path, sandbox: RunningSandbox
) -> None:
    sandbox.fault(match={"path": "door-lock"}, fault="event", outcome="never")
    with serving("bmw_api", tmp_path / "log", **environ | {"THREADS": "8"}) as (client, _process):
        account = connect(client)
        sent = client.post("/", json={"action": "lock", "account": account}).json()["result"]
        client.post("/", json={"action": "status", "account": account})
        status = {"action": "command_status", "params": {"command_id": sent["command_id"]}, "wait_s": 8}
        notes: list[str | None] = []
        askers = [
            threading.Thread(target=lambda: notes.append(client.post("/", json=status).json()["result"]["note"]))
            for _ in range(16)
        ]
        for asker in askers:
            asker.start()
        while len(notes) < 14:
            next(asker for asker in askers if asker.is_alive()).join(0.02)
        # Two wait: a half of a half of the threads, for this is one caller.
        assert client.post("/", json={"action": "fuel", "account": account}).json()["meta"]["cached"] is True
        assert sum(asker.is_alive() for asker in askers) == 2
        for asker in askers:
            asker.join()
    assert [note for note in notes if note is None] == [None, None]
    assert all("waiting already" in note for note in notes if note is not None)


def test_the_api_is_served_by_the_ordinary_command_line(environ: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "log"
    with serving("bmw_api", log, **environ) as (client, _process):
        account = connect(client)
        read = client.post("/", json={"action": "is_locked", "account": account})
        assert read.json()["result"]["locked"] is True
        assert read.headers["content-type"] == "application/json"
        assert read.json()["environment"] == "development"
        assert client.get("/openapi.json").json()["openapi"] == "3.1.0"
        assert client.get("/").status_code == 405
        large = client.post("/", content=b"{" + b" " * 33_000_000, headers={"content-type": "application/json"})
        assert (large.status_code, large.json()["error"]["code"]) == (413, "PAYLOAD_TOO_LARGE")

        def chunks() -> Iterator[bytes]:
            yield from (b" " * 1000 for _ in range(40))

        chunked = client.post("/", content=chunks(), headers={"content-type": "application/json"})
        assert chunked.status_code == 413
    events = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    requests = [event for event in events if "httpRequest" in event]
    assert any(event["httpRequest"]["status"] == 200 and event["action"] == "is_locked" for event in requests)
    assert all({"severity", "message", "time"} <= set(event) for event in events)


def test_staging_says_so_and_prefers_its_own_settings(environ: dict[str, str], tmp_path: Path) -> None:
    environ |= {
        "ENVIRONMENT": "production",
        "CALLERS": "",
        "STAGING_CALLERS": "api_keys",
        "STAGING_DOCUMENTS_URL": f"sqlite:///{tmp_path}/staging.db",
        "STAGING_TOKEN_KEYS": MASTER_KEY,
    }
    key = issued_key(environ, "staging")
    with serving("bmw_api_staging", tmp_path / "log", **environ) as (client, _process):
        answered = client.post("/", json={"action": "actions"}, headers={"x-api-key": key})
        assert answered.status_code == 200
        assert answered.json()["environment"] == "staging"
        assert client.post("/", json={"action": "actions"}).status_code == 401


def test_the_health_target_answers_health_at_its_root_and_commands_nothing(
    environ: dict[str, str], tmp_path: Path
) -> None:
    with serving("health", tmp_path / "log", **environ) as (client, _process):
        assert client.get("/").json()["status"] == "healthy"
        assert client.post("/", json={"action": "lock"}).status_code == 405


def test_a_server_that_is_asked_to_end_closes_the_service_first(environ: dict[str, str], tmp_path: Path) -> None:
    with serving("bmw_api", tmp_path / "log", **environ) as (client, _process):
        connect(client)
        assert (tmp_path / "documents.db-wal").exists()
    assert not (tmp_path / "documents.db-wal").exists(), "SQLite removes it with the last connection"


# At the request, and while the maker has the command; the scorecard kills at a hundred other moments.
@pytest.mark.parametrize("delay_ms", [0, 100])
def test_nothing_is_lost_when_the_process_is_killed_during_a_command(
    environ: dict[str, str], tmp_path: Path, sandbox: RunningSandbox, delay_ms: int
) -> None:
    with serving("bmw_api", tmp_path / "log", **environ) as (client, process):
        account = connect(client)
        client.post("/", json={"action": "status", "account": account})
        sandbox.zero_stats()
        sandbox.settings(latency_ms=150)
        _kill_during(client, process, {"action": "unlock", "account": account}, delay_ms)
    sandbox.settings(latency_ms=0)
    received = commands(sandbox)
    assert received <= 1
    with serving("bmw_api", tmp_path / "log2", **environ) as (client, _process):
        assert client.post("/", json={"action": "status", "account": account}).status_code == 200
        assert client.post("/", json={"action": "accounts"}).json()["result"]["count"] == 1
    assert commands(sandbox) == received


def _kill_during(client: httpx.Client, process: subprocess.Popen[bytes], body: dict[str, Any], delay_ms: int) -> None:
    """Send a request and kill the server's processes ``delay_ms`` after its first byte left."""
    killer = threading.Timer(delay_ms / 1000, lambda: _kill_tree(process.pid))
    killer.start()
    with suppress(httpx.TransportError):
        client.post("/", json=body)
    killer.join()


def _kill_tree(pid: int) -> None:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for victim in [pid, *map(int, children)]:
        os.kill(victim, signal.SIGKILL)


def commands(sandbox: RunningSandbox) -> int:
    received: int = sandbox.stats()["commands_received"]
    return received
