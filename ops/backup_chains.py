"""Audit chains as far as a backup must know them: which document is which, and how far a head reaches."""

from typing import NamedTuple

from functions.audit import HEAD, ROOT


class Place(NamedTuple):
    """Where in the trail a document is."""

    chain: str
    seq: int | None
    """The entry's number; None for the chain's head."""


def place_of(key: str) -> Place | None:
    """The place that a document's key names; None for what is no part of a chain."""
    parts = key.split("/")
    if len(parts) != 3 or parts[0] != ROOT:
        return None
    if parts[2] == HEAD:
        return Place(parts[1], None)
    return Place(parts[1], int(parts[2])) if parts[2].isdecimal() else None


def reach_of(head: object) -> int:
    """The last entry that a head's body names; 0 where it is no head."""
    seq = head.get("seq") if isinstance(head, dict) else None
    return seq if isinstance(seq, int) else 0
