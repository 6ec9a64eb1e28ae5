"""What a cache holds: entries in order of use, within a budget of bytes."""

from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

V = TypeVar("V")

ENTRY_OVERHEAD_BYTES = 512
"""What an entry costs beside its value: its key, its record and its places in the mapping."""


@dataclass(slots=True, eq=False)
class Entry(Generic[V]):
    """One value and what is known about it. Times in monotonic seconds."""

    value: V
    weight_bytes: int
    read_at: float
    """The value is true as of then."""
    fresh_until: float
    kept_until: float
    """Until then it may stand in for a failed load."""


class ByteLru(Generic[V]):
    """Entries by key, least recently used first. Not thread-safe."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[Hashable, Entry[V]] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def peek(self, key: Hashable) -> Entry[V] | None:
        """The entry, without counting as a use."""
        return self._entries.get(key)

    def values(self) -> Collection[Entry[V]]:
        """Every entry, without counting as a use."""
        return self._entries.values()

    def touch(self, key: Hashable) -> None:
        """Count as a use of a key that is there."""
        self._entries.move_to_end(key)

    def drop(self, key: Hashable) -> bool:
        """Forget one; whether it was there."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return False
        self.bytes -= entry.weight_bytes
        return True

    def drop_where(self, matches: Callable[[Hashable], bool]) -> int:
        """Forget every key that ``matches``; how many."""
        return sum([self.drop(key) for key in [key for key in self._entries if matches(key)]])

    def drop_dead(self, now: float) -> int:
        """Forget those past ``kept_until`` among the least recently used, up to the first that is not; how many."""
        count = 0
        while self._entries:
            key, entry = next(iter(self._entries.items()))
            if now < entry.kept_until:
                break
            count += self.drop(key)
        return count

    def shrink(self, to_bytes: float) -> int:
        """Forget the least recently used until at most ``to_bytes`` are held; how many."""
        count = 0
        while self._entries and self.bytes > to_bytes:
            _, entry = self._entries.popitem(last=False)
            self.bytes -= entry.weight_bytes
            count += 1
        return count

    def fits(self, weight_bytes: int) -> bool:
        """Whether an entry can be held at all."""
        return weight_bytes <= self._max_bytes

    def add(self, key: Hashable, entry: Entry[V]) -> int:
        """Hold an entry that fits under a key that is not there, as the most recently used; how many gave way."""
        gone = self.shrink(self._max_bytes - entry.weight_bytes)
        self._entries[key] = entry
        self.bytes += entry.weight_bytes
        return gone
