"""Writing a backup."""

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from common.crypto.errors import KeyGone, SealBroken
from common.stores.documents import Document
from ops.backup_file import BackupWriter, Manifest, Record
from ops.backup_records import LEFT_OUT, Records, collection_of
from ops.backup_source import Page

Say = Callable[[str], None]

_AT_ONCE: Final = 16
_SAY_EVERY: Final = 1_000


@dataclass
class Created:
    """What became of the documents of a store."""

    documents: Counter[str] = field(default_factory=Counter)
    """In the backup, by collection."""
    accounts: set[str] = field(default_factory=set)
    """Those whose documents are in the backup."""
    gone: int = 0
    """Left out: the account has no key, so nobody can read it."""
    short_lived: int = 0
    """Left out by their collection."""
    broken: dict[str, str] = field(default_factory=dict)
    """Left out, for they do not open, and why."""


async def create(pages: AsyncIterator[Page], records: Records, writer: BackupWriter, source: str, say: Say) -> Created:
    """Write everything that can be read to ``writer``, and its end. Raises StoreUnavailable."""
    made, limit, seen = Created(), asyncio.Semaphore(_AT_ONCE), 0

    async def closed(document: Document) -> Record | None:
        if collection_of(document.key) in LEFT_OUT:
            made.short_lived += 1
            return None
        async with limit:
            try:
                return await records.close(document)
            except KeyGone:
                made.gone += 1
            except SealBroken as broken:
                made.broken[document.key] = broken.reason
        return None

    async for page in pages:
        for document, record in zip(page, await asyncio.gather(*map(closed, page)), strict=True):
            if record is not None:
                writer.add(record)
                made.documents[collection_of(document.key)] += 1
                made.accounts |= {record.account} - {""}
        seen += len(page)
        if seen // _SAY_EVERY > (seen - len(page)) // _SAY_EVERY:
            say(f"{seen} documents read")
    writer.finish(Manifest(source, dict(made.documents), len(made.accounts)))
    return made


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file that is there, whole and on the disk, when the block ends well, and not there otherwise; mode 0600.

    Raises FileExistsError: a backup is never overwritten.
    """
    _refuse_existing(path)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123 - by fd
            yield file
            file.flush()
            os.fsync(file.fileno())
        _refuse_existing(path)
        partial.rename(path)
        _flush_folder(path.parent)
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise FileExistsError(path)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
