"""Instances that want the same value at once: run as a program it is one of them, imported it starts them.

A racer says ``waiting`` when it waits for another's read, ``loading`` when it reads, and then reads the value from
the line that it is sent. It ends by saying where it got the value from, and the value.
"""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from dataclasses import dataclass
from pathlib import Path

from common.clock import SystemClock
from common.second_level import SharedCache
from common.stores.redis import RedisShared

ROOT = Path(__file__).parents[2]
NAMESPACE = "racers"
KEY = "car"


@dataclass
class Racer:
    """One of them."""

    process: Process

    async def says(self) -> str:
        """The next line."""
        assert self.process.stdout is not None
        line: bytes = await self.process.stdout.readline()
        return line.decode().strip()

    async def send(self, line: str) -> None:
        """Let it go on."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())
        await self.process.stdin.drain()

    async def finish(self) -> str:
        """Its last words."""
        output, _ = await self.process.communicate()
        return output.decode().strip()


async def start_racers(url: str, count: int, lease_ttl_s: float, timeout_s: float) -> list[Racer]:
    """Start some; they are ready, but have not touched the store, when this returns."""
    program = [sys.executable, "-m", "tests.support.cache_racers", url, str(lease_ttl_s), str(timeout_s)]
    racers = [
        Racer(await asyncio.create_subprocess_exec(*program, cwd=ROOT, stdin=PIPE, stdout=PIPE)) for _ in range(count)
    ]
    assert [await racer.says() for racer in racers] == ["ready"] * count
    return racers


async def race(url: str, count: int, lease_ttl_s: float, timeout_s: float = 5.0) -> tuple[Racer, list[Racer]]:
    """Let them all go at once: the one that reads, and those that wait for it."""
    racers = await start_racers(url, count, lease_ttl_s, timeout_s)
    for racer in racers:
        await racer.send("go")
    said = [await racer.says() for racer in racers]
    assert sorted(said) == ["loading"] + ["waiting"] * (count - 1)
    reader = racers.pop(said.index("loading"))
    return reader, racers


async def heir(waiting: list[Racer]) -> tuple[Racer, list[Racer]]:
    """The one that reads next, and those that go on waiting."""
    tasks = {asyncio.create_task(racer.says()): racer for racer in waiting}
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    assert [task.result() for task in done] == ["loading"]
    reader = tasks[done.pop()]
    return reader, [racer for racer in waiting if racer is not reader]


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - how a process speaks


async def _main(url: str, lease_ttl_s: str, timeout_s: str) -> None:
    reading = False
    waited = False

    async def load() -> str:
        nonlocal reading
        reading = True
        _say("loading")
        line: str = await asyncio.to_thread(sys.stdin.readline)
        return line.strip()

    async def sleep(seconds: float) -> None:
        nonlocal waited
        if not (reading or waited):
            waited = True
            _say("waiting")
        await asyncio.sleep(seconds)

    async def encode(value: str) -> bytes:
        return value.encode()

    async def decode(data: bytes) -> str:
        return data.decode()

    clock = SystemClock()
    shared = RedisShared(url, clock, namespace=NAMESPACE, timeout_s=float(timeout_s))
    cache = SharedCache(shared, clock, lease_ttl_s=float(lease_ttl_s), sleep=sleep)
    await shared.ping()
    _say("ready")
    await asyncio.to_thread(sys.stdin.readline)
    fetched = await cache.fetch(KEY, load, max_age_s=60, encode=encode, decode=decode, ttl_s=60)
    _say(f"{fetched.source.value} {fetched.value}")
    await shared.aclose()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
