"""Tokens that a maker has given and the store has yet to take.

They are the only copy there is: the maker knows the ones before no more. So they are written again and again until the
store takes them: with pauses in the background, at once when any request comes (between requests the platform may give
no time to the background), and before the process ends. What is lost is lost with the process: where it is killed
first, or where another instance reaches the store sooner, finds the lease ended and trades in the old token.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from common.crypto.errors import SealBroken
from common.errors import StoreUnavailable
from common.loops import needs_loop
from common.stores.documents import Document, Documents, VersionConflict
from functions.token_record import Record, Rotation, TokenSet, key_of

SAVE_ATTEMPTS = 8
WRITE_AGAIN_S = 2.0
"""Pause between two rounds in the background. Shorter than :data:`functions.tokens.TAKEOVER_PAUSE_S`."""
_FLUSH_WITHIN_S = 1.0
"""How long a request waits for others' tokens to be written."""

Sleep = Callable[[float], Awaitable[None]]


class UnsavedTokens:
    """The rotations of one process that are not yet in the store. Use it on one loop."""

    def __init__(
        self, documents: Documents, *, sleep: Sleep, rest: Sleep, taken: Callable[[str, TokenSet], Awaitable[None]]
    ) -> None:
        """``taken`` is told which tokens of an account count, once the store has them. ``rest`` is the background's."""
        self._documents = documents
        self._sleep = sleep
        self._rest = rest
        self._taken = taken
        self._waiting: dict[str, Rotation] = {}
        self._writer: asyncio.Task[None] | None = None
        self._round: asyncio.Task[None] | None = None

    def hold(self, account_id: str, rotation: Rotation) -> None:
        """Keep a rotation until it is written or dropped."""
        self._waiting[account_id] = rotation

    def of(self, account_id: str) -> Rotation | None:
        """The rotation of an account that is yet to be written."""
        return self._waiting.get(account_id)

    def drop(self, account_id: str) -> None:
        """It is needed no more."""
        self._waiting.pop(account_id, None)

    async def write(self, account_id: str, rotation: Rotation) -> TokenSet:
        """Write a rotation that is held; the tokens that then count.

        Raises StoreUnavailable after many attempts; then it goes on in the background.
        """
        for attempt in range(SAVE_ATTEMPTS):
            try:
                if attempt == 0:
                    return await self._put(account_id, rotation, rotation.document)
                await self._sleep(min(0.1 * 2 ** (attempt - 1), 3.0))
                return await self._put(account_id, rotation)
            except (VersionConflict, StoreUnavailable):
                continue
        if self._writer is None or self._writer.done():
            self._writer = asyncio.get_running_loop().create_task(self._go_on())
        raise StoreUnavailable

    async def flush(self, within_s: float = _FLUSH_WITHIN_S) -> None:
        """Try once to write all that could not be written; does nothing where there is nothing. Raises nothing."""
        if self._writer is None or self._writer.done():
            return
        await needs_loop()
        if self._round is None or self._round.done():
            self._round = asyncio.get_running_loop().create_task(self._write_all())
        # Shielded: who has waited long enough stops nothing.
        await asyncio.wait([self._round], timeout=within_s)

    async def aclose(self, within_s: float) -> None:
        """The process ends: write what can be written in the time that is left."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self._waiting:
                    await self._write_all()
                    if self._waiting:
                        await self._rest(0.2)
        if self._writer is not None:
            self._writer.cancel()

    async def _go_on(self) -> None:
        while self._waiting:
            await self._rest(WRITE_AGAIN_S)
            await self._write_all()

    async def _write_all(self) -> None:
        for account_id, rotation in list(self._waiting.items()):
            try:
                await self._put(account_id, rotation)
            except StoreUnavailable:
                return  # nor will it take the others
            except (VersionConflict, SealBroken):
                continue

    async def _put(self, account_id: str, rotation: Rotation, document: Document | None = None) -> TokenSet:
        """Write once, over ``document`` or what is stored now. Raises VersionConflict, StoreUnavailable, SealBroken."""
        tokens = rotation.record.tokens
        if document is None:
            document = await self._documents.get(key_of(account_id))
            if document is None:  # disconnected meanwhile: there is nothing to keep
                self._done_with(account_id, rotation)
                return tokens
            stored = Record.from_body(document.body)
            if stored.tokens.refresh_token != rotation.consumed:
                # Written before after all, or a new login was faster: either way these are the latest.
                self._done_with(account_id, rotation)
                await self._taken(account_id, stored.tokens)
                return stored.tokens
        await self._documents.replace(document, rotation.record.to_body())
        self._done_with(account_id, rotation)
        await self._taken(account_id, tokens)
        return tokens

    def _done_with(self, account_id: str, rotation: Rotation) -> None:
        if self._waiting.get(account_id) is rotation:
            del self._waiting[account_id]
