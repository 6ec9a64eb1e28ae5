"""Wrapping by Cloud KMS, spoken to over real HTTP."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common.clock import ManualClock
from common.crypto.errors import SealBroken
from common.crypto.keyset import Keyset
from common.crypto.kms import KmsWrapper
from common.crypto.wrapping import Succession, WrappedKey
from common.errors import StoreUnavailable
from common.loops import LoopThread
from common.vault import HELD_S, Vault
from tests.common.crypto.fake_kms import KEY_NAME, Answer, FakeKms, running_fake_kms
from tests.common.crypto.masters import K1
from tests.support.tapped_documents import TappedDocuments

DATA_KEY = b"d" * 32


@pytest.fixture
def kms() -> Iterator[FakeKms]:
    with running_fake_kms() as server:
        yield server


@pytest.fixture
def wrapper(kms: FakeKms) -> KmsWrapper:
    return KmsWrapper(KEY_NAME, kms.url)


async def test_what_was_wrapped_unwraps_in_its_context_only(wrapper: KmsWrapper, kms: FakeKms) -> None:
    wrapped = await wrapper.wrap(DATA_KEY, b"here")
    assert wrapped.kid == f"kms:{KEY_NAME}/cryptoKeyVersions/1"
    assert DATA_KEY not in wrapped.blob
    assert await wrapper.unwrap(wrapped, b"here") == DATA_KEY
    with pytest.raises(SealBroken):
        await wrapper.unwrap(wrapped, b"there")
    with pytest.raises(SealBroken):
        await wrapper.unwrap(WrappedKey(wrapped.kid, wrapped.blob[:-1]), b"here")
    assert len(kms.requests) == 4


async def test_what_another_master_wrapped_is_not_sent_to_kms(wrapper: KmsWrapper, kms: FakeKms) -> None:
    for kid in ("k1", f"kms:{KEY_NAME}-2/cryptoKeyVersions/1"):
        with pytest.raises(SealBroken):
            await wrapper.unwrap(WrappedKey(kid, b"blob"), b"")
    assert kms.requests == []


async def test_a_new_version_wraps_and_the_old_one_still_unwraps(wrapper: KmsWrapper, kms: FakeKms) -> None:
    old = await wrapper.wrap(DATA_KEY, b"")
    kms.primary = 2
    assert await wrapper.active_kid() == f"kms:{KEY_NAME}/cryptoKeyVersions/2"
    assert await wrapper.unwrap(old, b"") == DATA_KEY
    kms.disabled = {1}
    with pytest.raises(SealBroken) as broken:
        await wrapper.unwrap(old, b"")
    assert "disabled or destroyed" in broken.value.reason


def changed(**fields: Any) -> Any:
    def spoil(answer: Answer) -> Answer:
        return answer[0], {**answer[1], **fields}

    return spoil


@pytest.mark.parametrize(
    "fields",
    [
        {"verifiedPlaintextCrc32c": False},
        {"verifiedAdditionalAuthenticatedDataCrc32c": False},
        {"ciphertextCrc32c": "1"},
        {"ciphertext": "AAAA"},
        {"name": "projects/other/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1"},
    ],
)
async def test_a_wrap_that_was_garbled_on_the_way_is_not_used(
    wrapper: KmsWrapper, kms: FakeKms, fields: dict[str, Any]
) -> None:
    kms.spoil = changed(**fields)
    with pytest.raises(StoreUnavailable):
        await wrapper.wrap(DATA_KEY, b"")


async def test_an_unwrapped_key_that_was_garbled_on_the_way_is_not_used(wrapper: KmsWrapper, kms: FakeKms) -> None:
    wrapped = await wrapper.wrap(DATA_KEY, b"")
    for fields in ({"plaintextCrc32c": "1"}, {"plaintext": "AAAA"}):
        kms.spoil = changed(**fields)
        with pytest.raises(StoreUnavailable) as garbled:
            await wrapper.unwrap(wrapped, b"")
        assert not isinstance(garbled.value, SealBroken)


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503, 0])
async def test_kms_out_of_reach_is_an_unavailable_store_and_not_a_broken_seal(
    wrapper: KmsWrapper, kms: FakeKms, status: int
) -> None:
    wrapped = await wrapper.wrap(DATA_KEY, b"")
    kms.requests.clear()
    kms.spoil = lambda _: (status, {"error": {"code": status, "message": "no", "status": "UNKNOWN"}})
    for work in (wrapper.wrap(DATA_KEY, b""), wrapper.unwrap(wrapped, b"")):
        with pytest.raises(StoreUnavailable) as down:
            await work
        assert not isinstance(down.value, SealBroken)
    if status:
        assert len(kms.requests) == 2, "each is asked for once"


async def test_a_vault_over_kms_asks_it_once_while_it_holds_the_key(
    keys: TappedDocuments, clock: ManualClock, kms: FakeKms
) -> None:
    before = Vault(keys, Keyset.parse(K1), clock)
    await before.create("acc_old", "mybmw", "me")
    sealed = await before.seal("acc_old", "tokens/acc_old", b"text")
    wrapper = Succession([KmsWrapper(KEY_NAME, kms.url), Keyset.parse(K1)])
    vault = Vault(keys, wrapper, clock)
    assert await vault.open("acc_old", "tokens/acc_old", sealed) == b"text"
    assert kms.requests == []
    assert await vault.rewrap("acc_old", await wrapper.active_kid()) == "k1"
    kms.requests.clear()
    clock.advance(HELD_S)
    for _ in range(10):
        assert await vault.open("acc_old", "tokens/acc_old", sealed) == b"text"
    assert len(kms.requests) == 1


def test_a_server_thread_moves_to_the_loop_before_it_asks(wrapper: KmsWrapper) -> None:
    loop = LoopThread()
    wrapped = loop.run(wrapper.wrap(DATA_KEY, b""))
    assert loop.run(wrapper.unwrap(wrapped, b"")) == DATA_KEY
    loop.close()


def test_cryptography_and_kms_are_loaded_only_where_they_are_used() -> None:
    program = """
import sys
import common.settings, common.stores.documents, common.stores.sealed
assert "cryptography" not in sys.modules
import common.crypto.kms, common.crypto.setup, common.vault
common.crypto.kms.KmsWrapper("key")
assert not [name for name in sys.modules if name.startswith(("google.cloud.", "google.api_core", "grpc", "aiosqlite"))]
"""
    subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[3], check=True)
