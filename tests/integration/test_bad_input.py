"""Requests that nobody should send: the contract's error, never a 500."""

import json

import pytest

from functions.wire import RawRequest
from tests.integration.conftest import Api, MakeApi

BODIES: dict[str, bytes] = {
    "empty": b"",
    "not JSON": b"lock",
    "an array": b"[]",
    "a string": b'"lock"',
    "null": b"null",
    "not UTF-8": b'{"action": "\xff"}',
    "UTF-16": '{"action": "status"}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"action": "status"}',
    "a duplicate key": b'{"action": "status", "action": "unlock"}',
    "a nested duplicate key": b'{"action": "status", "params": {"a": 1, "a": 2}}',
    "an escaped duplicate key": b'{"action": "status", "\\u0061ction": "unlock"}',
    "NaN": b'{"wait_s": NaN}',
    "Infinity": b'{"wait_s": -Infinity}',
    "an overflowing number": b'{"wait_s": 1e400}',
    "a huge integer": b'{"wait_s": ' + b"9" * 5000 + b"}",
    "deep nesting": b'{"params": ' + b"[" * 8000 + b"]" * 8000 + b"}",
    "depth 33": b'{"params": {"a": ' + b"[" * 31 + b"]" * 31 + b"}}",
    "a lone surrogate": b'{"action": "\\ud800"}',
    "a lone surrogate in a key": b'{"params": {"\\udfff": 1}}',
    "trailing garbage": b'{"action": "status"} x',
    "an unknown field": b'{"actoin": "status"}',
    "a number for a name": b'{"action": 1}',
    "an overlong action": b'{"action": "' + b"a" * 100 + b'"}',
    "a short VIN": b'{"vin": "WBA"}',
    "a VIN with a newline": b'{"vin": "WBA00000000DEMO0\\n"}',
    "vin and wkn": b'{"vin": "WBA00000000DEMO01", "wkn": "WBA00000000DEMO02"}',
    "account and email": b'{"account": "acc_AAAAAAAAAAAAAAAAAAAAAA", "email": "a@b.c", "password": "x"}',
    "an email alone": b'{"email": "a@b.c"}',
    "a password alone": b'{"password": "x"}',
    "fresh and cache_only": b'{"fresh": true, "cache_only": true}',
    "a negative age": b'{"max_age_s": -1}',
    "a wait too long": b'{"wait_s": 56}',
    "a string for a bool": b'{"fresh": "true"}',
    "params that are no object": b'{"params": []}',
    "an unknown region": b'{"region": "mars"}',
    "an account with a path": b'{"account": "acc_../../../../../../etc"}',
    "a null action": b'{"action": null}',
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_a_bad_body_is_refused_with_the_path_of_what_is_bad(api: Api, body: bytes) -> None:
    refused = api.post_bytes(body)
    assert (refused.status, refused.error["code"]) == (400, "VALIDATION_ERROR"), refused.body
    assert refused.error["details"]["fields"][0]["path"]
    assert refused.error["details"]["fields"][0]["problem"]
    assert "Traceback" not in refused.body.decode()


def test_an_unknown_action_lists_the_names(api: Api) -> None:
    refused = api.post(action="explode")
    assert (refused.status, refused.error["code"]) == (400, "UNKNOWN_ACTION")
    assert {"status", "lock", "climate", "command_status"} <= set(refused.error["details"]["actions"])


def test_a_body_over_16_kib_is_too_large(api: Api) -> None:
    assert api.post_bytes(b'{"x": "' + b"a" * 16_384 + b'"}').error["code"] == "PAYLOAD_TOO_LARGE"


@pytest.mark.parametrize("content_type", ["text/plain", "", "application/jsonp", "multipart/form-data"])
def test_a_body_that_is_not_declared_json_is_refused(api: Api, content_type: str) -> None:
    refused = api.post_bytes(b"{}", {"content-type": content_type})
    assert (refused.status, refused.error["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")


def test_json_may_name_its_charset(api: Api) -> None:
    body = json.dumps({"action": "actions"}).encode()
    assert api.post_bytes(body, {"content-type": "application/json; charset=utf-8"}).status == 200


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "HEAD"])
def test_other_methods_are_not_allowed(api: Api, method: str) -> None:
    refused = api.send(RawRequest(method, "/", {}, b""))
    assert (refused.status, refused.error["code"]) == (405, "METHOD_NOT_ALLOWED")
    assert refused.headers["Allow"] == "POST, OPTIONS"


def test_pages_answer_get_only(api: Api) -> None:
    refused = api.send(RawRequest("POST", "/health", {"content-type": "application/json"}, b"{}"))
    assert refused.error["code"] == "METHOD_NOT_ALLOWED"
    assert "GET" in refused.headers["Allow"]


def test_other_paths_do_not_exist(api: Api) -> None:
    refused = api.send(RawRequest("POST", "/admin", {}, b"{}"))
    assert (refused.status, refused.error["code"]) == (404, "ENDPOINT_NOT_FOUND")


def test_an_empty_configuration_lets_nobody_in(make_api: MakeApi) -> None:
    closed = make_api(callers="")
    for body in (b'{"action": "actions"}', b'{"action": "unlock"}', b"not JSON"):
        refused = closed.post_bytes(body)
        assert (refused.status, refused.error["code"]) == (401, "CALLER_UNAUTHENTICATED")
    assert closed.get("/health").status == 200


def test_cors_is_for_listed_origins_only_and_also_on_errors(make_api: MakeApi) -> None:
    api = make_api(cors_origins=("https://app.example.com",))
    preflight = api.send(RawRequest("OPTIONS", "/", {"origin": "https://app.example.com"}, b""))
    assert preflight.status == 204
    assert preflight.headers["Access-Control-Allow-Origin"] == "https://app.example.com"
    error = api.post({"origin": "https://app.example.com"}, action="explode")
    assert error.headers["Access-Control-Allow-Origin"] == "https://app.example.com"
    stranger = api.post({"origin": "https://evil.example.com"}, action="explode")
    assert "Access-Control-Allow-Origin" not in stranger.headers
    assert stranger.headers["Vary"] == "Origin"


def test_ids_of_the_caller_are_echoed(api: Api) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    answered = api.post({"x-request-id": "mine-1", "traceparent": trace}, action="actions")
    assert answered.headers["X-Request-ID"] == answered.meta["request_id"] == "mine-1"
    assert answered.headers["traceparent"] == trace
    forged = api.post({"x-request-id": "a b\n"}, action="actions")
    assert forged.headers["X-Request-ID"].startswith("req_")
