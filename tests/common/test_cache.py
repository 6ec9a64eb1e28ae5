"""What the cache holds, for how long, and what gives way."""

import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from common.cache import Cache, Evicted, Hit
from common.clock import ManualClock
from common.lru import ENTRY_OVERHEAD_BYTES
from common.memory import MemoryPressure


def middle(low: float, high: float) -> float:
    return (low + high) / 2


class World:
    """A cache of strings that weigh their length, and its clock."""

    def __init__(
        self,
        *,
        max_bytes: int = 1_000_000,
        stale_if_error_s: float = 0.0,
        uniform: Callable[[float, float], float] = middle,
        pressure: MemoryPressure | None = None,
    ) -> None:
        self.clock = ManualClock()
        self.cache: Cache[str] = Cache(
            "snapshots",
            ttl_s=60,
            max_bytes=max_bytes,
            weigh=len,
            clock=self.clock,
            stale_if_error_s=stale_if_error_s,
            uniform=uniform,
            pressure=pressure,
        )

    def put(self, *keys: str) -> None:
        for key in keys:
            self.cache.put(key, "x" * (1_000 - ENTRY_OVERHEAD_BYTES))

    def held(self, *keys: str) -> str:
        """Those of the keys that are held, without using them."""
        return "".join(key for key in keys if key in self.cache)


def test_what_was_put_is_given_back_with_its_age() -> None:
    world = World()
    world.cache.put("car", "value")
    world.clock.advance(12.5)
    assert world.cache.get("car") == Hit("value", 12.5, stale=False, stored_at_monotonic=1_000.0, loaded=False)


def test_what_was_never_put_is_a_miss() -> None:
    world = World()
    world.cache.put("car", "value")
    assert world.cache.get("bike") is None
    assert world.cache.get(("car",)) is None


def test_an_entry_is_fresh_for_its_time_to_live_and_no_longer() -> None:
    world = World()
    world.cache.put("car", "value")
    world.clock.advance(59.9)
    assert world.cache.get("car") is not None
    world.clock.advance(0.1)
    assert world.cache.get("car") is None


def test_a_corrected_wall_clock_changes_no_age() -> None:
    world = World()
    world.cache.put("car", "value")
    world.clock.step_wall(3_600)
    hit = world.cache.get("car")
    assert hit is not None
    assert hit.age_s == 0


def test_being_used_does_not_make_an_entry_younger() -> None:
    world = World()
    world.cache.put("car", "value")
    world.clock.advance(50)
    world.cache.get("car")
    world.clock.advance(10)
    assert world.cache.get("car") is None


def test_a_new_value_replaces_the_old_one_and_starts_anew() -> None:
    world = World()
    world.cache.put("car", "old")
    world.clock.advance(50)
    world.cache.put("car", "new")
    world.clock.advance(50)
    hit = world.cache.get("car")
    assert hit is not None
    assert (hit.value, hit.age_s) == ("new", 50)
    assert world.cache.stats().entries == 1


def test_a_caller_may_ask_for_younger_data_but_not_for_older() -> None:
    world = World()
    world.cache.put("car", "value")
    world.clock.advance(10)
    assert world.cache.get("car", max_age_s=10) is None
    assert world.cache.get("car", max_age_s=10.5) is not None
    assert world.cache.get("car", max_age_s=0) is None
    world.clock.advance(50)
    assert world.cache.get("car", max_age_s=3_600) is None


def test_an_age_of_nothing_is_too_old_for_a_caller_who_wants_it_read_now() -> None:
    world = World()
    world.cache.put("car", "value")
    assert world.cache.get("car", max_age_s=0) is None


def test_a_kept_entry_is_given_marked_stale_only_to_those_who_allow_it() -> None:
    world = World(stale_if_error_s=40)
    world.cache.put("car", "value")
    world.clock.advance(99)
    assert world.cache.get("car") is None
    hit = world.cache.get("car", allow_stale=True)
    assert hit is not None
    assert (hit.stale, hit.age_s) == (True, 99)
    assert world.cache.get("car", max_age_s=30, allow_stale=True) is None
    world.clock.advance(1)
    assert world.cache.get("car", allow_stale=True) is None
    assert world.cache.stats().evictions[Evicted.EXPIRED] == 1
    assert world.cache.stats().bytes == 0


def test_times_to_live_spread_by_ten_percent() -> None:
    world = World(uniform=random.Random(7).uniform)
    keys = [str(number) for number in range(1_000)]
    for key in keys:
        world.cache.put(key, "")

    def fresh() -> int:
        return sum(world.cache.get(key) is not None for key in keys)

    world.clock.advance(53.9)
    assert fresh() == 1_000
    world.clock.advance(6.1)
    assert 400 < fresh() < 600
    world.clock.advance(6.1)
    assert fresh() == 0


def test_the_least_recently_used_gives_way_first() -> None:
    world = World(max_bytes=3_000)
    world.put("a", "b", "c")
    world.cache.get("a")
    world.put("d")
    assert world.held("a", "b", "c", "d") == "acd"
    world.cache.get("missing")
    world.put("e")
    assert world.held("a", "b", "c", "d", "e") == "ade"
    assert world.cache.stats().evictions[Evicted.BUDGET] == 2


def test_a_lookup_that_finds_it_too_old_is_not_a_use() -> None:
    world = World(max_bytes=2_000)
    world.put("a", "b")
    world.cache.get("a", max_age_s=0)
    world.put("c")
    assert world.held("a", "b", "c") == "bc"


def test_a_large_entry_pushes_out_as_many_as_it_needs_and_no_more() -> None:
    world = World(max_bytes=5_000)
    world.put("a", "b", "c", "d", "e")
    world.cache.put("large", "x" * 2_000)
    assert world.held("a", "b", "c", "d", "e", "large") == "delarge"
    assert world.cache.stats().bytes == 2_000 + 2_000 + ENTRY_OVERHEAD_BYTES


def test_an_entry_larger_than_the_budget_is_not_held_and_its_predecessor_is_gone() -> None:
    world = World(max_bytes=2_000)
    world.put("a", "b")
    world.cache.put("a", "x" * 2_000)
    assert world.held("a", "b") == "b"
    assert world.cache.stats().evictions[Evicted.TOO_LARGE] == 1


def test_an_entry_that_just_fits_is_held() -> None:
    world = World(max_bytes=2_000)
    world.cache.put("a", "x" * (2_000 - ENTRY_OVERHEAD_BYTES))
    assert world.held("a") == "a"
    assert world.cache.stats().bytes == 2_000


def test_dead_entries_leave_before_living_ones_have_to() -> None:
    world = World(max_bytes=3_000)
    world.put("a", "b")
    world.clock.advance(60)
    world.put("c")
    assert world.held("a", "b", "c") == "c"
    evictions = world.cache.stats().evictions
    assert (evictions[Evicted.EXPIRED], evictions[Evicted.BUDGET]) == (2, 0)


def test_an_invalidated_key_is_gone_and_the_others_stay() -> None:
    world = World()
    world.put("a", "b")
    assert world.cache.invalidate("a") is True
    assert world.cache.invalidate("a") is False
    assert world.held("a", "b") == "b"
    assert world.cache.stats().evictions[Evicted.INVALIDATED] == 1


def test_a_prefix_invalidates_everything_under_it_and_nothing_beside_it() -> None:
    world = World()
    keys: list[str | tuple[str, ...]] = [
        ("snap", "acc_1", "A"),
        ("snap", "acc_1", "B"),
        ("snap", "acc_10", "A"),
        "snap",
    ]
    for key in keys:
        world.cache.put(key, "")
    assert world.cache.invalidate_where(("snap", "acc_1")) == 2
    assert [world.cache.get(key) is not None for key in keys] == [False, False, True, True]


def test_a_predicate_invalidates_what_it_accepts() -> None:
    world = World()
    world.put("a", "b", "c")
    assert world.cache.invalidate_where(lambda key: key != "b") == 2
    assert world.held("a", "b", "c") == "b"


def test_clearing_leaves_nothing() -> None:
    world = World()
    world.put("a", "b")
    assert world.cache.clear() == 2
    assert (world.cache.stats().entries, world.cache.stats().bytes) == (0, 0)


def test_shedding_forgets_a_fraction_of_the_bytes_least_recently_used_first() -> None:
    world = World()
    world.put("a", "b", "c", "d")
    assert world.cache.shed(0.5) == 2
    assert world.held("a", "b", "c", "d") == "cd"
    assert world.cache.shed(1.0) == 2
    assert world.cache.stats().evictions[Evicted.PRESSURE] == 4


def test_the_statistics_count_what_happened() -> None:
    world = World(stale_if_error_s=60)
    world.cache.put("a", "12345")
    world.cache.get("a")
    world.cache.get("b")
    world.clock.advance(60)
    world.cache.get("a", allow_stale=True)
    stats = world.cache.stats()
    assert (stats.name, stats.hits, stats.misses, stats.stale_served) == ("snapshots", 2, 1, 1)
    assert (stats.entries, stats.bytes) == (1, 5 + ENTRY_OVERHEAD_BYTES)


def test_settings_at_the_edge_of_sense_are_accepted() -> None:
    for failure_ttl_s in (0, 2):
        Cache[str]("x", ttl_s=0.5, max_bytes=1, weigh=len, jitter=0, failure_ttl_s=failure_ttl_s, stale_if_error_s=0)


@pytest.mark.parametrize(
    "wrong",
    [{"failure_ttl_s": 2.1}, {"failure_ttl_s": -1}, {"ttl_s": 0}, {"jitter": 1}, {"stale_if_error_s": -1}],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    settings: dict[str, float] = {"ttl_s": 60} | wrong
    with pytest.raises(ValueError, match="must be"):
        Cache[str]("x", max_bytes=1, weigh=len, **settings)  # type: ignore[arg-type]  # all of them are floats


def cgroup(root: Path, used: int) -> Path:
    root.mkdir(exist_ok=True)
    (root / "memory.max").write_text("1000\n")
    (root / "memory.current").write_text(f"{used}\n")
    (root / "memory.stat").write_text("anon 1\ninactive_file 0\n")
    return root


def test_high_memory_use_sheds_half_of_the_entries_once_a_reading(tmp_path: Path) -> None:
    clock = ManualClock()
    pressure = MemoryPressure(clock, cgroup=cgroup(tmp_path, used=901))
    world = World(pressure=pressure)
    world.put("a")
    world.put("b", "c", "d")
    assert world.held("a", "b", "c", "d") == "abcd", "the first put has spent the reading, on nothing"
    clock.advance(1)
    world.put("e", "f")
    assert world.held("a", "b", "c", "d", "e", "f") == "cdef"
    cgroup(tmp_path, used=900)
    clock.advance(1)
    world.put("g")
    assert world.held("a", "b", "c", "d", "e", "f", "g") == "cdefg"


def test_two_caches_under_the_same_pressure_both_shed(tmp_path: Path) -> None:
    clock = ManualClock()
    pressure = MemoryPressure(clock, cgroup=cgroup(tmp_path, used=100))
    worlds = World(pressure=pressure), World(pressure=pressure)
    for world in worlds:
        world.put("a", "b")
    cgroup(tmp_path, used=950)
    clock.advance(1)
    for world in worlds:
        world.put("c")
        assert world.held("a", "b", "c") == "bc"


def test_threads_that_use_it_together_leave_its_books_in_order() -> None:
    cache: Cache[str] = Cache("x", ttl_s=60, max_bytes=50_000, weigh=len)
    wrong: list[str] = []
    together = threading.Barrier(8)

    def work(seed: int) -> None:
        draw = random.Random(seed)
        together.wait()
        for _ in range(2_000):
            key = str(draw.randrange(100))
            match draw.randrange(20):
                case 0:
                    cache.invalidate(key)
                case 1:
                    cache.invalidate_where(lambda other, key=key: other > key)  # type: ignore[misc]  # keys are strings
                case 2:
                    cache.shed(0.1)
                case number if number < 10:
                    cache.put(key, key * draw.randrange(500))
                case _:
                    hit = cache.get(key)
                    if hit is not None and hit.value.strip(key):
                        wrong.append(key)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = cache.stats()
    assert wrong == []
    assert stats.bytes <= 50_000
    cache.clear()
    assert (cache.stats().bytes, cache.stats().entries) == (0, 0)
