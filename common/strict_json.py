"""JSON read strictly: what two parsers could read in two ways is refused.

One of the two readings might unlock a car, or let a forged token in.
"""

import json
import math
from typing import Any, NoReturn


class NotStrict(ValueError):
    """Text that is refused. Its message says what is wrong, as the end of a sentence, and holds nothing of the text."""


def parse(raw: bytes | str, *, max_depth: int | None = None) -> Any:  # noqa: ANN401 - any JSON value
    """The JSON value in ``raw``.

    Raises NotStrict for anything but UTF-8, duplicate keys at any depth, NaN and the infinities (spelt out or by
    overflow), integers beyond 64 bits, and nesting beyond ``max_depth`` or the interpreter's stack.
    """
    text = raw if isinstance(raw, str) else _decoded(raw)
    # Brackets inside strings make the sum an over-estimate, which the exact count then settles.
    if max_depth is not None and text.count("[") + text.count("{") > max_depth and _depth(text) > max_depth:
        raise NotStrict(f"is nested deeper than {max_depth} levels")
    try:
        return _STRICT.decode(text)
    except (json.JSONDecodeError, RecursionError):
        raise NotStrict("is not valid JSON") from None


def parse_object(raw: bytes | str, *, max_depth: int | None = None) -> dict[str, Any]:
    """The same for a JSON object; NotStrict for anything else too."""
    parsed = parse(raw, max_depth=max_depth)
    if not isinstance(parsed, dict):
        raise NotStrict("must be a JSON object")
    return parsed


def has_surrogate(value: object) -> bool:
    """Whether any text in a parsed value holds half of a surrogate pair, which is no Unicode."""
    if isinstance(value, str):
        return any(0xD800 <= ord(char) <= 0xDFFF for char in value)
    if isinstance(value, dict):
        return any(has_surrogate(part) for pair in value.items() for part in pair)
    return isinstance(value, list) and any(has_surrogate(part) for part in value)


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise NotStrict("is not UTF-8") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise NotStrict("holds the same key twice")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise NotStrict("holds a number that is not finite")
    return number


def _bounded(text: str) -> int:
    # The length first: Python takes ever longer for ever longer numbers, and refuses very long ones its own way.
    if len(text) > 20 or not -(2**63) <= int(text) < 2**64:
        raise NotStrict("holds an integer beyond 64 bits")
    return int(text)


def _no_constant(_text: str) -> NoReturn:
    raise NotStrict("holds a number that is not finite")


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
