"""What the control endpoint acts on, and how it reads its requests."""

from collections.abc import Mapping
from typing import Any, Protocol

from sandbox.cardata_stream import Stream
from sandbox.cardata_world import World


class Controlled(Protocol):
    """What the control endpoint acts on."""

    world: World
    stream: Stream

    def reset(self) -> None:
        """Forget everything."""
        ...


def number(body: Mapping[str, Any], name: str) -> float:
    """A number of the body, at least 0. Raises ValueError."""
    value = body.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise ValueError(f"{name} is a number, at least 0")
    return float(value)
