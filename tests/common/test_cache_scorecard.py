"""The cache under load: a crowd on one key, a crowd without its leader, and a million inserts.

``CACHE_INSERTS`` sets how many inserts are made (default 100,000).
"""

import asyncio
import os
import random
from pathlib import Path

import pytest

from common.cache import Cache, Hit
from common.errors import UpstreamError
from tests.support.costs import times_as_much

INSERTS = int(os.environ.get("CACHE_INSERTS", "100000"))
CROWD = 1_000


class Upstream:
    """Answers after a few turns of the loop, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.fetches = 0
        self.error = error

    async def fetch(self) -> bytes:
        self.fetches += 1
        for _ in range(20):
            await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        return b"snapshot"


def ask(cache: Cache[bytes], upstream: Upstream) -> list[asyncio.Task[Hit[bytes]]]:
    return [asyncio.create_task(cache.get_or_load(("acc", "car"), upstream.fetch)) for _ in range(CROWD)]


@pytest.fixture
def cache() -> Cache[bytes]:
    return Cache("snapshots", ttl_s=60, max_bytes=1_000_000, weigh=len)


async def test_a_thousand_identical_reads_make_one_fetch(cache: Cache[bytes]) -> None:
    upstream = Upstream()
    hits = await asyncio.gather(*ask(cache, upstream))
    assert {hit.value for hit in hits} == {b"snapshot"}
    assert upstream.fetches == 1


async def test_when_the_leader_is_cancelled_all_others_are_answered_by_at_most_two_fetches(
    cache: Cache[bytes],
) -> None:
    upstream = Upstream()
    leader, *others = ask(cache, upstream)
    for _ in range(5):
        await asyncio.sleep(0)
    leader.cancel()
    assert {hit.value for hit in await asyncio.gather(*others)} == {b"snapshot"}
    assert leader.cancelled()
    assert upstream.fetches <= 2


async def test_when_the_upstream_fails_a_thousand_callers_hear_it_of_one_fetch(cache: Cache[bytes]) -> None:
    upstream = Upstream(UpstreamError("down"))
    results = await asyncio.gather(*ask(cache, upstream), return_exceptions=True)
    assert {type(result) for result in results} == {UpstreamError}
    assert upstream.fetches == 1


def resident_bytes() -> int:
    """This process's memory, where the system tells."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0


def test_inserts_of_random_size_never_exceed_the_byte_budget_nor_grow_the_process() -> None:
    budget, draw = 2_000_000, random.Random(9)
    cache: Cache[bytes] = Cache("x", ttl_s=60, max_bytes=budget, weigh=len)
    most = held = settled = 0
    for number in range(INSERTS):
        cache.put(("acc", str(draw.randrange(10_000_000))), bytes(draw.randrange(1 << draw.randrange(1, 17))))
        if number % 64 == 0:
            stats = cache.stats()
            most, held = max(most, stats.bytes), stats.entries
        if number == INSERTS // 10:
            settled = resident_bytes()
    assert 0.9 * budget < most <= budget
    assert held > 10
    assert resident_bytes() - settled < budget


def test_a_hit_costs_little_more_than_making_the_object_that_tells_of_it(cache: Cache[bytes]) -> None:
    key = ("acc", "car")
    cache.put(key, b"snapshot")

    def make_the_hit() -> Hit[bytes]:
        return Hit(b"", 0.0, stale=False, stored_at_monotonic=0.0)

    assert times_as_much(lambda: cache.get(key), make_the_hit) < 10
