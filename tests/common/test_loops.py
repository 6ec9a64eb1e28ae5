"""One loop a worker, and the seam to it."""

import asyncio
import contextvars
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.loops import LoopThread, needs_loop

ROOT = Path(__file__).parents[2]


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    thread = LoopThread("test-loop")
    yield thread
    thread.close()


def test_what_never_waits_never_leaves_the_callers_thread(loop: LoopThread) -> None:
    async def answer() -> str:
        return threading.current_thread().name

    assert loop.run(answer()) == threading.current_thread().name


def test_what_waits_moves_to_the_loop_and_stays_there(loop: LoopThread) -> None:
    async def answer() -> list[str]:
        names = [threading.current_thread().name]
        await needs_loop()
        names.append(threading.current_thread().name)
        await asyncio.sleep(0)
        await needs_loop()
        names.append(threading.current_thread().name)
        return names

    assert loop.run(answer()) == [threading.current_thread().name, "test-loop", "test-loop"]


def test_the_crossing_may_lie_deep_inside(loop: LoopThread) -> None:
    async def inner() -> int:
        await needs_loop()
        await asyncio.sleep(0)
        return 1

    async def outer() -> int:
        return await inner() + await inner()

    assert loop.run(outer()) == 2


async def test_on_a_loop_it_does_nothing() -> None:
    await needs_loop()
    assert asyncio.get_running_loop().is_running()


@pytest.mark.parametrize("crosses", [False, True])
def test_what_the_work_raises_is_raised(loop: LoopThread, crosses: bool) -> None:
    async def fail() -> None:
        if crosses:
            await needs_loop()
        raise LookupError("ours")

    with pytest.raises(LookupError, match="ours"):
        loop.run(fail())


def test_waiting_without_crossing_is_a_defect_and_ends_the_work(loop: LoopThread) -> None:
    ended: list[bool] = []

    async def careless() -> None:
        try:
            await asyncio.sleep(0)
        finally:
            ended.append(True)

    with pytest.raises(RuntimeError, match="needs_loop"):
        loop.run(careless())
    assert ended == [True]


def test_timeouts_work_on_the_other_side(loop: LoopThread) -> None:
    async def hang() -> None:
        await needs_loop()
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        loop.run(hang())


def test_a_context_variable_set_before_the_crossing_is_seen_behind_it(loop: LoopThread) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    async def answer() -> str:
        variable.set("set")
        await needs_loop()
        await asyncio.sleep(0)
        return variable.get()

    assert contextvars.copy_context().run(loop.run, answer()) == "set"


def test_submitted_work_runs_on_the_loop_while_the_caller_goes_on(loop: LoopThread) -> None:
    go = asyncio.Event()

    async def wait() -> str:
        await go.wait()
        return threading.current_thread().name

    future = loop.submit(wait())
    assert not future.done()

    async def let_go() -> None:
        await needs_loop()
        go.set()

    loop.run(let_go())
    assert future.result(5) == "test-loop"


def test_many_threads_share_one_loop(loop: LoopThread) -> None:
    together = 20
    arrived = 0
    full = asyncio.Event()

    async def meet() -> int:
        nonlocal arrived
        await needs_loop()
        arrived += 1
        if arrived == together:
            full.set()
        await full.wait()
        return arrived

    results: list[int] = []
    threads = [threading.Thread(target=lambda: results.append(loop.run(meet()))) for _ in range(together)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert results == [together] * together


def test_closing_cancels_what_runs_and_ends_the_thread() -> None:
    loop = LoopThread("closing-loop")
    began, ended = threading.Event(), threading.Event()

    async def hang() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    future = loop.submit(hang())
    assert began.wait(5)
    loop.close()
    assert ended.is_set()
    assert future.cancelled()
    assert "closing-loop" not in {thread.name for thread in threading.enumerate()}
    loop.close()
    late = hang()
    with pytest.raises(RuntimeError, match="closed"):
        loop.submit(late)
    late.close()


def test_a_loop_that_nobody_closes_does_not_keep_its_process_alive() -> None:
    program = "from common.loops import LoopThread; LoopThread()"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=30, check=False).returncode == 0


def test_closing_waits_for_what_fails_while_it_is_cancelled() -> None:
    loop = LoopThread()
    began = threading.Event()

    async def fail_when_cancelled() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise LookupError from None

    future = loop.submit(fail_when_cancelled())
    assert began.wait(5)
    loop.close()
    assert isinstance(future.exception(5), LookupError)
