"""What a load test's replies mean."""

import json
from typing import Any

import pytest

from bench.loadtest.client import Sample
from bench.loadtest.mix import Ask, Car, Command, Kind
from bench.loadtest.verdict import OF_THE_MAKER, SERVICES, End, end_of, settle, why
from common import errors

OK = {"success": True, "result": {}}
CAR = Car({}, "fleet-1@example.com", "acc_1", "WBA00000000D00001")


def failed(code: str) -> dict[str, Any]:
    return {"success": False, "error": {"code": code, "may_have_succeeded": False}}


def replied(status: int | None, body: object) -> Sample:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Sample(Ask(Kind.CACHED, b""), 1.0, 0.01, status, text)


def batch(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"success": True, "result": {"responses": list(parts)}}


@pytest.mark.parametrize(
    ("sample", "end"),
    [
        (replied(200, OK), End.OK),
        (replied(202, {"success": True, "result": {"state": "accepted"}}), End.OK),
        (replied(502, failed("UPSTREAM_ERROR")), End.MAKER),
        (replied(503, failed("CIRCUIT_OPEN")), End.MAKER),
        (replied(504, failed("UPSTREAM_TIMEOUT")), End.MAKER),
        (replied(500, failed("INTERNAL_ERROR")), End.ERROR),
        (replied(503, failed("STORE_UNAVAILABLE")), End.ERROR),
        (replied(429, failed("RATE_LIMIT_EXCEEDED")), End.ERROR),
        (replied(404, failed("VEHICLE_NOT_FOUND")), End.ERROR),
        (replied(503, b"<html>"), End.ERROR),
        (replied(200, b"[]"), End.ERROR),
        (replied(200, b"null"), End.ERROR),
        (replied(200, {"success": False}), End.ERROR),
        (replied(500, OK), End.ERROR),
        (replied(None, b""), End.ERROR),
        (replied(200, batch(OK, OK)), End.OK),
        (replied(200, batch(OK, failed("UPSTREAM_ERROR"))), End.MAKER),
        (replied(200, batch(failed("UPSTREAM_ERROR"), OK, failed("INTERNAL_ERROR"))), End.ERROR),
    ],
)
def test_a_request_ends_as_its_reply_says(sample: Sample, end: End) -> None:
    assert end_of(sample) is end


def test_only_errors_of_the_contract_that_blame_the_maker_are_counted_apart() -> None:
    blaming = {kind.code for kind in subclasses(errors.ProviderError) | {errors.CircuitOpen} if hasattr(kind, "code")}
    others = {kind.code for kind in subclasses(errors.ApiError) if hasattr(kind, "code") and kind.code not in blaming}
    assert blaming >= OF_THE_MAKER
    assert not others & OF_THE_MAKER


def subclasses(kind: type[errors.ApiError]) -> set[type[errors.ApiError]]:
    return set(kind.__subclasses__()).union(*(subclasses(below) for below in kind.__subclasses__()))


@pytest.mark.parametrize(
    ("sample", "word"),
    [
        (replied(None, b""), "no reply"),
        (replied(502, b"bad gateway"), "502 without JSON"),
        (replied(502, failed("UPSTREAM_ERROR")), "502 UPSTREAM_ERROR"),
        (replied(200, batch(OK, failed("B"), failed("A"), failed("B"))), "200 A B"),
    ],
)
def test_what_went_wrong_is_said_in_a_word(sample: Sample, word: str) -> None:
    assert why(sample) == word


def commands(count: int) -> list[Command]:
    return [Command(f"key-{number}", "lock", CAR) for number in range(count)]


def record(state: str, *, may_have_succeeded: bool = False) -> bytes:
    return json.dumps({"success": True, "result": {"state": state, "may_have_succeeded": may_have_succeeded}}).encode()


REFUSED = json.dumps(failed("REMOTE_SERVICE_ERROR")).encode()


def test_commands_that_were_all_received_once_or_truly_refused_balance() -> None:
    said = {"key-0": record("pending"), "key-1": REFUSED, "key-2": record("unknown", may_have_succeeded=True)}
    accounts = settle(commands(3), said, {"key-0": 1, "key-1": 0, "key-2": 1})
    assert (accounts.accepted, accounts.refused, accounts.unknown, accounts.received) == (1, 1, 1, 2)
    assert accounts.balance


@pytest.mark.parametrize(
    ("said", "received", "wrong"),
    [
        (record("accepted"), 0, "lost"),
        (record("confirmed"), 2, "twice"),
        (REFUSED, 1, "lies"),
        (record("failed"), 1, "lies"),
    ],
)
def test_a_command_that_was_lost_doubled_or_denied_is_found(said: bytes, received: int, wrong: str) -> None:
    accounts = settle(commands(1), {"key-0": said}, {"key-0": received})
    assert getattr(accounts, wrong) == 1
    assert not accounts.balance


@pytest.mark.parametrize("received", [0, 1])
def test_of_a_command_that_is_in_flight_for_a_process_that_died_nobody_knows(received: int) -> None:
    said = json.dumps(failed("IDEMPOTENCY_IN_FLIGHT")).encode()
    accounts = settle(commands(1), {"key-0": said}, {"key-0": received})
    assert (accounts.unknown, accounts.balance) == (1, True)


def test_a_command_without_any_answer_does_not_balance() -> None:
    assert not settle(commands(1), {"key-0": b""}, {"key-0": 1}).balance


def test_every_command_of_the_mix_has_its_name_at_the_maker() -> None:
    from bench.loadtest.mix import COMMANDS  # noqa: PLC0415 - beside what it is compared with

    assert set(SERVICES) == set(COMMANDS)
