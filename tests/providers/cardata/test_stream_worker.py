"""Workers share the customers, take over from each other, and never serve what may be another's."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest

from common.errors import StoreUnavailable
from functions.providers.cardata import descriptors as d
from functions.providers.cardata.stream_index import StreamIndex, name_of
from functions.providers.cardata.stream_line import Line
from functions.providers.cardata.stream_session import OpensLines
from functions.providers.cardata.stream_shares import share_of
from functions.providers.cardata.stream_worker import Worker, ttl_s
from functions.providers.port import Account, Region
from tests.providers.cardata.harness import I4, Bench
from tests.providers.cardata.stream_harness import LEASE_S, Reported, Sleepers, StreamBench, until
from tests.support.tapped_documents import TappedDocuments, When


@pytest.fixture
def stream(bench: Bench) -> StreamBench:
    return StreamBench(bench, Reported(bench.clock), Sleepers(bench.clock))


async def link_many(stream: StreamBench, count: int) -> dict[str, str]:
    """Linked customers of the sandbox: account ids by GCID."""
    accounts = {}
    for number, customer in enumerate(stream.bench.sandbox.add_customers(count)):
        account = Account(f"acc_{number}", "cardata", Region.REST_OF_WORLD)
        await stream.bench.link(customer["gcid"], account)
        await StreamIndex(stream.bench.documents).add(account.id, customer["gcid"])
        accounts[customer["gcid"]] = account.id
    return accounts


async def turn(*workers: Worker) -> None:
    for worker in workers:
        await worker.beat()
    for worker in workers:
        await worker.look()


async def listening(worker: Worker, count: int) -> None:
    await until(lambda: worker.states() == ({"connected": count} if count else {}))


@asynccontextmanager
async def ended(*workers: Worker) -> AsyncIterator[None]:
    """End workers in good order, whatever the test did."""
    try:
        yield
    finally:
        for worker in workers:
            stop = asyncio.Event()
            stop.set()
            await worker.run(stop)


async def test_one_worker_serves_everybody_and_says_how_it_is(stream: StreamBench) -> None:
    worker = stream.worker("w1")
    async with ended(worker):
        assert worker.status == "unhealthy"
        await link_many(stream, 5)
        await turn(worker)
        await listening(worker, 5)
        assert (worker.status, worker.workers, worker.waits_for) == ("healthy", 1, 0)
        await turn(worker)
        assert worker.states() == {"connected": 5}
    assert stream.bench.sandbox.stream_connections() == []


async def test_a_second_worker_gets_its_share_and_nobody_is_served_twice(stream: StreamBench) -> None:
    accounts = await link_many(stream, 8)
    names = [name_of(gcid) for gcid in accounts]
    first, second = stream.worker("w1"), stream.worker("w2")
    async with ended(first, second):
        await turn(first)
        await listening(first, 8)
        await turn(second)
        theirs = len(share_of("w2", names, ["w1", "w2"]))
        assert 0 < theirs < 8
        # The first has not let go yet.
        assert (second.waits_for, second.status, second.states()) == (theirs, "degraded", {})

        await turn(first, second)

        await listening(first, 8 - theirs)
        await listening(second, theirs)
        assert len(stream.bench.sandbox.stream_connections()) == 8
        for gcid, account_id in accounts.items():
            vin = next(iter(stream.bench.sandbox.control("GET", f"customers/{gcid}")["vins"]))
            assert stream.speak(vin, {d.MILEAGE: 7}, gcid=gcid) == 1
            await until(lambda told=account_id: told in stream.told)  # type: ignore[misc]  # a default binds it
    assert stream.reported.events("stream_ended") == []


async def test_what_a_killed_worker_had_is_taken_over_within_the_lease(stream: StreamBench) -> None:
    await link_many(stream, 6)
    killed, heir = stream.worker("w1"), stream.worker("w2")
    async with ended(heir):
        await turn(killed, heir)
        await turn(killed, heir)
        await until(lambda: len(stream.bench.sandbox.stream_connections()) == 6)
        for served in killed._served.values():
            served.task.cancel()
        # As often as a worker looks around, until the lease has ended; the killed one beats no more.
        for _ in range(5):
            stream.pass_time(LEASE_S / 6)
            await turn(heir)
            if len(heir.states()) and sum(heir.states().values()) == 6:
                break
        await listening(heir, 6)
        assert heir.workers == 1


async def test_a_worker_that_ends_in_good_order_is_succeeded_at_the_next_look(stream: StreamBench) -> None:
    await link_many(stream, 4)
    first, second = stream.worker("w1"), stream.worker("w2")
    async with ended(second):
        async with ended(first):
            await turn(first)
            await listening(first, 4)
        await turn(second)
        await listening(second, 4)


async def test_a_worker_that_was_silent_too_long_lets_go_of_everybody_before_it_speaks_again(
    stream: StreamBench,
) -> None:
    await link_many(stream, 3)
    frozen = stream.worker("w1")
    async with ended(frozen):
        await turn(frozen)
        await listening(frozen, 3)
        stream.pass_time(ttl_s(LEASE_S))
        assert frozen.status == "unhealthy"
        await frozen.look()
        assert len(stream.bench.sandbox.stream_connections()) == 3
        await frozen.beat()
        assert frozen.states() == {}
        await until(lambda: not stream.bench.sandbox.stream_connections())
        await frozen.look()
        await listening(frozen, 3)
    (lost,) = stream.reported.events("stream_lease_lost")
    assert lost["count"] == 3


async def test_a_store_that_is_away_costs_no_connection_until_the_lease_ends(stream: StreamBench) -> None:
    await link_many(stream, 2)
    documents = TappedDocuments(stream.bench.documents)
    worker = stream.worker("w1", documents)
    async with ended(worker):
        await turn(worker)
        await listening(worker, 2)

        async def away(_when: When, _operation: str, _key: str) -> None:
            raise StoreUnavailable

        heard, documents.tap = documents.tap, away
        stream.pass_time(ttl_s(LEASE_S) - 1)
        await turn(worker)
        assert (worker.states(), worker.status) == ({"connected": 2}, "healthy")
        stream.pass_time(1)
        await turn(worker)
        assert (worker.states(), worker.status) == ({}, "unhealthy")
        documents.tap = heard
        await turn(worker)
        await listening(worker, 2)
    assert len(stream.reported.events("stream_beat_failed")) == 2
    assert len(stream.reported.events("stream_look_failed")) == 1


async def test_an_account_that_is_unlinked_is_listened_to_no_more(stream: StreamBench) -> None:
    accounts = await link_many(stream, 2)
    index = StreamIndex(stream.bench.documents)
    worker = stream.worker("w1")
    async with ended(worker):
        await turn(worker)
        await listening(worker, 2)
        await index.remove("acc_0")
        await turn(worker)
        await listening(worker, 1)
        assert len(stream.bench.sandbox.stream_connections()) == 1
        # A second account of the same customer changes nothing but who is stored for.
        (gcid,) = [gcid for gcid, account_id in accounts.items() if account_id == "acc_1"]
        await index.add("acc_9", gcid)
        await turn(worker)
        vin = next(iter(stream.bench.sandbox.control("GET", f"customers/{gcid}")["vins"]))
        stream.speak(vin, {d.MILEAGE: 3}, gcid=gcid)
        await until(lambda: sorted(stream.told) == ["acc_1", "acc_9"])


async def test_what_was_received_is_stored_before_another_worker_is_let_in(stream: StreamBench) -> None:
    accounts = await link_many(stream, 8)
    names = [name_of(gcid) for gcid in accounts]
    first, second = stream.worker("w1"), stream.worker("w2")
    first._parts = replace(first._parts, intake=stream.intake(store_every_s=3_600.0))
    async with ended(first, second):
        await turn(first)
        await listening(first, 8)
        vins = {gcid: next(iter(stream.bench.sandbox.control("GET", f"customers/{gcid}")["vins"])) for gcid in accounts}
        for number in (1, 2):
            for gcid, vin in vins.items():
                stream.speak(vin, {d.MILEAGE: number}, gcid=gcid)
            stream.pass_time(1)
        await until(lambda: stream.reported.count('draiv_stream_messages_total{stage="received"}') == 16)
        await until(lambda: stream.reported.count('draiv_stream_messages_total{stage="stored"}') == 8)
        await turn(second)
        theirs = share_of("w2", names, ["w1", "w2"])

        await first.look()

        for gcid, account_id in accounts.items():
            expected = 2 if name_of(gcid) in theirs else 1
            assert await stream.stored(vins[gcid], d.MILEAGE, account_id) == expected


async def test_what_was_received_is_stored_before_the_process_ends(stream: StreamBench) -> None:
    await stream.bench.link()
    gcid = stream.bench.sandbox.demo["gcid"]
    await StreamIndex(stream.bench.documents).add("acc_1", gcid)
    worker = stream.worker("w1")
    intake = stream.intake(store_every_s=3_600.0)
    worker._parts = replace(worker._parts, intake=intake)
    await turn(worker)
    await listening(worker, 1)
    for number in (1, 2, 3):
        stream.speak(I4, {d.MILEAGE: number})
    await until(lambda: stream.reported.count('draiv_stream_messages_total{stage="received"}') == 3)
    stop = asyncio.Event()
    stop.set()
    await worker.run(stop)
    assert await stream.stored(I4, d.MILEAGE) == 3
    assert await stream.bench.documents.list("stream_workers") == []


async def test_a_running_worker_beats_and_looks_by_itself_and_sooner_while_it_waits(stream: StreamBench) -> None:
    await link_many(stream, 8)
    first, second = stream.worker("w1"), stream.worker("w2")
    stop = asyncio.Event()
    running = asyncio.create_task(first.run(stop))
    await until(lambda: first.states() == {"connected": 8})
    other = asyncio.create_task(second.run(stop))
    # While it waits for the first to let go it looks every second, not every five.
    await until(lambda: second.waits_for > 0 and any(0 < wait_s <= 1 for wait_s in stream.sleepers.waits_s()))

    def both_sleep() -> bool:
        return all(stream.sleepers.asleep(f"Worker.{loop}") == 2 for loop in ("_keep_beating", "_keep_looking"))

    for _ in range(8):
        await until(both_sleep)
        stream.pass_time(1)
    await until(lambda: second.waits_for == 0 and second.states().keys() == {"connected"})
    await until(lambda: sum(worker.states().get("connected", 0) for worker in (first, second)) == 8)
    stop.set()
    await asyncio.wait_for(asyncio.gather(running, other), 10)
    assert stream.bench.sandbox.stream_connections() == []


@dataclass
class DefectiveBroker:
    """One in which a defect of ours shows once."""

    inner: OpensLines
    has_failed: bool = False

    async def open(self, gcid: str, id_token: str) -> Line:
        if not self.has_failed:
            self.has_failed = True
            raise LookupError("a defect")
        return await self.inner.open(gcid, id_token)


async def test_a_session_that_ends_by_a_defect_is_reported_and_begun_anew(stream: StreamBench) -> None:
    worker = stream.worker("w1")
    worker._parts = replace(worker._parts, broker=DefectiveBroker(worker._parts.broker))
    async with ended(worker):
        await link_many(stream, 2)
        await turn(worker)
        await until(lambda: worker.status == "degraded")

        await worker.look()

        await listening(worker, 2)
        assert (worker.status, len(stream.bench.sandbox.stream_connections())) == ("healthy", 2)
        (failed,) = stream.reported.events("stream_session_failed")
        assert failed["severity"] == "ERROR"


async def test_a_worker_that_fails_by_its_own_fault_leaves_and_says_so(stream: StreamBench) -> None:
    worker = stream.worker("w1")

    async def broken() -> None:
        raise LookupError("a defect")

    worker._hear = broken
    with pytest.raises(LookupError):
        await asyncio.wait_for(worker.run(asyncio.Event()), 10)
    assert await stream.bench.documents.list("stream_workers") == []
