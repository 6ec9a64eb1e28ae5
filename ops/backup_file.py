"""The file of a backup: written and read from one end to the other, a chunk in memory at a time.

::

    draiv-backup 1
    {"id", "created_at", "kid", "key"}         the header, readable; "key" is the file's own key, sealed
    D <length> <sealed chunk>                  records: compressed, then sealed under the file's key
    ...
    E <length> <sealed chunk>                  the end: what is in the file

The file's key is random and sealed under a key that is derived from a master key of ``TOKEN_KEYS`` (HKDF), the one
that the header names. Each chunk is bound to the header, to its number and to whether it is the last, so that to
change, drop, repeat or reorder a chunk, to cut the file short or to append to it is noticed. The first two
lines end in a line feed, a length is 4 bytes, big-endian. What a record means is for :mod:`ops.backup_records`.
"""

import hashlib
import os
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from typing import Any, BinaryIO, Final

import orjson

from common.crypto.encoding import framed, from_text, to_text
from common.crypto.envelope import KEY_BYTES, Box
from common.crypto.errors import SealBroken
from common.crypto.keyset import Keyset

CHUNK_BYTES: Final = 1024 * 1024
"""A chunk is sealed when its records have reached this, before compression."""
_MAGIC: Final = b"draiv-backup 1\n"
_MAX_HEADER_BYTES: Final = 4_096
_MAX_SEALED_BYTES: Final = 8 * 1024 * 1024
"""No chunk is longer: one record short of full, and then the longest record there is."""
_DATA, _END = b"D", b"E"
_LENGTH_BYTES: Final = 4


class Damaged(Exception):
    """The file is not to the bit what was written; the message says in what way."""


class Foreign(Exception):
    """The keys at hand do not open the file; the message says which would."""


@dataclass(frozen=True, slots=True)
class Record:
    """One document, sealed for its account, or as JSON where it has none."""

    account: str
    """Empty for what is of no account."""
    payload: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Header:
    """What anybody can read of a backup."""

    id: str
    created_at: str
    """RFC 3339, UTC."""
    kid: str
    """The master key that opens it."""
    key: str = field(repr=False)
    """The file's own key, sealed."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is in a backup, written last."""

    source: str
    """The ``DOCUMENTS_URL`` that was read."""
    documents: dict[str, int]
    """How many, by collection."""
    accounts: int
    """How many accounts have documents in it."""


class BackupWriter:
    """Writes one backup to ``file``, which is complete after :meth:`finish`."""

    def __init__(self, file: BinaryIO, keyset: Keyset, *, backup_id: str, created_at: str) -> None:
        key = os.urandom(KEY_BYTES)
        kid, sealed = keyset.seal(key, _key_context(backup_id, created_at))
        header = orjson.dumps(asdict(Header(backup_id, created_at, kid, to_text(sealed)))) + b"\n"
        self._file, self._box, self._context = file, Box(key), hashlib.sha256(header).digest()
        self._number = 0
        self._parts: list[bytes] = []
        self._pending_bytes = 0
        file.write(_MAGIC + header)

    def add(self, record: Record) -> None:
        """One more record."""
        part = framed(record.account, record.payload)
        self._parts.append(part)
        self._pending_bytes += len(part)
        if self._pending_bytes >= CHUNK_BYTES:
            self._flush()

    def finish(self, manifest: Manifest) -> None:
        """Write what is left and the end."""
        self._flush()
        self._write(_END, orjson.dumps(asdict(manifest)))

    def _flush(self) -> None:
        if self._parts:
            self._write(_DATA, b"".join(self._parts))
            self._parts, self._pending_bytes = [], 0

    def _write(self, kind: bytes, plain: bytes) -> None:
        sealed = self._box.seal(zlib.compress(plain, 1), _chunk_context(self._context, kind, self._number))
        self._file.write(kind + len(sealed).to_bytes(_LENGTH_BYTES, "big") + sealed)
        self._number += 1


class BackupReader:
    """Reads a backup from ``file``, which must be at its beginning.

    Raises Damaged where it is no backup or not to the bit what was written, Foreign where ``keyset`` does not open it.
    """

    def __init__(self, file: BinaryIO, keyset: Keyset) -> None:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise Damaged("it is no backup, or one of another format")
        header = file.readline(_MAX_HEADER_BYTES)
        self.header = _parsed_header(header)
        self._file, self._box = file, Box(_file_key(self.header, keyset))
        self._context = hashlib.sha256(header).digest()
        self._manifest: Manifest | None = None

    def records(self) -> Iterator[Record]:
        """All records in their order, once. Raises Damaged, at the latest in the end."""
        number = 0
        while self._manifest is None:
            kind, plain = self._chunk(number)
            number += 1
            if kind == _DATA:
                yield from _records(plain)
            else:
                self._manifest = Manifest(**orjson.loads(plain))
        if self._file.read(1):
            raise Damaged("there is more after its end")

    @property
    def manifest(self) -> Manifest:
        """What is in the file; known when all records were read."""
        if self._manifest is None:
            raise ValueError("the manifest is at the end: read the records first")
        return self._manifest

    def _chunk(self, number: int) -> tuple[bytes, bytes]:
        start = self._file.read(1 + _LENGTH_BYTES)
        if len(start) <= _LENGTH_BYTES:
            raise Damaged(f"it is cut short after {number} chunks")
        kind, length = start[:1], int.from_bytes(start[1:], "big")
        if kind not in (_DATA, _END) or length > _MAX_SEALED_BYTES:
            raise Damaged(f"chunk {number} is no chunk")
        sealed = self._file.read(length)
        if len(sealed) < length:
            raise Damaged(f"it is cut short in chunk {number}")
        try:
            plain = self._box.open(sealed, _chunk_context(self._context, kind, number))
        except SealBroken:
            raise Damaged(f"chunk {number} was changed or moved") from None
        # It is what we wrote, so it needs no bound when it is decompressed.
        return kind, zlib.decompress(plain)


def _records(plain: bytes) -> Iterator[Record]:
    at, parts = 0, []
    while at < len(plain):
        end = at + 4 + int.from_bytes(plain[at : at + 4], "big")
        parts.append(plain[at + 4 : end])
        at = end
    for account, payload in zip(parts[::2], parts[1::2], strict=True):
        yield Record(account.decode(), payload)


def _parsed_header(line: bytes) -> Header:
    try:
        values: dict[str, Any] = orjson.loads(line)
        header = Header(**values)
    except (orjson.JSONDecodeError, TypeError):
        raise Damaged("its header was changed") from None
    if not all(isinstance(getattr(header, one.name), str) for one in fields(Header)):
        raise Damaged("its header was changed")
    return header


def _file_key(header: Header, keyset: Keyset) -> bytes:
    if header.kid not in keyset.kids:
        raise Foreign(f"it is under the master key {header.kid!a}, which TOKEN_KEYS does not hold")
    try:
        return keyset.open(header.kid, from_text(header.key), _key_context(header.id, header.created_at))
    except SealBroken:
        raise Foreign(
            f"the master key {header.kid!a} of TOKEN_KEYS does not open it: "
            "it is another deployment's, or its header was changed"
        ) from None


def _key_context(backup_id: str, created_at: str) -> bytes:
    return framed("backup", "1", backup_id, created_at)


def _chunk_context(context: bytes, kind: bytes, number: int) -> bytes:
    return framed("chunk", context, kind, str(number))
