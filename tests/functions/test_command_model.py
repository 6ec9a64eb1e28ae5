"""Random lives of commands against a model: sends, repeats, crashes at any point, polls, time, a maker with a mind.

Two instances share a store and a maker. An instance that crashes does nothing any more, not even clean up, as after
kill -9; a new one takes its place. What the maker really received and did is the truth that records are held against.
"""

import asyncio
import itertools
import os
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from common.clock import ManualClock
from common.errors import ApiError, CircuitOpen, RemoteServiceError, UpstreamError
from common.stores.documents import open_documents
from functions.command_record import Record
from functions.providers.port import Account, Command, Outcome, Progress, Receipt, SendPermit, Vehicle
from functions.send_permit import OneSend
from tests.support.driver import Driver
from tests.support.fake_provider import FakeMaker
from tests.support.tapped_documents import TappedDocuments, When
from tests.support.world import build_world

T = TypeVar("T")

EXAMPLES = int(os.environ.get("COMMAND_MODEL_EXAMPLES", "40"))
STEPS = 40


class Killed(BaseException):
    """The process is gone: nothing after this runs in it."""


@dataclass
class Event:
    """A command as the maker knows it."""

    number: int
    name: str
    request: str
    """Which request it came from: a key, or a name of the model's own for each that came without."""
    outcome: Outcome = Outcome.PENDING


@dataclass
class Maker(FakeMaker):
    """Takes commands, or fails to, as told; executes them when told."""

    events: list[Event] = field(default_factory=list)
    how: str = "accept"
    request: str = ""

    async def send(self, account: Account, vehicle: Vehicle, command: Command, permit: SendPermit) -> Receipt:
        """Everything that can go wrong with one request."""
        if self.how == "no connection":
            raise UpstreamError
        permit.take()
        if self.how == "connection refused":
            permit.refused()
            raise UpstreamError
        if self.how == "refused":
            raise RemoteServiceError
        if self.how == "killed on the way":
            raise Killed
        if self.how == "lost on the way":
            raise UpstreamError(may_have_succeeded=True)
        self.events.append(Event(len(self.events), command.name.value, self.request))
        if self.how == "answer lost":
            raise UpstreamError(may_have_succeeded=True)
        if self.how == "killed after":
            raise Killed
        return Receipt(Outcome.UNKNOWN) if self.how == "empty" else Receipt(Outcome.ACCEPTED, str(len(self.events) - 1))

    async def poll(self, account: Account, vehicle: Vehicle, command: Command, event_id: str) -> Progress:
        """The truth, or an outage."""
        if self.how == "outage":
            raise UpstreamError
        return Progress(self.events[int(event_id)].outcome)


HOW = st.sampled_from(
    ["accept"] * 12
    + ["no connection", "connection refused", "refused", "killed on the way", "lost on the way"]
    + ["answer lost", "killed after", "empty"]
)
NAMES = st.sampled_from(["lock", "unlock", "flash"])
KEYS = st.sampled_from([None, "1", "1", "2"])
"""Keys are apart by the command's name: their misuse has tests of its own and would only shorten these lives."""
DIES_AT = st.sampled_from([None] * 24 + list(range(0, 12, 2)))
"""At which of its operations on the store an instance is killed."""


class Commands(RuleBasedStateMachine):
    """See the module's docstring."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = ManualClock()
        self.maker = Maker(self.clock)
        self.stores: list[Any] = []
        self.numbers = itertools.count()
        self.records: dict[str, Record] = {}
        self.came_from: dict[str, str] = {}
        """The request that each command first answered."""

    def run(self, work: Awaitable[T]) -> T:
        return self.loop.run_until_complete(work)

    @initialize()
    def two_instances(self) -> None:
        self.drivers = [self.run(self.new_instance()) for _ in range(2)]

    async def new_instance(self) -> Driver:
        store = open_documents(f"sqlite:///{Path(self.folder.name)}/documents.db")
        self.stores.append(store)
        world = build_world(TappedDocuments(store), self.clock, self.maker)
        link = await world.linked(captcha=f"captcha-{next(self.numbers)}")
        return Driver(world, link, await world.vehicles.find(link, None))

    @rule(which=st.integers(0, 1), name=NAMES, key=KEYS, how=HOW, dies_at=DIES_AT)
    def send(self, which: int, name: str, key: str | None, how: str, dies_at: int | None) -> None:
        key = f"{name}-{key}" if key else None
        self.maker.request = key or f"keyless {next(self.numbers)}"
        with suppress(ApiError):
            sent = self.under(which, how, dies_at, lambda driver: driver.request(name, key=key))
            if sent is not None:
                self.learn(sent.record)

    @rule(which=st.integers(0, 1), data=st.data(), outage=st.booleans(), dies_at=DIES_AT)
    def ask(self, which: int, data: st.DataObject, outage: bool, dies_at: int | None) -> None:
        if not self.records:
            return
        record = self.records[data.draw(st.sampled_from(sorted(self.records)))]
        how = "outage" if outage else "accept"
        try:
            answered = self.under(which, how, dies_at, lambda driver: driver.status(record))
        except ApiError as error:
            if not outage and not isinstance(error, CircuitOpen):
                raise
        else:
            if answered is not None:
                self.learn(answered)

    def under(self, which: int, how: str, dies_at: int | None, work: Callable[[Driver], Awaitable[T]]) -> T | None:
        """Let an instance work while the maker behaves as told; ``None`` where it was killed, and replaced."""
        driver, killed = self.drivers[which], False
        self.maker.how = how
        self.die_at(driver, dies_at)
        try:
            return self.run(work(driver))
        except Killed:
            killed = True
            return None
        except ApiError as error:
            self.tapped(driver).tap = _nothing
            self.remember_failed(driver, error)
            raise
        finally:
            self.maker.how = "accept"
            self.tapped(driver).tap = _nothing
            if killed:
                self.drivers[which] = self.run(self.new_instance())

    @rule(seconds=st.sampled_from([1, 5, 14, 16, 31, 61, 100, 4000]))
    def time_passes(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule(seconds=st.sampled_from([-20, -1, 1, 20]))
    def the_wall_clock_is_corrected(self, seconds: int) -> None:
        self.clock.step_wall(seconds)

    @rule(fails=st.sampled_from([False, False, False, True]))
    def the_maker_finishes(self, fails: bool) -> None:
        for event in self.maker.events:
            if event.outcome is Outcome.PENDING:
                event.outcome = Outcome.FAILED if fails else Outcome.EXECUTED
                if not fails and event.name in ("lock", "unlock"):
                    self.maker.locks("LOCKED" if event.name == "lock" else "UNLOCKED")

    @rule()
    def everything_ends(self) -> None:
        """What is open is executed and asked about, and slots and circuits are free again."""
        self.the_maker_finishes(fails=False)
        self.clock.advance(1_000)
        for record in list(self.records.values()):
            self.learn(self.run(self.drivers[0].status(record)))

    @invariant()
    def no_key_is_sent_twice(self) -> None:
        received = Counter(event.request for event in self.maker.events)
        assert all(count == 1 for count in received.values()), received

    @invariant()
    def no_record_is_better_than_the_truth(self) -> None:
        for record in self.records.values():
            if record.event_id is None:
                continue
            truth = self.maker.events[int(record.event_id)]
            assert truth.name == record.command.name.value
            if record.state in ("executed", "confirmed"):
                assert truth.outcome is Outcome.EXECUTED
            if record.state == "failed":
                assert truth.outcome is Outcome.FAILED

    def learn(self, record: Record) -> None:
        known = self.records.get(record.id)
        if known is not None and known.is_final:
            assert record.state == known.state, "a final word was taken back"
        self.records[record.id] = record

    def remember_failed(self, driver: Driver, error: ApiError) -> None:
        command_id = error.details.get("command_id")
        assert command_id or not error.may_have_succeeded, "a doubtful command must be found again"
        if command_id is None:
            return
        record = self.run(driver.world.ledger.load(command_id))
        if record is not None:
            self.learn(record)
            if not error.may_have_succeeded and record.state in ("failed", "expired"):
                assert record.event_id is None or self.maker.events[int(record.event_id)].outcome is Outcome.FAILED

    def tapped(self, driver: Driver) -> TappedDocuments:
        documents = driver.world.documents
        assert isinstance(documents, TappedDocuments)
        return documents

    def die_at(self, driver: Driver, operation: int | None) -> None:
        """Have the instance killed around its nth operation on the store, and let nothing through afterwards."""
        if operation is None:
            self.tapped(driver).tap = Lifeline()
            return
        left = itertools.count(operation, -1)
        dead = Lifeline()

        async def tap(when: When, name: str, key: str) -> None:
            await dead(when, name, key)
            if next(left) == 0:
                dead.kill()
                raise Killed

        self.tapped(driver).tap = tap

    def teardown(self) -> None:
        for store in self.stores:
            with suppress(Exception):
                self.run(store.aclose())
        self.loop.close()
        self.folder.cleanup()


class Lifeline:
    """Refuses every operation of an instance that was killed."""

    def __init__(self) -> None:
        self.is_dead = False

    def kill(self) -> None:
        self.is_dead = True

    async def __call__(self, _when: When, _operation: str, _key: str) -> None:
        if self.is_dead:
            raise Killed


async def _nothing(_when: When, _operation: str, _key: str) -> None:
    pass


@pytest.mark.timeout(240)
def test_no_command_runs_twice_and_no_record_is_better_than_the_truth() -> None:
    run_state_machine_as_test(
        Commands,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            # A life that fails is short enough to read, and shrinking one would take longer than the suite may.
            phases=(Phase.explicit, Phase.reuse, Phase.generate),
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_model_would_notice_a_second_send() -> None:
    """The model's own teeth: a permit that can be taken twice is found at once."""
    permit = OneSend(ManualClock(), 30)
    permit.take()
    with pytest.raises(RemoteServiceError) as refused:
        permit.take()
    assert refused.value.may_have_succeeded
