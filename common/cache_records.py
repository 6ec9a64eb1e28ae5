"""What a cache tells: hits, causes of eviction, counts."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Generic, NamedTuple, TypeVar

V = TypeVar("V")


class Hit(NamedTuple, Generic[V]):
    """A value and how old it is."""

    value: V
    age_s: float
    """Since the load began that read it: the value is never older than this says."""
    stale: bool
    """Past its freshness, or served because a load failed."""
    stored_at_monotonic: float
    """The moment that ``age_s`` counts from."""
    loaded: bool = False
    """This call waited for a load, which asked the source."""


@dataclass(frozen=True, slots=True)
class Aged(Generic[V]):
    """What a load may return instead of a value: one that was read before the load began, elsewhere."""

    value: V
    read_at: float
    """Monotonic seconds of this process; may lie before its start."""
    loaded: bool
    """Whether the source itself was asked."""
    fresh_from: float | None = None
    """Monotonic seconds from which its time to live counts; from when it was read, if not said."""
    fresh_until: float | None = None
    """Monotonic seconds at which it is fresh no more, however long its time to live is."""
    stale: bool = False
    """It stands in for what could not be loaded."""


class Evicted(Enum):
    """Why an entry is gone."""

    BUDGET = "budget"
    EXPIRED = "expired"
    INVALIDATED = "invalidated"
    PRESSURE = "pressure"
    TOO_LARGE = "too_large"
    """It was never held."""


@dataclass(frozen=True)
class CacheStats:
    """Counts since the start, and what is held now."""

    name: str
    hits: int
    misses: int
    loads: int
    stale_served: int
    failures_served: int
    entries: int
    bytes: int
    evictions: Mapping[Evicted, int]
