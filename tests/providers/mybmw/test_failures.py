"""Every answer and every exception has one failure; what BMW wrote is in none of them."""

import json
from typing import Any

import httpx
import jwt
import pytest
from bimmer_connected.models import (
    MyBMWAPIError,
    MyBMWAuthError,
    MyBMWCaptchaMissingError,
    MyBMWQuotaError,
    MyBMWRemoteServiceError,
)
from bimmer_connected.tests import RESPONSE_DIR, load_response

from common.errors import ApiError, InternalError, ProviderError, VehicleNotFound, Vote
from functions.providers.mybmw.failures import (
    BMWAPIError,
    BMWBlocked,
    BMWCaptchaRequired,
    BMWCommandRefused,
    BMWCredentialsRefused,
    BMWInvalidReply,
    BMWMisunderstood,
    BMWQuotaExceeded,
    BMWRelinkRequired,
    BMWTimeout,
    BMWUnavailable,
    Stage,
    failure_of,
    translated,
)
from functions.tokens import InvalidGrant

LEAVES = (
    BMWBlocked,
    BMWCaptchaRequired,
    BMWCommandRefused,
    BMWCredentialsRefused,
    BMWInvalidReply,
    BMWQuotaExceeded,
    BMWRelinkRequired,
    BMWTimeout,
    BMWUnavailable,
)
INVALID_CLIENT = json.dumps(load_response(RESPONSE_DIR / "auth" / "auth_error_wrong_password.json"))
CHINESE_REFUSAL = (RESPONSE_DIR / "auth" / "auth_cn_login_error.json").read_text()
INVALID_GRANT = '{"error": "invalid_grant", "error_description": "secret"}'
QUOTA = '{"statusCode": 403, "message": "Out of call volume quota. Quota will be replenished in 02:21:31."}'
RATE = '{"statusCode": 429, "message": "Rate limit is exceeded. Try again in 13 seconds."}'
EVERY_STAGE = tuple(Stage)


@pytest.mark.parametrize(
    ("status", "body", "stages", "failure"),
    [
        (489, "Blocked", EVERY_STAGE, BMWBlocked),
        (429, RATE, EVERY_STAGE, BMWQuotaExceeded),
        (403, QUOTA, EVERY_STAGE, BMWQuotaExceeded),
        (500, "INTERNAL SERVER ERROR", EVERY_STAGE, BMWUnavailable),
        (503, "", EVERY_STAGE, BMWUnavailable),
        (504, "<html>", EVERY_STAGE, BMWUnavailable),
        (304, "", EVERY_STAGE, BMWInvalidReply),
        (200, "{", EVERY_STAGE, BMWInvalidReply),
        (401, INVALID_CLIENT, [Stage.LOGIN], BMWCredentialsRefused),
        (400, INVALID_CLIENT, [Stage.LOGIN], BMWCredentialsRefused),
        (422, CHINESE_REFUSAL, [Stage.LOGIN], BMWCredentialsRefused),
        (403, "", [Stage.LOGIN], BMWCredentialsRefused),
        (400, '{"error": "invalid_request"}', [Stage.LOGIN], BMWMisunderstood),
        (431, "", [Stage.LOGIN, Stage.REFRESH], BMWMisunderstood),
        (400, '{"error": "invalid_request", "error_description": "hCaptcha"}', [Stage.LOGIN], BMWCaptchaRequired),
        (401, "captcha token expired", [Stage.LOGIN], BMWCaptchaRequired),
        (400, INVALID_GRANT, [Stage.REFRESH], InvalidGrant),
        (401, INVALID_GRANT, [Stage.REFRESH], InvalidGrant),
        (401, INVALID_CLIENT, [Stage.REFRESH], BMWMisunderstood),
        (400, '{"error": "unauthorized_client"}', [Stage.REFRESH], BMWMisunderstood),
        (400, '{"error": "access_denied"}', [Stage.REFRESH], BMWMisunderstood),
        (401, '{"error": "invalid_token"}', [Stage.REFRESH], BMWMisunderstood),
        (400, "<html>", [Stage.REFRESH], BMWMisunderstood),
        (401, '{"error": {"code": "invalid_grant"}}', [Stage.REFRESH], BMWMisunderstood),
        (401, '["invalid_grant"]', [Stage.REFRESH], BMWMisunderstood),
        (403, INVALID_GRANT, [Stage.REFRESH], BMWMisunderstood),
        (401, INVALID_CLIENT, [Stage.HANDSHAKE], BMWUnavailable),
        (400, INVALID_GRANT, [Stage.HANDSHAKE], BMWUnavailable),
        (422, CHINESE_REFUSAL, [Stage.HANDSHAKE], BMWUnavailable),
        (422, CHINESE_REFUSAL, [Stage.PICTURE], BMWMisunderstood),
        (404, "", [Stage.VEHICLE], VehicleNotFound),
        (404, "", [Stage.READ, Stage.LOGIN, Stage.REFRESH], BMWUnavailable),
        (404, "", [Stage.EVENT, Stage.COMMAND], BMWCommandRefused),
        (403, "", [Stage.READ, Stage.VEHICLE, Stage.EVENT], BMWCredentialsRefused),
        (400, "", [Stage.READ, Stage.VEHICLE], BMWUnavailable),
        (400, "", [Stage.COMMAND], BMWCommandRefused),
        (403, "", [Stage.COMMAND], BMWCommandRefused),
        (409, "", [Stage.COMMAND], BMWCommandRefused),
    ],
)
def test_an_answer_has_one_failure(status: int, body: str, stages: list[Stage], failure: type[Exception]) -> None:
    for stage in stages:
        assert type(failure_of(httpx.Response(status, text=body), stage)) is failure, stage


@pytest.mark.parametrize(
    ("headers", "body", "wait_s"),
    [
        ({}, QUOTA, 2 * 3600 + 21 * 60 + 31),
        ({}, RATE, 13),
        ({}, "Try again in 1 second", 1),
        ({"retry-after": "120"}, RATE, 120),
        ({"retry-after": "Wed, 21 Oct 2015 07:29:00 GMT", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, RATE, 60),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT", "date": "Wed, 21 Oct 2015 07:29:00 GMT"}, "", 0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, "", None),
        ({"retry-after": "soon", "date": "today"}, "", None),
        ({"retry-after": b"\xc2\xb2"}, "", None),
        ({}, "Rate limit is exceeded.", None),
    ],
)
def test_how_long_to_wait_is_read_from_the_header_or_the_text(
    headers: dict[str, Any], body: str, wait_s: float | None
) -> None:
    failure = failure_of(httpx.Response(429, headers=headers, text=body), Stage.READ)

    assert isinstance(failure, BMWQuotaExceeded)
    assert failure.retry_after_s == wait_s


@pytest.mark.parametrize("stage", EVERY_STAGE)
@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 489, 500])
def test_no_failure_repeats_what_bmw_wrote(stage: Stage, status: int) -> None:
    body = '{"error": "invalid_grant", "message": "secret of WBA00000000DEMO01, captcha, quota"}'

    failure = failure_of(httpx.Response(status, text=body, headers={"x": "secret"}), stage)

    assert "secret" not in str(failure)
    assert "DEMO01" not in str(failure)


@pytest.mark.parametrize("leaf", LEAVES)
def test_a_failure_is_bmws_and_one_of_the_services_tree(leaf: type[BMWAPIError]) -> None:
    parent = leaf.__mro__[2]

    assert issubclass(leaf, BMWAPIError)
    assert issubclass(parent, ProviderError)
    for name in ("code", "status", "resolution", "retryable", "vote"):
        assert getattr(leaf, name) == getattr(parent, name)
    assert leaf().message


def test_refusals_of_a_user_do_not_count_against_bmw() -> None:
    assert {leaf for leaf in (*LEAVES, BMWMisunderstood) if leaf.vote is Vote.NONE} == {
        BMWCaptchaRequired,
        BMWCredentialsRefused,
        BMWRelinkRequired,
        BMWCommandRefused,
        BMWMisunderstood,
    }
    assert {leaf for leaf in (*LEAVES, BMWMisunderstood) if leaf.vote is Vote.HOLD} == {BMWBlocked, BMWQuotaExceeded}


@pytest.mark.parametrize(
    ("raised", "failure"),
    [
        (httpx.ConnectTimeout("x"), BMWTimeout),
        (httpx.PoolTimeout("x"), BMWTimeout),
        (httpx.ReadTimeout("x"), BMWTimeout),
        (httpx.ConnectError("x"), BMWUnavailable),
        (httpx.ReadError("x"), BMWUnavailable),
        (httpx.RemoteProtocolError("x"), BMWUnavailable),
        (httpx.DecodingError("x"), BMWInvalidReply),
        (httpx.InvalidURL("x"), BMWInvalidReply),
        (json.JSONDecodeError("x", "", 0), BMWInvalidReply),
        (UnicodeDecodeError("utf-8", b"", 0, 1, "x"), BMWInvalidReply),
        (KeyError("x"), BMWInvalidReply),
        (IndexError("x"), BMWInvalidReply),
        (TypeError("x"), BMWInvalidReply),
        (ValueError("x"), BMWInvalidReply),
        (AttributeError("x"), BMWInvalidReply),
        (OverflowError("x"), BMWInvalidReply),
        (RecursionError("x"), BMWInvalidReply),
        (jwt.DecodeError("x"), BMWInvalidReply),
        (MyBMWQuotaError("x"), BMWQuotaExceeded),
        (MyBMWCaptchaMissingError("x"), BMWCaptchaRequired),
        (MyBMWAuthError("x"), BMWCredentialsRefused),
        (MyBMWRemoteServiceError("x"), BMWCommandRefused),
        (MyBMWAPIError("x"), BMWUnavailable),
    ],
)
def test_an_exception_of_the_library_becomes_one_failure_with_its_cause(
    raised: Exception, failure: type[ApiError]
) -> None:
    with pytest.raises(failure) as caught, translated():
        raise raised

    assert type(caught.value) is failure
    assert caught.value.__cause__ is raised


@pytest.mark.parametrize("ours", [InternalError(), InvalidGrant(), BMWBlocked(), ImportError("x"), AssertionError()])
def test_what_is_ours_already_passes_untouched(ours: Exception) -> None:
    with pytest.raises(type(ours)) as caught, translated():
        raise ours

    assert caught.value is ours
