"""A document store full of other people's accounts: real ones, copied under other names, which nobody can open."""

import secrets
import sqlite3
import string
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

_LETTERS = string.ascii_letters + string.digits
_ID_CHARS = 22
_INSERT = "INSERT INTO documents (key, body) VALUES (?, ?)"


def stores_of(documents: Path) -> tuple[Path, Path]:
    """The files of a SQLite deployment: its documents, and its accounts' keys."""
    return documents, documents.with_name(f"{documents.stem}.keys{documents.suffix}")


def crowd(documents: Path, like: str, count: int) -> None:
    """Add ``count`` accounts like the account ``like``: its link, tokens and data key, and an identity of its own.

    One transaction a file, past the store, whose one document at a time would take an hour.
    """
    names = [f"acc_{''.join(secrets.choice(_LETTERS) for _ in range(_ID_CHARS))}" for _ in range(count)]
    for path in stores_of(documents):
        with closing(sqlite3.connect(path, timeout=60)) as store, store:
            models = store.execute("SELECT key, body FROM documents WHERE key LIKE ?", (f"%{like}%",)).fetchall()
            for key, body in models:
                store.executemany(_INSERT, ((key.replace(like, name), body) for name in names))
            identity = store.execute("SELECT body FROM documents WHERE key LIKE 'identities/%' LIMIT 1").fetchone()
            if identity:
                store.executemany(_INSERT, _identities(count, identity[0]))


def _identities(count: int, body: bytes) -> Iterator[tuple[str, bytes]]:
    return ((f"identities/{secrets.token_hex(32)}", body) for _ in range(count))


def size_of(documents: Path) -> int:
    """Documents in both files."""
    total = 0
    for path in stores_of(documents):
        with closing(sqlite3.connect(path, timeout=60)) as store:
            total += store.execute("SELECT count(*) FROM documents").fetchone()[0]
    return total
