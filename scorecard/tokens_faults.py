"""Row 20: whatever goes wrong at the store or at the maker, no account loses its tokens."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from common.clock import ManualClock
from common.errors import ApiError, RelinkRequired
from common.stores.documents import Documents
from common.stores.gcs import GcsDocuments
from common.stores.sqlite import SqliteDocuments
from functions.tokens import TokenKeeper, TokenSet
from ops.fake_gcs import FakeGcs, running_fake_gcs
from ops.flaky_proxy import LOST_REPLY, RESET, Fault, flaky_proxy
from sandbox.process import RunningSandbox, running_sandbox
from scorecard.row import Finding, Say
from scorecard.tokens_outage import outlived
from scorecard.tokens_stage import TOKEN_PATH, asked_of, linked, shortly, still_linked, stores
from scorecard.tokens_worker import Maker, Store

ROUNDS = 100
_AT_ONCE = 10

STORE_FAULTS: dict[str, Fault] = {
    "lost ack": LOST_REPLY,
    "412": Fault(forward=False, status=412),
    "412 after the write": Fault(forward=True, status=412),
    "429": Fault(forward=False, status=429),
    "503": Fault(forward=False, status=503),
    "503 after the write": Fault(forward=True, status=503),
    "reset": RESET,
}
"""What goes wrong with a write of the tokens to the bucket."""
MAKER_FAULTS: dict[str, dict[str, object]] = {
    "429": {"fault": "status", "status": 429},
    "503": {"fault": "status", "status": 503},
    "reset": {"fault": "reset"},
}
"""What goes wrong with the request for new tokens, before the maker has rotated."""


class _Faulty:
    """One account, rotated again and again while things go wrong; what went wrong for good."""

    def __init__(
        self,
        documents: Documents,
        maker: RunningSandbox,
        sleep: Callable[[float], Awaitable[None]] = shortly,
    ) -> None:
        self._documents = documents
        self._asked = Maker(maker.origin)
        self._sleep = sleep
        # Moved on by hand: where it is in doubt whether the maker has taken a token, a lease has to end.
        self._clock = ManualClock(wall=datetime.now(UTC))
        self.lost = 0

    async def rotate(self, account: str, refresh: Callable[[TokenSet], Awaitable[TokenSet]] | None = None) -> None:
        """One rotation, asked for again where it fails, as a caller does."""
        for _ in range(5):
            try:
                await self.instance().usable(account, refresh or self._asked.refresh)
            except RelinkRequired:
                self.lost += 1
                return
            except ApiError as failed:
                self._clock.advance(failed.retry_after_s or 0)
                continue
            return
        self.lost += 1

    def instance(self) -> TokenKeeper:
        """Another instance each time: what it knows it has from the store."""
        return TokenKeeper(self._documents, self._clock, sleep=self._sleep)

    async def refresh(self, old: TokenSet) -> TokenSet:
        """Ask the maker."""
        return await self._asked.refresh(old)

    async def close(self) -> None:
        """End its connections."""
        await self._asked.close()


def faults(say: Say) -> Finding:
    """Row 20."""
    shown, wrong = [], 0
    with running_fake_gcs() as server, running_sandbox(event_step_s=0) as maker:
        for name, fault in STORE_FAULTS.items():
            say(f"GCS: {name} x {ROUNDS}")
            wrong += asyncio.run(_faulty_bucket(server, maker, fault))
        say(f"SQLite: locked by another process x {ROUNDS}")
        wrong += asyncio.run(_locked_file(maker))
        with stores(server) as places:
            for store_name, store in places.items():
                for name, rule in MAKER_FAULTS.items():
                    say(f"{store_name}, maker: {name} x {ROUNDS}")
                    wrong += asyncio.run(_faulty_maker(maker, store, rule))
                say(f"{store_name}, maker: slow answers x {_AT_ONCE}")
                wrong += asyncio.run(_slow_maker(maker, store))
            say(f"both stores out of reach for longer than a lease, {_AT_ONCE} accounts each, then another process")
            cut_off = asyncio.run(_outages(maker, list(places.values())))
        say(f"maker: answer lost after the rotation x {ROUNDS // 10}")
        told = asyncio.run(_lost_at_the_maker(maker))
    kinds = len(STORE_FAULTS) + 1 + 2 * len(MAKER_FAULTS)
    shown.append(f"{kinds} faults x {ROUNDS}: {wrong} lost, rotated twice or wrongly needing to be linked again")
    shown.append(f"tokens in hand while the store was out of reach, then another process: {cut_off} lost")
    shown.append(f"where the maker's answer is lost for good, {told} of {ROUNDS // 10} say so")
    return Finding("; ".join(shown), wrong == cut_off == 0 and told == ROUNDS // 10)


async def _faulty_bucket(server: FakeGcs, maker: RunningSandbox, fault: Fault) -> int:
    """How many of the rotations went wrong when one write of each did."""
    waiting: list[Fault | None] = []

    def plan(method: str, target: str) -> Fault | None:
        return waiting.pop(0) if waiting and method == "POST" and target.startswith("/upload") else None

    with stores(server) as places:
        store = places["GCS"]
        await linked(store, maker, {"acc_1": "user-1@example.com"})
        maker.zero_stats()
        async with flaky_proxy(server.url, plan) as proxy:
            parts = urlsplit(store.url)
            inner = GcsDocuments(parts.netloc, parts.path, endpoint=proxy.url, sleep=shortly)
            async with store.opened(inner) as (documents, _):
                faulty = _Faulty(documents, maker)
                for number in range(ROUNDS):
                    # By turns the lease and the new tokens.
                    waiting[:] = [None, fault] if number % 2 else [fault]
                    await faulty.rotate("acc_1")
                    faulty.lost += len(waiting)  # a fault that nobody met proves nothing
                await faulty.close()
    return faulty.lost + abs(asked_of(maker) - ROUNDS)


async def _locked_file(maker: RunningSandbox) -> int:
    """The same where somebody holds the file's lock for longer than the store waits, as the new tokens arrive."""
    with stores() as places:
        store = places["SQLite"]
        await linked(store, maker, {"acc_1": "user-1@example.com"})
        maker.zero_stats()
        path = Path(store.url.removeprefix("sqlite:///"))
        lock = sqlite3.connect(path, isolation_level=None)
        async with store.opened(SqliteDocuments(path, busy_timeout_s=0.01)) as (documents, _):
            met = 0

            async def released(seconds: float) -> None:
                nonlocal met
                if lock.in_transaction:
                    lock.execute("ROLLBACK")
                    met += 1
                await shortly(seconds)

            faulty = _Faulty(documents, maker, released)

            async def refresh_then_lock(old: TokenSet) -> TokenSet:
                fresh = await faulty.refresh(old)
                lock.execute("BEGIN IMMEDIATE")
                return fresh

            for _ in range(ROUNDS):
                await faulty.rotate("acc_1", refresh_then_lock)
            await faulty.close()
        lock.close()
    return faulty.lost + abs(asked_of(maker) - ROUNDS) + (ROUNDS - met)


async def _faulty_maker(maker: RunningSandbox, store: Store, rule: dict[str, object]) -> int:
    """The same where the maker's first answer to each rotation is a failure."""
    await linked(store, maker, {"acc_1": "user-1@example.com"})
    maker.zero_stats()
    async with store.opened() as (documents, _):
        faulty = _Faulty(documents, maker)
        for _ in range(ROUNDS):
            maker.fault(match=TOKEN_PATH, times=1, **rule)
            await faulty.rotate("acc_1")
            maker.clear_faults()
        await faulty.close()
    # Each is asked for twice: the request that fails, and the one that does not.
    return faulty.lost + abs(asked_of(maker) - 2 * ROUNDS)


async def _slow_maker(maker: RunningSandbox, store: Store) -> int:
    """How many accounts lost their tokens to answers that took longer than any other request may take."""
    emails = {f"acc_slow_{number}": f"user-{number}@example.com" for number in range(_AT_ONCE)}
    await linked(store, maker, emails)
    maker.zero_stats()
    impatient = Maker(maker.origin, timeout_s=0.5)
    maker.fault(match=TOKEN_PATH, times=_AT_ONCE, fault="slow", when="after", delay_ms=1_500)
    async with store.opened() as (documents, _):
        keeper = TokenKeeper(documents, ManualClock(wall=datetime.now(UTC)), sleep=shortly)
        calls = [keeper.usable(account, impatient.refresh) for account in emails]
        ends = await asyncio.gather(*calls, return_exceptions=True)
    await impatient.close()
    maker.clear_faults()
    lost = sum(not isinstance(end, TokenSet) for end in ends) + abs(asked_of(maker) - _AT_ONCE)
    return lost + (not await still_linked(store, maker, list(emails)))


async def _outages(maker: RunningSandbox, places: list[Store]) -> int:
    maker.zero_stats()
    lost = sum(await asyncio.gather(*[outlived(store, maker, _AT_ONCE) for store in places]))
    return lost + abs(asked_of(maker) - _AT_ONCE * len(places))


async def _lost_at_the_maker(maker: RunningSandbox) -> int:
    """How many accounts say that they must be linked again, of those whose new tokens nobody got."""
    told = 0
    emails = {f"acc_{number}": f"user-{number}@example.com" for number in range(ROUNDS // 10)}
    with stores() as places:
        await linked(places["SQLite"], maker, emails)
        async with places["SQLite"].opened() as (documents, _):
            faulty = _Faulty(documents, maker)
            for account in emails:
                maker.fault(match=TOKEN_PATH, times=1, fault="reset_after")
                await faulty.rotate(account)
                maker.clear_faults()
                health = await faulty.instance().health(account)
                told += health is not None and health.needs_relink
            await faulty.close()
    return told
