"""What the tests of the stream worker share: waits that a test ends by moving the clock, and a worker's parts."""

import asyncio
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from common.clock import ManualClock
from common.logs import EventLog, configure
from common.stores.documents import Documents
from functions.providers.cardata.signal_store import DocumentSignals, StreamWatch
from functions.providers.cardata.stream_index import StreamIndex
from functions.providers.cardata.stream_intake import Intake
from functions.providers.cardata.stream_journal import Journal
from functions.providers.cardata.stream_leases import Leases, Roster
from functions.providers.cardata.stream_line import Broker
from functions.providers.cardata.stream_report import StreamReport
from functions.providers.cardata.stream_session import SessionParts
from functions.providers.cardata.stream_worker import Worker, ttl_s
from functions.tokens import TokenSet
from tests.providers.cardata.harness import Bench

LEASE_S = 30.0


class Sleepers:
    """Sleeps on a clock that stands still: whoever sleeps wakes when the test has let enough time pass."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._sleeping: list[tuple[float, asyncio.Future[None], str]] = []
        """When each is due, what wakes it, and what its task runs."""

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        waking: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        task = asyncio.current_task()
        coroutine = task.get_coro() if task else None
        self._sleeping.append((self._clock.monotonic() + seconds, waking, getattr(coroutine, "__qualname__", "")))
        await waking

    def waits_s(self) -> list[float]:
        """How long those who sleep now will go on."""
        return sorted(due - self._clock.monotonic() for due, waking, _ in self._sleeping if not waking.done())

    def asleep(self, coroutine: str) -> int:
        """How many tasks that run it sleep now."""
        return sum(name == coroutine and not waking.done() for _, waking, name in self._sleeping)

    def wake(self) -> None:
        """Wake whose time has come."""
        for due, waking, _ in self._sleeping:
            if due <= self._clock.monotonic() and not waking.done():
                waking.set_result(None)
        self._sleeping = [one for one in self._sleeping if not one[1].done()]


@dataclass
class Reported:
    """A report, and the events in it."""

    clock: ManualClock
    lines: io.StringIO = field(default_factory=io.StringIO)

    def __post_init__(self) -> None:
        output = configure(
            self.lines,
            level="DEBUG",
            project_id=None,
            environment="development",
            service="test",
            version="0",
            revision="test",
        )
        self.report = StreamReport(EventLog(output, self.clock, strict=True))
        self.report.watch(dict, lambda: 0)

    def events(self, name: str) -> list[dict[str, Any]]:
        """The events of that name."""
        lines = [orjson.loads(line) for line in self.lines.getvalue().splitlines()]
        return [line for line in lines if line["message"] == name]

    def count(self, series: str) -> float:
        """One sample of the metrics, by its name and labels as they are exposed."""
        for line in self.report.expose()[0].decode().splitlines():
            if line.startswith(f"{series} "):
                return float(line.rpartition(" ")[2])
        raise LookupError(series)


@dataclass
class StreamBench:
    """A provider in front of the sandbox, and what a worker is made of."""

    bench: Bench
    reported: Reported
    sleepers: Sleepers
    told: list[str] = field(default_factory=list)
    """The accounts of which the instances were told a change."""

    async def tell(self, account_id: str) -> None:
        self.told.append(account_id)

    def intake(self, journal: Journal | None = None, store_every_s: float | None = None) -> Intake:
        return Intake(
            DocumentSignals(self.bench.documents),
            journal,
            self.bench.clock,
            self.reported.report,
            self.tell,
            store_every_s=store_every_s,
            sleep=self.sleepers.sleep,
        )

    def parts(self, intake: Intake, spread: float = 0.5) -> SessionParts:
        address = self.bench.sandbox.stream()

        async def usable(account_id: str, refused: str | None) -> TokenSet:
            account = type(self.bench.account)(account_id, "cardata", self.bench.account.region)
            return await self.bench.cardata.auth.usable(account, refused=refused)

        return SessionParts(
            broker=Broker(address.host, address.port, address.ssl_context()),
            usable=usable,
            intake=intake,
            watch=StreamWatch(self.bench.documents),
            report=self.reported.report,
            clock=self.bench.clock,
            turns=asyncio.Semaphore(8),
            sleep=self.sleepers.sleep,
            spread=lambda: spread,
        )

    def worker(self, name: str, documents: Documents | None = None) -> Worker:
        documents = documents or self.bench.documents

        async def hear() -> None:
            pass

        return Worker(
            StreamIndex(documents),
            Roster(documents, self.bench.clock, name, ttl_s(LEASE_S)),
            Leases(documents, name),
            self.parts(self.intake()),
            lease_s=LEASE_S,
            hear=hear,
        )

    def pass_time(self, seconds: float) -> None:
        """Let time pass, here and at BMW."""
        self.bench.advance(seconds)
        self.sleepers.wake()

    def speak(self, vin: str, data: dict[str, Any], *, gcid: str | None = None) -> int:
        """Publish one message of a car; how many connections it reached. ``data`` by descriptor."""
        now = self.bench.clock.utc().isoformat()
        entries = {name: {"timestamp": now, "value": value} for name, value in data.items()}
        raw = orjson.dumps({"vin": vin, "entityId": "e", "topic": vin, "timestamp": now, "data": entries}).decode()
        sent = self.bench.sandbox.publish(gcid or self.bench.sandbox.demo["gcid"], vin=vin, raw=raw)
        return sent["delivered"]

    async def stored(self, vin: str, name: str, account_id: str = "acc_1") -> Any:
        """The stored value of a signal."""
        signal = (await DocumentSignals(self.bench.documents).load(account_id, vin)).get(name)
        return None if signal is None else signal.value


async def until(holds: Callable[[], bool]) -> None:
    """Return as soon as ``holds``; TimeoutError where it never does."""
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - what is waited for lies in another process
            await asyncio.sleep(0.005)
