"""Callers by API key: who is let in, for how long after the store has changed its mind, and nobody else."""

import asyncio
import hashlib
import threading
import zlib
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from common.api_keys import REFUSAL, TTL_S, UNKNOWN_TTL_S, ApiKey, ApiKeyCallers, KeyRecord, KeyState, document_key
from common.callers import Caller, Scope
from common.clock import ManualClock
from common.errors import CallerUnauthenticated, StoreUnavailable
from common.failure_memory import MAX_FAILURES
from common.loops import LoopThread
from common.redact import redact
from common.stores.documents import Documents, open_documents
from tests.support.tapped_documents import TappedDocuments, When, failing

START = ManualClock().utc()
INSTANT = timedelta(microseconds=1)


def record_of(key: ApiKey) -> KeyRecord:
    scopes = frozenset({Scope.READ, Scope.LOCATION})
    return KeyRecord(key.id, "a dashboard", f"key|{key.id}", scopes, key.hash, created_at=START)


def contents(directory: Path) -> bytes:
    return b"".join(file.read_bytes() for file in directory.iterdir())


@dataclass
class Keys:
    """A store of keys, and an instance that asks it."""

    documents: TappedDocuments
    clock: ManualClock
    callers: ApiKeyCallers

    async def add(self, **fields: Any) -> ApiKey:
        key = ApiKey.generate()
        await self.documents.create(document_key(key.id), replace(record_of(key), **fields).to_body())
        self.documents.seen.clear()
        return key

    async def change(self, key: ApiKey, **fields: Any) -> None:
        """As another instance or an operator would."""
        document = await self.documents.inner.get(document_key(key.id))
        assert document is not None
        await self.documents.inner.replace(document, {**document.body, **fields})

    async def identify(self, text: str) -> Caller:
        return await self.callers.identify({"x-api-key": text})

    async def refuses(self, text: str) -> bool:
        try:
            await self.identify(text)
        except CallerUnauthenticated:
            return True
        return False

    def looked_up(self, key: ApiKey) -> int:
        return self.documents.seen.count(f"get apikeys/{key.id}")


@pytest.fixture
async def keys(tmp_path: Path) -> AsyncIterator[Keys]:
    documents = TappedDocuments(open_documents(f"sqlite:///{tmp_path}/documents.db"))
    clock = ManualClock()
    yield Keys(documents, clock, ApiKeyCallers(documents, clock))
    await documents.aclose()


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    thread = LoopThread("test-loop")
    yield thread
    thread.close()


# --- the text of a key ----------------------------------------------------------------------------------------------


def test_a_key_is_an_id_a_secret_and_a_checksum() -> None:
    key_id, secret = "0123456789abcdefghijAB", "abcdefghijklmnopqrstuvwxyzABCDEFGHIJ-_01234"
    body = f"draiv_{key_id}_{secret}"
    text = f"{body}{zlib.crc32(body.encode()):08x}"
    assert ApiKey(key_id, secret).text == text
    assert ApiKey.parse(text) == ApiKey(key_id, secret)


def test_every_new_key_can_be_read_and_none_is_like_another() -> None:
    made = [ApiKey.generate() for _ in range(1000)]
    assert [ApiKey.parse(key.text) for key in made] == made
    assert len({key.id for key in made}) == len({key.secret for key in made}) == 1000
    assert {len(key.text) for key in made} == {80}


def test_nothing_that_shows_a_key_shows_its_secret() -> None:
    key = ApiKey.generate()
    shown = repr(key) + repr(record_of(key))
    assert key.secret not in shown
    assert repr(key.hash) not in shown


def test_a_key_in_a_log_line_is_masked() -> None:
    for key in [ApiKey.generate() for _ in range(300)]:
        for line in (f"refused {key.text} today", f'{{"message": "got {key.text}"}}', f"X-API-Key: {key.text}"):
            masked = redact(line)
            assert not any(key.secret[at : at + 8] in masked for at in range(36)), masked


# --- who is let in --------------------------------------------------------------------------------------------------


async def test_a_key_stands_for_its_principal_and_scopes(keys: Keys) -> None:
    key = await keys.add(principal="key|0123456789abcdefghijAB")
    expected = Caller("key|0123456789abcdefghijAB", frozenset({Scope.READ, Scope.LOCATION}))
    assert await keys.identify(key.text) == expected


async def test_the_store_holds_a_hash_and_nothing_else_of_the_secret(keys: Keys, tmp_path: Path) -> None:
    key = await keys.add()
    document = await keys.documents.get(document_key(key.id))
    assert document is not None
    assert document.body["hash"] == hashlib.sha256(key.secret.encode()).hexdigest()
    files = contents(tmp_path)
    assert key.id.encode() in files
    assert key.secret.encode() not in files


@pytest.mark.parametrize("why", ["unknown", "wrong secret", "expired", "revoked", "both", "no header", "garbage"])
async def test_every_refusal_is_the_same(keys: Keys, why: str) -> None:
    expired, revoked = {"expires_at": START}, {"revoked_at": START}
    fields = {"expired": expired, "revoked": revoked, "both": expired | revoked}.get(why, {})
    text = (await keys.add(**fields)).text
    if why == "unknown":
        text = ApiKey.generate().text
    elif why == "wrong secret":
        text = replace(ApiKey.generate(), id=text[6:28]).text
    headers = {"no header": {}, "garbage": {"x-api-key": "garbage"}}.get(why, {"x-api-key": text})
    for _ in ("asked of the store", "remembered"):
        with pytest.raises(CallerUnauthenticated) as refused:
            await keys.callers.identify(headers)
        assert (refused.value.message, refused.value.details, refused.value.retry_after_s) == (REFUSAL, {}, None)
        assert refused.value.__cause__ is None


async def test_what_is_no_key_is_refused_without_asking_the_store(keys: Keys) -> None:
    key = await keys.add()
    text = key.text
    last = "1" if text[-1] == "0" else "0"
    for garbage in (
        *("", " ", "draiv_", "x" * 80, "draiv_" + "x" * 74, "\x00" * 80, "é" * 80, "draiv_" * 100_000),
        *(f"{text},{text}", f"{text}, {text}", f"{text}\n", f" {text}", f"{text} ", f"Bearer {text}"),
        *(text[:-1], text[1:], text[:-1] + last, text.upper(), text.lower(), text.replace("draiv", "DRAIV")),
        text[:-8] + text[-8:].upper().replace("0", "O"),
        f"draiv_{key.id}_{ApiKey.generate().secret}{text[-8:]}",
    ):
        assert await keys.refuses(garbage), garbage
    assert keys.documents.seen == []


async def test_a_scope_from_a_later_version_gives_nothing(keys: Keys) -> None:
    key = await keys.add()
    await keys.change(key, scopes=["read", "fleet"])
    assert (await keys.identify(key.text)).scopes == {Scope.READ}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((name, None) for name in ("hash", "created_at", "scopes")),
        *((name, "soon") for name in ("hash", "created_at", "expires_at", "revoked_at")),
        *((name, 7) for name in ("hash", "created_at", "expires_at", "revoked_at", "scopes")),
    ],
)
async def test_a_document_with_a_field_that_cannot_be_read_is_a_fault_of_the_store(
    keys: Keys, field: str, value: object
) -> None:
    key = await keys.add()
    await keys.change(key, **{field: value})
    with pytest.raises(StoreUnavailable):
        await keys.identify(key.text)


@pytest.mark.parametrize("stored", ["", "00", hashlib.sha256(b"").hexdigest()])
async def test_a_hash_that_is_not_the_secrets_lets_nobody_in(keys: Keys, stored: str) -> None:
    key = await keys.add()
    await keys.change(key, hash=stored)
    assert await keys.refuses(key.text)


async def test_scopes_that_are_no_list_give_nothing(keys: Keys) -> None:
    key = await keys.add()
    await keys.change(key, scopes="read,command")
    assert (await keys.identify(key.text)).scopes == frozenset()


@pytest.mark.parametrize("field", list(record_of(ApiKey.generate()).to_body()))
async def test_a_document_that_lacks_a_field_is_a_fault_of_the_store(keys: Keys, field: str) -> None:
    key = ApiKey.generate()
    body = record_of(key).to_body()
    del body[field]
    await keys.documents.create(document_key(key.id), body)
    with pytest.raises(StoreUnavailable):
        await keys.identify(key.text)


# --- time -----------------------------------------------------------------------------------------------------------


async def test_a_revocation_by_somebody_else_is_in_force_after_thirty_seconds(keys: Keys) -> None:
    key = await keys.add()
    await keys.identify(key.text)
    await keys.change(key, revoked_at=START.isoformat())
    keys.clock.advance(TTL_S - 0.001)
    await keys.identify(key.text)
    keys.clock.advance(0.001)
    assert await keys.refuses(key.text)
    assert TTL_S == 30


async def test_a_slow_answer_of_the_store_does_not_put_a_revocation_off(keys: Keys) -> None:
    async def slow(when: When, operation: str, _key: str) -> None:
        if operation == "get" and when is When.AFTER:
            keys.clock.advance(20)

    key = await keys.add()
    keys.documents.tap = slow
    await keys.identify(key.text)  # read at 0, heard of at 20
    await keys.change(key, revoked_at=START.isoformat())
    keys.clock.advance(9.999)
    await keys.identify(key.text)
    keys.clock.advance(0.001)
    assert await keys.refuses(key.text)


async def test_a_key_ends_at_its_moment_although_it_is_remembered(keys: Keys) -> None:
    key = await keys.add(expires_at=START + timedelta(seconds=10))
    keys.clock.wall = START + timedelta(seconds=10) - INSTANT
    await keys.identify(key.text)
    keys.clock.wall = START + timedelta(seconds=10)
    assert await keys.refuses(key.text)
    assert keys.looked_up(key) == 1


async def test_an_end_that_is_moved_nearer_is_heard_of_after_thirty_seconds(keys: Keys) -> None:
    key = await keys.add(expires_at=START + timedelta(days=90))
    await keys.identify(key.text)
    await keys.change(key, expires_at=START.isoformat())
    keys.clock.advance(TTL_S)
    assert await keys.refuses(key.text)


@pytest.mark.parametrize(
    ("fields", "before", "after"),
    [
        ({}, KeyState.ACTIVE, KeyState.ACTIVE),
        ({"expires_at": START}, KeyState.ACTIVE, KeyState.EXPIRED),
        ({"expires_at": START, "replaced_by": "b"}, KeyState.REPLACED, KeyState.EXPIRED),
        ({"replaced_by": "b"}, KeyState.REPLACED, KeyState.REPLACED),
        ({"expires_at": START, "replaced_by": "b", "revoked_at": START}, KeyState.REVOKED, KeyState.REVOKED),
    ],
)
def test_only_active_and_replaced_keys_are_admitted(fields: dict[str, Any], before: KeyState, after: KeyState) -> None:
    key = ApiKey.generate()
    record = replace(record_of(key), **fields)
    assert (record.state(START - INSTANT), record.state(START)) == (before, after)
    for now in (START - INSTANT, START):
        assert record.admits(key, now) is (record.state(now) in {KeyState.ACTIVE, KeyState.REPLACED})
        assert record.admits(ApiKey.generate(), now) is False


def test_what_is_stored_is_what_was_kept() -> None:
    key = ApiKey.generate()
    for record in (
        record_of(key),
        replace(record_of(key), scopes=frozenset(Scope), expires_at=START, revoked_at=START, replaced_by="b"),
    ):
        assert KeyRecord.from_body(key.id, record.to_body()) == record


def test_times_of_another_zone_are_the_same_times() -> None:
    body = record_of(ApiKey.generate()).to_body() | {"expires_at": "2026-01-01T02:00:00+02:00"}
    assert KeyRecord.from_body("a", body).expires_at == datetime(2026, 1, 1, tzinfo=UTC)


# --- how often the store is asked -----------------------------------------------------------------------------------


async def test_a_known_key_is_looked_up_once_in_thirty_seconds(keys: Keys) -> None:
    key = await keys.add()
    wrong = replace(ApiKey.generate(), id=key.id)
    for _ in range(30):
        await keys.identify(key.text)
        assert await keys.refuses(wrong.text)
        keys.clock.advance(0.999)
    assert keys.looked_up(key) == 1
    keys.clock.advance(0.1)
    await keys.identify(key.text)
    assert keys.looked_up(key) == 2


async def test_an_unknown_id_is_looked_up_once_in_ten_seconds(keys: Keys) -> None:
    unknown = ApiKey.generate()
    for _ in range(10):
        assert await keys.refuses(unknown.text)
        assert await keys.refuses(replace(ApiKey.generate(), id=unknown.id).text)
        keys.clock.advance(0.999)
    assert keys.looked_up(unknown) == 1
    keys.clock.advance(UNKNOWN_TTL_S - 9.99)
    assert await keys.refuses(unknown.text)
    assert keys.looked_up(unknown) == 2


async def test_any_number_of_unknown_ids_takes_no_more_memory_and_pushes_no_key_out(keys: Keys) -> None:
    key = await keys.add()
    await keys.identify(key.text)
    first, *others = [ApiKey.generate() for _ in range(MAX_FAILURES + 1)]
    for unknown in (first, *others):
        assert await keys.refuses(unknown.text)
    # The oldest is forgotten and the youngest is not: as many are held as may be.
    assert await keys.refuses(others[-1].text)
    assert await keys.refuses(first.text)
    assert (keys.looked_up(others[-1]), keys.looked_up(first)) == (1, 2)
    await keys.identify(key.text)
    assert keys.looked_up(key) == 1
    assert keys.callers.stats().entries == 1


async def test_more_keys_than_fit_are_all_let_in(keys: Keys) -> None:
    callers = ApiKeyCallers(keys.documents, keys.clock, max_cache_bytes=10_000)
    made = [await keys.add() for _ in range(20)]
    for key in made * 2:
        assert (await callers.identify({"x-api-key": key.text})).principal == f"key|{key.id}"
    assert 0 < callers.stats().entries < 10
    assert callers.stats().bytes <= 10_000


@pytest.mark.parametrize("known", [True, False])
async def test_a_hundred_at_once_ask_the_store_once(keys: Keys, known: bool) -> None:
    key = await keys.add() if known else ApiKey.generate()
    asked, answer = asyncio.Event(), asyncio.Event()

    async def hold(when: When, _operation: str, _key: str) -> None:
        if when is When.BEFORE:
            asked.set()
            await answer.wait()

    keys.documents.tap = hold
    crowd = [asyncio.create_task(keys.refuses(key.text)) for _ in range(100)]
    await asyncio.wait_for(asked.wait(), 5)
    answer.set()
    assert set(await asyncio.gather(*crowd)) == {not known}
    assert keys.looked_up(key) == 1


async def test_whoever_gives_up_waiting_does_not_take_the_answer_from_others(keys: Keys) -> None:
    key = await keys.add()
    asked, answer = asyncio.Event(), asyncio.Event()

    async def hold(when: When, _operation: str, _key: str) -> None:
        if when is When.BEFORE:
            asked.set()
            await answer.wait()

    keys.documents.tap = hold
    hasty, patient = (asyncio.create_task(keys.identify(key.text)) for _ in range(2))
    await asyncio.wait_for(asked.wait(), 5)
    hasty.cancel()
    answer.set()
    assert (await patient).principal == f"key|{key.id}"
    assert keys.looked_up(key) == 1


# --- the store fails ------------------------------------------------------------------------------------------------


async def test_a_known_key_works_on_for_its_thirty_seconds_while_the_store_is_down(keys: Keys) -> None:
    key = await keys.add()
    await keys.identify(key.text)
    keys.documents.tap = failing(1_000, "get")
    keys.clock.advance(TTL_S - 0.001)
    await keys.identify(key.text)
    keys.clock.advance(0.001)
    with pytest.raises(StoreUnavailable):
        await keys.identify(key.text)


async def test_while_the_store_is_down_nobody_new_is_let_in_and_afterwards_they_are(keys: Keys) -> None:
    key = await keys.add()
    keys.documents.tap = failing(1, "get")
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await keys.identify(key.text)
    keys.clock.advance(1)
    await keys.identify(key.text)


async def test_an_outage_makes_no_revoked_key_valid(keys: Keys) -> None:
    key = await keys.add(revoked_at=START)
    assert await keys.refuses(key.text)
    keys.documents.tap = failing(1_000, "get")
    keys.clock.advance(TTL_S - 0.001)
    assert await keys.refuses(key.text)
    keys.clock.advance(0.001)
    with pytest.raises(StoreUnavailable):
        await keys.identify(key.text)


# --- threads --------------------------------------------------------------------------------------------------------


def test_what_is_remembered_is_answered_without_any_loop(tmp_path: Path, loop: LoopThread) -> None:
    documents = open_documents(f"sqlite:///{tmp_path}/documents.db")
    key, unknown, clock = ApiKey.generate(), ApiKey.generate(), ManualClock()
    callers = ApiKeyCallers(documents, clock)
    loop.run(documents.create(document_key(key.id), record_of(key).to_body()))
    loop.run(callers.identify({"x-api-key": key.text}))
    with pytest.raises(CallerUnauthenticated):
        loop.run(callers.identify({"x-api-key": unknown.text}))
    # Stepped by hand: a coroutine that waited for anything would not end at its first step.
    with pytest.raises(StopIteration) as done:
        callers.identify({"x-api-key": key.text}).send(None)
    assert done.value.value == Caller(f"key|{key.id}", frozenset({Scope.READ, Scope.LOCATION}))
    for refused in (unknown.text, replace(unknown, id=key.id).text, "garbage"):
        with pytest.raises(CallerUnauthenticated):
            callers.identify({"x-api-key": refused}).send(None)
    loop.run(documents.aclose())


def test_many_threads_ask_the_store_once(tmp_path: Path, loop: LoopThread) -> None:
    documents = TappedDocuments(open_documents(f"sqlite:///{tmp_path}/documents.db"))
    key, threads = ApiKey.generate(), 16
    callers = ApiKeyCallers(documents, ManualClock())
    loop.run(documents.create(document_key(key.id), record_of(key).to_body()))
    documents.seen.clear()
    together = threading.Barrier(threads)

    def ask(_number: int) -> str:
        together.wait(10)
        return loop.run(callers.identify({"x-api-key": key.text})).principal

    with ThreadPoolExecutor(threads) as pool:
        assert set(pool.map(ask, range(threads))) == {f"key|{key.id}"}
    assert documents.seen == [f"get apikeys/{key.id}"]
    loop.run(documents.aclose())


# --- forgeries ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Known:
    """Two keys that work, and an instance that holds both."""

    one: ApiKey
    other: ApiKey
    callers: ApiKeyCallers
    loop: LoopThread

    def lets_in(self, text: str) -> bool:
        try:
            self.loop.run(self.callers.identify({"x-api-key": text}))
        except CallerUnauthenticated:
            return False
        return True


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Known]:
    documents: Documents = open_documents(f"sqlite:///{tmp_path_factory.mktemp('keys')}/documents.db")
    loop = LoopThread("forger")
    one, other = ApiKey.generate(), ApiKey.generate()
    for key in (one, other):
        loop.run(documents.create(document_key(key.id), record_of(key).to_body()))
    yield Known(one, other, ApiKeyCallers(documents, ManualClock()), loop)
    loop.run(documents.aclose())
    loop.close()


def with_checksum(body: str) -> str:
    """A forger can compute it, too."""
    return f"{body}{zlib.crc32(body.encode('utf-8', 'surrogatepass')):08x}"


def flip(text: str, at: int, bit: int) -> str:
    return text[:at] + chr(ord(text[at]) ^ (1 << bit)) + text[at + 1 :]


def mutations(text: str) -> st.SearchStrategy[str]:
    """Texts near ``text``, itself included."""
    at = st.integers(0, len(text) - 1)
    character = st.characters() | st.sampled_from("_-,= 0Oo1lI\n\x00")
    return st.one_of(
        st.builds(flip, st.just(text), at, st.integers(0, 7)),
        st.builds(lambda first, last: text[min(first, last) : max(first, last)], at, at),
        st.builds(lambda i: text[:i] + text[i].swapcase() + text[i + 1 :], at),
        st.builds(lambda i, c: text[:i] + c + text[i:], at, character),
        st.builds(lambda i, c: text[:i] + c + text[i + 1 :], at, character),
        st.builds(lambda i: text[:i] + text[i + 1 :], at),
        st.builds(lambda i: text[:i] + text[i : i + 2][::-1] + text[i + 2 :], at),
        st.sampled_from([text.swapcase(), text.upper(), text.lower(), text[::-1], text * 2, f"{text},{text}"]),
        st.builds("".join, st.permutations(text.split("_"))),
        st.builds("_".join, st.permutations(text.split("_"))),
    )


@given(data=st.data(), is_checksum_right=st.booleans())
@settings(max_examples=250)
def test_nothing_near_a_key_is_ever_a_key(known: Known, data: st.DataObject, is_checksum_right: bool) -> None:
    if is_checksum_right:
        forged = with_checksum(data.draw(mutations(known.one.text[:-8])))
    else:
        forged = data.draw(mutations(known.one.text))
    assert known.lets_in(forged) is (forged == known.one.text)


@given(cut=st.integers(0, 80), is_checksum_right=st.booleans())
@example(cut=28, is_checksum_right=True)
@settings(max_examples=100)
def test_no_two_keys_make_a_third(known: Known, cut: int, is_checksum_right: bool) -> None:
    for first, second in ((known.one, known.other), (known.other, known.one)):
        forged = first.text[:cut] + second.text[cut:]
        if is_checksum_right:
            forged = with_checksum(forged[:-8])
        assert known.lets_in(forged) is (forged in {first.text, second.text})
