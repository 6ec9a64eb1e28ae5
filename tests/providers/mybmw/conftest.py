"""BMW's provider against the sandbox over HTTP: one sandbox a test process, forgotten before each test."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from common.clock import ManualClock
from common.stores.documents import Documents, open_documents
from functions.providers.mybmw.provider import build
from functions.providers.pool import Watch
from functions.tokens import TokenKeeper
from sandbox.process import RunningSandbox, running_sandbox
from tests.providers.mybmw.harness import Bmw


@pytest.fixture(scope="session")
def sandbox_process() -> Iterator[RunningSandbox]:
    with running_sandbox(event_step_s=0) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(sandbox_process: RunningSandbox) -> RunningSandbox:
    sandbox_process.reset()
    return sandbox_process


@pytest.fixture
def clock() -> ManualClock:
    """Starts at the machine's time, because the library dates the end of tokens by it."""
    return ManualClock(wall=datetime.now(UTC))


@pytest.fixture
async def documents(tmp_path: Path) -> AsyncIterator[Documents]:
    store = open_documents(f"sqlite:///{tmp_path}/tokens.db")
    yield store
    await store.aclose()


@pytest.fixture
def request_timeout_s() -> float:
    """Far more than is ever needed; tests of timeouts parametrize it to ``IMPATIENT``."""
    return 30.0


@pytest.fixture
async def bmw(
    sandbox: RunningSandbox, documents: Documents, clock: ManualClock, request_timeout_s: float
) -> AsyncIterator[Bmw]:
    async def sleep(seconds: float) -> None:
        clock.advance(seconds)

    keeper = TokenKeeper(documents, clock, sleep=sleep)
    requests: list[tuple[str, str, float]] = []
    provider = build(
        tokens=keeper,
        clock=clock,
        origin=sandbox.origin,
        request_timeout_s=request_timeout_s,
        renewal_timeout_s=request_timeout_s,
        watch=Watch(lambda *request: requests.append(request)),
    )
    yield Bmw(provider, sandbox, keeper, clock, requests)
    await provider.close()
