"""The accounts' data keys: made once, held briefly, shredded for good, and of use nowhere else."""

import asyncio
from typing import Any

import pytest

from common.clock import ManualClock
from common.crypto.errors import KeyGone, SealBroken
from common.crypto.keyset import Keyset
from common.errors import StoreUnavailable
from common.loops import LoopThread
from common.stores.documents import Document
from common.vault import HELD_S, Vault
from tests.common.crypto.masters import K1, K2
from tests.support.tapped_documents import TappedDocuments, When, failing

ME, OTHER = "acc_me", "acc_other"
PLACE = "tokens/acc_me"


async def made(vault: Vault, *accounts: str) -> None:
    for account in accounts:
        await vault.create(account, "mybmw", f"principal of {account}")


async def key_document(keys: TappedDocuments, account: str) -> Document:
    found = await keys.inner.get(f"keys/{account}")
    assert found is not None
    return found


async def test_what_is_sealed_for_an_account_opens_for_it_at_its_place(vault: Vault) -> None:
    await made(vault, ME)
    sealed = await vault.seal(ME, PLACE, b"a refresh token")
    assert b"refresh" not in sealed
    assert await vault.open(ME, PLACE, sealed) == b"a refresh token"


async def test_it_opens_at_no_other_place_and_for_no_other_account(vault: Vault) -> None:
    await made(vault, ME, OTHER)
    sealed = await vault.seal(ME, PLACE, b"text")
    for account, place in [(ME, "tokens/acc_other"), (OTHER, PLACE), (OTHER, "tokens/acc_other")]:
        with pytest.raises(SealBroken):
            await vault.open(account, place, sealed)


async def test_no_bit_of_it_can_be_flipped_and_nothing_cut_off(vault: Vault) -> None:
    await made(vault, ME)
    sealed = await vault.seal(ME, PLACE, b"text")
    for bit in range(len(sealed) * 8):
        flipped = bytearray(sealed)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SealBroken):
            await vault.open(ME, PLACE, bytes(flipped))
    for length in range(len(sealed)):
        with pytest.raises(SealBroken):
            await vault.open(ME, PLACE, sealed[:length])


async def test_an_account_without_a_key_has_nothing(vault: Vault) -> None:
    with pytest.raises(KeyGone):
        await vault.seal(ME, PLACE, b"text")
    with pytest.raises(KeyGone):
        await vault.open(ME, PLACE, b"1")


async def test_making_a_key_again_for_the_same_owner_changes_nothing(vault: Vault, keys: TappedDocuments) -> None:
    await made(vault, ME)
    before = await key_document(keys, ME)
    sealed = await vault.seal(ME, PLACE, b"text")
    await made(vault, ME)
    assert await key_document(keys, ME) == before
    assert await vault.open(ME, PLACE, sealed) == b"text"


@pytest.mark.parametrize(("provider", "principal"), [("cardata", "principal of acc_me"), ("mybmw", "somebody else")])
async def test_a_key_is_not_made_for_a_second_owner(vault: Vault, provider: str, principal: str) -> None:
    await made(vault, ME)
    with pytest.raises(SealBroken) as broken:
        await vault.create(ME, provider, principal)
    assert "another provider or principal" in broken.value.reason


async def test_of_many_that_make_a_key_at_once_all_get_the_same_one(keys: TappedDocuments, clock: ManualClock) -> None:
    vaults = [Vault(keys, Keyset.parse(K1), clock) for _ in range(8)]
    await asyncio.gather(*(made(vault, ME) for vault in vaults))
    sealed = await vaults[0].seal(ME, PLACE, b"text")
    assert [await vault.open(ME, PLACE, sealed) for vault in vaults] == [b"text"] * 8


async def test_a_key_made_and_shredded_while_another_is_being_made_is_made_anew(
    keys: TappedDocuments, clock: ManualClock
) -> None:
    vault, other = Vault(keys, Keyset.parse(K1), clock), Vault(keys.inner, Keyset.parse(K1), clock)

    async def meddle(when: When, operation: str, _key: str) -> None:
        if (when, operation) == (When.BEFORE, "create"):
            keys.tap = undo
            await made(other, ME)

    async def leave_alone(_when: When, _operation: str, _key: str) -> None:
        pass

    async def undo(when: When, operation: str, _key: str) -> None:
        if (when, operation) == (When.BEFORE, "get") and await other.shred(ME):
            keys.tap = leave_alone

    keys.tap = meddle
    await made(vault, ME)
    assert keys.seen == ["get keys/acc_me", "get keys/acc_me", "create keys/acc_me"]
    assert await vault.open(ME, PLACE, await vault.seal(ME, PLACE, b"text")) == b"text"


async def test_a_shredded_key_is_gone_at_once_here(vault: Vault, keys: TappedDocuments) -> None:
    await made(vault, ME)
    sealed = await vault.seal(ME, PLACE, b"text")
    assert await vault.shred(ME) is True
    assert await keys.inner.list("keys") == []
    with pytest.raises(KeyGone):
        await vault.open(ME, PLACE, sealed)
    assert await vault.shred(ME) is False


async def test_a_shredded_key_is_not_used_here_even_where_the_answer_was_lost(
    vault: Vault, keys: TappedDocuments
) -> None:
    await made(vault, ME)
    sealed = await vault.seal(ME, PLACE, b"text")
    keys.tap = failing(1, "delete", when=When.AFTER)
    with pytest.raises(StoreUnavailable):
        await vault.shred(ME)
    with pytest.raises(KeyGone):
        await vault.open(ME, PLACE, sealed)


async def test_another_instance_loses_a_shredded_key_within_its_time(
    vault: Vault, keys: TappedDocuments, clock: ManualClock
) -> None:
    other = Vault(keys, Keyset.parse(K1), clock)
    await made(vault, ME)
    sealed = await other.seal(ME, PLACE, b"text")
    await vault.shred(ME)
    clock.advance(HELD_S - 0.001)
    assert await other.open(ME, PLACE, sealed) == b"text"
    clock.advance(0.001)
    with pytest.raises(KeyGone):
        await other.open(ME, PLACE, sealed)


async def test_a_key_that_was_slow_to_come_is_held_no_longer_for_it(
    vault: Vault, keys: TappedDocuments, clock: ManualClock
) -> None:
    await made(vault, ME)

    async def slow(when: When, operation: str, _key: str) -> None:
        if (when, operation) == (When.AFTER, "get"):
            clock.advance(HELD_S - 1)

    keys.tap = slow
    sealed = await vault.seal(ME, PLACE, b"text")
    await keys.inner.delete(f"keys/{ME}")
    assert await vault.open(ME, PLACE, sealed) == b"text"
    clock.advance(1)
    with pytest.raises(KeyGone):
        await vault.open(ME, PLACE, sealed)


async def test_what_was_sealed_before_the_account_was_linked_anew_is_gone_and_not_broken(vault: Vault) -> None:
    await made(vault, ME)
    before = await vault.seal(ME, PLACE, b"text")
    await vault.shred(ME)
    await made(vault, ME)
    with pytest.raises(KeyGone):
        await vault.open(ME, PLACE, before)
    assert await vault.open(ME, PLACE, await vault.seal(ME, PLACE, b"new")) == b"new"


async def test_an_account_linked_anew_elsewhere_opens_here_at_once(
    vault: Vault, keys: TappedDocuments, clock: ManualClock
) -> None:
    other = Vault(keys, Keyset.parse(K1), clock)
    await made(vault, ME)
    await other.seal(ME, PLACE, b"the other holds the first key")
    await vault.shred(ME)
    await made(vault, ME)
    assert await other.open(ME, PLACE, await vault.seal(ME, PLACE, b"new")) == b"new"


async def test_a_held_key_needs_neither_the_store_nor_the_loop(
    vault: Vault, keys: TappedDocuments, clock: ManualClock
) -> None:
    await made(vault, ME)
    await vault.seal(ME, PLACE, b"text")
    seen = len(keys.seen)
    clock.advance(HELD_S - 1)

    async def both() -> bytes:
        return await vault.open(ME, PLACE, await vault.seal(ME, PLACE, b"text"))

    work = both()
    with pytest.raises(StopIteration) as ended:
        work.send(None)
    assert ended.value.value == b"text"
    assert len(keys.seen) == seen


def test_a_key_that_is_not_held_is_loaded_on_the_loop(vault: Vault) -> None:
    loop = LoopThread()
    loop.run(made(vault, ME))
    assert loop.run(vault.open(ME, PLACE, loop.run(vault.seal(ME, PLACE, b"text")))) == b"text"
    loop.close()


async def test_many_who_need_a_key_at_once_load_it_once(
    vault: Vault, keys: TappedDocuments, clock: ManualClock
) -> None:
    await made(vault, ME)
    keys.seen.clear()
    await asyncio.gather(*(vault.seal(ME, PLACE, b"text") for _ in range(100)))
    assert keys.seen == ["get keys/acc_me"]


async def test_only_so_many_keys_are_held(keys: TappedDocuments, clock: ManualClock) -> None:
    vault = Vault(keys, Keyset.parse(K1), clock, max_held=2)
    await made(vault, "acc_1", "acc_2", "acc_3")
    for account in ("acc_1", "acc_2", "acc_3"):
        await vault.seal(account, PLACE, b"text")
    keys.seen.clear()
    await vault.seal("acc_3", PLACE, b"text")
    await vault.seal("acc_2", PLACE, b"text")
    assert keys.seen == []
    await vault.seal("acc_1", PLACE, b"text")
    assert keys.seen == ["get keys/acc_1"]


async def test_a_store_that_is_down_is_not_taken_for_a_key_that_is_gone(vault: Vault, keys: TappedDocuments) -> None:
    await made(vault, ME)
    keys.tap = failing(1, "get")
    with pytest.raises(StoreUnavailable) as down:
        await vault.seal(ME, PLACE, b"text")
    assert not isinstance(down.value, SealBroken)
    await vault.seal(ME, PLACE, b"the failure is not remembered")


async def test_a_key_document_of_another_account_opens_nothing(
    vault: Vault, keys: TappedDocuments, clock: ManualClock
) -> None:
    await made(vault, ME, OTHER)
    theirs = await vault.seal(OTHER, "tokens/acc_other", b"text")
    stolen = (await key_document(keys, OTHER)).body
    await keys.inner.replace(await key_document(keys, ME), stolen)
    clock.advance(HELD_S)
    for account, place in [(ME, "tokens/acc_other"), (ME, PLACE)]:
        with pytest.raises(SealBroken):
            await vault.open(account, place, theirs)
    with pytest.raises(SealBroken):
        await vault.seal(ME, PLACE, b"text")


FIELDS = ["version", "provider", "principal_digest", "key", "kid", "wrapped"]


@pytest.mark.parametrize("field", FIELDS)
async def test_no_character_of_a_key_document_can_be_changed(
    vault: Vault, keys: TappedDocuments, clock: ManualClock, field: str
) -> None:
    await made(vault, ME)
    sealed = await vault.seal(ME, PLACE, b"text")
    document = await key_document(keys, ME)
    value = document.body[field]
    spoilt = [value[:at] + chr(ord(value[at]) ^ 1) + value[at + 1 :] for at in range(len(value))]
    for other in [*spoilt, value[:-1], value + "A", "", None, 1, [value]]:
        document = await keys.inner.replace(document, {**document.body, field: other})
        clock.advance(HELD_S)
        with pytest.raises(SealBroken):
            await vault.open(ME, PLACE, sealed)


@pytest.mark.parametrize("field", FIELDS)
async def test_no_field_of_a_key_document_can_be_taken_from_another_account(
    vault: Vault, keys: TappedDocuments, clock: ManualClock, field: str
) -> None:
    await vault.create(ME, "mybmw", "me")
    await Vault(keys, Keyset.parse(K2), clock).create(OTHER, "cardata", "other")
    sealed = await vault.seal(ME, PLACE, b"text")
    document, other = await key_document(keys, ME), await key_document(keys, OTHER)
    taken = {**document.body, field: other.body[field]}
    await keys.inner.replace(document, taken)
    both = Vault(keys, Keyset.parse(f"{K1},{K2}"), clock)
    if taken == document.body:
        assert field == "version"
        return
    with pytest.raises(SealBroken):
        await both.open(ME, PLACE, sealed)


@pytest.mark.parametrize(
    "change", [lambda body: {**body, "more": ""}, lambda body: {"wrapped": body["wrapped"]}, lambda _: {}]
)
async def test_a_key_document_has_its_fields_and_no_others(vault: Vault, keys: TappedDocuments, change: Any) -> None:
    await made(vault, ME)
    document = await key_document(keys, ME)
    await keys.inner.replace(document, change(document.body))
    with pytest.raises(SealBroken):
        await vault.seal(ME, PLACE, b"text")


async def test_a_wrapped_text_that_is_no_key_is_refused(keys: TappedDocuments, clock: ManualClock) -> None:
    class Stunted(Keyset):
        async def unwrap(self, *_: Any) -> bytes:
            return b"short"

    vault = Vault(keys, Stunted([("k1", b"k" * 32)]), clock)
    await made(vault, ME)
    with pytest.raises(SealBroken) as broken:
        await vault.seal(ME, PLACE, b"text")
    assert "no key" in broken.value.reason


async def test_a_rewrapped_key_is_the_same_key_under_another_master(
    vault: Vault, keys: TappedDocuments, clock: ManualClock
) -> None:
    await made(vault, ME)
    sealed = await vault.seal(ME, PLACE, b"text")
    both = Vault(keys, Keyset.parse(f"{K2},{K1}"), clock)
    assert [await both.rewrap(ME, "k2") for _ in range(2)] == ["k1", "k2"]
    assert (await key_document(keys, ME)).body["kid"] == "k2"
    assert await Vault(keys, Keyset.parse(K2), clock).open(ME, PLACE, sealed) == b"text"
    assert await vault.open(ME, PLACE, sealed) == b"text"
    assert await both.rewrap("acc_nobody", "k2") is None


async def test_a_key_shredded_while_it_is_rewrapped_stays_shredded(
    vault: Vault, keys: TappedDocuments, clock: ManualClock
) -> None:
    await made(vault, ME)
    both = Vault(keys, Keyset.parse(f"{K2},{K1}"), clock)

    async def shred_first(when: When, operation: str, key: str) -> None:
        if (when, operation) == (When.BEFORE, "replace"):
            await keys.inner.delete(key)

    keys.tap = shred_first
    assert await both.rewrap(ME, "k2") is None
    assert await keys.inner.list("keys") == []


async def test_a_closed_vault_holds_nothing_and_answers_no_ping(vault: Vault) -> None:
    await made(vault, ME)
    await vault.seal(ME, PLACE, b"text")
    await vault.ping()
    await vault.aclose()
    for work in (vault.ping(), vault.seal(ME, PLACE, b"text")):
        with pytest.raises(StoreUnavailable):
            await work
