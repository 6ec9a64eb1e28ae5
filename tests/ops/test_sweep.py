"""`python -m ops.sweep`, on what the service itself has written."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from common.callers import ALL_SCOPES
from common.clock import ManualClock
from common.errors import AuthenticationFailed
from common.stores.documents import Documents, open_documents
from common.vault import Vault
from functions.command_record import Record, from_body
from functions.command_slot import CommandSlots
from functions.idempotency import IdempotencyClaims
from functions.login_guard import LoginGuard
from functions.providers.cardata.garage_store import Garage, GarageBook
from functions.providers.cardata.quota import QuotaLedger
from functions.providers.cardata.signal_store import DocumentSignals
from functions.providers.cardata.signals import mark
from functions.providers.cardata.stream_index import StreamIndex
from functions.providers.cardata.stream_leases import Leases, Roster
from functions.providers.port import Command, CommandName, DeviceGrant, DevicePending
from functions.step_up import StepUp
from ops import sweep
from ops.keys_book import KeyBook
from ops.retention import KEPT, SWEPT
from ops.sweep import Outcome, Sweep
from tests.ops.backup_world import PRINCIPAL, Place, Work, link, run, sqlite_place, stand_ins
from tests.support.audit_writer import VIN, record
from tests.support.fake_provider import FakeMaker
from tests.support.tapped_documents import TappedDocuments, When
from tests.support.world import build_world

ROOT = Path(__file__).parents[2]
DAY_S = 86_400.0
SHORT = {row.collection for row in SWEPT if row.days == 7}


class CodeLogin:
    """A maker that hands out codes."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock

    async def begin(self, client_id: str) -> DeviceGrant:
        expires_at = self._clock.utc() + timedelta(minutes=5)
        return DeviceGrant("CODE", "https://maker.example", None, expires_at, 5.0, {"client_id": client_id})

    async def poll(self, grant: DeviceGrant) -> DevicePending:
        return DevicePending(grant.interval_s)

    async def forget(self, account_id: str) -> None:
        pass


def unlock(account: str, clock: ManualClock) -> Record:
    """A command as it is accepted now."""
    now = clock.utc()
    command = Command(CommandName.UNLOCK)
    return replace(
        record(account=account), command=command, created_at=now, updated_at=now, expires_at=now + timedelta(seconds=30)
    )


def step_up(documents: Documents, clock: ManualClock) -> StepUp:
    return StepUp(documents, clock, confirm=frozenset({"unlock"}), caps_per_hour={"unlock": 5})


async def _not_over(_command_id: str) -> bool:
    return False


def life(clock: ManualClock) -> Work[str]:
    """What leaves a document in every collection there is; the account's id."""

    async def live(documents: Documents, vault: Vault) -> str:
        account = await link(documents, vault, "anna")
        for key in stand_ins(account, "anna"):
            await documents.delete(key)
        maker = FakeMaker(clock)
        provider = replace(maker.provider(), device=CodeLogin(clock))
        world = build_world(documents, clock, maker, provider=provider)
        await world.services.logins.begin(PRINCIPAL, "mybmw", "a client")
        command = unlock(account, clock)
        await IdempotencyClaims(documents, clock).claim(command, "a key")
        await IdempotencyClaims(documents, clock).claim(command, None)
        await CommandSlots(documents, clock).take(command, _not_over)
        await step_up(documents, clock).issue(command)
        await step_up(documents, clock).count(command)
        await world.ledger.open(command)
        with pytest.raises(AuthenticationFailed):
            async with LoginGuard(documents, clock).attempt(PRINCIPAL, "some-identity"):
                raise AuthenticationFailed
        await QuotaLedger(documents, clock).reserve("gcid")
        await Roster(documents, clock, "worker", 30.0).beat()
        await Leases(documents, "worker").take("customer", frozenset())
        await StreamIndex(documents).add(account, "gcid")
        await GarageBook(documents).save(account, Garage((VIN,), clock.utc()))
        await DocumentSignals(documents).upsert(account, VIN, {"a": mark(clock.utc())})
        await KeyBook(documents, clock).issue("somebody", ALL_SCOPES, valid_for=timedelta(days=1))
        return account

    return live


def collections(place: Place) -> set[str]:
    return {key.partition("/")[0] for key in place.stored()}


def swept(place: Place, clock: ManualClock, *argv: str) -> int:
    return sweep.main(list(argv), place.environ, clock=clock)


def outcome_of(place: Place, clock: ManualClock, tap: Callable[[When, str, str], Awaitable[None]]) -> Outcome:
    """A sweep with ``tap`` told of each operation on the stored documents."""

    async def work(documents: Documents, _vault: Vault) -> Outcome:
        stored = open_documents(place.url)
        try:
            return await Sweep(documents, TappedDocuments(stored, tap), clock.utc()).run()
        finally:
            await stored.aclose()

    return run(place, work)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return sqlite_place(tmp_path)


@pytest.fixture
def account(place: Place, clock: ManualClock) -> str:
    return run(place, life(clock))


def test_the_service_writes_to_every_collection_of_the_table(place: Place, account: str) -> None:
    assert collections(place) == {row.collection for row in SWEPT} | set(KEPT)


@pytest.mark.parametrize(("days", "gone"), [(6, set()), (7.1, SHORT), (399, SHORT), (401, SHORT | {"commands"})])
def test_what_has_expired_leaves_at_its_time_and_nothing_else_ever_does(
    place: Place, clock: ManualClock, account: str, days: float, gone: set[str]
) -> None:
    before = place.opened()
    clock.advance(days * DAY_S)
    assert swept(place, clock) == 0
    assert place.opened() == {key: body for key, body in before.items() if key.partition("/")[0] not in gone}


def test_what_leaves_is_counted_and_a_second_sweep_finds_nothing(
    place: Place, clock: ManualClock, account: str, capsys: pytest.CaptureFixture[str]
) -> None:
    clock.advance(8 * DAY_S)
    assert swept(place, clock) == 0
    assert capsys.readouterr().out == (
        "deleted: 1 caps, 2 claims, 1 confirmations, 1 connects, 2 lockouts, 1 quota, 1 slots, 1 stream_workers\n"
        "kept: 2\n"
    )
    assert swept(place, clock) == 0
    assert capsys.readouterr().out == "deleted: nothing\nkept: 2\n"


def test_a_dry_run_says_the_same_and_deletes_nothing(
    place: Place, clock: ManualClock, account: str, capsys: pytest.CaptureFixture[str]
) -> None:
    clock.advance(500 * DAY_S)
    before = place.stored()
    assert swept(place, clock, "--dry-run") == 0
    said = capsys.readouterr().out
    assert said.startswith("would delete: 1 caps, 2 claims, 2 commands")
    assert place.stored() == before
    assert swept(place, clock) == 0
    assert capsys.readouterr().out == said.replace("would delete", "deleted")


def test_more_than_a_page_leaves_and_those_among_them_that_are_young_stay(place: Place, clock: ManualClock) -> None:
    async def fill(documents: Documents, vault: Vault) -> None:
        for number in range(1_100):
            day = clock.utc() + timedelta(days=0 if number % 2 else 6)
            await documents.create(f"quota/{number:04}", {"day": day.date().isoformat()})

    run(place, fill)
    clock.advance(8 * DAY_S)
    assert swept(place, clock) == 0
    assert place.stored() == [f"quota/{number:04}" for number in range(0, 1_100, 2)]


# Beside a service.


def test_a_claim_that_is_used_anew_while_it_is_swept_stays_and_holds(
    place: Place, clock: ManualClock, account: str
) -> None:
    clock.advance(8 * DAY_S)
    command = unlock(account, clock)
    used: list[str] = []

    async def use(when: When, operation: str, key: str) -> None:
        if (when, operation) == (When.BEFORE, "delete") and key.startswith("claims/") and "/key-" in key:
            async with place.stores() as (documents, _vault):
                claimed = await IdempotencyClaims(documents, clock).claim(command, "a key")
            assert claimed.is_ours
            used.append(claimed.key)

    outcome = outcome_of(place, clock, use)
    assert len(used) == 1
    assert (outcome.deleted["claims"], outcome.broken) == (1, {})

    async def again(documents: Documents, _vault: Vault) -> tuple[bool, str]:
        claimed = await IdempotencyClaims(documents, clock).claim(replace(command, id="cmd_another_one"), "a key")
        return claimed.is_ours, claimed.command_id

    assert run(place, again) == (False, command.id)


def test_a_command_that_moves_on_while_it_is_swept_stays(place: Place, clock: ManualClock, account: str) -> None:
    clock.advance(401 * DAY_S)
    moved: list[str] = []

    async def move(when: When, operation: str, key: str) -> None:
        if (when, operation) == (When.BEFORE, "delete") and key.startswith("commands/") and not moved:
            moved.append(key)
            async with place.stores() as (documents, _vault):
                ledger = build_world(documents, clock).ledger
                held = await ledger.load(key.rpartition("/")[2])
                assert held is not None
                await ledger.advance(held, state="unknown")

    outcome_of(place, clock, move)
    (left,) = [key for key in place.stored() if key.startswith("commands/")]
    assert [left] == moved
    assert from_body(place.opened()[left]).state == "unknown"


async def _log_in(documents: Documents, clock: ManualClock) -> None:
    async with LoginGuard(documents, clock).attempt(PRINCIPAL, "some-identity"):
        pass


USES: dict[str, Callable[[Documents, ManualClock, str], Awaitable[object]]] = {
    "claims": lambda documents, clock, account: IdempotencyClaims(documents, clock).claim(
        unlock(account, clock), "a key"
    ),
    "slots": lambda documents, clock, account: CommandSlots(documents, clock).take(unlock(account, clock), _not_over),
    "caps": lambda documents, clock, account: step_up(documents, clock).count(unlock(account, clock)),
    "quota": lambda documents, clock, account: QuotaLedger(documents, clock).reserve("gcid"),
    "stream_workers": lambda documents, clock, account: Roster(documents, clock, "worker", 30.0).beat(),
    "lockouts": lambda documents, clock, account: _log_in(documents, clock),
}


@pytest.mark.parametrize("collection", USES)
def test_the_service_goes_on_where_an_expired_document_leaves_between_its_read_and_its_write(
    place: Place, clock: ManualClock, account: str, collection: str
) -> None:
    clock.advance(8 * DAY_S)
    vanished: list[str] = []

    async def work(documents: Documents, _vault: Vault) -> None:
        async def vanish(when: When, operation: str, key: str) -> None:
            if not vanished and (when, operation) == (When.AFTER, "get") and key.startswith(f"{collection}/"):
                # Without asking for a version, as a bucket's rules do.
                assert await documents.delete(key)
                vanished.append(key)

        await USES[collection](TappedDocuments(documents, vanish), clock, account)

    run(place, work)
    assert vanished


# What cannot be judged is left.


def test_what_does_not_open_is_left_and_told(
    place: Place, clock: ManualClock, account: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async def damage() -> str:
        stored = open_documents(place.url)
        try:
            (key,) = await stored.list("quota")
            held = await stored.get(key)
            assert held is not None
            await stored.replace(held, {**held.body, "sealed": "A" * 80})
        finally:
            await stored.aclose()
        return key

    key = asyncio.run(damage())
    clock.advance(8 * DAY_S)
    assert swept(place, clock) == 1
    assert f"BROKEN  {key}: " in capsys.readouterr().out
    assert key in place.stored()
    assert collections(place) & SHORT == {"quota"}


def test_with_the_keys_of_another_deployment_nothing_of_an_account_is_deleted(
    place: Place, clock: ManualClock, account: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    clock.advance(500 * DAY_S)
    before = [key for key in place.stored() if account in key]
    assert swept(replace(place, keys_url=f"sqlite:///{tmp_path}/others.db"), clock) == 0
    assert [key for key in place.stored() if account in key] == before
    assert "left, of accounts without a data key: 3\n" in capsys.readouterr().out


@pytest.mark.parametrize("body", [{}, {"claimed_at": None}, {"claimed_at": "yesterday"}, {"claimed_at": 5}])
def test_what_does_not_say_how_old_it_is_is_left_and_counted(
    place: Place, clock: ManualClock, body: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    async def fill(documents: Documents, vault: Vault) -> None:
        await vault.create("acc_1", "mybmw", PRINCIPAL)
        await documents.create("claims/acc_1/one", body)
        await documents.create("caps/acc_1/one", {"sent_at": []})

    run(place, fill)
    clock.advance(5_000 * DAY_S)
    assert swept(place, clock) == 0
    assert "of these, without a date: 2\n" in capsys.readouterr().out
    assert len(place.stored()) == 2


def test_a_document_is_as_old_as_the_latest_moment_that_it_names(place: Place, clock: ManualClock) -> None:
    tries = [
        {"id": str(days), "at": (clock.utc() + timedelta(days=days)).isoformat(), "failed": True} for days in (2, 0)
    ]

    async def fill(documents: Documents, vault: Vault) -> None:
        await documents.create("lockouts/one", {"tries": tries})
        await documents.create("lockouts/caller-1", {"failed_at": {one["id"]: one["at"] for one in tries}})

    run(place, fill)
    for days, left in ((8.9, 2), (0.2, 0)):
        clock.advance(days * DAY_S)
        assert swept(place, clock) == 0
        assert len(place.stored()) == left


def test_what_is_dated_in_the_future_stays_until_that_time_is_long_past(place: Place, clock: ManualClock) -> None:
    async def fill(documents: Documents, vault: Vault) -> None:
        await Roster(documents, ManualClock(wall=clock.utc() + timedelta(days=30)), "ahead", 30.0).beat()

    run(place, fill)
    for days, left in ((30, 1), (6, 1), (2, 0)):
        clock.advance(days * DAY_S)
        assert swept(place, clock) == 0
        assert len(place.stored()) == left


# The command line.


def test_it_runs_as_a_program_on_the_settings_of_the_environment(
    place: Place, account: str, clock: ManualClock
) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "ops.sweep", "--dry-run"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **place.environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("would delete: ")


def test_a_store_that_is_not_there_is_refused_and_not_made(
    place: Place, clock: ManualClock, capsys: pytest.CaptureFixture[str]
) -> None:
    assert swept(place, clock) == 2
    assert "there is no file" in capsys.readouterr().err
    assert not Path(place.url.removeprefix("sqlite:///")).exists()
    assert sweep.main([], {**place.environ, "TOKEN_KEYS": ""}, clock=clock) == 2


def test_a_store_that_cannot_be_read_is_told(
    tmp_path: Path, clock: ManualClock, capsys: pytest.CaptureFixture[str]
) -> None:
    place = sqlite_place(tmp_path)
    Path(place.url.removeprefix("sqlite:///")).write_text("text " * 999)
    assert swept(place, clock) == 1
    assert "Start again." in capsys.readouterr().err
