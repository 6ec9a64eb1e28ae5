"""What lies in the stores: sealed, bound to its place, and gone with its key."""

import sqlite3
from pathlib import Path

from sandbox.process import RunningSandbox
from tests.integration.conftest import IX, MASTER_KEY, Api, MakeApi


def stored(tmp_path: Path, name: str = "documents.db") -> dict[str, str]:
    """Every document as it lies in the database."""
    with sqlite3.connect(f"file:{tmp_path / name}?mode=ro", uri=True) as database:
        return dict(database.execute("SELECT key, body FROM documents"))


def test_nothing_readable_is_stored_but_the_audit_trail(api: Api, tmp_path: Path) -> None:
    account = api.connect()
    api.post({"idempotency-key": "night-1"}, action="lock", account=account, vin=IX, wait_s=10)
    documents = stored(tmp_path)
    assert {key.partition("/")[0] for key in documents} >= {"tokens", "links", "identities", "commands", "claims"}
    for key, body in documents.items():
        if not key.startswith("audit/"):
            assert "sealed" in str(body), key
        for secret in (IX, "one@example.com", "o***", "access", "refresh", "night-1", "rest_of_world"):
            assert secret not in str(body), key
    assert {key.partition("/")[0] for key in stored(tmp_path, "documents.keys.db")} == {"keys"}


def test_disconnecting_deletes_the_accounts_key_with_all_that_it_sealed(api: Api, tmp_path: Path) -> None:
    account = api.connect()
    assert f"keys/{account}" in stored(tmp_path, "documents.keys.db")
    api.post(action="disconnect", account=account)
    assert stored(tmp_path, "documents.keys.db") == {}
    assert [key for key in stored(tmp_path) if not key.startswith("audit/")] == []


def test_a_copy_made_before_the_disconnect_stays_unreadable(make_api: MakeApi, tmp_path: Path) -> None:
    api = make_api()
    account = api.connect()
    with sqlite3.connect(tmp_path / "documents.db") as live, sqlite3.connect(tmp_path / "copy.db") as copy:
        live.backup(copy)
    api.post(action="disconnect", account=account)
    restored = make_api(
        documents_url=f"sqlite:///{tmp_path}/copy.db", keys_url=f"sqlite:///{tmp_path}/documents.keys.db"
    )
    answered = restored.post(action="status", account=account)
    assert (answered.status, answered.error["code"]) == (404, "ACCOUNT_NOT_FOUND")
    # And the owner can link the car anew over what is left of it.
    anew = restored.connect()
    assert restored.post(action="fuel", account=anew).status == 200


def test_anothers_tokens_copied_over_ones_own_are_refused(make_api: MakeApi, tmp_path: Path) -> None:
    api = make_api()
    victim, thief = api.connect(), api.connect("user-7@example.com")
    with sqlite3.connect(tmp_path / "documents.db") as database:
        database.execute(
            "UPDATE documents SET body = (SELECT body FROM documents WHERE key = ?) WHERE key = ?",
            (f"tokens/{victim}", f"tokens/{thief}"),
        )
    answered = make_api().post(action="status", account=thief)
    assert (answered.status, answered.error["code"]) == (503, "STORE_UNAVAILABLE")


def test_a_master_key_that_is_not_the_one_opens_nothing(make_api: MakeApi, sandbox: RunningSandbox) -> None:
    account = make_api().connect()
    other = "other:" + MASTER_KEY.partition(":")[2][::-1].lstrip("=") + "="
    before = sandbox.stats()["requests_total"]
    assert make_api(token_keys=other).post(action="status", account=account).status == 503
    assert sandbox.stats()["requests_total"] == before
