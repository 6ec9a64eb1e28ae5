"""The document store as this service uses it: whose key seals which collection, and what ends with an account."""

from collections.abc import Mapping
from typing import Final, Protocol

from common.clock import Clock
from common.crypto.errors import KeyGone
from common.settings import Settings
from common.stores.documents import Documents, open_documents
from common.stores.sealed import AccountOf, OnBroken, SealedDocuments, segment

UNDER_THE_ACCOUNT: Final = ("commands", "confirmations", "cardata", "signals")
"""Collections whose documents are kept by account and end with it. Not those that protect a car or a caller from what
was done through an account that has ended: ``claims``, ``slots`` and ``caps``."""
OF_ACCOUNTS: Final[Mapping[str, AccountOf]] = {
    "tokens": segment(1),
    "links": segment(2),
    "streams": segment(1),
    **dict.fromkeys(UNDER_THE_ACCOUNT, segment(1)),
}
"""Sealed under the account's own data key; how a document's key names the account. All others are sealed under the
deployment's."""
PLAIN: Final = frozenset({"audit"})
"""Not sealed: the audit trail outlives accounts, holds nothing but digests and has a seal of its own."""


class AccountKeys(Protocol):
    """The accounts' data keys: without its key nothing that is sealed for an account can be read."""

    async def create(self, account_id: str, provider: str, principal: str) -> None:
        """Make the account's key, if it has none yet."""
        ...

    async def shred(self, account_id: str) -> bool:
        """Delete it for good."""
        ...

    def forget(self, account_id: str) -> None:
        """Hold it in memory no longer."""
        ...

    async def seal(self, account_id: str, place: str, plaintext: bytes) -> bytes:
        """Seal something for the account, at this place only."""
        ...

    async def open(self, account_id: str, place: str, sealed: bytes) -> bytes:
        """What :meth:`seal` was given; raises KeyGone, SealBroken, StoreUnavailable."""
        ...


class NoKeys:
    """For a deployment that lets nobody in, and for tests that seal nothing."""

    async def create(self, account_id: str, provider: str, principal: str) -> None:
        """Make nothing."""

    async def shred(self, account_id: str) -> bool:  # noqa: ARG002 - the port's signature
        """There is none."""
        return False

    def forget(self, account_id: str) -> None:
        """There is none."""

    async def seal(self, account_id: str, place: str, plaintext: bytes) -> bytes:  # noqa: ARG002 - the port's
        """Nothing is sealed without keys."""
        raise KeyGone

    async def open(self, account_id: str, place: str, sealed: bytes) -> bytes:  # noqa: ARG002 - the port's
        """Nothing is opened without keys."""
        raise KeyGone


def naming_key(settings: Settings) -> bytes:
    """For :class:`functions.vehicle_names.VehicleNames`; empty without master keys, where nothing is kept."""
    if not settings.token_keys:
        return b""
    from common.crypto.keyset import Keyset  # noqa: PLC0415 - cryptography, where something is sealed

    return Keyset.parse(settings.token_keys).naming_key


def open_storage(
    settings: Settings,
    clock: Clock,
    *,
    inner: Documents | None = None,
    on_broken: OnBroken = lambda _collection, _reason: None,
) -> tuple[Documents, AccountKeys]:
    """The documents, sealed, and the accounts' keys; touches nothing yet. Raises ValueError.

    Without master keys nobody is let in (the settings see to that), and so nothing is ever written.
    """
    inner = inner or open_documents(settings.documents_url, gcs_endpoint=settings.gcs_endpoint)
    if not settings.token_keys:
        return inner, NoKeys()
    from common.crypto.setup import open_sealing  # noqa: PLC0415 - cryptography, where something is sealed
    from common.vault import Vault  # noqa: PLC0415

    sealing = open_sealing(
        token_keys=settings.token_keys,
        documents_url=settings.documents_url,
        keys_url=settings.keys_url,
        kms_key=settings.kms_key,
        kms_endpoint=settings.kms_endpoint,
        gcs_endpoint=settings.gcs_endpoint,
    )
    vault = Vault(sealing.keys, sealing.wrapper, clock)
    documents = SealedDocuments(
        inner,
        vault,
        sealing.keyset,
        accounts=OF_ACCOUNTS,
        plain=PLAIN,
        on_broken=on_broken,
    )
    return documents, vault
