"""Restoring into a place that a service works on: what it lacks is added, and nothing is set back."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from common.clock import ManualClock
from common.settings import load
from common.stores.documents import Documents
from common.vault import Vault
from functions.audit import AuditTrail
from functions.command_record import Record, key_of, to_body
from functions.token_record import next_order, order_of
from ops.audit import main as audit
from ops.backup_merge import is_newer
from ops.backup_restore import Restore
from ops.backup_stores import opened
from ops.backup_survey import Backup, Survey
from tests.ops.backup_world import Place, command, disconnect, filled, link, rotate, run, sqlite_place
from tests.support.audit_writer import KEY, enter, record
from tests.support.tapped_documents import TappedDocuments, When

LATER = datetime(2026, 2, 1, tzinfo=UTC)


@pytest.fixture
def live(tmp_path: Path) -> Place:
    return sqlite_place(tmp_path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "night.backup"


def lost(place: Place, *prefixes: str) -> None:
    """Documents that are gone through no doing of the service."""

    async def lose(documents: Documents, _vault: Vault) -> None:
        for prefix in prefixes:
            for key in await documents.list(prefix.partition("/")[0]):
                if key.startswith(prefix):
                    await documents.delete(key)

    run(place, lose)


def rotated(place: Place, account: str, days: int) -> None:
    run(place, lambda documents, _vault: rotate(documents, account, days))


def proven(place: Place) -> bool:
    return audit(["verify"], {**place.environ, "AUDIT_KEY": KEY}) == 0


def test_what_was_lost_is_added_and_what_is_there_stays(
    live: Place, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    anna, bert = filled(live, "anna", "bert")
    before = live.opened()
    assert live.backup("create", file) == 0
    lost(live, f"tokens/{anna}", "links/", "identities/", "apikeys/", f"commands/{bert}")
    assert live.backup("restore", file) == 2
    assert live.backup("restore", file, "--into-live") == 0
    assert "restored: 7 created, 9 kept" in capsys.readouterr().out
    assert live.opened() == before


def test_a_newer_token_is_never_set_back_and_an_older_one_gives_way(live: Place, tmp_path: Path) -> None:
    (anna,) = filled(live, "anna")
    backups = [tmp_path / f"{day}.backup" for day in range(4)]
    for day, backup in enumerate(backups):
        rotated(live, anna, day)
        assert live.backup("create", backup) == 0
    for backup in backups:
        assert live.backup("restore", backup, "--into-live") == 0
        assert live.opened()[f"tokens/{anna}"]["refresh_token"] == f"refresh-{anna}-3"
    lost(live, f"tokens/{anna}")
    rotated(live, anna, 1)
    for day in (0, 2, 3, 1):
        assert live.backup("restore", backups[day], "--into-live") == 0
    assert live.opened()[f"tokens/{anna}"]["refresh_token"] == f"refresh-{anna}-3"


def test_a_newer_token_is_not_set_back_where_the_clock_of_who_wrote_it_is_behind(live: Place, file: Path) -> None:
    (anna,) = filled(live, "anna")
    rotated(live, anna, 3)
    assert live.backup("create", file) == 0
    rotated(live, anna, 2)
    assert live.backup("restore", file, "--into-live") == 0
    assert live.opened()[f"tokens/{anna}"]["refresh_token"] == f"refresh-{anna}-2"


def test_tokens_of_before_there_was_an_order_go_by_the_time_of_their_rotation() -> None:
    def tokens(day: int, **more: int) -> dict[str, Any]:
        return {"rotated_at": f"2026-02-{day:02}T00:00:00+00:00", **more}

    after_the_second = next_order(order_of(tokens(2)), LATER)
    assert is_newer("tokens/acc_1", backup=tokens(2), stored=tokens(1))
    assert not is_newer("tokens/acc_1", backup=tokens(1), stored=tokens(1))
    assert not is_newer("tokens/acc_1", backup=tokens(2), stored=tokens(1, order=after_the_second))


def test_an_account_that_must_be_linked_again_is_not_made_to_look_well(live: Place, file: Path) -> None:
    (anna,) = filled(live, "anna")
    assert live.backup("create", file) == 0

    async def die(documents: Documents, _vault: Vault) -> None:
        document = await documents.get(f"tokens/{anna}")
        assert document is not None
        await documents.replace(document, {**document.body, "needs_relink": True})

    run(live, die)
    assert live.backup("restore", file, "--into-live") == 0
    assert live.opened()[f"tokens/{anna}"]["needs_relink"] is True


def body(**changes: Any) -> dict[str, Any]:
    changed: Record = replace(record("1"), **changes)
    return to_body(changed)


@pytest.mark.parametrize(
    ("backup", "stored", "newer"),
    [
        ({"state": "accepted"}, {"state": "delivered"}, False),
        ({"state": "delivered"}, {"state": "accepted"}, True),
        ({"state": "delivered"}, {"state": "delivered"}, False),
        ({"state": "confirmed"}, {"state": "executed"}, True),
        ({"state": "executed"}, {"state": "confirmed"}, False),
        ({"state": "failed"}, {"state": "pending"}, True),
        ({"state": "confirmed"}, {"state": "unknown"}, False),
        ({"state": "failed"}, {"state": "unknown"}, False),
        ({"state": "executed", "settled": True}, {"state": "executed"}, True),
        ({"state": "confirmed", "updated_at": LATER}, {"state": "failed"}, False),
    ],
)
def test_a_command_never_goes_back_and_a_last_word_stands(
    backup: dict[str, Any], stored: dict[str, Any], newer: bool
) -> None:
    assert is_newer("commands/a/b", body(**backup), body(**stored)) is newer


@pytest.mark.parametrize("key", ["links/a/b", "apikeys/a", "identities/a", "audit/a/head", "claims/a/b"])
def test_of_anything_else_what_is_stored_stays(key: str) -> None:
    assert is_newer(key, {"a": 1}, {"a": 2}) is False


def test_a_command_is_advanced_to_where_the_backup_knows_it(
    live: Place, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (anna,) = filled(live, "anna")
    run(live, lambda documents, _vault: command(documents, anna, "2", state="confirmed"))
    assert live.backup("create", file) == 0

    async def older(documents: Documents, _vault: Vault) -> None:
        document = await documents.get(key_of(record("2", account=anna).id))
        assert document is not None
        await documents.replace(document, {**document.body, "state": "delivered"})

    run(live, older)
    assert live.backup("restore", file, "--into-live") == 0
    assert "1 advanced" in capsys.readouterr().out
    assert live.opened()[key_of(record("2", account=anna).id)]["state"] == "confirmed"


def test_a_disconnected_account_stays_gone_and_one_linked_anew_is_another(live: Place, file: Path) -> None:
    anna, bert = filled(live, "anna", "bert")
    assert live.backup("create", file) == 0
    run(live, lambda documents, vault: disconnect(documents, vault, anna))
    again = run(live, lambda documents, vault: link(documents, vault, "Anna"))
    assert again != anna
    before = live.opened()
    assert live.backup("restore", file, "--into-live") == 0
    assert live.opened() == before
    assert not [key for key in live.stored() if anna in key]
    assert f"tokens/{bert}" in before


def test_an_account_whose_disconnect_has_begun_is_not_filled_up_again(live: Place, file: Path) -> None:
    anna, bert = filled(live, "anna", "bert")
    assert live.backup("create", file) == 0

    async def begin(documents: Documents, _vault: Vault) -> None:
        for key in await documents.list("links"):
            document = await documents.get(key)
            if document is not None and key.endswith(anna):
                await documents.replace(document, {**document.body, "ending": True})

    run(live, begin)
    lost(live, f"tokens/{anna}", f"commands/{anna}", f"tokens/{bert}", "identities")
    assert live.backup("restore", file, "--into-live") == 0
    restored = live.opened()
    assert f"tokens/{bert}" in restored
    assert not [key for key in restored if key.startswith((f"tokens/{anna}", f"commands/{anna}"))]
    assert [body["account"] for key, body in restored.items() if key.startswith("identities/")] == [bert]


def test_a_key_that_was_revoked_since_stays_revoked(live: Place, file: Path) -> None:
    filled(live)
    assert live.backup("create", file) == 0

    async def revoke(documents: Documents, _vault: Vault) -> None:
        (key,) = await documents.list("apikeys")
        document = await documents.get(key)
        assert document is not None
        await documents.replace(document, {**document.body, "revoked_at": LATER.isoformat()})

    run(live, revoke)
    before = live.opened()
    assert live.backup("restore", file, "--into-live") == 0
    assert live.opened() == before


def test_a_document_of_the_store_that_does_not_open_is_named_and_left(
    live: Place, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    anna, bert = filled(live, "anna", "bert")
    assert live.backup("create", file) == 0
    with sqlite3.connect(live.url.removeprefix("sqlite:///")) as database:
        database.execute("UPDATE documents SET body = ? WHERE key = ?", (b'{"sealed": ""}', f"tokens/{anna}"))
    lost(live, f"tokens/{bert}")
    assert live.backup("restore", file, "--into-live") == 1
    assert f"BROKEN  tokens/{anna} of the store stays as it is" in capsys.readouterr().out
    assert f"tokens/{bert}" in live.stored()


# Audit chains: a writer that finds something behind the head takes no more commands for the vehicle.


async def goes_on(documents: Documents, _vault: Vault) -> None:
    await enter(AuditTrail(documents, ManualClock(), key=KEY.encode()), record())


@pytest.mark.parametrize("gone", [["audit/"], ["audit/head"], ["entries"]])
def test_a_chain_that_lost_documents_is_whole_again_and_goes_on(live: Place, file: Path, gone: list[str]) -> None:
    filled(live, "anna", "bert")
    assert live.backup("create", file) == 0
    run(live, goes_on)
    chain = [key for key in live.stored() if key.startswith("audit/")]
    lost(live, *{"audit/": chain, "audit/head": chain[-1:], "entries": chain[:2]}[gone[0]])
    assert gone[0] == "audit/" or not proven(live)
    assert live.backup("restore", file, "--into-live") == 0
    if gone[0] == "audit/head":
        # The backup's head is older than the last entries; nothing is made up.
        assert not proven(live)
    else:
        run(live, goes_on)
        assert proven(live)


def test_a_chain_that_went_another_way_is_left_as_it_is(live: Place, file: Path) -> None:
    filled(live, "anna", "bert", "carl")
    assert live.backup("create", file) == 0
    lost(live, "audit/")
    run(live, goes_on)
    chain = {key: body for key, body in live.opened().items() if key.startswith("audit/")}
    assert live.backup("restore", file, "--into-live") == 0
    assert {key: body for key, body in live.opened().items() if key.startswith("audit/")} == chain
    run(live, goes_on)
    assert proven(live)


def test_the_entry_of_a_writer_that_was_killed_comes_back_behind_the_head_it_belongs_to(
    live: Place, file: Path, tmp_path: Path
) -> None:
    filled(live, "anna")

    async def killed(documents: Documents, _vault: Vault) -> None:
        async def die(when: When, operation: str, key: str) -> None:
            if (when, operation) == (When.BEFORE, "replace") and key.endswith("/head"):
                raise KeyboardInterrupt

        trail = AuditTrail(TappedDocuments(documents, die), ManualClock(), key=KEY.encode())
        with pytest.raises(KeyboardInterrupt):
            await trail.intent(record("2"), idempotency_key_digest=None)

    run(live, killed)
    before = [key for key in live.stored() if key.startswith("audit/")]
    assert live.backup("create", file) == 0
    empty = live.at(f"sqlite:///{tmp_path}/restored.db")
    assert empty.backup("restore", file) == 0
    assert [key for key in empty.stored() if key.startswith("audit/")] == before
    assert proven(empty)
    run(empty, goes_on)
    assert proven(empty)


def test_a_chain_that_had_lost_its_head_comes_back_as_the_evidence_it_is(
    live: Place, file: Path, tmp_path: Path
) -> None:
    filled(live, "anna")
    head = [key for key in live.stored() if key.endswith("/head")]
    lost(live, *head)
    assert live.backup("create", file) == 0
    empty = live.at(f"sqlite:///{tmp_path}/restored.db")
    assert empty.backup("restore", file) == 0
    chain = [key for key in empty.stored() if key.startswith("audit/")]
    assert chain == [key for key in live.stored() if key.startswith("audit/")]
    assert len(chain) == 2
    # But a vehicle that began a new chain since is not kept from commands.
    lost(live, "audit/")
    run(live, goes_on)
    lost(live, chain[0])
    assert live.backup("restore", file, "--into-live") == 0
    assert [key for key in live.stored() if key.startswith("audit/")] == [*chain, *head]


# Beside a live service.

Meddle = Callable[[When, str, str, Documents, Vault], Awaitable[None]]


def restored_beside(place: Place, file: Path, meddle: Meddle, clock: ManualClock | None = None) -> Restore:
    """Restore into a live place while somebody else is at it."""

    async def do() -> Restore:
        async with opened(load(place.environ), clock or ManualClock()) as stores, place.stores() as (documents, vault):
            backup = Backup(file, stores.vault, stores.keyset)
            survey: Survey = await backup.survey()

            async def tap(when: When, operation: str, key: str) -> None:
                await meddle(when, operation, key, documents, vault)

            restore = Restore(backup, survey, TappedDocuments(stores.sealed, tap), stores.keys, lambda _: None)
            await restore.run()
            return restore

    return asyncio.run(do())


@pytest.mark.parametrize("since_s", [0, 60])
def test_whoever_disconnects_while_it_runs_is_gone_afterwards(tmp_path: Path, since_s: float) -> None:
    """At each step of the restore in turn, with his data key still in the memory of the restore and without."""
    clock = ManualClock()
    at, ended = 0, False
    while not ended:
        place, file = sqlite_place(tmp_path, f"live-{at}"), tmp_path / f"{at}.backup"
        (anna,) = filled(place, "anna")
        assert place.backup("create", file) == 0
        lost(place, f"tokens/{anna}", "identities/", f"commands/{anna}")
        steps = 0

        async def meddle(
            when: When, _operation: str, _key: str, documents: Documents, vault: Vault, anna: str = anna, at: int = at
        ) -> None:
            nonlocal steps
            steps += when is When.BEFORE
            if (when, steps) == (When.BEFORE, at + 1):
                await disconnect(documents, vault, anna)
                clock.advance(since_s)

        restored_beside(place, file, meddle, clock)
        ended = steps <= at
        mine = {key for key, body in place.opened().items() if anna in f"{key} {body}"}
        assert bool(mine) is ended, (at, mine)
        at += 1
    assert at > 15


def test_an_identity_that_names_another_account_by_then_is_not_taken_back(live: Place, file: Path) -> None:
    (anna,) = filled(live, "anna")
    assert live.backup("create", file) == 0
    lost(live, "identities/")

    async def meddle(when: When, operation: str, key: str, documents: Documents, vault: Vault) -> None:
        if (when, operation, key.partition("/")[0]) == (When.BEFORE, "create", "identities"):
            await disconnect(documents, vault, anna)
        if (when, operation) == (When.BEFORE, "delete"):
            found = await documents.get(key)
            assert found is not None
            await documents.replace(found, {"account": "acc_new"})

    restored_beside(live, file, meddle)
    assert [body for key, body in live.opened().items() if key.startswith("identities/")] == [{"account": "acc_new"}]


def test_a_rotation_that_is_faster_wins(live: Place, file: Path) -> None:
    (anna,) = filled(live, "anna")
    rotated(live, anna, 2)
    assert live.backup("create", file) == 0
    lost(live, f"tokens/{anna}")
    rotated(live, anna, 1)

    async def meddle(when: When, operation: str, key: str, documents: Documents, _vault: Vault) -> None:
        if (when, operation, key) == (When.BEFORE, "replace", f"tokens/{anna}"):
            await rotate(documents, anna, 3)

    restored_beside(live, file, meddle)
    assert live.opened()[f"tokens/{anna}"]["refresh_token"] == f"refresh-{anna}-3"
