"""The parts of encryption at rest, from settings. Imported only where they are set."""

from dataclasses import dataclass, field
from pathlib import Path

from common.crypto.keyset import Keyset
from common.crypto.wrapping import KeyWrapper, Succession
from common.stores.documents import Documents, open_documents

_SQLITE = "sqlite:///"


@dataclass(frozen=True, slots=True)
class Sealing:
    """What a vault and sealed documents are made of."""

    keyset: Keyset
    """Seals for the deployment."""
    wrapper: KeyWrapper = field(repr=False)
    """Wraps accounts' data keys: the keyset, or Cloud KMS."""
    keys: Documents = field(repr=False)
    """Where the wrapped data keys are."""


def open_sealing(
    *,
    token_keys: str,
    documents_url: str,
    keys_url: str | None = None,
    kms_key: str | None = None,
    kms_endpoint: str | None = None,
    gcs_endpoint: str | None = None,
) -> Sealing:
    """Build the parts, without touching anything yet. Raises ValueError, which repeats no key.

    With ``kms_key`` data keys are wrapped by Cloud KMS, and those wrapped under ``token_keys`` before still open.
    """
    keyset = Keyset.parse(token_keys)
    wrapper: KeyWrapper = keyset
    if kms_key is not None:
        from common.crypto.kms import KmsWrapper  # noqa: PLC0415 - load only the wrapper in use

        wrapper = Succession([KmsWrapper(kms_key, kms_endpoint), keyset])
    return Sealing(keyset, wrapper, _open_keys(_keys_url(documents_url, keys_url), gcs_endpoint))


def _keys_url(documents_url: str, keys_url: str | None) -> str:
    if keys_url is None:
        if not documents_url.startswith(_SQLITE):
            raise ValueError("KEYS_URL must be set: a bucket of its own, without versions, soft delete and backups")
        path = Path(documents_url.removeprefix(_SQLITE))
        return f"{_SQLITE}{path.with_suffix('')}.keys{path.suffix}"
    if _place(keys_url) == _place(documents_url):
        raise ValueError("KEYS_URL must name another store than DOCUMENTS_URL: a backup of both would undo shredding")
    return keys_url


def _place(url: str) -> str:
    """The file or the bucket: backups and versions are made of these, not of prefixes in them."""
    if url.startswith(_SQLITE):
        return str(Path(url.removeprefix(_SQLITE)).resolve())
    return "/".join(url.split("/")[:3])


def _open_keys(url: str, gcs_endpoint: str | None) -> Documents:
    store = open_documents(url, gcs_endpoint=gcs_endpoint)
    if url.startswith(_SQLITE):
        from common.stores.erasing import ErasingSqliteDocuments  # noqa: PLC0415 - load only the store in use

        return ErasingSqliteDocuments(Path(url.removeprefix(_SQLITE)))
    return store
