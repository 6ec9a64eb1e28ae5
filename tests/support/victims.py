"""Processes that are killed in the middle of something, after each step of it in turn.

A step is an operation of the store, or a command received by the maker. Run as a program this forks one victim a
file, each of which kills itself; imported it starts that program.
"""

import asyncio
import itertools
import os
import shutil
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from common.clock import ManualClock
from common.stores.documents import open_documents
from functions.providers.port import Account, Command, CommandName, Receipt, SendPermit, Vehicle
from tests.support.fake_provider import FakeMaker
from tests.support.tapped_documents import TappedDocuments, When
from tests.support.world import ME, World, build_world, form

ROOT = Path(__file__).parents[2]
KEY = "a-key"
LOCK = Command(CommandName.LOCK)
SURVIVED = 7
"""Exit code of a victim that came to its end before its time."""


class ReportingMaker(FakeMaker):
    """Writes down each command that it receives where a kill cannot reach it."""

    received: Path
    step: Callable[[], None]

    async def send(self, account: Account, vehicle: Vehicle, command: Command, permit: SendPermit) -> Receipt:
        receipt = await super().send(account, vehicle, command, permit)
        with self.received.open("a") as file:
            file.write(f"{command.name}\n")
        self.step()
        return receipt


def database_of(directory: Path, scenario: str, steps: int) -> Path:
    """The file of the victim that was killed after so many steps."""
    return directory / f"{scenario}-{steps}.db"


def received_of(database: Path) -> list[str]:
    """The commands that the maker received from a victim."""
    file = database.with_suffix(".received")
    return file.read_text().splitlines() if file.exists() else []


async def slaughter(directory: Path, scenario: str) -> int:
    """Kill a victim after 0, 1, 2 ... steps until one survives; how many were killed."""
    program = [sys.executable, "-m", "tests.support.victims", str(directory), scenario]
    process = await asyncio.create_subprocess_exec(*program, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    assert process.returncode == 0
    return int(output)


async def perform(world: World, scenario: str) -> None:
    """The scenario. ``link`` is what has happened before all but a first connect."""
    if scenario == "link":
        link = await world.linked()
        vehicle = await world.vehicles.find(link, None)
        await world.commands.send(link, vehicle, Command(CommandName.FLASH), wait_s=9, key="an-older-key", code=None)
    elif scenario == "disconnect":
        (link,) = await world.links.of_principal(ME)
        await world.accounts.disconnect(link)
    elif scenario == "lock":
        (link,) = await world.links.of_principal(ME)
        vehicle = await world.vehicles.find(link, None)
        await world.commands.send(link, vehicle, LOCK, wait_s=9, key=KEY, code=None)
    else:
        world.clock.wall += timedelta(minutes=1)
        await world.accounts.connect(ME, "mybmw", form(captcha="captcha-2"))


async def _live(database: Path, scenario: str, steps: int | None = None) -> None:
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if done == steps:
            os.kill(os.getpid(), signal.SIGKILL)

    async def tap(when: When, _operation: str, _key: str) -> None:
        if steps == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        if when is When.AFTER:
            step()

    clock = ManualClock()
    maker = ReportingMaker(clock)
    maker.received, maker.step = database.with_suffix(".received"), step
    documents = TappedDocuments(open_documents(f"sqlite:///{database}"), tap)
    await perform(build_world(documents, clock, maker), scenario)
    await documents.aclose()


def _fork(database: Path, scenario: str, steps: int | None = None) -> bool:
    """Whether the child was killed by itself, and not by the end of its work."""
    pid = os.fork()
    if pid == 0:
        asyncio.run(_live(database, scenario, steps))
        os._exit(SURVIVED)
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == SURVIVED, f"a victim failed after {steps} steps"
        return False
    assert os.WTERMSIG(status) == signal.SIGKILL
    return True


def _main(directory: Path, scenario: str) -> None:
    linked = directory / "linked.db"
    if scenario != "connect":
        _fork(linked, "link")
    for steps in itertools.count():
        database = database_of(directory, scenario, steps)
        if scenario != "connect":
            shutil.copy(linked, database)
        if not _fork(database, scenario, steps):
            print(steps)  # noqa: T201 - how a process speaks
            return


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2])
