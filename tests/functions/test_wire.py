"""Bytes to envelope, result or error to reply."""

import contextlib
import json
import math
import time
from datetime import UTC, datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from common import errors
from common.errors import ApiError, PayloadTooLarge, UnsupportedMediaType, UpstreamError, ValidationFailed
from functions import wire
from functions.contract import MAX_DEPTH, Envelope
from functions.wire import RawRequest

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
WHOLE = "(the whole request)"
MAX_BYTES = 16_384


def request(body: bytes, content_type: str | None = "application/json", **more: Any) -> RawRequest:
    headers = {} if content_type is None else {"content-type": content_type}
    return RawRequest("POST", "/", headers, body, **more)


def refusal(body: bytes) -> tuple[str, str]:
    """The one path and problem with which a body is refused."""
    with pytest.raises(ValidationFailed) as refused:
        wire.parse_object(body)
    (field,) = refused.value.details["fields"]
    return field["path"], field["problem"]


def nested(depth: int) -> bytes:
    """An object with arrays inside, ``depth`` levels in all."""
    return b'{"a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


# --- what is read -----------------------------------------------------------------------------------------------------


def test_a_good_request_becomes_an_envelope() -> None:
    read = wire.decode(request(b'{"action": "fuel", "max_age_s": 1.5, "params": {}}'), MAX_BYTES)
    assert (read.action, read.max_age_s) == ("fuel", 1.5)


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8",
        "application/json ;x=y",
    ],
)
def test_json_may_name_its_charset(content_type: str) -> None:
    assert wire.decode(request(b"{}", content_type), MAX_BYTES).action == "status"


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "*/*",
        "json",
        "text/json",
        "text/plain",
        "application/jsonx",
        "application/json-patch+json",
        "application/vnd.api+json",
        "application/json, text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "charset=utf-8; application/json",
    ],
)
def test_anything_but_json_is_refused_by_its_type(content_type: str | None) -> None:
    with pytest.raises(UnsupportedMediaType):
        wire.decode(request(b"{}", content_type), MAX_BYTES)


def test_the_type_is_judged_before_the_body() -> None:
    with pytest.raises(UnsupportedMediaType):
        wire.decode(request(b"\xff not json", "text/plain"), MAX_BYTES)


def test_one_byte_too_many_is_too_large() -> None:
    body = b'{"action": "fuel"}'
    assert wire.decode(request(body), len(body)).action == "fuel"
    with pytest.raises(PayloadTooLarge, match=str(len(body) - 1)):
        wire.decode(request(body), len(body) - 1)


def test_a_body_that_was_too_large_to_be_read_is_too_large() -> None:
    with pytest.raises(PayloadTooLarge):
        wire.decode(request(b"", too_large=True), MAX_BYTES)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "not valid JSON"),
        (b" ", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b'{"a": 1} x', "not valid JSON"),
        (b'{"a": 1}{"a": 2}', "not valid JSON"),
        (b"{'a': 1}", "not valid JSON"),
        (b'{"a": 1,}', "not valid JSON"),
        (b'{"a": 01}', "not valid JSON"),
        (b'{"a": "\n"}', "not valid JSON"),
        (b'{"a": "\\x"}', "not valid JSON"),
        (b'{"a": /* */ 1}', "not valid JSON"),
        (b"\xef\xbb\xbf{}", "not valid JSON"),
        (b"\xff", "not UTF-8"),
        (b'{"a": "\xc3"}', "not UTF-8"),
        (b'{"a": "\xed\xa0\x80"}', "not UTF-8"),
        (b'{"a": "\xc0\x80"}', "not UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
        ('{"a": 1}'.encode("utf-16-le"), "not valid JSON"),
        ('{"a": "é"}'.encode("latin-1"), "not UTF-8"),
        (b"[]", "must be a JSON object"),
        (b"[{}]", "must be a JSON object"),
        (b'"status"', "must be a JSON object"),
        (b"1", "must be a JSON object"),
        (b"1.5", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b"true", "must be a JSON object"),
        (b'{"action": "status", "action": "unlock"}', "same key twice"),
        (b'{"a": {"b": 1, "b": 1}}', "same key twice"),
        (b'{"a": [[{"b": 1, "\\u0062": 2}]]}', "same key twice"),
        (b'{"": 1, "": 2}', "same key twice"),
        (b'{"a": NaN}', "not finite"),
        (b'{"a": [Infinity]}', "not finite"),
        (b'{"a": {"b": -Infinity}}', "not finite"),
        (b"NaN", "not finite"),
        (b'{"a": 1e400}', "not finite"),
        (b'{"a": -1e400}', "not finite"),
        (b'{"a": 1' + b"0" * 400 + b".0}", "not finite"),
        (b'{"a": 18446744073709551616}', "beyond 64 bits"),
        (b'{"a": -9223372036854775809}', "beyond 64 bits"),
        (b'{"a": 1' + b"0" * 5_000 + b"}", "beyond 64 bits"),
        (b'{"a": "\\ud800"}', "half of a surrogate pair"),
        (b'{"a": "\\udfff"}', "half of a surrogate pair"),
        (b'{"a": "\\udc00\\ud800"}', "half of a surrogate pair"),
        (b'{"\\ud800": 1}', "half of a surrogate pair"),
        (b'{"a": [{"b": {"\\udbff": 1}}]}', "half of a surrogate pair"),
        (b'{"a": [["\\ud83d"]]}', "half of a surrogate pair"),
        (nested(MAX_DEPTH + 1), "deeper than 32"),
        (nested(100_000), "deeper than 32"),
        (b"[" * 100_000, "deeper than 32"),
        (b'{"a":' * 100_000, "deeper than 32"),
        (b'{"a": "\\"", "b": ' + b"[" * 40 + b"]" * 40 + b"}", "deeper than 32"),
    ],
    ids=lambda value: repr(value[:40]) if isinstance(value, bytes) else None,
)
def test_what_two_parsers_could_read_in_two_ways_is_refused_with_a_path(body: bytes, problem: str) -> None:
    path, said = refusal(body)
    assert path == WHOLE
    assert problem in said


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{}", {}),
        (b' \r\n\t{"a": 1} \n', {"a": 1}),
        (b'{"a": 18446744073709551615, "b": -9223372036854775808}', {"a": 2**64 - 1, "b": -(2**63)}),
        (b'{"a": 1.5e3, "b": -0.0, "c": 5e-324}', {"a": 1500.0, "b": 0.0, "c": 5e-324}),
        (b'{"a": "\\ud83d\\ude97", "\\u00e9": "\\u0000"}', {"a": "🚗", "é": "\0"}),
        ('{"a": "🚗"}'.encode(), {"a": "🚗"}),
        (b'{"a": "\\\\ud800"}', {"a": "\\ud800"}),
        (b'{"a": [{"b": 1}, {"b": 1}]}', {"a": [{"b": 1}, {"b": 1}]}),
        (b'{"a": "' + b"[" * 100 + b'"}', {"a": "[" * 100}),
        (b'{"a": "\\"' + b"{" * 100 + b'\\\\"}', {"a": '"' + "{" * 100 + "\\"}),
        (b'{"a": [' + b",".join([b"[]"] * 100) + b"]}", {"a": [[]] * 100}),
    ],
)
def test_everything_else_that_is_json_is_read_as_it_stands(body: bytes, expected: dict[str, Any]) -> None:
    assert wire.parse_object(body) == expected


def test_the_deepest_nesting_allowed_is_read() -> None:
    assert wire.parse_object(nested(MAX_DEPTH)) == json.loads(nested(MAX_DEPTH))


def test_brackets_in_strings_are_no_depth_even_where_many_stand_before_real_ones() -> None:
    body = b'{"a": "' + b"[" * 50 + b'", "b": ' + nested(MAX_DEPTH - 1) + b"}"
    assert wire.parse_object(body)["a"] == "[" * 50
    deeper = b'{"a": "' + b"]" * 50 + b'", "b": ' + nested(MAX_DEPTH) + b"}"
    assert "deeper" in refusal(deeper)[1]


@pytest.mark.parametrize("body", [nested(100_000), b'{"a": 1' + b"0" * 1_000_000 + b"}", b'{"a": "' + b"[" * 16_000])
def test_nothing_hostile_takes_long(body: bytes) -> None:
    began_s = time.perf_counter()
    refusal(body)
    assert time.perf_counter() - began_s < 2


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_no_bytes_lead_to_any_other_failure(body: bytes) -> None:
    _read_or_refuse(body)


@settings(max_examples=300)
@given(st.text(alphabet='{}[]":,\\ud8 019.eE+-NaInfitrulsy\n', max_size=80))
def test_nothing_that_resembles_json_leads_to_any_other_failure(text: str) -> None:
    _read_or_refuse(text.encode())


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(alphabet=st.characters(codec="utf-8"), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), inner)
    ),
    max_leaves=20,
)


@settings(max_examples=100)
@given(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), VALUES, max_size=4), st.booleans())
def test_every_object_is_read_back_as_it_was_written(written: dict[str, Any], escaped: bool) -> None:
    assert wire.parse_object(json.dumps(written, ensure_ascii=escaped).encode()) == written


@settings(max_examples=100)
@given(st.lists(st.sampled_from(["[{}]", '{{"a":{}}}']), min_size=25, max_size=40), st.text('[]{}"\\', max_size=20))
def test_depth_is_exact_whatever_the_mixture(levels: list[str], brackets: str) -> None:
    text = json.dumps(brackets)
    for level in levels:
        text = level.format(text)
    body = f'{{"a": {text}}}'.encode()
    if len(levels) + 1 > MAX_DEPTH:
        assert "deeper" in refusal(body)[1]
    else:
        assert wire.parse_object(body) == json.loads(body)


@settings(max_examples=100)
@given(st.dictionaries(st.sampled_from([*Envelope.model_fields, "wkn", "other"]), VALUES, max_size=5))
def test_any_object_is_an_envelope_or_is_refused_with_paths(fields: dict[str, Any]) -> None:
    body = json.dumps(fields).encode()
    try:
        wire.decode(request(body), MAX_BYTES)
    except ValidationFailed as refused:
        for field in refused.details["fields"]:
            assert field["path"]
            assert field["problem"]
            assert not field["problem"].startswith("Value error")


def _read_or_refuse(body: bytes) -> None:
    with contextlib.suppress(ValidationFailed):
        # What is read can be written again: no half surrogate, no NaN.
        assert isinstance(wire.parse_object(body), dict)
        json.dumps(wire.parse_object(body), allow_nan=False, ensure_ascii=False).encode()


# --- problems ---------------------------------------------------------------------------------------------------------


def test_every_bad_field_is_named_by_its_path() -> None:
    with pytest.raises(ValidationFailed) as refused:
        wire.envelope({"max_age_s": "1", "params": [], "unknown": 1, "region": "mars"})
    paths = {field["path"] for field in refused.value.details["fields"]}
    assert paths == {"max_age_s", "params", "unknown", "region"}
    assert refused.value.__cause__ is None


def test_a_contradiction_belongs_to_the_whole_request() -> None:
    with pytest.raises(ValidationFailed) as refused:
        wire.envelope({"fresh": True, "cache_only": True})
    assert refused.value.details["fields"] == [
        {"path": WHOLE, "problem": "`fresh` and `cache_only` contradict each other"}
    ]


def test_a_prefix_stands_before_every_path() -> None:
    with pytest.raises(ValidationError) as bad:
        Envelope.model_validate({"units": 1})
    assert [field["path"] for field in wire.problems(bad.value, "params", "0")] == ["params.0.units"]


SECRET = "planted-secret-3Qz"


@pytest.mark.parametrize(
    "fields",
    [
        {"email": "a@b.example", "password": SECRET + "x" * 300},
        {"email": SECRET + "@" + "x" * 300, "password": "right"},
        {"email": "a@b.example", "password": [SECRET]},
        {"email": "a@b.example", "password": {"p": SECRET}},
        {"password": SECRET},
        {"email": SECRET},
        {"email": "a@b.example", "password": SECRET, "account": "acc_" + "A" * 22},
        {"email": "a@b.example", "password": SECRET, "fresh": True, "cache_only": True},
        {"hcaptcha": SECRET * 1000},
        {"hcaptcha": [SECRET]},
        {"account": SECRET},
        {"vin": SECRET},
        {"wkn": SECRET},
        {"action": SECRET * 10},
        {"region": SECRET},
        {"units": SECRET},
        {"params": SECRET},
        {"max_age_s": SECRET},
        {"fresh": SECRET},
        {"wait_s": SECRET},
    ],
)
def test_no_error_body_ever_holds_a_value_that_was_sent(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationFailed) as refused:
        wire.decode(request(json.dumps(fields).encode()), 100_000)
    reply = wire.error_reply(refused.value, "req_1", NOW)
    assert SECRET.encode() not in reply.body
    assert SECRET not in repr(refused.value)


# --- replies ----------------------------------------------------------------------------------------------------------


def error_body(error: ApiError) -> Any:
    return json.loads(wire.error_reply(error, "req_1", NOW).body)["error"]


@pytest.mark.parametrize("leaf", list(errors.BY_CODE.values()), ids=lambda leaf: leaf.__name__)
def test_every_error_has_the_contracts_shape(leaf: type[ApiError]) -> None:
    reply = wire.error_reply(leaf(), "req_1", NOW)
    assert (reply.status, reply.content_type) == (leaf.status, "application/json")
    assert reply.headers["Cache-Control"] == "no-store"
    body = json.loads(reply.body)
    assert body["success"] is False
    assert body["error"] == {
        "code": leaf.code,
        "type": leaf.__name__,
        "message": leaf.summary,
        "details": {},
        "resolution": {"type": leaf.resolution.value},
        "retryable": leaf.retryable,
        "may_have_succeeded": False,
        "retry_after": None,
        "request_id": "req_1",
        "docs": f"docs/errors.md#{leaf.code.lower()}",
        "timestamp": "2026-01-01T12:00:00Z",
    }


def test_a_method_that_is_not_allowed_is_told_which_are() -> None:
    reply = wire.error_reply(errors.MethodNotAllowed(details={"allowed": ["GET", "HEAD"]}), "req_1", NOW)
    assert reply.headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize(("seconds", "shown"), [(0.1, 1), (0, 1), (-5, 1), (1, 1), (1.01, 2), (59.999, 60), (60, 60)])
def test_waiting_is_rounded_up_so_that_nobody_comes_too_early(seconds: float, shown: int) -> None:
    error = errors.RateLimitExceeded(retry_after_s=seconds)
    reply = wire.error_reply(error, "req_1", NOW)
    assert reply.headers["Retry-After"] == str(shown)
    assert json.loads(reply.body)["error"]["retry_after"] == shown


def test_without_a_time_there_is_no_retry_after() -> None:
    assert "Retry-After" not in wire.error_reply(UpstreamError(), "req_1", NOW).headers


def test_what_may_have_succeeded_is_never_retryable() -> None:
    assert error_body(UpstreamError())["retryable"] is True
    shown = error_body(UpstreamError(may_have_succeeded=True))
    assert (shown["retryable"], shown["may_have_succeeded"]) == (False, True)


class MakersBase(errors.ProviderError):
    """As a maker's package declares it."""


class MakersOwn(MakersBase, errors.ProviderBlocked):
    """As a maker's package declares it."""


def test_a_makers_own_class_is_shown_as_the_contracts() -> None:
    shown = error_body(MakersOwn())
    assert (shown["type"], shown["code"]) == ("ProviderBlocked", "PROVIDER_BLOCKED")


class OutsideTheTree(ApiError):
    """Declared elsewhere, with a code of its own."""

    code, status, resolution, summary = "ODD", 500, errors.Resolution.CONTACT_SUPPORT, "Odd."


def test_a_class_outside_the_tree_is_shown_by_its_own_name() -> None:
    assert error_body(OutsideTheTree())["type"] == "OutsideTheTree"


def test_times_are_shown_in_utc() -> None:
    east = datetime(2026, 1, 1, 14, tzinfo=timezone(timedelta(hours=2)))
    assert wire.error_payload(UpstreamError(), "req_1", east)["timestamp"] == NOW
    assert wire.encode({"at": NOW + timedelta(microseconds=5)}) == b'{"at":"2026-01-01T12:00:00Z"}'


def test_encoding_survives_numbers_that_json_cannot_say() -> None:
    assert json.loads(wire.encode({"a": math.nan, "b": math.inf, "c": "é"})) == {"a": None, "b": None, "c": "é"}


def test_half_a_surrogate_pair_in_a_makers_text_does_not_lose_the_reply() -> None:
    payload = MappingProxyType({"a": "x\ud800y", "b\udfff": [("\ud83d\ude97", 1, None)], "c": "🚗", "at": NOW})
    assert json.loads(wire.encode(payload)) == {
        "a": "x?y",
        "b?": [["??", 1, None]],
        "c": "🚗",
        "at": "2026-01-01T12:00:00Z",
    }


def test_what_is_no_json_at_all_is_a_defect_and_stays_one() -> None:
    with pytest.raises(TypeError):
        wire.encode({"a": object()})


def test_requests_and_replies_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        request(b"").body = b"x"  # type: ignore[misc]  # that is the point
    with pytest.raises(AttributeError):
        wire.Reply(200, b"").status = 500  # type: ignore[misc]  # that is the point
