"""Reading a backup to its end before anything is done with it: whether it is whole, and which accounts live on.

An account that was disconnected since the backup has no data key: nothing of it can be read. Of one whose disconnect
had begun only what names it is of use, so that the service finishes the disconnect. One without a link was being
linked or unlinked while a bucket was read: nobody could reach it.
"""

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from common.crypto.errors import KeyGone, SealBroken
from common.crypto.keyset import Keyset
from common.stores.documents import Body
from common.vault import Vault
from ops.backup_file import BackupReader, Damaged, Header, Manifest, Record
from ops.backup_records import Records, account_of, collection_of

LINKS = "links"


@dataclass(frozen=True, slots=True)
class Opened:
    """A document of a backup."""

    key: str
    body: Body = field(repr=False)
    account: str | None
    """Whose it is; None for one of the deployment's own."""


@dataclass
class Survey:
    """What a backup holds and what of it can be had."""

    header: Header
    manifest: Manifest
    documents: Counter[str]
    """Those that open, by collection."""
    accounts: set[str]
    """Those that live on."""
    ended: set[str]
    """Those whose disconnect had begun."""
    linkless: set[str]
    gone: set[str]
    """Those without a data key."""
    broken: int
    """Records that do not open although their account has a key."""


class Backup:
    """A backup in a file, and the keys of the deployment that it was made of."""

    def __init__(self, path: Path, vault: Vault, keyset: Keyset) -> None:
        self._path = path
        self._vault = vault
        self._keyset = keyset

    async def survey(self) -> Survey:
        """Read it to its end. Raises Damaged, Foreign, StoreUnavailable, OSError."""
        documents: Counter[str] = Counter()
        met: Counter[str] = Counter()
        gone: set[str] = set()
        linked: set[str] = set()
        ended: set[str] = set()
        broken = 0
        with self._path.open("rb") as file:
            reader = BackupReader(file, self._keyset)
            records = Records(self._vault, self._keyset, reader.header.id)
            total = 0
            for record in reader.records():
                total += 1
                met[record.account] += 1
                try:
                    document = await _opened(records, record)
                except KeyGone:
                    gone.add(record.account)
                    continue
                except SealBroken:
                    broken += 1
                    continue
                documents[collection_of(document.key)] += 1
                if document.account and collection_of(document.key) == LINKS:
                    (ended if document.body["ending"] else linked).add(document.account)
            manifest = reader.manifest
        if total != sum(manifest.documents.values()):
            raise Damaged("it does not hold what its end says")
        accounts = set(met) - {""} - gone
        return Survey(
            header=reader.header,
            manifest=manifest,
            documents=documents,
            accounts=accounts & linked,
            ended=accounts & ended,
            linkless=accounts - linked - ended,
            gone=gone,
            broken=broken,
        )

    async def documents(self) -> AsyncIterator[Opened]:
        """Every document that opens. Raises as :meth:`survey`."""
        with self._path.open("rb") as file:
            reader = BackupReader(file, self._keyset)
            records = Records(self._vault, self._keyset, reader.header.id)
            for record in reader.records():
                try:
                    yield await _opened(records, record)
                except (KeyGone, SealBroken):
                    continue


async def _opened(records: Records, record: Record) -> Opened:
    key, body = await records.open(record)
    return Opened(key, body, account_of(key, body))
