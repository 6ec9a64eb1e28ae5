"""What a scenario hands back: raw figures for the record, tables and charts for people, gates for the exit code."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.stats import Spread


@dataclass(frozen=True)
class Table:
    """A table of `docs/benchmarks.md`; cells are ready to print."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Chart:
    """Grouped bars: a bar for each line at each place on the x axis, with the spread of its rounds."""

    name: str
    title: str
    y_label: str
    places: Sequence[str]
    lines: dict[str, Sequence[Spread | None]]


@dataclass(frozen=True)
class Gate:
    """A bound that must hold, as a ratio or a count within one run."""

    name: str
    figure: str
    bound: str
    passed: bool
    remark: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For the raw record."""
        return asdict(self)

    @property
    def line(self) -> str:
        """For the terminal."""
        remark = f"  ({self.remark})" if self.remark else ""
        return f"{'PASS' if self.passed else 'FAIL'}  {self.name}: {self.figure}, bound {self.bound}{remark}"


@dataclass(frozen=True)
class Outcome:
    """Everything that one scenario found out."""

    raw: dict[str, Any]
    tables: list[Table] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    gates: list[Gate] = field(default_factory=list)


def at_least(name: str, spread: Spread, bound: float, remark: str = "") -> Gate:
    """The median must reach ``bound``."""
    return Gate(name, ranged(spread, 2), f">= {bound:.2f}", spread.median >= bound, remark)


def at_most(name: str, spread: Spread, bound: float, unit: str = "", remark: str = "", digits: int = 2) -> Gate:
    """The median must not exceed ``bound``."""
    return Gate(name, ranged(spread, digits) + unit, f"<= {bound:g}{unit}", spread.median <= bound, remark)


def always(name: str, figures: Sequence[float], bound: float, remark: str = "") -> Gate:
    """Every round must give exactly ``bound``."""
    seen = ", ".join(f"{figure:g}" for figure in sorted(set(figures)))
    return Gate(name, seen or "nothing measured", f"= {bound:g}", set(figures) == {bound}, remark)


def ranged(spread: Spread | None, digits: int = 0) -> str:
    """``median (low-high)``, or a dash where there is nothing."""
    if spread is None:
        return "-"
    middle, low, high = (f"{value:,.{digits}f}" for value in (spread.median, spread.low, spread.high))
    return middle if spread.rounds == 1 else f"{middle} ({low}-{high})"
