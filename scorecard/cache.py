"""Rows 7 to 9: a crowd costs one read, survives its leader and a failure, and never takes more memory than allowed."""

import asyncio
import json
import random
import threading
from collections import Counter

import psutil

from common.cache import Cache, Hit
from common.errors import UpstreamError
from common.settings import load
from functions.app import App, build
from functions.wire import RawRequest, Reply
from sandbox.process import RunningSandbox, running_sandbox
from scorecard.access_people import a_store, enrol, everybody
from scorecard.row import Finding, Row, Say

CROWD = 1_000
INSERTS = 1_000_000
BUDGET_BYTES = 16 * 2**20
MAKER_MS = 1_500
"""Long enough for every thread of the crowd to be waiting before the maker answers."""
_STATE = "GET /eadrax-vcs/v4/vehicles/state"
_KEY = ("acc", "car")


def _crowd(say: Say) -> Finding:
    with running_sandbox(event_step_s=0) as maker, a_store() as store:
        environ = {
            **store,
            "ENVIRONMENT": "development",
            "CALLERS": "api_keys",
            "MYBMW_ORIGIN": maker.origin,
            "LOG_LEVEL": "ERROR",
            "LIMIT_CALLER_READ": "",
            "LIMIT_ACCOUNT_READ": "",
        }
        settings = load(environ)
        (person,) = asyncio.run(enrol(settings, maker, everybody(1), fleets=1))
        app = build(settings)
        body = {"action": "fuel", "account": person.account, "vin": person.vins[0]}
        headers = {"content-type": "application/json", **person.headers}
        request = RawRequest("POST", "/", headers, json.dumps(body).encode())
        try:
            say(f"{CROWD} threads ask for one car at once, the maker takes {MAKER_MS} ms")
            replies, fetches, waiting = _all_at_once(app, maker, request)
        finally:
            app.close()
    results = {json.dumps(json.loads(reply.body).get("result")) for reply in replies}
    statuses = Counter(reply.status for reply in replies)
    measured = f"{fetches} upstream fetch, {statuses[200]} of {CROWD} answered 200, all alike: {len(results) == 1}; "
    measured += f"{waiting} were waiting when the maker answered"
    passed = fetches == 1 and statuses == {200: CROWD} and len(results) == 1 and waiting == CROWD
    return Finding(measured, passed)


def _all_at_once(app: App, maker: RunningSandbox, request: RawRequest) -> tuple[list[Reply], int, int]:
    """The replies, how often the maker was asked for the car, and how many had asked before any was answered."""
    replies: list[Reply] = []
    barrier = threading.Barrier(CROWD)
    asked = 0
    waiting: list[int] = []
    lock = threading.Lock()

    def ask() -> None:
        nonlocal asked
        barrier.wait()
        with lock:
            asked += 1
        reply = app.loop.run(app.pipeline.handle(request))
        with lock:
            waiting.append(asked)
            replies.append(reply)

    maker.settings(latency_ms=MAKER_MS)
    before = maker.stats()["requests"].get(_STATE, 0)
    threads = [threading.Thread(target=ask) for _ in range(CROWD)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return replies, maker.stats()["requests"].get(_STATE, 0) - before, min(waiting)


class _Upstream:
    """Answers after a few turns of the loop, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.fetches = 0
        self._error = error

    async def fetch(self) -> bytes:
        self.fetches += 1
        for _ in range(20):
            await asyncio.sleep(0)
        if self._error is not None:
            raise self._error
        return b"snapshot"


def _trouble(_say: Say) -> Finding:
    left, others = asyncio.run(_without_leader())
    failed, told = asyncio.run(_failing())
    measured = f"leader cancelled: {left} fetches, {others} of {CROWD - 1} others answered; "
    measured += f"upstream raising: {failed} fetch, {told} of {CROWD} told so"
    return Finding(measured, left <= 2 and others == CROWD - 1 and failed <= 1 and told == CROWD)


def _ask(upstream: _Upstream) -> list[asyncio.Task[Hit[bytes]]]:
    cache: Cache[bytes] = Cache("snapshots", ttl_s=60, max_bytes=1_000_000, weigh=len)
    return [asyncio.create_task(cache.get_or_load(_KEY, upstream.fetch)) for _ in range(CROWD)]


async def _without_leader() -> tuple[int, int]:
    """Fetches, and how many of the others were answered."""
    upstream = _Upstream()
    leader, *others = _ask(upstream)
    for _ in range(5):
        await asyncio.sleep(0)
    leader.cancel()
    hits = await asyncio.gather(*others, return_exceptions=True)
    return upstream.fetches, sum(isinstance(hit, Hit) and hit.value == b"snapshot" for hit in hits)


async def _failing() -> tuple[int, int]:
    """Fetches, and how many heard of the failure."""
    upstream = _Upstream(UpstreamError("down"))
    results = await asyncio.gather(*_ask(upstream), return_exceptions=True)
    return upstream.fetches, sum(isinstance(result, UpstreamError) for result in results)


def _inserts(say: Say) -> Finding:
    say(f"{INSERTS:,} inserts into a cache of {BUDGET_BYTES // 2**20} MiB")
    draw, process = random.Random(9), psutil.Process()
    cache: Cache[bytes] = Cache("x", ttl_s=60, max_bytes=BUDGET_BYTES, weigh=len)
    most = settled = 0
    resident: list[int] = []
    for number in range(INSERTS):
        cache.put(("acc", str(draw.randrange(10_000_000))), bytes(draw.randrange(1 << draw.randrange(1, 17))))
        if number % 64 == 0:
            most = max(most, cache.stats().bytes)
        if number % 10_000 == 0:
            resident.append(process.memory_info().rss)
        if number == INSERTS // 10:
            settled = resident[-1]
    grown = max(resident[len(resident) // 10 :]) - settled
    measured = f"at most {most / BUDGET_BYTES:.1%} of the budget; after the first tenth the process grew by "
    measured += f"{grown / 2**20:+.1f} MiB at most"
    return Finding(measured, 0.9 * BUDGET_BYTES < most <= 1.1 * BUDGET_BYTES and grown < 0.25 * BUDGET_BYTES)


ROWS = (
    Row(7, "1,000 concurrent identical reads", "exactly 1 upstream fetch", _crowd),
    Row(8, "the same, leader cancelled / upstream raising", "<= 2 fetches and all others answered / <= 1", _trouble),
    Row(9, "1M inserts of random size", "<= 110 % of the byte budget, RSS flat", _inserts),
)
