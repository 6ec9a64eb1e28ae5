"""A failed read in a few bytes, so that another instance can fail in the same way. No message, no detail, no secret."""

import orjson

from common.errors import BY_CODE, ApiError


class FailureNoteInvalid(Exception):
    """It was written by another version, or by somebody else."""


def write_note(error: Exception) -> bytes | None:
    """``error`` as a note; None where it is none of ours, and so would mean nothing elsewhere."""
    if not isinstance(error, ApiError) or error.code not in BY_CODE:
        return None
    return orjson.dumps({"code": error.code, "retry_after_s": error.retry_after_s})


def read_note(note: bytes) -> ApiError:
    """A fresh error of the same code. Raises FailureNoteInvalid."""
    try:
        fields = orjson.loads(note)
        retry_after_s = fields["retry_after_s"]
        return BY_CODE[fields["code"]](retry_after_s=None if retry_after_s is None else float(retry_after_s))
    except (ValueError, TypeError, KeyError) as exc:
        raise FailureNoteInvalid from exc
