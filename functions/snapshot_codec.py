"""Snapshots to bytes and back, for stores outside the process."""

from functools import lru_cache

import orjson
from pydantic import TypeAdapter

from functions.snapshot import Snapshot


def encode(snapshot: Snapshot) -> bytes:
    """JSON with the dataclasses' own names."""
    return orjson.dumps(snapshot, default=dict)


def decode(encoded: bytes) -> Snapshot:
    """What :func:`encode` was given. Raises ValueError for what another version wrote."""
    return _adapter().validate_json(encoded)


@lru_cache(maxsize=1)
def _adapter() -> TypeAdapter[Snapshot]:
    # Building it takes some 10 ms, which only a deployment with a shared store pays.
    return TypeAdapter(Snapshot)
