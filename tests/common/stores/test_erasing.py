"""What is deleted from the store of keys is gone from its files."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from common.errors import StoreUnavailable
from common.stores.documents import Documents
from common.stores.erasing import ErasingSqliteDocuments
from common.stores.sqlite import SqliteDocuments

PLANTED = "planted-wrapped-key"


@pytest.fixture
async def documents(tmp_path: Path) -> AsyncIterator[Documents]:
    store = ErasingSqliteDocuments(tmp_path / "keys.db", busy_timeout_s=0.2)
    yield store
    await store.aclose()


def on_disk(folder: Path) -> int:
    return sum(file.read_bytes().count(PLANTED.encode()) for file in folder.iterdir())


async def test_a_deleted_document_leaves_no_byte(documents: Documents, tmp_path: Path) -> None:
    for number in range(50):
        await documents.create(f"keys/{number}", {"wrapped": PLANTED * 20})
    assert on_disk(tmp_path) > 0
    for number in range(50):
        assert await documents.delete(f"keys/{number}") is True
    assert on_disk(tmp_path) == 0


async def test_a_replaced_body_leaves_no_byte(documents: Documents, tmp_path: Path) -> None:
    created = await documents.create("keys/1", {"wrapped": PLANTED})
    replaced = await documents.replace(created, {"wrapped": "other"})
    assert on_disk(tmp_path) == 0
    assert await documents.get("keys/1") == replaced


async def test_the_plain_store_would_leave_it(tmp_path: Path) -> None:
    plain = SqliteDocuments(tmp_path / "keys.db")
    await plain.create("keys/1", {"wrapped": PLANTED})
    await plain.delete("keys/1")
    assert on_disk(tmp_path) > 0
    await plain.aclose()


async def test_while_a_reader_holds_the_log_a_deletion_still_succeeds_and_the_next_one_erases(
    documents: Documents, tmp_path: Path
) -> None:
    await documents.create("keys/1", {"wrapped": PLANTED})
    with closing(sqlite3.connect(tmp_path / "keys.db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM documents").fetchall()
        assert await documents.delete("keys/1") is True
        assert on_disk(tmp_path) > 0
        reader.execute("COMMIT")
    assert await documents.delete("keys/1") is False
    assert on_disk(tmp_path) == 0


async def test_many_that_delete_at_once_all_succeed(tmp_path: Path) -> None:
    stores = [ErasingSqliteDocuments(tmp_path / "keys.db") for _ in range(3)]
    for number in range(30):
        await stores[0].create(f"keys/{number}", {"wrapped": PLANTED})
    deleted = await asyncio.gather(*(stores[number % 3].delete(f"keys/{number}") for number in range(30)))
    assert deleted == [True] * 30
    assert on_disk(tmp_path) == 0
    for store in stores:
        await store.aclose()


async def test_a_closed_store_stays_closed(documents: Documents) -> None:
    await documents.aclose()
    with pytest.raises(StoreUnavailable):
        await documents.delete("keys/1")
