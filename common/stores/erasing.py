"""Documents in one SQLite file that keeps nothing of what was deleted or replaced: for keys.

SQLite leaves deleted bytes in free pages, and the write-ahead log keeps earlier pages until it is folded into the
file. Here deleted bytes are overwritten with zeros and the log is emptied after each such write. What the disk itself
keeps, and what a copy of the file keeps, is out of reach: the file belongs into no backup.
"""

import contextlib

import aiosqlite

from common.errors import StoreUnavailable
from common.stores.documents import Body, Document
from common.stores.sqlite import SqliteDocuments


class ErasingSqliteDocuments(SqliteDocuments):
    """See the module's docstring."""

    async def replace(self, document: Document, body: Body) -> Document:
        """See :class:`Documents`."""
        replaced = await super().replace(document, body)
        await self._empty_log()
        return replaced

    async def delete(self, key: str, version: str | None = None) -> bool:
        """See :class:`Documents`. Empties the log also where nothing was there: an earlier try may not have."""
        deleted = await super().delete(key, version)
        await self._empty_log()
        return deleted

    async def _connect(self) -> aiosqlite.Connection:
        connection = await super()._connect()
        await connection.execute_fetchall("PRAGMA secure_delete = ON")
        return connection

    async def _empty_log(self) -> None:
        # The write is done and must not be reported as failed. Whoever writes or closes next empties the log.
        with contextlib.suppress(StoreUnavailable):
            await self._fetch("PRAGMA wal_checkpoint(TRUNCATE)")
