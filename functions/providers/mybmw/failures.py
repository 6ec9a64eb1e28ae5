"""What goes wrong at BMW, and the tables that turn it into errors of the service.

::

    ProviderError
    `-- BMWAPIError              the base: what this maker's breaker expects
        |-- BMWBlocked           + ProviderBlocked       489: third parties are refused
        |-- BMWQuotaExceeded     + QuotaLimitExceeded    429, or 403 that speaks of a quota
        |-- BMWCaptchaRequired   + CaptchaRequired       a login without a captcha, or whose captcha is refused
        |-- BMWCredentialsRefused+ AuthenticationFailed  a login refused, or 403
        |-- BMWRelinkRequired    + RelinkRequired        401 with tokens that were renewed a moment ago
        |-- BMWCommandRefused    + RemoteServiceError    any other 4xx to a command
        |-- BMWTimeout           + UpstreamTimeout
        |-- BMWInvalidReply      + UpstreamInvalid       not the JSON that was asked for
        |-- BMWMisunderstood     + UpstreamError         a login or renewal that BMW or our own client does not take
        `-- BMWUnavailable       + UpstreamError         5xx, connections that break, all else

Outside the tree: ``InvalidGrant`` (a refresh token that is dead, :mod:`functions.tokens`) and ``VehicleNotFound``.
Messages are ours; what BMW wrote is read for its markers and never repeated.
"""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import Enum

import httpx
from bimmer_connected.models import (
    MyBMWAPIError,
    MyBMWAuthError,
    MyBMWCaptchaMissingError,
    MyBMWQuotaError,
    MyBMWRemoteServiceError,
)

# The library decodes China's access token with PyJWT and lets its errors escape.
from jwt import PyJWTError

from common.errors import (
    AuthenticationFailed,
    CaptchaRequired,
    ProviderBlocked,
    ProviderError,
    QuotaLimitExceeded,
    RelinkRequired,
    RemoteServiceError,
    UpstreamError,
    UpstreamInvalid,
    UpstreamTimeout,
    VehicleNotFound,
    Vote,
)
from functions.tokens import InvalidGrant


class BMWAPIError(ProviderError):
    """Base of BMW's failures. Declares nothing: each leaf takes code, status and vote from the service's tree."""


class BMWBlocked(BMWAPIError, ProviderBlocked):
    """HTTP 489: BMW answers third parties so since 2025-09-29."""

    summary = "BMW refuses third-party access to the MyBMW API."


class BMWQuotaExceeded(BMWAPIError, QuotaLimitExceeded):
    """BMW's own limit; ``retry_after_s`` where BMW said when it ends."""

    summary = "BMW's request quota is used up."


class BMWCaptchaRequired(BMWAPIError, CaptchaRequired):
    """A first login outside China needs an hCaptcha token, which works once and for a short time."""


class BMWCredentialsRefused(BMWAPIError, AuthenticationFailed):
    """BMW refuses a used captcha in the same words as a wrong password, so this may mean either."""

    summary = "BMW refused the login: the username, the password or the hCaptcha token (which works once) is wrong."


class BMWRelinkRequired(BMWAPIError, RelinkRequired):
    """The access token is refused although it has just been renewed."""


class BMWCommandRefused(BMWAPIError, RemoteServiceError):
    """BMW did not take the command."""

    summary = "BMW refused the command."


class BMWTimeout(BMWAPIError, UpstreamTimeout):
    """BMW did not answer in time."""


class BMWInvalidReply(BMWAPIError, UpstreamInvalid):
    """BMW answered something that is not what was asked for."""


class BMWMisunderstood(BMWAPIError, UpstreamError):
    """One account's login or renewal cannot be put to BMW, or is refused for a reason that we do not know.

    Says nothing about BMW's health: what one user types must never open the circuit for the others.
    """

    vote = Vote.NONE
    summary = "BMW did not accept the login or renewal."


class BMWUnavailable(BMWAPIError, UpstreamError):
    """BMW failed, or the connection to it."""


class Stage(Enum):
    """What a request is for: the same status means different things."""

    LOGIN = "login"
    """Carries the user's password, or stands for it."""
    REFRESH = "refresh"
    """Carries a refresh token."""
    HANDSHAKE = "handshake"
    """A step of a login or refresh that says nothing of the user: configuration, keys, codes."""
    PICTURE = "picture"
    """China's captcha, which is asked for with the user's number."""
    READ = "read"
    VEHICLE = "vehicle"
    """A read about one car."""
    EVENT = "event"
    """A question about a sent command."""
    COMMAND = "command"


_ALL = frozenset(Stage)
_FORBIDDEN = frozenset({400, 401, 403, 422})
_CLIENT_ERRORS = frozenset(range(400, 500))
_SERVER_ERRORS = frozenset(range(500, 600))
_ABOUT_ONE_USER = _CLIENT_ERRORS - {404, 408, 425}
_DEAD_GRANT = frozenset({"invalid_grant"})
"""The refresh token itself is dead. All else may be BMW's passing trouble, or ours, and must not cost a link."""
_BAD_LOGIN = frozenset({"invalid_grant", "invalid_client", "invalid_token", "unauthorized_client", "access_denied"})


@dataclass(frozen=True, slots=True)
class _Rule:
    """One line of the table: everything that is given must match."""

    failure: type[Exception]
    statuses: frozenset[int]
    stages: frozenset[Stage] = _ALL
    marker: str = ""
    """In the body, in lower case."""
    oauth_errors: frozenset[str] = frozenset()
    """One of these is the body's OAuth ``error``."""
    message: str | None = None


_STATUSES = (
    _Rule(BMWBlocked, frozenset({489})),
    _Rule(BMWQuotaExceeded, frozenset({429})),
    _Rule(BMWQuotaExceeded, frozenset({403}), marker="quota"),
    _Rule(InvalidGrant, frozenset({400, 401}), frozenset({Stage.REFRESH}), oauth_errors=_DEAD_GRANT),
    _Rule(BMWCaptchaRequired, _FORBIDDEN, frozenset({Stage.LOGIN}), marker="captcha"),
    _Rule(BMWCredentialsRefused, frozenset({401, 403, 422}), frozenset({Stage.LOGIN})),
    _Rule(BMWCredentialsRefused, frozenset({400}), frozenset({Stage.LOGIN}), oauth_errors=_BAD_LOGIN),
    _Rule(BMWMisunderstood, _ABOUT_ONE_USER, frozenset({Stage.LOGIN, Stage.REFRESH, Stage.PICTURE})),
    _Rule(VehicleNotFound, frozenset({404}), frozenset({Stage.VEHICLE})),
    _Rule(BMWCommandRefused, frozenset({404}), frozenset({Stage.EVENT}), message="BMW does not know that command."),
    _Rule(
        BMWCredentialsRefused,
        frozenset({403}),
        frozenset({Stage.READ, Stage.VEHICLE, Stage.EVENT}),
        message="BMW denies this account access.",
    ),
    _Rule(BMWCommandRefused, _CLIENT_ERRORS, frozenset({Stage.COMMAND})),
    _Rule(BMWUnavailable, _CLIENT_ERRORS | _SERVER_ERRORS),
)
"""First match counts; what is no error status and yet not a success is an invalid reply."""

_EXCEPTIONS: tuple[tuple[type[Exception], type[BMWAPIError]], ...] = (
    (httpx.TimeoutException, BMWTimeout),
    (httpx.DecodingError, BMWInvalidReply),
    (httpx.LocalProtocolError, BMWMisunderstood),  # a header that cannot be sent
    (UnicodeEncodeError, BMWMisunderstood),  # the same
    (httpx.HTTPError, BMWUnavailable),
    (httpx.InvalidURL, BMWInvalidReply),
    (MyBMWQuotaError, BMWQuotaExceeded),
    (MyBMWCaptchaMissingError, BMWCaptchaRequired),
    (MyBMWAuthError, BMWCredentialsRefused),
    (MyBMWRemoteServiceError, BMWCommandRefused),
    (MyBMWAPIError, BMWUnavailable),
    (PyJWTError, BMWInvalidReply),
    (LookupError, BMWInvalidReply),
    (TypeError, BMWInvalidReply),
    (ValueError, BMWInvalidReply),  # json.JSONDecodeError and UnicodeDecodeError are ValueErrors
    (AttributeError, BMWInvalidReply),
    (ArithmeticError, BMWInvalidReply),
    (RecursionError, BMWInvalidReply),
)
"""What httpx and the library raise, most specific first."""

_CLOCK = re.compile(r"replenished in (\d{1,3}):(\d{2}):(\d{2})")
_SECONDS = re.compile(r"try again in (\d{1,6}) seconds?")
_BODY_CHARS = 4096


def failure_of(response: httpx.Response, stage: Stage) -> Exception:
    """The error that an answer stands for, ready to be raised. The response's body has been read."""
    text = response.text[:_BODY_CHARS].lower()
    oauth_error = _oauth_error(response)
    for rule in _STATUSES:
        if (
            response.status_code in rule.statuses
            and stage in rule.stages
            and rule.marker in text
            and (not rule.oauth_errors or oauth_error in rule.oauth_errors)
        ):
            if issubclass(rule.failure, BMWAPIError):
                return rule.failure(rule.message, retry_after_s=_retry_after_s(response, text))
            return rule.failure()
    return BMWInvalidReply()


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn what httpx and the library raise into failures of BMW's, with the cause attached.

    Only around calls into the library: a TypeError of ours is a defect and must stay one.
    """
    try:
        yield
    except tuple(vendors for vendors, _ in _EXCEPTIONS) as error:
        raise next(ours for vendors, ours in _EXCEPTIONS if isinstance(error, vendors)) from error


def _oauth_error(response: httpx.Response) -> str | None:
    try:
        body = response.json()
    except (ValueError, RecursionError):
        return None
    error = body.get("error") if isinstance(body, dict) else None
    return error if isinstance(error, str) else None


def _retry_after_s(response: httpx.Response, text: str) -> float | None:
    header = response.headers.get("retry-after", "")
    if header.isascii() and header.isdigit():
        return float(header[:9])
    if header and "date" in response.headers:
        with contextlib.suppress(ValueError, TypeError):
            wait = parsedate_to_datetime(header) - parsedate_to_datetime(response.headers["date"])
            return max(0.0, wait.total_seconds())
    if clock := _CLOCK.search(text):
        hours, minutes, seconds = map(int, clock.groups())
        return float(hours * 3600 + minutes * 60 + seconds)
    seconds_left = _SECONDS.search(text)
    return float(seconds_left[1]) if seconds_left else None
