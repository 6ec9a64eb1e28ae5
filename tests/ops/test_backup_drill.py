"""The restore drill: the service is backed up and lost, and another one starts on what was restored."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.audit import main as audit
from ops.backup import main as backup
from ops.stack import issue_key, master_key
from sandbox.process import RunningSandbox, running_sandbox
from scorecard.service import Deployment, Instance

KEY = "the audit key of this drill, 1234"


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    return {
        "ENVIRONMENT": "development",
        "CALLERS": "api_keys",
        "TOKEN_KEYS": master_key(),
        "AUDIT_KEY": KEY,
        "DOCUMENTS_URL": f"sqlite:///{tmp_path}/live.db",
        "KEYS_URL": f"sqlite:///{tmp_path}/live.keys.db",
    }


@pytest.fixture
def maker() -> Iterator[RunningSandbox]:
    with running_sandbox(event_step_s=0) as sandbox:
        yield sandbox


def test_a_service_on_a_restored_place_goes_on_where_the_backup_was_made(
    maker: RunningSandbox, settings: dict[str, str], tmp_path: Path
) -> None:
    environ = {**os.environ, **settings, "MYBMW_ORIGIN": maker.origin, "POLL_INTERVAL_S": "0.02"}
    key = issue_key(environ)
    before = Instance(environ, tmp_path / "log", key)
    service = Deployment([before], maker)
    anna, bert, carl = (service.connect(f"user-{n}@example.com", f"drill-{n}") for n in range(3))
    vin = "WBA00000000DEMO01"
    lock = {"action": "lock", "account": anna, "vin": vin, "wait_s": 10}
    sent = before.post({"Idempotency-Key": "night"}, **lock).json()["result"]
    file = tmp_path / "night.backup"
    assert backup(["create", str(file)], settings) == 0

    # Since then one leaves and another one's tokens are rotated; then everything but the data keys is lost.
    before.post(action="disconnect", account=bert).raise_for_status()
    maker.expire_access("user-2@example.com")
    before.post(action="status", account=carl, vin=vin, fresh=True).raise_for_status()
    maker.expire_access("user-2@example.com")
    before.kill()
    for lost in tmp_path.glob("live.db*"):
        lost.unlink()

    restored = {"DOCUMENTS_URL": f"sqlite:///{tmp_path}/restored.db"}
    assert backup(["verify", str(file)], {**settings, **restored}) == 0
    assert backup(["restore", str(file)], {**settings, **restored}) == 0
    after = Instance({**environ, **restored}, tmp_path / "log", key)
    service = Deployment([after], maker)
    try:
        # What was there works: the caller's key, his account, his command; nothing is sent a second time.
        assert after.post(action="fuel", account=anna, vin=vin, fresh=True).status_code == 200
        asked = after.post(action="command_status", params={"command_id": sent["command_id"]}).json()["result"]
        assert (asked["state"], sent["state"]) == ("confirmed", "confirmed")
        sends = service.sends()
        again = after.post({"Idempotency-Key": "night"}, **lock).json()["result"]
        assert (again["command_id"], again["deduplicated"]) == (sent["command_id"], True)
        assert service.sends() == sends == 1
        assert after.post(action="unlock", account=anna, vin=vin, wait_s=10).json()["result"]["state"] == "confirmed"

        # Who left is gone.
        gone = after.post(action="status", account=bert, vin=vin)
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "ACCOUNT_NOT_FOUND")
        assert [one["account"] for one in after.post(action="accounts").json()["result"]["accounts"]] == [anna, carl]

        # Whose tokens the maker has renewed since must link again: he is told so, and can.
        refused = after.post(action="status", account=carl, vin=vin, fresh=True)
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "RELINK_REQUIRED")
        assert service.connect("user-2@example.com", "drill-again") == carl
        assert after.post(action="status", account=carl, vin=vin, fresh=True).status_code == 200
    finally:
        after.close()
    assert audit(["verify"], {**settings, **restored}) == 0
