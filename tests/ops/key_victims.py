"""Processes that are killed while they change keys: run as a program it forks them, imported it starts that program."""

import asyncio
import itertools
import os
import shutil
import signal
import sys
from asyncio.subprocess import PIPE, Process
from datetime import timedelta
from pathlib import Path

from common.api_keys import ApiKey
from common.callers import Scope
from common.clock import ManualClock
from common.stores.documents import open_documents
from ops.keys_book import KeyBook
from tests.support.tapped_documents import TappedDocuments, When

ROOT = Path(__file__).parents[2]
SURVIVED = 7
"""Exit code of a victim that came to its end before its time."""
READ_ONLY = frozenset({Scope.READ})


def database_of(directory: Path, scenario: str, steps: int) -> Path:
    """The file of the victim that was killed after so many operations of the store."""
    return directory / f"{scenario}-{steps}.db"


async def start(*arguments: str) -> Process:
    """Start this program."""
    program = [sys.executable, "-m", "tests.ops.key_victims", *arguments]
    return await asyncio.create_subprocess_exec(*program, cwd=ROOT, stdout=PIPE)


async def slaughter(directory: Path, scenario: str, key_text: str) -> int:
    """Kill a victim after 0, 1, 2 ... operations on a copy of ``base.db`` until one survives; how many were killed."""
    process = await start(str(directory), scenario, key_text)
    output, _ = await process.communicate()
    assert process.returncode == 0
    return int(output)


async def _live(database: Path, scenario: str, key_text: str, steps: int) -> None:
    done = 0

    async def tap(when: When, _operation: str, _key: str) -> None:
        nonlocal done
        done += when is When.AFTER
        if done == steps:
            os.kill(os.getpid(), signal.SIGKILL)

    documents = TappedDocuments(open_documents(f"sqlite:///{database}"), tap)
    book = KeyBook(documents, ManualClock())
    key = ApiKey.parse(key_text)
    assert key is not None
    if scenario == "new":
        await book.issue("another", READ_ONLY)
    elif scenario == "revoke":
        await book.revoke(key.id)
    else:
        await book.renew(key.id, overlap=timedelta(days=7))
    await documents.aclose()


def _fork(directory: Path, scenario: str, key_text: str, steps: int) -> bool:
    """Whether the child was killed by itself, and not by the end of its work."""
    database = database_of(directory, scenario, steps)
    shutil.copy(directory / "base.db", database)
    pid = os.fork()
    if pid == 0:
        asyncio.run(_live(database, scenario, key_text, steps))
        os._exit(SURVIVED)
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == SURVIVED, f"a victim failed after {steps} steps"
        return False
    assert os.WTERMSIG(status) == signal.SIGKILL
    return True


async def _issue_without_end(database: Path) -> None:
    book = KeyBook(open_documents(f"sqlite:///{database}"), ManualClock())
    for number in itertools.count():
        print((await book.issue(f"number {number}", READ_ONLY)).text, flush=True)  # noqa: T201 - how a process speaks


def _main(directory: Path, scenario: str, key_text: str = "") -> None:
    if scenario == "without end":
        asyncio.run(_issue_without_end(directory / "base.db"))
    killed = next(steps for steps in itertools.count() if not _fork(directory, scenario, key_text, steps))
    print(killed)  # noqa: T201 - how a process speaks


if __name__ == "__main__":
    _main(Path(sys.argv[1]), *sys.argv[2:])
