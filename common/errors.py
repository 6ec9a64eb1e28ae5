"""Every way a request can fail, as one tree.

::

    ApiError                                     code                    HTTP  retryable
    |-- RequestError                             (the caller's doing; never counts against a maker)
    |   |-- ValidationFailed                     VALIDATION_ERROR        400   no
    |   |   `-- UnknownAction                    UNKNOWN_ACTION          400   no
    |   |-- CallerUnauthenticated                CALLER_UNAUTHENTICATED  401   no
    |   |-- InsufficientScope                    INSUFFICIENT_SCOPE      403   no
    |   |-- NotFound
    |   |   |-- EndpointNotFound                 ENDPOINT_NOT_FOUND      404   no
    |   |   |-- VehicleNotFound                  VEHICLE_NOT_FOUND       404   no
    |   |   |-- AccountNotFound                  ACCOUNT_NOT_FOUND       404   no
    |   |   |-- ConnectNotFound                  CONNECT_NOT_FOUND       404   no
    |   |   `-- CommandNotFound                  COMMAND_NOT_FOUND       404   no
    |   |-- MethodNotAllowed                     METHOD_NOT_ALLOWED      405   no
    |   |-- PayloadTooLarge                      PAYLOAD_TOO_LARGE       413   no
    |   |-- UnsupportedMediaType                 UNSUPPORTED_MEDIA_TYPE  415   no
    |   |-- CommandInProgress                    COMMAND_IN_PROGRESS     409   yes
    |   |-- IdempotencyInFlight                  IDEMPOTENCY_IN_FLIGHT   409   yes
    |   |-- IdempotencyMismatch                  IDEMPOTENCY_MISMATCH    422   no
    |   |-- ConfirmationRequired                 CONFIRMATION_REQUIRED   428   no
    |   |-- PreconditionFailed                   PRECONDITION_FAILED     409   no
    |   |-- CacheMiss                            NOT_CACHED              404   no
    |   |-- RateLimitExceeded                    RATE_LIMIT_EXCEEDED     429   yes
    |   `-- NotSupported                         NOT_SUPPORTED           501   no
    |-- ProviderError                            (the maker's doing)
    |   |-- AuthenticationFailed                 AUTHENTICATION_ERROR    401   no     vote: none
    |   |-- CaptchaRequired                      CAPTCHA_REQUIRED        401   no     vote: none
    |   |-- RelinkRequired                       RELINK_REQUIRED         401   no     vote: none
    |   |-- QuotaLimitExceeded                   QUOTA_LIMIT_EXCEEDED    429   yes    vote: hold
    |   |-- UpstreamError                        UPSTREAM_ERROR          502   yes    vote: failure
    |   |-- UpstreamInvalid                      UPSTREAM_INVALID        502   yes    vote: failure
    |   |-- CircuitOpen                          CIRCUIT_OPEN            503   yes    vote: none
    |   |-- ProviderBlocked                      PROVIDER_BLOCKED        503   no     vote: hold
    |   |-- RemoteServiceError                   REMOTE_SERVICE_ERROR    503   no     vote: none
    |   `-- UpstreamTimeout                      UPSTREAM_TIMEOUT        504   yes    vote: failure
    |-- StoreUnavailable                         STORE_UNAVAILABLE       503   yes
    |-- IdentityUnavailable                      IDENTITY_UNAVAILABLE    503   yes
    `-- InternalError                            INTERNAL_ERROR          500   no

A leaf declares everything a caller or the breaker needs to know about it, as class attributes; an instance adds
only the message, the details and how long to wait. A message is written by us: no upstream text, no secret, no
VIN. ``may_have_succeeded`` is true only where a command may have reached the car although this error came back;
whoever sends a command sets it on the instance.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Any, ClassVar


class Resolution(Enum):
    """What a caller can do about an error."""

    RETRY_LATER = "RETRY_LATER"
    REAUTHENTICATE = "REAUTHENTICATE"
    FIX_REQUEST = "FIX_REQUEST"
    CONTACT_SUPPORT = "CONTACT_SUPPORT"


class Vote(Enum):
    """How an outcome counts for the circuit breaker of the maker that caused it."""

    FAILURE = "failure"
    """Counts towards opening."""
    NONE = "none"
    """Says nothing about the maker's health: the permit is given back."""
    HOLD = "hold"
    """Opens at once, for ``retry_after_s`` where it is known."""


class ApiError(Exception):
    """Base of everything this service raises on purpose. See the module's docstring for the tree."""

    code: ClassVar[str]
    status: ClassVar[int]
    resolution: ClassVar[Resolution]
    retryable: ClassVar[bool] = False
    vote: ClassVar[Vote] = Vote.NONE
    summary: ClassVar[str] = ""
    """One sentence for the generated error reference."""

    def __init__(
        self,
        message: str | None = None,
        *,
        details: Mapping[str, Any] | None = None,
        retry_after_s: float | None = None,
        may_have_succeeded: bool = False,
    ) -> None:
        """Build an error; without a message the class's summary is used."""
        super().__init__(message or self.summary)
        self.message = message or self.summary
        self.details: dict[str, Any] = dict(details or {})
        self.retry_after_s = retry_after_s
        self.may_have_succeeded = may_have_succeeded


class RequestError(ApiError):
    """The request cannot be served as it stands."""

    resolution = Resolution.FIX_REQUEST


class ValidationFailed(RequestError):
    """``details["fields"]`` lists the path and the problem of each bad field."""

    code, status = "VALIDATION_ERROR", 400
    summary = "The request is not valid."


class UnknownAction(ValidationFailed):
    """``details["actions"]`` lists the names that exist."""

    code = "UNKNOWN_ACTION"
    summary = "There is no such action."


class CallerUnauthenticated(RequestError):
    """Nobody we know."""

    code, status, resolution = "CALLER_UNAUTHENTICATED", 401, Resolution.REAUTHENTICATE
    summary = "The caller is not authenticated."


class InsufficientScope(RequestError):
    """Somebody we know, who may not do this."""

    code, status = "INSUFFICIENT_SCOPE", 403
    summary = "The caller may not use this action."


class NotFound(RequestError):
    """Not there, or not yours: the same answer."""

    status = 404


class EndpointNotFound(NotFound):
    """No such path on this service."""

    code = "ENDPOINT_NOT_FOUND"
    summary = "There is no such path."


class VehicleNotFound(NotFound):
    """Not in the account's own list of vehicles."""

    code = "VEHICLE_NOT_FOUND"
    summary = "The account has no such vehicle."


class AccountNotFound(NotFound):
    """Not linked by this caller."""

    code = "ACCOUNT_NOT_FOUND"
    summary = "There is no such linked account."


class ConnectNotFound(NotFound):
    """Not begun by this caller, or finished, or expired."""

    code = "CONNECT_NOT_FOUND"
    summary = "There is no such login under way."


class CommandNotFound(NotFound):
    """Not sent by this caller."""

    code = "COMMAND_NOT_FOUND"
    summary = "There is no such command."


class MethodNotAllowed(RequestError):
    """Anything but the methods the path answers."""

    code, status = "METHOD_NOT_ALLOWED", 405
    summary = "The method is not allowed here."


class PayloadTooLarge(RequestError):
    """More than the contract's limit of bytes."""

    code, status = "PAYLOAD_TOO_LARGE", 413
    summary = "The request body is too large."


class UnsupportedMediaType(RequestError):
    """Not JSON."""

    code, status = "UNSUPPORTED_MEDIA_TYPE", 415
    summary = "The request must be application/json."


class CommandInProgress(RequestError):
    """Another command is on its way to this vehicle."""

    code, status, resolution, retryable = "COMMAND_IN_PROGRESS", 409, Resolution.RETRY_LATER, True
    summary = "Another command for this vehicle is still in flight."


class PreconditionFailed(RequestError):
    """The car is not in a state in which the command makes sense; nothing was sent."""

    code, status = "PRECONDITION_FAILED", 409
    summary = "The vehicle is not in a state in which this command can work."


class CacheMiss(RequestError):
    """``cache_only`` was asked for and nothing fresh enough is held."""

    code, status = "NOT_CACHED", 404
    summary = "Nothing fresh enough is cached, and cache_only forbids asking the maker."


class IdempotencyInFlight(RequestError):
    """The request that used this key first is still being served."""

    code, status, resolution, retryable = "IDEMPOTENCY_IN_FLIGHT", 409, Resolution.RETRY_LATER, True
    summary = "A request with this Idempotency-Key is still being served."


class IdempotencyMismatch(RequestError):
    """One key, two meanings."""

    code, status = "IDEMPOTENCY_MISMATCH", 422
    summary = "This Idempotency-Key was used for another command."


class ConfirmationRequired(RequestError):
    """This deployment sends the command only with a fresh one-time code."""

    code, status = "CONFIRMATION_REQUIRED", 428
    summary = "This command needs `params.confirm`: the one-time code from a dry run of the same command."


class RateLimitExceeded(RequestError):
    """Our own limit, not the maker's."""

    code, status, resolution, retryable = "RATE_LIMIT_EXCEEDED", 429, Resolution.RETRY_LATER, True
    summary = "Too many requests."


class NotSupported(RequestError):
    """The vehicle or its provider cannot do this; nothing was sent."""

    code, status = "NOT_SUPPORTED", 501
    summary = "The vehicle or its provider does not support this."


class ProviderError(ApiError):
    """The maker refused, failed or did not answer."""

    resolution = Resolution.RETRY_LATER


class AuthenticationFailed(ProviderError):
    """The car account's credentials were refused."""

    code, status, resolution = "AUTHENTICATION_ERROR", 401, Resolution.REAUTHENTICATE
    summary = "The car account's credentials were refused."


class CaptchaRequired(ProviderError):
    """The maker wants proof of a human for this login."""

    code, status, resolution = "CAPTCHA_REQUIRED", 401, Resolution.REAUTHENTICATE
    summary = "The login needs a fresh hCaptcha token."


class RelinkRequired(ProviderError):
    """The stored authorisation is dead for good."""

    code, status, resolution = "RELINK_REQUIRED", 401, Resolution.REAUTHENTICATE
    summary = "The account's authorisation has ended; link the account again."


class QuotaLimitExceeded(ProviderError):
    """The maker's own limit."""

    code, status, retryable, vote = "QUOTA_LIMIT_EXCEEDED", 429, True, Vote.HOLD
    summary = "The maker's request quota is used up."


class UpstreamError(ProviderError):
    """The maker answered with a failure of its own, or the connection broke."""

    code, status, retryable, vote = "UPSTREAM_ERROR", 502, True, Vote.FAILURE
    summary = "The maker's service failed."


class UpstreamInvalid(ProviderError):
    """The maker answered something that cannot be understood."""

    code, status, retryable, vote = "UPSTREAM_INVALID", 502, True, Vote.FAILURE
    summary = "The maker's service gave an answer that cannot be understood."


class CircuitOpen(ProviderError):
    """We are leaving the maker alone for a while; nothing was sent."""

    code, status, retryable = "CIRCUIT_OPEN", 503, True
    summary = "The maker's service has been failing; requests are held back for a while."


class ProviderBlocked(ProviderError):
    """The maker refuses third parties. Waiting does not help."""

    code, status, resolution, vote = "PROVIDER_BLOCKED", 503, Resolution.CONTACT_SUPPORT, Vote.HOLD
    summary = "The maker refuses third-party access to this API."


class RemoteServiceError(ProviderError):
    """The maker refused a command or reported that it failed."""

    code, status = "REMOTE_SERVICE_ERROR", 503
    summary = "The maker refused the command."


class UpstreamTimeout(ProviderError):
    """The maker did not answer in time."""

    code, status, retryable, vote = "UPSTREAM_TIMEOUT", 504, True, Vote.FAILURE
    summary = "The maker's service did not answer in time."


class StoreUnavailable(ApiError):
    """Our own durable storage cannot be reached."""

    code, status, retryable, resolution = "STORE_UNAVAILABLE", 503, True, Resolution.RETRY_LATER
    summary = "The service's own storage cannot be reached."


class IdentityUnavailable(ApiError):
    """The issuer of the caller's token cannot be reached, so that nobody can say whether it is genuine."""

    code, status, retryable, resolution = "IDENTITY_UNAVAILABLE", 503, True, Resolution.RETRY_LATER
    summary = "The issuer of the caller's token cannot be reached to verify it."


class InternalError(ApiError):
    """A defect of ours. The reply says nothing but the request id, which finds the log line."""

    code, status, resolution = "INTERNAL_ERROR", 500, Resolution.CONTACT_SUPPORT
    summary = "Something went wrong on our side."


BY_CODE: Mapping[str, type[ApiError]] = {
    found.code: found
    for found in list(vars().values())
    if isinstance(found, type) and issubclass(found, ApiError) and "code" in vars(found)
}
"""The leaves by their code, in the order in which they are defined."""
