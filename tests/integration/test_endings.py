"""What becomes of new tokens that the store did not take."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common.settings import Settings
from common.stores.documents import open_documents
from functions.app import App, build
from sandbox.process import RunningSandbox
from tests.integration.conftest import MASTER_KEY, NO_LIMITS, Api
from tests.support.tapped_documents import TappedDocuments, When, failing


@pytest.fixture
def tapped(tmp_path: Path) -> TappedDocuments:
    return TappedDocuments(open_documents(f"sqlite:///{tmp_path}/documents.db"))


@pytest.fixture
def settings(sandbox: RunningSandbox, tmp_path: Path) -> dict[str, Any]:
    return {
        "environment": "development",
        "callers": ("open",),
        "token_keys": MASTER_KEY,
        "documents_url": f"sqlite:///{tmp_path}/documents.db",
        "mybmw_origin": sandbox.origin,
        **NO_LIMITS,
    }


@pytest.fixture
def app(settings: dict[str, Any], tapped: TappedDocuments) -> Iterator[App]:
    built = build(Settings(**settings), documents=tapped)
    yield built
    built.close()


def linked(api: Api, sandbox: RunningSandbox) -> str:
    """An account whose access token the maker does not take any more."""
    account = api.connect()
    api.post(action="vehicles", account=account)
    sandbox.expire_access("one@example.com")
    sandbox.zero_stats()
    return account


def test_a_process_that_ends_waits_for_the_tokens_that_are_on_their_way(
    settings: dict[str, Any], sandbox: RunningSandbox
) -> None:
    app = build(Settings(**settings, read_deadline_s=0.3, read_attempts=1))
    account = linked(Api(app), sandbox)
    sandbox.fault(match={"path": "oauth/token"}, fault="slow", when="after", delay_ms=1_000, times=1)
    assert Api(app).post(action="status", account=account).error["code"] == "UPSTREAM_TIMEOUT"
    app.close()

    after = build(Settings(**settings))
    assert Api(after).post(action="status", account=account).status == 200
    assert sandbox.stats()["refreshes"] == 1
    after.close()


def test_the_next_request_of_whomever_writes_the_tokens_that_the_store_did_not_take(
    settings: dict[str, Any], app: App, tapped: TappedDocuments, sandbox: RunningSandbox
) -> None:
    account = linked(Api(app), sandbox)

    async def fail_after_the_lease(when: When, operation: str, key: str) -> None:
        if (when, operation) == (When.AFTER, "replace") and key.startswith("tokens/"):
            tapped.tap = failing(1_000, "replace", "tokens/")

    tapped.tap = fail_after_the_lease
    assert Api(app).post(action="status", account=account).error["code"] == "STORE_UNAVAILABLE"
    tapped.tap = failing(0, "")
    tapped.seen.clear()
    assert Api(app).post(action="actions").status == 200
    assert f"replace tokens/{account}" in tapped.seen

    other = build(Settings(**settings))
    assert Api(other).post(action="status", account=account).status == 200
    assert sandbox.stats()["refreshes"] == 1
    other.close()
