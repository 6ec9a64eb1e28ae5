"""Row 22: what was sealed opens only where it was sealed, and master keys are replaced while everybody works."""

import asyncio
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from common.clock import SystemClock
from common.crypto.errors import SealBroken
from common.crypto.keyset import Keyset
from common.stores.documents import Body, Document
from common.stores.sealed import SealedDocuments, segment
from common.stores.sqlite import SqliteDocuments
from common.vault import Vault
from scorecard.row import Finding, Row, Say
from scorecard.sealing_worker import ACCOUNTS, store

_ROOT = Path(__file__).resolve().parent.parent
_FLIPS = 100
"""Bits flipped in each stored field."""
_REPORTS = 4
"""What each instance must have got done before the deployment goes on, in lines of its report."""


def _sealing(say: Say) -> Finding:
    with tempfile.TemporaryDirectory() as folder:
        attacks = _Attacks(Path(folder))
        asyncio.run(attacks.run(say))
    with tempfile.TemporaryDirectory() as folder:
        rounds, failures, said = _rotate_under_load(f"sqlite:///{folder}/documents.db", say)
    refusals = ", ".join(f"{attacks.refused[kind]} of {tried} {kind}" for kind, tried in attacks.tried.items())
    shown = ", ".join(f"{count} {name}" for name, count in failures.items()) or "0"
    measured = f"refused: {refusals}; two rolling replacements of the keys under load: {rounds} rounds, {shown} failed"
    return Finding(measured, attacks.refused == attacks.tried and not failures and said)


class _Burgled(SqliteDocuments):
    """A store to which somebody has written: ``forged`` bodies are read instead of those that are there."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.forged: Mapping[str, Body] = {}

    async def get(self, key: str) -> Document | None:
        found = await super().get(key)
        return replace(found, body=self.forged[key]) if found is not None and key in self.forged else found


class _Attacks:
    """Attacks on a store in which everything is sealed under ``k1``, and how many of which kind were refused."""

    def __init__(self, folder: Path) -> None:
        self._rng = random.Random(22)
        self._inner, self._keys = _Burgled(folder / "documents.db"), _Burgled(folder / "keys.db")
        self._masters = {kid: self._rng.randbytes(32) for kid in ("k1", "k2")}
        self.refused: Counter[str] = Counter()
        self.tried: Counter[str] = Counter()

    async def run(self, say: Say) -> None:
        """All of them."""
        await self._fill()
        bodies = {key: found.body for key in await self._inner.list("") if (found := await self._inner.get(key))}
        key_bodies = {key: found.body for key in await self._keys.list("") if (found := await self._keys.get(key))}
        say(f"{len(bodies)} documents, each swapped with every other, and each account's key with every other's")
        for key, other in itertools.permutations(bodies, 2):
            await self._attack("swaps", key, {key: bodies[other]})
        for key, other in itertools.permutations(key_bodies, 2):
            # The victim's document comes with the victim's key.
            theirs = {_token_of(key): bodies[_token_of(other)]}
            await self._attack("swaps", _token_of(key), theirs, {key: key_bodies[other]})
        say(f"{_FLIPS} bits flipped in each of their fields")
        for key, body in bodies.items():
            for forged in _flipped(body, self._rng):
                await self._attack("bit flips", key, {key: forged})
        for key, body in key_bodies.items():
            for forged in _flipped(body, self._rng):
                await self._attack("bit flips", _token_of(key), {}, {key: forged})
        for key in bodies:
            await self._attack("under a retired key", key, kid="k2")
        await self._inner.aclose()
        await self._keys.aclose()

    async def _fill(self) -> None:
        vault, documents = self._opened("k1")
        for number in range(ACCOUNTS):
            await vault.create(f"acc_{number}", "mybmw", f"principal {number}")
            for key in (f"tokens/acc_{number}", f"commands/acc_{number}/one", f"identities/{number}"):
                await documents.create(key, {"secret": self._rng.randbytes(30).hex()})

    async def _attack(
        self,
        kind: str,
        key: str,
        forged: Mapping[str, Body] = MappingProxyType({}),
        forged_keys: Mapping[str, Body] = MappingProxyType({}),
        kid: str = "k1",
    ) -> None:
        """Read a document of a store that was written to, as a process that holds no data key yet."""
        self._inner.forged, self._keys.forged = forged, forged_keys
        self.tried[kind] += 1
        try:
            await self._opened(kid)[1].get(key)
        except SealBroken:
            self.refused[kind] += 1

    def _opened(self, kid: str) -> tuple[Vault, SealedDocuments]:
        keyset = Keyset([(kid, self._masters[kid])])
        vault = Vault(self._keys, keyset, SystemClock())
        accounts = {"tokens": segment(1), "commands": segment(1)}
        return vault, SealedDocuments(self._inner, vault, keyset, accounts=accounts)


def _token_of(key: str) -> str:
    return f"tokens/{key.removeprefix('keys/')}"


def _flipped(body: Body, rng: random.Random) -> Iterator[Body]:
    for field, value in body.items():
        for _ in range(_FLIPS):
            at = rng.randrange(len(value))
            yield {**body, field: f"{value[:at]}{chr(ord(value[at]) ^ 1 << rng.randrange(7))}{value[at + 1 :]}"}


class _Instance:
    """One process that works on sealed documents, under the ``TOKEN_KEYS`` that it was started with."""

    def __init__(self, environ: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "scorecard.sealing_worker"],
            cwd=_ROOT, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._lines = iter(self._process.stdout or ())

    def wait_for_work(self) -> None:
        """Return when some more work is done."""
        for _ in range(_REPORTS):
            next(self._lines)

    def end(self) -> tuple[int, Counter[str]]:
        """How many rounds it did, and what failed in them."""
        output, _ = self._process.communicate()
        told = json.loads(output.splitlines()[-1])
        return told["rounds"], Counter(told["failures"])


def _rotate_under_load(url: str, say: Say) -> tuple[int, Counter[str], bool]:
    """Rounds, failures, and whether each rotation said that the old key may be dropped."""
    first, second, third = (_ops(url, "", "master").stdout.strip() for _ in range(3))
    asyncio.run(_fill(first, url))
    rounds, failures, said = 0, Counter[str](), True
    running = [_Instance(_environ(url, first)) for _ in range(2)]
    for old, new in ((first, second), (second, third)):
        for token_keys in (f"{old},{new}", f"{new},{old}", new):
            say(f"deploying {', '.join(key.partition(':')[0] for key in token_keys.split(','))}")
            starting = [_Instance(_environ(url, token_keys)) for _ in range(2)]
            # Old and new instances work side by side, as they do in a rolling deployment.
            for instance in (*running, *starting):
                instance.wait_for_work()
            for instance in running:
                done, failed = instance.end()
                rounds, failures = rounds + done, failures + failed
            running = starting
            if token_keys.startswith(f"{new},"):
                answered = _ops(url, token_keys, "rotate").stdout
                said = said and f"{old.partition(':')[0]} is used by nothing any more" in answered
    for instance in running:
        instance.wait_for_work()
        done, failed = instance.end()
        rounds, failures = rounds + done, failures + failed
    failures += Counter(lost=2 * rounds - asyncio.run(_counted(third, url)))
    return rounds, failures, said


async def _counted(token_keys: str, url: str) -> int:
    """What all rounds have added, two a round."""
    _, documents = store(token_keys, url)
    keys = [*await documents.list("tokens"), *await documents.list("identities")]
    found = [await documents.get(key) for key in keys]
    await documents.aclose()
    return sum(document.body["count"] for document in found if document is not None)


async def _fill(token_keys: str, url: str) -> None:
    vault, documents = store(token_keys, url)
    for number in range(ACCOUNTS):
        await vault.create(f"acc_{number}", "mybmw", f"principal {number}")
        await documents.create(f"tokens/acc_{number}", {"count": 0})
        await documents.create(f"identities/{number}", {"count": 0})
    await documents.aclose()


def _ops(url: str, token_keys: str, command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "ops.keys", command],
        cwd=_ROOT,
        env=_environ(url, token_keys),
        check=True,
        capture_output=True,
        text=True,
    )


def _environ(url: str, token_keys: str) -> dict[str, str]:
    return {**os.environ, "TOKEN_KEYS": token_keys, "DOCUMENTS_URL": url}


ROWS = (Row(22, "blob swap, bit flip, retired key", "100 % refused; rotation with no downtime", _sealing),)
