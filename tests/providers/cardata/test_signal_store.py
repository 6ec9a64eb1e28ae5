"""The latest signals of a car, written by several at once and lost by none."""

import asyncio
from datetime import timedelta

from common.stores.documents import Documents
from functions.providers.cardata.names import vin_digest
from functions.providers.cardata.signal_store import DocumentSignals, StreamWatch
from tests.providers.cardata.harness import I4, NOON, X1, said


async def test_what_is_known_grows_by_what_is_newer(documents: Documents) -> None:
    store = DocumentSignals(documents)
    assert await store.load("acc_1", I4) == {}

    first = await store.upsert("acc_1", I4, {"a": said(1), "b": said(2)})
    second = await store.upsert("acc_1", I4, {"a": said(3, at=NOON - timedelta(seconds=1)), "c": said(4)})

    assert first == {"a": said(1), "b": said(2)}
    assert second == {"a": said(1), "b": said(2), "c": said(4)} == await store.load("acc_1", I4)
    assert await store.load("acc_1", X1) == await store.load("acc_2", I4) == {}


async def test_what_brings_nothing_new_writes_nothing(documents: Documents) -> None:
    store = DocumentSignals(documents)
    await store.upsert("acc_1", I4, {"a": said(1)})
    before = await documents.get(f"signals/acc_1/{vin_digest('acc_1', I4)}")

    await store.upsert("acc_1", I4, {"a": said(1)})

    after = await documents.get(f"signals/acc_1/{vin_digest('acc_1', I4)}")
    assert before is not None
    assert after is not None
    assert after.version == before.version


async def test_writers_at_once_lose_nothing(documents: Documents) -> None:
    stores = [DocumentSignals(documents) for _ in range(6)]

    await asyncio.gather(*[store.upsert("acc_1", I4, {str(n): said(n)}) for n, store in enumerate(stores)])

    assert await stores[0].load("acc_1", I4) == {str(n): said(n) for n in range(6)}


async def test_the_streams_sign_of_life(documents: Documents) -> None:
    watch = StreamWatch(documents)
    assert await watch.until("acc_1") is None

    await asyncio.gather(*[watch.beat("acc_1", NOON) for _ in range(3)])
    await watch.beat("acc_1", NOON + timedelta(seconds=60))

    assert await watch.until("acc_1") == NOON + timedelta(seconds=60)
    assert await watch.until("acc_2") is None
