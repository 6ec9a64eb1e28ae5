"""CarData's provider against the sandbox over HTTP: one sandbox a test process, forgotten before each test."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from common.clock import ManualClock
from common.stores.documents import Documents, open_documents
from functions.providers.cardata.provider import assemble
from functions.providers.pool import Watch
from functions.tokens import TokenKeeper
from sandbox.cardata_process import RunningCarData, running_cardata
from tests.providers.cardata.harness import NOON, Bench


@pytest.fixture(scope="session")
def sandbox_process() -> Iterator[RunningCarData]:
    with running_cardata(frozen_at=NOON.isoformat()) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(sandbox_process: RunningCarData) -> RunningCarData:
    sandbox_process.reset()
    return sandbox_process


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(wall=NOON)


@pytest.fixture
async def documents(tmp_path: Path) -> AsyncIterator[Documents]:
    store = open_documents(f"sqlite:///{tmp_path}/documents.db")
    yield store
    await store.aclose()


@pytest.fixture
async def bench(sandbox: RunningCarData, documents: Documents, clock: ManualClock) -> AsyncIterator[Bench]:
    async def at_once(_seconds: float) -> None:
        pass

    keeper = TokenKeeper(documents, clock, sleep=at_once)
    requests: list[tuple[str, str, float]] = []
    cardata = assemble(
        tokens=keeper,
        documents=documents,
        clock=clock,
        auth_origin=sandbox.origin,
        api_origin=sandbox.origin,
        request_timeout_s=20.0,
        watch=Watch(lambda *request: requests.append(request)),
    )
    yield Bench(cardata, sandbox, keeper, documents, clock, requests)
    await cardata.provider.close()
