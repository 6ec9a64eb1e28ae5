"""What is particular to documents in a file: crashes, locks and the file itself."""

import asyncio
import os
import random
import sqlite3
import stat
import subprocess
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from common.errors import StoreUnavailable
from common.stores.documents import VersionConflict
from common.stores.sqlite import SqliteDocuments
from tests.common.stores.contenders import ROOT, Address, start

KILLS = 30
AT_ONCE = 3


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "documents.db"


@pytest.fixture
async def documents(path: Path) -> AsyncIterator[SqliteDocuments]:
    store = SqliteDocuments(path)
    yield store
    await store.aclose()


@pytest.fixture
async def impatient(path: Path) -> AsyncIterator[SqliteDocuments]:
    store = SqliteDocuments(path, busy_timeout_s=0.1)
    yield store
    await store.aclose()


@pytest.fixture
async def locked(path: Path, documents: SqliteDocuments) -> AsyncIterator[sqlite3.Connection]:
    """Another connection, which is in the middle of a write."""
    await documents.create("links/1", {})
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other


def write_file(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


async def read_then_kill(writer: Process, acknowledgements: int) -> list[int]:
    """Kill -9 after so many acknowledgements; return all that were given by then."""
    assert writer.stdin is not None
    assert writer.stdout is not None
    writer.stdin.write(b"go\n")
    lines = [await writer.stdout.readline() for _ in range(acknowledgements)]
    writer.kill()
    lines += (await writer.stdout.read()).splitlines(keepends=True)
    await writer.wait()
    return [int(line) for line in lines if line.endswith(b"\n")]


async def test_kill_minus_nine_neither_corrupts_the_file_nor_loses_an_acknowledged_write(
    sqlite_address: Address, path: Path
) -> None:
    chance = random.Random(9)
    expected: set[str] = set()
    survivor = sqlite_address.open()
    for kills in range(AT_ONCE, KILLS + 1, AT_ONCE):
        runs = range(kills - AT_ONCE, kills)
        writers = await asyncio.gather(*(start(sqlite_address, "1", "write", str(run)) for run in runs))
        deaths = [read_then_kill(writer, chance.randint(1, 40)) for writer in writers]
        for run, acknowledged in zip(runs, await asyncio.gather(*deaths), strict=True):
            expected |= {f"log/{run}.{number}" for number in acknowledged}
        with closing(sqlite3.connect(path)) as check:
            assert check.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        present = set(await survivor.list("log", limit=100_000))
        assert expected <= present
        assert len(present - expected) <= kills  # done, and killed before it could say so
    assert kills == KILLS
    await survivor.aclose()


async def test_the_file_is_flushed_to_the_disk_at_every_commit(documents: SqliteDocuments, path: Path) -> None:
    await documents.create("links/1", {})
    assert await documents._fetch("PRAGMA synchronous") == [(2,)]  # a setting of the connection: not seen from outside
    assert await documents._fetch("PRAGMA fullfsync") == [(1,)]
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA journal_mode").fetchall() == [("wal",)]


async def test_only_the_owner_can_read_a_new_file(documents: SqliteDocuments, path: Path) -> None:
    before = os.umask(0)
    try:
        await documents.create("links/1", {})
    finally:
        os.umask(before)
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}
    assert len(list(path.parent.iterdir())) == 3  # with the write-ahead log and its index
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_a_write_waits_for_another_process_to_finish(
    documents: SqliteDocuments, locked: sqlite3.Connection
) -> None:
    writing = asyncio.create_task(documents.create("links/2", {}))
    await asyncio.wait([writing], timeout=0.05)
    assert not writing.done()
    locked.execute("COMMIT")
    assert await writing == await documents.get("links/2")


async def test_a_lock_held_too_long_is_unavailable(impatient: SqliteDocuments, locked: sqlite3.Connection) -> None:
    begun = time.monotonic()
    outcomes = await asyncio.gather(
        *(impatient.create(f"links/{number}", {"token": "planted"}) for number in range(2, 32)), return_exceptions=True
    )
    assert time.monotonic() - begun < 1.5  # and not thirty times the timeout, one after the other
    assert {type(outcome) for outcome in outcomes} == {StoreUnavailable}
    assert not any("planted" in str(outcome) for outcome in outcomes)


async def test_a_write_that_gave_up_waiting_is_not_done_later(
    documents: SqliteDocuments, locked: sqlite3.Connection
) -> None:
    writing = asyncio.create_task(documents.create("links/2", {}))
    waiting = [asyncio.create_task(documents.create(f"links/{number}", {})) for number in range(3, 33)]
    await asyncio.wait([writing], timeout=0.05)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    locked.execute("COMMIT")
    await writing
    assert await documents.list("links") == ["links/1", "links/2"]


async def test_opening_a_new_file_waits_for_another_process_to_let_go_of_it(
    documents: SqliteDocuments, path: Path
) -> None:
    write_file(path, "")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        opening = asyncio.create_task(documents.ping())
        await asyncio.wait([opening], timeout=0.1)
        assert not opening.done()
        other.execute("COMMIT")
        await opening


async def test_a_new_file_that_is_held_too_long_is_unavailable(impatient: SqliteDocuments, path: Path) -> None:
    write_file(path, "")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable):
            await impatient.ping()


async def test_readers_do_not_wait_for_a_writer(documents: SqliteDocuments, locked: sqlite3.Connection) -> None:
    assert await documents.get("links/1") is not None
    await documents.ping()


async def test_a_stale_version_is_not_deleted(documents: SqliteDocuments) -> None:
    # Not in the suite for every store: the emulator of the other one ignores the precondition of a delete.
    created = await documents.create("links/1", {})
    replaced = await documents.replace(created, {"name": "b"})
    with pytest.raises(VersionConflict):
        await documents.delete("links/1", created.version)
    assert await documents.get("links/1") == replaced


async def test_a_file_that_is_no_database_is_unavailable(documents: SqliteDocuments, path: Path) -> None:
    write_file(path, "not a database, but long enough to be taken for the header of one" * 100)
    with pytest.raises(StoreUnavailable):
        await documents.get("links/1")


async def test_a_path_that_cannot_be_made_is_unavailable_until_it_can(documents: SqliteDocuments, path: Path) -> None:
    write_file(path.parent, "a file where the directory should be")
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await documents.ping()
    path.parent.unlink()
    await documents.ping()


async def test_a_body_that_was_tampered_with_is_unavailable(documents: SqliteDocuments, path: Path) -> None:
    await documents.create("links/1", {})
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("UPDATE documents SET body = x'7b'")
    with pytest.raises(StoreUnavailable):
        await documents.get("links/1")


def take_away(path: Path) -> None:
    path.rename(path.with_suffix(".old"))


@pytest.mark.parametrize("replaced", [False, True], ids=["removed", "replaced"])
async def test_a_ping_notices_that_the_file_was_taken_away(
    documents: SqliteDocuments, path: Path, replaced: bool
) -> None:
    await documents.ping()
    take_away(path)
    if replaced:
        write_file(path, "")
    with pytest.raises(StoreUnavailable):
        await documents.ping()


async def test_many_at_once_open_the_file_once(documents: SqliteDocuments) -> None:
    await asyncio.gather(*(documents.create(f"links/{number}", {}) for number in range(50)))
    assert len(await documents.list("links")) == 50


def test_a_process_that_never_closes_its_store_ends_all_the_same(path: Path) -> None:
    program = f"""
import asyncio
from common.stores.documents import open_documents
store = open_documents("sqlite:///{path}")
asyncio.run(store.create("links/1", {{}}))
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=10)
    assert path.is_file()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_store_whose_loop_ended_in_the_middle_of_a_write_can_be_closed(path: Path) -> None:
    store = SqliteDocuments(path, busy_timeout_s=0.2)

    async def leave_in_the_middle() -> None:
        await store.ping()
        writing = asyncio.create_task(store.create("links/1", {}))
        await asyncio.sleep(0)
        writing.cancel()

    asyncio.run(store.ping())
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        asyncio.run(leave_in_the_middle())
    asyncio.run(store.aclose())
