"""The eleven traps of the library, each as a test: what would happen without us, and does not."""

import ast
import asyncio
import logging
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from common.clock import ManualClock
from common.errors import ApiError, PreconditionFailed, ProviderError, QuotaLimitExceeded, RelinkRequired
from common.loops import LoopThread
from common.stores.documents import open_documents
from functions.providers.mybmw.provider import build
from functions.providers.port import Command, CommandName, Outcome
from functions.tokens import LEASE_S, TokenKeeper
from sandbox.process import RunningSandbox
from tests.providers.mybmw.harness import (
    IMPATIENT,
    IX,
    PASSWORD,
    USER,
    Bmw,
    Permit,
    body_of,
    credentials,
    snapshot_of,
    vehicle,
)
from tests.providers.mybmw.test_provider import ROOT, in_a_new_process

F31 = "WBA00000000000F31"
MUNICH: dict[str, Any] = {"latitude": 48.177334, "longitude": 11.556274}


async def test_trap_01_reads_share_connections_and_a_warm_read_opens_none(bmw: Bmw) -> None:
    await bmw.link()
    for _ in range(2):  # the first read asks in turn, the next both questions at once
        await bmw.provider.reads.read_vehicle(bmw.account, vehicle())
    bmw.sandbox.zero_stats()

    for _ in range(10):
        await bmw.provider.reads.read_vehicle(bmw.account, vehicle())

    stats = bmw.sandbox.stats()
    assert stats["requests_total"] == 20
    assert stats["connections_opened"] == 0


async def test_trap_01_a_login_and_a_whole_command_share_one_connection(bmw: Bmw) -> None:
    await bmw.keeper.save("acc_1", await bmw.logins.log_in(credentials()))
    await bmw.provider.reads.list_vehicles(bmw.account)
    receipt = await bmw.send(CommandName.LOCK)
    await bmw.poll_to_the_end(CommandName.LOCK, receipt.event_id)

    stats = bmw.sandbox.stats()
    assert stats["connections_opened"] == 1
    assert bmw.asked("{service}") == 1


async def test_trap_01_a_lock_is_one_post(bmw: Bmw) -> None:
    await bmw.link()

    await bmw.send(CommandName.LOCK)

    stats = bmw.sandbox.stats()
    assert stats["requests"] == {"POST /eadrax-vrccs/v4/presentation/remote-commands/{service}": 1}


def test_trap_02_any_thread_may_ask_and_none_hangs(sandbox: RunningSandbox, tmp_path: Path) -> None:
    loop = LoopThread()
    clock = ManualClock(wall=datetime.now(UTC))
    documents = open_documents(f"sqlite:///{tmp_path}/tokens.db")
    keeper = TokenKeeper(documents, clock)
    bmw = Bmw(build(tokens=keeper, clock=clock, origin=sandbox.origin), sandbox, keeper, clock, [])
    loop.run(bmw.link(lives_s=0))

    with ThreadPoolExecutor(8) as threads:
        reads = [threads.submit(loop.run, bmw.provider.reads.read_vehicle(bmw.account, vehicle())) for _ in range(24)]
        kilometres = {read.result(20).mileage_km for read in reads}

    assert kilometres == {1121}
    assert sandbox.stats()["refreshes"] == 1
    loop.run(_coroutine(bmw.provider.close()))
    loop.run(documents.aclose())
    loop.close()


@pytest.mark.parametrize("lives_s", [0, 30])
async def test_trap_03_fifty_reads_with_an_expired_token_renew_it_once(bmw: Bmw, lives_s: float) -> None:
    await bmw.link(lives_s=lives_s)

    snapshots = await asyncio.gather(*(bmw.provider.reads.read_vehicle(bmw.account, vehicle()) for _ in range(50)))

    assert len(snapshots) == 50
    stats = bmw.sandbox.stats()
    assert (stats["refreshes"], stats["refreshes_refused"], stats["responses"].get("401", 0)) == (1, 0, 0)


async def test_trap_03_fifty_reads_with_a_token_that_bmw_refuses_renew_it_once(bmw: Bmw) -> None:
    await bmw.link()
    bmw.sandbox.expire_access(USER)

    snapshots = await asyncio.gather(*(bmw.provider.reads.read_vehicle(bmw.account, vehicle()) for _ in range(50)))

    assert len(snapshots) == 50
    stats = bmw.sandbox.stats()
    assert (stats["refreshes"], stats["refreshes_refused"]) == (1, 0)


@IMPATIENT
@pytest.mark.parametrize("path", ["oauth/token", "oauth/config"])
@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ({"fault": "status", "status": 400, "body": "<html>"}, "UPSTREAM_ERROR"),
        ({"fault": "status", "status": 401, "body": "<html>"}, "UPSTREAM_ERROR"),
        ({"fault": "status", "status": 404}, "UPSTREAM_ERROR"),
        ({"fault": "status", "status": 500}, "UPSTREAM_ERROR"),
        ({"fault": "status", "status": 502}, "UPSTREAM_ERROR"),
        ({"fault": "status", "status": 503}, "UPSTREAM_ERROR"),
        ({"fault": "status", "status": 429}, "QUOTA_LIMIT_EXCEEDED"),
        ({"fault": "status", "status": 403}, "QUOTA_LIMIT_EXCEEDED"),
        ({"fault": "status", "status": 489}, "PROVIDER_BLOCKED"),
        ({"fault": "reset"}, "UPSTREAM_ERROR"),
        ({"fault": "hang"}, "UPSTREAM_TIMEOUT"),
        ({"fault": "malformed", "perform": False}, "UPSTREAM_INVALID"),
        ({"fault": "empty", "perform": False}, "UPSTREAM_INVALID"),
        ({"fault": "wrong_type", "body": [], "perform": False}, "UPSTREAM_INVALID"),
        ({"fault": "wrong_type", "body": {}, "perform": False}, "UPSTREAM_INVALID"),
    ],
)
async def test_trap_04_an_outage_during_a_refresh_is_no_reason_to_link_again(
    bmw: Bmw, path: str, fault: dict[str, Any], code: str
) -> None:
    await bmw.link(lives_s=0)
    bmw.sandbox.fault(match={"path": path}, **fault)

    with pytest.raises(ProviderError) as caught:
        await bmw.provider.reads.read_vehicle(bmw.account, vehicle())

    assert caught.value.code == code
    health = await bmw.keeper.health("acc_1")
    assert health is not None
    assert health.needs_relink is False
    bmw.sandbox.clear_faults()
    bmw.clock.advance(LEASE_S)  # where it is in doubt whether BMW has taken the token, nobody shows it sooner
    assert (await bmw.provider.reads.read_vehicle(bmw.account, vehicle())).mileage_km == 1121
    assert bmw.sandbox.stats()["logins"] == 0


@pytest.mark.parametrize("status", [400, 401])
async def test_trap_04_a_refresh_token_that_bmw_calls_dead_is(bmw: Bmw, status: int) -> None:
    await bmw.link(lives_s=0)
    bmw.sandbox.fault(match={"path": "oauth/token"}, fault="status", status=status, body={"error": "invalid_grant"})

    with pytest.raises(RelinkRequired):
        await bmw.provider.reads.read_vehicle(bmw.account, vehicle())

    assert bmw.sandbox.stats()["logins"] == 0


@pytest.mark.parametrize(
    ("path", "fault", "wait_s"),
    [
        ("vehicles/state", {"status": 429, "wait_s": 13}, 13),
        ("vehicles/state", {"status": 403, "replenish_s": 8491}, 8491),
        ("oauth/token", {"status": 429, "wait_s": 7}, 7),
        ("oauth/token", {"status": 429, "retry_after_s": 60}, 60),
    ],
)
async def test_trap_05_a_limit_is_told_at_once_with_how_long_it_lasts(
    bmw: Bmw, path: str, fault: dict[str, Any], wait_s: float
) -> None:
    await bmw.link(lives_s=0)
    bmw.sandbox.fault(match={"path": path}, fault="status", **fault)

    with pytest.raises(QuotaLimitExceeded) as caught:
        await bmw.provider.reads.read_vehicle(bmw.account, vehicle())

    assert caught.value.retry_after_s == wait_s
    assert bmw.asked(path.rpartition("/")[2]) == 1


async def test_trap_05_a_command_at_the_limit_is_not_sent_again(bmw: Bmw) -> None:
    await bmw.link()
    bmw.sandbox.fault(match={"path": "door-unlock"}, fault="status", status=429)

    with pytest.raises(QuotaLimitExceeded) as caught:
        await bmw.send(CommandName.UNLOCK, permit=Permit(left=9))

    assert caught.value.may_have_succeeded is False
    assert bmw.asked("{service}") == 1


async def test_trap_06_a_command_returns_with_its_event_and_asks_for_nothing_more(bmw: Bmw) -> None:
    await bmw.link()
    bmw.sandbox.settings(event_step_s=3600)

    receipt = await bmw.send(CommandName.LOCK)

    assert receipt.event_id is not None
    assert bmw.sandbox.stats()["requests_total"] == 1


async def test_trap_06_an_empty_answer_is_not_taken_for_an_execution(bmw: Bmw) -> None:
    await bmw.link()
    bmw.sandbox.fault(match={"path": "door-unlock"}, fault="empty", perform=False)

    receipt = await bmw.send(CommandName.UNLOCK)

    assert receipt.outcome is Outcome.UNKNOWN
    assert bmw.sandbox.stats()["commands_executed"] == 0


async def test_trap_06_a_poll_that_fails_says_nothing_of_the_command_and_can_be_repeated(bmw: Bmw) -> None:
    await bmw.link()
    receipt = await bmw.send(CommandName.LOCK)
    bmw.sandbox.fault(match={"path": "eventStatus"}, fault="status", status=503, times=2)

    for _ in range(2):
        with pytest.raises(ProviderError):
            await bmw.poll(CommandName.LOCK, receipt.event_id)
    progress = await bmw.poll_to_the_end(CommandName.LOCK, receipt.event_id)

    assert progress.outcome is Outcome.EXECUTED
    assert bmw.asked("{service}") == 1


async def test_trap_06_ignored_and_failed_commands_are_no_successes(bmw: Bmw) -> None:
    await bmw.link()
    for word in ("IGNORED", "ERROR"):
        bmw.sandbox.clear_faults()
        bmw.sandbox.fault(fault="event", outcome=word)
        receipt = await bmw.send(CommandName.LOCK)

        assert (await bmw.poll_to_the_end(CommandName.LOCK, receipt.event_id)).outcome is Outcome.FAILED


@IMPATIENT
@pytest.mark.parametrize(
    "fault",
    [
        {"fault": "reset"},
        {"fault": "hang"},
        {"fault": "truncated"},
        {"fault": "malformed"},
        {"fault": "empty"},
        {"fault": "wrong_type", "body": []},
        {"fault": "wrong_type", "body": "x"},
        {"fault": "wrong_type", "body": 7},
        {"fault": "status", "status": 418},
        {"fault": "status", "status": 599},
    ],
)
async def test_trap_07_nothing_raw_escapes(bmw: Bmw, fault: dict[str, Any]) -> None:
    await bmw.link()
    receipt = await bmw.send(CommandName.FIND)
    bmw.sandbox.fault(**fault)

    raised = await asyncio.gather(
        bmw.logins.log_in(credentials()),
        bmw.provider.reads.list_vehicles(bmw.account),
        bmw.provider.reads.read_vehicle(bmw.account, vehicle()),
        bmw.images.read_image(bmw.account, vehicle(), "front"),
        bmw.poll(CommandName.FIND, receipt.event_id, **MUNICH),
        return_exceptions=True,
    )

    assert [type(error).__mro__[-4] for error in raised] == [ApiError] * 5


async def test_trap_08_charging_is_started_and_stopped_only_where_it_can_work(bmw: Bmw) -> None:
    await bmw.link()
    bmw.sandbox.patch_car(USER, IX, state={"electricChargingState": {"isChargerConnected": False}})

    snapshot = await bmw.provider.reads.read_vehicle(bmw.account, vehicle())
    with pytest.raises(PreconditionFailed):
        bmw.commands.check(Command(CommandName.CHARGE_START), snapshot)

    # And it needs no status of the library's: a car that was never read is told to stop.
    assert (await bmw.send(CommandName.CHARGE_STOP)).outcome is Outcome.ACCEPTED


@pytest.mark.parametrize("given", [{"target_soc": 75}, {"ac_limit": 16}])
async def test_trap_08_a_setting_that_is_not_given_is_not_posted(bmw: Bmw, given: dict[str, int]) -> None:
    await bmw.link()
    body = await body_of(bmw, Command(CommandName.CHARGING_SETTINGS, given))

    assert body == {
        {"target_soc": "chargingTarget", "ac_limit": "acLimitValue"}[name]: value for name, value in given.items()
    }


async def test_trap_08_a_missing_part_of_an_address_is_not_the_text_none(bmw: Bmw) -> None:
    await bmw.link()
    body = await body_of(bmw, Command(CommandName.SEND_POI, {**MUNICH, "city": "Munich"}))

    assert "None" not in str([value for value in _leaves(body) if value is not None])
    assert body["places"][0]["address"]["street"] is None
    assert body["places"][0]["title"] == "Munich"


async def test_trap_09_nothing_of_the_librarys_own_json_encoder_is_used() -> None:
    used = {
        node.id if isinstance(node, ast.Name) else node.attr
        for path in (ROOT / "functions/providers/mybmw").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Name | ast.Attribute)
    }

    assert used & {"MyBMWJSONEncoder", "is_vehicle_active", "is_lsc_enabled"} == set()


async def test_trap_09_sending_does_not_change_what_was_handed_in(bmw: Bmw) -> None:
    await bmw.link()
    given = vehicle()
    command = Command(CommandName.SEND_POI, {**MUNICH, "name": "Home"})
    before = repr((given, dict(given.profile), command))

    await bmw.commands.send(bmw.account, given, command, Permit())
    await bmw.provider.reads.read_vehicle(bmw.account, given)

    assert repr((given, dict(given.profile), command)) == before


def test_trap_09_a_car_without_state_is_not_active_closed_or_at_zero() -> None:
    snapshot = snapshot_of(F31)

    assert snapshot.mileage_km is None
    assert snapshot.openings.is_locked == "unknown"
    assert snapshot.openings.windows == {}


async def test_trap_10_logs_tell_nothing(bmw: Bmw, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "surely-a-secret"
    await bmw.keeper.save("acc_1", await bmw.logins.log_in(credentials()))
    tokens = await bmw.keeper.usable("acc_1", _never)
    vehicles = await bmw.provider.reads.list_vehicles(bmw.account)
    receipt = await bmw.send(CommandName.SEND_POI, **MUNICH)
    receipt = await bmw.send(CommandName.CHARGE_START)
    await bmw.poll(CommandName.CHARGE_START, receipt.event_id)
    bmw.sandbox.fault(match={"path": "vehicles/state"}, fault="status", status=400, body={"error": secret, "vin": IX})
    with pytest.raises(ProviderError):
        await bmw.provider.reads.read_vehicle(bmw.account, vehicle())
    with pytest.raises(ProviderError):
        await bmw.logins.log_in(credentials(password="wrong"))

    # The store of this test writes its statements at DEBUG; that is its own concern, and this test is about BMW.
    records = [record for record in caplog.records if record.name != "aiosqlite"]
    assert not [record for record in records if record.name.startswith(("bimmer_connected", "httpx", "httpcore"))]
    written = "".join(record.getMessage() + str(record.__dict__) for record in records)
    for told in (secret, USER, PASSWORD, tokens.access_token, tokens.refresh_token, tokens.extra["gcid"], "11.556274"):
        assert told not in written
    for found in vehicles:
        assert found.vin not in written
    assert str(receipt.event_id) not in written


def test_trap_11_the_library_is_imported_with_the_provider_and_says_nothing() -> None:
    before = in_a_new_process(
        "import sys, functions.providers.port, functions.providers.mybmw;"
        "print([name for name in ('bimmer_connected', 'httpx', 'Crypto', 'jwt') if name in sys.modules])"
    )
    after = in_a_new_process("import sys, functions.providers.mybmw.provider; print('bimmer_connected' in sys.modules)")

    assert (before.stdout.strip(), before.stderr) == ("[]", "")
    assert (after.stdout.strip(), after.stderr) == ("True", "")


async def _coroutine(awaitable: Awaitable[None]) -> None:
    await awaitable


async def _never(_old: object) -> Any:
    raise AssertionError("these tokens are fresh")


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, dict | list):
        return [leaf for inner in (value.values() if isinstance(value, dict) else value) for leaf in _leaves(inner)]
    return [value]
