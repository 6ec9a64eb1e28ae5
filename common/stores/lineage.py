"""What an object in a bucket remembers of the writes that led to it; pure.

An object is ``{"write_id": str, "lineage": ["<generation>:<write_id>", ...], "body": {...}}``. Its own generation is
given by the bucket only when it is written, so the object lists the versions *before* it, latest first; a document
that was read carries them behind its own (``Document.lineage``), which is what its successor will store.
"""

import orjson

from common.stores.documents import Document

LINEAGE_LENGTH = 32
"""Versions remembered: more than can be written of one object (1/s in GCS) while one write is being retried."""


def seal(write_id: str, lineage: tuple[str, ...], body: bytes) -> bytes:
    """The object to write: ``body`` (JSON), built on the version that ``lineage`` begins with."""
    return orjson.dumps({"write_id": write_id, "lineage": lineage, "body": orjson.Fragment(body)})


def unseal(key: str, data: bytes, generation: int) -> Document:
    """The document in an object. Raises ``ValueError`` where it is not one of ours."""
    try:
        envelope = orjson.loads(data)
        lineage = (f"{generation}:{envelope['write_id']}", *envelope["lineage"])
        return Document(key, envelope["body"], str(generation), lineage[:LINEAGE_LENGTH])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError("the object is not a document") from error


def since_write(lineage: tuple[str, ...], write_id: str) -> tuple[str, ...]:
    """``lineage`` from the version on that ``write_id`` made, without its successors; empty where it made none."""
    return next((lineage[at:] for at, version in enumerate(lineage) if version.endswith(f":{write_id}")), ())


def generation_of(lineage: tuple[str, ...]) -> str:
    """The generation of the version that ``lineage`` begins with."""
    return lineage[0].partition(":")[0]


def may_have_forgotten(lineage: tuple[str, ...], generation: str) -> bool:
    """Whether ``generation``, and with it a version built on it, may have dropped out of the lineage."""
    return len(lineage) == LINEAGE_LENGTH and not any(version.startswith(f"{generation}:") for version in lineage)
