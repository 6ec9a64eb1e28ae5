"""Bytes to envelope, and result or error to reply: pure functions, no I/O."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn

import orjson
from pydantic import ValidationError

from common import strict_json
from common.errors import (
    ApiError,
    CallerUnauthenticated,
    MethodNotAllowed,
    PayloadTooLarge,
    UnsupportedMediaType,
    ValidationFailed,
)
from common.text import mended
from functions.contract import MAX_DEPTH, Envelope

JSON = "application/json"
DOCS = "docs/errors.md"
_OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_OMIT_MICROSECONDS


class RawRequest(NamedTuple):
    """A request as the server received it. Header names are lower-case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    too_large: bool = False
    """The body was larger than allowed and has not been read."""
    broken: bool = False
    """The body did not arrive as it was announced: malformed chunks, or an end before its length."""


class Reply(NamedTuple):
    """A reply as the server will send it."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: Mapping[str, str] = MappingProxyType({})


def decode(request: RawRequest, max_bytes: int) -> Envelope:
    """The request's envelope.

    Raises PayloadTooLarge, UnsupportedMediaType, ValidationFailed.
    """
    if request.too_large or len(request.body) > max_bytes:
        raise PayloadTooLarge(f"The request body may have at most {max_bytes} bytes.")
    if request.broken:
        _refuse("The body did not arrive as it was announced.")
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
        raise UnsupportedMediaType
    return envelope(parse_object(request.body))


def envelope(fields: Mapping[str, Any]) -> Envelope:
    """An envelope from a parsed object; raises ValidationFailed."""
    try:
        return Envelope.model_validate(fields)
    except ValidationError as bad:
        raise ValidationFailed(details={"fields": problems(bad)}) from None


def problems(bad: ValidationError, *prefix: str) -> list[dict[str, str]]:
    """``[{"path", "problem"}]`` of a pydantic error, without the values."""
    return [
        {
            "path": ".".join([*prefix, *map(str, error["loc"])]) or "(the whole request)",
            "problem": error["msg"].removeprefix("Value error, "),
        }
        for error in bad.errors(include_url=False, include_context=False, include_input=False)
    ]


def parse_object(body: bytes) -> dict[str, Any]:
    """The object that a body holds, read as common/strict_json.py does; ValidationFailed for lone surrogates too."""
    try:
        parsed = strict_json.parse_object(body, max_depth=MAX_DEPTH)
    except strict_json.NotStrict as problem:
        _refuse(f"The body {problem}.")
    if b"\\u" in body and strict_json.has_surrogate(parsed):
        _refuse("The body holds half of a surrogate pair.")
    return parsed


def encode(payload: Mapping[str, Any]) -> bytes:
    """JSON bytes; datetimes become RFC 3339 in UTC with ``Z``."""
    try:
        return orjson.dumps(payload, option=_OPTIONS)
    except TypeError:
        # A maker's text may hold half of a surrogate pair, which is no UTF-8: the rest is worth showing.
        return orjson.dumps(mended(payload), option=_OPTIONS)


def error_payload(error: ApiError, request_id: str, now: datetime) -> dict[str, Any]:
    """The contract's error object."""
    cls = type(error)
    return {
        "code": cls.code,
        "type": _contract_type(cls),
        "message": error.message,
        "details": error.details,
        "resolution": {"type": cls.resolution.value},
        # Sending it again might do it twice.
        "retryable": cls.retryable and not error.may_have_succeeded,
        "may_have_succeeded": error.may_have_succeeded,
        "retry_after": retry_after(error),
        "request_id": request_id,
        "docs": f"{DOCS}#{cls.code.lower()}",
        "timestamp": now.astimezone(UTC),
    }


def retry_after(error: ApiError) -> int | None:
    """Whole seconds, rounded up: never earlier than what was promised."""
    return None if error.retry_after_s is None else max(1, math.ceil(error.retry_after_s))


def error_reply(error: ApiError, request_id: str, now: datetime) -> Reply:
    """The contract's error envelope."""
    seconds = retry_after(error)
    headers = {"Cache-Control": "no-store"}
    if seconds is not None:
        headers["Retry-After"] = str(seconds)
    if isinstance(error, CallerUnauthenticated):
        headers["WWW-Authenticate"] = 'Bearer realm="draiv-apis"'
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = ", ".join(error.details.get("allowed", ()))
    body = encode({"success": False, "error": error_payload(error, request_id, now)})
    return Reply(type(error).status, body, headers=headers)


def _contract_type(cls: type[ApiError]) -> str:
    """The neutral class's name: a maker's own subclass is not part of the contract."""
    named = next(
        (base for base in cls.__mro__ if base.__module__ == ApiError.__module__ and "code" in base.__dict__), cls
    )
    return named.__name__


def _refuse(problem: str) -> NoReturn:
    raise ValidationFailed(details={"fields": [{"path": "(the whole request)", "problem": problem}]}) from None
