"""JSON read strictly: what two parsers could read in two ways is refused."""

import json
import math
from typing import Any, NoReturn


def parse(raw: bytes | str) -> Any:  # noqa: ANN401 - any JSON value
    """The JSON value in ``raw``.

    Raises ValueError for anything but UTF-8, duplicate keys at any depth, numbers that are not finite or beyond 64
    bits, and nesting deeper than the interpreter's stack. Its message holds nothing of ``raw``.
    """
    try:
        return _STRICT.decode(raw if isinstance(raw, str) else raw.decode())
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("not JSON") from None


def parse_object(raw: bytes | str) -> dict[str, Any]:
    """The same for a JSON object; ValueError for anything else too."""
    parsed = parse(raw)
    if not isinstance(parsed, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - one kind of failure for whatever is wrong with the text
    return parsed


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("the same key twice")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number that is not finite")
    return number


def _bounded(text: str) -> int:
    # The length first: Python takes ever longer for ever longer numbers.
    if len(text) > 20 or not -(2**63) <= int(text) < 2**64:
        raise ValueError("an integer beyond 64 bits")
    return int(text)


def _no_constant(_text: str) -> NoReturn:
    raise ValueError("a number that is not finite")


_STRICT = json.JSONDecoder(
    object_pairs_hook=_unique, parse_float=_finite, parse_int=_bounded, parse_constant=_no_constant
)
