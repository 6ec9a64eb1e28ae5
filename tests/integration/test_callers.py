"""Callers at the whole service: by API key, by ID token, and nobody else."""

import json
from collections.abc import Iterator
from datetime import timedelta

import pytest

from common.callers import ALL_SCOPES, Scope
from common.clock import ManualClock
from ops.keys_book import KeyBook
from sandbox.issuer import AUDIENCE, JWKS, Answer, SimulatedIssuer
from tests.integration.conftest import Api, MakeApi

READ = frozenset({Scope.READ})


@pytest.fixture
def issuer(clock: ManualClock) -> Iterator[SimulatedIssuer]:
    with SimulatedIssuer(clock) as running:
        yield running


def issued(
    api: Api, clock: ManualClock, scopes: frozenset[Scope] = ALL_SCOPES, valid_for: timedelta | None = None
) -> tuple[str, str]:
    """A new API key and its id."""
    book = KeyBook(api.app.documents, clock)
    made = api.app.loop.submit(book.issue("test", scopes, valid_for=valid_for)).result(5)
    return made.text, made.record.id


@pytest.fixture
def api(make_api: MakeApi, clock: ManualClock, issuer: SimulatedIssuer) -> Api:
    row = {"issuer": issuer.origin, "audience": [AUDIENCE], "scopes": ["read", "account"], "scope_claim": "scope"}
    return make_api(clock, callers=("api_keys", "oidc"), oidc_issuers=json.dumps([row]))


def code(api: Api, headers: dict[str, str]) -> str | None:
    answered = api.post(headers, action="accounts")
    return None if answered.status == 200 else answered.error["code"]


def test_an_api_key_lets_in_until_it_is_revoked_or_ends(api: Api, clock: ManualClock) -> None:
    text, key_id = issued(api, clock)
    brief, _ = issued(api, clock, valid_for=timedelta(minutes=5))
    assert code(api, {"x-api-key": text}) is None
    assert code(api, {"x-api-key": brief}) is None
    api.app.loop.submit(KeyBook(api.app.documents, clock).revoke(key_id)).result(5)
    clock.advance(31)
    assert code(api, {"x-api-key": text}) == "CALLER_UNAUTHENTICATED"
    assert code(api, {"x-api-key": brief}) is None
    clock.advance(270)
    assert code(api, {"x-api-key": brief}) == "CALLER_UNAUTHENTICATED"


def test_a_key_may_do_what_it_was_made_for_and_nothing_else(api: Api, clock: ManualClock) -> None:
    text, _ = issued(api, clock, READ)
    refused = api.post({"x-api-key": text}, action="accounts")
    assert (refused.status, refused.error["code"]) == (403, "INSUFFICIENT_SCOPE")
    assert refused.error["details"] == {"scope": "account"}


def test_an_id_token_lets_in_its_subject_with_the_scopes_that_issuer_and_token_agree_on(
    api: Api, issuer: SimulatedIssuer
) -> None:
    assert code(api, {"authorization": f"Bearer {issuer.token(scope='read account')}"}) is None
    assert code(api, {"authorization": f"Bearer {issuer.token(scope='read')}"}) == "INSUFFICIENT_SCOPE"
    assert code(api, {"authorization": f"Bearer {issuer.token(aud='other')}"}) == "CALLER_UNAUTHENTICATED"


def test_two_subjects_are_two_callers_who_see_nothing_of_each_other(api: Api, issuer: SimulatedIssuer) -> None:
    first, second = [
        {"authorization": f"Bearer {issuer.token(sub=sub, scope='read account')}"} for sub in ("user-1", "user-2")
    ]
    form = {"action": "connect", "email": "one@example.com", "password": "demo-password", "hcaptcha": "oidc-1"}
    account = api.post(first, **form).result["account"]
    assert api.post(first, action="status", account=account).status == 200
    assert api.post(second, action="status", account=account).error["code"] == "ACCOUNT_NOT_FOUND"
    assert api.post(second, action="accounts").result["count"] == 0


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-api-key": ""},
        {"x-api-key": "draiv_" + "A" * 73},
        {"authorization": "Bearer x"},
        {"authorization": "Basic dXNlcjpwYXNz"},
        {"authorization": ""},
        {"x-serverless-authorization": "Bearer x"},
    ],
)
def test_everybody_else_is_refused_in_the_same_way(api: Api, headers: dict[str, str]) -> None:
    refused = api.post(headers, action="accounts")
    assert (refused.status, refused.error["code"]) == (401, "CALLER_UNAUTHENTICATED")
    assert refused.headers["WWW-Authenticate"].startswith("Bearer")
    assert "RateLimit" not in refused.headers


def test_the_platforms_own_token_says_nothing_about_who_calls(api: Api, issuer: SimulatedIssuer) -> None:
    genuine = f"Bearer {issuer.token(scope='read account')}"
    stripped = genuine.rpartition(".")[0] + ".SIGNATURE_REMOVED_BY_GOOGLE"
    assert code(api, {"x-serverless-authorization": genuine}) == "CALLER_UNAUTHENTICATED"
    assert code(api, {"authorization": stripped}) == "CALLER_UNAUTHENTICATED"
    assert code(api, {"x-serverless-authorization": stripped, "authorization": genuine}) is None


def test_one_request_has_one_caller(api: Api, clock: ManualClock, issuer: SimulatedIssuer) -> None:
    text, _ = issued(api, clock)
    both = {"x-api-key": text, "authorization": f"Bearer {issuer.token(scope='read account')}"}
    assert code(api, both) == "CALLER_UNAUTHENTICATED"


def test_an_issuer_out_of_reach_is_no_refusal(api: Api, issuer: SimulatedIssuer) -> None:
    issuer.replies[JWKS] = Answer(status=503)
    answered = api.post({"authorization": f"Bearer {issuer.token()}"}, action="accounts")
    assert (answered.status, answered.error["code"]) == (503, "IDENTITY_UNAVAILABLE")
    assert answered.error["retryable"] is True


def test_why_tokens_are_refused_and_keys_are_missing_is_counted(api: Api, issuer: SimulatedIssuer) -> None:
    issuer.replies[JWKS] = Answer(status=503)
    code(api, {"authorization": f"Bearer {issuer.token()}"})
    code(api, {"authorization": "Bearer nonsense"})
    text = api.get("/metrics").body.decode()
    assert 'draiv_issuer_key_fetches_total{outcome="failed"} 1.0' in text
    assert 'draiv_id_tokens_refused_total{reason="malformed"} 1.0' in text
