"""What sealing adds to a store: bodies that only their own place and account open, and that end with their key."""

import asyncio
import base64
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.clock import ManualClock
from common.crypto.errors import KeyGone, SealBroken
from common.crypto.keyset import Keyset
from common.errors import StoreUnavailable
from common.stores.documents import Body, Document, DocumentExists, Documents, VersionConflict, open_documents
from common.stores.sealed import SealedDocuments, segment
from common.vault import HELD_S, Vault
from tests.common.crypto.masters import K1, K2
from tests.common.stores.contenders import Address
from tests.support.tapped_documents import TappedDocuments, When

ACCOUNTS = {
    **dict.fromkeys(["tokens", "commands", "claims", "slots", "confirmations", "caps"], segment(1)),
    "links": segment(2),
}
SECRET = "planted-refresh-token"
MINE: dict[str, Body] = {
    "tokens/acc_me": {"refresh_token": SECRET, "n": 1},
    "commands/acc_me/cmd_me_1": {"params": {"note": SECRET}, "n": 2},
    "links/0123abcd/acc_me": {"password_hash": SECRET, "n": 3},
}
THEIRS = {key.replace("acc_me", "acc_other"): {**body, "whose": "other"} for key, body in MINE.items()}
OF_ALL: dict[str, Body] = {"identities/0123": {"account": "acc_me"}, "lockouts/4567": {"failures": 3}}


class Place:
    """Two accounts and the deployment, sealed in ``inner``."""

    def __init__(self, folder: Path, token_keys: str = K1) -> None:
        self.clock = ManualClock()
        self.folder = folder
        self.inner = TappedDocuments(open_documents(f"sqlite:///{folder}/documents.db"))
        self.keys = open_documents(f"sqlite:///{folder}/keys.db")
        self.broken: list[tuple[str, str]] = []
        self.vault = Vault(self.keys, Keyset.parse(token_keys), self.clock)
        self.sealed = self.sealing(self.inner, token_keys)

    def sealing(self, inner: Documents, token_keys: str = K1) -> SealedDocuments:
        return SealedDocuments(
            inner,
            self.vault,
            Keyset.parse(token_keys),
            accounts=ACCOUNTS,
            plain=frozenset({"audit"}),
            on_broken=lambda collection, reason: self.broken.append((collection, reason)),
        )

    async def fill(self) -> None:
        for account in ("acc_me", "acc_other"):
            await self.vault.create(account, "mybmw", account)
        for key, body in {**MINE, **THEIRS, **OF_ALL}.items():
            await self.sealed.create(key, body)

    async def stored(self, key: str) -> Document:
        found = await self.inner.inner.get(key)
        assert found is not None
        return found

    async def put(self, key: str, body: Any) -> None:
        """Write to the store as somebody does who has broken into it."""
        await self.inner.inner.replace(await self.stored(key), body)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    made = Place(tmp_path)
    await made.fill()
    yield made
    await made.sealed.aclose()


async def refused(place: Place, key: str) -> bool:
    """Whether the document is refused, and its collection told."""
    place.broken.clear()
    try:
        await place.sealed.get(key)
    except SealBroken as broken:
        return place.broken == [(key.partition("/")[0], broken.reason)]
    return False


async def test_bodies_are_given_back_as_they_were(place: Place) -> None:
    for key, body in {**MINE, **THEIRS, **OF_ALL}.items():
        document = await place.sealed.get(key)
        assert document is not None
        assert document.body == body


async def test_no_byte_of_a_body_reaches_the_file(place: Place) -> None:
    stored = b"".join(file.read_bytes() for file in place.folder.iterdir())
    for text in (SECRET, "refresh_token", "password_hash", "failures", "whose"):
        assert text.encode() not in stored
        assert base64.b64encode(text.encode())[:-4] not in stored


async def test_each_body_has_the_form_of_its_kind(place: Place) -> None:
    assert set((await place.stored("tokens/acc_me")).body) == {"sealed"}
    assert (await place.stored("identities/0123")).body["kid"] == "k1"


async def test_an_excepted_collection_passes_as_it_is(place: Place) -> None:
    body: Body = {"seq": 1, "padding": "x" * 800_000}
    created = await place.sealed.create("audit/a/1", body)
    assert await place.inner.inner.get("audit/a/1") == created == await place.sealed.get("audit/a/1")
    replaced = await place.sealed.replace(created, {"seq": 2})
    assert (await place.stored("audit/a/1")).body == {"seq": 2} == replaced.body


@pytest.mark.parametrize("key", [*MINE, *OF_ALL])
async def test_a_body_copied_over_another_document_is_refused(place: Place, key: str) -> None:
    body = (await place.stored(key)).body
    for other in {**MINE, **THEIRS, **OF_ALL}:
        if other != key:
            await place.put(other, body)
            assert await refused(place, other), (key, other)


async def test_a_victims_documents_and_key_copied_over_an_attackers_open_nothing(place: Place) -> None:
    victim = await place.keys.get("keys/acc_me")
    attacker = await place.keys.get("keys/acc_other")
    assert victim is not None
    assert attacker is not None
    await place.keys.replace(attacker, victim.body)
    place.clock.advance(HELD_S)
    for key in MINE:
        await place.put(key.replace("acc_me", "acc_other"), (await place.stored(key)).body)
    assert all([await refused(place, key) for key in THEIRS])


@pytest.mark.parametrize("key", ["tokens/acc_me", "identities/0123"])
async def test_no_character_of_a_stored_body_can_be_changed(place: Place, key: str) -> None:
    body = (await place.stored(key)).body
    for field, value in body.items():
        for at in range(len(value)):
            flipped = chr(ord(value[at]) ^ 1 << at % 7)
            await place.put(key, {**body, field: value[:at] + flipped + value[at + 1 :]})
            assert await refused(place, key), (field, at)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["sealed", "kid", "a"]), inner),
    max_leaves=5,
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), key=st.sampled_from([*MINE, *OF_ALL]))
def test_nothing_else_in_the_place_of_a_body_is_taken_for_one(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, key: str
) -> None:
    async def check() -> None:
        place = Place(tmp_path_factory.mktemp("place"))
        await place.fill()
        body = (await place.stored(key)).body
        cut = data.draw(st.integers(0, len(body["sealed"]) - 1))
        other = data.draw(
            st.dictionaries(st.sampled_from(["sealed", "kid", "a"]), JSON)
            | st.sampled_from([{**body, "sealed": body["sealed"][:cut]}, {**body, "sealed": body["sealed"][cut + 1 :]}])
            | st.sampled_from([{**body, "more": 1}, {**body, "kid": "k1", "b": 1}, {"kid": "k1"}])
        )
        await place.put(key, other)
        assert await refused(place, key)
        await place.sealed.aclose()

    asyncio.run(check())


@pytest.mark.parametrize("body", [b"[]", b'"text"', b"1", b"null"])
@pytest.mark.parametrize("key", ["tokens/acc_me", "identities/0123"])
async def test_a_body_that_is_no_object_is_refused(place: Place, body: bytes, key: str) -> None:
    class Garbled(TappedDocuments):
        async def get(self, key: str) -> Document | None:
            return Document(key, orjson.loads(body), "1")

    with pytest.raises(SealBroken):
        await place.sealing(Garbled(place.inner)).get(key)


async def test_a_body_for_an_account_never_passes_for_the_deployments_and_the_other_way_round(place: Place) -> None:
    theirs = (await place.stored("tokens/acc_me")).body
    ours = (await place.stored("identities/0123")).body
    await place.put("tokens/acc_me", ours)
    await place.put("identities/0123", theirs)
    assert await refused(place, "tokens/acc_me")
    assert await refused(place, "identities/0123")
    await place.put("identities/0123", {**theirs, "kid": "k1"})
    assert await refused(place, "identities/0123")


async def test_what_is_refused_counts_as_an_unavailable_store(place: Place) -> None:
    await place.put("tokens/acc_me", {"refresh_token": "mine now"})
    with pytest.raises(StoreUnavailable) as broken:
        await place.sealed.get("tokens/acc_me")
    assert broken.value.status == 503


async def test_a_body_that_is_not_sealed_is_refused(place: Place) -> None:
    for key in (*MINE, *OF_ALL):
        await place.put(key, {"account": "acc_attacker"})
        assert await refused(place, key)


async def test_a_key_that_names_no_account_is_refused(place: Place) -> None:
    with pytest.raises(ValueError, match="account"):
        await place.sealed.create("links/0123", {})
    await place.inner.inner.create("links/0123", {"sealed": "AAAA"})
    assert await refused(place, "links/0123")


async def test_without_its_key_an_account_has_no_documents(place: Place) -> None:
    await place.vault.shred("acc_me")
    assert [await place.sealed.get(key) for key in MINE] == [None] * len(MINE)
    assert place.broken == []
    for key, body in THEIRS.items():
        document = await place.sealed.get(key)
        assert document is not None
        assert document.body == body


async def test_without_its_key_an_account_gets_no_documents(place: Place) -> None:
    document = await place.sealed.get("tokens/acc_me")
    assert document is not None
    await place.vault.shred("acc_me")
    with pytest.raises(KeyGone) as gone:
        await place.sealed.create("commands/acc_me/cmd_me_2", {})
    assert gone.value.status == 404
    with pytest.raises(VersionConflict):
        await place.sealed.replace(document, {})
    assert await place.inner.inner.get("commands/acc_me/cmd_me_2") is None


async def test_what_nobody_can_open_is_listed_and_can_be_deleted(place: Place) -> None:
    await place.vault.shred("acc_me")
    assert await place.sealed.list("tokens") == ["tokens/acc_me", "tokens/acc_other"]
    assert await place.sealed.delete("tokens/acc_me") is True
    assert await place.sealed.list("tokens") == ["tokens/acc_other"]


async def test_an_account_linked_anew_starts_with_nothing_and_can_take_every_place(place: Place) -> None:
    await place.vault.shred("acc_me")
    await place.vault.create("acc_me", "mybmw", "acc_me")
    for key in MINE:
        assert await place.sealed.get(key) is None
        created = await place.sealed.create(key, {"new": 1})
        assert created.body == {"new": 1}
        assert await place.sealed.get(key) == created
        with pytest.raises(DocumentExists):
            await place.sealed.create(key, {"new": 2})
    assert place.broken == []


async def test_of_many_that_take_the_place_of_what_nobody_can_open_one_wins(place: Place) -> None:
    await place.vault.shred("acc_me")
    await place.vault.create("acc_me", "mybmw", "acc_me")
    tried = await asyncio.gather(
        *(place.sealed.create("tokens/acc_me", {"n": n}) for n in range(20)), return_exceptions=True
    )
    won = [one for one in tried if isinstance(one, Document)]
    assert len(won) == 1
    assert [type(one) for one in tried if one is not won[0]] == [DocumentExists] * 19
    assert await place.sealed.get("tokens/acc_me") == won[0]


async def test_a_place_that_is_freed_while_it_is_being_taken_is_taken(place: Place) -> None:
    await place.vault.shred("acc_me")
    await place.vault.create("acc_me", "mybmw", "acc_me")

    async def free(when: When, operation: str, key: str) -> None:
        if when is When.BEFORE and operation in ("get", "replace"):
            await place.inner.inner.delete(key)

    async def free_late(when: When, operation: str, key: str) -> None:
        if (when, operation) == (When.BEFORE, "replace"):
            await place.inner.inner.delete(key)

    place.inner.tap = free
    await place.sealed.create("tokens/acc_me", {"n": 1})
    place.inner.tap = free_late
    await place.sealed.create("links/0123abcd/acc_me", {"n": 1})


async def test_what_is_broken_is_not_overwritten(place: Place) -> None:
    await place.put("tokens/acc_me", (await place.stored("tokens/acc_other")).body)
    with pytest.raises(DocumentExists):
        await place.sealed.create("tokens/acc_me", {})


async def test_a_document_set_back_by_its_version_is_still_compared_by_the_store(place: Place) -> None:
    first = await place.sealed.get("tokens/acc_me")
    assert first is not None
    second = await place.sealed.replace(first, {"n": 2})
    with pytest.raises(VersionConflict):
        await place.sealed.replace(first, {"n": 3})
    assert await place.sealed.replace(second, {"n": 3}) == await place.sealed.get("tokens/acc_me")


async def test_under_a_bucket_the_lineage_comes_through(tmp_path: Path, gcs_address: Address) -> None:
    place = Place(tmp_path)
    bucket = gcs_address.open()
    sealed = place.sealing(bucket)
    await place.vault.create("acc_me", "mybmw", "me")
    document = await sealed.create("tokens/acc_me", {"n": 0})
    for n in range(1, 4):
        document = await sealed.replace(document, {"n": n})
    raw = await bucket.get("tokens/acc_me")
    assert raw is not None
    assert (document.version, document.lineage) == (raw.version, raw.lineage)
    assert len(raw.lineage) == 4
    assert await sealed.get("tokens/acc_me") == document
    await sealed.aclose()


async def test_documents_sealed_under_a_retired_key_open_and_move_when_they_are_written(place: Place) -> None:
    rotated = place.sealing(place.inner, f"{K2},{K1}")
    document = await rotated.get("identities/0123")
    assert document is not None
    await rotated.replace(document, {"account": "acc_2"})
    assert (await place.stored("identities/0123")).body["kid"] == "k2"
    assert await refused(place, "identities/0123")


async def test_under_a_dropped_key_the_reason_says_so(place: Place) -> None:
    dropped = place.sealing(place.inner, K2)
    with pytest.raises(SealBroken) as broken:
        await dropped.get("identities/0123")
    assert "TOKEN_KEYS does not hold" in broken.value.reason


async def test_a_restored_copy_of_a_shredded_accounts_documents_gives_nothing(place: Place) -> None:
    await place.sealed.delete("audit/none")  # the copy is taken of a store that was closed
    await place.inner.inner.aclose()
    backup = shutil.copytree(place.folder, place.folder.parent / f"{place.folder.name}-backup")
    live = place.sealing(open_documents(f"sqlite:///{place.folder}/documents.db"))
    await place.vault.shred("acc_me")
    for key in MINE:
        await live.delete(key)
    await live.aclose()
    # Only the documents are in a backup.
    restored = Place(place.folder)
    for file in place.folder.glob("documents.db*"):
        file.unlink()
    for file in backup.glob("documents.db*"):
        shutil.copy(file, place.folder)
    assert set(await restored.sealed.list("")) >= set(MINE)
    for key in MINE:
        assert await restored.sealed.get(key) is None
        raw = json.dumps((await restored.stored(key)).body)
        assert SECRET not in raw
    for key, body in THEIRS.items():
        document = await restored.sealed.get(key)
        assert document is not None
        assert document.body == body
    # Nor does a key that the account is given afterwards, or that was another's.
    await restored.vault.create("acc_me", "mybmw", "acc_me")
    assert [await restored.sealed.get(key) for key in MINE] == [None] * len(MINE)
    await restored.sealed.aclose()


async def test_a_store_without_its_keys_answers_no_ping(place: Place) -> None:
    await place.sealed.ping()
    await place.keys.aclose()
    with pytest.raises(StoreUnavailable):
        await place.sealed.ping()
