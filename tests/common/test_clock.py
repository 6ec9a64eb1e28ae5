"""The two clocks and the one that waits for us."""

import time
from datetime import UTC, datetime, timedelta

from common.clock import ManualClock, SystemClock


def test_the_system_clock_is_the_machines() -> None:
    clock = SystemClock()
    before_s, before = time.monotonic(), datetime.now(UTC)
    asked_s, asked = clock.monotonic(), clock.utc()
    assert before_s <= asked_s <= time.monotonic()
    assert before <= asked <= datetime.now(UTC)


def test_the_system_clocks_wall_time_is_aware_and_utc() -> None:
    assert SystemClock().utc().utcoffset() == timedelta(0)


def test_a_manual_clock_stands_still() -> None:
    clock = ManualClock()
    assert (clock.monotonic(), clock.utc()) == (clock.monotonic(), clock.utc())
    assert clock.utc().utcoffset() == timedelta(0)


def test_advancing_moves_both_hands() -> None:
    clock = ManualClock(seconds=10, wall=datetime(2026, 1, 1, tzinfo=UTC))
    clock.advance(2.5)
    assert clock.monotonic() == 12.5
    assert clock.utc() == datetime(2026, 1, 1, 0, 0, 2, 500_000, tzinfo=UTC)


def test_correcting_the_wall_clock_takes_no_time() -> None:
    clock = ManualClock(seconds=10, wall=datetime(2026, 1, 1, 12, tzinfo=UTC))
    clock.step_wall(-3_600)
    assert clock.monotonic() == 10
    assert clock.utc() == datetime(2026, 1, 1, 11, tzinfo=UTC)
