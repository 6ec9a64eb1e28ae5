"""What a backup reads while others write."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from common.clock import ManualClock
from common.errors import StoreUnavailable
from common.stores.documents import Document, Documents, open_documents
from functions.audit import AuditKey, AuditTrail
from ops.audit_proof import Stored, examine
from ops.backup_chains import Place, place_of, reach_of
from ops.backup_source import Page, listed_pages, pages, sqlite_pages
from tests.support.audit_writer import KEY, VIN, enter, record
from tests.support.tapped_documents import TappedDocuments, When

SEAL = AuditKey(KEY.encode())
CHAIN = SEAL.pseudonym("vehicle", VIN)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "documents.db"


@pytest.fixture
async def documents(path: Path) -> AsyncIterator[Documents]:
    store = open_documents(f"sqlite:///{path}")
    yield store
    await store.aclose()


async def all_of(read: AsyncIterator[Page]) -> list[Document]:
    return [document async for page in read for document in page]


async def test_a_file_is_read_as_it_was_at_one_moment(documents: Documents, path: Path) -> None:
    for number in range(600):
        await documents.create(f"k/{number:04}", {"at": 0})
    before = [await documents.get(f"k/{number:04}") for number in range(600)]
    read = sqlite_pages(path)
    first = await anext(read)
    assert 0 < len(first) < 600
    changed = await documents.get("k/0599")
    assert changed is not None
    await documents.replace(changed, {"at": 1})
    await documents.delete("k/0598")
    await documents.create("k/0700", {"at": 1})
    assert [*first, *await all_of(read)] == before
    assert len(await all_of(sqlite_pages(path))) == 600


async def test_a_file_that_is_no_database_or_holds_no_json_is_told(tmp_path: Path, path: Path) -> None:
    (tmp_path / "text.db").write_text("text " * 999)
    for broken in (tmp_path / "text.db", tmp_path / "nowhere.db"):
        with pytest.raises(StoreUnavailable):
            await all_of(sqlite_pages(broken))
    assert not (tmp_path / "nowhere.db").exists()


async def test_a_listed_store_is_read_to_its_end_but_for_what_goes_meanwhile(documents: Documents) -> None:
    for number in range(1_100):
        await documents.create(f"k/{number:04}", {})

    async def delete(when: When, operation: str, key: str) -> None:
        if (when, operation, key) == (When.BEFORE, "get", "k/0007"):
            await documents.delete("k/1099")
            await documents.delete("k/0007")

    found = await all_of(pages("gs://bucket", TappedDocuments(documents, delete)))
    assert [one.key for one in found] == [f"k/{number:04}" for number in range(1_099) if number != 7]


@pytest.mark.parametrize("entered", [0, 1, 3])
async def test_an_audit_chain_that_grows_while_it_is_read_is_whole_in_the_backup(
    documents: Documents, entered: int
) -> None:
    trail = AuditTrail(documents, ManualClock(), key=KEY.encode())
    await documents.create("apikeys/one", {})
    for number in range(entered):
        await enter(trail, record(str(number)))
    if entered == 0:
        with pytest.raises(KeyboardInterrupt):
            await enter(AuditTrail(TappedDocuments(documents, _dies), ManualClock(), key=KEY.encode()), record())

    async def write(when: When, operation: str, _key: str) -> None:
        if (when, operation) == (When.AFTER, "list"):
            for number in range(2):
                await enter(trail, record(f"late{number}{_key}"))

    read = await all_of(listed_pages(TappedDocuments(documents, write)))
    chain = {place.seq: one.body for one in read if (place := place_of(one.key)) is not None}
    head = chain.pop(None)
    entries: dict[int, object] = {seq: body for seq, body in chain.items() if seq is not None}
    assert len(entries) >= 2 * entered + 4
    examined = examine(SEAL, Stored(CHAIN, entries, head))
    assert (examined.findings, examined.was_interrupted) == ((), False)


async def _dies(when: When, operation: str, key: str) -> None:
    """Once a chain has its head, and no entry yet."""
    if (when, operation) == (When.BEFORE, "create") and not key.endswith("/head"):
        raise KeyboardInterrupt


async def test_a_head_that_goes_meanwhile_is_left_out(documents: Documents) -> None:
    await enter(AuditTrail(documents, ManualClock(), key=KEY.encode()), record())

    async def delete(when: When, operation: str, key: str) -> None:
        if (when, operation) == (When.BEFORE, "get") and key.endswith("/head"):
            await documents.delete(key)

    found = await all_of(listed_pages(TappedDocuments(documents, delete)))
    assert [place_of(one.key) for one in found] == [Place(CHAIN, 1), Place(CHAIN, 2)]


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("audit/c/head", Place("c", None)),
        ("audit/c/000000000012", Place("c", 12)),
        ("audit/c/other", None),
        ("audit/c", None),
        ("audit/c/1/2", None),
        ("tokens/c/head", None),
    ],
)
def test_a_place_in_a_chain_is_told_by_the_key(key: str, place: Place | None) -> None:
    assert place_of(key) == place


@pytest.mark.parametrize(("head", "reach"), [({"seq": 7}, 7), ({}, 0), ([], 0), ({"seq": "7"}, 0)])
def test_what_is_no_head_reaches_nothing(head: object, reach: int) -> None:
    assert reach_of(head) == reach
