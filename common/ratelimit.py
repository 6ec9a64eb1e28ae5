"""Rate limits: what they are, how a decision about one reads, and how a reply's headers tell it.

The notation (``600/minute;10000/hour``), the counters that instances share and their scripts are those of the library
`limits`. Its memory storage is not used: it starts a timer's thread every few hits, reads the machine's clock and
holds the times of its hits in lists that only that thread shortens.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from limits import RateLimitItem

MAX_KEYS = 10_000
"""Keys in memory, the least recently used forgotten first: some 6 MB."""


@dataclass(frozen=True, slots=True)
class Window:
    """At most ``amount`` in each ``length_s`` seconds."""

    name: str
    """Unique in a reply's headers."""
    amount: int
    length_s: int
    policy: str = field(repr=False)
    """Its item of the header ``RateLimit-Policy``."""
    item: "RateLimitItem" = field(repr=False)


@dataclass(frozen=True, slots=True)
class Limit:
    """One or more windows, the shortest first, all of which must have room."""

    name: str
    windows: tuple[Window, ...]


class Standing(NamedTuple):
    """How one window stands for one key."""

    window: Window
    remaining: int
    reset_s: float
    """Seconds until there is more."""


class Decision(NamedTuple):
    """Whether a key may, and how it stands. What was refused was not counted."""

    allowed: bool
    standings: tuple[Standing, ...]
    """Of every window; none where a moving window that instances share let it in."""
    refused_by: Window | None = None
    """The window that has room last."""
    retry_after_s: float | None = None
    """When there is room again in every window."""


def parse_limit(name: str, notation: str) -> Limit:
    """A limit from ``600/minute;10000/hour``: the notation of `limits`, which this imports.

    The shortest window bears the limit's name, the others have their length added. Raises ValueError.
    """
    from limits import parse_many  # noqa: PLC0415 - 20 ms, which importing this module should not cost

    items = sorted(parse_many(notation), key=lambda item: item.get_expiry())
    lengths = [item.get_expiry() for item in items]
    if len(set(lengths)) < len(lengths):
        raise ValueError(f"{name}: two windows of the same length")
    names = [name, *(f"{name}-{length}s" for length in lengths[1:])]
    return Limit(name, tuple(_window(*named) for named in zip(names, items, strict=True)))


def policy_header(standings: Iterable[Standing]) -> str:
    """``RateLimit-Policy``: ``"caller-read";q=600;w=60``, a structured list."""
    return ", ".join([standing.window.policy for standing in standings])


def state_header(standings: Iterable[Standing]) -> str:
    """``RateLimit``: ``"caller-read";r=599;t=32``, a structured list."""
    return ", ".join([f'"{window.name}";r={left};t={math.ceil(reset_s)}' for window, left, reset_s in standings])


def _window(name: str, item: "RateLimitItem") -> Window:
    length_s = item.get_expiry()
    named = type(item)(item.amount, item.multiples, namespace=name)
    return Window(name, item.amount, length_s, f'"{name}";q={item.amount};w={length_s}', named)
