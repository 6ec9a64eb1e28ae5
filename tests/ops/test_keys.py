"""`python -m ops.keys`, as a person uses it."""

import asyncio
import os
import re
import sqlite3
import subprocess
import sys
from asyncio.subprocess import PIPE
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from common.api_keys import ApiKey, ApiKeyCallers
from common.callers import Caller, Scope
from common.clock import ManualClock
from common.errors import CallerUnauthenticated, StoreUnavailable
from common.settings import Settings, load
from common.stores.documents import Documents, open_documents
from ops import keys
from ops.keys_book import KeyBook
from ops.keys_command import open_store
from tests.support.fake_gcs import running_fake_gcs

ROOT = Path(__file__).parents[2]
UNKNOWN = "A" * 22
MASTER = {"TOKEN_KEYS": "k1:" + "A" * 43 + "="}


@dataclass(frozen=True)
class Said:
    """What a command answered."""

    status: int
    out: str
    err: str


@dataclass
class Console:
    """The command line at one store."""

    environ: Mapping[str, str]
    capsys: pytest.CaptureFixture[str]
    clock: ManualClock = field(default_factory=ManualClock)

    def run(self, *argv: str) -> Said:
        self.capsys.readouterr()
        try:
            status = keys.main(list(argv), MASTER | dict(self.environ), clock=self.clock)
        except SystemExit as ended:
            status = int(str(ended.code))
        said = self.capsys.readouterr()
        return Said(status, said.out, said.err)

    def make(self, *argv: str) -> ApiKey:
        """A new key, from ``new`` or ``renew``."""
        said = self.run(*argv)
        assert said.status == 0, said
        assert re.fullmatch(r"draiv_\w{22}_[\w-]{51}\n", said.out)
        key = ApiKey.parse(said.out.strip())
        assert key is not None
        assert key.secret not in said.err
        assert key.id in said.err
        return key

    def rows(self) -> list[list[str]]:
        """The table, cell by cell."""
        said = self.run("list")
        assert said.status == 0
        return [re.split(r" {2,}", line) for line in said.out.splitlines()]

    def identify(self, key: ApiKey) -> Caller | None:
        """Who that is to a service that has just been started."""

        async def ask() -> Caller | None:
            documents = open_store(load(MASTER | dict(self.environ)))
            try:
                return await ApiKeyCallers(documents, self.clock).identify({"x-api-key": key.text})
            except CallerUnauthenticated:
                return None
            finally:
                await documents.aclose()

        return asyncio.run(ask())


@pytest.fixture
def console(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Console:
    return Console({"DOCUMENTS_URL": f"sqlite:///{tmp_path}/documents.db"}, capsys)


def test_a_new_key_may_only_read(console: Console) -> None:
    key = console.make("new", "a dashboard")
    assert console.identify(key) == Caller(f"key|{key.id}", frozenset({Scope.READ}))


def test_a_new_key_may_do_what_was_said(console: Console) -> None:
    key = console.make("new", "a dashboard", "--scopes", "read,location")
    assert console.identify(key) == Caller(f"key|{key.id}", frozenset({Scope.READ, Scope.LOCATION}))


@pytest.mark.parametrize(
    ("text", "expected"), [("90d", timedelta(days=90)), ("12h", timedelta(hours=12)), ("1m", timedelta(minutes=1))]
)
def test_a_new_key_lives_as_long_as_was_said(console: Console, text: str, expected: timedelta) -> None:
    key = console.make("new", "a dashboard", "--expires", text)
    console.clock.advance(expected.total_seconds() - 0.001)
    assert console.identify(key) is not None
    console.clock.advance(0.001)
    assert console.identify(key) is None


def test_a_person_may_have_several_keys(console: Console) -> None:
    first = console.make("new", "a dashboard")
    second = console.make("new", "a phone", "--principal", f"key|{first.id}", "--scopes", "command")
    assert console.identify(second) == Caller(f"key|{first.id}", frozenset({Scope.COMMAND}))


def test_the_list_shows_everything_but_the_secret(console: Console, tmp_path: Path) -> None:
    active = console.make("new", "a dashboard", "--scopes", "unlock,read")
    console.clock.advance(60)
    short = console.make("new", "for an hour", "--expires", "1h")
    console.clock.advance(60)
    revoked = console.make("new", "lost")
    console.run("revoke", revoked.id)
    console.clock.advance(60)
    old = console.make("new", "a phone")
    console.clock.advance(3600)
    new = console.make("renew", old.id)
    with closing(sqlite3.connect(tmp_path / "documents.db")) as store, store:
        store.execute("INSERT INTO documents (key, body) VALUES ('apikeys/0', CAST('{}' AS BLOB))")
    assert console.rows() == [
        ["id", "name", "scopes", "created", "expires", "state", "principal"],
        [active.id, "a dashboard", "read,unlock", "2026-01-01 12:00", "never", "active", f"key|{active.id}"],
        [short.id, "for an hour", "read", "2026-01-01 12:01", "2026-01-01 13:01", "expired", f"key|{short.id}"],
        [revoked.id, "lost", "read", "2026-01-01 12:02", "never", "revoked", f"key|{revoked.id}"],
        [old.id, "a phone", "read", "2026-01-01 12:03", "2026-01-08 13:03", "replaced", f"key|{old.id}"],
        [new.id, "a phone", "read", "2026-01-01 13:03", "never", "active", f"key|{old.id}"],
        ["0", "unreadable"],
    ]
    said = console.run("list")
    for key in (active, short, revoked, old, new):
        assert key.secret not in said.out + said.err
        assert key.hash.hex() not in said.out + said.err


def test_a_list_of_nothing_says_where_it_looked(console: Console) -> None:
    said = console.run("list")
    assert len(said.out.splitlines()) == 1
    assert said.err == f"There are no keys in {console.environ['DOCUMENTS_URL']}.\n"


def test_a_revoked_key_is_refused(console: Console) -> None:
    key = console.make("new", "a dashboard")
    said = console.run("revoke", key.id)
    assert (said.status, said.out) == (0, "")
    assert said.err.startswith(f"The key {key.id} (a dashboard) is revoked. Within 30 s ")
    assert console.identify(key) is None


def test_whoever_revokes_an_old_key_is_told_of_the_new_one(console: Console) -> None:
    old = console.make("new", "a dashboard")
    new = console.make("renew", old.id)
    assert f"{new.id}, still works" in console.run("revoke", old.id).err
    assert console.identify(old) is None
    assert console.identify(new) is not None


def test_a_renewed_key_works_beside_the_old_one_for_a_week(console: Console) -> None:
    old = console.make("new", "a dashboard", "--scopes", "read,unlock")
    said = console.run("renew", old.id)
    assert said.err.startswith(f"The key {old.id} ends at 2026-01-08 12:00 UTC.\n")
    new = ApiKey.parse(said.out.strip())
    assert new is not None
    week_s = timedelta(days=7).total_seconds()
    console.clock.advance(week_s - 0.001)
    expected = Caller(f"key|{old.id}", frozenset({Scope.READ, Scope.UNLOCK}))
    assert console.identify(old) == console.identify(new) == expected
    console.clock.advance(0.001)
    assert console.identify(old) is None
    assert console.identify(new) == expected


def test_a_renewal_may_end_the_old_key_now_and_the_new_one_at_another_time(console: Console) -> None:
    old = console.make("new", "a dashboard", "--expires", "90d")
    new = console.make("renew", old.id, "--overlap", "0d", "--expires", "1h")
    assert console.identify(old) is None
    assert console.identify(new) is not None
    console.clock.advance(3600)
    assert console.identify(new) is None


BAD = [
    *(["new", "a", "--expires", text] for text in ("90", "d", "90x", "-1d", "0d", "1.5d", "", "1d1d", "999999d", "٣d")),
    *(["new", "a", "--scopes", text] for text in ("", "fly", "read,fly", "READ", "read,", "read location")),
    *(["new", name] for name in ("", " a", "a\nb", "x" * 65)),
    *(["new", "a", "--principal", text] for text in ("", "open", "key|", f"key|{UNKNOWN}", UNKNOWN)),
    *(["renew", "ID", "--overlap", text] for text in ("7", "soon", "-1d")),
    *([verb, some] for verb in ("revoke", "renew") for some in ("", "x", UNKNOWN, "REVOKED", "../../tokens/a")),
    ["renew", "RENEWED"],
    *([], ["new"], ["revoke"], ["renew"], ["destroy"], ["list", "all"], ["new", "a", "b"]),
]


@dataclass(frozen=True)
class Lived:
    """A store with keys that have seen something; what is refused leaves it as it is, so that tests may share it."""

    path: Path
    ids: Mapping[str, str]

    @property
    def rows(self) -> list[tuple[str, bytes]]:
        with closing(sqlite3.connect(self.path)) as store:
            return store.execute("SELECT key, body FROM documents ORDER BY key").fetchall()


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Lived:
    path = tmp_path_factory.mktemp("keys") / "documents.db"

    async def live() -> dict[str, str]:
        documents = open_store(load(MASTER | {"DOCUMENTS_URL": f"sqlite:///{path}"}))
        book = KeyBook(documents, ManualClock())
        names = ("ID", "REVOKED", "RENEWED")
        ids = {name: (await book.issue(name, frozenset({Scope.READ}))).record.id for name in names}
        await book.revoke(ids["REVOKED"])
        await book.renew(ids["RENEWED"], overlap=timedelta(days=7))
        await documents.aclose()
        return ids

    return Lived(path, asyncio.run(live()))


@pytest.mark.parametrize("argv", BAD, ids=" ".join)
def test_what_cannot_be_done_is_told_in_one_line_and_changes_nothing(
    capsys: pytest.CaptureFixture[str], lived: Lived, argv: list[str]
) -> None:
    before = lived.rows
    said = Console({"DOCUMENTS_URL": f"sqlite:///{lived.path}"}, capsys).run(
        *(lived.ids.get(word, word) for word in argv)
    )
    assert (said.status, said.out) == (2, "")
    assert re.fullmatch(r"[^\n]{10,400}\n", said.err), said.err
    assert "Traceback" not in said.err
    assert lived.rows == before
    assert len(before) == 4


def test_whoever_names_a_wrong_scope_or_duration_is_told_the_right_ones(console: Console) -> None:
    scopes, duration = console.run("new", "a", "--scopes", "fly").err, console.run("new", "a", "--expires", "soon").err
    assert "scopes are some of read,location,command,unlock,account,admin" in scopes
    assert "a duration is a number and m, h or d, like 90d" in duration


def test_what_was_done_already_is_told_as_such(console: Console) -> None:
    revoked, renewed = console.make("new", "a"), console.make("new", "b")
    console.run("revoke", revoked.id)
    new = console.make("renew", renewed.id)
    assert console.run("revoke", revoked.id).err == f"The key {revoked.id} was revoked already.\n"
    assert console.run("renew", revoked.id).err == f"The key {revoked.id} was revoked already.\n"
    assert console.run("renew", renewed.id).err == f"The key {renewed.id} was renewed already, by {new.id}.\n"


@pytest.mark.parametrize(
    ("variable", "value"), [("DOCUMENTS_URL", "redis://somewhere"), ("READ_TTL_S", "soon"), ("ENVIRONMENT", "moon")]
)
def test_settings_that_cannot_be_used_are_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, variable: str, value: str
) -> None:
    environ = {"DOCUMENTS_URL": f"sqlite:///{tmp_path}/documents.db"} | {variable: value}
    said = Console(environ, capsys).run("list")
    assert (said.status, said.out) == (2, "")
    assert variable in said.err
    assert value not in said.err


def test_without_the_master_keys_no_key_is_made_that_the_service_could_not_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert keys.main(["new", "a"], {"DOCUMENTS_URL": f"sqlite:///{tmp_path}/documents.db"}) == 2
    assert "TOKEN_KEYS" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("argv", [["new", "a"], ["list"], ["revoke", UNKNOWN], ["renew", UNKNOWN]], ids=" ".join)
def test_a_store_that_cannot_be_reached_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, argv: list[str]
) -> None:
    said = Console({"DOCUMENTS_URL": f"sqlite:///{tmp_path}"}, capsys).run(*argv)
    assert (said.status, said.out) == (1, "")
    assert re.fullmatch(r"The service's own storage cannot be reached\.[^\n]*\n", said.err)


def test_staging_has_keys_of_its_own(console: Console, tmp_path: Path) -> None:
    staging = {"ENVIRONMENT": "staging", "STAGING_DOCUMENTS_URL": f"sqlite:///{tmp_path}/staging.db"}
    console.make("new", "for production")
    console.environ = {**console.environ, **staging}
    assert len(console.rows()) == 1


@pytest.mark.parametrize(("argv", "status"), [(["new", "a"], 0), (["list"], 0), (["revoke", UNKNOWN], 2)])
def test_the_store_is_opened_as_the_settings_say_and_closed_whatever_happens(
    tmp_path: Path, argv: list[str], status: int
) -> None:
    opened: list[Documents] = []

    def opener(settings: Settings) -> Documents:
        assert settings.documents_url == "gs://never"
        opened.append(open_documents(f"sqlite:///{tmp_path}/documents.db"))
        return opened[0]

    assert keys.main(argv, {"DOCUMENTS_URL": "gs://never"}, opener=opener) == status
    with pytest.raises(StoreUnavailable):
        asyncio.run(opened[0].ping())


def test_keys_in_a_bucket_have_the_same_lives(capsys: pytest.CaptureFixture[str]) -> None:
    with running_fake_gcs() as server:
        environ = {"DOCUMENTS_URL": f"gs://{server.new_bucket()}/production", "GCS_ENDPOINT": server.url}
        environ["KEYS_URL"] = f"gs://{server.new_bucket()}"
        console = Console(environ, capsys)
        old = console.make("new", "a dashboard")
        new = console.make("renew", old.id, "--overlap", "0d")
        assert console.identify(old) is None
        assert console.identify(new) == Caller(f"key|{old.id}", frozenset({Scope.READ}))
        console.run("revoke", new.id)
        assert console.identify(new) is None
        assert {row[0] for row in console.rows()[1:]} == {old.id, new.id}


def program(*argv: str) -> list[str]:
    return [sys.executable, "-m", "ops.keys", *argv]


def test_the_program_prints_the_key_alone(tmp_path: Path) -> None:
    environ = {**os.environ, **MASTER, "DOCUMENTS_URL": f"sqlite:///{tmp_path}/documents.db"}
    made = subprocess.run(program("new", "a"), cwd=ROOT, env=environ, capture_output=True, text=True, check=True)
    key = ApiKey.parse(made.stdout.removesuffix("\n"))
    assert key is not None
    assert "will not be shown again" in made.stderr
    again = subprocess.run(program("revoke", "x"), cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert (again.returncode, again.stdout) == (2, "")
    assert "Traceback" not in again.stderr


async def test_of_several_programs_that_revoke_a_key_one_does(tmp_path: Path) -> None:
    environ = {**os.environ, **MASTER, "DOCUMENTS_URL": f"sqlite:///{tmp_path}/documents.db"}
    maker = await asyncio.create_subprocess_exec(*program("new", "a"), cwd=ROOT, env=environ, stdout=PIPE, stderr=PIPE)
    key = ApiKey.parse((await maker.communicate())[0].decode().strip())
    assert key is not None
    rivals = [
        await asyncio.create_subprocess_exec(*program("revoke", key.id), cwd=ROOT, env=environ, stderr=PIPE)
        for _ in range(3)
    ]
    said = [(await rival.communicate())[1].decode() for rival in rivals]
    assert sorted(rival.returncode or 0 for rival in rivals) == [0, 2, 2]
    assert sum("was revoked already" in one for one in said) == 2
