"""Where a backup reads: the stored documents, still sealed, in the order of their keys, a page at a time.

A SQLite file is read in one transaction: the backup is the store at one moment, whatever is written meanwhile. A bucket
has no such thing: each document is whole, each is read later than the one before, and only the audit trail is made to
agree with itself; docs/backup.md says what that means for the rest.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import orjson

from common.errors import StoreUnavailable
from common.stores.documents import Document, Documents
from functions.audit import entry_key
from ops.backup_chains import place_of, reach_of

Page = list[Document]

_PAGE: Final = 500
_AT_ONCE: Final = 16
_SQLITE: Final = "sqlite:///"
_SELECT: Final = "SELECT key, body, version FROM documents ORDER BY key"


def pages(url: str, documents: Documents) -> AsyncIterator[Page]:
    """All documents of the store that ``url`` names and ``documents`` opens. Raises StoreUnavailable."""
    if url.startswith(_SQLITE):
        return sqlite_pages(Path(url.removeprefix(_SQLITE)))
    return listed_pages(documents)


async def sqlite_pages(path: Path) -> AsyncIterator[Page]:
    """The documents in a SQLite file as they are at the first page, beside any number of writers."""
    connection = await asyncio.to_thread(_opened, path)
    try:
        rows = await asyncio.to_thread(connection.execute, _SELECT)
        while page := await asyncio.to_thread(rows.fetchmany, _PAGE):
            yield [Document(key, orjson.loads(body), str(version)) for key, body, version in page]
    except (sqlite3.Error, orjson.JSONDecodeError) as error:
        raise StoreUnavailable from error
    finally:
        await asyncio.to_thread(connection.close)


def _opened(path: Path) -> sqlite3.Connection:
    try:
        # One SELECT is one read transaction; "rw" never makes a file, and query_only keeps us from writing to it.
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True, check_same_thread=False)
        connection.execute("PRAGMA query_only = ON")
    except sqlite3.Error as error:
        raise StoreUnavailable from error
    return connection


async def listed_pages(documents: Documents) -> AsyncIterator[Page]:
    """The documents of any store, each as it is when its turn comes; those that are gone by then are left out."""
    limit = asyncio.Semaphore(_AT_ONCE)

    async def get(key: str) -> Document | None:
        async with limit:
            return await documents.get(key)

    last: str | None = None
    while keys := await documents.list("", limit=_PAGE, after=last):
        page: Page = []
        for document in await asyncio.gather(*(get(key) for key in keys if not _is_head(key))):
            page += [document] if document is not None else []
        for head_key in filter(_is_head, keys):
            page += await _chain_end(documents, head_key, _before(keys, head_key, last))
        last = keys[-1]
        yield page


def _is_head(key: str) -> bool:
    place = place_of(key)
    return place is not None and place.seq is None


def _before(keys: list[str], key: str, last: str | None) -> str:
    """The key that was listed before ``key``; empty where there was none."""
    at = keys.index(key)
    return keys[at - 1] if at > 0 else last or ""


async def _chain_end(documents: Documents, key: str, listed_last: str) -> Page:
    """The head of an audit chain, behind the entries that were made since the chain was listed."""
    head, place, before = await documents.get(key), place_of(key), place_of(listed_last)
    if head is None or place is None:
        return []
    listed = before.seq or 0 if before is not None and before.chain == place.chain else 0
    late = [await documents.get(entry_key(place.chain, seq)) for seq in range(listed + 1, reach_of(head.body) + 1)]
    return [*(entry for entry in late if entry is not None), head]
