"""The checks of a token by themselves; test_oidc.py has the forgeries."""

import json
from typing import Any

import pytest

from common.callers import Scope
from common.id_token import Claimed, Reason, Refused, check_claims, check_signature, principal_of, read, scopes_of
from common.issuers import Issuer
from common.jwks import usable_keys
from sandbox.issuer import new_key, segment, signed

ROW = Issuer("https://issuer.example", ("app",))
GOOD: dict[str, Any] = {"iss": ROW.issuer, "aud": "app", "sub": "auth0|7", "exp": 2_000}
KEY = new_key("key-1")
JWKS = json.dumps({"keys": [KEY.jwk()]}).encode()
HEADER = {"alg": "ES256", "kid": "key-1"}


def test_claims_are_judged_by_the_time_that_is_given() -> None:
    check_claims(GOOD, ROW, now_s=1_999.9, leeway_s=60)
    with pytest.raises(Refused) as refused:
        check_claims(GOOD, ROW, now_s=2_000, leeway_s=60)
    assert refused.value.reason is Reason.EXPIRED


@pytest.mark.parametrize(
    "name", ["https://another.example", "https://issuer.example/", None, ["https://issuer.example"]]
)
def test_claims_are_judged_by_their_own_issuers_row_only(name: object) -> None:
    with pytest.raises(Refused) as refused:
        check_claims(GOOD | {"iss": name}, ROW, now_s=1_000, leeway_s=60)
    assert refused.value.reason is Reason.ISSUER


@pytest.mark.parametrize("moment", ["iat", "nbf", "auth_time"])
@pytest.mark.parametrize("value", [True, "1000", None, [], {}])
def test_a_moment_is_a_number(moment: str, value: object) -> None:
    with pytest.raises(Refused) as refused:
        check_claims(GOOD | {moment: value}, ROW, now_s=1_000, leeway_s=60)
    assert refused.value.reason is Reason.MALFORMED


@pytest.mark.parametrize("subject", ["x" * 255, "auth0|7", "a b", "~"])
def test_a_subject_is_what_the_standard_allows(subject: str) -> None:
    check_claims(GOOD | {"sub": subject}, ROW, now_s=1_000, leeway_s=60)
    assert principal_of(GOOD | {"sub": subject}) == f"https://issuer.example|{subject}"


def test_scopes_are_the_rows_unless_a_claim_narrows_them() -> None:
    both = frozenset({Scope.READ, Scope.UNLOCK})
    assert scopes_of({"scp": "read"}, Issuer(ROW.issuer, ("app",), scopes=both)) == both
    narrowed = Issuer(ROW.issuer, ("app",), scopes=both, scope_claim="scp")
    assert scopes_of({"scp": "read admin"}, narrowed) == {Scope.READ}


def test_a_token_read_is_not_a_token_believed() -> None:
    stranger = new_key("key-1")
    claimed = read(signed(HEADER, GOOD, stranger))
    assert (claimed.kid, claimed.algorithm, claimed.claims) == ("key-1", "ES256", GOOD)
    trusted = next(iter(usable_keys(JWKS).values()))
    with pytest.raises(Refused) as refused:
        check_signature(claimed, trusted)
    assert refused.value.reason is Reason.SIGNATURE
    check_signature(read(signed(HEADER, GOOD, KEY)), trusted)


def test_the_algorithm_is_the_keys_and_not_the_tokens() -> None:
    trusted = next(iter(usable_keys(JWKS).values()))
    good = signed(HEADER, GOOD, KEY)
    with pytest.raises(Refused):
        check_signature(Claimed(good, "RS256", "key-1", GOOD), trusted)


def test_a_token_is_not_shown() -> None:
    token = signed(HEADER, GOOD, KEY)
    shown = repr(read(token))
    assert token not in shown
    assert "auth0|7" not in shown
    assert segment(GOOD) not in shown
