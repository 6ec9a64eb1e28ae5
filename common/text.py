"""Text from elsewhere that is not fit to be written."""

from collections.abc import Mapping
from typing import Any


def mended(value: Any) -> Any:  # noqa: ANN401 - a JSON value
    """A JSON value in which every half of a surrogate pair, which is no UTF-8, is a question mark."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {mended(key): mended(part) for key, part in value.items()}
    return [mended(part) for part in value] if isinstance(value, list | tuple) else value
