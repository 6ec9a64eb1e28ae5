"""Documents in one SQLite file: what a laptop and a single machine need, with nothing to install.

Safe for any number of threads and processes on one machine. An acknowledged write survives a power cut: the
write-ahead log is flushed to the disk at every commit (``synchronous=FULL``, ``fullfsync`` for macOS).

Each operation is one SQL statement, hence one transaction, and the compare-and-swap is inside it.
"""

import asyncio
import builtins
import contextlib
import sqlite3
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import aiosqlite
import orjson

from common.errors import StoreUnavailable
from common.loops import needs_loop
from common.stores.documents import (
    Body,
    Document,
    DocumentExists,
    VersionConflict,
    check_key,
    check_range,
    encode_body,
)

# AUTOINCREMENT never gives out a number twice, so that a version outlived by its document never comes back.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS documents (
    version INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    body BLOB NOT NULL
) STRICT
"""
_GET = "SELECT body, version FROM documents WHERE key = ?"
_CREATE = "INSERT INTO documents (key, body) VALUES (?, ?) ON CONFLICT (key) DO NOTHING RETURNING version"
# OR REPLACE takes the old row out and puts the new one in, under the next number, in the same transaction.
_REPLACE = """
INSERT OR REPLACE INTO documents (key, body)
SELECT key, ? FROM documents WHERE key = ? AND version = ? RETURNING version
"""
_DELETE = "DELETE FROM documents WHERE key = ? RETURNING version"
_DELETE_VERSION = "DELETE FROM documents WHERE key = ? AND version = ? RETURNING version"
# "0" is the character that follows "/": the range holds exactly the keys that start with "prefix/".
_LIST = "SELECT key FROM documents WHERE key > ? AND key < ? ORDER BY key LIMIT ?"
_LIST_ALL = "SELECT key FROM documents WHERE key > ? ORDER BY key LIMIT ?"

_BUSY_RETRY_S = 0.01

# Closing a file drops every lock that this process holds on it, SQLite's own included, so a new file is made and
# closed while no store of this process can have it open.
_making_a_file = threading.Lock()


class SqliteDocuments:
    """The store in the file at ``path``, which is made on first use: mode 0600, its directories too.

    ``busy_timeout_s`` bounds the wait for another process's write; with the wait for one's turn in this process an
    operation takes at most twice as long.
    """

    def __init__(self, path: Path, *, busy_timeout_s: float = 5.0) -> None:
        self._path = path
        self._busy_timeout_s = busy_timeout_s
        # Whoever gives up while waiting for a turn has done nothing; in the connection's own queue it would be done.
        self._turn = asyncio.Lock()
        self._connection: aiosqlite.Connection | None = None
        self._opened_file: tuple[int, int] | None = None
        self._closed = False

    async def get(self, key: str) -> Document | None:
        """See :class:`Documents`."""
        await needs_loop()
        rows = await self._fetch(_GET, check_key(key))
        return _document(key, *rows[0]) if rows else None

    async def create(self, key: str, body: Body) -> Document:
        """See :class:`Documents`."""
        await needs_loop()
        encoded = encode_body(body)
        rows = await self._fetch(_CREATE, check_key(key), encoded)
        if not rows:
            raise DocumentExists
        return _document(key, encoded, rows[0][0])

    async def replace(self, document: Document, body: Body) -> Document:
        """See :class:`Documents`."""
        await needs_loop()
        encoded = encode_body(body)
        rows = await self._fetch(_REPLACE, encoded, check_key(document.key), int(document.version))
        if not rows:
            raise VersionConflict
        return _document(document.key, encoded, rows[0][0])

    async def delete(self, key: str, version: str | None = None) -> bool:
        """See :class:`Documents`."""
        await needs_loop()
        if version is None:
            return bool(await self._fetch(_DELETE, check_key(key)))
        if await self._fetch(_DELETE_VERSION, check_key(key), int(version)):
            return True
        if await self._fetch(_GET, key):
            raise VersionConflict
        return False

    async def list(self, prefix: str, *, limit: int = 1000, after: str | None = None) -> builtins.list[str]:
        """See :class:`Documents`."""
        await needs_loop()
        start = check_range(prefix, limit, after)
        above = max(start, after or "")
        rows = await (
            self._fetch(_LIST, above, f"{start[:-1]}0", limit) if start else self._fetch(_LIST_ALL, above, limit)
        )
        return [key for (key,) in rows]

    async def ping(self) -> None:
        """See :class:`Documents`. Notices a file that was removed or replaced under the running process, too."""
        await needs_loop()
        await self._fetch("SELECT 1 FROM documents LIMIT 1")
        if await asyncio.to_thread(_file_identity, self._path) != self._opened_file:
            raise StoreUnavailable

    async def aclose(self) -> None:
        """See :class:`Documents`."""
        await needs_loop()
        self._closed = True
        async with self._turn:
            connection, self._connection = self._connection, None
            if connection is not None:
                await self._end(connection)

    async def _fetch(self, statement: str, *parameters: object) -> builtins.list[Any]:
        """Run one statement, which commits before this returns, and give its rows."""
        try:
            async with asyncio.timeout(2 * self._busy_timeout_s), self._turn:
                connection = self._connection or await self._open()
                rows: Iterable[Any] = await connection.execute_fetchall(statement, parameters)
                return builtins.list(rows)
        except (sqlite3.Error, OSError) as error:  # TimeoutError is an OSError
            raise StoreUnavailable from error

    async def _open(self) -> aiosqlite.Connection:
        if self._closed:
            raise StoreUnavailable
        opened_file = await asyncio.to_thread(_make_file, self._path)
        self._connection, self._opened_file = await self._connect(), opened_file
        return self._connection

    async def _connect(self) -> aiosqlite.Connection:
        connection = aiosqlite.connect(self._path, timeout=self._busy_timeout_s, isolation_level=None)
        # aiosqlite offers no way to say so: a process that ends without closing must not wait for this thread.
        connection._thread.daemon = True
        await connection
        try:
            await _switch_to_wal(connection)
            for statement in ("PRAGMA synchronous = FULL", "PRAGMA fullfsync = ON", _SCHEMA):
                await connection.execute_fetchall(statement)
        except BaseException:
            await self._end(connection)
            raise
        return connection

    async def _end(self, connection: aiosqlite.Connection) -> None:
        """Close ``connection`` and end its thread, without waiting for it longer than for anything else."""
        stopped = connection.stop()
        if stopped is not None:
            # Not for ever: the thread that is to answer is dead where its last caller's loop has ended.
            await asyncio.wait([stopped], timeout=self._busy_timeout_s)


async def _switch_to_wal(connection: aiosqlite.Connection) -> None:
    """Switch the file to the write-ahead log. Until the caller's deadline: SQLite does not wait by itself here."""
    while True:
        try:
            await connection.execute_fetchall("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
            await asyncio.sleep(_BUSY_RETRY_S)
        else:
            return


def _document(key: str, encoded: bytes, version: int) -> Document:
    try:
        body = orjson.loads(encoded)
    except orjson.JSONDecodeError as error:
        raise StoreUnavailable from error
    return Document(key, body, str(version))


def _make_file(path: Path) -> tuple[int, int] | None:
    """Make the file if it is not there, and tell which one it is."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _making_a_file, contextlib.suppress(FileExistsError):
        path.touch(mode=0o600, exist_ok=False)
    return _file_identity(path)


def _file_identity(path: Path) -> tuple[int, int] | None:
    """Which file this is, whatever its name; None where there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
