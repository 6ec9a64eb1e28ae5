"""How many requests may wait for a command's outcome at a time.

Who waits holds one of the server's threads, for up to a minute. Without a bound a handful of such requests would keep
everybody else from answers that are in memory.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Waiters:
    """The places of one worker, at most half of them one caller's. On the worker's loop only."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._most_each = max(1, most // 2)
        self._waiting: Counter[str] = Counter()

    @contextmanager
    def place(self, principal: str) -> Iterator[bool]:
        """A place for this caller while the block runs; False where there is none left."""
        if self._waiting.total() >= self._most or self._waiting[principal] >= self._most_each:
            yield False
            return
        self._waiting[principal] += 1
        try:
            yield True
        finally:
            self._waiting -= Counter((principal,))
