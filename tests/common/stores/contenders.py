"""Processes that compete for documents: run as a program it is one of them, imported it starts them."""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from dataclasses import dataclass
from pathlib import Path

from common.stores.documents import Body, DocumentExists, Documents, open_documents, update

ROOT = Path(__file__).parents[3]
SEALED = "sealed+"
"""Begins the address of a store whose bodies are sealed."""


@dataclass(frozen=True)
class Address:
    """Where a store is."""

    url: str
    gcs_endpoint: str = ""

    def open(self) -> Documents:
        if self.url.startswith(SEALED):
            from tests.common.stores.sealing import open_sealed  # noqa: PLC0415 - others start faster without

            return open_sealed(self.url.removeprefix(SEALED))
        return open_documents(self.url, gcs_endpoint=self.gcs_endpoint or None)


async def start(address: Address, *work: str) -> Process:
    """Start one contender; it is ready, but has not touched the store, when this returns."""
    program = [sys.executable, "-m", "tests.common.stores.contenders", address.url, address.gcs_endpoint, *work]
    process = await asyncio.create_subprocess_exec(*program, cwd=ROOT, stdin=PIPE, stdout=PIPE)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    return process


async def compete(address: Address, processes: int, *work: str) -> list[str]:
    """Start contenders, let them all go at once and return the lines that they print."""
    contenders = [await start(address, *work) for _ in range(processes)]
    outputs = await asyncio.gather(*(contender.communicate(b"go\n") for contender in contenders))
    assert [contender.returncode for contender in contenders] == [0] * processes
    return [line for output, _ in outputs for line in output.decode().splitlines()]


async def create(documents: Documents, name: str, rounds: str) -> None:
    """Try to be the first under each of ``rounds`` keys; print those won."""
    for number in range(int(rounds)):
        try:
            await documents.create(f"race/{number}", {"winner": name})
        except DocumentExists:
            continue
        print(f"race/{number}")  # noqa: T201 - how a process speaks


async def count(documents: Documents, _name: str, times: str) -> None:
    """Add one to a counter, ``times`` over."""

    def one_more(body: Body) -> Body:
        return {"count": body["count"] + 1}

    for _ in range(int(times)):
        assert await update(documents, "counters/one", one_more, attempts=1000) is not None


async def write(documents: Documents, _name: str, run: str) -> None:
    """Write without end; print the number of a write when it is acknowledged."""
    number = 0
    while True:
        await documents.create(f"log/{run}.{number}", {"number": number, "padding": "x" * 3000})
        print(number, flush=True)  # noqa: T201 - how a process speaks
        number += 1


async def brief(seconds: float) -> None:
    """A pause on the scale of the emulator, which takes a thousand times as many writes a second as the service."""
    await asyncio.sleep(seconds / 100)


async def _main(url: str, gcs_endpoint: str, tasks: str, kind: str, *work: str) -> None:
    documents = Address(url, gcs_endpoint).open()
    if gcs_endpoint:
        from common.stores.gcs import GcsDocuments  # noqa: PLC0415 - a writer to a file starts faster without

        bucket, _, prefix = url.removeprefix("gs://").partition("/")
        documents = GcsDocuments(bucket, prefix, endpoint=gcs_endpoint, sleep=brief)
        await documents.list("")  # loading the library takes longer than the race
    print("ready", flush=True)  # noqa: T201 - how a process speaks
    await asyncio.to_thread(sys.stdin.readline)
    job = {"create": create, "count": count, "write": write}[kind]
    await asyncio.gather(*(job(documents, f"task {task}", *work) for task in range(int(tasks))))
    await documents.aclose()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
