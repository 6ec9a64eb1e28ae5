"""What came in and is not in the document store yet, kept in the shared store for a killed worker's successor.

One value an account, sealed under the account's key, written over as more comes in. It stays when all of it is stored:
storing it once more changes nothing, and not deleting it spares a round trip a message.
"""

import asyncio
import hashlib
from collections.abc import Mapping
from typing import Final

import orjson

from common.crypto.errors import KeyGone, SealBroken
from common.errors import ApiError
from common.stores.shared import Shared, SharedUnavailable
from functions.providers.cardata.signals import Signals, from_body, to_body
from functions.storage import AccountKeys

_TTL_S: Final = 3_600.0
"""Longer than anybody takes to take over, and to reach the document store again."""
_AT_ONCE: Final = 16
"""Fewer than the shared store has connections: waiting for one there would count as its failure."""


class Journal:
    """Ephemeral, as the shared store is: where it fails, the document store is written at once."""

    def __init__(self, shared: Shared, seal: AccountKeys) -> None:
        self._shared = shared
        self._seal = seal
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def keep(self, account_id: str, pending: Mapping[str, Signals]) -> bool:
        """Hold ``pending``, by VIN, in place of what was held before; whether that was done. Raises KeyGone."""
        place = _place(account_id)
        plain = orjson.dumps({vin: to_body(signals) for vin, signals in pending.items()})
        try:
            sealed = await self._seal.seal(account_id, place, plain)
            async with self._turns:
                await self._shared.put(place, sealed, _TTL_S)
        except KeyGone:
            raise
        except (SharedUnavailable, ApiError):
            return False
        return True

    async def recover(self, account_id: str) -> dict[str, Signals]:
        """What is held, by VIN; empty where nothing is that can be opened. Raises SharedUnavailable, StoreUnavailable.

        Whoever has not got it must not :meth:`keep` anything: that would write it over.
        """
        place = _place(account_id)
        async with self._turns:
            (sealed,) = await self._shared.get_many([place])
        if sealed is None:
            return {}
        try:
            held = orjson.loads(await self._seal.open(account_id, place, sealed))
        except (KeyGone, SealBroken):
            return {}
        return {vin: from_body(body) for vin, body in held.items()}


def _place(account_id: str) -> str:
    """A name that does not tell the account."""
    return f"stream/{hashlib.sha256(account_id.encode()).hexdigest()}"
