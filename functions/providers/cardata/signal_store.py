"""Signals, and the stream's sign of life, on the document store."""

from datetime import datetime

from common.loops import needs_loop
from common.stores.documents import Body, DocumentExists, Documents, update
from functions.providers.cardata.names import vin_digest
from functions.providers.cardata.signals import Signals, from_body, merge, to_body

_ATTEMPTS = 20


class DocumentSignals:
    """Implements :class:`functions.providers.cardata.signals.SignalStore`: ``signals/<account>/<digest of VIN>``."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    async def load(self, account_id: str, vin: str) -> Signals:
        """What is known of a car; empty where nothing is."""
        await needs_loop()
        document = await self._documents.get(_key(account_id, vin))
        return from_body(document.body) if document is not None else {}

    async def upsert(self, account_id: str, vin: str, incoming: Signals) -> Signals:
        """Merge ``incoming`` into what is known, and return all of it."""
        await needs_loop()
        key = _key(account_id, vin)

        def change(body: Body) -> Body | None:
            merged = to_body(merge(from_body(body), incoming))
            return None if merged == body else merged

        while True:
            document = await update(self._documents, key, change, attempts=_ATTEMPTS)
            if document is None:
                try:
                    document = await self._documents.create(key, to_body(merge({}, incoming)))
                except DocumentExists:
                    continue
            return from_body(document.body)


class StreamWatch:
    """Until when an account's stream is known to be up: ``cardata/<account id>/stream``, written by who holds it."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    async def until(self, account_id: str) -> datetime | None:
        """``None`` where it never was."""
        await needs_loop()
        document = await self._documents.get(f"cardata/{account_id}/stream")
        return datetime.fromisoformat(document.body["until"]) if document is not None else None

    async def beat(self, account_id: str, until: datetime) -> None:
        """Say that the stream is up, and will be heard of again before ``until``."""
        await needs_loop()
        key, body = f"cardata/{account_id}/stream", {"until": until.isoformat()}
        while await update(self._documents, key, lambda _old: body) is None:
            try:
                await self._documents.create(key, body)
            except DocumentExists:
                continue
            return


def _key(account_id: str, vin: str) -> str:
    return f"signals/{account_id}/{vin_digest(account_id, vin)}"
