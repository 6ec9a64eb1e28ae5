"""What is done to keys: the lives of a key, several people at once, and a kill at any moment."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from common.api_keys import ApiKey, ApiKeyCallers, KeyRecord, KeyState, document_key
from common.callers import Caller, Scope
from common.clock import ManualClock
from common.errors import CallerUnauthenticated, StoreUnavailable
from common.stores.documents import Documents, open_documents
from ops.keys_book import PAGE, Issued, KeyBook, Unreadable
from ops.keys_command import Refused
from tests.ops.key_victims import READ_ONLY, database_of, slaughter, start
from tests.support.tapped_documents import TappedDocuments, When, failing

DAY = timedelta(days=1)
WEEK = timedelta(days=7)
INSTANT = timedelta(microseconds=1)
START = ManualClock().utc()


async def no_sleep(_seconds: float) -> None:
    await asyncio.sleep(0)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def documents(tmp_path: Path) -> AsyncIterator[TappedDocuments]:
    store = TappedDocuments(open_documents(f"sqlite:///{tmp_path}/base.db"))
    yield store
    await store.aclose()


@pytest.fixture
def book(documents: TappedDocuments, clock: ManualClock) -> KeyBook:
    return KeyBook(documents, clock, sleep=no_sleep)


@pytest.fixture
def other(documents: TappedDocuments, clock: ManualClock) -> KeyBook:
    """Somebody else at the same store, whom nobody listens to."""
    return KeyBook(documents.inner, clock)


async def identified(documents: Documents, clock: ManualClock, text: str) -> Caller | None:
    """Who that is to an instance that has just been started."""
    try:
        return await ApiKeyCallers(documents, clock).identify({"x-api-key": text})
    except CallerUnauthenticated:
        return None


async def records(book: KeyBook) -> list[KeyRecord]:
    """All keys, each of which must be readable."""
    keys = await book.all()
    found = [key for key in keys if isinstance(key, KeyRecord)]
    assert len(found) == len(keys)
    return found


async def record(book: KeyBook, key_id: str) -> KeyRecord:
    return next(key for key in await records(book) if key.id == key_id)


def once(
    act: Callable[[], Awaitable[object]], when: When, operation: str, times: int = 1
) -> Callable[..., Awaitable[None]]:
    """A tap that does something at the next ``times`` of an operation."""
    left = times

    async def tap(moment: When, name: str, _key: str) -> None:
        nonlocal left
        if left > 0 and (moment, name) == (when, operation):
            left -= 1
            await act()

    return tap


# --- lives ----------------------------------------------------------------------------------------------------------


async def test_a_new_key_works_for_a_principal_of_its_own(
    book: KeyBook, documents: TappedDocuments, clock: ManualClock
) -> None:
    issued = await book.issue("a dashboard", READ_ONLY)
    principal = f"key|{issued.record.id}"
    assert await identified(documents, clock, issued.text) == Caller(principal, READ_ONLY)
    assert await records(book) == [issued.record]
    assert issued.text not in repr(issued)


async def test_several_keys_may_have_one_principal(
    book: KeyBook, documents: TappedDocuments, clock: ManualClock
) -> None:
    first = await book.issue("a dashboard", READ_ONLY)
    second = await book.issue("a phone", frozenset({Scope.COMMAND}), principal=first.record.principal)
    assert await identified(documents, clock, second.text) == Caller(first.record.principal, frozenset({Scope.COMMAND}))
    await book.revoke(first.record.id)
    assert await identified(documents, clock, second.text) is not None
    third = await book.issue("a watch", READ_ONLY, principal=first.record.principal)
    assert third.record.principal == f"key|{first.record.id}"


async def test_a_principal_is_one_that_a_first_key_has_made(book: KeyBook) -> None:
    first = await book.issue("a dashboard", READ_ONLY)
    second = await book.issue("a phone", READ_ONLY, principal=first.record.principal)
    nobodys = ApiKey.generate().id
    for principal in (f"key|{second.record.id}", f"key|{nobodys}", first.record.id, "open", "", "key|", "key|../x"):
        with pytest.raises(Refused):
            await book.issue("a watch", READ_ONLY, principal=principal)
    assert len(await records(book)) == 2


async def test_a_key_ends_when_its_time_is_over(book: KeyBook, documents: TappedDocuments, clock: ManualClock) -> None:
    issued = await book.issue("a dashboard", READ_ONLY, valid_for=90 * DAY)
    clock.wall = START + 90 * DAY - INSTANT
    assert await identified(documents, clock, issued.text) is not None
    clock.wall += INSTANT
    assert await identified(documents, clock, issued.text) is None


async def test_a_revoked_key_is_refused_and_stays_listed(
    book: KeyBook, documents: TappedDocuments, clock: ManualClock
) -> None:
    issued = await book.issue("a dashboard", READ_ONLY)
    clock.advance(5)
    revoked = await book.revoke(issued.record.id)
    assert await identified(documents, clock, issued.text) is None
    assert await records(book) == [revoked]
    assert revoked.revoked_at == START + timedelta(seconds=5)


async def test_a_renewal_keeps_whose_key_it_is_and_what_it_may(
    book: KeyBook, documents: TappedDocuments, clock: ManualClock
) -> None:
    scopes = frozenset({Scope.READ, Scope.UNLOCK})
    first = await book.issue("a dashboard", scopes, valid_for=90 * DAY)
    clock.advance(DAY.total_seconds())
    second, old = await book.renew(first.record.id, overlap=WEEK)
    assert (second.record.name, second.record.principal) == ("a dashboard", first.record.principal)
    assert (second.record.created_at, second.record.expires_at) == (START + DAY, START + 91 * DAY)
    assert (old.replaced_by, old.expires_at) == (second.record.id, START + 8 * DAY)
    clock.advance(1)
    third, _ = await book.renew(second.record.id, overlap=WEEK, valid_for=DAY)
    assert (third.record.principal, third.record.expires_at) == (first.record.principal, clock.utc() + DAY)
    for issued in (first, second, third):
        assert await identified(documents, clock, issued.text) == Caller(first.record.principal, scopes)
    assert await records(book) == [old, await record(book, second.record.id), third.record]


async def test_an_old_key_works_until_the_overlap_is_over(
    book: KeyBook, documents: TappedDocuments, clock: ManualClock
) -> None:
    old = await book.issue("a dashboard", READ_ONLY)
    new, _ = await book.renew(old.record.id, overlap=WEEK)
    clock.wall = START + WEEK - INSTANT
    assert (await record(book, old.record.id)).state(clock.utc()) is KeyState.REPLACED
    assert await identified(documents, clock, old.text) is not None
    clock.wall += INSTANT
    assert await identified(documents, clock, old.text) is None
    assert await identified(documents, clock, new.text) is not None
    assert new.record.expires_at is None


async def test_without_an_overlap_an_old_key_ends_at_once(
    book: KeyBook, documents: TappedDocuments, clock: ManualClock
) -> None:
    old = await book.issue("a dashboard", READ_ONLY)
    await book.renew(old.record.id, overlap=timedelta())
    assert await identified(documents, clock, old.text) is None


async def test_an_overlap_makes_no_key_live_longer(book: KeyBook, clock: ManualClock) -> None:
    issued = await book.issue("a dashboard", READ_ONLY, valid_for=DAY)
    _, old = await book.renew(issued.record.id, overlap=WEEK)
    assert old.expires_at == START + DAY
    late = await book.issue("a phone", READ_ONLY, valid_for=DAY)
    clock.advance(2 * DAY.total_seconds())
    fresh, old = await book.renew(late.record.id, overlap=WEEK)
    assert (old.expires_at, fresh.record.expires_at) == (START + DAY, START + 3 * DAY)


async def test_a_renewal_keeps_what_a_later_version_has_written(book: KeyBook, documents: TappedDocuments) -> None:
    issued = await book.issue("a dashboard", READ_ONLY)
    document = await documents.get(document_key(issued.record.id))
    assert document is not None
    later = {"scopes": ["read", "fleet"], "note": "from a later version"}
    await documents.replace(document, document.body | later)
    new, old = await book.renew(issued.record.id, overlap=WEEK)
    await book.revoke(new.record.id)
    for key_id in (new.record.id, old.id):
        found = await documents.get(document_key(key_id))
        assert found is not None
        assert {name: found.body[name] for name in later} == later


@pytest.mark.parametrize(
    "name", ["", " a", "a ", "a\nb", "\x1b[31mred", "x" * 65, "half \udc80", "\u202eright to left"]
)
async def test_a_name_must_be_fit_to_be_shown(book: KeyBook, name: str) -> None:
    with pytest.raises(Refused):
        await book.issue(name, READ_ONLY)
    assert await records(book) == []


async def test_more_keys_than_a_page_are_listed_oldest_first(book: KeyBook, clock: ManualClock) -> None:
    made = []
    for number in range(2 * PAGE + 1):
        made.append((await book.issue(f"number {number}", READ_ONLY)).record)
        clock.advance(60)
    assert await book.all() == made


async def test_what_is_no_key_is_listed_last_and_hides_none(book: KeyBook, documents: TappedDocuments) -> None:
    issued = await book.issue("a dashboard", READ_ONLY)
    await documents.create("apikeys/0", {"name": "not a key"})
    assert await book.all() == [issued.record, Unreadable("0")]


async def test_a_key_that_is_gone_by_the_time_it_is_read_is_not_listed(
    book: KeyBook, documents: TappedDocuments
) -> None:
    issued = await book.issue("a dashboard", READ_ONLY)
    documents.tap = once(lambda: documents.inner.delete(document_key(issued.record.id)), When.AFTER, "list")
    assert await book.all() == []


async def test_a_store_that_is_down_is_not_a_list_of_unreadable_keys(book: KeyBook, documents: TappedDocuments) -> None:
    await book.issue("a dashboard", READ_ONLY)
    documents.tap = once(documents.inner.aclose, When.BEFORE, "get")
    with pytest.raises(StoreUnavailable):
        await book.all()


# --- refusals -------------------------------------------------------------------------------------------------------


async def test_what_has_ended_cannot_be_ended_or_renewed_again(book: KeyBook, documents: TappedDocuments) -> None:
    revoked, renewed = [(await book.issue("a dashboard", READ_ONLY)).record.id for _ in range(2)]
    await book.revoke(revoked)
    new, _ = await book.renew(renewed, overlap=WEEK)
    documents.seen.clear()
    with pytest.raises(Refused, match=f"{revoked} was revoked already"):
        await book.revoke(revoked)
    with pytest.raises(Refused, match=f"{revoked} was revoked already"):
        await book.renew(revoked, overlap=WEEK)
    with pytest.raises(Refused, match=f"{renewed} was renewed already, by {new.record.id}"):
        await book.renew(renewed, overlap=WEEK)
    assert {operation.partition(" ")[0] for operation in documents.seen} == {"get"}
    await book.revoke(renewed)


@pytest.mark.parametrize("key_id", ["", "a", "../../tokens/x", "x" * 23, "a b", "\u00e9" * 22])
async def test_an_id_that_is_none_is_refused_before_the_store_is_asked(
    book: KeyBook, documents: TappedDocuments, key_id: str
) -> None:
    for act in (book.revoke(key_id), book.renew(key_id, overlap=WEEK)):
        with pytest.raises(Refused):
            await act
    assert documents.seen == []


async def test_a_whole_key_in_place_of_its_id_is_not_repeated(book: KeyBook) -> None:
    text = (await book.issue("a dashboard", READ_ONLY)).text
    with pytest.raises(Refused) as refused:
        await book.revoke(text)
    assert text[6:12] not in str(refused.value)


async def test_an_unknown_id_is_refused(book: KeyBook) -> None:
    unknown = ApiKey.generate().id
    for act in (book.revoke(unknown), book.renew(unknown, overlap=WEEK)):
        with pytest.raises(Refused, match=unknown):
            await act
    assert await records(book) == []


# --- several at once ------------------------------------------------------------------------------------------------


async def succeeded(*attempts: Awaitable[object]) -> int:
    """How many did; the others must have been refused."""
    ends = await asyncio.gather(*attempts, return_exceptions=True)
    assert all(isinstance(end, Refused) for end in ends if isinstance(end, BaseException)), ends
    return sum(not isinstance(end, BaseException) for end in ends)


async def test_of_many_who_revoke_a_key_one_does(tmp_path: Path, book: KeyBook, clock: ManualClock) -> None:
    stores = [open_documents(f"sqlite:///{tmp_path}/base.db") for _ in range(4)]
    for _ in range(5):
        key_id = (await book.issue("a dashboard", READ_ONLY)).record.id
        assert await succeeded(*(KeyBook(store, clock, sleep=no_sleep).revoke(key_id) for store in stores)) == 1
    for store in stores:
        await store.aclose()


async def test_of_many_who_renew_a_key_one_does_and_no_other_key_is_left(
    tmp_path: Path, book: KeyBook, clock: ManualClock
) -> None:
    stores = [open_documents(f"sqlite:///{tmp_path}/base.db") for _ in range(4)]
    for rounds in range(1, 6):
        key_id = (await book.issue("a dashboard", READ_ONLY)).record.id
        assert (
            await succeeded(*(KeyBook(store, clock, sleep=no_sleep).renew(key_id, overlap=WEEK) for store in stores))
            == 1
        )
        assert len(await records(book)) == 2 * rounds
        assert (await record(book, key_id)).replaced_by in {key.id for key in await records(book)}
    for store in stores:
        await store.aclose()


@pytest.mark.parametrize(("when", "operation"), [(When.AFTER, "create"), (When.AFTER, "get"), (When.BEFORE, "replace")])
async def test_a_key_that_is_revoked_while_it_is_renewed_gets_no_successor(
    book: KeyBook, other: KeyBook, documents: TappedDocuments, clock: ManualClock, when: When, operation: str
) -> None:
    old = await book.issue("a dashboard", READ_ONLY)
    documents.tap = once(lambda: other.revoke(old.record.id), when, operation)
    with pytest.raises(Refused, match="was revoked already"):
        await book.renew(old.record.id, overlap=WEEK)
    assert [key.id for key in await records(book)] == [old.record.id]
    assert await identified(documents, clock, old.text) is None


async def test_a_key_that_is_renewed_while_it_is_revoked_ends_all_the_same(
    book: KeyBook, other: KeyBook, documents: TappedDocuments, clock: ManualClock
) -> None:
    old = await book.issue("a dashboard", READ_ONLY)
    documents.tap = once(lambda: other.renew(old.record.id, overlap=WEEK), When.BEFORE, "replace")
    revoked = await book.revoke(old.record.id)
    assert revoked.replaced_by in {key.id for key in await records(book)}
    assert await identified(documents, clock, old.text) is None


async def test_a_key_that_is_gone_while_it_is_renewed_gets_no_successor(
    book: KeyBook, documents: TappedDocuments
) -> None:
    old = await book.issue("a dashboard", READ_ONLY)
    documents.tap = once(lambda: documents.inner.delete(document_key(old.record.id)), When.AFTER, "create")
    with pytest.raises(Refused, match="There is no key"):
        await book.renew(old.record.id, overlap=WEEK)
    assert await records(book) == []


async def test_a_key_that_others_never_leave_alone_is_given_up(book: KeyBook, documents: TappedDocuments) -> None:
    old = await book.issue("a dashboard", READ_ONLY)

    async def meddle() -> None:
        document = await documents.inner.get(document_key(old.record.id))
        assert document is not None
        await documents.inner.replace(document, document.body)

    documents.tap = once(meddle, When.BEFORE, "replace", times=100)
    with pytest.raises(Refused, match="try again"):
        await book.renew(old.record.id, overlap=WEEK)
    assert await records(book) == [old.record]


async def test_a_successor_that_somebody_has_seen_meanwhile_and_revoked_stays_revoked(
    book: KeyBook, other: KeyBook, documents: TappedDocuments, clock: ManualClock
) -> None:
    old = await book.issue("a dashboard", READ_ONLY)

    async def revoke_all() -> None:
        for key in await records(other):
            await other.revoke(key.id)

    documents.tap = once(revoke_all, When.AFTER, "create")
    with pytest.raises(Refused):
        await book.renew(old.record.id, overlap=WEEK)
    assert [key.state(clock.utc()) for key in await records(book)] == [KeyState.REVOKED] * 2


# --- faults and kills -----------------------------------------------------------------------------------------------


async def test_a_renewal_whose_end_is_not_known_can_be_made_good(
    book: KeyBook, documents: TappedDocuments, clock: ManualClock
) -> None:
    old = await book.issue("a dashboard", READ_ONLY)
    documents.tap = failing(1, "replace", when=When.AFTER)
    with pytest.raises(StoreUnavailable):
        await book.renew(old.record.id, overlap=WEEK)
    unseen = (await record(book, old.record.id)).replaced_by
    assert unseen is not None
    again, _ = await book.renew(unseen, overlap=timedelta())
    assert await identified(documents, clock, old.text) is not None
    assert await identified(documents, clock, again.text) == Caller(old.record.principal, READ_ONLY)


@pytest.mark.parametrize(("scenario", "operations"), [("new", 1), ("revoke", 2), ("renew", 4)])
async def test_a_kill_after_any_operation_leaves_what_was_or_what_was_asked_for(
    tmp_path: Path, scenario: str, operations: int
) -> None:
    clock = ManualClock()
    base = open_documents(f"sqlite:///{tmp_path}/base.db")
    old = await KeyBook(base, clock).issue("a dashboard", READ_ONLY)
    await base.aclose()
    killed = await slaughter(tmp_path, scenario, old.text)
    assert killed == operations + 1
    for steps in range(killed):
        documents = open_documents(f"sqlite:///{database_of(tmp_path, scenario, steps)}")
        await check_after_kill(scenario, KeyBook(documents, clock), documents, clock, old)
        await documents.aclose()


async def check_after_kill(scenario: str, book: KeyBook, documents: Documents, clock: ManualClock, old: Issued) -> None:
    kept, *more = await records(book)
    if kept.id != old.record.id:
        kept, more = more[0], [kept]
    works = await identified(documents, clock, old.text) is not None
    assert works is (kept.revoked_at is None)
    assert len(more) <= 1
    if scenario == "revoke":
        assert more == []
        with contextlib.suppress(Refused):
            await book.revoke(old.record.id)
        assert await identified(documents, clock, old.text) is None
        return
    assert works
    assert kept.replaced_by in {None, *(key.id for key in more)}
    # Whatever is left over, the next attempt gets there.
    again = await (
        book.issue("another", READ_ONLY) if scenario == "new" else renewed(book, kept.replaced_by or old.record.id)
    )
    assert await identified(documents, clock, again.text) is not None


async def renewed(book: KeyBook, key_id: str) -> Issued:
    return (await book.renew(key_id, overlap=WEEK))[0]


async def test_a_kill_in_the_middle_of_making_keys_leaves_whole_keys_only(tmp_path: Path) -> None:
    clock, told = ManualClock(), []
    for keys_seen in (1, 5, 20):
        process = await start(str(tmp_path), "without end")
        assert process.stdout is not None
        told += [(await process.stdout.readline()).decode().strip() for _ in range(keys_seen)]
        process.kill()
        rest, _ = await process.communicate()
        told += [line for line in rest.decode().split("\n")[:-1] if line]
    documents = open_documents(f"sqlite:///{tmp_path}/base.db")
    for text in told:
        assert await identified(documents, clock, text) is not None
    listed = await records(KeyBook(documents, clock))
    # At most the key that was being made at each kill was stored and not told.
    assert len(told) <= len(listed) <= len(told) + 3
    await documents.aclose()
