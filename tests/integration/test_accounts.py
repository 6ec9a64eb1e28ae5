"""Linking accounts, and what may be reached by whom."""

import sqlite3
from pathlib import Path

import pytest

from common.clock import ManualClock
from sandbox.process import RunningSandbox
from tests.integration.conftest import PASSWORD, Api, MakeApi, captcha


def test_connect_answers_an_account_that_connect_status_and_accounts_show(api: Api) -> None:
    account = api.connect()
    status = api.post(action="connect_status", account=account).result
    assert status["status"] == "connected"
    assert status["label"] == "o***@e***.com"
    assert status["tokens"]["access_expires_at"] is not None
    listed = api.post(action="accounts").result
    assert [entry["account"] for entry in listed["accounts"]] == [account]


def test_connecting_again_is_the_same_account(api: Api, sandbox: RunningSandbox) -> None:
    assert api.connect() == api.connect()
    assert sandbox.stats()["logins"] == 2
    again = api.post(action="connect", email="one@example.com", password=PASSWORD)
    assert again.status == 200
    assert sandbox.stats()["logins"] == 2


def test_a_wrong_password_is_refused(api: Api) -> None:
    refused = api.post(action="connect", email="one@example.com", password="wrong", hcaptcha=captcha())
    assert (refused.status, refused.error["code"]) == (401, "AUTHENTICATION_ERROR")
    assert refused.error["resolution"]["type"] == "REAUTHENTICATE"


def test_a_login_without_captcha_is_refused_before_the_maker_is_asked(api: Api, sandbox: RunningSandbox) -> None:
    refused = api.post(action="status", email="one@example.com", password=PASSWORD)
    assert (refused.status, refused.error["code"]) == (401, "CAPTCHA_REQUIRED")
    assert sandbox.stats()["requests_total"] == 0


def test_a_wrong_password_never_reaches_a_linked_account(api: Api) -> None:
    api.connect()
    refused = api.post(action="status", email="one@example.com", password="wrong")
    assert (refused.status, refused.error["code"]) == (401, "CAPTCHA_REQUIRED")
    stranger = api.post(action="status", email="user-7@example.com", password="wrong")
    assert stranger.error["message"] == refused.error["message"]


def test_a_captcha_works_once(api: Api) -> None:
    token = captcha()
    form = {"action": "connect", "password": PASSWORD, "hcaptcha": token}
    assert api.post(email="one@example.com", **form).status == 200
    refused = api.post(email="user-1@example.com", **form)
    assert refused.status == 401


def test_the_blocked_road_is_said_plainly_and_at_once(api: Api, sandbox: RunningSandbox) -> None:
    form = {"action": "connect", "email": "blocked@example.com", "password": PASSWORD}
    blocked = api.post(hcaptcha=captcha(), **form)
    assert (blocked.status, blocked.error["code"]) == (503, "PROVIDER_BLOCKED")
    assert blocked.error["retryable"] is False
    before = sandbox.stats()["requests_total"]
    assert api.post(hcaptcha=captcha(), **form).error["code"] == "PROVIDER_BLOCKED"
    assert sandbox.stats()["requests_total"] == before
    health = api.get("/health").json
    assert health["status"] == "degraded"
    assert health["checks"]["providers"]["mybmw"]["blocked"] is True


def test_an_expired_token_is_renewed_once_and_nobody_notices(make_api: MakeApi, sandbox: RunningSandbox) -> None:
    api = make_api()
    account = api.connect()
    api.post(action="status", account=account)
    sandbox.expire_access("one@example.com")
    assert api.post(action="status", account=account, fresh=True).status == 200
    assert sandbox.stats()["refreshes"] == 1


def test_a_token_is_renewed_before_it_ends(make_api: MakeApi, clock: ManualClock, sandbox: RunningSandbox) -> None:
    api = make_api(clock)
    sandbox.settings(expires_in=200)
    account = api.connect()
    sandbox.settings(expires_in=100_000)
    clock.advance(150)
    assert api.post(action="status", account=account, fresh=True).status == 200
    stats = sandbox.stats()
    assert stats["refreshes"] == 1


def test_a_passing_outage_while_renewing_is_no_reason_to_link_again(api: Api, sandbox: RunningSandbox) -> None:
    account = api.connect()
    api.post(action="status", account=account)
    sandbox.expire_access("one@example.com")
    sandbox.fault(match={"path": "/gcdm/oauth/token"}, fault="status", status=503)
    failed = api.post(action="status", account=account, fresh=True)
    assert (failed.status, failed.error["code"]) == (502, "UPSTREAM_ERROR")
    sandbox.clear_faults()
    assert api.post(action="status", account=account, fresh=True).status == 200


def test_a_dead_authorisation_asks_for_a_new_link_and_gets_one(api: Api, sandbox: RunningSandbox) -> None:
    account = api.connect()
    api.post(action="status", account=account)
    sandbox.expire_access("one@example.com")
    sandbox.revoke_refresh("one@example.com")
    dead = api.post(action="status", account=account, fresh=True)
    assert (dead.status, dead.error["code"]) == (401, "RELINK_REQUIRED")
    assert api.post(action="connect_status", account=account).result["status"] == "needs_relink"
    assert api.connect() == account
    assert api.post(action="status", account=account, fresh=True).status == 200


def test_disconnect_deletes_every_trace(api: Api, tmp_path: Path) -> None:
    account = api.connect()
    api.post(action="status", account=account)
    api.post(action="lock", account=account, wait_s=1)
    assert api.post(action="disconnect", account=account).result == {"account": account, "disconnected": True}
    gone = api.post(action="status", account=account)
    assert (gone.status, gone.error["code"]) == (404, "ACCOUNT_NOT_FOUND")
    assert api.post(action="accounts").result["count"] == 0
    with sqlite3.connect(tmp_path / "documents.db") as database:
        tables = [name for (name,) in database.execute("select name from sqlite_master where type='table'")]
        rows = {table: database.execute(f"select * from {table}").fetchall() for table in tables}  # noqa: S608 - our own names
    assert account.encode() not in repr(rows).encode()


def test_an_account_that_does_not_exist_is_not_found(api: Api) -> None:
    answered = api.post(action="status", account="acc_" + "A" * 22)
    assert (answered.status, answered.error["code"]) == (404, "ACCOUNT_NOT_FOUND")


def test_an_action_on_an_account_needs_one_named(api: Api) -> None:
    answered = api.post(action="status")
    assert (answered.status, answered.error["code"]) == (400, "VALIDATION_ERROR")
    assert answered.error["details"]["fields"][0]["path"] == "account"


def test_an_account_in_china_logs_in_without_captcha(api: Api) -> None:
    form = {"email": "8613800138000", "password": PASSWORD, "region": "china"}
    account = api.post(action="connect", **form).result["account"]
    assert api.post(action="vehicles", account=account).result["count"] == 9
    location = api.post(action="location", account=account, vin="WBA00000000DEMO01").result
    assert location["latitude"] == pytest.approx(48.17, abs=0.05)


def test_the_password_is_not_stored(api: Api, tmp_path: Path) -> None:
    api.connect()
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("documents.db*"))
    assert PASSWORD.encode() not in stored
    assert b"one@example.com" not in stored
