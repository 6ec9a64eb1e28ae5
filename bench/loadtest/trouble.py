"""What breaks during a load test, and when."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from bench import wire
from bench.loadtest.place import INSTANCES, Place
from bench.servers import HEALTH

INSTANCE_DIES_AT, VALKEY_DIES_AT, VALKEY_BACK_AT = 1 / 3, 1 / 2, 7 / 12
"""Shares of the whole time."""
_LOOK_EVERY_S = 0.5


@dataclass
class Events:
    """What happened, seconds since the beginning."""

    marks: list[tuple[float, str]] = field(default_factory=list)
    shared_state: list[tuple[float, str]] = field(default_factory=list)
    """What /health said of what instances share."""

    @property
    def said_degraded(self) -> bool:
        """Whether any instance said that it was alone."""
        return any(state == "degraded" for _, state in self.shared_state)


async def happen(place: Place, duration_s: float, events: Events) -> None:
    """Kill and restart, on time; watch /health meanwhile."""
    began_s = time.perf_counter()

    def now_s() -> float:
        return time.perf_counter() - began_s

    async def at(share: float, what: str, do: Callable[[], Awaitable[None]]) -> None:
        await asyncio.sleep(share * duration_s - now_s())
        events.marks.append((now_s(), what))
        await do()

    async def kill_instance() -> None:
        await asyncio.to_thread(_kill_one, place)
        events.marks.append((now_s(), "its successor started"))

    async def watch() -> None:
        while now_s() < duration_s:
            events.shared_state.append((now_s(), await asyncio.to_thread(_shared_state, place.server.port)))
            await asyncio.sleep(_LOOK_EVERY_S)

    watching = asyncio.create_task(watch())
    await at(INSTANCE_DIES_AT, "kill -9 of an instance", kill_instance)
    await at(VALKEY_DIES_AT, "kill -9 of Valkey", lambda: asyncio.to_thread(place.valkey.kill))
    await at(VALKEY_BACK_AT, "Valkey restarted, empty", lambda: asyncio.to_thread(place.valkey.start))
    await watching


def _kill_one(place: Place) -> None:
    """Return when gunicorn has started another worker in its place."""
    victim = place.instances()[0]
    victim.kill()
    while victim in (alive := place.instances()) or len(alive) < INSTANCES:
        time.sleep(0.01)


def _shared_state(port: int) -> str:
    try:
        reply = wire.ask_once(port, HEALTH, timeout_s=5.0)
    except OSError:
        return "no reply"
    return reply.body.decode(errors="replace").partition('"shared_state":')[2].split('"')[1]
