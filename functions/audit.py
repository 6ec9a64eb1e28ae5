"""The audit trail: who asked for what to be done to which vehicle, before it is sent, and what became of it after.

One chain a vehicle, append-only, on the document store and apart from the logs::

    audit/<chain>/000000000001   entry, created once and never changed
    audit/<chain>/000000000002   names the hash of the entry before it
    audit/<chain>/head           the last entry's number and hash, advanced by compare-and-swap

An entry is the commit: it is created under the number after the head's, which only one writer can do, and then the
head is moved up to it. Nobody goes on from an entry that the head has not reached, so a writer that was killed
between the two leaves the head one entry behind and never more; the next writer moves it up first. Whatever else does
not fit (an entry changed, moved, gone; a head that is missing or further behind) was not done by a writer.

Entries and heads carry an HMAC under the audit key, and name callers, accounts, vehicles and parameters only by their
HMACs. Without a key these are plain SHA-256: anybody can compute them, for a chain rewritten as a whole or for a VIN
that is guessed. :mod:`ops.audit` proves the chains.
"""

import hashlib
import hmac
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeVar

import orjson

from common.clock import Clock
from common.errors import StoreUnavailable
from common.loops import needs_loop
from common.stores.documents import Document, DocumentExists, Documents, VersionConflict
from functions.command_record import Record

_log = logging.getLogger(__name__)

ROOT = "audit"
HEAD = "head"
NOTHING = "0" * 64
"""The hash before the first entry."""
_SEQ_DIGITS = 12

Event = Literal["intent", "outcome"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry, as stored. Hashes are 64 hexadecimal digits."""

    seq: int
    """1, 2, 3 ... within the chain; also the entry's key."""
    at: str
    """RFC 3339, UTC."""
    event: str
    """``intent`` or ``outcome``."""
    command: str
    """The last part of the command's id; the part before it is the account's."""
    operation: str
    state: str
    caller: str
    account: str
    vehicle: str
    """Also the chain's name."""
    params: str
    """Of the command's fingerprint, which stands for its parameters."""
    idempotency_key: str | None
    prev: str
    """The ``hash`` of the entry before."""
    hash: str
    """Over the canonical JSON of everything else."""


@dataclass(frozen=True, slots=True)
class Head:
    """How far a chain goes, as stored."""

    chain: str
    seq: int
    entry: str
    """The last entry's hash."""
    hash: str
    """Over the canonical JSON of everything else."""


Sealed = TypeVar("Sealed", Entry, Head)


class AuditKey:
    """The two uses of the audit key: pseudonyms and seals. Without a key both are plain SHA-256."""

    def __init__(self, key: bytes | None) -> None:
        self._key = key

    def pseudonym(self, kind: str, value: str) -> str:
        """The name under which a value of this kind is entered."""
        return self._digest(f"{kind}\x00{value}".encode())

    def seal(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """``body`` with its ``hash``: over its JSON, UTF-8, keys sorted, no spaces."""
        return {**body, "hash": self._digest(orjson.dumps(body, option=orjson.OPT_SORT_KEYS))}

    def unseal(self, kind: type[Sealed], body: object) -> Sealed | None:
        """What :meth:`seal` made of an entry or a head, to the letter; otherwise None."""
        if not isinstance(body, dict) or set(body) != {field.name for field in fields(kind)}:
            return None
        if type(body["seq"]) is not int or body["seq"] < 0:
            return None
        if not all(_is_text(name, body[name]) for name in body if name != "seq"):
            return None
        sealed = self.seal({name: value for name, value in body.items() if name != "hash"})
        return kind(**body) if hmac.compare_digest(sealed["hash"].encode(), body["hash"].encode()) else None

    def _digest(self, data: bytes) -> str:
        return (hmac.new(self._key, data, "sha256") if self._key is not None else hashlib.sha256(data)).hexdigest()


def _is_text(name: str, value: object) -> bool:
    return isinstance(value, str) or (value is None and name == "idempotency_key")


def entry_key(chain: str, seq: int) -> str:
    """Where an entry is stored; the order of the keys is the order of the entries."""
    return f"{ROOT}/{chain}/{seq:0{_SEQ_DIGITS}d}"


def head_key(chain: str) -> str:
    """Where a chain's head is stored."""
    return f"{ROOT}/{chain}/{HEAD}"


class AuditTrail:
    """Writes the trail. Any number of writers, in any number of processes, may write to one chain."""

    def __init__(self, documents: Documents, clock: Clock, *, key: bytes | None) -> None:
        self._documents = documents
        self._clock = clock
        self._key = AuditKey(key)

    async def intent(self, record: Record, *, idempotency_key_digest: str | None) -> None:
        """Enter that a command is about to be sent; durable when this returns.

        Raises StoreUnavailable where the entry is not in the trail for certain, or the vehicle's chain is broken:
        the command must not be sent then.
        """
        await self._append("intent", record, idempotency_key_digest)

    async def outcome(self, record: Record) -> None:
        """Enter how far a command has come. Raises StoreUnavailable as :meth:`intent` does."""
        await self._append("outcome", record, record.key_digest)

    async def _append(self, event: Event, record: Record, key_digest: str | None) -> None:
        await needs_loop()
        name = self._key.pseudonym
        chain = name("vehicle", record.vin)
        facts = {
            "event": event,
            "command": record.id.rpartition("_")[2],
            "operation": record.command.name.value,
            "state": record.state,
            "caller": name("caller", record.principal),
            "account": name("account", record.account_id),
            "vehicle": chain,
            "params": name("params", record.fingerprint),
            "idempotency_key": None if key_digest is None else name("idempotency_key", key_digest),
        }
        while True:
            held, head = await self._head(chain)
            at = self._clock.utc().isoformat(timespec="microseconds")
            entry = self._key.seal({**facts, "seq": head.seq + 1, "at": at, "prev": head.entry})
            try:
                await self._documents.create(entry_key(chain, head.seq + 1), entry)
            except DocumentExists:
                await self._catch_up(held, head)
                continue
            await self._advance(held, head, entry["hash"])
            return

    async def _head(self, chain: str) -> tuple[Document, Head]:
        """The chain's head; a new chain gets one before its first entry, so that one without a head was cut."""
        key = head_key(chain)
        held = await self._documents.get(key)
        if held is None:
            begun = await self._documents.get(entry_key(chain, 1)) is not None
            held = await self._documents.get(key)
            if held is None and begun:
                raise _broken(chain, 0)
        if held is None:
            try:
                held = await self._documents.create(key, asdict(self._head_at(chain, 0, NOTHING)))
            except DocumentExists:
                return await self._head(chain)
        head = self._key.unseal(Head, held.body)
        if head is None or head.chain != chain:
            raise _broken(chain, 0)
        return held, head

    async def _catch_up(self, held: Document, head: Head) -> None:
        """Move the head up to the entry after it: its writer is at it, or was killed before."""
        found = await self._documents.get(entry_key(head.chain, head.seq + 1))
        entry = self._key.unseal(Entry, found.body) if found is not None else None
        if entry is None or (entry.vehicle, entry.seq, entry.prev) != (head.chain, head.seq + 1, head.entry):
            raise _broken(head.chain, head.seq + 1)
        await self._advance(held, head, entry.hash)

    async def _advance(self, held: Document, head: Head, entry_hash: str) -> None:
        try:
            await self._documents.replace(held, asdict(self._head_at(head.chain, head.seq + 1, entry_hash)))
        except VersionConflict:
            return  # another writer has moved it up for us

    def _head_at(self, chain: str, seq: int, entry_hash: str) -> Head:
        return Head(**self._key.seal({"chain": chain, "seq": seq, "entry": entry_hash}))


def _broken(chain: str, seq: int) -> StoreUnavailable:
    """Appending to what is broken would hide it: the vehicle takes no commands until somebody has looked."""
    _log.error("audit_chain_broken chain=%s seq=%d", chain[:12], seq)
    return StoreUnavailable("The vehicle's audit trail is broken.")
