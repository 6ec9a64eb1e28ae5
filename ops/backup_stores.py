"""The stores that a backup is made of and restored to, as the service's own settings name them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from common.clock import Clock
from common.crypto.keyset import Keyset
from common.crypto.setup import open_sealing
from common.settings import Settings
from common.stores.documents import Documents, open_documents
from common.stores.sealed import SealedDocuments
from common.vault import Vault
from functions.storage import OF_ACCOUNTS, PLAIN
from ops.keys_command import Refused


@dataclass(frozen=True, slots=True)
class Stores:
    """All of them, open."""

    inner: Documents
    """The documents as they are stored."""
    sealed: Documents
    """The documents as the service has them."""
    keys: Documents
    """The accounts' wrapped data keys."""
    vault: Vault
    keyset: Keyset


@asynccontextmanager
async def opened(settings: Settings, clock: Clock) -> AsyncIterator[Stores]:
    """The stores, closed in the end. Raises Refused where the settings name none."""
    if not settings.token_keys:
        raise Refused("TOKEN_KEYS must be set, as the service has it")
    try:
        sealing = open_sealing(
            token_keys=settings.token_keys,
            documents_url=settings.documents_url,
            keys_url=settings.keys_url,
            kms_key=settings.kms_key,
            kms_endpoint=settings.kms_endpoint,
            gcs_endpoint=settings.gcs_endpoint,
        )
        inner = open_documents(settings.documents_url, gcs_endpoint=settings.gcs_endpoint)
    except ValueError as unusable:
        raise Refused(f"DOCUMENTS_URL, KEYS_URL, TOKEN_KEYS: {unusable}") from unusable
    vault = Vault(sealing.keys, sealing.wrapper, clock)
    sealed = SealedDocuments(inner, vault, sealing.keyset, accounts=OF_ACCOUNTS, plain=PLAIN)
    try:
        yield Stores(inner, sealed, sealing.keys, vault, sealing.keyset)
    finally:
        await sealed.aclose()


def check_file(url: str) -> None:
    """Raise Refused where there is no file: opening would make an empty one."""
    path = url.removeprefix("sqlite:///")
    if path != url and not Path(path).is_file():
        raise Refused(f"DOCUMENTS_URL: there is no file {path}")
