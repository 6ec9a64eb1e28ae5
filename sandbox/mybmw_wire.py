"""Requests and replies of the simulated MyBMW service, with no socket in sight.

A handler is a synchronous function ``(World, Call) -> Reply``. It either returns or raises :class:`Refusal`; both
carry the reply that goes out. As nothing is awaited on the way, each request is applied as a whole.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson

JSON: Final = "application/json"
TEXT: Final = "text/plain"
PNG: Final = "image/png"


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole HTTP reply."""

    status: int = 200
    body: bytes = b""
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


class Refusal(Exception):
    """The request is answered with an error reply."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


@dataclass(frozen=True, slots=True)
class AppClient:
    """What ``x-user-agent`` says of the app: ``android(...);{brand};{version};{region}``."""

    brand: str
    region: str


@dataclass(slots=True)
class Call:
    """One request as the handlers see it."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """Looked up in lower case; the server's mapping ignores case."""
    body: bytes = b""
    params: Mapping[str, str] = field(default_factory=dict)
    """The named parts of the route's template."""
    username: str = ""
    """The account that the bearer token belongs to, once admitted."""
    client: AppClient = field(default_factory=lambda: AppClient("bmw", "row"))
    vin: str = ""
    """The vehicle that the request is about, once admitted."""
    outcome: str = "EXECUTED"
    """How a command sent by this request will end; a fault rule may have planned otherwise."""
    event_id: str | None = None
    """Set by the handler that accepted a command."""

    def form(self) -> dict[str, str]:
        """The fields of a form-encoded body; of a repeated field the last."""
        return dict(parse_qsl(self.body.decode("utf-8", "replace"), keep_blank_values=True))

    def json_object(self) -> dict[str, Any]:
        """The body as a JSON object. Raises Refusal (400) where it is not one."""
        try:
            parsed = orjson.loads(self.body)
        except orjson.JSONDecodeError as error:
            raise bad_request("body", "The body is not JSON.") from error
        if not isinstance(parsed, dict):
            raise bad_request("body", "The body is not a JSON object.")
        return parsed


def json_reply(document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:  # noqa: ANN401 - any JSON document
    """A reply with a JSON document."""
    return Reply(status, orjson.dumps(document), JSON, headers or {})


def gateway_error(status: int, message: str, **more: object) -> Reply:
    """An error as BMW's API gateway words it: ``{"statusCode": ..., "message": ...}``."""
    return json_reply({"statusCode": status, "message": message, **more}, status)


def oauth_error(status: int, error: str, description: str, **more: object) -> Refusal:
    """An error as BMW's OAuth endpoints word it: ``{"error": ..., "error_description": ...}``."""
    return Refusal(json_reply({"error": error, "error_description": description, **more}, status))


def bad_request(field_name: str, message: str) -> Refusal:
    """400 naming the field that is wrong."""
    return Refusal(gateway_error(400, message, field=field_name))


def not_found(message: str) -> Refusal:
    """404."""
    return Refusal(gateway_error(404, message))


def require_headers(call: Call, *names: str) -> None:
    """Raise Refusal (400, naming the header) unless every header is there and not blank."""
    for name in names:
        if not call.headers.get(name):
            raise Refusal(gateway_error(400, f"Missing header: {name}", header=name))


def require_query(call: Call, *names: str) -> None:
    """Raise Refusal (400, naming the parameter) unless every query parameter is there."""
    for name in names:
        if not call.query.get(name):
            raise Refusal(gateway_error(400, f"Missing query parameter: {name}", parameter=name))
