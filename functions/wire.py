"""Bytes to envelope, and result or error to reply: pure functions, no I/O.

JSON is read strictly before pydantic sees it: what two parsers could read in two ways is refused, because one of the
readings might unlock a car.
"""

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn

import orjson
from pydantic import ValidationError

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
    """A JSON object read strictly.

    Refused with ValidationFailed: anything but UTF-8, an array or a scalar, duplicate keys at any depth, NaN and the
    infinities (spelt out or by overflow), nesting beyond ``MAX_DEPTH``, lone surrogates.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        _refuse("The body is not UTF-8.")
    # Brackets inside strings make this an over-estimate, which the exact count then settles.
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        _refuse(f"The body is nested deeper than {MAX_DEPTH} levels.")
    try:
        parsed = _STRICT.decode(text)
    except (json.JSONDecodeError, RecursionError):
        _refuse("The body is not valid JSON.")
    if not isinstance(parsed, dict):
        _refuse("The body must be a JSON object.")
    if "\\u" in text and _has_surrogate(parsed):
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


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        _refuse("The body holds the same key twice.")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        _refuse("The body holds a number that is not finite.")
    return number


def _bounded(text: str) -> int:
    # The length first: Python takes ever longer for ever longer numbers, and refuses very long ones its own way.
    if len(text) > 20 or not -(2**63) <= int(text) < 2**64:
        _refuse("The body holds an integer beyond 64 bits.")
    return int(text)


def _no_constant(_text: str) -> NoReturn:
    _refuse("The body holds a number that is not finite.")


_STRICT = json.JSONDecoder(
    object_pairs_hook=_unique, parse_float=_finite, parse_int=_bounded, parse_constant=_no_constant
)


def _depth(text: str) -> int:
    depth = deepest = 0
    in_string = escaped = False
    for char in text:
        if in_string:
            if escaped:
                escaped = False
            elif char == "\\":
                escaped = True
            elif char == '"':
                in_string = False
        elif char == '"':
            in_string = True
        elif char in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "]}":
            depth -= 1
    return deepest


def _has_surrogate(value: object) -> bool:
    if isinstance(value, str):
        return any(0xD800 <= ord(char) <= 0xDFFF for char in value)
    if isinstance(value, dict):
        return any(_has_surrogate(part) for pair in value.items() for part in pair)
    return isinstance(value, list) and any(_has_surrogate(part) for part in value)
