"""Processes that renew the tokens of one account at once: run as a program it is one of them."""

import asyncio
import fcntl
import json
import os
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from common.clock import SystemClock
from common.stores.documents import open_documents
from functions.tokens import InvalidGrant, TokenKeeper, TokenSet

ROOT = Path(__file__).parents[2]


class FileMaker:
    """A maker in a directory, shared by processes: a refresh token works once, and used again kills its family."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def open_account(self, account_id: str) -> TokenSet:
        """A first login, whose access token has ended already."""
        self._file(account_id).write_text(json.dumps({"generation": 0, "dead": False}))
        return _tokens(account_id, 0, datetime.now(UTC) - timedelta(hours=1))

    def state(self, account_id: str) -> tuple[int, bool]:
        """How often it was rotated, and whether the family is dead."""
        state = json.loads(self._file(account_id).read_text())
        return state["generation"], state["dead"]

    async def refresh(self, old: TokenSet) -> TokenSet:
        """Trade a refresh token in."""
        account_id = old.extra["account"]
        await asyncio.sleep(0)
        with self._file(account_id).open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            state = json.loads(file.read())
            if state["dead"] or old.extra["generation"] != str(state["generation"]):
                state["dead"] = True
            else:
                state["generation"] += 1
            file.seek(0)
            file.write(json.dumps(state))
            file.truncate()
        if state["dead"]:
            raise InvalidGrant
        return _tokens(account_id, state["generation"], datetime.now(UTC) + timedelta(hours=1))

    def _file(self, account_id: str) -> Path:
        return self._directory / f"{account_id}.json"


def _tokens(account_id: str, generation: int, expires_at: datetime) -> TokenSet:
    extra = {"account": account_id, "generation": str(generation)}
    return TokenSet(f"access-{account_id}-{generation}", f"refresh-{account_id}-{generation}", expires_at, extra)


async def race(url: str, directory: Path, processes: int, tasks: int, accounts: list[str]) -> list[str]:
    """Let them all go at once; the access tokens that all their callers got."""
    program = [sys.executable, "-m", "tests.support.token_racers", "race", url, str(directory), str(tasks), *accounts]
    racers = [
        await asyncio.create_subprocess_exec(
            *program, cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        for _ in range(processes)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert await racer.stdout.readline() == b"ready\n"
    outputs = await asyncio.gather(*(racer.communicate(b"go\n") for racer in racers))
    assert [racer.returncode for racer in racers] == [0] * processes
    return [line for output, _ in outputs for line in output.decode().splitlines()]


async def die(url: str, directory: Path, moment: str, account: str) -> None:
    """Have a process begin a renewal and be killed ``before`` or ``after`` the maker has answered."""
    program = [sys.executable, "-m", "tests.support.token_racers", moment, url, str(directory), "1", account]
    victim = await asyncio.create_subprocess_exec(*program, cwd=ROOT)
    assert await victim.wait() == -signal.SIGKILL


async def _main(kind: str, url: str, directory: Path, tasks: int, accounts: list[str]) -> None:
    maker = FileMaker(directory)

    async def refresh(old: TokenSet) -> TokenSet:
        if kind == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        fresh = await maker.refresh(old)
        if kind == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return fresh

    documents = open_documents(url)
    keeper = TokenKeeper(documents, SystemClock())
    if kind == "race":
        print("ready", flush=True)  # noqa: T201 - how a process speaks
        await asyncio.to_thread(sys.stdin.readline)
    calls = [keeper.usable(account, refresh) for _ in range(tasks) for account in accounts]
    for tokens in await asyncio.gather(*calls):
        print(tokens.access_token)  # noqa: T201 - how a process speaks
    await documents.aclose()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), sys.argv[5:]))
