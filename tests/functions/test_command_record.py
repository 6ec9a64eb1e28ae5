"""A command as it is stored and as it is shown."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from functions.command_record import Record, from_body, is_behind, key_of, to_body
from functions.contract import COMMAND_PATTERN, CommandRecord
from functions.providers.port import Command, CommandName
from tests.support.driver import Driver

AT = datetime(2026, 1, 1, 12, tzinfo=UTC)
LATER = AT + timedelta(seconds=2.5)
OPEN = Record(
    id=f"cmd_{'A' * 22}_{'b' * 22}",
    principal="issuer|me",
    account_id=f"acc_{'A' * 22}",
    vin="WBA00000000DEMO01",
    vehicle="a" * 32,
    command=Command(CommandName.LOCK),
    fingerprint="0" * 64,
    created_at=AT,
    expires_at=AT + timedelta(seconds=30),
    updated_at=AT,
)
FULL = replace(
    OPEN,
    command=Command(CommandName.FIND, {"latitude": 1.5, "longitude": 2.5}),
    key_digest="1" * 64,
    state="confirmed",
    event_id="event-1",
    sent_at=AT,
    executed_at=LATER,
    confirmed_at=LATER,
    settled=True,
    note="A note.",
    position={"latitude": 1.5, "longitude": 2.5, "heading": None},
    failure={"code": "UPSTREAM_ERROR", "message": "x", "retry_after_s": None, "may_have_succeeded": True},
)


@pytest.mark.parametrize("record", [OPEN, FULL], ids=["open", "full"])
def test_a_record_survives_being_stored(record: Record) -> None:
    assert from_body(orjson.loads(orjson.dumps(to_body(record)))) == record


@pytest.mark.parametrize(
    ("state", "settled", "status", "final", "over"),
    [
        ("accepted", False, "pending", False, False),
        ("pending", False, "pending", False, False),
        ("delivered", False, "pending", False, False),
        ("delivered", True, "success", True, True),
        ("executed", False, "success", False, True),
        ("executed", True, "success", True, True),
        ("confirmed", False, "success", True, True),
        ("failed", False, "failed", True, True),
        ("expired", False, "failed", True, True),
        ("unknown", False, "unknown", True, True),
    ],
)
def test_a_state_has_one_status_and_is_final_or_not(
    state: str, settled: bool, status: str, final: bool, over: bool
) -> None:
    record = replace(OPEN, state=state, settled=settled)
    assert (record.result()["status"], record.is_final, record.is_over) == (status, final, over)
    assert record.result()["may_have_succeeded"] is (state not in ("failed", "expired"))


@pytest.mark.parametrize("record", [OPEN, FULL], ids=["open", "full"])
def test_what_is_shown_is_the_contracts_shape_and_nothing_else(record: Record) -> None:
    shown = record.result()
    CommandRecord.model_validate(shown)
    assert set(shown) <= set(CommandRecord.model_fields)
    text = repr(shown)
    for hidden in (record.principal, record.vin, record.fingerprint, "event-1", "1" * 64, "UPSTREAM_ERROR"):
        assert hidden not in text


@pytest.mark.parametrize(
    ("changes", "by", "after_s"),
    [
        ({}, None, None),
        ({"sent_at": AT}, None, None),
        ({"confirmed_at": LATER}, None, None),
        ({"sent_at": AT, "confirmed_at": LATER}, "telemetry", 2.5),
    ],
)
def test_a_confirmation_is_shown_only_with_both_its_times(
    changes: dict[str, Any], by: str | None, after_s: float | None
) -> None:
    shown = replace(OPEN, **changes).result()
    assert (shown["confirmed_by"], shown["confirmed_after_s"]) == (by, after_s)


def test_a_position_is_shown_only_where_there_is_one() -> None:
    assert "position" not in OPEN.result()
    assert FULL.result()["position"] == {"latitude": 1.5, "longitude": 2.5, "heading": None}


def test_a_new_record_is_open() -> None:
    assert (OPEN.state, OPEN.is_final, OPEN.is_over, OPEN.result()["status"]) == ("accepted", False, False, "pending")


def test_a_repeated_request_is_marked_as_such() -> None:
    assert OPEN.result()["deduplicated"] is False
    assert OPEN.result(deduplicated=True)["deduplicated"] is True


def test_a_record_is_stored_under_its_account() -> None:
    assert key_of(OPEN.id) == f"commands/{OPEN.account_id}/{OPEN.id}"


def test_a_record_from_before_vehicles_had_names_can_still_be_read() -> None:
    stored = to_body(OPEN)
    del stored["vehicle"]
    assert from_body(stored) == replace(OPEN, vehicle=OPEN.id)


@pytest.mark.parametrize(
    ("state", "other", "behind"),
    [
        ("accepted", "pending", True),
        ("pending", "delivered", True),
        ("delivered", "executed", True),
        ("executed", "confirmed", True),
        ("executed", "executed", False),
        ("executed", "pending", False),
        ("failed", "executed", False),
        ("unknown", "delivered", False),
    ],
)
def test_a_command_knows_what_lies_behind_it(state: str, other: str, behind: bool) -> None:
    assert is_behind(state, other) is behind


async def test_ids_that_are_made_fit_the_contract(driver: Driver) -> None:
    sent = await driver.send()
    assert re.fullmatch(COMMAND_PATTERN, sent.id)
