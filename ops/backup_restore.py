"""Putting a backup's documents into a store: an empty one, or one that a service works on.

Nothing that is there is set back: a document is created where there is none and otherwise stays, unless it is known to
be the older one (:mod:`ops.backup_merge`). So a restore does no harm beside a live service, and one that was cut short
is started again. The order keeps what is half done out of everybody's way: links first, for without its link an
account is not there, and heads of audit chains before their entries, so that a writer goes on behind what is still
to come. An identity whose link is gone by then is taken back.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Callable
from typing import Final

from common.crypto.errors import KeyGone, SealBroken
from common.stores.documents import Body, Document, DocumentExists, Documents, VersionConflict
from common.vault import COLLECTION
from functions.audit import head_key
from ops.backup_chains import place_of, reach_of
from ops.backup_merge import is_newer
from ops.backup_records import IDENTITIES, collection_of
from ops.backup_survey import LINKS, Backup, Opened, Survey

Say = Callable[[str], None]

_AT_ONCE: Final = 16
_BATCH: Final = 500


class Restore:
    """One restore into ``documents``, which seal what they are given under the accounts' ``keys``."""

    def __init__(self, backup: Backup, survey: Survey, documents: Documents, keys: Documents, say: Say) -> None:
        self._backup = backup
        self._survey = survey
        self._documents = documents
        self._keys = keys
        self._say = say
        self._links: dict[str, str] = {}
        self._ending = set(survey.ended)
        self._reach: dict[str, float] = {}
        self.done: Counter[str] = Counter()
        """``created``, ``advanced`` (an older one was replaced), ``kept`` (what was there), ``left out``."""
        self.unreadable: dict[str, str] = {}
        """Documents of the store that are in the way and do not open, and why."""

    async def run(self) -> None:
        """Do it. Raises Damaged, Foreign, StoreUnavailable; then start again."""
        for is_first, name in ((True, "links and heads of audit chains"), (False, "everything else")):
            self._say(f"restoring {name}")
            batch: list[Opened] = []
            async for document in self._backup.documents():
                if _is_first(document) is not is_first:
                    continue
                batch.append(document)
                if len(batch) == _BATCH:
                    await self._put_all(batch)
                    batch = []
            await self._put_all(batch)

    async def _put_all(self, batch: list[Opened]) -> None:
        limit = asyncio.Semaphore(_AT_ONCE)

        async def one(document: Opened) -> str:
            async with limit:
                try:
                    return await self._restored(document)
                except KeyGone:  # disconnected since the survey
                    return "left out"
                except SealBroken as broken:
                    self.unreadable[document.key] = broken.reason
                    return "kept"

        self.done += Counter(await asyncio.gather(*map(one, batch)))

    async def _restored(self, document: Opened) -> str:
        collection = collection_of(document.key)
        if document.account is not None and not self._is_wanted(document.account, collection):
            return "left out"
        place = place_of(document.key)
        if place is not None and place.seq is not None and place.seq > await self._reach_of(place.chain):
            return "left out"
        done = await self._put(document.key, document.body)
        if collection == LINKS and document.account is not None:
            await self._remember_link(document.account, document.key)
        if place is not None and place.seq is None:
            await self._remember_head(place.chain, document)
        if collection == IDENTITIES and done == "created" and not await self._is_linked(document.account or ""):
            await self._take_back(document.key, document.body)
            return "left out"
        return done

    def _is_wanted(self, account: str, collection: str) -> bool:
        if account in self._ending:
            # Enough for the service to finish the disconnect.
            return account in self._survey.ended and collection in (LINKS, IDENTITIES)
        return account in self._survey.accounts

    async def _remember_link(self, account: str, key: str) -> None:
        self._links[account] = key
        stored = await self._documents.get(key)
        if stored is None or stored.body["ending"]:
            self._ending.add(account)

    async def _is_linked(self, account: str) -> bool:
        key = self._links.get(account)
        stored = await self._documents.get(key) if key is not None else None
        if stored is None or (stored.body["ending"] and account not in self._survey.ended):
            return False
        # From the store: one that was shredded just now may still be held in memory.
        return await self._keys.get(f"{COLLECTION}/{account}") is not None

    async def _take_back(self, key: str, body: Body) -> None:
        stored = await self._documents.get(key)
        if stored is not None and stored.body == body:
            try:
                await self._documents.delete(key, stored.version)
            except VersionConflict:
                return  # it names another account by now

    async def _remember_head(self, chain: str, document: Opened) -> None:
        stored = await self._documents.get(document.key)
        # A writer that was stopped leaves an entry behind the head; it fits behind no other head.
        interrupted = 1 if stored is not None and stored.body == document.body else 0
        self._reach[chain] = reach_of(stored.body) + interrupted if stored is not None else 0

    async def _reach_of(self, chain: str) -> float:
        """The last entry that may be put into a chain: what is behind its head is the writers'."""
        if chain not in self._reach:
            # Without a head in the backup it was broken then. Without any it is kept as it was, as evidence.
            stored = await self._documents.get(head_key(chain))
            self._reach[chain] = reach_of(stored.body) if stored is not None else math.inf
        return self._reach[chain]

    async def _put(self, key: str, body: Body) -> str:
        while True:
            try:
                await self._documents.create(key, body)
            except DocumentExists:
                stored = await self._documents.get(key)
                if stored is None:
                    continue  # deleted meanwhile
                if not is_newer(key, body, stored.body):
                    return "kept"
                if await self._replaced(stored, body):
                    return "advanced"
            else:
                return "created"

    async def _replaced(self, stored: Document, body: Body) -> bool:
        try:
            await self._documents.replace(stored, body)
        except VersionConflict:
            return False
        return True


def _is_first(document: Opened) -> bool:
    place = place_of(document.key)
    return collection_of(document.key) == LINKS or (place is not None and place.seq is None)
