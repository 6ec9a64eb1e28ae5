"""What is particular to documents in a bucket: lost replies, refusals and silence.

The emulator ignores the precondition of a delete, so a refused delete is shown by a proxy that answers 412 itself;
that the real service refuses it is not shown here.
"""

import asyncio
import json
import random
import socket
import time
import urllib.request
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from common.errors import StoreUnavailable
from common.stores.documents import DocumentExists, VersionConflict
from common.stores.gcs import GcsDocuments, _translated
from common.stores.lineage import LINEAGE_LENGTH
from tests.common.stores.contenders import Address, compete
from tests.support.fake_gcs import FakeGcs
from tests.support.flaky_proxy import (
    HANG,
    HANG_AFTER,
    LOST_REPLY,
    RESET,
    Fault,
    FlakyProxy,
    first,
    flaky_proxy,
)

COMMITTED_THEN_503 = Fault(forward=True, status=503)
BEFORE = [RESET, HANG, *(Fault(forward=False, status=status) for status in (408, 429, 500, 502, 503, 504))]
AFTER = [LOST_REPLY, HANG_AFTER, COMMITTED_THEN_503]


def name_of(fault: Fault) -> str:
    what = "hang" if fault.hang else str(fault.status or "reset")
    return f"{what} {'after' if fault.forward else 'before'}"


every_fault = pytest.mark.parametrize("fault", BEFORE + AFTER, ids=name_of)
every_fault_and_series = pytest.mark.parametrize(
    "faults",
    [[fault] for fault in BEFORE + AFTER]
    + [[LOST_REPLY] * 5, [COMMITTED_THEN_503] * 3, [Fault(forward=False, status=429), LOST_REPLY, RESET, LOST_REPLY]],
    ids=lambda faults: ", ".join(map(name_of, faults)),
)


class Pauses(list[float]):
    """A sleep that takes no time and keeps account."""

    async def __call__(self, seconds: float) -> None:
        self.append(seconds)


class Bucket:
    """A bucket, with a store that reaches it directly and others that do so through failing proxies."""

    def __init__(self, server: FakeGcs) -> None:
        self.server = server
        self.name = server.new_bucket()
        self.pauses = Pauses()
        self.direct = self.store(server.url)

    def store(self, endpoint: str, *, call_timeout_s: float = 4, deadline_s: float = 20) -> GcsDocuments:
        return GcsDocuments(
            self.name, endpoint=endpoint, call_timeout_s=call_timeout_s, deadline_s=deadline_s, sleep=self.pauses
        )

    @asynccontextmanager
    async def failing(self, *faults: Fault, method: str) -> AsyncIterator[tuple[GcsDocuments, FlakyProxy]]:
        """A store whose first requests with ``method`` meet ``faults``."""
        patience_s = 0.25 if any(fault.hang for fault in faults) else 4
        async with flaky_proxy(self.server.url, first(*faults, method=method)) as proxy:
            store = self.store(proxy.url, call_timeout_s=patience_s)
            yield store, proxy
            await store.aclose()

    def generation(self, key: str) -> int:
        """The object's generation, asked of the server itself."""
        url = f"{self.server.url}/storage/v1/b/{self.name}/o/{key.replace('/', '%2F')}"
        with urllib.request.urlopen(url, timeout=5) as reply:  # noqa: S310 - our own http:// server
            return int(json.load(reply)["generation"])

    def put(self, key: str, data: bytes) -> None:
        """Write an object by other means."""
        url = f"{self.server.url}/upload/storage/v1/b/{self.name}/o?uploadType=media&name={key.replace('/', '%2F')}"
        request = urllib.request.Request(url, data=data)  # noqa: S310 - our own http:// server
        urllib.request.urlopen(request, timeout=5).close()  # noqa: S310 - our own http:// server


@pytest.fixture
async def bucket(fake_gcs: FakeGcs) -> AsyncIterator[Bucket]:
    found = Bucket(fake_gcs)
    yield found
    await found.direct.aclose()


@every_fault_and_series
async def test_a_create_succeeds_once_whatever_becomes_of_its_first_attempts(
    bucket: Bucket, faults: list[Fault]
) -> None:
    async with bucket.failing(*faults, method="POST") as (store, proxy):
        created = await store.create("links/1", {"n": 1})
        assert proxy.count("POST") == len(faults) + 1
    assert len(bucket.pauses) == len(faults)
    assert await bucket.direct.get("links/1") == created
    assert created.body == {"n": 1}


@every_fault_and_series
async def test_a_replace_succeeds_once_whatever_becomes_of_its_first_attempts(
    bucket: Bucket, faults: list[Fault]
) -> None:
    before = await bucket.direct.create("links/1", {"n": 1})
    async with bucket.failing(*faults, method="POST") as (store, proxy):
        replaced = await store.replace(before, {"n": 2})
        assert proxy.count("POST") == len(faults) + 1
        assert replaced.lineage == (replaced.lineage[0], before.lineage[0])  # one write, not two
        again = await store.replace(replaced, {"n": 3})
    assert await bucket.direct.get("links/1") == again
    assert str(bucket.generation("links/1")) == again.version


@every_fault
async def test_a_read_succeeds_after_failures(bucket: Bucket, fault: Fault) -> None:
    created = await bucket.direct.create("links/1", {"n": 1})
    async with bucket.failing(fault, fault, method="GET") as (store, _):
        assert await store.get("links/1") == created
    async with bucket.failing(fault, method="GET") as (store, _):
        assert await store.list("links") == ["links/1"]


@every_fault
@pytest.mark.parametrize("by_version", [False, True])
async def test_a_delete_succeeds_after_failures(bucket: Bucket, fault: Fault, by_version: bool) -> None:
    created = await bucket.direct.create("links/1", {"n": 1})
    async with bucket.failing(fault, method="DELETE") as (store, _):
        assert await store.delete("links/1", created.version if by_version else None) is True
    assert await bucket.direct.get("links/1") is None


@pytest.mark.parametrize("fault", BEFORE, ids=name_of)
async def test_who_was_beaten_during_failures_is_told_so(bucket: Bucket, fault: Fault) -> None:
    before = await bucket.direct.create("links/1", {"n": 1})
    theirs = await bucket.direct.replace(before, {"n": 2})
    async with bucket.failing(fault, method="POST") as (store, _):
        with pytest.raises(VersionConflict):
            await store.replace(before, {"n": 3})
    async with bucket.failing(fault, method="POST") as (store, _):
        with pytest.raises(DocumentExists):
            await store.create("links/1", {"n": 3})
    assert await bucket.direct.get("links/1") == theirs


class Meanwhile:
    """A plan: lose the reply of the first upload, and let others write before the next one comes."""

    def __init__(self, bucket: Bucket, writes: int, *, then_delete: bool = False) -> None:
        self._bucket = bucket
        self._writes = writes
        self._then_delete = then_delete
        self._uploads = 0

    def __call__(self, method: str, _target: str) -> Fault | None:
        if method != "POST":
            return None
        self._uploads += 1
        return LOST_REPLY if self._uploads == 1 else None

    async def pause(self, _seconds: float) -> None:
        """Stands for the pause between the two attempts."""
        for number in range(self._writes):
            current = await self._bucket.direct.get("links/1")
            assert current is not None
            await self._bucket.direct.replace(current, current.body | {"other": number})
        if self._then_delete:
            await self._bucket.direct.delete("links/1")


@asynccontextmanager
async def interrupted(bucket: Bucket, meanwhile: Meanwhile) -> AsyncIterator[GcsDocuments]:
    async with flaky_proxy(bucket.server.url, meanwhile) as proxy:
        store = GcsDocuments(bucket.name, endpoint=proxy.url, sleep=meanwhile.pause)
        yield store
        await store.aclose()


@pytest.mark.parametrize("writes", [1, LINEAGE_LENGTH - 1])
async def test_a_write_on_which_others_have_built_was_done_and_is_not_done_again(bucket: Bucket, writes: int) -> None:
    async with interrupted(bucket, Meanwhile(bucket, writes)) as store:
        ours = await store.create("links/1", {"mine": 1})
        assert ours.body == {"mine": 1}
        current = await bucket.direct.get("links/1")
        assert current is not None
        assert current.body == {"mine": 1, "other": writes - 1}
        assert current.lineage[-1].partition(":")[0] == ours.version  # what they built on
        with pytest.raises(VersionConflict):
            await store.replace(ours, {"mine": 2})


async def test_a_replacement_on_which_others_have_built_was_done(bucket: Bucket) -> None:
    before = await bucket.direct.create("links/1", {})
    async with interrupted(bucket, Meanwhile(bucket, 2)) as store:
        assert (await store.replace(before, {"mine": 1})).body == {"mine": 1}
    current = await bucket.direct.get("links/1")
    assert current is not None
    assert current.body == {"mine": 1, "other": 1}


async def test_a_write_too_many_versions_ago_is_not_called_a_defeat(bucket: Bucket) -> None:
    before = await bucket.direct.create("links/1", {})
    async with interrupted(bucket, Meanwhile(bucket, LINEAGE_LENGTH)) as store:
        with pytest.raises(StoreUnavailable):
            await store.replace(before, {"mine": 1})


async def test_a_very_old_version_is_a_plain_conflict(bucket: Bucket) -> None:
    first_version = await bucket.direct.create("links/1", {})
    document = first_version
    for number in range(LINEAGE_LENGTH + 1):
        document = await bucket.direct.replace(document, {"n": number})
    with pytest.raises(VersionConflict):
        await bucket.direct.replace(first_version, {"n": -1})


async def test_a_document_deleted_meanwhile_stays_deleted(bucket: Bucket) -> None:
    before = await bucket.direct.create("links/1", {})
    async with interrupted(bucket, Meanwhile(bucket, 0, then_delete=True)) as store:
        with pytest.raises(VersionConflict):
            await store.replace(before, {"mine": 1})
    assert await bucket.direct.get("links/1") is None


async def test_no_increment_is_lost_or_doubled_while_replies_are_lost_and_processes_compete(bucket: Bucket) -> None:
    chance = random.Random(20)
    left: dict[str, int] = defaultdict(lambda: 2)  # of each version: fewer faults than there are attempts
    faults = [LOST_REPLY, COMMITTED_THEN_503, RESET, Fault(forward=False, status=429), Fault(forward=False, status=503)]
    await bucket.direct.create("counters/one", {"count": 0})
    injected: list[Fault] = []

    def sometimes(method: str, target: str) -> Fault | None:
        if method != "POST" or left[target] == 0 or chance.random() > 0.3:
            return None
        left[target] -= 1
        injected.append(chance.choice(faults))
        return injected[-1]

    async with flaky_proxy(bucket.server.url, sometimes) as proxy:
        await compete(Address(f"gs://{bucket.name}", proxy.url), 2, "2", "count", "20")
    counter = await bucket.direct.get("counters/one")
    assert counter is not None
    assert counter.body == {"count": 80}
    assert sum(fault.forward for fault in injected) > 10


@pytest.mark.parametrize("status", [400, 401, 403, 411])
async def test_a_refusal_is_unavailable_at_once(bucket: Bucket, status: int) -> None:
    refusal = Fault(forward=False, status=status)
    async with bucket.failing(refusal, method="POST") as (store, proxy):
        with pytest.raises(StoreUnavailable):
            await store.create("links/1", {})
        assert len(proxy.seen) == 1
    async with bucket.failing(refusal, method="GET") as (store, proxy):
        with pytest.raises(StoreUnavailable):
            await store.get("links/1")
        assert len(proxy.seen) == 1


async def test_a_service_that_keeps_failing_is_unavailable_after_a_few_attempts(bucket: Bucket) -> None:
    async with bucket.failing(*[Fault(forward=False, status=503)] * 9, method="POST") as (store, proxy):
        with pytest.raises(StoreUnavailable):
            await store.create("links/1", {})
        assert proxy.count("POST") == 6
    assert len(bucket.pauses) == 5
    assert all(0 <= pause <= 2 for pause in bucket.pauses)


async def test_a_ping_asks_once(bucket: Bucket) -> None:
    async with bucket.failing(RESET, method="GET") as (store, proxy):
        with pytest.raises(StoreUnavailable):
            await store.ping()
        assert len(proxy.seen) == 1
        await store.ping()


async def test_a_silent_service_is_unavailable_by_the_deadline(bucket: Bucket) -> None:
    async with flaky_proxy(bucket.server.url, lambda _method, _target: HANG) as proxy:
        store = bucket.store(proxy.url, call_timeout_s=0.4, deadline_s=0.5)
        begun = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await store.get("links/1")
        assert 0.4 < time.monotonic() - begun < 2
        await store.aclose()


async def test_a_closed_port_is_unavailable_quickly(bucket: Bucket) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # not listening
        store = bucket.store(f"http://127.0.0.1:{reserved.getsockname()[1]}")
        begun = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await store.get("links/1")
        assert time.monotonic() - begun < 2
        await store.aclose()


async def test_a_bucket_that_does_not_exist_is_unavailable(bucket: Bucket) -> None:
    store = GcsDocuments("no-such-bucket", endpoint=bucket.server.url)
    with pytest.raises(StoreUnavailable):
        await store.create("links/1", {})
    with pytest.raises(StoreUnavailable):
        await store.ping()
    await store.aclose()


async def test_without_credentials_the_store_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "no-such-file.json")
    store = GcsDocuments("no-such-bucket")
    with pytest.raises(StoreUnavailable):
        await store.get("links/1")
    await store.aclose()


async def test_an_object_of_somebody_else_is_unavailable(bucket: Bucket) -> None:
    bucket.put("links/1", b"planted")
    with pytest.raises(StoreUnavailable) as caught:
        await bucket.direct.get("links/1")
    assert "planted" not in str(caught.value)


async def test_a_stale_version_is_not_deleted(bucket: Bucket) -> None:
    await bucket.direct.create("links/1", {})
    async with bucket.failing(Fault(forward=False, status=412), method="DELETE") as (store, proxy):
        with pytest.raises(VersionConflict):
            await store.delete("links/1", "1")
        assert "ifGenerationMatch=1&" in proxy.seen[0][1] + "&"


async def test_a_delete_without_a_version_takes_the_next_one_where_the_first_was_replaced(bucket: Bucket) -> None:
    created = await bucket.direct.create("links/1", {})
    async with bucket.failing(Fault(forward=False, status=412), method="DELETE") as (store, proxy):
        assert await store.delete("links/1") is True
        assert [method for method, _ in proxy.seen] == ["GET", "DELETE", "GET", "DELETE"]
        assert f"ifGenerationMatch={created.version}" in proxy.seen[1][1]
    assert await bucket.direct.get("links/1") is None


async def test_no_failure_tells_what_was_to_be_written(bucket: Bucket) -> None:
    for fault in (LOST_REPLY, Fault(forward=False, status=403), Fault(forward=False, status=503)):
        async with bucket.failing(*[fault] * 6, method="POST") as (store, _):
            with pytest.raises(StoreUnavailable) as caught:
                await store.create("links/1", {"token": "planted"})
            error: BaseException | None = caught.value
            while error is not None:
                assert "planted" not in f"{error} {error!r}"
                error = error.__cause__ or error.__context__


def test_a_defect_of_ours_is_not_taken_for_an_outage() -> None:
    with pytest.raises(ZeroDivisionError):
        _translated(lambda: 1 // 0)


async def test_more_operations_than_threads_all_end(bucket: Bucket) -> None:
    await asyncio.gather(*(bucket.direct.create(f"links/{number}", {}) for number in range(50)))
    assert len(await bucket.direct.list("links")) == 50
