"""Rows of issuers: what a setting says, and what it must not."""

import json
from typing import Any, cast

import pytest

from common.callers import Scope
from common.issuers import ALGORITHMS, Issuer, firebase, parse_issuers
from tests.test_layers import loaded_by

URL = "https://issuer.example"


def test_a_row_says_who_is_trusted_for_what() -> None:
    row = {
        "issuer": URL,
        "audience": ["app", "api"],
        "jwks_uri": "https://keys.example/jwks",
        "scopes": ["read", "command"],
        "scope_claim": "scope",
        "require_email_verified": False,
        "algorithms": ["ES256"],
    }
    assert parse_issuers(json.dumps([row])) == (
        Issuer(
            URL,
            ("app", "api"),
            "https://keys.example/jwks",
            frozenset({Scope.READ, Scope.COMMAND}),
            "scope",
            False,
            frozenset({"ES256"}),
        ),
    )


def test_what_a_row_leaves_out_is_the_least() -> None:
    (row,) = parse_issuers(json.dumps([{"issuer": URL, "audience": "app"}]))
    assert row == Issuer(URL, ("app",))
    assert (row.scopes, row.require_email_verified, row.jwks_uri) == (frozenset({Scope.READ}), True, None)
    assert row.algorithms == ALGORITHMS
    assert not any(name.startswith("HS") or name == "none" for name in row.algorithms)


def test_a_firebase_project_is_a_row_of_its_own() -> None:
    (row,) = parse_issuers('[{"firebase": "demo-project", "scopes": ["read", "location"]}]')
    assert row == firebase("demo-project", scopes=frozenset({Scope.READ, Scope.LOCATION}))
    assert row.issuer == "https://securetoken.google.com/demo-project"
    assert row.audience == ("demo-project",)
    assert row.jwks_uri == ("https://www.googleapis.com/service_accounts/v1/jwk/securetoken@system.gserviceaccount.com")
    assert (row.algorithms, row.firebase) == (frozenset({"RS256"}), True)


def test_no_rows_are_no_issuers() -> None:
    assert parse_issuers("[]") == ()


GOOD = {"issuer": URL, "audience": "app"}


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([{"issuer": URL}], "[0].audience: Field required"),
        ([GOOD | {"audience": []}], "[0].audience: at least one"),
        ([GOOD | {"audience": ""}], "[0].audience: at least one"),
        ([GOOD | {"audience": ["app", ""]}], "[0].audience: at least one"),
        ([GOOD | {"audience": [1]}], "[0].audience.0: "),
        ([{"audience": "app"}], "[0].issuer: Field required"),
        ([GOOD | {"issuer": "http://issuer.example"}], "[0].issuer: an https URL"),
        ([GOOD | {"issuer": "issuer.example"}], "[0].issuer: an https URL"),
        ([GOOD | {"issuer": "https://"}], "[0].issuer: an https URL"),
        ([GOOD | {"issuer": "https://[::1"}], "[0].issuer: an https URL"),
        ([GOOD | {"issuer": "https://issuer.example:99999"}], "[0].issuer: an https URL"),
        ([GOOD | {"issuer": "https://user:pw@issuer.example"}], "[0].issuer: an https URL"),
        ([GOOD | {"issuer": "https://issuer.example/a|b"}], "[0].issuer: an https URL"),
        ([GOOD | {"issuer": "https://issuer.example/a b"}], "[0].issuer: an https URL"),
        ([GOOD | {"issuer": "https://issuer.example\n"}], "[0].issuer: an https URL"),
        ([GOOD | {"issuer": "https://issuer.example?x"}], "[0].issuer: has no query"),
        ([GOOD | {"issuer": "https://issuer.example#x"}], "[0].issuer: has no query"),
        ([GOOD | {"issuer": "ftp://127.0.0.1"}], "[0].issuer: an https URL"),
        ([GOOD | {"jwks_uri": "http://issuer.example/jwks"}], "[0].jwks_uri: an https URL"),
        ([GOOD | {"jwks_uri": "http://127.0.0.1/jwks"}], "[0].jwks_uri: an https URL"),
        ([GOOD | {"jwks_uri": "file:///etc/passwd"}], "[0].jwks_uri: an https URL"),
        ([GOOD | {"scopes": []}], "[0].scopes: at least one"),
        ([GOOD | {"scopes": ["read", "everything"]}], "[0].scopes.1: "),
        ([GOOD | {"scopes": "read"}], "[0].scopes: "),
        ([GOOD | {"scope_claim": ""}], "[0].scope_claim: a claim"),
        ([GOOD | {"require_email_verified": "no"}], "[0].require_email_verified: "),
        ([GOOD | {"algorithms": ["HS256"]}], "[0].algorithms: at least one of"),
        ([GOOD | {"algorithms": ["none"]}], "[0].algorithms: at least one of"),
        ([GOOD | {"algorithms": []}], "[0].algorithms: at least one of"),
        ([GOOD | {"audiences": "app"}], "[0].audiences: Extra"),
        ([GOOD, GOOD | {"audience": "other"}], "[1].issuer: a second row"),
        ([GOOD, {"firebase": "Not A Project"}], "[1].firebase: "),
        ([{"firebase": "demo-project", "audience": "app"}], "[0].audience: Extra"),
        (["issuer"], "[0]: "),
        ({"issuer": URL}, "must be a JSON list"),
    ],
)
def test_a_bad_row_is_named_by_its_place(rows: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=r".") as bad:
        parse_issuers(json.dumps(rows))
    assert str(bad.value).startswith(problem)
    assert bad.value.__suppress_context__ or bad.value.__context__ is None


@pytest.mark.parametrize("text", ["", "{", '[{"issuer": "a", "issuer": "b"}]', "[NaN]", "null"])
def test_what_is_no_list_is_no_setting(text: str) -> None:
    with pytest.raises(ValueError, match="must be a JSON list of objects"):
        parse_issuers(text)


@pytest.mark.parametrize("field", ["issuer", "audience", "jwks_uri", "scopes", "require_email_verified", "algorithms"])
def test_a_problem_never_shows_the_value(field: str) -> None:
    with pytest.raises(ValueError, match=rf"^\[0\]\.{field}") as bad:
        parse_issuers(json.dumps([GOOD | {field: {"hush": "s3cret"}}]))
    assert "s3cret" not in str(bad.value)


def test_an_audience_that_is_a_string_is_not_a_tuple_of_its_letters() -> None:
    with pytest.raises(ValueError, match="audience: a tuple"):
        Issuer(URL, cast("tuple[str, ...]", "app"))


def test_a_firebase_row_needs_a_project() -> None:
    with pytest.raises(ValueError, match="firebase: a project id"):
        firebase("../another")


@pytest.mark.parametrize("origin", ["http://127.0.0.1:8080", "http://localhost:8080", "http://[::1]:8080"])
def test_plain_http_is_for_this_machine(origin: str) -> None:
    row = Issuer(origin, ("app",))
    assert row.keys_url(origin + "/jwks") == origin + "/jwks"


@pytest.mark.parametrize("found", [None, 1, "", "http://keys.example/jwks", "http://127.0.0.1/jwks", "file:///keys"])
def test_a_real_issuers_keys_come_by_https(found: object) -> None:
    with pytest.raises(ValueError, match="jwks_uri"):
        Issuer(URL, ("app",)).keys_url(found)


@pytest.mark.parametrize("issuer", [f"{URL}/tenant", f"{URL}/tenant/"])
def test_the_discovery_document_is_below_the_issuers_path(issuer: str) -> None:
    assert Issuer(issuer, ("app",)).discovery_url == f"{URL}/tenant/.well-known/openid-configuration"


def test_reading_rows_loads_no_cryptography() -> None:
    loaded = loaded_by("import common.issuers")
    assert not {"jwt", "cryptography", "httpx"} & set(loaded)
