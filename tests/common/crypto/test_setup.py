"""Where the data keys are kept and what wraps them, from settings."""

from pathlib import Path

import pytest

from common.crypto.keyset import Keyset
from common.crypto.setup import open_sealing
from common.crypto.wrapping import Succession
from common.stores.erasing import ErasingSqliteDocuments
from common.stores.gcs import GcsDocuments
from tests.common.crypto.masters import K1


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


@pytest.mark.parametrize(("documents", "keys"), [("x.db", "x.keys.db"), ("a.b.db", "a.b.keys.db"), ("x", "x.keys")])
async def test_beside_a_file_of_documents_the_keys_have_a_file_of_their_own(
    tmp_path: Path, documents: str, keys: str
) -> None:
    sealing = open_sealing(token_keys=K1, documents_url=f"sqlite:///{tmp_path}/{documents}")
    assert names(tmp_path) == set()
    await sealing.keys.create("keys/acc_1", {})
    assert isinstance(sealing.keys, ErasingSqliteDocuments)
    assert names(tmp_path) == {keys, f"{keys}-wal", f"{keys}-shm"}
    await sealing.keys.aclose()


async def test_the_keys_are_kept_where_it_is_said(tmp_path: Path) -> None:
    sealing = open_sealing(
        token_keys=K1, documents_url="gs://documents/production", keys_url=f"sqlite:///{tmp_path}/keys.db"
    )
    await sealing.keys.create("keys/acc_1", {})
    assert (tmp_path / "keys.db").is_file()
    await sealing.keys.aclose()
    bucket = open_sealing(token_keys=K1, documents_url="gs://documents/production", keys_url="gs://keys").keys
    assert isinstance(bucket, GcsDocuments)


@pytest.mark.parametrize(
    ("documents_url", "keys_url", "match"),
    [
        ("gs://documents/production", None, "KEYS_URL must be set"),
        ("gs://documents/production", "gs://documents/keys", "another store"),
        ("sqlite:///x.db", "sqlite:///./x.db", "another store"),
        ("sqlite:///x.db", "x.keys.db", "document store"),
        ("sqlite:///x.db", "", "document store"),
    ],
)
def test_keys_are_never_kept_with_the_documents(documents_url: str, keys_url: str | None, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        open_sealing(token_keys=K1, documents_url=documents_url, keys_url=keys_url)


async def test_the_keyset_wraps_unless_a_kms_key_is_named() -> None:
    plain = open_sealing(token_keys=K1, documents_url="sqlite:///x.db")
    assert plain.wrapper is plain.keyset
    with_kms = open_sealing(
        token_keys=K1, documents_url="sqlite:///x.db", kms_key="projects/p/locations/l/keyRings/r/cryptoKeys/k"
    )
    assert isinstance(with_kms.wrapper, Succession)
    assert isinstance(with_kms.keyset, Keyset)
    old = await plain.wrapper.wrap(b"d" * 32, b"")
    assert await with_kms.wrapper.unwrap(old, b"") == b"d" * 32


def test_the_parts_do_not_show_themselves() -> None:
    assert repr(open_sealing(token_keys=K1, documents_url="sqlite:///x.db")) == "Sealing(keyset=Keyset(k1))"
