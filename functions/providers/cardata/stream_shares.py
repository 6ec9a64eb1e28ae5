"""Which worker serves which customer: by rendezvous hashing, which every worker works out alike. Pure.

Each share is fair within a few customers, and when a worker comes or goes only what it takes or leaves moves.
"""

import hashlib
from collections.abc import Collection, Iterable


def owner_of(name: str, workers: Collection[str]) -> str | None:
    """The worker that serves ``name``; ``None`` where there is none."""
    return max(workers, key=lambda worker: _weight(worker, name), default=None)


def share_of(worker: str, names: Iterable[str], workers: Collection[str]) -> frozenset[str]:
    """What ``worker`` serves."""
    return frozenset(name for name in names if owner_of(name, workers) == worker)


def _weight(worker: str, name: str) -> bytes:
    return hashlib.blake2b(f"{worker}\x00{name}".encode(), digest_size=16).digest()
