"""What a backup says of a document, and who can read it there.

A document is opened and sealed anew for the backup: one of an account under the account's own data key, together with
its name, so that nothing of an account can be read from any backup once its key is shredded; any other only under the
backup's own key. What names an account (``identities``, ``claims`` of its commands) counts as the account's. A backup
holds no data keys, and needs no master key but the one that its header names.
"""

from typing import Final

import orjson

from common.crypto.encoding import from_text
from common.crypto.errors import SealBroken
from common.crypto.keyset import Keyset
from common.stores.documents import Body, Document
from common.stores.sealed import open_for_deployment
from common.vault import Vault
from functions.command_record import account_of as account_of_command
from functions.storage import OF_ACCOUNTS, PLAIN
from ops.backup_file import Record

LEFT_OUT: Final = frozenset({"slots", "confirmations", "lockouts"})
"""Collections that hold for minutes, or a day, and would do harm later: a one-time code that has been used would work
again, a lockout would outlive the account that it names."""
IDENTITIES: Final = "identities"
CLAIMS: Final = "claims"


class Records:
    """Turns stored documents into records of the backup ``backup_id`` and back."""

    def __init__(self, vault: Vault, keyset: Keyset, backup_id: str) -> None:
        self._vault = vault
        self._keyset = keyset
        self._place = f"backup/{backup_id}"

    async def close(self, document: Document) -> Record:
        """The record of a document as it is stored, sealed.

        Raises KeyGone where it is an account's that was ended, SealBroken where it does not open, StoreUnavailable.
        """
        body = await self._opened(document)
        account = account_of(document.key, body)
        payload = orjson.dumps([document.key, body])
        if account is None:
            return Record("", payload)
        return Record(account, await self._vault.seal(account, self._place, payload))

    async def open(self, record: Record) -> tuple[str, Body]:
        """A document's key and its body. Raises as :meth:`close`."""
        payload = record.payload
        if record.account:
            payload = await self._vault.open(record.account, self._place, payload)
        key, body = orjson.loads(payload)
        return key, body

    async def _opened(self, document: Document) -> Body:
        collection = collection_of(document.key)
        if collection in PLAIN:
            return document.body
        account_of_key = OF_ACCOUNTS.get(collection)
        if account_of_key is None:
            plain = open_for_deployment(self._keyset, document)
        else:
            account = account_of_key(document.key)
            if account is None:
                raise SealBroken("its key names no account")
            plain = await self._vault.open(account, document.key, from_text(document.body.get("sealed")))
        body: Body = orjson.loads(plain)
        return body


def collection_of(key: str) -> str:
    """The first part of a document's key."""
    return key.partition("/")[0]


def account_of(key: str, body: Body) -> str | None:
    """Whose document it is; None for one of the deployment's own."""
    collection = collection_of(key)
    if collection == IDENTITIES:
        return str(body["account"])
    if collection == CLAIMS:
        # A whole batch's names no account.
        return account_of_command(body["command_id"]) if body.get("command_id") else None
    find = OF_ACCOUNTS.get(collection)
    return find(key) if find is not None else None
