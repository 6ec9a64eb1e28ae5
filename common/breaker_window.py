"""Counts of what happened lately, in constant memory."""


class SlidingWindow:
    """Calls, failures and slow calls of the last ``span_s`` seconds, kept in ``slices`` equal slices of time.

    A slice is forgotten as a whole, so the window reaches back between ``span_s`` less one slice and ``span_s``.
    Times are monotonic seconds and must not go back.
    """

    def __init__(self, span_s: float, slices: int = 10) -> None:
        self._slice_s = span_s / slices
        self._slices = slices
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._numbers = [-1] * self._slices
        self._calls = [0] * self._slices
        self._failures = [0] * self._slices
        self._slow = [0] * self._slices

    def add(self, now: float, *, failed: bool, slow: bool) -> None:
        """Count one call that ended at ``now``."""
        number = int(now // self._slice_s)
        place = number % self._slices
        if self._numbers[place] != number:
            self._numbers[place] = number
            self._calls[place] = self._failures[place] = self._slow[place] = 0
        self._calls[place] += 1
        self._failures[place] += failed
        self._slow[place] += slow

    def totals(self, now: float) -> tuple[int, int, int]:
        """Calls, failures and slow calls in the window that ends at ``now``."""
        oldest = int(now // self._slice_s) - self._slices
        places = [place for place, number in enumerate(self._numbers) if number > oldest]
        return (
            sum(self._calls[place] for place in places),
            sum(self._failures[place] for place in places),
            sum(self._slow[place] for place in places),
        )
