"""Rows 19 to 21: tokens are rotated exactly once, and no fault and no kill loses them."""

import asyncio
import contextlib
import multiprocessing
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from urllib.parse import urlsplit

from common.clock import SystemClock
from common.errors import ApiError, RelinkRequired
from common.stores.documents import Documents
from common.stores.gcs import GcsDocuments
from common.stores.sqlite import SqliteDocuments
from functions.tokens import TokenKeeper, TokenSet
from ops.fake_gcs import FakeGcs, running_fake_gcs
from ops.flaky_proxy import LOST_REPLY, RESET, Fault, flaky_proxy
from ops.stack import master_key
from sandbox.process import RunningSandbox, running_sandbox
from scorecard.row import Finding, Row, Say
from scorecard.tokens_worker import FAILED, PRINCIPAL, Maker, Store, be_killed, ended, numbered

_ROOT = Path(__file__).resolve().parent.parent
_ROUTE = "POST /gcdm/oauth/token"
ROUNDS = 100
_PROCESSES = 4
_CALLERS = 200
_ACCOUNTS = 5

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


@contextmanager
def _stores(server: FakeGcs | None = None) -> Iterator[dict[str, Store]]:
    """A fresh store of each kind."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        server = server or stack.enter_context(running_fake_gcs())
        key = master_key()
        yield {
            "SQLite": Store(f"sqlite:///{folder}/documents.db", f"sqlite:///{folder}/keys.db", key),
            "GCS": Store(f"gs://{server.new_bucket()}/d", f"gs://{server.new_bucket()}", key, server.url),
        }


# 19


def _two_hundred_refreshes(say: Say) -> Finding:
    shown, passed = [], True
    with _stores() as stores, running_sandbox(event_step_s=0) as maker:
        for name, store in stores.items():
            say(f"{name}: {_CALLERS} callers of each of {_ACCOUNTS} accounts in {_PROCESSES} processes")
            emails = {f"acc_{number}": f"user-{number}@example.com" for number in range(_ACCOUNTS)}
            asyncio.run(_linked(store, maker, emails))
            maker.zero_stats()
            got = _race(store, maker.origin, list(emails))
            rotations = maker.stats()["requests"].get(_ROUTE, 0)
            winners = Counter(line for line in got if not line.startswith(FAILED))
            lost = _CALLERS * _ACCOUNTS - sum(count for count in winners.values() if count == _CALLERS)
            alive = asyncio.run(_still_linked(store, maker, list(emails)))
            shown.append(f"{name}: {rotations} rotations of {_ACCOUNTS} accounts, {lost} callers lost")
            passed = passed and rotations == _ACCOUNTS and len(winners) == _ACCOUNTS and lost == 0 and alive
            maker.reset()
    return Finding("; ".join(shown), passed)


async def _linked(store: Store, maker: RunningSandbox, emails: dict[str, str]) -> None:
    """Accounts whose access tokens have ended."""
    async with store.opened() as (documents, vault):
        keeper = TokenKeeper(documents, SystemClock())
        for account, email in emails.items():
            await vault.create(account, "mybmw", PRINCIPAL)
            await keeper.save(account, _issued(maker, email))


def _issued(maker: RunningSandbox, email: str) -> TokenSet:
    issued = maker.issue_tokens(email)
    return TokenSet(issued["access_token"], issued["refresh_token"], ended(), {"gcid": issued["gcid"]})


def _race(store: Store, origin: str, accounts: list[str]) -> list[str]:
    program = [sys.executable, "-m", "scorecard.tokens_worker", origin, str(_CALLERS // _PROCESSES), *accounts]
    racers = [
        subprocess.Popen(  # noqa: S603 - our own program
            program,
            cwd=_ROOT,
            env={**os.environ, **store.environ()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(_PROCESSES)
    ]
    for racer in racers:
        if racer.stdout is not None:
            racer.stdout.readline()
    with ThreadPoolExecutor(_PROCESSES) as pool:
        outputs = list(pool.map(lambda racer: racer.communicate("go\n")[0], racers))
    return [line for output in outputs for line in output.splitlines()]


async def _still_linked(store: Store, maker: RunningSandbox, accounts: list[str]) -> bool:
    """Whether what is stored is what the maker knows: it can be traded in once more."""
    asked = Maker(maker.origin)
    try:
        async with store.opened() as (documents, _):
            keeper = TokenKeeper(documents, SystemClock())
            for account in accounts:
                held = await keeper.usable(account, asked.renew)
                await keeper.usable(account, asked.renew, refused=held.access_token)
    except RelinkRequired:
        return False
    finally:
        await asked.close()
    return True


# 20


class _Faulty:
    """One account, rotated again and again while things go wrong; what went wrong for good."""

    def __init__(self, documents: Documents, maker: RunningSandbox) -> None:
        self._maker = maker
        self._asked = Maker(maker.origin)
        self._rng = random.Random(20)
        self.keeper = TokenKeeper(documents, SystemClock(), sleep=_shortly)
        self.rotations = 0
        self.lost = 0

    async def rotate(self, account: str, refresh: Callable[[TokenSet], Awaitable[TokenSet]] | None = None) -> None:
        """One rotation, asked for again where it fails, as a caller does."""
        self.rotations += 1
        for _ in range(5):
            # Another instance each time: what it knows it has from the store.
            self.keeper.forget(account)
            try:
                await self.keeper.usable(account, refresh or self._asked.refresh)
            except RelinkRequired:
                self.lost += 1
                return
            except ApiError:
                continue
            return
        self.lost += 1

    async def refresh(self, old: TokenSet) -> TokenSet:
        """Ask the maker."""
        return await self._asked.refresh(old)

    async def close(self) -> None:
        """End its connections."""
        await self._asked.close()


async def _shortly(_seconds: float) -> None:
    await asyncio.sleep(0.001)


def _faults(say: Say) -> Finding:
    shown, wrong = [], 0
    with running_fake_gcs() as server, running_sandbox(event_step_s=0) as maker:
        for name, fault in STORE_FAULTS.items():
            say(f"GCS: {name} x {ROUNDS}")
            wrong += asyncio.run(_faulty_bucket(server, maker, fault))
        say(f"SQLite: locked by another process x {ROUNDS}")
        wrong += asyncio.run(_locked_file(maker))
        for name, rule in MAKER_FAULTS.items():
            say(f"maker: {name} x {ROUNDS}")
            wrong += asyncio.run(_faulty_maker(maker, rule))
        say(f"maker: answer lost after the rotation x {ROUNDS // 10}")
        told = asyncio.run(_lost_at_the_maker(maker))
    kinds = len(STORE_FAULTS) + 1 + len(MAKER_FAULTS)
    shown.append(f"{kinds} faults x {ROUNDS}: {wrong} lost, rotated twice or wrongly needing to be linked again")
    shown.append(f"where the maker's answer is lost for good, {told} of {ROUNDS // 10} say so")
    return Finding("; ".join(shown), wrong == 0 and told == ROUNDS // 10)


async def _faulty_bucket(server: FakeGcs, maker: RunningSandbox, fault: Fault) -> int:
    """How many of the rotations went wrong when one write of each did."""
    waiting: list[Fault | None] = []

    def plan(method: str, target: str) -> Fault | None:
        return waiting.pop(0) if waiting and method == "POST" and target.startswith("/upload") else None

    with _stores(server) as stores:
        store = stores["GCS"]
        await _linked(store, maker, {"acc_1": "user-1@example.com"})
        maker.zero_stats()
        async with flaky_proxy(server.url, plan) as proxy:
            parts = urlsplit(store.url)
            inner = GcsDocuments(parts.netloc, parts.path, endpoint=proxy.url, sleep=_shortly)
            async with store.opened(inner) as (documents, _):
                faulty = _Faulty(documents, maker)
                for number in range(ROUNDS):
                    # By turns the lease and the new tokens.
                    waiting[:] = [None, fault] if number % 2 else [fault]
                    await faulty.rotate("acc_1")
                    faulty.lost += len(waiting)  # a fault that nobody met proves nothing
                await faulty.close()
    return faulty.lost + abs(_asked(maker) - ROUNDS)


async def _locked_file(maker: RunningSandbox) -> int:
    """The same where somebody holds the file's lock for longer than the store waits, as the new tokens arrive."""
    with _stores() as stores:
        store = stores["SQLite"]
        await _linked(store, maker, {"acc_1": "user-1@example.com"})
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
                await _shortly(seconds)

            faulty = _Faulty(documents, maker)
            faulty.keeper = TokenKeeper(documents, SystemClock(), sleep=released)

            async def refresh_then_lock(old: TokenSet) -> TokenSet:
                fresh = await faulty.refresh(old)
                lock.execute("BEGIN IMMEDIATE")
                return fresh

            for _ in range(ROUNDS):
                await faulty.rotate("acc_1", refresh_then_lock)
            await faulty.close()
        lock.close()
    return faulty.lost + abs(_asked(maker) - ROUNDS) + (ROUNDS - met)


async def _faulty_maker(maker: RunningSandbox, rule: dict[str, object]) -> int:
    """The same where the maker's first answer to each rotation is a failure."""
    with _stores() as stores:
        await _linked(stores["SQLite"], maker, {"acc_1": "user-1@example.com"})
        maker.zero_stats()
        async with stores["SQLite"].opened() as (documents, _):
            faulty = _Faulty(documents, maker)
            for _ in range(ROUNDS):
                maker.fault(match={"path": "/gcdm/oauth/token"}, times=1, **rule)
                await faulty.rotate("acc_1")
                maker.clear_faults()
            await faulty.close()
    # Each is asked for twice: the request that fails, and the one that does not.
    return faulty.lost + abs(_asked(maker) - 2 * ROUNDS)


async def _lost_at_the_maker(maker: RunningSandbox) -> int:
    """How many accounts say that they must be linked again, of those whose new tokens nobody got."""
    told = 0
    emails = {f"acc_{number}": f"user-{number}@example.com" for number in range(ROUNDS // 10)}
    with _stores() as stores:
        await _linked(stores["SQLite"], maker, emails)
        async with stores["SQLite"].opened() as (documents, _):
            faulty = _Faulty(documents, maker)
            for account in emails:
                maker.fault(match={"path": "/gcdm/oauth/token"}, times=1, fault="reset_after")
                await faulty.rotate(account)
                maker.clear_faults()
                health = await faulty.keeper.health(account)
                told += health is not None and health.needs_relink
            await faulty.close()
    return told


def _asked(maker: RunningSandbox) -> int:
    asked: int = maker.stats()["requests"].get(_ROUTE, 0)
    return asked


# 21


def _killed(say: Say) -> Finding:
    shown, wrong = [], 0
    # Forked from a process that has loaded everything and started nothing: a start costs milliseconds.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["scorecard.tokens_worker", "common.stores.gcs", "google.cloud.storage"])
    with _stores() as stores:
        for name, store in stores.items():
            say(f"{name}: {ROUNDS} processes killed")
            accounts = [f"acc_{number}" for number in range(_PROCESSES)]
            asyncio.run(_with_keys(store, accounts))
            rng = random.Random(21)
            delays_s = [rng.uniform(0, 0.03) for _ in range(ROUNDS)]

            def share(number: int, store: Store = store, delays_s: list[float] = delays_s) -> list[tuple[bool, bool]]:
                victims = delays_s[number::_PROCESSES]
                return [_kill_one(context, store, f"acc_{number}", delay_s) for delay_s in victims]

            with ThreadPoolExecutor(_PROCESSES) as pool:
                ends = [end for ends in pool.map(share, range(_PROCESSES)) for end in ends]
            torn = sum(not intact for intact, _ in ends)
            wrong += torn
            shown.append(f"{name}: {len(ends)} killed, {sum(midway for _, midway in ends)} midway, {torn} corrupt")
    return Finding("; ".join(shown), wrong == 0)


async def _with_keys(store: Store, accounts: list[str]) -> None:
    async with store.opened() as (_, vault):
        for account in accounts:
            await vault.create(account, "mybmw", PRINCIPAL)


def _kill_one(
    context: multiprocessing.context.ForkServerContext, store: Store, account: str, delay_s: float
) -> tuple[bool, bool]:
    """Whether the stored tokens are whole and none older than the last acknowledged, and whether a write was cut."""
    ours, theirs = context.Pipe(duplex=False)
    victim = context.Process(target=be_killed, args=(store, account, theirs))
    victim.start()
    theirs.close()
    said = [ours.recv(), ours.recv()]  # the first one is written
    threading.Event().wait(delay_s)
    victim.kill()
    victim.join()
    said += _rest(ours)
    begun, written = max(said), -min(said)
    try:
        number = asyncio.run(_stored_number(store, account))
    except ApiError:
        return False, begun > written
    return written <= number <= begun, begun > written


def _rest(told: Connection) -> list[int]:
    said: list[int] = []
    with contextlib.suppress(EOFError):
        while True:
            said.append(told.recv())
    return said


async def _stored_number(store: Store, account: str) -> int:
    """Which token set is stored; 0 where it is none of ours."""
    async with store.opened() as (documents, _):
        found = await documents.get(f"tokens/{account}")
    if found is None:
        return 0
    number = int(found.body["refresh_token"].removeprefix("refresh-"))
    return number if found.body["extra"] == numbered(number).extra else 0


ROWS = (
    Row(19, "200 refreshes from 4 processes", "1 rotation, 0 lost", _two_hundred_refreshes),
    Row(20, "lost ack, 412, 429, 503, reset, x100", "0 lost, 0 wrong needs_relink", _faults),
    Row(21, "kill -9 during a token write, x100", "0 corrupt", _killed),
)
