"""Every answer of BMW's has one meaning; what BMW wrote is in none of them."""

import json

import pytest

from common.errors import ApiError, NotSupported, PreconditionFailed, ProviderError, VehicleNotFound, Vote
from functions.providers.cardata import failures as f
from functions.providers.cardata.failures import AuthStage, auth_failure, rest_failure
from functions.tokens import InvalidGrant

LEAVES = [
    leaf for leaf in vars(f).values() if isinstance(leaf, type) and issubclass(leaf, f.CarDataError) and leaf.__bases__
]
BURNT = {"fault": {"faultstring": "x", "detail": {"errorcode": "keymanagement.service.invalid_access_token"}}}
ALL = tuple(AuthStage)
BEGIN, POLL, REFRESH = AuthStage.BEGIN, AuthStage.POLL, AuthStage.REFRESH


def exve(code: str) -> bytes:
    return json.dumps({"exveErrorId": code, "exveErrorMsg": "secret", "exveErrorRef": "r", "exveNote": None}).encode()


@pytest.mark.parametrize("status", [400, 403, 404, 500, 200])
@pytest.mark.parametrize(
    ("code", "failure"),
    [
        ("CU-100", f.TokenRefused),
        ("CU-101", f.TokenRefused),
        ("CU-102", f.TokenRefused),
        ("CU-103", f.CarDataRefused),
        ("CU-104", VehicleNotFound),
        ("CU-105", f.ContainerGone),
        ("CU-120", VehicleNotFound),
        ("CU-121", f.ContainerGone),
        ("CU-122", f.ContainerGone),
        ("CU-124", PreconditionFailed),
        ("CU-125", f.PageExpired),
        ("CU-126", NotSupported),
        ("CU-127", f.NoData),
        ("CU-400", f.CarDataMisunderstood),
        ("CU-401", f.CarDataMisunderstood),
        ("CU-402", f.CarDataMisunderstood),
        ("CU-403", f.CarDataRefused),
        ("CU-429", f.CarDataQuotaExceeded),
        ("CU-500", f.CarDataUnavailable),
        ("CU-503", f.CarDataUnavailable),
    ],
)
def test_an_error_is_told_by_its_id_whatever_the_status(status: int, code: str, failure: type[Exception]) -> None:
    found = rest_failure(status, exve(code), {})

    assert type(found) is failure
    assert "secret" not in str(found)


@pytest.mark.parametrize(
    ("status", "body", "failure"),
    [
        (401, b"", f.TokenRefused),
        (403, b"<html>", f.CarDataRefused),
        (403, exve("CU-999"), f.CarDataRefused),
        (404, b"[]", f.CarDataMisunderstood),
        (429, b"", f.CarDataThrottled),
        (500, b'"CU-429"', f.CarDataUnavailable),
        (504, b'{"exveErrorId": ["CU-429"]}', f.CarDataUnavailable),
        (302, b"", f.CarDataInvalidReply),
        (101, b"", f.CarDataInvalidReply),
    ],
)
def test_without_an_id_the_status_must_do(status: int, body: bytes, failure: type[Exception]) -> None:
    assert type(rest_failure(status, body, {})) is failure


@pytest.mark.parametrize("status", [200, 201, 204])
def test_a_success_is_no_failure(status: int) -> None:
    assert rest_failure(status, b'{"telematicData": {}}', {}) is None
    assert auth_failure(REFRESH, status, b"{}", {}) is None


@pytest.mark.parametrize(("header", "wait_s"), [("7", 7), ("999999999999", 86_400), ("soon", None), ("", None)])
def test_how_long_to_wait_is_read_from_the_header(header: str, wait_s: float | None) -> None:
    for found in (
        rest_failure(429, b"", {"retry-after": header}),
        auth_failure(POLL, 429, b"", {"retry-after": header}),
    ):
        assert isinstance(found, f.CarDataThrottled)
        assert found.retry_after_s == wait_s


@pytest.mark.parametrize(
    ("status", "body", "stages", "meant"),
    [
        (403, {"error": "authorization_pending"}, [POLL], f.StillUndecided),
        (400, {"error": "slow_down"}, [POLL], f.PollingTooFast),
        (403, {"error": "access_denied"}, [BEGIN, POLL], f.CarDataRefused),
        (403, {"error": "access_denied"}, [REFRESH], InvalidGrant),
        (400, {"error": "invalid_request"}, [BEGIN], f.CarDataRefused),
        (400, {"error": "invalid_request"}, [POLL], f.CarDataRelinkRequired),
        (400, {"error": "invalid_request"}, [REFRESH], f.CarDataMisunderstood),
        (400, {"error": "invalid_grant"}, [POLL], f.CarDataRelinkRequired),
        (400, {"error": "invalid_grant"}, [REFRESH], InvalidGrant),
        (401, {"error": "expired_token"}, [POLL], f.CarDataRelinkRequired),
        (401, {"error": "expired_token"}, [REFRESH], InvalidGrant),
        (401, {"error": "invalid_client"}, [BEGIN, POLL], f.CarDataRefused),
        (401, {"error": "invalid_client"}, [REFRESH], InvalidGrant),
        (400, {"error": "unauthorized_client"}, [BEGIN], f.CarDataRefused),
        (400, {"error": "invalid_scope"}, [BEGIN], f.CarDataRefused),
        (500, BURNT, [POLL], f.CarDataRelinkRequired),
        (500, BURNT, [BEGIN, REFRESH], f.CarDataUnavailable),
        (500, {"fault": {"detail": "x"}}, ALL, f.CarDataUnavailable),
        (500, {"fault": 1}, ALL, f.CarDataUnavailable),
        (503, {}, ALL, f.CarDataUnavailable),
        (400, {"error": "never_seen"}, ALL, f.CarDataUnavailable),
        (400, {"error": {"code": "invalid_grant"}}, ALL, f.CarDataUnavailable),
        (400, [], ALL, f.CarDataUnavailable),
        (429, {}, ALL, f.CarDataThrottled),
        (302, {}, ALL, f.CarDataInvalidReply),
    ],
)
def test_each_row_of_the_login_has_one_meaning(
    status: int, body: object, stages: list[AuthStage], meant: type[Exception]
) -> None:
    for stage in stages:
        found = auth_failure(stage, status, json.dumps(body).encode(), {})
        assert type(found) is meant, stage


@pytest.mark.parametrize("leaf", [leaf for leaf in LEAVES if leaf is not f.CarDataError])
def test_a_failure_is_cardatas_and_one_of_the_services_tree(leaf: type[f.CarDataError]) -> None:
    parent = leaf.__mro__[2]

    assert issubclass(parent, ProviderError)
    assert (leaf.code, leaf.status, leaf.resolution) == (parent.code, parent.status, parent.resolution)
    assert leaf().message


def test_what_concerns_one_customer_alone_never_opens_the_circuit_for_the_others() -> None:
    silent = {leaf for leaf in LEAVES if leaf.vote is Vote.NONE} - {f.CarDataError}

    assert silent == {
        f.CarDataQuotaExceeded,
        f.CarDataRefused,
        f.CarDataRelinkRequired,
        f.CarDataBusy,
        f.CarDataMisunderstood,
    }
    assert {leaf for leaf in LEAVES if leaf.vote is Vote.HOLD} == {f.CarDataThrottled}


def test_ten_containers_come_with_advice() -> None:
    found = rest_failure(403, exve("CU-124"), {})

    assert isinstance(found, ApiError)
    assert "Delete one" in found.message
