"""A row of the scorecard and what was measured for it."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found."""

    measured: str
    passed: bool


Say = Callable[[str], None]
"""Shows progress: a check may take a minute."""


@dataclass(frozen=True, slots=True)
class Row:
    """One promise."""

    number: int
    check: str
    passes: str
    measure: Callable[[Say], Finding]
