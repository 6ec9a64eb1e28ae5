"""Where Flask ends: its request becomes bytes and headers, our reply becomes its response.

One :class:`~functions.app.App` a worker process and environment, built when the first request needs it. The server
imports the entry points and then forks, so nothing may be built, and no thread started, before that.
"""

import json
import os
import threading
from collections.abc import Iterable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING

from flask import Request, Response

from common import endings
from common.errors import InternalError
from common.settings import Environment, SettingsError, load
from common.trace import new_request_id
from functions import wire
from functions.app import App, build
from functions.wire import RawRequest, Reply

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_HEADERS = (
    "accept",
    "authorization",
    "content-type",
    "idempotency-key",
    "origin",
    "traceparent",
    "x-api-key",
    "x-cloud-trace-context",
    "x-request-id",
)
"""The headers that mean something to us; no other is looked at, kept or logged."""
_ENVIRON = {name: "HTTP_" + name.upper().replace("-", "_") for name in _HEADERS} | {"content-type": "CONTENT_TYPE"}

_Key = tuple[int, Environment | None, bool]
_apps: dict[_Key, App] = {}
_building = threading.Lock()


def serve(request: Request, environment: Environment | None = None, *, health_only: bool = False) -> Response:
    """Answer one request of an entry point."""
    try:
        app = _app((os.getpid(), environment, health_only))
    except (SettingsError, ValueError) as misconfigured:
        # Both name variables and never values, so this may be logged as it is.
        print(  # noqa: T201 - there is no logger yet
            f'{{"severity": "CRITICAL", "message": "misconfigured", "problem": {json.dumps(str(misconfigured))}}}',
            flush=True,
        )
        return _respond(wire.error_reply(InternalError(), new_request_id(), datetime.now(UTC)))
    except Exception as defect:  # noqa: BLE001 - the framework would show the traceback
        print(  # noqa: T201 - as above
            f'{{"severity": "CRITICAL", "message": "not_built", "problem": {json.dumps(type(defect).__qualname__)}}}',
            flush=True,
        )
        return _respond(wire.error_reply(InternalError(), new_request_id(), datetime.now(UTC)))
    return _respond(app.loop.run(app.pipeline.handle(_read(request, app.settings.max_body_bytes))))


_STATUS_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}


class _Finished(Response):
    """A reply that is sent as it is: werkzeug's own way of copying and checking headers costs more than our handler.

    Its own fields are made when somebody asks for one of them, which nobody does between us and the server.
    """

    is_streamed = True
    """The framework need not read the request once more: :func:`_read` has taken all that we want of it."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    def __getattr__(self, name: str) -> object:
        reply = self.__dict__["_reply"]
        super().__init__(reply.body, reply.status, dict(reply.headers), content_type=reply.content_type)
        return object.__getattribute__(self, name)

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Speak WSGI."""
        status, body, content_type, headers = self._reply
        # A 204 has no content, and so neither type nor length.
        about = [] if status == 204 else [("Content-Type", content_type), ("Content-Length", str(len(body)))]
        sent = [*about, *headers.items()]
        start_response(_STATUS_LINES[status], sent)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


def _respond(reply: Reply) -> Response:
    return _Finished(reply)


def _app(key: _Key) -> App:
    app = _apps.get(key)
    if app is None:
        with _building:
            app = _apps.get(key)
            if app is None:
                _, environment, health_only = key
                app = _apps[key] = build(load(os.environ, environment), health_at_root=health_only)
                endings.at_end(app.close)
    return app


def _read(request: Request, max_bytes: int) -> RawRequest:
    environ = request.environ
    headers = {name: environ[key] for name, key in _ENVIRON.items() if key in environ}
    method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "/")
    if path != "/":
        path = request.path
    if method != "POST":
        return RawRequest(method, path, headers, b"")
    length = environ.get("CONTENT_LENGTH", "")
    if length.isdecimal() and "HTTP_TRANSFER_ENCODING" not in environ:
        announced: int | None = int(length)
    else:
        announced = request.content_length
    if announced is not None and announced > max_bytes:
        return RawRequest(method, path, headers, b"", too_large=True)
    try:
        # One byte more than allowed where a chunked body does not say how long it is.
        stream = request.stream if announced is None else environ["wsgi.input"]
        body = stream.read(max_bytes + 1 if announced is None else announced)
    except Exception:  # noqa: BLE001 - each server raises errors of its own for a body that is no proper HTTP
        return RawRequest(method, path, headers, b"", broken=True)
    return RawRequest(method, path, headers, body, broken=announced is not None and len(body) < announced)
