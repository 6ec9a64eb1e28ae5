"""What a deadline ends, and what it leaves alone."""

import asyncio

import pytest

from common.clock import ManualClock, SystemClock
from common.deadline import Deadline
from common.errors import UpstreamTimeout
from common.loops import LoopThread


async def answer() -> str:
    await asyncio.sleep(0)
    return "answer"


def test_it_counts_down_and_never_below_nothing() -> None:
    clock = ManualClock()
    deadline = Deadline(clock, 10)
    assert (deadline.left_s(), deadline.expired) == (10, False)
    clock.advance(9)
    clock.step_wall(3_600)
    assert (deadline.left_s(), deadline.expired) == (1, False)
    clock.advance(1)
    assert (deadline.left_s(), deadline.expired) == (0, True)
    clock.advance(1)
    assert deadline.left_s() == 0


async def test_work_that_ends_in_time_gives_its_result() -> None:
    assert await Deadline(ManualClock(), 10).run(answer()) == "answer"


async def test_work_that_does_not_end_in_time_is_cancelled_and_raises_a_timeout_of_the_upstream() -> None:
    ended = []

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cleaned up")

    with pytest.raises(UpstreamTimeout):
        await Deadline(SystemClock(), 0.01).run(hang())
    assert ended == ["cleaned up"]


async def test_work_that_comes_too_late_is_never_begun() -> None:
    clock, begun = ManualClock(), []

    async def work() -> None:
        begun.append("begun")

    deadline = Deadline(clock, 1)
    clock.advance(1)
    coroutine = work()
    with pytest.raises(UpstreamTimeout):
        await deadline.run(coroutine)
    assert begun == []
    with pytest.raises(RuntimeError, match="cannot reuse"):
        await coroutine


async def test_a_timeout_of_the_works_own_is_not_taken_for_the_deadline() -> None:
    async def give_up() -> None:
        raise TimeoutError("my own")

    with pytest.raises(TimeoutError, match="my own"):
        await Deadline(ManualClock(), 10).run(give_up())


async def test_being_cancelled_from_outside_is_not_a_timeout() -> None:
    task = asyncio.create_task(Deadline(ManualClock(), 10).run(asyncio.Event().wait()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_deadline_begun_on_a_servers_thread_is_kept_on_the_loop() -> None:
    loop = LoopThread()
    try:
        assert loop.run(Deadline(SystemClock(), 10).run(answer())) == "answer"
    finally:
        loop.close()
