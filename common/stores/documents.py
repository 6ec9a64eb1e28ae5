"""Documents: small JSON objects that must outlive the process, written by compare-and-swap.

A document has a key (``collection/id``), a body (a JSON object) and a version, an opaque string that changes with
every write and never comes back for the same key, not even after the document was deleted and created again. So
whoever replaces a version that it has read can be sure that nothing happened in between.

::

    Exception
    |-- DocumentExists       create: there is one already
    |-- VersionConflict      replace, delete: the version read is not the version stored
    `-- StoreUnavailable     (common.errors) the disk, the lock, the network, the permission, the quota, the content

``StoreUnavailable`` from a write leaves open whether it was done. Nothing is written twice because of it, for the
next attempt needs a version or an absence that the first one, had it been done, took away.

Every operation waits for I/O and so begins by moving to the worker's loop (:mod:`common.loops`). Opening does no
I/O: a store connects at its first operation.
"""

import asyncio
import builtins
import random
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import orjson

MAX_KEY_CHARS = 512
MAX_BODY_BYTES = 1024 * 1024

Body = dict[str, Any]

_SEGMENTS = re.compile(r"[A-Za-z0-9._=-]+(?:/[A-Za-z0-9._=-]+)*")


class DocumentExists(Exception):
    """A document was to be created under a key that has one."""


class VersionConflict(Exception):
    """The stored version is not the one that was read, or the document is gone."""


@dataclass(frozen=True)
class Document:
    """One version of one document, as the store gave it."""

    key: str
    body: Body = field(repr=False)
    """As it would be read back: a JSON object. It may hold secrets, so it is not shown."""
    version: str
    lineage: tuple[str, ...] = field(default=(), repr=False, compare=False)
    """The store's own note of how this version came about; hand the document back to ``replace`` as it was got."""


class Documents(Protocol):
    """The port. All implementations pass one suite of tests.

    Everything may raise ``StoreUnavailable``; a malformed key or prefix is a ``ValueError``.
    """

    async def get(self, key: str) -> Document | None:
        """The latest version, or None where there is none."""
        ...

    async def create(self, key: str, body: Body) -> Document:
        """Store the first version. Of many at once exactly one succeeds; the others raise ``DocumentExists``."""
        ...

    async def replace(self, document: Document, body: Body) -> Document:
        """Store ``body`` if ``document`` is still the latest version; otherwise raise ``VersionConflict``."""
        ...

    async def delete(self, key: str, version: str | None = None) -> bool:
        """Remove a document; with a version, only that one (otherwise ``VersionConflict``).

        True if it was there, False if there was nothing to remove. After a lost reply more than one may be told True:
        where exactly one must win, :meth:`replace` decides.
        """
        ...

    async def list(self, prefix: str, *, limit: int = 1000, after: str | None = None) -> builtins.list[str]:
        """Up to ``limit`` keys below ``prefix``, in the order of their bytes, those greater than ``after`` only.

        A prefix is a path: ``a/b`` lists ``a/b/c`` and not ``a/bc/d``; the empty prefix lists everything.
        """
        ...

    async def ping(self) -> None:
        """Return quickly where the store can be read; otherwise raise ``StoreUnavailable``."""
        ...

    async def aclose(self) -> None:
        """Give up every connection and thread. Afterwards everything raises ``StoreUnavailable``."""
        ...


def open_documents(url: str, *, gcs_endpoint: str | None = None) -> Documents:
    """Build the store that ``url`` names, without touching it yet.

    ``sqlite:///relative.db``, ``sqlite:////absolute/path.db`` or ``gs://bucket[/prefix]``. ``gcs_endpoint`` is the
    address of an emulator (``http://host:port``), spoken to without credentials. Raises ``ValueError``.
    """
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite" and rest.startswith("/") and not rest.endswith("/"):
        if rest == "/:memory:" or "?" in rest:
            raise ValueError("a sqlite:// document store is the path of a file and nothing else")
        from common.stores.sqlite import SqliteDocuments  # noqa: PLC0415 - load only the store in use

        return SqliteDocuments(Path(rest[1:]))
    if scheme == "gs" and (bucket := rest.partition("/")[0]):
        from common.stores.gcs import GcsDocuments  # noqa: PLC0415 - load only the store in use

        return GcsDocuments(bucket, rest.partition("/")[2], endpoint=gcs_endpoint)
    raise ValueError("a document store is sqlite:///relative.db, sqlite:////absolute/path.db or gs://bucket/prefix")


async def update(
    documents: Documents,
    key: str,
    change: Callable[[Body], Body | None],
    *,
    attempts: int = 10,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Document | None:
    """Read, change and replace, again from the read wherever somebody else was faster.

    ``change`` gets the body and returns the new one, or None to leave it as it is; it may be called up to
    ``attempts`` times and must have no other effect. Returns the document as it then stands, None where there is
    none. Raises ``VersionConflict`` after the last attempt.
    """
    for attempt in range(1, attempts + 1):
        current = await documents.get(key)
        body = None if current is None else change(current.body)
        if current is None or body is None:
            return current
        try:
            return await documents.replace(current, body)
        except VersionConflict:
            if attempt == attempts:
                raise
        await sleep(random.uniform(0, min(0.5, 0.005 * 2**attempt)))  # noqa: S311 - jitter, not a secret
    raise ValueError("attempts must be at least 1")


def check_key(key: str) -> str:
    """``key`` itself, if it is ``collection/id[/more]`` of letters, digits and ``._=-``; otherwise ``ValueError``."""
    if len(key) > MAX_KEY_CHARS or "/" not in key or not _is_path(key):
        raise ValueError("a document key is collection/id[/more], of letters, digits and ._=-, without '..'")
    return key


def check_range(prefix: str, limit: int, after: str | None) -> str:
    """The prefix that keys of this listing start with: empty, or ending in ``/``. Raises ``ValueError``."""
    path = prefix.removesuffix("/")
    if prefix and (len(path) > MAX_KEY_CHARS or not _is_path(path)):
        raise ValueError("a prefix is a path of letters, digits and ._=-, without '..'")
    if limit < 1:
        raise ValueError("limit must be at least 1")
    if after is not None:
        check_key(after)
    return f"{path}/" if path else ""


def _is_path(text: str) -> bool:
    return _SEGMENTS.fullmatch(text) is not None and ".." not in text and "." not in text.split("/")


def encode_body(body: Body) -> bytes:
    """``body`` as JSON. Raises ``TypeError`` where it is not a JSON object, ``ValueError`` where it is too large."""
    if not isinstance(body, dict):
        raise TypeError("a document's body is a JSON object")
    encoded = orjson.dumps(body)
    if len(encoded) > MAX_BODY_BYTES:
        raise ValueError(f"a document's body is at most {MAX_BODY_BYTES} bytes of JSON")
    return encoded
