"""Where the figures on memory come from."""

import os
from pathlib import Path

import pytest

from common.clock import ManualClock
from common.memory import MemoryPressure, MemoryReading

GIB = 1 << 30


def write(root: Path, **files: str) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (root / name.replace("__", ".")).write_text(text)


def cgroup_v2(root: Path, limit: str, used: str, inactive: int) -> None:
    stat = f"anon 5\nfile 7\nactive_file 11\ninactive_file {inactive}\n"
    write(root, memory__max=limit, memory__current=used, memory__stat=stat)


def cgroup_v1(root: Path, limit: int, used: int, inactive: int) -> None:
    stat = f"inactive_file 3\ntotal_inactive_file {inactive}\n"
    write(root / "memory", memory__limit_in_bytes=f"{limit}\n", memory__usage_in_bytes=f"{used}\n", memory__stat=stat)


def proc(root: Path, resident_pages: int) -> None:
    write(root, meminfo="MemTotal:        1000 kB\nMemFree:  10 kB\n")
    write(root / "self", statm=f"99999 {resident_pages} 1 1 0 1 0\n")


def read(tmp_path: Path) -> MemoryReading:
    return MemoryPressure(ManualClock(), cgroup=tmp_path / "cgroup", proc=tmp_path / "proc").reading()


def test_cgroup_v2_counts_what_the_kernel_cannot_take_back(tmp_path: Path) -> None:
    cgroup_v2(tmp_path / "cgroup", "1000\n", "990\n", 90)
    assert read(tmp_path) == MemoryReading(900, 1_000, high=False)
    cgroup_v2(tmp_path / "cgroup", "1000\n", "990\n", 89)
    assert read(tmp_path) == MemoryReading(901, 1_000, high=True)


def test_cgroup_v1_is_read_where_there_is_no_v2(tmp_path: Path) -> None:
    cgroup_v1(tmp_path / "cgroup", GIB, GIB, 0)
    proc(tmp_path / "proc", 1)
    assert read(tmp_path) == MemoryReading(GIB, GIB, high=True)
    cgroup_v1(tmp_path / "cgroup", GIB, GIB, GIB // 2)
    assert read(tmp_path) == MemoryReading(GIB // 2, GIB, high=False)


def test_v2_comes_before_v1(tmp_path: Path) -> None:
    cgroup_v1(tmp_path / "cgroup", GIB, GIB, 0)
    cgroup_v2(tmp_path / "cgroup", "1000", "1", 0)
    assert read(tmp_path).limit_bytes == 1_000


def test_without_a_limit_the_process_is_measured_against_the_machine(tmp_path: Path) -> None:
    cgroup_v2(tmp_path / "cgroup", "max\n", "990\n", 0)
    cgroup_v1(tmp_path / "cgroup", 0x7FFFFFFFFFFFF000, GIB, 0)
    proc(tmp_path / "proc", 10)
    page = os.sysconf("SC_PAGE_SIZE")
    assert read(tmp_path) == MemoryReading(10 * page, 1_000 * 1_024, high=False)
    proc(tmp_path / "proc", 1_000 * 1_024 // page)
    assert read(tmp_path).high is True


@pytest.mark.parametrize("missing", ["memory.max", "memory.current"])
def test_half_a_cgroup_is_none(tmp_path: Path, missing: str) -> None:
    cgroup_v2(tmp_path / "cgroup", "1000", "999", 0)
    (tmp_path / "cgroup" / missing).unlink()
    proc(tmp_path / "proc", 10)
    assert read(tmp_path).limit_bytes == 1_000 * 1_024


def test_a_missing_statistics_file_means_that_everything_counts(tmp_path: Path) -> None:
    cgroup_v2(tmp_path / "cgroup", "1000", "950", 500)
    (tmp_path / "cgroup" / "memory.stat").unlink()
    assert read(tmp_path) == MemoryReading(950, 1_000, high=True)


def test_where_nothing_can_be_read_memory_is_never_high(tmp_path: Path) -> None:
    assert read(tmp_path) == MemoryReading(0, None, high=False)


@pytest.mark.parametrize("missing", ["meminfo", "self/statm"])
def test_half_an_account_of_the_process_is_none(tmp_path: Path, missing: str) -> None:
    proc(tmp_path / "proc", 10)
    (tmp_path / "proc" / missing).unlink()
    assert read(tmp_path) == MemoryReading(0, None, high=False)


def test_the_files_are_read_at_most_once_a_second(tmp_path: Path) -> None:
    clock = ManualClock()
    pressure = MemoryPressure(clock, cgroup=tmp_path)
    cgroup_v2(tmp_path, "1000", "500", 0)
    first = pressure.reading()
    cgroup_v2(tmp_path, "1000", "950", 0)
    clock.advance(0.9)
    assert pressure.reading() is first
    clock.advance(0.1)
    assert pressure.reading() == MemoryReading(950, 1_000, high=True)


def test_the_machine_it_runs_on_gives_a_plausible_reading() -> None:
    reading = MemoryPressure().reading()
    assert reading.limit_bytes is not None
    assert reading.used_bytes > 1_000_000
