"""How much of the memory that this process may use is in use."""

import os
import threading
from dataclasses import dataclass
from pathlib import Path

from common.clock import Clock, SystemClock

UNLIMITED_BYTES = 1 << 60
"""Cgroup v1 says "no limit" with a number beyond this."""


@dataclass(frozen=True)
class MemoryReading:
    """Memory in use and its limit, in bytes; a limit of None is one that could not be found."""

    used_bytes: int
    limit_bytes: int | None
    high: bool
    """Whether more of the limit is in use than it should be."""


class MemoryPressure:
    """Reads the container's own account of its memory: cgroup v2, else v1, else this process against the machine.

    Page cache that the kernel can take back (inactive file pages) does not count as used. The files are read at most
    once in ``every_s`` seconds; in between the same reading object is given again. Thread-safe.
    """

    def __init__(
        self,
        clock: Clock | None = None,
        *,
        threshold: float = 0.9,
        every_s: float = 1.0,
        cgroup: Path = Path("/sys/fs/cgroup"),
        proc: Path = Path("/proc"),
    ) -> None:
        self._clock = clock or SystemClock()
        self._threshold = threshold
        self._every_s = every_s
        self._cgroup = cgroup
        self._proc = proc
        self._lock = threading.Lock()
        self._read_at = float("-inf")
        self._reading = MemoryReading(0, None, high=False)

    def reading(self) -> MemoryReading:
        """The reading of the last second, or a new one."""
        with self._lock:
            now = self._clock.monotonic()
            if now - self._read_at >= self._every_s:
                self._read_at = now
                self._reading = self._read()
            return self._reading

    def _read(self) -> MemoryReading:
        found = _cgroup_v2(self._cgroup) or _cgroup_v1(self._cgroup / "memory") or _process(self._proc)
        if found is None:
            return MemoryReading(0, None, high=False)
        used, limit = found
        return MemoryReading(used, limit, high=used > self._threshold * limit)


def _cgroup_v2(root: Path) -> tuple[int, int] | None:
    limit = _number(root / "memory.max")
    used = _number(root / "memory.current")
    if limit is None or used is None:
        return None
    return used - _line(root / "memory.stat", "inactive_file"), limit


def _cgroup_v1(root: Path) -> tuple[int, int] | None:
    limit = _number(root / "memory.limit_in_bytes")
    used = _number(root / "memory.usage_in_bytes")
    if limit is None or used is None or limit >= UNLIMITED_BYTES:
        return None
    return used - _line(root / "memory.stat", "total_inactive_file"), limit


def _process(root: Path) -> tuple[int, int] | None:
    total_kib = _line(root / "meminfo", "MemTotal:")
    statm = _text(root / "self" / "statm").split()
    if total_kib == 0 or len(statm) < 2:
        return None
    return int(statm[1]) * os.sysconf("SC_PAGE_SIZE"), total_kib * 1024


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdecimal() else None


def _line(path: Path, name: str) -> int:
    for line in _text(path).splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == name:
            return int(words[1])
    return 0
