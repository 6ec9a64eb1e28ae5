"""Backups by the command line: what is in one, what comes back, and what does not."""

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from common.crypto.keyset import Keyset
from common.stores.documents import Documents
from common.vault import Vault
from ops.audit import main as audit
from ops.backup_file import BackupWriter, Manifest
from tests.common.crypto.masters import K1, K2
from tests.ops.backup_world import Place, disconnect, filled, link, rotate, run, sqlite_place
from tests.support.audit_writer import KEY
from tests.support.fake_gcs import running_fake_gcs

ROOT = Path(__file__).parents[2]
SHORT_LIVED = {"slots", "confirmations", "lockouts"}


def kept(documents: dict[str, object]) -> dict[str, object]:
    return {key: body for key, body in documents.items() if key.partition("/")[0] not in SHORT_LIVED}


def collections(keys: list[str]) -> set[str]:
    return {key.partition("/")[0] for key in keys}


@pytest.fixture
def live(tmp_path: Path) -> Place:
    return sqlite_place(tmp_path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "night.backup"


@pytest.fixture
def empty(live: Place, tmp_path: Path) -> Place:
    """The same deployment's keys, and no documents."""
    return live.at(f"sqlite:///{tmp_path}/restored.db")


def test_what_is_backed_up_comes_back_as_it_was(
    live: Place, empty: Place, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filled(live, "anna", "bert")
    before = live.opened()
    assert live.backup("create", file) == 0
    assert "documents: 1 apikeys, 5 audit, 2 claims, 2 commands, 2 identities, 2 links, 2 tokens" in (
        capsys.readouterr().out
    )
    assert live.backup("verify", file) == 0
    assert "accounts: 2 can be restored" in capsys.readouterr().out
    assert empty.backup("restore", file) == 0
    assert "restored: 16 created" in capsys.readouterr().out
    assert empty.opened() == kept(before)
    assert live.opened() == before
    assert audit(["verify"], {**empty.environ, "AUDIT_KEY": KEY}) == 0


def test_a_backup_is_for_its_owner_alone_and_shows_nothing(live: Place, file: Path) -> None:
    (account,) = filled(live, "anna")
    assert live.backup("create", file) == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    content = file.read_bytes()
    for secret in (account, "anna", "refresh-", "WBA0", "tokens", "links", "live.db"):
        assert secret.encode() not in content


def test_a_backup_is_never_overwritten_and_none_is_left_half_made(
    live: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filled(live, "anna")
    file = tmp_path / "one.backup"
    file.write_text("mine")
    assert live.backup("create", file) == 2
    assert capsys.readouterr().err.endswith(f"there is a file {file} already\n")
    assert file.read_text() == "mine"
    assert not list(tmp_path.glob("*.partial"))


def test_a_deployment_with_other_keys_is_told_so_and_makes_no_backup(
    live: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def no_audit(documents: Documents, vault: Vault) -> None:
        await link(documents, vault, "anna")
        for key in await documents.list("audit"):
            await documents.delete(key)

    run(live, no_audit)
    wrong = Place(live.url, live.keys_url, K2)
    assert wrong.backup("create", tmp_path / "two.backup") == 2
    assert "nothing in DOCUMENTS_URL opens" in capsys.readouterr().err
    assert not list(tmp_path.glob("two*"))


def test_a_document_that_does_not_open_is_named_and_the_rest_is_backed_up(
    live: Place, empty: Place, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    anna, bert = filled(live, "anna", "bert")
    with sqlite3.connect(live.url.removeprefix("sqlite:///")) as database:
        database.execute(
            "UPDATE documents SET body = (SELECT body FROM documents WHERE key = ?) WHERE key = ?",
            (f"tokens/{anna}", f"tokens/{bert}"),
        )
    assert live.backup("create", file) == 1
    assert f"BROKEN  tokens/{bert}: it was not sealed for this account" in capsys.readouterr().out
    assert empty.backup("restore", file) == 0
    assert f"tokens/{anna}" in empty.stored()
    assert f"tokens/{bert}" not in empty.stored()


def test_an_account_disconnected_since_is_in_no_restored_place_and_in_no_backup(
    live: Place, empty: Place, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    anna, bert = filled(live, "anna", "bert")
    assert live.backup("create", file) == 0
    run(live, lambda documents, vault: disconnect(documents, vault, anna))
    assert live.backup("verify", file) == 0
    assert "accounts left out, for their data key is gone: 1" in capsys.readouterr().out
    assert empty.backup("restore", file) == 0
    capsys.readouterr()
    restored = empty.opened()
    assert f"tokens/{bert}" in restored
    assert not [key for key in empty.stored() if anna in key]
    assert anna not in str({key: body for key, body in restored.items() if not key.startswith("audit/")})
    assert sum(key.startswith("identities/") for key in restored) == 1


def test_a_disconnect_that_had_begun_is_left_for_the_service_to_finish(live: Place, empty: Place, file: Path) -> None:
    anna, bert = filled(live, "anna", "bert")

    async def begin(documents: Documents, _vault: Vault) -> None:
        for key in await documents.list("links"):
            document = await documents.get(key)
            if document is not None and key.endswith(anna):
                await documents.replace(document, {**document.body, "ending": True})

    run(live, begin)
    assert live.backup("create", file) == 0
    assert empty.backup("restore", file) == 0
    mine = {key: body for key, body in empty.opened().items() if anna in key or anna in str(body)}
    assert {key.partition("/")[0] for key in mine} == {"links", "identities"}
    assert next(body for key, body in mine.items() if key.startswith("links/"))["ending"] is True
    assert f"tokens/{bert}" in empty.stored()


def test_accounts_without_a_link_are_not_restored(live: Place, empty: Place, file: Path) -> None:
    (anna,) = filled(live, "anna")

    async def half(documents: Documents, vault: Vault) -> None:
        await vault.create("acc_half", "mybmw", "somebody")
        await rotate(documents, "acc_half", 0)

    run(live, half)
    assert live.backup("create", file) == 0
    assert empty.backup("restore", file) == 0
    assert f"tokens/{anna}" in empty.stored()
    assert "tokens/acc_half" not in empty.stored()


def test_without_its_keys_nothing_is_restored_by_mistake(
    live: Place, tmp_path: Path, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filled(live, "anna", "bert")
    assert live.backup("create", file) == 0
    lost = sqlite_place(tmp_path, "elsewhere")
    assert lost.backup("restore", file) == 2
    assert "KEYS_URL has no data key of any of its 2 accounts" in capsys.readouterr().err
    assert lost.backup("restore", file, "--without-accounts") == 0
    assert collections(lost.stored()) == {"apikeys", "audit"}


@pytest.mark.parametrize(("token_keys", "says"), [(K2, "does not hold"), (K1[:-8] + "AAAAAAA=", "another deployment")])
def test_another_deployments_backup_is_refused_in_a_line(
    live: Place, tmp_path: Path, file: Path, capsys: pytest.CaptureFixture[str], token_keys: str, says: str
) -> None:
    filled(live, "anna")
    assert live.backup("create", file) == 0
    capsys.readouterr()
    other = Place(f"sqlite:///{tmp_path}/other.db", live.keys_url, token_keys)
    for command in ("verify", "restore"):
        assert other.backup(command, file) == 2
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 2  # the first says what is being read
        assert says in said[1]


def test_a_place_that_is_not_empty_is_left_alone(
    live: Place, empty: Place, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filled(live, "anna")
    assert live.backup("create", file) == 0
    filled(empty)
    before = empty.opened()
    assert empty.backup("restore", file) == 2
    assert "DOCUMENTS_URL is not empty" in capsys.readouterr().err
    assert empty.opened() == before


def test_a_backup_opens_under_a_retired_master_key_and_is_restored_under_the_active_one(
    live: Place, empty: Place, file: Path
) -> None:
    filled(live, "anna")
    before = live.opened()
    assert live.backup("create", file) == 0
    both = Place(empty.url, empty.keys_url, f"{K2},{K1}")
    assert both.backup("restore", file) == 0
    assert both.opened() == kept(before)

    with sqlite3.connect(both.url.removeprefix("sqlite:///")) as database:
        kids = database.execute("SELECT DISTINCT json_extract(body, '$.kid') FROM documents WHERE key LIKE 'apikeys/%'")
        assert kids.fetchall() == [("k2",)]


@pytest.mark.parametrize(
    ("command", "url", "token_keys", "says"),
    [
        (["verify"], None, "", "TOKEN_KEYS must be set"),
        (["restore"], "nonsense://", K1, "a document store is"),
        (["create"], None, K1, "there is no file"),
        (["restore", "--into-live"], None, K1, "there is no file"),
    ],
)
def test_what_settings_do_not_name_is_refused_in_a_line(
    live: Place, capsys: pytest.CaptureFixture[str], command: list[str], url: str | None, token_keys: str, says: str
) -> None:
    place = Place(url or live.url, live.keys_url, token_keys)
    assert place.backup(command[0], "x", *command[1:]) == 2
    assert says in capsys.readouterr().err
    assert not Path(live.url.removeprefix("sqlite:///")).exists()


def test_a_file_that_is_not_there_is_told_in_a_line(live: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert live.backup("verify", "nowhere.backup") == 2
    assert capsys.readouterr().err.splitlines()[-1] == "nowhere.backup: No such file or directory"


def test_a_store_that_cannot_be_reached_is_told_by_the_status(
    live: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "broken.db"
    path.write_bytes(b"no database at all" * 100)
    assert live.at(f"sqlite:///{path}").backup("create", tmp_path / "x.backup") == 1
    assert "Start again." in capsys.readouterr().err
    assert not list(tmp_path.glob("x.backup*"))


def test_the_program_runs_by_its_name(live: Place, file: Path) -> None:
    filled(live, "anna")
    done = subprocess.run(
        [sys.executable, "-m", "ops.backup", "create", str(file)],
        cwd=ROOT, env={**os.environ, **live.environ}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "accounts: 1\n" in done.stdout
    asked = subprocess.run([sys.executable, "-m", "ops.backup"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (asked.returncode, len(asked.stderr.splitlines())) == (2, 1)


def test_a_bucket_is_backed_up_and_restored_as_a_file_is(tmp_path: Path, file: Path) -> None:
    with running_fake_gcs() as server:
        bucket, keys = server.new_bucket(), server.new_bucket()
        place = Place(f"gs://{bucket}/live", f"gs://{keys}", K1, server.url)
        anna, bert = filled(place, "anna", "bert")
        before = place.opened()
        assert place.backup("create", file) == 0
        run(place, lambda documents, vault: disconnect(documents, vault, bert))
        # Into another bucket, and into a file: a backup is also how to move.
        for url in (f"gs://{server.new_bucket()}", f"sqlite:///{tmp_path}/moved.db"):
            moved = place.at(url)
            assert moved.backup("restore", file) == 0
            expected = {key: body for key, body in kept(before).items() if bert[4:] not in f"{key} {body}"}
            assert moved.opened() == expected
            assert anna in str(expected)


def test_keys_that_were_mixed_up_are_told_apart_from_keys_that_are_gone(
    live: Place, empty: Place, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    anna, bert = filled(live, "anna", "bert")
    assert live.backup("create", file) == 0
    with sqlite3.connect(live.keys_url.removeprefix("sqlite:///")) as database:
        database.execute(
            "UPDATE documents SET body = (SELECT body FROM documents WHERE key = ?) WHERE key = ?",
            (f"keys/{anna}", f"keys/{bert}"),
        )
    assert live.backup("verify", file) == 1
    assert "BROKEN  5 documents do not open although their accounts have data keys" in capsys.readouterr().out
    assert empty.backup("restore", file) == 1
    assert f"tokens/{anna}" in empty.stored()
    assert not [key for key in empty.stored() if bert in key]


def test_more_than_a_page_is_backed_up_and_restored_and_progress_is_told(
    live: Place, empty: Place, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filled(live, "anna")
    with sqlite3.connect(live.url.removeprefix("sqlite:///")) as database:
        rows = [(f"audit/stray/{number}/x", b"{}") for number in range(1_000)]
        database.executemany("INSERT INTO documents (key, body) VALUES (?, ?)", rows)
    assert live.backup("create", file) == 0
    assert "1000 documents read" in capsys.readouterr().err
    assert empty.backup("restore", file) == 0
    assert "restored: 1009 created" in capsys.readouterr().out
    assert empty.opened() == kept(live.opened())


def test_what_nobody_can_read_any_more_is_in_no_new_backup(
    live: Place, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    anna, _ = filled(live, "anna", "bert")

    async def killed_right_after_the_key_went(_documents: Documents, vault: Vault) -> None:
        await vault.shred(anna)

    run(live, killed_right_after_the_key_went)
    assert live.backup("create", file) == 0
    # Links, tokens, a claim and a command, and the identity that leads to them.
    assert "left out, of accounts without a data key: 5" in capsys.readouterr().out


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: content + b"x", lambda _: b"text"])
def test_a_damaged_backup_is_told_and_nothing_of_it_is_restored(
    live: Place, empty: Place, file: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[bytes], bytes]
) -> None:
    filled(live, "anna")
    assert live.backup("create", file) == 0
    file.write_bytes(damage(file.read_bytes()))
    for command in ("verify", "restore"):
        assert empty.backup(command, file) == 1
        assert capsys.readouterr().out.splitlines()[-1].startswith(f"DAMAGED  {file}: ")
    assert empty.stored() == []


def test_an_end_that_says_something_else_is_damage(live: Place, file: Path) -> None:
    with file.open("wb") as content:
        writer = BackupWriter(content, Keyset.parse(K1), backup_id="one", created_at="2026-01-01T00:00:00+00:00")
        writer.finish(Manifest("somewhere", {"tokens": 1}, 1))
    assert live.backup("verify", file) == 1
