"""What one thing costs beside another, on a machine whose speed changes from one moment to the next."""

import timeit
from collections.abc import Callable

_ROUNDS, _CALLS = 60, 200


def times_as_much(one: Callable[[], object], other: Callable[[], object]) -> float:
    """How many times as long ``one`` takes as ``other``: by turns, so that both have their best moments."""
    pairs = [(timeit.timeit(one, number=_CALLS), timeit.timeit(other, number=_CALLS)) for _ in range(_ROUNDS)]
    return min(first for first, _ in pairs) / min(second for _, second in pairs)
