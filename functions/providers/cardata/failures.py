"""What goes wrong at CarData, and the tables that turn it into errors of the service.

::

    ProviderError
    `-- CarDataError                 the base: what this maker's breakers expect
        |-- CarDataQuotaExceeded     + QuotaLimitExceeded    the customer's day is used up, says BMW or our ledger
        |-- CarDataThrottled         + QuotaLimitExceeded    429 of the gateway: BMW holds all of us back
        |-- CarDataRefused           + AuthenticationFailed  client id, consent or scope
        |-- CarDataRelinkRequired    + RelinkRequired        tokens or device code are dead
        |-- CarDataTimeout           + UpstreamTimeout
        |-- CarDataBusy              + UpstreamTimeout       another instance is creating the container
        |-- CarDataInvalidReply      + UpstreamInvalid       not what was asked for
        |-- CarDataMisunderstood     + UpstreamError         BMW does not take the request as we make it
        `-- CarDataUnavailable       + UpstreamError         5xx, connections that break, all else

Outside the tree: ``InvalidGrant`` (:mod:`functions.tokens`), ``VehicleNotFound``, ``NotSupported`` (no picture),
``PreconditionFailed`` (ten containers), and the signals between the parts of this package: :class:`TokenRefused`,
:class:`ContainerGone`, :class:`PageExpired`, :class:`NoData`, :class:`StillUndecided`.

An error of the REST API is told by its ``exveErrorId``: half of them arrive as HTTP 403. Messages are ours; what BMW
wrote is never repeated.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

import orjson

from common.errors import (
    AuthenticationFailed,
    NotSupported,
    PreconditionFailed,
    ProviderError,
    QuotaLimitExceeded,
    RelinkRequired,
    UpstreamError,
    UpstreamInvalid,
    UpstreamTimeout,
    VehicleNotFound,
    Vote,
)
from functions.tokens import InvalidGrant


class CarDataError(ProviderError):
    """Base of CarData's failures."""


class CarDataQuotaExceeded(CarDataError, QuotaLimitExceeded):
    """One customer's 50 requests are used up: says nothing of BMW's health, so no other customer must feel it."""

    vote = Vote.NONE
    summary = "The BMW customer's 50 CarData requests a day are used up."


class CarDataThrottled(CarDataError, QuotaLimitExceeded):
    """BMW's gateway asks for fewer requests from us all."""

    summary = "BMW CarData asks for fewer requests."


class CarDataRefused(CarDataError, AuthenticationFailed):
    """BMW refuses the client id, the owner refused the link, or the link lacks a scope."""

    summary = "BMW CarData refused the access."


class CarDataRelinkRequired(CarDataError, RelinkRequired):
    """The tokens, or the code of a login under way, are dead."""


class CarDataTimeout(CarDataError, UpstreamTimeout):
    """BMW did not answer in time."""


class CarDataBusy(CarDataError, UpstreamTimeout):
    """Another instance is at the same work. Says nothing about BMW."""

    vote = Vote.NONE
    summary = "Another instance is preparing this account's data container."


class CarDataInvalidReply(CarDataError, UpstreamInvalid):
    """BMW answered something that is not what was asked for."""


class CarDataMisunderstood(CarDataError, UpstreamError):
    """BMW does not take our request: trying again does not help, and says nothing about BMW's health."""

    retryable, vote = False, Vote.NONE
    summary = "BMW CarData did not accept the request."


class CarDataUnavailable(CarDataError, UpstreamError):
    """BMW failed, or the connection to it."""


class TokenRefused(Exception):
    """The access token is refused; with another one the request may be made again."""


class ContainerGone(Exception):
    """The container is not there, or not ours."""


class PageExpired(Exception):
    """The page token has expired."""


class StillUndecided(Exception):
    """The owner has not decided yet."""


class PollingTooFast(StillUndecided):
    """Nor has he, and BMW wants to be asked less often."""


class NoData(Exception):
    """BMW has no data of this kind for the car."""


NO_SCOPE: Final = (
    "The link does not cover CarData: subscribe the client id to CarData API and CarData Stream in the BMW portal, and "
    "link again."
)
NO_PICTURE: Final = "BMW has no picture of this vehicle."
TEN_CONTAINERS: Final = (
    "The BMW customer has ten data containers, as many as BMW allows. Delete one that is not needed "
    "with the application that made it, or delete the client id in the BMW portal and create a new one."
)
BAD_CLIENT: Final = (
    "BMW does not accept this client id: it must be the one from the BMW portal, subscribed to both CarData API "
    "and CarData Stream."
)
DENIED: Final = "The owner refused the link on BMW's page, or is not the vehicle's primary user."
CODE_DEAD: Final = "The code has expired, was used, or was spoiled by an error at BMW: begin the link anew."

_EXVE: Final[Mapping[str, Any]] = {
    "CU-100": TokenRefused,
    "CU-101": TokenRefused,
    "CU-102": TokenRefused,
    "CU-103": lambda: CarDataRefused(NO_SCOPE),
    "CU-104": VehicleNotFound,
    "CU-105": ContainerGone,
    "CU-120": VehicleNotFound,
    "CU-121": ContainerGone,
    "CU-122": ContainerGone,
    "CU-124": lambda: PreconditionFailed(TEN_CONTAINERS),
    "CU-125": PageExpired,
    "CU-126": lambda: NotSupported(NO_PICTURE),
    "CU-127": NoData,
    "CU-400": CarDataMisunderstood,
    "CU-401": CarDataMisunderstood,
    "CU-402": CarDataMisunderstood,
    "CU-403": CarDataRefused,
    "CU-429": CarDataQuotaExceeded,
    "CU-500": CarDataUnavailable,
    "CU-503": CarDataUnavailable,
}
"""By ``exveErrorId``, whatever the HTTP status."""


class AuthStage(Enum):
    """Which call of the device flow an answer is for."""

    BEGIN = "begin"
    POLL = "poll"
    REFRESH = "refresh"


def _refused(message: str) -> Any:  # noqa: ANN401 - builds an error of the table
    return lambda: CarDataRefused(message)


def _dead_code() -> CarDataRelinkRequired:
    return CarDataRelinkRequired(CODE_DEAD)


_AUTH: Final[Mapping[str, Mapping[AuthStage, Any]]] = {
    "authorization_pending": {AuthStage.POLL: StillUndecided},
    "slow_down": {AuthStage.POLL: PollingTooFast},
    "access_denied": {
        AuthStage.BEGIN: _refused(BAD_CLIENT),
        AuthStage.POLL: _refused(DENIED),
        AuthStage.REFRESH: InvalidGrant,
    },
    "invalid_request": {
        AuthStage.BEGIN: _refused(BAD_CLIENT),
        AuthStage.POLL: _dead_code,
        AuthStage.REFRESH: CarDataMisunderstood,
    },
    "invalid_grant": {AuthStage.POLL: _dead_code, AuthStage.REFRESH: InvalidGrant},
    "expired_token": {AuthStage.POLL: _dead_code, AuthStage.REFRESH: InvalidGrant},
    "invalid_client": {
        AuthStage.BEGIN: _refused(BAD_CLIENT),
        AuthStage.POLL: _refused(BAD_CLIENT),
        AuthStage.REFRESH: InvalidGrant,
    },
    "invalid_scope": {AuthStage.BEGIN: _refused(NO_SCOPE)},
    "unauthorized_client": {AuthStage.BEGIN: _refused(BAD_CLIENT), AuthStage.REFRESH: InvalidGrant},
}
"""By OAuth ``error`` and stage; what is not here is CarDataUnavailable."""
_STATUSES: Final[Mapping[int, Any]] = {401: TokenRefused, 403: CarDataRefused}
_CLASSES: Final[Mapping[int, Any]] = {4: CarDataMisunderstood, 5: CarDataUnavailable}
"""Where there is no id that we know: by HTTP status, then by its first digit."""
_BURNT: Final = "keymanagement.service.invalid_access_token"
_MAX_RETRY_AFTER_S: Final = 86_400.0


def rest_failure(status: int, body: bytes, headers: Mapping[str, str]) -> Exception | None:
    """The error that an answer of the REST API stands for; ``None`` for a success."""
    error_id = _json(body).get("exveErrorId") if status >= 400 or b"exveErrorId" in body[:200] else None
    if isinstance(error_id, str) and error_id in _EXVE:
        return _raised(_EXVE[error_id])
    if 200 <= status < 300:
        return None
    if status == 429:
        return CarDataThrottled(retry_after_s=_retry_after_s(headers))
    return _raised(_STATUSES.get(status) or _CLASSES.get(status // 100, CarDataInvalidReply))


def auth_failure(stage: AuthStage, status: int, body: bytes, headers: Mapping[str, str]) -> Exception | None:
    """The error that an answer of the login stands for; ``None`` for a success."""
    if 200 <= status < 300:
        return None
    answer = _json(body)
    error = answer.get("error")
    row = _AUTH.get(error, {}) if isinstance(error, str) else {}
    if stage in row:
        return _raised(row[stage])
    if status >= 500 and stage is AuthStage.POLL and _fault_code(answer) == _BURNT:
        return _dead_code()
    if status == 429:
        return CarDataThrottled(retry_after_s=_retry_after_s(headers))
    if 300 <= status < 400:
        return CarDataInvalidReply()
    return CarDataUnavailable()


def _raised(meant: Any) -> Exception:  # noqa: ANN401 - an error's class, or what builds one
    error: Exception = meant()
    return error


def _fault_code(answer: Mapping[str, Any]) -> object:
    fault = answer.get("fault")
    detail = fault.get("detail") if isinstance(fault, dict) else None
    return detail.get("errorcode") if isinstance(detail, dict) else None


def _json(body: bytes) -> dict[str, Any]:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    header = headers.get("retry-after", "")
    return min(float(header[:9]), _MAX_RETRY_AFTER_S) if header.isascii() and header.isdigit() else None
