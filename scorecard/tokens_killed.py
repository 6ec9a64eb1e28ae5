"""Row 21: a process that is killed while it writes or rotates tokens leaves nothing that is torn or out of date."""

import asyncio
import contextlib
import multiprocessing
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from common.clock import SystemClock
from common.errors import ApiError, RelinkRequired
from functions.tokens import LEASE_S, TokenKeeper
from sandbox.process import RunningSandbox, running_sandbox
from scorecard.row import Finding, Say
from scorecard.tokens_stage import issued, shortly, stores
from scorecard.tokens_worker import (
    PRINCIPAL,
    STORED,
    AheadClock,
    Maker,
    Store,
    be_killed,
    be_killed_rotating,
    numbered,
)

_WRITES = 100
_ROTATIONS = 50
"""Of each store."""
_AT_ONCE = 4

T = TypeVar("T")


def killed(say: Say) -> Finding:
    """Row 21."""
    shown, wrong = [], 0
    # Forked from a process that has loaded everything and started nothing: a start costs milliseconds.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["scorecard.tokens_worker", "common.stores.gcs", "google.cloud.storage"])
    with stores() as places, running_sandbox(event_step_s=0) as maker:
        for name, store in places.items():
            asyncio.run(_with_keys(store, [f"acc_{number}" for number in range(_AT_ONCE)]))
            say(f"{name}: {_WRITES} processes killed while they write")
            ends = _each(_WRITES, partial(_kill_one, context, store))
            torn = sum(not intact for intact, _ in ends)
            shown.append(f"{name}: {len(ends)} killed, {sum(midway for _, midway in ends)} midway, {torn} corrupt")
            say(f"{name}: {_ROTATIONS} processes killed while they rotate")
            lost = _each(_ROTATIONS, partial(_kill_rotating, context, store, maker))
            spoilt = lost.count("spoilt")
            shown.append(
                f"{len(lost)} killed while rotating, {len(lost) - lost.count('kept')} of them with the maker's only "
                f"answer, {spoilt} lost otherwise"
            )
            wrong += torn + spoilt
    return Finding("; ".join(shown), wrong == 0)


def _each(count: int, kill: Callable[[str, float], T]) -> list[T]:
    """Kill so many, some at once, each after a while of its own."""
    rng = random.Random(21)
    delays_s = [rng.uniform(0, 0.03) for _ in range(count)]

    def share(number: int) -> list[T]:
        return [kill(f"acc_{number}", delay_s) for delay_s in delays_s[number::_AT_ONCE]]

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return [end for ends in pool.map(share, range(_AT_ONCE)) for end in ends]


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


def _kill_rotating(
    context: multiprocessing.context.ForkServerContext,
    store: Store,
    maker: RunningSandbox,
    account: str,
    delay_s: float,
) -> str:
    """``kept``; ``gone`` with a process that had the maker's only answer, or was waiting for it; or ``spoilt``."""
    asyncio.run(_log_in(store, maker, account))
    ours, theirs = context.Pipe(duplex=False)
    victim = context.Process(target=be_killed_rotating, args=(store, maker.origin, account, theirs))
    victim.start()
    theirs.close()
    said = []
    while STORED not in said:
        said.append(ours.recv())
    threading.Event().wait(delay_s)
    victim.kill()
    victim.join()
    said += _rest(ours)
    end = asyncio.run(_survivor(store, maker, account))
    return "spoilt" if end == "gone" and said[-1] == STORED else end


async def _log_in(store: Store, maker: RunningSandbox, account: str) -> None:
    async with store.opened() as (documents, _):
        await TokenKeeper(documents, SystemClock()).save(
            account, issued(maker, f"user-{account.removeprefix('acc_')}@example.com")
        )


async def _survivor(store: Store, maker: RunningSandbox, account: str) -> str:
    """What another instance finds when the lease has ended."""
    asked = Maker(maker.origin)
    try:
        async with store.opened() as (documents, _):
            await TokenKeeper(documents, AheadClock(LEASE_S + 1), sleep=shortly).usable(account, asked.renew)
    except RelinkRequired:
        return "gone"
    except ApiError:
        return "spoilt"
    finally:
        await asked.close()
    return "kept"


def _rest(told: Connection) -> list[Any]:
    said: list[Any] = []
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
