"""Who is linked, which workers live, and that a customer has one owner at a time."""

import asyncio

from common.clock import ManualClock
from common.stores.documents import Documents
from functions.providers.cardata.stream_index import Customer, StreamIndex, name_of
from functions.providers.cardata.stream_leases import Leases, Roster
from tests.support.tapped_documents import TappedDocuments, When

TTL_S = 20.0


async def test_the_index_knows_every_linked_account_and_one_customer_a_gcid(documents: Documents) -> None:
    index = StreamIndex(documents)
    for account_id, gcid in (("acc_1", "g1"), ("acc_2", "g2"), ("acc_3", "g1")):
        await index.add(account_id, gcid)
    customers = {customer.name: customer for customer in await index.customers()}
    assert customers == {
        name_of("g1"): Customer(name_of("g1"), ("acc_1", "acc_3")),
        name_of("g2"): Customer(name_of("g2"), ("acc_2",)),
    }

    await index.remove("acc_3")
    await index.remove("acc_2")

    assert await index.customers() == (Customer(name_of("g1"), ("acc_1",)),)
    assert await index.accounts() == ["acc_1"]


async def test_the_index_does_not_tell_a_gcid_and_linking_twice_changes_nothing(documents: Documents) -> None:
    index = StreamIndex(documents)
    await asyncio.gather(*[index.add("acc_1", "a-gcid") for _ in range(3)])
    first = await documents.get("streams/acc_1")
    await index.add("acc_1", "a-gcid")
    second = await documents.get("streams/acc_1")
    assert first is not None
    assert second is not None
    assert first.version == second.version
    assert "a-gcid" not in str(first.body)


async def test_looking_again_reads_only_what_is_new(documents: Documents) -> None:
    tapped = TappedDocuments(documents)
    index = StreamIndex(tapped)
    await index.add("acc_1", "g1")
    await index.customers()
    tapped.seen.clear()
    await index.add("acc_2", "g2")
    await index.customers()
    assert [seen for seen in tapped.seen if seen.startswith("get")].count("get streams/acc_1") == 0


async def test_more_accounts_than_a_page_holds_are_all_found(documents: Documents) -> None:
    for number in range(1_003):
        await documents.create(f"streams/acc_{number:04d}", {"customer": "c"})
    assert len(await StreamIndex(documents).accounts()) == 1_003


async def test_a_worker_lives_as_long_as_its_word_holds(documents: Documents, clock: ManualClock) -> None:
    first, second = (Roster(documents, clock, name, TTL_S) for name in ("w1", "w2"))
    assert await first.beat() == clock.monotonic() + TTL_S
    assert await second.alive() == {"w1", "w2"}

    clock.advance(TTL_S - 0.01)
    assert await second.alive() == {"w1", "w2"}
    await first.beat()
    clock.advance(TTL_S - 0.01)
    assert await second.alive() == {"w1", "w2"}
    clock.advance(0.02)
    assert await second.alive() == {"w2"}

    clock.advance(3_601)
    await second.alive()
    assert await documents.list("stream_workers") == []


async def test_a_worker_that_leaves_is_dead_at_once(documents: Documents, clock: ManualClock) -> None:
    first, second = (Roster(documents, clock, name, TTL_S) for name in ("w1", "w2"))
    await first.beat()
    await first.leave()
    assert await second.alive() == {"w2"}


async def test_a_workers_own_word_ends_no_later_than_the_others_think(documents: Documents, clock: ManualClock) -> None:
    async def slow(when: When, _operation: str, _key: str) -> None:
        if when is When.BEFORE:
            clock.advance(7)

    asked_s = clock.monotonic()
    assert await Roster(TappedDocuments(documents, slow), clock, "w1", TTL_S).beat() == asked_s + TTL_S


async def test_of_many_workers_one_takes_a_customer(documents: Documents) -> None:
    alive = frozenset(f"w{number}" for number in range(8))
    leases = [Leases(documents, name) for name in sorted(alive)]
    taken = await asyncio.gather(*[lease.take("c1", alive) for lease in leases])
    assert taken.count(True) == 1
    winner = leases[taken.index(True)]
    assert await winner.take("c1", alive)
    assert [await lease.take("c1", alive) for lease in leases] == taken


async def test_a_dead_workers_customer_is_taken_by_one_of_its_heirs(documents: Documents) -> None:
    assert await Leases(documents, "dead").take("c1", frozenset({"dead"}))
    alive = frozenset({"w1", "w2", "w3"})
    assert not await Leases(documents, "w1").take("c1", alive | {"dead"})
    taken = await asyncio.gather(*[Leases(documents, name).take("c1", alive) for name in sorted(alive)])
    assert taken.count(True) == 1


async def test_only_the_owner_can_let_go(documents: Documents) -> None:
    alive = frozenset({"w1", "w2"})
    first, second = Leases(documents, "w1"), Leases(documents, "w2")
    await first.take("c1", alive)
    await second.release("c1")
    assert not await second.take("c1", alive)
    await first.release("c1")
    await first.release("c1")
    assert await second.take("c1", alive)
