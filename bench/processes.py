"""What a process and its descendants have used so far."""

from collections.abc import Iterator
from dataclasses import dataclass

import psutil

MIB = 1024 * 1024


@dataclass(frozen=True)
class Memory:
    """Memory of a server's process tree, in MiB.

    ``largest_rss_mib`` is the resident set of its largest process (the worker). ``tree_mib`` adds up the tree and
    counts a page shared by n processes as 1/n for each, where the system tells (Linux); elsewhere it is the sum of
    the resident sets.
    """

    largest_rss_mib: float
    tree_mib: float


def cpu_s(pid: int) -> float:
    """CPU seconds, user and system, of a process and its living descendants; the clock ticks in 10 ms."""
    return sum(times.user + times.system for times in (process.cpu_times() for process in _tree(pid)))


def memory(pid: int) -> Memory:
    """The memory that a process and its descendants hold now."""
    full = [process.memory_full_info() for process in _tree(pid)]
    return Memory(
        largest_rss_mib=max(info.rss for info in full) / MIB,
        tree_mib=sum(getattr(info, "pss", info.rss) for info in full) / MIB,
    )


def _tree(pid: int) -> Iterator[psutil.Process]:
    root = psutil.Process(pid)
    yield root
    yield from root.children(recursive=True)


def tree_pids(pid: int) -> list[int]:
    """The process and its descendants, itself last."""
    return [process.pid for process in reversed(list(_tree(pid)))]
