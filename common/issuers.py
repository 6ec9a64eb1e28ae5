"""Whose ID tokens a deployment accepts: rows, and the setting that they are read from.

Cheap to import: nothing here verifies anything.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, ValidationError

from common.callers import Scope
from common.strict_json import parse

ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"})
"""Signatures that only the holder of a private key can make. Never HS*: its key is as public as ours to verify."""
READ_ONLY = frozenset({Scope.READ})

_FIREBASE_ISSUER = "https://securetoken.google.com/"
_FIREBASE_KEYS = "https://www.googleapis.com/service_accounts/v1/jwk/securetoken@system.gserviceaccount.com"
_PROJECT_ID = r"^[a-z0-9][a-z0-9.:-]{1,61}[a-z0-9]$"
_URL = re.compile(r"https?://[!-{}~]+")
"""Printable ASCII without blanks, and without ``|``, which ends the issuer in a principal."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """One issuer and what its tokens are good for. Raises ValueError, naming the field."""

    issuer: str
    """Its identifier, to the letter as in the tokens' ``iss``. An https URL; http is for loopback, in tests."""
    audience: tuple[str, ...]
    """Whom a token must be meant for: every ``aud`` of a token must be one of these."""
    jwks_uri: str | None = None
    """Where its keys are; None asks its discovery document."""
    scopes: frozenset[Scope] = READ_ONLY
    """The most that any of its tokens may do."""
    scope_claim: str | None = None
    """The claim whose names narrow ``scopes`` down for one token; None: each token may do all of ``scopes``."""
    require_email_verified: bool = True
    """Refuse a token that carries an ``email`` without ``email_verified: true``."""
    algorithms: frozenset[str] = ALGORITHMS
    """The signature algorithms that it may use, of ALGORITHMS."""
    firebase: bool = False
    """Firebase's own rules: ``auth_time`` is there and past, and anonymous sign-in is nobody."""

    def __post_init__(self) -> None:
        check_url("issuer", self.issuer)
        if "?" in self.issuer or "#" in self.issuer:
            raise ValueError("issuer: has no query and no fragment")
        if not self.audience or not all(self.audience):
            raise ValueError("audience: at least one name, none of them empty")
        if isinstance(self.audience, str):  # which would be a tuple of its letters
            raise ValueError("audience: a tuple of names")  # noqa: TRY004 - a bad setting is a bad value
        if self.jwks_uri is not None:
            check_url("jwks_uri", self.jwks_uri, loopback=_is_loopback(self.issuer))
        if not self.scopes:
            raise ValueError("scopes: at least one")
        if self.scope_claim == "":
            raise ValueError("scope_claim: a claim's name")
        if not self.algorithms or not self.algorithms <= ALGORITHMS:
            raise ValueError(f"algorithms: at least one of {', '.join(sorted(ALGORITHMS))}")

    @property
    def discovery_url(self) -> str:
        """Where its discovery document is."""
        return self.issuer.removesuffix("/") + "/.well-known/openid-configuration"

    def keys_url(self, found: object) -> str:
        """``found``, the ``jwks_uri`` of its discovery document, if keys may be fetched there; or ValueError."""
        if not isinstance(found, str):
            raise ValueError("jwks_uri: missing in the discovery document")  # noqa: TRY004 - it is bad data
        return check_url("jwks_uri", found, loopback=_is_loopback(self.issuer))


def firebase(
    project_id: str,
    *,
    scopes: frozenset[Scope] = READ_ONLY,
    scope_claim: str | None = None,
    require_email_verified: bool = True,
) -> Issuer:
    """The row for the ID tokens of a Firebase project."""
    if not re.match(_PROJECT_ID, project_id):
        raise ValueError("firebase: a project id")
    return Issuer(
        _FIREBASE_ISSUER + project_id,
        (project_id,),
        _FIREBASE_KEYS,
        scopes,
        scope_claim,
        require_email_verified,
        frozenset({"RS256"}),
        firebase=True,
    )


def parse_issuers(text: str) -> tuple[Issuer, ...]:
    """Rows from a JSON list of objects with the fields of Issuer, or of ``{"firebase": "project-id"}``.

    ``audience`` may be one name. Raises ValueError that names the place, such as ``[0].audience``, and no value.
    """
    try:
        rows = parse(text)
    except ValueError as bad:
        raise ValueError(f"must be a JSON list of objects; this {bad}") from None
    if not isinstance(rows, list):
        raise ValueError("must be a JSON list of objects")  # noqa: TRY004 - a bad setting is a bad value
    issuers: dict[str, Issuer] = {}
    for index, row in enumerate(rows):
        try:
            issuer = _parse_row(row)
            if issuer.issuer in issuers:
                raise ValueError("issuer: a second row of the same issuer")  # noqa: TRY301 - gets its place below
        except ValidationError as bad:
            raise ValueError("; ".join(_problem(index, error) for error in bad.errors())) from None
        except ValueError as bad:
            raise ValueError(f"[{index}].{bad}") from None
        issuers[issuer.issuer] = issuer
    return tuple(issuers.values())


def check_url(name: str, url: str, *, loopback: bool = True) -> str:
    """``url`` itself, if keys may be fetched from there; otherwise ValueError, naming the field ``name``.

    https; with ``loopback`` also http to this machine, which is for tests.
    """
    problem = ValueError(f"{name}: an https URL without credentials")
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises where it is none
    except ValueError:
        raise problem from None
    if not _URL.fullmatch(url) or not parts.hostname or "@" in parts.netloc:
        raise problem
    if parts.scheme != "https" and not (loopback and _is_loopback(url)):
        raise problem
    return url


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _parse_row(row: object) -> Issuer:
    if isinstance(row, dict) and "firebase" in row:
        project = _FirebaseRow.model_validate(row)
        return firebase(project.firebase, **_shared(project))
    plain = _IssuerRow.model_validate(row)
    return Issuer(
        plain.issuer, plain.audience, plain.jwks_uri, algorithms=frozenset(plain.algorithms), **_shared(plain)
    )


def _shared(row: "_Row") -> dict[str, Any]:
    return {
        "scopes": frozenset(row.scopes),
        "scope_claim": row.scope_claim,
        "require_email_verified": row.require_email_verified,
    }


def _problem(index: int, error: Any) -> str:  # noqa: ANN401 - pydantic's own record
    place = ".".join([f"[{index}]", *map(str, error["loc"])])
    return f"{place}: {error['msg']}"


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    scopes: tuple[Scope, ...] = tuple(READ_ONLY)
    scope_claim: str | None = None
    require_email_verified: StrictBool = True


class _FirebaseRow(_Row):
    firebase: Annotated[str, Field(pattern=_PROJECT_ID)]


class _IssuerRow(_Row):
    issuer: str
    audience: Annotated[tuple[str, ...], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]
    jwks_uri: str | None = None
    algorithms: tuple[str, ...] = tuple(ALGORITHMS)
