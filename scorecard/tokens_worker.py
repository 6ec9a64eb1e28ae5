"""What holds and renews tokens in the measurements: the service's own classes, in as many processes as are wanted.

Run as a program it is one of several instances: it waits for a line on standard input, lets all its callers go at
once, and prints for each the access token that it got. Its clock may be ahead: a lease that another one holds has
ended then.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection

from common.clock import SystemClock
from common.crypto.setup import open_sealing
from common.stores.documents import Documents, open_documents
from common.stores.sealed import SealedDocuments
from common.vault import Vault
from functions.providers.mybmw.failures import Stage, translated
from functions.providers.mybmw.session import LoginAttempt, LoginRoute, bind
from functions.providers.mybmw.transport import PooledTransport
from functions.providers.port import Region
from functions.providers.renewal import Trade
from functions.storage import OF_ACCOUNTS, PLAIN
from functions.tokens import TokenKeeper, TokenSet

PRINCIPAL = "scorecard"
FAILED = "failed:"
"""Begins the line of a caller that got no token."""


@dataclass(frozen=True, slots=True)
class Store:
    """Where documents and data keys are; can be handed to another process."""

    url: str
    keys_url: str
    token_keys: str
    gcs_endpoint: str | None = None

    def environ(self) -> dict[str, str]:
        """As the service's settings name it."""
        values = {"DOCUMENTS_URL": self.url, "KEYS_URL": self.keys_url, "TOKEN_KEYS": self.token_keys}
        return values | ({"GCS_ENDPOINT": self.gcs_endpoint} if self.gcs_endpoint else {})

    @asynccontextmanager
    async def opened(self, inner: Documents | None = None) -> AsyncIterator[tuple[Documents, Vault]]:
        """The documents, sealed as the service seals them, over ``inner`` where that is given, and the vault."""
        sealing = open_sealing(
            token_keys=self.token_keys,
            documents_url=self.url,
            keys_url=self.keys_url,
            gcs_endpoint=self.gcs_endpoint,
        )
        vault = Vault(sealing.keys, sealing.wrapper, SystemClock())
        inner = inner or open_documents(self.url, gcs_endpoint=self.gcs_endpoint)
        documents = SealedDocuments(inner, vault, sealing.keyset, accounts=OF_ACCOUNTS, plain=PLAIN)
        try:
            yield documents, vault
        finally:
            await documents.aclose()


class Maker:
    """The simulated maker, as the service asks it to renew tokens."""

    def __init__(self, origin: str, *, timeout_s: float = 10.0) -> None:
        bind()
        self._transport = PooledTransport(clock=SystemClock(), origin=origin, timeout_s=timeout_s)

    async def refresh(self, old: TokenSet) -> TokenSet:
        """New tokens, which have ended already: the next one who asks must renew them again."""
        fresh = await self.renew(old)
        return TokenSet(fresh.access_token, fresh.refresh_token, ended(), fresh.extra)

    async def renew(self, old: TokenSet) -> TokenSet:
        """New tokens. Raises InvalidGrant, RenewalInDoubt and what the provider raises."""
        trade = Trade()
        attempt = LoginAttempt(Region.REST_OF_WORLD, LoginRoute(self._transport, Stage.REFRESH, trade))
        with trade.judged(), translated():
            return await attempt.refresh(old)

    async def close(self) -> None:
        """Close its connections."""
        await self._transport.shutdown()


class AheadClock(SystemClock):
    """The machine's clock, so many seconds ahead."""

    def __init__(self, seconds: float) -> None:
        self._ahead = timedelta(seconds=seconds)

    def utc(self) -> datetime:
        """The wall clock, as this instance believes."""
        return super().utc() + self._ahead


def ended() -> datetime:
    """A time before now."""
    return datetime.now(UTC) - timedelta(hours=1)


async def save_until_killed(store: Store, account: str, told: Connection) -> None:
    """Save one token set after the other, and tell of each number before and after it is written."""
    async with store.opened() as (documents, _):
        keeper = TokenKeeper(documents, SystemClock())
        number = 0
        while True:
            number += 1
            told.send(number)
            await keeper.save(account, numbered(number))
            told.send(-number)


def numbered(number: int) -> TokenSet:
    """A token set that says which it is; long, so that a torn write would show."""
    return TokenSet(f"access-{number}", f"refresh-{number}", ended(), {"padding": f"{number} " * 2_000})


def be_killed(store: Store, account: str, told: Connection) -> None:
    """The whole of a process that is killed."""
    asyncio.run(save_until_killed(store, account, told))


ASKED, ANSWERED, STORED = "asked", "answered", "stored"
"""What a process tells that is killed while it rotates."""


async def rotate_until_killed(store: Store, origin: str, account: str, told: Connection) -> None:
    """Rotate one account's tokens again and again, and tell of each step."""
    maker = Maker(origin)

    async def refresh(old: TokenSet) -> TokenSet:
        told.send(ASKED)
        fresh = await maker.refresh(old)
        told.send(ANSWERED)
        return fresh

    async with store.opened() as (documents, _):
        keeper = TokenKeeper(documents, SystemClock())
        while True:
            await keeper.usable(account, refresh)
            told.send(STORED)


def be_killed_rotating(store: Store, origin: str, account: str, told: Connection) -> None:
    """The whole of a process that is killed."""
    asyncio.run(rotate_until_killed(store, origin, account, told))


async def _race(store: Store, origin: str, callers: int, ahead_s: float, accounts: list[str]) -> None:
    maker = Maker(origin)
    async with store.opened() as (documents, _):
        keeper = TokenKeeper(documents, AheadClock(ahead_s))
        for account in accounts:  # the data keys, so that the race is for the tokens alone
            await keeper.health(account)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        calls = [keeper.usable(account, maker.renew) for _ in range(callers) for account in accounts]
        for tokens in await asyncio.gather(*calls, return_exceptions=True):
            print(tokens.access_token if isinstance(tokens, TokenSet) else f"{FAILED} {tokens!r}")
    await maker.close()


def _main(origin: str, callers: int, ahead_s: float, accounts: list[str]) -> None:
    environ = os.environ
    store = Store(environ["DOCUMENTS_URL"], environ["KEYS_URL"], environ["TOKEN_KEYS"], environ.get("GCS_ENDPOINT"))
    asyncio.run(_race(store, origin, callers, ahead_s, accounts))


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4:])
