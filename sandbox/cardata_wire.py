"""Requests of the simulated CarData service, and its errors: one table each for the REST API and for OAuth."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson

from sandbox.mybmw_wire import Refusal, Reply, json_reply

CU_ERRORS: Final[Mapping[str, tuple[int, str]]] = {
    "CU-100": (401, "Authorization header is missing."),
    "CU-101": (401, "Authentication failed."),
    "CU-102": (401, "The access token has expired."),
    "CU-103": (403, "The scope of the token does not permit this request."),
    "CU-104": (403, "The vehicle is not permitted."),
    "CU-105": (403, "The container is not permitted."),
    "CU-120": (400, "The VIN has an invalid format."),
    "CU-121": (400, "The container id has an invalid format."),
    "CU-122": (400, "The container was already deleted."),
    "CU-124": (403, "The maximum number of containers is reached."),
    "CU-125": (400, "The page token has expired."),
    "CU-126": (404, "No image was found."),
    "CU-127": (404, "No data was found."),
    "CU-400": (400, "Bad request."),
    "CU-401": (400, "A parameter is missing or invalid."),
    "CU-402": (400, "Unknown technical descriptor."),
    "CU-403": (403, "Forbidden."),
    "CU-429": (403, "API rate limit reached."),
    "CU-500": (500, "Internal server error."),
    "CU-503": (503, "Service unavailable."),
}
"""``exveErrorId`` -> HTTP status and message. The limits arrive as 403: only the id tells them apart."""

OAUTH_ERRORS: Final[Mapping[str, tuple[int, str]]] = {
    "authorization_pending": (403, "The user has not yet approved the request."),
    "access_denied": (403, "The request was denied."),
    "slow_down": (400, "Polled too often."),
    "invalid_request": (400, "A parameter is missing or invalid."),
    "invalid_grant": (400, "The code or token is invalid, expired or used."),
    "expired_token": (401, "The device code has expired."),
    "invalid_client": (401, "The client is unknown."),
}
"""``error`` -> HTTP status and description."""

BURNT: Final = {
    "fault": {
        "faultstring": "Invalid Access Token",
        "detail": {"errorcode": "keymanagement.service.invalid_access_token"},
    }
}
"""The 500 after which a device code is of no more use."""


@dataclass(slots=True)
class Call:
    """One request as the handlers see it."""

    method: str
    path: str
    origin: str
    """Under which the client reached us, such as ``http://127.0.0.1:8902``."""
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """Looked up in lower case; the server's mapping ignores case."""
    body: bytes = b""
    params: Mapping[str, str] = field(default_factory=dict)
    """The named parts of the route's template."""
    over_quota: bool = False
    """It came after the customer's day was used up."""

    def form(self) -> dict[str, str]:
        """The fields of a form-encoded body; of a repeated field the last."""
        return dict(parse_qsl(self.body.decode("utf-8", "replace"), keep_blank_values=True))

    def json_object(self) -> dict[str, Any]:
        """The body as a JSON object; an empty body is an empty one. Raises ValueError where it is neither."""
        parsed = orjson.loads(self.body or b"{}")
        if not isinstance(parsed, dict):
            raise ValueError("the body is not a JSON object")  # noqa: TRY004 - as every other bad body
        return parsed


def cu_reply(code: str, note: str | None = None, status: int | None = None) -> Reply:
    """An error as the REST API words it; ``status`` instead of the usual one."""
    usual, message = CU_ERRORS[code]
    document = {
        "exveErrorId": code,
        "exveErrorMsg": message,
        "exveErrorRef": str(uuid.uuid4()),
        "exveNote": note,
    }
    return json_reply(document, status or usual)


def cu_error(code: str, note: str | None = None) -> Refusal:
    """The same, to be raised."""
    return Refusal(cu_reply(code, note))


def oauth_reply(error: str, description: str | None = None) -> Reply:
    """An error as the OAuth endpoints word it."""
    status, usual = OAUTH_ERRORS[error]
    return json_reply({"error": error, "error_description": description or usual}, status)


def oauth_error(error: str, description: str | None = None) -> Refusal:
    """The same, to be raised."""
    return Refusal(oauth_reply(error, description))
