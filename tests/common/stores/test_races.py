"""What holds for every document store when several processes use it at once."""

import pytest

from common.stores.documents import Documents
from tests.common.stores.contenders import Address, compete

ROUNDS = 20


def spread(address: Address, tasks: int) -> tuple[int, str]:
    """So many tasks as processes x tasks: a file has one thread a process, a bucket several."""
    return (2, str(tasks // 2)) if address.gcs_endpoint else (tasks, "1")


async def test_of_eight_that_create_at_once_exactly_one_wins(address: Address) -> None:
    processes, tasks = spread(address, 8)
    won = await compete(address, processes, tasks, "create", str(ROUNDS))
    assert sorted(won) == sorted(f"race/{number}" for number in range(ROUNDS))


async def test_no_increment_of_a_contended_counter_is_lost(address: Address) -> None:
    documents: Documents = address.open()
    await documents.create("counters/one", {"count": 0})
    processes, tasks = spread(address, 4)
    await compete(address, processes, tasks, "count", "20")
    counter = await documents.get("counters/one")
    await documents.aclose()
    assert counter is not None
    assert counter.body == {"count": 80}


@pytest.mark.parametrize("value", ["a", "b"])
async def test_a_store_opened_anew_has_what_was_written(address: Address, value: str) -> None:
    first = address.open()
    created = await first.create("links/1", {"value": value})
    await first.aclose()
    second = address.open()
    assert await second.get("links/1") == created
    await second.aclose()
