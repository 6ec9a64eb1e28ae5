"""Rows 19 to 21: tokens are rotated exactly once, and no fault and no kill loses them."""

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from sandbox.process import running_sandbox
from scorecard.row import Finding, Row, Say
from scorecard.tokens_faults import faults
from scorecard.tokens_killed import killed
from scorecard.tokens_stage import asked_of, linked, racer, ready, run_to_the_end, still_linked, stores
from scorecard.tokens_worker import FAILED, Store

_PROCESSES = 4
_CALLERS = 200
_ACCOUNTS = 5


def _two_hundred_refreshes(say: Say) -> Finding:
    shown, passed = [], True
    with stores() as places, running_sandbox(event_step_s=0) as maker:
        for name, store in places.items():
            say(f"{name}: {_CALLERS} callers of each of {_ACCOUNTS} accounts in {_PROCESSES} processes")
            emails = {f"acc_{number}": f"user-{number}@example.com" for number in range(_ACCOUNTS)}
            asyncio.run(linked(store, maker, emails))
            maker.zero_stats()
            got = _race(store, maker.origin, list(emails))
            rotations = asked_of(maker)
            winners = Counter(line for line in got if not line.startswith(FAILED))
            lost = _CALLERS * _ACCOUNTS - sum(count for count in winners.values() if count == _CALLERS)
            alive = asyncio.run(still_linked(store, maker, list(emails)))
            shown.append(f"{name}: {rotations} rotations of {_ACCOUNTS} accounts, {lost} callers lost")
            passed = passed and rotations == _ACCOUNTS and len(winners) == _ACCOUNTS and lost == 0 and alive
            maker.reset()
    return Finding("; ".join(shown), passed)


def _race(store: Store, origin: str, accounts: list[str]) -> list[str]:
    racers = [racer(store, origin, accounts, callers=_CALLERS // _PROCESSES) for _ in range(_PROCESSES)]
    for each in racers:
        ready(each)
    with ThreadPoolExecutor(_PROCESSES) as pool:
        return [line for lines in pool.map(run_to_the_end, racers) for line in lines]


ROWS = (
    Row(19, "200 refreshes from 4 processes", "1 rotation, 0 lost", _two_hundred_refreshes),
    Row(20, "lost ack, 412, 429, 503, reset, x100", "0 lost, 0 wrong needs_relink", faults),
    Row(21, "kill -9 during a token write, x100", "0 corrupt", killed),
)
