"""Every implementation of the port, by turns."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from common.stores.documents import Documents
from tests.common.stores.contenders import SEALED, Address
from tests.common.stores.sealing import prepare
from tests.support.fake_gcs import FakeGcs, running_fake_gcs


@pytest.fixture(scope="session")
def fake_gcs() -> Iterator[FakeGcs]:
    with running_fake_gcs() as server:
        yield server


@pytest.fixture
def sqlite_address(tmp_path: Path) -> Address:
    return Address(f"sqlite:///{tmp_path}/state/documents.db")


@pytest.fixture
def gcs_address(fake_gcs: FakeGcs) -> Address:
    return Address(f"gs://{fake_gcs.new_bucket()}/production", fake_gcs.url)


@pytest.fixture
def sealed_address(sqlite_address: Address) -> Address:
    prepare(sqlite_address.url)
    return Address(f"{SEALED}{sqlite_address.url}")


@pytest.fixture(params=["sqlite", "gcs", "sealed"])
def address(request: pytest.FixtureRequest) -> Address:
    found: Address = request.getfixturevalue(f"{request.param}_address")
    return found


@pytest.fixture
async def documents(address: Address) -> AsyncIterator[Documents]:
    store = address.open()
    yield store
    await store.aclose()
