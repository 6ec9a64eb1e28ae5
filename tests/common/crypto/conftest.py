"""A store of keys and a vault over it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from common.clock import ManualClock
from common.crypto.keyset import Keyset
from common.stores.documents import Documents, open_documents
from common.vault import Vault
from tests.common.crypto.masters import K1
from tests.support.tapped_documents import TappedDocuments


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def keys(tmp_path: Path) -> AsyncIterator[TappedDocuments]:
    inner: Documents = open_documents(f"sqlite:///{tmp_path}/keys.db")
    yield TappedDocuments(inner)
    await inner.aclose()


@pytest.fixture
def vault(keys: TappedDocuments, clock: ManualClock) -> Vault:
    return Vault(keys, Keyset.parse(K1), clock)
