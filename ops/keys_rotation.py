"""Moving everything from retired master keys to the active one, while the service runs.

Data keys stay what they are and are only wrapped anew; documents of the deployment are sealed anew. Each step is one
compare-and-swap, so it does no harm beside a live service, a second rotation or a kill, and whoever starts again
skips what is done.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from common.crypto.errors import SealBroken
from common.crypto.keyset import Keyset
from common.stores.documents import Documents, VersionConflict
from common.stores.sealed import kid_of, open_for_deployment, seal_for_deployment
from common.vault import COLLECTION, Vault

_PAGE = 500
_AT_ONCE = 16
_MAX_PASSES = 10

Say = Callable[[str], None]


@dataclass
class Tally:
    """What one pass has met."""

    kids: Counter[str] = field(default_factory=Counter)
    """How many were under each master key."""
    broken: dict[str, str] = field(default_factory=dict)
    """The documents that do not open, and why."""


@dataclass(frozen=True, slots=True)
class Rotated:
    """How things stand after a rotation."""

    active: str
    account_keys: Tally
    documents: Tally

    @property
    def broken(self) -> dict[str, str]:
        """Everything that does not open."""
        return self.account_keys.broken | self.documents.broken


class Rotation:
    """One rotation. ``inner`` are the documents as they are stored; ``plain`` the collections that are not sealed."""

    def __init__(
        self,
        *,
        vault: Vault,
        keys: Documents,
        inner: Documents,
        keyset: Keyset,
        plain: frozenset[str],
        say: Say,
    ) -> None:
        self._vault = vault
        self._keys = keys
        self._inner = inner
        self._keyset = keyset
        self._plain = plain
        self._say = say

    async def run(self, active: str) -> Rotated:
        """Move everything to ``active`` (data keys) and to the keyset's active key (documents).

        Passes are repeated until one finds nothing to move: an instance may still have written under an old key.
        Raises StoreUnavailable; then start again.
        """
        passes = 0
        while True:
            passes += 1
            self._say(f"pass {passes}")
            account_keys = await self._pass("data keys", self._keys, COLLECTION, self._rewrap(active))
            documents = await self._pass("documents", self._inner, "", self._reseal)
            is_settled = set(account_keys.kids) <= {active} and set(documents.kids) <= {self._keyset.active}
            if is_settled or passes == _MAX_PASSES:
                return Rotated(active, account_keys, documents)

    async def _pass(
        self, name: str, store: Documents, prefix: str, move: Callable[[str], Awaitable[str | None]]
    ) -> Tally:
        tally, seen, after = Tally(), 0, None
        limit = asyncio.Semaphore(_AT_ONCE)

        async def one(key: str) -> None:
            async with limit:
                try:
                    kid = await move(key)
                except SealBroken as broken:
                    tally.broken[key] = broken.reason
                    return
            if kid is not None:
                tally.kids[kid] += 1

        while page := await store.list(prefix, limit=_PAGE, after=after):
            await asyncio.gather(*(one(key) for key in page))
            seen, after = seen + len(page), page[-1]
            self._say(f"  {name}: {seen} looked at")
        return tally

    def _rewrap(self, active: str) -> Callable[[str], Awaitable[str | None]]:
        return lambda key: self._vault.rewrap(key.removeprefix(f"{COLLECTION}/"), active)

    async def _reseal(self, key: str) -> str | None:
        """Under which key a document was, None for one that is not the deployment's."""
        if key.partition("/")[0] in self._plain:
            return None
        while True:
            held = await self._inner.get(key)
            kid = kid_of(held.body) if held is not None else None
            if held is None or kid is None:
                return None
            plaintext = open_for_deployment(self._keyset, held)
            if kid != self._keyset.active:
                try:
                    await self._inner.replace(held, seal_for_deployment(self._keyset, key, plaintext))
                except VersionConflict:
                    continue
            return kid
