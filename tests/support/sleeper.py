"""An instance that the platform takes the CPU away from: run as a program it is one, imported it starts one.

It holds a value that another instance voids while it is stopped, and says what a request then finds.
"""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

from common.bus import Bus
from common.clock import ManualClock
from common.stores.redis import RedisShared

ROOT = Path(__file__).parents[2]


async def start_sleeper(url: str, *, fenced: bool) -> Process:
    """Start one; it holds its value and listens when this returns. Each line sent to it is a request."""
    program = [sys.executable, "-m", "tests.support.sleeper", url, "fenced" if fenced else "bare"]
    process = await asyncio.create_subprocess_exec(*program, cwd=ROOT, stdin=PIPE, stdout=PIPE)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    return process


async def _main(url: str, mode: str) -> None:
    clock = ManualClock()
    shared = RedisShared(url, clock, namespace="sleeper", timeout_s=5.0)
    held = {"car": "locked"}
    bus = Bus(
        shared,
        clock,
        handlers={"snapshot": lambda subject: held.update({subject: "void"})},
        on_gap=lambda: None,
        patience_s=5.0,
    )
    assert await bus.fence()
    print("ready", flush=True)  # noqa: T201 - how a process speaks
    # On purpose on the loop itself: nothing is read from the subscription while it waits, nor while it is stopped.
    while sys.stdin.readline():
        clock.advance(600)
        if mode == "fenced":
            await bus.fence()
        print(held["car"], flush=True)  # noqa: T201 - how a process speaks


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
