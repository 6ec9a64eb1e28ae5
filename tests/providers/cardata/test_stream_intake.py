"""From receipt to store: nothing is lost on the way, and not more is written than needed."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from common.clock import ManualClock, SystemClock
from common.crypto.errors import KeyGone
from common.errors import StoreUnavailable
from common.settings import Settings
from common.stores.documents import Documents
from common.stores.memory import MemoryShared
from common.stores.shared import SharedUnavailable
from functions.providers.cardata import descriptors as d
from functions.providers.cardata.signal_store import DocumentSignals
from functions.providers.cardata.signals import Signal
from functions.providers.cardata.stream_intake import Intake
from functions.providers.cardata.stream_journal import Journal
from functions.storage import AccountKeys, open_storage
from ops.stack import master_key
from tests.providers.cardata.harness import I4, NOON, X1, said
from tests.providers.cardata.stream_harness import Reported, Sleepers, until
from tests.support.tapped_documents import TappedDocuments, When

MILEAGE = d.MILEAGE
LONG_S = 3_600.0


@pytest.fixture
async def keys(tmp_path: object) -> AsyncIterator[AccountKeys]:
    settings = Settings(token_keys=master_key(), documents_url=f"sqlite:///{tmp_path}/sealed.db")
    documents, account_keys = open_storage(settings, SystemClock())
    await account_keys.create("acc_1", "cardata", "somebody")
    yield account_keys
    await documents.aclose()


@pytest.fixture
def shared(clock: ManualClock) -> MemoryShared:
    return MemoryShared(clock)


def later(value: object, seconds: float) -> Signal:
    """A signal that was measured, and came in, so long after noon."""
    at = NOON + timedelta(seconds=seconds)
    return said(value, at=at, received_at=at)


class Desk:
    """An intake and what it is made of."""

    def __init__(
        self, documents: Documents, clock: ManualClock, journal: Journal | None, store_every_s: float | None
    ) -> None:
        self.documents = TappedDocuments(documents)
        self.reported = Reported(clock)
        self.sleepers = Sleepers(clock)
        self.told: list[str] = []
        self.intake = Intake(
            DocumentSignals(self.documents),
            journal,
            clock,
            self.reported.report,
            self.tell,
            store_every_s=store_every_s,
            sleep=self.sleepers.sleep,
        )

    async def tell(self, account_id: str) -> None:
        self.told.append(account_id)

    async def stored(self, vin: str = I4, account_id: str = "acc_1") -> dict[str, object]:
        known = await DocumentSignals(self.documents.inner).load(account_id, vin)
        return {name: signal.value for name, signal in known.items()}

    def writes(self) -> int:
        return sum(seen.startswith(("create", "replace")) for seen in self.documents.seen)

    def messages(self, stage: str) -> float:
        return self.reported.count(f'draiv_stream_messages_total{{stage="{stage}"}}')


async def settled(desk: Desk) -> None:
    await until(lambda: desk.intake.unsaved == 0 and desk.messages("received") == desk.messages("stored"))


async def sleeps(desk: Desk, seconds: float) -> None:
    await until(lambda: desk.sleepers.waits_s() == [seconds])


async def test_what_comes_in_is_stored_at_once_and_the_instances_are_told(
    documents: Documents, clock: ManualClock
) -> None:
    desk = Desk(documents, clock, None, None)
    desk.intake.take(["acc_1", "acc_2"], I4, {MILEAGE: said(1)})
    assert desk.intake.unsaved == 2
    await settled(desk)
    await until(lambda: sorted(desk.told) == ["acc_1", "acc_2"])
    assert await desk.stored() == await desk.stored(account_id="acc_2") == {MILEAGE: 1}
    assert (desk.messages("received"), desk.messages("kept"), desk.messages("stored")) == (2, 2, 2)


async def test_a_burst_costs_few_writes_and_the_newest_of_each_signal_wins(
    documents: Documents, clock: ManualClock
) -> None:
    desk = Desk(documents, clock, None, None)
    for number in range(200):
        desk.intake.take(["acc_1"], I4, {MILEAGE: later(number, number * 37 % 200), f"s{number % 7}": said(number)})
        await asyncio.sleep(0)
    await settled(desk)
    stored = await desk.stored()
    assert stored[MILEAGE] == next(number for number in range(200) if number * 37 % 200 == 199)
    assert len(stored) == 8
    assert desk.writes() < 60
    assert desk.messages("stored") == 200


async def test_with_a_journal_the_next_write_waits_while_what_came_in_is_kept(
    documents: Documents, clock: ManualClock, shared: MemoryShared, keys: AccountKeys
) -> None:
    journal = Journal(shared, keys)
    desk = Desk(documents, clock, journal, LONG_S)
    desk.intake.take(["acc_1"], I4, {MILEAGE: said(1)})
    await settled(desk)
    desk.intake.take(["acc_1"], I4, {MILEAGE: later(2, 1)})
    desk.intake.take(["acc_1"], X1, {MILEAGE: said(3)})
    await until(lambda: desk.messages("kept") == 3)

    assert desk.messages("stored") == 1
    assert await desk.stored() == {MILEAGE: 1}
    held = await journal.recover("acc_1")
    assert {vin: signals[MILEAGE].value for vin, signals in held.items()} == {I4: 2, X1: 3}

    clock.advance(LONG_S)
    desk.intake.take(["acc_1"], X1, {"other": said(4)})
    await settled(desk)
    assert await desk.stored() == {MILEAGE: 2}
    assert await desk.stored(X1) == {MILEAGE: 3, "other": 4}


async def test_what_waits_is_written_when_its_time_has_come_without_another_message(
    documents: Documents, clock: ManualClock
) -> None:
    desk = Desk(documents, clock, None, 0.05)
    desk.intake.take(["acc_1"], I4, {MILEAGE: said(1)})
    await settled(desk)
    desk.intake.take(["acc_1"], I4, {MILEAGE: later(2, 1)})
    clock.advance(0.05)
    await settled(desk)
    assert await desk.stored() == {MILEAGE: 2}


async def test_a_successor_stores_what_a_killed_worker_had_kept(
    documents: Documents, clock: ManualClock, shared: MemoryShared, keys: AccountKeys
) -> None:
    killed = Desk(documents, clock, Journal(shared, keys), LONG_S)
    killed.intake.take(["acc_1"], I4, {"first": said(1)})
    await settled(killed)
    killed.intake.take(["acc_1"], I4, {MILEAGE: said(2)})
    await until(lambda: killed.messages("kept") == 2)

    heir = Desk(documents, clock, Journal(shared, keys), None)
    heir.intake.expect("acc_1")
    assert heir.intake.unsaved == 1
    await until(lambda: heir.intake.unsaved == 0)
    await until(lambda: heir.told == ["acc_1"])
    assert await heir.stored() == {"first": 1, MILEAGE: 2}
    assert heir.messages("received") == heir.messages("stored") == 0


class AwayAtFirst(MemoryShared):
    """A shared store that fails the first so many reads, as one does that is being restarted."""

    fails = 0

    async def get_many(self, keys: object) -> list[bytes | None]:
        if self.fails:
            self.fails -= 1
            raise SharedUnavailable("away")
        return await super().get_many(keys)  # type: ignore[arg-type]  # handed on as it came


async def test_nothing_is_written_over_what_could_not_be_read_yet(
    documents: Documents, clock: ManualClock, keys: AccountKeys
) -> None:
    shared = AwayAtFirst(clock)
    await Journal(shared, keys).keep("acc_1", {I4: {"left": said(1)}})
    shared.fails = 2
    heir = Desk(documents, clock, Journal(shared, keys), LONG_S)
    heir.intake.expect("acc_1")
    await until(lambda: shared.fails == 1)
    heir.intake.take(["acc_1"], I4, {MILEAGE: said(2)})
    await until(lambda: shared.fails == 0)
    heir.intake.take(["acc_1"], I4, {MILEAGE: later(3, 1)})
    await until(lambda: heir.messages("kept") == 2)
    assert await heir.intake.drain(within_s=5)
    assert await heir.stored() == {"left": 1, MILEAGE: 3}


async def test_while_the_journal_is_away_the_document_store_is_written_at_once(
    documents: Documents, clock: ManualClock, shared: MemoryShared, keys: AccountKeys
) -> None:
    desk = Desk(documents, clock, Journal(shared, keys), LONG_S)
    desk.intake.take(["acc_1"], I4, {MILEAGE: said(1)})
    await settled(desk)
    await shared.aclose()
    desk.intake.take(["acc_1"], I4, {MILEAGE: later(2, 1)})
    await settled(desk)
    assert await desk.stored() == {MILEAGE: 2}


async def test_what_is_in_the_journal_is_sealed(clock: ManualClock, shared: MemoryShared, keys: AccountKeys) -> None:
    await Journal(shared, keys).keep("acc_1", {I4: {d.LATITUDE: said(48.1)}})
    (kept,) = shared._kept.values()
    assert I4.encode() not in kept.data
    assert b"48.1" not in kept.data


async def test_a_journal_that_nobody_can_open_holds_nothing(shared: MemoryShared, keys: AccountKeys) -> None:
    journal = Journal(shared, keys)
    await journal.keep("acc_1", {I4: {MILEAGE: said(1)}})
    await keys.shred("acc_1")
    assert await journal.recover("acc_1") == {}
    with pytest.raises(KeyGone):
        await journal.keep("acc_1", {I4: {MILEAGE: said(1)}})


async def test_a_store_that_is_away_for_a_while_loses_nothing(documents: Documents, clock: ManualClock) -> None:
    desk = Desk(documents, clock, None, None)
    is_away = True

    async def tap(when: When, operation: str, _key: str) -> None:
        if is_away and when is When.BEFORE and operation == "get":
            raise StoreUnavailable

    desk.documents.tap = tap
    for number, wait_s in enumerate((1.0, 2.0, 4.0)):
        desk.intake.take(["acc_1"], I4, {f"s{number}": said(number)})
        await sleeps(desk, wait_s)
        clock.advance(wait_s)
        desk.sleepers.wake()
    is_away = False
    await until(lambda: desk.sleepers.waits_s() == [8] or desk.intake.unsaved == 0)
    clock.advance(8)
    desk.sleepers.wake()
    await settled(desk)
    assert await desk.stored() == {"s0": 0, "s1": 1, "s2": 2}
    assert len(desk.reported.events("stream_store_failed")) >= 3


async def test_of_two_cars_the_one_that_was_stored_before_the_failure_is_not_written_again(
    documents: Documents, clock: ManualClock
) -> None:
    desk = Desk(documents, clock, None, None)
    reads = 0

    async def tap(when: When, operation: str, _key: str) -> None:
        nonlocal reads
        reads += when is When.BEFORE and operation == "get"
        if when is When.BEFORE and operation == "get" and reads == 2:
            raise StoreUnavailable

    desk.documents.tap = tap
    desk.intake.take(["acc_1"], I4, {MILEAGE: said(1)})
    desk.intake.take(["acc_1"], X1, {MILEAGE: said(2)})
    await sleeps(desk, 1.0)
    assert desk.intake.unsaved == 1
    clock.advance(1)
    desk.sleepers.wake()
    await settled(desk)
    assert await desk.stored(X1) == {MILEAGE: 2}
    assert await desk.stored() == {MILEAGE: 1}
    assert (reads, desk.writes()) == (3, 2)


async def test_halves_of_a_position_that_arrive_in_different_writes_are_paired_by_measurement(
    documents: Documents, clock: ManualClock
) -> None:
    desk = Desk(documents, clock, None, LONG_S)
    first, second = NOON, NOON + timedelta(seconds=30)
    desk.intake.take(["acc_1"], I4, {d.LATITUDE: said(48.1, at=first, received_at=first)})
    await settled(desk)
    # In one batch: the other half of the first position, and already the first half of the next.
    desk.intake.take(["acc_1"], I4, {d.LONGITUDE: said(11.1, at=first, received_at=first)})
    desk.intake.take(["acc_1"], I4, {d.LATITUDE: said(48.2, at=second, received_at=second)})
    assert await desk.intake.drain(within_s=5)
    stored = await DocumentSignals(documents).load("acc_1", I4)
    assert stored[d.POSITION].value == [48.1, 11.1]
    assert stored[d.POSITION].measured_at == first


async def test_draining_stores_now_what_would_have_waited(documents: Documents, clock: ManualClock) -> None:
    desk = Desk(documents, clock, None, LONG_S)
    for number in range(3):
        desk.intake.take(["acc_1", "acc_2"], I4, {MILEAGE: later(number, number)})
        if number == 0:
            await settled(desk)
    assert await desk.intake.drain(["acc_1", "acc_unheard_of"], within_s=5)
    assert await desk.stored() == {MILEAGE: 2}
    assert await desk.stored(account_id="acc_2") == {MILEAGE: 0}
    assert await desk.intake.drain(within_s=5)
    assert await desk.stored(account_id="acc_2") == {MILEAGE: 2}
    assert await desk.intake.drain(within_s=5)


async def test_draining_into_a_store_that_is_away_says_so(documents: Documents, clock: ManualClock) -> None:
    desk = Desk(documents, clock, None, None)

    async def tap(_when: When, _operation: str, _key: str) -> None:
        raise StoreUnavailable

    desk.documents.tap = tap
    desk.intake.take(["acc_1"], I4, {MILEAGE: said(1)})
    assert not await desk.intake.drain(within_s=0.01)
    assert desk.intake.unsaved == 1
    desk.intake.forget("acc_1")


async def test_of_an_account_that_was_unlinked_nothing_comes_back(
    documents: Documents, clock: ManualClock, shared: MemoryShared, keys: AccountKeys
) -> None:
    desk = Desk(documents, clock, Journal(shared, keys), LONG_S)
    desk.intake.take(["acc_1"], I4, {MILEAGE: said(1)})
    await settled(desk)
    for key in await documents.list("signals/acc_1"):
        await documents.delete(key)
    await keys.shred("acc_1")
    desk.intake.take(["acc_1"], I4, {MILEAGE: later(2, 1)})
    await until(lambda: desk.intake.unsaved == 0)
    assert await desk.stored() == {}
    # And where the service has said so, what waits is dropped, too.
    desk = Desk(documents, clock, None, LONG_S)
    desk.intake.take(["acc_2"], I4, {MILEAGE: said(1)})
    desk.intake.forget("acc_2")
    desk.intake.forget("acc_2")
    assert await desk.intake.drain(within_s=1)
    assert await desk.stored(account_id="acc_2") == {}


async def test_a_car_that_says_more_than_a_document_holds_does_not_keep_the_others_waiting(
    documents: Documents, clock: ManualClock
) -> None:
    desk = Desk(documents, clock, None, None)
    desk.intake.take(["acc_1"], I4, {f"s{number}": said("x" * 20_000) for number in range(60)})
    desk.intake.take(["acc_1"], X1, {MILEAGE: said(1)})
    await settled(desk)
    assert await desk.stored() == {}
    assert await desk.stored(X1) == {MILEAGE: 1}
    assert len(desk.reported.events("stream_store_failed")) == 1
