"""Links: whose they are, and how they are found."""

import base64
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from common.clock import ManualClock
from common.crypto.keyset import Keyset
from common.errors import AccountNotFound
from common.stores.documents import Documents, open_documents
from common.stores.sealed import SealedDocuments
from common.vault import Vault
from functions.links import Link, LinkBook, identity_of, mask
from functions.providers.port import Account, Region
from functions.storage import OF_ACCOUNTS, PLAIN
from tests.support.fake_provider import FIRST, SECOND, vehicle
from tests.support.tapped_documents import TappedDocuments, When
from tests.support.world import ME, STRANGER

ROW = Region.REST_OF_WORLD


@pytest.fixture
def book(tapped: TappedDocuments) -> LinkBook:
    return LinkBook(tapped)


@pytest.fixture
def other_book(documents: Documents) -> LinkBook:
    """Another instance's."""
    return LinkBook(documents)


async def new_link(
    book: LinkBook, clock: ManualClock, principal: str = ME, username: str = "owner@example.com"
) -> Link:
    identity = identity_of(principal, "mybmw", ROW, username)
    account = Account(await book.account_id_for(identity), "mybmw", ROW)
    link = Link(account, principal, identity, mask(username), clock.utc(), "scrypt$...")
    await book.put(link)
    return link


@pytest.mark.parametrize(
    "other",
    [
        ("issuer|you", "mybmw", ROW, "owner@example.com"),
        (ME, "cardata", ROW, "owner@example.com"),
        (ME, "mybmw", Region.CHINA, "owner@example.com"),
        (ME, "mybmw", ROW, "owner2@example.com"),
    ],
)
def test_an_identity_is_one_callers_account_at_one_maker_in_one_region(other: tuple[str, str, Region, str]) -> None:
    assert identity_of(*other) != identity_of(ME, "mybmw", ROW, "owner@example.com")


@pytest.mark.parametrize("same", ["owner@example.com", " Owner@Example.COM ", "OWNER@example.com\n"])
def test_user_names_are_compared_without_case_and_outer_spaces(same: str) -> None:
    assert identity_of(ME, "mybmw", ROW, same) == identity_of(ME, "mybmw", ROW, "owner@example.com")


def test_an_identity_does_not_show_what_it_is_made_of() -> None:
    identity = identity_of(ME, "mybmw", ROW, "owner@example.com")
    assert len(identity) == 64
    assert set(identity) <= set("0123456789abcdef")


@pytest.mark.parametrize(
    ("username", "shown"),
    [
        ("owner@example.com", "o***@e***.com"),
        (" owner@mail.example.co.uk ", "o***@m***.uk"),
        ("8613800138000", "86***00"),
        ("short1", "***"),
        ("seven77", "se***77"),
        ("@example.com", "***@e***.com"),
        ("", "***"),
    ],
)
def test_a_label_lets_the_owner_recognise_his_account_and_nobody_learn_it(username: str, shown: str) -> None:
    assert mask(username) == shown


async def erase(book: LinkBook, link: Link) -> None:
    """What a disconnect does to a link."""
    await book.release_identity(link)
    await book.remove(link)


async def test_a_link_is_found_by_its_id_and_by_its_identity(book: LinkBook, clock: ManualClock) -> None:
    link = await new_link(book, clock)
    assert await book.find(ME, link.account.id) == link
    assert await book.find_by_identity(ME, link.identity) == link
    assert await book.of_principal(ME) == [link]


async def test_an_account_keeps_its_id_however_often_it_is_linked(book: LinkBook, clock: ManualClock) -> None:
    link = await new_link(book, clock)
    assert await book.account_id_for(link.identity) == link.account.id
    changed = replace(link, label="new")
    await book.put(changed)
    assert await book.of_principal(ME) == [changed]


async def test_two_that_reserve_at_once_get_the_same_id(
    book: LinkBook, other_book: LinkBook, tapped: TappedDocuments
) -> None:
    others: list[str] = []

    async def overtake(when: When, operation: str, _key: str) -> None:
        if (when, operation) == (When.BEFORE, "create") and not others:
            others.append(await other_book.account_id_for("identity"))

    tapped.tap = overtake
    assert [await book.account_id_for("identity")] == others


async def test_two_that_link_at_once_both_succeed_and_the_later_stands(
    book: LinkBook, other_book: LinkBook, tapped: TappedDocuments, clock: ManualClock
) -> None:
    raced: list[str] = []
    link = Link(Account("acc_1", "mybmw", ROW), ME, "identity", "label", clock.utc(), "hash")

    async def overtake(when: When, operation: str, _key: str) -> None:
        if when is When.BEFORE and operation in ("create", "replace") and len(raced) < 2:
            raced.append(operation)
            await other_book.put(replace(link, label=operation))

    tapped.tap = overtake
    await book.put(replace(link, label="mine"))
    assert raced == ["create", "replace"]
    assert (await book.find(ME, "acc_1")).label == "mine"


async def test_anothers_link_and_nobodys_are_the_same_to_a_stranger(book: LinkBook, clock: ManualClock) -> None:
    link = await new_link(book, clock)
    failures = []
    for account_id in (link.account.id, "acc_" + "A" * 22):
        with pytest.raises(AccountNotFound) as failed:
            await book.find(STRANGER, account_id)
        failures.append((failed.value.message, failed.value.details, failed.value.code))
    assert failures[0] == failures[1]
    assert await book.find_by_identity(STRANGER, link.identity) is None
    assert await book.find_by_identity(STRANGER, "0" * 64) is None
    assert await book.of_principal(STRANGER) == []


async def test_a_link_that_is_ending_is_found_by_nobody_but_those_who_clear_up(
    book: LinkBook, clock: ManualClock
) -> None:
    link = await new_link(book, clock)
    await book.end(link)
    with pytest.raises(AccountNotFound):
        await book.find(ME, link.account.id)
    assert await book.find_by_identity(ME, link.identity) is None
    assert await book.of_principal(ME) == []
    assert [ending.account for ending in await book.of_principal(ME, ending=True)] == [link.account]


async def test_ending_what_is_gone_is_not_found(book: LinkBook, clock: ManualClock) -> None:
    link = await new_link(book, clock)
    await erase(book, link)
    with pytest.raises(AccountNotFound):
        await book.end(link)
    with pytest.raises(AccountNotFound):
        await book.remember_vehicles(link, (), clock.utc())


async def test_erasing_leaves_nothing_and_may_be_done_twice(
    book: LinkBook, clock: ManualClock, documents: Documents
) -> None:
    link = await new_link(book, clock)
    await erase(book, link)
    await erase(book, link)
    assert await documents.list("") == []


async def test_erasing_the_old_link_leaves_the_identity_of_a_new_one(book: LinkBook, clock: ManualClock) -> None:
    old = await new_link(book, clock)
    await erase(book, old)
    new = await new_link(book, clock)
    assert new.account.id != old.account.id
    await erase(book, old)
    assert await book.find_by_identity(ME, new.identity) == new


async def test_an_identity_that_is_linked_again_while_it_is_being_erased_stays(
    book: LinkBook, other_book: LinkBook, tapped: TappedDocuments, clock: ManualClock
) -> None:
    old = await new_link(book, clock)
    relinked: list[Link] = []

    async def overtake(when: When, operation: str, key: str) -> None:
        if (when, operation) == (When.BEFORE, "delete") and key.startswith("identities/") and not relinked:
            await erase(other_book, old)
            relinked.append(await new_link(other_book, clock))

    tapped.tap = overtake
    await erase(book, old)
    assert await book.of_principal(ME) == relinked
    assert await book.find_by_identity(ME, old.identity) == relinked[0]


async def test_links_are_listed_oldest_first(book: LinkBook, clock: ManualClock) -> None:
    links = []
    for number in range(5):
        links.append(await new_link(book, clock, username=f"user-{number}@example.com"))
        clock.step_wall(-10 if number % 2 else 7)
    await new_link(book, clock, principal=STRANGER)
    listed = await book.of_principal(ME)
    assert listed == sorted(links, key=lambda link: link.created_at)
    assert listed != links


async def test_a_link_deleted_while_they_are_listed_is_left_out(
    book: LinkBook, tapped: TappedDocuments, clock: ManualClock, other_book: LinkBook
) -> None:
    link = await new_link(book, clock)

    async def delete_first(when: When, operation: str, _key: str) -> None:
        if (when, operation) == (When.AFTER, "list"):
            await erase(other_book, link)

    tapped.tap = delete_first
    assert await book.of_principal(ME) == []


async def test_links_whose_key_is_gone_are_swept_and_the_others_stay(
    tmp_path: Path, clock: ManualClock, documents: Documents
) -> None:
    keyset = Keyset.parse("k1:" + base64.b64encode(bytes(32)).decode())
    keys = open_documents(f"sqlite:///{tmp_path}/swept.keys.db")
    vault = Vault(keys, keyset, clock)
    book = LinkBook(SealedDocuments(documents, vault, keyset, accounts=OF_ACCOUNTS, plain=PLAIN))
    links = []
    for username in ("one@example.com", "two@example.com"):
        identity = identity_of(ME, "mybmw", Region.REST_OF_WORLD, username)
        account = Account(await book.account_id_for(identity), "mybmw", Region.REST_OF_WORLD)
        await vault.create(account.id, "mybmw", ME)
        links.append(Link(account, ME, identity, "o***", clock.utc(), "no hash"))
        await book.put(links[-1])
    await vault.shred(links[0].account.id)
    assert await book.of_principal(ME) == [links[1]]
    await book.sweep(ME)
    assert len(await documents.list("links")) == 1
    assert await book.of_principal(ME) == [links[1]]
    await vault.aclose()


async def test_vehicles_are_remembered_with_their_time_and_survive(
    book: LinkBook, other_book: LinkBook, clock: ManualClock
) -> None:
    link = await new_link(book, clock)
    vehicles = (vehicle(FIRST), replace(vehicle(SECOND), profile={}))
    await book.remember_vehicles(link, vehicles, clock.utc())
    found = await other_book.find(ME, link.account.id)
    assert (found.vehicles, found.vehicles_at) == (vehicles, clock.utc())
    assert replace(found, vehicles=(), vehicles_at=None) == link


async def test_what_is_stored_names_neither_the_caller_in_its_key_nor_the_user(
    book: LinkBook, documents: Documents, clock: ManualClock
) -> None:
    await new_link(book, clock)
    keys = await documents.list("")
    stored = repr([await documents.get(key) for key in keys]) + repr(keys)
    assert "owner@example.com" not in stored
    assert not any(ME in key for key in keys)


def test_a_link_does_not_show_its_password_hash(clock: ManualClock) -> None:
    link = Link(Account("acc_1", "mybmw", ROW), ME, "identity", "label", clock.utc() + timedelta(0), "scrypt$planted")
    assert "planted" not in repr(link)
