"""The whole service against the simulated maker: a real sandbox process, a real document store, real sockets."""

import base64
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from common.clock import Clock, ManualClock
from common.settings import Settings
from functions.app import App, build
from functions.assembly import Patience
from functions.wire import RawRequest, Reply
from sandbox.process import RunningSandbox, running_sandbox

PASSWORD = "demo-password"
IX = "WBA00000000DEMO01"
"""An iX with every capability."""
M340I = "WBA00000000DEMO03"
"""A petrol car."""

MASTER_KEY = "test:" + base64.b64encode(bytes(range(32))).decode()
"""Seals what tests store."""
NO_LIMITS = {name: "" for name in Settings.model_fields if name.startswith("limit_")}
"""For tests that are about something else and ask a lot."""
PATIENT = Patience(store_s=5, word_s=5, limits_s=5)
"""For tests of what instances share that do not show how short the waits are: a busy machine takes its time."""
_numbers = itertools.count()


@dataclass
class Answered:
    """A reply, opened."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def result(self) -> Any:
        assert self.json["success"] is True, self.json
        return self.json["result"]

    @property
    def meta(self) -> Any:
        return self.json["meta"]

    @property
    def error(self) -> Any:
        assert self.json["success"] is False, self.json
        return self.json["error"]


class Api:
    """A caller of the service, without a server in between."""

    def __init__(self, app: App) -> None:
        self.app = app

    def send(self, request: RawRequest) -> Answered:
        reply: Reply = self.app.loop.run(self.app.pipeline.handle(request))
        return Answered(reply.status, reply.headers, reply.body)

    def post(self, headers: Mapping[str, str] | None = None, /, **fields: Any) -> Answered:
        return self.post_bytes(json.dumps(fields).encode(), headers)

    def post_bytes(self, body: bytes, headers: Mapping[str, str] | None = None) -> Answered:
        return self.send(RawRequest("POST", "/", {"content-type": "application/json"} | dict(headers or {}), body))

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answered:
        return self.send(RawRequest("GET", path, dict(headers or {}), b""))

    def connect(self, email: str = "one@example.com", **fields: Any) -> str:
        """Link an account; its id."""
        answered = self.post(action="connect", email=email, password=PASSWORD, hcaptcha=captcha(), **fields)
        assert answered.status == 200, answered.json
        account: str = answered.result["account"]
        return account


def captcha() -> str:
    """A token that was never used before."""
    return f"captcha-{next(_numbers)}"


@pytest.fixture
def clock() -> ManualClock:
    """A clock for the service that moves when told, beginning now: the simulated maker keeps its own."""
    return ManualClock(wall=datetime.now(UTC))


@pytest.fixture(scope="session")
def maker() -> Iterator[RunningSandbox]:
    """The simulated maker, one for all tests of a worker."""
    with running_sandbox(event_step_s=0) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(maker: RunningSandbox) -> RunningSandbox:
    """The simulated maker as new."""
    maker.reset()
    maker.settings(event_step_s=0, latency_ms=0)
    return maker


MakeApi = Callable[..., Api]


@pytest.fixture
def make_api(sandbox: RunningSandbox, tmp_path: Path) -> Iterator[MakeApi]:
    """Builds instances of the service that share one document store, as a deployment's do."""
    apps: list[App] = []

    def make(clock: Clock | None = None, patience: Patience | None = None, **settings: Any) -> Api:
        values = {
            "environment": "development",
            "callers": ("open",),
            "token_keys": MASTER_KEY,
            "documents_url": f"sqlite:///{tmp_path}/documents.db",
            "mybmw_origin": sandbox.origin,
            "poll_interval_s": 0.01,
            **NO_LIMITS,
            **settings,
        }
        app = build(Settings(**values), clock=clock, patience=patience)
        apps.append(app)
        return Api(app)

    yield make
    for app in apps:
        app.close()


@pytest.fixture
def api(make_api: MakeApi) -> Api:
    """One instance of the service."""
    return make_api()
