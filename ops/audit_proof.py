"""The proof of an audit chain: what in it no writer of the trail has done. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from functions.audit import NOTHING, AuditKey, Entry, Head

GARBLED: Final = object()
"""Stands for what the store holds and cannot read."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A chain as it lies in the store."""

    chain: str
    entries: Mapping[int, object]
    """Bodies by the number in their key."""
    head: object | None
    strays: tuple[str, ...] = ()
    """Other documents among the chain's."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that no writer of the trail has done."""

    chain: str
    where: str
    problem: str

    def __str__(self) -> str:
        return f"BROKEN  chain {self.chain}  {self.where}: {self.problem}"


@dataclass(frozen=True, slots=True)
class Examined:
    """What can be said of a chain."""

    chain: str
    entries: Mapping[int, Entry]
    """Those that are in their place as they were written."""
    findings: tuple[Finding, ...]
    was_interrupted: bool
    """The last entry is ahead of the head: its writer was stopped between the two."""


def examine(key: AuditKey, stored: Stored) -> Examined:
    """Prove a chain; pure."""
    found: list[tuple[str, str]] = [(f"document {name!r}", "does not belong to a chain") for name in stored.strays]
    entries: dict[int, Entry] = {}
    for seq, body in sorted(stored.entries.items()):
        entry = key.unseal(Entry, body)
        if entry is None:
            found.append((f"entry {seq}", "cannot be read" if body is GARBLED else "was changed"))
        elif (entry.vehicle, entry.seq) != (stored.chain, seq):
            whose = "" if entry.vehicle == stored.chain else f" of chain {entry.vehicle}"
            found.append((f"entry {seq}", f"is out of its place: it was written as entry {entry.seq}{whose}"))
        else:
            entries[seq] = entry
    for seq, entry in entries.items():
        before = NOTHING if seq == 1 else entries[seq - 1].hash if seq - 1 in entries else None
        if before is not None and entry.prev != before:
            found.append((f"entry {seq}", "does not follow the entry before it"))
    found += [(span(first, to), "removed") for first, to in _gaps(sorted(stored.entries))]
    last = max(stored.entries, default=0)
    head = key.unseal(Head, stored.head)
    if head is None or head.chain != stored.chain:
        found.append(("head", "is missing" if stored.head is None else "was changed"))
    elif head.seq > last:
        found.append((span(last + 1, head.seq), "cut off at the end"))
    elif head.seq < last - 1:
        found.append((span(head.seq + 1, last), f"written after the head, which ends at {head.seq}"))
    elif head.seq in entries and entries[head.seq].hash != head.entry:
        found.append((f"entry {head.seq}", "is not the one that the head names"))
    return Examined(
        chain=stored.chain,
        entries=entries,
        findings=tuple(Finding(stored.chain, where, problem) for where, problem in found),
        was_interrupted=head is not None and head.seq == last - 1,
    )


def _gaps(numbers: list[int]) -> list[tuple[int, int]]:
    return [(low + 1, high - 1) for low, high in zip([0, *numbers], numbers, strict=False) if high - low > 1]


def span(first: int, last: int) -> str:
    """Entries in words."""
    return f"entry {first}" if first == last else f"entries {first} to {last}"
