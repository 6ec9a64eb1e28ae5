"""What a caller sees when the maker misbehaves."""

from typing import Any

import pytest

from common.clock import ManualClock
from sandbox.process import RunningSandbox
from tests.integration.conftest import Api, MakeApi


@pytest.mark.parametrize(
    ("fault", "code", "status"),
    [
        ({"fault": "status", "status": 500}, "UPSTREAM_ERROR", 502),
        ({"fault": "status", "status": 503}, "UPSTREAM_ERROR", 502),
        ({"fault": "reset"}, "UPSTREAM_ERROR", 502),
        ({"fault": "truncated"}, "UPSTREAM_ERROR", 502),
        ({"fault": "malformed"}, "UPSTREAM_INVALID", 502),
        ({"fault": "empty"}, "UPSTREAM_INVALID", 502),
        ({"fault": "wrong_type"}, "UPSTREAM_INVALID", 502),
        ({"fault": "status", "status": 429, "wait_s": 13}, "QUOTA_LIMIT_EXCEEDED", 429),
        ({"fault": "status", "status": 403, "replenish_s": 3723}, "QUOTA_LIMIT_EXCEEDED", 429),
        ({"fault": "status", "status": 489}, "PROVIDER_BLOCKED", 503),
        ({"fault": "hang"}, "UPSTREAM_TIMEOUT", 504),
    ],
    ids=lambda value: value.get("fault", "") + str(value.get("status", "")) if isinstance(value, dict) else None,
)
def test_each_failure_of_the_maker_has_its_own_error(
    make_api: MakeApi, sandbox: RunningSandbox, fault: dict[str, Any], code: str, status: int
) -> None:
    patient = make_api(read_attempts=1)
    account = patient.connect()
    patient.post(action="vehicles", account=account)
    api = make_api(read_attempts=1, upstream_timeout_s=0.5) if fault["fault"] == "hang" else patient
    sandbox.fault(match={"path": "vehicles/state"}, **fault)
    failed = api.post(action="status", account=account)
    assert (failed.status, failed.error["code"]) == (status, code), failed.json
    assert set(failed.error) == {
        "code", "type", "message", "details", "resolution", "retryable", "may_have_succeeded", "retry_after",
        "request_id", "docs", "timestamp",
    }  # fmt: skip
    assert failed.headers["X-Request-ID"] == failed.error["request_id"]


def test_a_quota_says_when_it_is_replenished(make_api: MakeApi, sandbox: RunningSandbox) -> None:
    api = make_api(read_attempts=1)
    account = api.connect()
    api.post(action="vehicles", account=account)
    sandbox.fault(match={"path": "vehicles/state"}, fault="status", status=403, replenish_s=3723)
    failed = api.post(action="status", account=account)
    assert failed.error["retry_after"] == 3723
    assert failed.headers["Retry-After"] == "3723"
    asked = sandbox.stats()["requests_total"]
    again = api.post(action="status", account=account)
    assert again.error["code"] == "QUOTA_LIMIT_EXCEEDED"
    assert 3700 <= again.error["retry_after"] <= 3723
    assert sandbox.stats()["requests_total"] == asked


def test_a_short_failure_is_retried_and_not_seen(api: Api, sandbox: RunningSandbox) -> None:
    account = api.connect()
    api.post(action="vehicles", account=account)
    sandbox.fault(match={"path": "vehicles/state"}, fault="status", status=503, times=1)
    assert api.post(action="status", account=account).status == 200


def test_five_failures_open_the_circuit_and_a_minute_later_it_closes(
    make_api: MakeApi, clock: ManualClock, sandbox: RunningSandbox
) -> None:
    api = make_api(clock, read_attempts=1)
    account = api.connect()
    api.post(action="vehicles", account=account)
    sandbox.fault(match={"path": "vehicles/state"}, fault="status", status=503)
    for _ in range(5):
        assert api.post(action="status", account=account).error["code"] == "UPSTREAM_ERROR"
        clock.advance(3)
    asked = sandbox.stats()["requests_total"]
    rejected = api.post(action="status", account=account)
    assert (rejected.status, rejected.error["code"]) == (503, "CIRCUIT_OPEN")
    assert 40 <= rejected.error["retry_after"] <= 66
    assert sandbox.stats()["requests_total"] == asked
    health = api.get("/health").json
    assert health["metrics"]["circuit_breaker_state"] == "open"
    assert health["status"] == "degraded"
    sandbox.clear_faults()
    clock.advance(70)
    assert api.post(action="status", account=account).status == 200
    assert api.get("/health").json["metrics"]["circuit_breaker_state"] == "closed"


def test_a_strangers_bad_logins_open_nobodys_circuit(api: Api) -> None:
    form = {"action": "connect", "email": "wrong-password@example.com", "password": "x"}
    codes = [api.post(**form, hcaptcha=f"stranger-{number}").error["code"] for number in range(8)]
    assert codes == ["AUTHENTICATION_ERROR"] * 3 + ["RATE_LIMIT_EXCEEDED"] * 5
    api.connect()


@pytest.mark.parametrize(
    "form",
    [
        {"hcaptcha": "é"},
        {"hcaptcha": "one\ntwo"},
        {"region": "china", "password": "x" * 256},
        {"region": "china", "password": "é" * 100},
    ],
)
def test_a_login_that_cannot_even_be_sent_is_the_strangers_fault_and_opens_nobodys_circuit(
    api: Api, sandbox: RunningSandbox, form: dict[str, str]
) -> None:
    def attempt(number: int) -> str:
        sent = {"email": f"{number}@example.com", "password": "x", **form}
        code: str = api.post(action="fuel", **sent).error["code"]
        return code

    assert [attempt(number) for number in range(8)] == ["VALIDATION_ERROR"] * 8
    assert sandbox.stats()["requests_total"] == 0
    assert api.get("/health").json["metrics"]["circuit_breaker_state"] == "closed"


@pytest.mark.parametrize("path", ["oauth/authenticate", "slider-captcha"])
def test_a_login_that_the_maker_does_not_understand_opens_nobodys_circuit(
    api: Api, sandbox: RunningSandbox, path: str
) -> None:
    sandbox.fault(match={"path": path}, fault="status", status=400, body={"error": "invalid_request"})
    region = "china" if path == "slider-captcha" else "rest_of_world"
    for number in range(8):
        form = {"email": f"{number}@example.com", "password": "x", "hcaptcha": f"odd-{number}", "region": region}
        assert api.post(action="connect", **form).error["code"] == "UPSTREAM_ERROR"
    assert api.get("/health").json["metrics"]["circuit_breaker_state"] == "closed"


def test_the_makers_words_never_reach_the_caller(make_api: MakeApi, sandbox: RunningSandbox) -> None:
    api = make_api(read_attempts=1)
    account = api.connect()
    sandbox.fault(
        match={"path": "vehicles/state"}, fault="status", status=500, body="secret words of the maker WBA00000000DEMO01"
    )
    failed = api.post(action="status", account=account)
    assert b"secret words" not in failed.body
    assert b"DEMO01" not in failed.body
