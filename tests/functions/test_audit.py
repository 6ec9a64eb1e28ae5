"""The audit trail as it is written: what an entry holds, and chains that hold under many writers and kill -9."""

import asyncio
import hashlib
import hmac
import json
import sqlite3
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.clock import ManualClock
from common.errors import StoreUnavailable
from common.stores.documents import Document, Documents, open_documents
from functions.audit import AuditKey, AuditTrail, Entry, entry_key, head_key
from ops.audit import Reader
from ops.audit_proof import Examined, examine
from tests.support.audit_writer import ACCOUNT, KEY, OTHER_VIN, PARAMS, PRINCIPAL, VIN, enter, record
from tests.support.fake_gcs import FakeGcs, running_fake_gcs
from tests.support.tapped_documents import TappedDocuments, When, failing

ROOT = Path(__file__).parents[2]
SEAL = AuditKey(KEY.encode())
CHAIN = SEAL.pseudonym("vehicle", VIN)
OTHER_CHAIN = SEAL.pseudonym("vehicle", OTHER_VIN)

Open = Callable[[], Documents]


@pytest.fixture(scope="session")
def fake_gcs() -> Iterator[FakeGcs]:
    with running_fake_gcs() as server:
        yield server


@pytest.fixture(params=["sqlite", "gcs"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens one and the same store again and again, as instances do."""
    if request.param == "sqlite":
        return lambda: open_documents(f"sqlite:///{tmp_path}/shared.db")
    server: FakeGcs = request.getfixturevalue("fake_gcs")
    url = f"gs://{server.new_bucket()}/production"
    return lambda: open_documents(url, gcs_endpoint=server.url)


@pytest.fixture
async def store(open_store: Open) -> AsyncIterator[Documents]:
    documents = open_store()
    yield documents
    await documents.aclose()


def trail_on(documents: Documents, clock: ManualClock | None = None, key: str | None = KEY) -> AuditTrail:
    return AuditTrail(documents, clock or ManualClock(), key=None if key is None else key.encode())


async def prove(documents: Documents, chain: str = CHAIN, key: AuditKey = SEAL) -> Examined:
    reader = Reader(documents, key)
    return examine(key, await reader.read(chain, (await reader.chains())[chain]))


async def proven(documents: Documents, chain: str = CHAIN, key: AuditKey = SEAL) -> list[Entry]:
    """All entries of a chain with nothing wrong in it."""
    examined = await prove(documents, chain, key)
    assert examined.findings == ()
    return list(examined.entries.values())


async def raw(documents: Documents, key: str) -> Document:
    document = await documents.get(key)
    assert document is not None
    return document


# --- what an entry holds


async def test_an_intent_says_who_asked_for_what_and_when(store: Documents, clock: ManualClock) -> None:
    command = record("1")
    await trail_on(store, clock).intent(command, idempotency_key_digest="d" * 64)
    (entry,) = await proven(store)
    assert (entry.seq, entry.event, entry.operation, entry.state) == (1, "intent", "send_poi", "accepted")
    assert entry.at == "2026-01-01T12:00:00.000000+00:00"
    assert entry.command == "1".rjust(22, "0")
    assert entry.caller == SEAL.pseudonym("caller", PRINCIPAL)
    assert entry.account == SEAL.pseudonym("account", ACCOUNT)
    assert entry.vehicle == CHAIN
    assert entry.params == SEAL.pseudonym("params", command.fingerprint)
    assert entry.idempotency_key == SEAL.pseudonym("idempotency_key", "d" * 64)


async def test_an_outcome_says_how_far_the_command_has_come(store: Documents, clock: ManualClock) -> None:
    trail = trail_on(store, clock)
    await trail.intent(record("1"), idempotency_key_digest=None)
    clock.advance(2)
    await trail.outcome(replace(record("1"), state="failed"))
    await trail.outcome(replace(record("2"), state="executed", key_digest=None))
    intent, outcome, keyless = await proven(store)
    assert (outcome.seq, outcome.event, outcome.state) == (2, "outcome", "failed")
    assert (outcome.command, outcome.prev) == (intent.command, intent.hash)
    assert outcome.idempotency_key == SEAL.pseudonym("idempotency_key", "d" * 64)
    assert (intent.idempotency_key, keyless.idempotency_key) == (None, None)
    assert outcome.at == "2026-01-01T12:00:02.000000+00:00"


async def test_whoever_has_the_key_can_compute_every_hash_by_hand(documents: Documents) -> None:
    await enter(trail_on(documents), record())
    before = "0" * 64
    for seq in (1, 2):
        body = dict((await raw(documents, f"audit/{CHAIN}/{seq:012d}")).body)
        sealed = body.pop("hash")
        text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert sealed == hmac.new(KEY.encode(), text.encode(), hashlib.sha256).hexdigest()
        assert body["prev"] == before
        assert body["vehicle"] == hmac.new(KEY.encode(), b"vehicle\x00" + VIN.encode(), "sha256").hexdigest()
        before = sealed
    head = (await raw(documents, f"audit/{CHAIN}/head")).body
    assert (head["chain"], head["seq"], head["entry"]) == (CHAIN, 2, before)


async def test_without_a_key_the_hashes_are_plain_sha_256(documents: Documents) -> None:
    await enter(trail_on(documents, key=None), record())
    chain = hashlib.sha256(b"vehicle\x00" + VIN.encode()).hexdigest()
    assert len(await proven(documents, chain, AuditKey(None))) == 2
    body = dict((await raw(documents, entry_key(chain, 1))).body)
    sealed = body.pop("hash")
    assert sealed == hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


async def test_the_store_holds_nothing_that_names_a_person_a_car_or_a_place(
    documents: Documents, database: Path
) -> None:
    await enter(trail_on(documents), record())
    await trail_on(documents).outcome(record(vin=OTHER_VIN, state="unknown"))
    held = b"".join(file.read_bytes() for file in database.parent.glob("documents.db*"))
    assert CHAIN.encode() in held
    secrets = [VIN, OTHER_VIN, PRINCIPAL, "example.com", ACCOUNT[4:], *map(str, PARAMS.values()), "d" * 64, "f" * 64]
    assert [secret for secret in [*secrets, KEY] if secret.encode() in held] == []


async def test_a_vehicle_has_one_chain_whichever_account_commands_it(store: Documents) -> None:
    trail = trail_on(store)
    await enter(trail, record())
    await enter(trail, record(account="acc_" + "R" * 22))
    await enter(trail, record(vin=OTHER_VIN))
    assert len(await proven(store)) == 4
    assert len(await proven(store, OTHER_CHAIN)) == 2


async def test_another_key_gives_other_names_and_proves_nothing(documents: Documents) -> None:
    await enter(trail_on(documents), record())
    other = AuditKey(KEY.encode() + b"x")
    assert other.pseudonym("vehicle", VIN) != CHAIN
    problems = {(finding.where, finding.problem) for finding in (await prove(documents, key=other)).findings}
    assert problems == {("entry 1", "was changed"), ("entry 2", "was changed"), ("head", "was changed")}


# --- a store that fails


@pytest.mark.parametrize(("operation", "key"), [("get", "audit/"), ("create", "audit/"), ("replace", "audit/")])
@pytest.mark.parametrize("when", list(When))
async def test_an_intent_that_may_be_missing_is_an_error_and_the_chain_goes_on(
    documents: Documents, operation: str, key: str, when: When
) -> None:
    trail = trail_on(TappedDocuments(documents, failing(1, operation, key, when)))
    with pytest.raises(StoreUnavailable):
        await trail.intent(record("1"), idempotency_key_digest=None)
    await trail.intent(record("2"), idempotency_key_digest=None)
    entries = await proven(documents)
    assert entries[-1].command == "2".rjust(22, "0")
    assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))


async def test_an_outcome_that_cannot_be_written_is_an_error_too(documents: Documents) -> None:
    await documents.aclose()
    with pytest.raises(StoreUnavailable):
        await trail_on(documents).outcome(record())


# --- a chain that somebody has been at


async def without_head(documents: Documents) -> None:
    await documents.delete(head_key(CHAIN))


async def with_a_changed_head(documents: Documents) -> None:
    head = await raw(documents, head_key(CHAIN))
    await documents.replace(head, {**head.body, "seq": 1})


async def with_another_chains_head(documents: Documents) -> None:
    await enter(trail_on(documents), record(vin=OTHER_VIN))
    head = await raw(documents, head_key(CHAIN))
    await documents.replace(head, (await raw(documents, head_key(OTHER_CHAIN))).body)


async def with_a_forged_entry_ahead(documents: Documents) -> None:
    head = (await raw(documents, head_key(CHAIN))).body
    last = (await raw(documents, entry_key(CHAIN, 2))).body
    forged = AuditKey(b"a guess").seal({**last, "seq": 3, "prev": head["entry"]} | {"hash": ""})
    await documents.create(entry_key(CHAIN, 3), forged)


async def with_an_old_entry_ahead(documents: Documents) -> None:
    await documents.create(entry_key(CHAIN, 3), (await raw(documents, entry_key(CHAIN, 1))).body)


TAMPERING = [
    without_head,
    with_a_changed_head,
    with_another_chains_head,
    with_a_forged_entry_ahead,
    with_an_old_entry_ahead,
]


@pytest.mark.parametrize("tamper", TAMPERING)
async def test_nothing_is_appended_to_a_broken_chain_so_that_it_stays_visible(
    store: Documents, tamper: Callable[[Documents], Any], caplog: pytest.LogCaptureFixture
) -> None:
    trail = trail_on(store)
    await enter(trail, record())
    await tamper(store)
    before = await store.list(f"audit/{CHAIN}")
    with pytest.raises(StoreUnavailable, match="broken"):
        await trail.intent(record(), idempotency_key_digest=None)
    assert await store.list(f"audit/{CHAIN}") == before
    assert (await prove(store)).findings
    assert f"audit_chain_broken chain={CHAIN[:12]}" in caplog.text
    await trail.intent(record(vin=OTHER_VIN), idempotency_key_digest=None)  # other vehicles are not concerned


async def test_removed_entries_stay_missing_when_the_chain_goes_on(store: Documents) -> None:
    trail = trail_on(store)
    await enter(trail, record())
    await store.delete(entry_key(CHAIN, 2))
    await enter(trail, record())
    assert [(f.where, f.problem) for f in (await prove(store)).findings] == [("entry 2", "removed")]


# --- many writers


async def test_instances_that_write_at_once_make_one_chain_without_a_gap(open_store: Open) -> None:
    stores = [open_store() for _ in range(4)]
    numbers = [f"{writer}.{number}" for writer in range(4) for number in range(3)]

    async def write(documents: Documents, mine: list[str]) -> None:
        for number in mine:
            await enter(trail_on(documents), record(number))

    await asyncio.gather(*(write(one, numbers[at * 3 : at * 3 + 3]) for at, one in enumerate(stores)))
    entries = await proven(stores[0])
    for one in stores:
        await one.aclose()
    assert [entry.seq for entry in entries] == list(range(1, 25))
    expected = [(n.rjust(22, "0"), event) for n in numbers for event in ("intent", "outcome")]
    assert sorted((entry.command, entry.event) for entry in entries) == sorted(expected)


@pytest.mark.parametrize("moment", [("create", head_key(CHAIN)), ("get", entry_key(CHAIN, 1))])
async def test_writers_that_meet_on_a_new_chain_give_it_one_head(documents: Documents, moment: tuple[str, str]) -> None:
    """The one finds no head, and the other makes it, and entries, before the one has done anything about that."""

    async def meanwhile(when: When, operation: str, key: str) -> None:
        if (when, operation, key) == (When.BEFORE, *moment) and not await documents.list("audit"):
            await enter(trail_on(documents), record("first"))

    await enter(trail_on(TappedDocuments(documents, meanwhile)), record("second"))
    assert [entry.command.strip("0") for entry in await proven(documents)] == ["first"] * 2 + ["second"] * 2


async def start(url: str, name: str, times: int, *fatal: str) -> Process:
    program = [sys.executable, "-m", "tests.support.audit_writer", url, name, str(times), *fatal]
    process = await asyncio.create_subprocess_exec(*program, cwd=ROOT, stdin=PIPE, stdout=PIPE)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    return process


async def test_four_processes_lose_no_entry_of_one_chain(documents: Documents, database: Path) -> None:
    writers = await asyncio.gather(*(start(f"sqlite:///{database}", str(number), 50) for number in range(4)))
    await asyncio.gather(*(writer.communicate(b"go\n") for writer in writers))
    assert [writer.returncode for writer in writers] == [0] * 4
    entries = await proven(documents)
    assert [entry.seq for entry in entries] == list(range(1, 401))
    commands = [f"{writer}.{number}".rjust(22, "0") for writer in range(4) for number in range(50)]
    for event in ("intent", "outcome"):
        assert sorted(entry.command for entry in entries if entry.event == event) == sorted(commands)


async def until_killed(writer: Process, acknowledgements: int) -> list[str]:
    """Kill -9 after so many acknowledgements; all that were given by then."""
    assert writer.stdin is not None
    assert writer.stdout is not None
    writer.stdin.write(b"go\n")
    lines = [await writer.stdout.readline() for _ in range(acknowledgements)]
    writer.kill()
    lines += (await writer.stdout.read()).splitlines(keepends=True)
    await writer.wait()
    return [line.decode().strip() for line in lines if line.endswith(b"\n")]


async def test_kill_9_at_any_moment_loses_nothing_acknowledged_and_breaks_no_chain(
    documents: Documents, database: Path
) -> None:
    acknowledged: set[str] = set()
    for round_ in range(5):
        writers = await asyncio.gather(*(start(f"sqlite:///{database}", f"{round_}.{at}", 0) for at in range(3)))
        told = await asyncio.gather(*(until_killed(writer, 1 + at * 2) for at, writer in enumerate(writers)))
        acknowledged |= {command.rjust(22, "0") for commands in told for command in commands}
        entries = await proven(documents)
        assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
        assert acknowledged <= {entry.command for entry in entries if entry.event == "outcome"}
    assert len(acknowledged) >= 5 * 9


@pytest.mark.parametrize(
    ("fatal", "left", "was_interrupted"),
    [
        (("after", "create", "head"), 0, False),
        (("before", "create", "1"), 0, False),
        (("after", "create", "1"), 1, True),
        (("before", "replace", "head"), 1, True),
        (("after", "replace", "head"), 1, False),
    ],
)
async def test_a_writer_killed_between_entry_and_head_is_told_from_tampering_and_made_good(
    documents: Documents, database: Path, fatal: tuple[str, str, str], left: int, *, was_interrupted: bool
) -> None:
    writer = await start(f"sqlite:///{database}", "dying", 1, *fatal)
    await writer.communicate(b"go\n")
    assert writer.returncode == -9
    examined = await prove(documents)
    assert (examined.findings, len(examined.entries)) == ((), left)
    assert examined.was_interrupted is was_interrupted
    await enter(trail_on(documents), record("after"))
    entries = await proven(documents)
    assert [(entry.seq, entry.event) for entry in entries][left:] == [(left + 1, "intent"), (left + 2, "outcome")]
    assert (await prove(documents)).was_interrupted is False


async def test_the_trail_outlives_everything_that_a_disconnect_deletes(documents: Documents, database: Path) -> None:
    """A disconnect deletes what lies under the account's id; no key of the trail holds it."""
    await enter(trail_on(documents), record())
    with closing(sqlite3.connect(database)) as store:
        keys = [key for (key,) in store.execute("SELECT key FROM documents")]
    assert len(keys) == 3
    assert [key for key in keys if ACCOUNT.removeprefix("acc_") in key or not key.startswith("audit/")] == []
