"""What must be true of an ID token (OpenID Connect Core, 3.1.3.7; RFC 8725). Pure: no I/O, no clock, no keys but given.

A token is checked from the cheap to the dear: shape, header, claims, and the signature last, so that only what could
be genuine costs a look at the issuer's keys. Until :func:`check_signature` has passed, nothing of it may be believed.

Of the header only ``alg``, ``kid`` and ``typ`` are read. Keys that a token brings along or points to (``jwk``,
``jku``, ``x5c``, ``x5u``) are never looked at, and an extension that it calls critical (``crit``) is one we lack.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from jwt import PyJWK
from jwt.api_jws import PyJWS
from jwt.exceptions import PyJWTError

from common.callers import Scope
from common.issuers import ALGORITHMS, Issuer
from common.strict_json import parse_object

MAX_TOKEN_CHARS = 8_192
MAX_HEADER_CHARS = 2_048
MAX_KID_CHARS = 256

_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_SUBJECT = re.compile(r"[ -~]{1,255}")
"""ASCII, at most 255 characters: OpenID Connect Core, 2."""
_TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})
"""``typ`` of a token that speaks for a caller. An issuer signs others too, such as ``logout+jwt``."""
_REMOVED = "SIGNATURE_REMOVED_BY_GOOGLE"
"""What Cloud Run puts in place of a signature that it has checked: whoever can skip it could write this himself."""
_JWS = PyJWS(algorithms=sorted(ALGORITHMS))


class Reason(StrEnum):
    """Why a token was refused: for our metrics, never for the caller."""

    MISSING = "missing"
    MALFORMED = "malformed"
    TYPE = "type"
    ALGORITHM = "algorithm"
    CRITICAL = "critical"
    ISSUER = "issuer"
    AUDIENCE = "audience"
    EXPIRED = "expired"
    NOT_YET = "not_yet"
    SUBJECT = "subject"
    EMAIL = "email"
    ANONYMOUS = "anonymous"
    KEY = "key"
    SIGNATURE = "signature"


class Refused(Exception):
    """The token speaks for nobody."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a token says, believed or not."""

    token: str = field(repr=False)
    algorithm: str
    kid: str
    claims: Mapping[str, Any] = field(repr=False)


def read(token: str) -> Claimed:
    """Take a token apart. Raises Refused for its shape or its header."""
    if len(token) > MAX_TOKEN_CHARS or not _COMPACT.fullmatch(token):
        raise Refused(Reason.MALFORMED)
    head, body, signature = token.split(".")
    if len(head) > MAX_HEADER_CHARS:
        raise Refused(Reason.MALFORMED)
    if signature == _REMOVED:
        raise Refused(Reason.SIGNATURE)
    header = _parse(head)
    algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if "crit" in header or "b64" in header:
        raise Refused(Reason.CRITICAL)
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise Refused(Reason.ALGORITHM)
    if not isinstance(kid, str) or len(kid) > MAX_KID_CHARS:
        raise Refused(Reason.KEY)
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise Refused(Reason.TYPE)
    return Claimed(token, algorithm, kid, _parse(body))


def check_claims(claims: Mapping[str, Any], issuer: Issuer, now_s: float, leeway_s: float) -> None:
    """Whether the claims let somebody in now, ``now_s`` in Unix seconds; ``leeway_s`` is for clocks that run ahead.

    The leeway applies to what must be past, not to ``exp``. Raises Refused.
    """
    if claims.get("iss") != issuer.issuer:
        raise Refused(Reason.ISSUER)
    # All of them: any other recipient of the token could use it here too.
    audience = claims.get("aud")
    names = audience if isinstance(audience, list) else [audience]
    if not names or not all(name in issuer.audience for name in names):
        raise Refused(Reason.AUDIENCE)
    if now_s >= expires_at_s(claims):
        raise Refused(Reason.EXPIRED)
    for name in ("iat", "nbf", "auth_time"):
        if name in claims and _seconds(claims, name) > now_s + leeway_s:
            raise Refused(Reason.NOT_YET)
    subject = claims.get("sub")
    if not isinstance(subject, str) or not _SUBJECT.fullmatch(subject) or not subject.strip():
        raise Refused(Reason.SUBJECT)
    # A logout token is the issuer's word that somebody has left.
    if "events" in claims:
        raise Refused(Reason.TYPE)
    if issuer.require_email_verified and "email" in claims and claims.get("email_verified") is not True:
        raise Refused(Reason.EMAIL)
    if issuer.firebase:
        _check_firebase(claims)


def _check_firebase(claims: Mapping[str, Any]) -> None:
    _seconds(claims, "iat")
    _seconds(claims, "auth_time")
    details = claims.get("firebase")
    # Anybody can have any number of these without as much as an address.
    if isinstance(details, dict) and details.get("sign_in_provider") == "anonymous":
        raise Refused(Reason.ANONYMOUS)


def check_signature(claimed: Claimed, key: PyJWK) -> None:
    """Whether ``key``, which knows its one algorithm, has signed the token. Raises Refused."""
    try:
        _JWS.decode_complete(claimed.token, key, algorithms=[claimed.algorithm])
    except PyJWTError:
        raise Refused(Reason.SIGNATURE) from None


def expires_at_s(claims: Mapping[str, Any]) -> float:
    """``exp``, Unix seconds. Raises Refused where it is missing or no number."""
    return _seconds(claims, "exp")


def principal_of(claims: Mapping[str, Any]) -> str:
    """Who it is: ``iss|sub``. Never the email address, which changes hands."""
    return f"{claims['iss']}|{claims['sub']}"


def scopes_of(claims: Mapping[str, Any], issuer: Issuer) -> frozenset[Scope]:
    """What the token allows: the row's scopes, or those of them that its claim names, which may be none."""
    if issuer.scope_claim is None:
        return issuer.scopes
    named = claims.get(issuer.scope_claim)
    names = named.split() if isinstance(named, str) else named if isinstance(named, list) else []
    return frozenset(scope for scope in issuer.scopes if scope.value in names)


def _parse(segment: str) -> dict[str, Any]:
    try:
        return parse_object(base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))
    except (binascii.Error, ValueError):
        raise Refused(Reason.MALFORMED) from None


def _seconds(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refused(Reason.MALFORMED)
    return value
