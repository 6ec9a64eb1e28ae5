"""The one container of a customer: BMW's list of what a reading asks for.

BMW allows ten a customer and forgets none for a month, so none may be made twice. It is found again by name and
purpose, where the version stands; its id is kept; and before one is made, a claim is put in the store, so that of
several instances one makes it. Killed in between, the claim lapses, and the next one finds the container in BMW's list.
"""

import contextlib
from datetime import datetime, timedelta
from typing import Any, Final

from common.clock import Clock
from common.errors import StoreUnavailable
from common.stores.documents import Document, DocumentExists, Documents, VersionConflict
from functions.providers.cardata.descriptors import CONTAINER, CONTAINER_NAME, CONTAINER_PURPOSE
from functions.providers.cardata.failures import CarDataBusy, CarDataInvalidReply
from functions.providers.cardata.rest import Rest, object_of
from functions.providers.port import Account

ENDPOINT: Final = "/customers/containers"
CLAIM_S: Final = 60.0
"""Longer than finding and making one may take."""
_MAX_HELD: Final = 10_000


class ContainerBook:
    """The ids of the containers, under ``cardata/<account id>/container``."""

    def __init__(self, rest: Rest, documents: Documents, clock: Clock) -> None:
        self._rest = rest
        self._documents = documents
        self._clock = clock
        self._held: dict[str, str] = {}

    async def get(self, account: Account, *, is_forced: bool = False) -> str:
        """The id of the container; where it is not known, it is found (one request) or made (one more).

        Raises CarDataBusy where another instance is at it, PreconditionFailed where BMW holds ten already.
        """
        held = self._held.get(account.id)
        if held is not None:
            return held
        document = await self._documents.get(_key(account.id))
        if document is not None and document.body["purpose"] == CONTAINER_PURPOSE and document.body["id"]:
            return self._hold(account.id, document.body["id"])
        return await self._found(account, document, is_forced=is_forced)

    async def renew(self, account: Account, gone: str, *, is_forced: bool = False) -> str:
        """Another container than ``gone``, which BMW does not know any more."""
        self.forget(account.id)
        document = await self._documents.get(_key(account.id))
        if document is not None and document.body["id"] not in (None, gone):
            return self._hold(account.id, document.body["id"])
        return await self._found(account, document, is_forced=is_forced, gone=gone)

    def forget(self, account_id: str) -> None:
        """Drop what is held in memory."""
        self._held.pop(account_id, None)

    async def _found(
        self, account: Account, before: Document | None, *, is_forced: bool, gone: str | None = None
    ) -> str:
        claim = await self._claim(account.id, before)
        try:
            container_id = await self._listed(account, gone, is_forced=is_forced)
            if container_id is None:
                container_id = await self._made(account, is_forced=is_forced)
        except BaseException:
            with contextlib.suppress(StoreUnavailable):
                await self._documents.delete(claim.key)
            raise
        # It is there, whatever becomes of our note of it: BMW's list will tell again.
        with contextlib.suppress(StoreUnavailable, VersionConflict):
            await self._documents.replace(
                claim, {"id": container_id, "purpose": CONTAINER_PURPOSE, "claimed_until": None}
            )
        return self._hold(account.id, container_id)

    async def _claim(self, account_id: str, before: Document | None) -> Document:
        now = self._clock.utc()
        claimed_until = before.body["claimed_until"] if before is not None else None
        if claimed_until is not None and datetime.fromisoformat(claimed_until) > now:
            raise CarDataBusy(retry_after_s=5)
        until = (now + timedelta(seconds=CLAIM_S)).isoformat()
        body = {"id": None, "purpose": CONTAINER_PURPOSE, "claimed_until": until}
        try:
            if before is None:
                return await self._documents.create(_key(account_id), body)
            return await self._documents.replace(before, body)
        except (DocumentExists, VersionConflict) as other:
            raise CarDataBusy(retry_after_s=5) from other

    async def _listed(self, account: Account, gone: str | None, *, is_forced: bool) -> str | None:
        listed = object_of(await self._rest.get(account, ENDPOINT, is_forced=is_forced)).get("containers")
        if not isinstance(listed, list):
            raise CarDataInvalidReply
        for entry in listed:
            if isinstance(entry, dict) and _is_ours(entry) and entry.get("containerId") != gone:
                return _id_of(entry)
        return None

    async def _made(self, account: Account, *, is_forced: bool) -> str:
        wanted = {"name": CONTAINER_NAME, "purpose": CONTAINER_PURPOSE, "technicalDescriptors": list(CONTAINER)}
        return _id_of(object_of(await self._rest.post(account, ENDPOINT, wanted, is_forced=is_forced)))

    def _hold(self, account_id: str, container_id: str) -> str:
        if len(self._held) >= _MAX_HELD:
            del self._held[next(iter(self._held))]
        self._held[account_id] = container_id
        return container_id


def _is_ours(entry: dict[str, Any]) -> bool:
    return (
        entry.get("name") == CONTAINER_NAME
        and entry.get("purpose") == CONTAINER_PURPOSE
        and entry.get("state", "ACTIVE") == "ACTIVE"
    )


def _id_of(entry: dict[str, Any]) -> str:
    container_id = entry.get("containerId")
    if not isinstance(container_id, str) or not container_id:
        raise CarDataInvalidReply
    return container_id


def _key(account_id: str) -> str:
    return f"cardata/{account_id}/container"
