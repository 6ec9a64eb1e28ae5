"""Row 20, the store: it is out of reach while new tokens are in hand, for longer than their holder tries at once."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from common.clock import SystemClock
from common.errors import StoreUnavailable
from common.stores.documents import Documents
from common.stores.gcs import GcsDocuments
from common.stores.sqlite import SqliteDocuments
from functions.tokens import LEASE_S, TokenKeeper, TokenSet
from ops.flaky_proxy import Fault, flaky_proxy
from sandbox.process import RunningSandbox
from scorecard.tokens_stage import linked, racer, ready, run_to_the_end, shortly
from scorecard.tokens_worker import FAILED, Maker, Store

_Switch = Callable[[], None]


async def outlived(store: Store, maker: RunningSandbox, count: int) -> int:
    """How many accounts lost their tokens: to the outage, or to another process that finds their leases ended.

    That one is there before and asks the moment the store is back; its clock says that the leases have ended.
    """
    emails = {f"acc_cut_off_{number}": f"user-{number}@example.com" for number in range(count)}
    await linked(store, maker, emails)
    other = racer(store, maker.origin, list(emails), ahead_s=LEASE_S + 1)
    await asyncio.to_thread(ready, other)
    asked, all_in_hand = Maker(maker.origin), asyncio.Barrier(count)
    async with _breakable(store) as (inner, begin, end), store.opened(inner) as (documents, _):

        async def refresh_then_lose_the_store(old: TokenSet) -> TokenSet:
            fresh = await asked.renew(old)
            await all_in_hand.wait()
            begin()
            return fresh

        keeper = TokenKeeper(documents, SystemClock(), sleep=shortly)
        calls = [keeper.usable(account, refresh_then_lose_the_store) for account in emails]
        ends = await asyncio.gather(*calls, return_exceptions=True)
        unmet = sum(not isinstance(end, StoreUnavailable) for end in ends)  # an outage that nobody met proves nothing
        end()
        got = await asyncio.to_thread(run_to_the_end, other)
        await keeper.aclose()
    await asked.close()
    return unmet + sum(line.startswith(FAILED) for line in got) + abs(len(got) - count)


@asynccontextmanager
async def _breakable(store: Store) -> AsyncIterator[tuple[Documents, _Switch, _Switch]]:
    """The store's documents, and what takes it away and gives it back."""
    if store.url.startswith("sqlite"):
        path = Path(store.url.removeprefix("sqlite:///"))
        lock = sqlite3.connect(path, isolation_level=None)

        def begin() -> None:
            if not lock.in_transaction:
                lock.execute("BEGIN IMMEDIATE")

        def end() -> None:
            lock.execute("ROLLBACK")

        yield SqliteDocuments(path, busy_timeout_s=0.2), begin, end
        lock.close()
        return
    down = asyncio.Event()

    def plan(method: str, target: str) -> Fault | None:
        is_write = method == "POST" and target.startswith("/upload")
        return Fault(forward=False, status=503) if is_write and down.is_set() else None

    parts = urlsplit(store.url)
    async with flaky_proxy(store.gcs_endpoint or "", plan) as proxy:
        yield GcsDocuments(parts.netloc, parts.path, endpoint=proxy.url, sleep=shortly), down.set, down.clear
