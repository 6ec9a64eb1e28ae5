"""A maker that gives tokens, and keepers of them on a clock that moves when told."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

from common.clock import ManualClock
from common.stores.documents import Document, Documents
from functions.tokens import (
    InvalidGrant,
    TokenKeeper,
    TokenSet,
)

ACCOUNT = "acc_1"
KEY = f"tokens/{ACCOUNT}"


@dataclass
class Maker:
    """Gives tokens for one hour; an old refresh token used again kills all of them."""

    clock: ManualClock
    generation: int = 0
    dead: bool = False
    asked: int = 0
    before: Callable[[], Awaitable[None]] | None = None

    def tokens(self, generation: int | None = None, life_s: float = 3_600) -> TokenSet:
        number = self.generation if generation is None else generation
        return TokenSet(
            f"access-{number}",
            f"refresh-{number}",
            self.clock.utc() + timedelta(seconds=life_s),
            {"gcid": "g", "session_id": "s"},
        )

    async def refresh(self, old: TokenSet) -> TokenSet:
        self.asked += 1
        if self.before is not None:
            await self.before()
        self.dead = self.dead or old.refresh_token != f"refresh-{self.generation}"
        if self.dead:
            raise InvalidGrant
        self.generation += 1
        return self.tokens()


@dataclass
class Kept:
    """A keeper and what it did."""

    keeper: TokenKeeper
    clock: ManualClock
    slept_s: list[float]
    outcomes: list[str]
    pausing: asyncio.Event

    async def expired(self, maker: Maker) -> None:
        """Store tokens that have to be renewed before they can be used."""
        await self.keeper.save(ACCOUNT, maker.tokens(life_s=0))


def keeper_on(documents: Documents, clock: ManualClock) -> Kept:
    slept_s: list[float] = []
    outcomes: list[str] = []
    pausing = asyncio.Event()

    async def sleep(seconds: float) -> None:
        slept_s.append(seconds)
        pausing.set()
        clock.advance(seconds)
        await asyncio.sleep(0)

    return Kept(
        TokenKeeper(documents, clock, sleep=sleep, observe=lambda _provider, outcome: outcomes.append(outcome)),
        clock,
        slept_s,
        outcomes,
        pausing,
    )


async def stored(documents: Documents) -> Document:
    document = await documents.get(KEY)
    assert document is not None
    return document


async def dead_refresh(_old: TokenSet) -> TokenSet:
    raise InvalidGrant


async def never(_old: TokenSet) -> TokenSet:
    raise AssertionError("the maker was asked")
