"""The service as real processes, with everything done to it that an alert is about."""

import asyncio
import contextlib
import io
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from common.clock import ManualClock, SystemClock
from common.errors import StoreUnavailable
from common.logs import EventLog, configure
from common.settings import Settings, load
from functions.providers.cardata.stream_index import StreamIndex
from functions.providers.cardata.stream_report import StreamReport
from functions.providers.cardata.stream_retry import Ending, Failures
from functions.storage import open_storage
from functions.tokens import TokenKeeper, TokenSet
from ops.processes import Server, free_port
from ops.stack import issue_key, master_key
from sandbox.issuer import AUDIENCE, SimulatedIssuer
from sandbox.process import RunningSandbox, running_sandbox
from scorecard.service import Instance

ROOT = Path(__file__).resolve().parents[2]
VINS = ("WBA00000000DEMO01", "WBA00000000DEMO02", "WBA00000000DEMO03", "WBA00000000DEMO04", "WBA00000000DEMO05")


@dataclass
class Provoked:
    """What was printed while each thing happened, and the metrics at the end."""

    lines: dict[str, list[str]] = field(default_factory=dict)
    metrics: str = ""

    @property
    def all_lines(self) -> list[str]:
        return [line for lines in self.lines.values() for line in lines]


class Stage:
    """One instance, the maker behind it, and the lines it has printed since the last look."""

    def __init__(self, instance: Instance, maker: RunningSandbox, database: Path) -> None:
        self.instance = instance
        self.maker = maker
        self.database = database
        self._read = 0

    def post(self, **fields: Any) -> httpx.Response:
        return self.instance.post(**fields)

    def connect(self, email: str, captcha: str, **fields: str) -> httpx.Response:
        return self.post(action="connect", email=email, password="demo-password", hcaptcha=captcha, **fields)

    def link(self, email: str, **fields: str) -> str:
        answered = self.connect(email, "-".join(("for", email, *fields.values())), **fields)
        assert answered.status_code == 200, answered.text
        account: str = answered.json()["result"]["account"]
        return account

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.instance.port}"

    def metrics(self) -> str:
        return httpx.get(f"{self.origin}/metrics", trust_env=False).text

    def new_lines(self) -> list[str]:
        # A page is asked last, and its line waited for: what was asked before it has been printed before it.
        marker = f"look-{self._read}"
        httpx.get(f"{self.origin}/health", headers={"X-Request-ID": marker}, trust_env=False)
        while marker not in (log := self.instance.log()):
            pass
        lines = log.splitlines()
        new, self._read = lines[self._read :], len(lines)
        return new


def provoke() -> Provoked:
    """Start it all, do it all, end it all."""
    provoked = Provoked()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        maker = stack.enter_context(running_sandbox(event_step_s=0))
        issuer = stack.enter_context(SimulatedIssuer(SystemClock()))
        environ = {
            **os.environ,
            "ENVIRONMENT": "production",
            "CALLERS": "api_keys,oidc",
            "OIDC_ISSUERS": json.dumps([{"issuer": issuer.origin, "audience": [AUDIENCE], "scopes": ["read"]}]),
            "TOKEN_KEYS": master_key(),
            "DOCUMENTS_URL": f"sqlite:///{folder}/documents.db",
            "MYBMW_ORIGIN": maker.origin,
            "THREADS": "8",
            "POLL_INTERVAL_S": "0.02",
            "CONFIRM_WINDOW_S": "0.1",
            "READ_ATTEMPTS": "1",
            **{name.upper(): "" for name in Settings.model_fields if name.startswith("limit_")},
            "LIMIT_CALLER_SERVICE": "20/minute",
        }
        key = issue_key(environ)
        stages = []
        for revision in ("draiv-bmw-00001", "draiv-bmw-00002"):
            own = {**environ, "K_REVISION": revision}
            instance = Instance(own, folder / f"{revision}.log", key)
            stack.callback(instance.close)
            stages.append(Stage(instance, maker, folder / "documents.db"))
        first, second = stages
        for name, act, stage in (
            ("healthy", _healthy, first),
            ("slow", _slow, first),
            ("limited", _limited, first),
            ("unknown", _unknown, first),
            ("relinks", _relinks, first),
            ("failing refreshes", _failing_refreshes, first),
            ("quota", _quota, first),
            ("blocked", _blocked, second),
            ("failing", _failing, second),
        ):
            act(stage)
            maker.clear_faults()
            provoked.lines[name] = stage.new_lines()
        for token in (issuer.token(), "nonsense"):
            httpx.post(
                first.origin, json={"action": "actions"}, headers={"authorization": f"Bearer {token}"}, trust_env=False
            )
        provoked.metrics = first.metrics() + second.metrics()
        third = Stage(
            Instance({**environ, "K_REVISION": "draiv-bmw-00003"}, folder / "third.log", key), maker, first.database
        )
        stack.callback(third.instance.close)
        account = third.link("user-77@example.com")
        third.new_lines()
        asyncio.run(_spoil_tokens(load(environ), account))
        _expire(third, "user-77@example.com", account)
        provoked.lines["defect"] = third.new_lines()
        _break_seals(third, account)
        provoked.lines["broken seal"] = third.new_lines()
        _lose_the_store(third)
        provoked.lines["lost store"] = third.new_lines()
        provoked.lines["misconfigured"] = _misconfigured({**environ, "READ_TTL_S": "soon"}, folder / "bad.log")
        provoked.lines["misconfigured stream"] = _misconfigured_stream({**environ, "CARDATA_STREAM_URL": "nonsense"})
        provoked.lines["keep alive"] = _keep_alive(
            {**environ, "DOCUMENTS_URL": f"sqlite:///{folder}/links.db", "CARDATA_AUTH_ORIGIN": maker.origin}
        )
    provoked.lines["stream"] = _stream_troubles()
    return provoked


def _healthy(stage: Stage) -> None:
    account = stage.link("user-1@example.com")
    stage.post(action="vehicles", account=account)
    for _ in range(3):
        for vin in VINS:
            assert stage.post(action="status", account=account, vin=vin).status_code == 200
    sent = stage.post(action="lock", account=account, vin=VINS[0], wait_s=10)
    assert sent.json()["result"]["state"] in ("executed", "confirmed"), sent.text
    assert stage.post(action="command_status", params={"command_id": sent.json()["result"]["command_id"]}).is_success
    assert stage.post(action="nonsense").status_code == 400
    _expire(stage, "user-1@example.com", account)


def _slow(stage: Stage) -> None:
    account = stage.link("user-2@example.com")
    assert stage.post(action="status", account=account, vin=VINS[0]).status_code == 200
    stage.maker.settings(latency_ms=550)
    for _ in range(6):
        assert stage.post(action="status", account=account, vin=VINS[0], fresh=True).status_code == 200
    stage.maker.settings(latency_ms=0)


def _limited(stage: Stage) -> None:
    # More than two windows hold, for a minute may end in between.
    assert any(stage.post(action="actions").status_code == 429 for _ in range(45))


def _unknown(stage: Stage) -> None:
    account = stage.link("user-3@example.com")
    stage.maker.fault(fault="empty", match={"path": "door-lock"})
    for vin in VINS[:3]:
        answered = stage.post(action="lock", account=account, vin=vin)
        assert answered.json()["result"]["state"] == "unknown", answered.text


def _relinks(stage: Stage) -> None:
    for number in range(10, 16):
        email = f"user-{number}@example.com"
        account = stage.link(email)
        stage.maker.revoke_refresh(email)
        stage.maker.expire_access(email)
        answered = stage.post(action="vehicles", account=account, fresh=True)
        answered = stage.post(action="status", account=account, vin=VINS[0], fresh=True)
        assert answered.json()["error"]["code"] == "RELINK_REQUIRED", answered.text


def _failing_refreshes(stage: Stage) -> None:
    for number in range(20, 23):
        email = f"user-{number}@example.com"
        account = stage.link(email)
        stage.maker.expire_access(email)
        rule = stage.maker.fault(fault="status", status=500, match={"path": "token"})
        answered = stage.post(action="status", account=account, vin=VINS[0], fresh=True)
        assert answered.status_code >= 500, (rule, answered.text)
        stage.maker.clear_faults()


def _quota(stage: Stage) -> None:
    account = stage.link("quota@example.com", region="north_america")
    answered = stage.post(action="vehicles", account=account)
    assert answered.json()["error"]["code"] == "QUOTA_LIMIT_EXCEEDED", answered.text


def _blocked(stage: Stage) -> None:
    account = stage.link("user-8@example.com")
    stage.maker.fault(fault="status", status=489, match={"path": "vehicle"})
    assert stage.post(action="vehicles", account=account).json()["error"]["code"] == "PROVIDER_BLOCKED"
    answered = stage.connect("blocked@example.com", "for-blocked")
    assert answered.json()["error"]["code"] == "PROVIDER_BLOCKED", answered.text


def _failing(stage: Stage) -> None:
    account = stage.link("user-4@example.com", region="north_america")
    stage.maker.fault(fault="status", status=503)
    codes = {
        stage.post(action="status", account=account, vin=VINS[0], fresh=True).json()["error"]["code"] for _ in range(8)
    }
    assert codes == {"UPSTREAM_ERROR", "CIRCUIT_OPEN"}


def _expire(stage: Stage, email: str, account: str) -> None:
    stage.maker.expire_access(email)
    stage.post(action="status", account=account, vin=VINS[0], fresh=True)


async def _spoil_tokens(settings: Settings, account: str) -> None:
    """What no version of ours ever wrote, properly sealed."""
    documents, _ = open_storage(settings, SystemClock())
    stored = await documents.get(f"tokens/{account}")
    assert stored is not None
    await documents.replace(stored, {"tokens": "of another kind"})
    await documents.aclose()


def _break_seals(stage: Stage, account: str) -> None:
    """Change one character of everything that is sealed for the account."""
    with contextlib.closing(sqlite3.connect(stage.database, isolation_level=None)) as connection:
        for version, body in connection.execute(
            "SELECT version, body FROM documents WHERE key LIKE ?", (f"%{account}%",)
        ):
            text = bytes(body).decode()
            spoilt = text[:-20] + ("A" if text[-20] != "A" else "B") + text[-19:]
            connection.execute("UPDATE documents SET body = ? WHERE version = ?", (spoilt.encode(), version))
    stage.post(action="disconnect", account=account)


def _lose_the_store(stage: Stage) -> None:
    for name in (stage.database, *stage.database.parent.glob(f"{stage.database.name}-*")):
        name.write_bytes(b"not a database" * 1000)
    for number in range(3):
        stage.connect("user-5@example.com", f"no-store-{number}")


def _misconfigured(environ: Mapping[str, str], log: Path) -> list[str]:
    port = free_port()
    command = [sys.executable, "-m", "functions_framework", "--target=bmw_api", "--host=127.0.0.1", f"--port={port}"]
    with Server("misconfigured", command, environ=environ, cwd=ROOT, log=log) as server:
        server.wait_until_answers(f"http://127.0.0.1:{port}/health")
    return log.read_text(encoding="utf-8").splitlines()


def _misconfigured_stream(environ: Mapping[str, str]) -> list[str]:
    worker = [sys.executable, "-m", "functions.providers.cardata.stream"]
    done = subprocess.run(worker, env=environ, cwd=ROOT, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 2, done.stderr
    return done.stderr.splitlines()


@contextmanager
def _events(service: str) -> Iterator[tuple[EventLog, io.StringIO]]:
    stream = io.StringIO()
    output = configure(
        stream, level="INFO", project_id="p", environment="production", service=service, version="1", revision="r"
    )
    yield EventLog(output, SystemClock(), strict=True), stream


def _stream_troubles() -> list[str]:
    with _events("draiv-cardata-stream") as (events, stream):
        report = StreamReport(events)
        report.ended("acc_0", Ending.EVICTED, Failures(3, 3), 600)
        report.store_failed("acc_0", StoreUnavailable(), 1)
        report.not_renewed("acc_0", "no_tokens")
        report.worker("stream_beat_failed", error=StoreUnavailable())
        report.worker("stream_look_failed", error=StoreUnavailable())
        report.worker("stream_session_failed", error=LookupError("a defect"))
    return stream.getvalue().splitlines()


def _keep_alive(environ: Mapping[str, str]) -> list[str]:
    """The daily job, for a link that nobody has renewed for twelve days, at a maker that knows nothing of it."""
    asyncio.run(_idle_link(load(environ)))
    job = [sys.executable, "-m", "functions.providers.cardata.keep_alive"]
    done = subprocess.run(job, env=environ, cwd=ROOT, capture_output=True, text=True, check=False, timeout=30)
    return done.stdout.splitlines()


async def _idle_link(settings: Settings) -> None:
    account = "acc_" + "0" * 22
    then = ManualClock(wall=datetime.now(UTC) - timedelta(days=12))
    documents, keys = open_storage(settings, then)
    await keys.create(account, "cardata", "owner")
    extra = {"gcid": "a-customer", "client_id": "a-client", "id_token": "none"}
    await TokenKeeper(documents, then).save(account, TokenSet("old", "older", then.utc(), extra))
    await StreamIndex(documents).add(account, "a-customer")
    await documents.aclose()
