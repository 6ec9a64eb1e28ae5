"""Medians and spreads of repeated measurements. Pure; nothing here knows what was measured."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import log
from statistics import linear_regression, median


@dataclass(frozen=True)
class Spread:
    """What several rounds of one measurement came to, in the measurement's own unit."""

    median: float
    low: float
    high: float
    rounds: int

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """Summarise ``values``; raises ``ValueError`` where there are none."""
        known = sorted(values)
        if not known:
            raise ValueError("a spread needs at least one value")
        return cls(median=median(known), low=known[0], high=known[-1], rounds=len(known))

    def as_dict(self) -> dict[str, float]:
        """For the raw record."""
        return asdict(self)


def exponent(points: Mapping[float, float]) -> float:
    """The k of ``cost = c * size ** k`` that fits the points best: 0 is flat, 1 grows in proportion.

    Raises ``ValueError`` below two sizes, or where a size or a cost is not positive.
    """
    if len(points) < 2 or min(*points, *points.values()) <= 0:
        raise ValueError("a fit needs two sizes or more, and positive figures")
    return linear_regression([log(size) for size in points], [log(cost) for cost in points.values()]).slope


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile of ascending ``ordered``; raises ``ValueError`` where it is empty."""
    if not ordered:
        raise ValueError("a percentile needs at least one value")
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(0, int(rank) - 1)]


def known(values: Iterable[float | None]) -> list[float]:
    """The values that could be measured."""
    return [value for value in values if value is not None]
