"""Where Flask ends: its request becomes bytes and headers, our reply becomes its response.

One :class:`~functions.app.App` a worker process and environment, built when the first request needs it. The server
imports the entry points and then forks, so nothing may be built, and no thread started, before that.
"""

import json
import os
import threading
from datetime import UTC, datetime

from flask import Request, Response

from common.errors import InternalError
from common.settings import Environment, SettingsError, load
from common.trace import new_request_id
from functions import wire
from functions.app import App, build
from functions.wire import RawRequest, Reply

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
    return _respond(app.loop.run(app.pipeline.handle(_read(request, app.settings.max_body_bytes))))


def _respond(reply: Reply) -> Response:
    response = Response(reply.body, status=reply.status, content_type=reply.content_type)
    response.headers.extend(reply.headers)
    return response


def _app(key: _Key) -> App:
    app = _apps.get(key)
    if app is None:
        with _building:
            app = _apps.get(key)
            if app is None:
                _, environment, health_only = key
                app = _apps[key] = build(load(os.environ, environment), health_at_root=health_only)
    return app


def _read(request: Request, max_bytes: int) -> RawRequest:
    environ = request.environ
    headers = {name: environ[key] for name, key in _ENVIRON.items() if key in environ}
    if request.method != "POST":
        return RawRequest(request.method, request.path, headers, b"")
    if (request.content_length or 0) > max_bytes:
        return RawRequest(request.method, request.path, headers, b"", too_large=True)
    try:
        # One byte more than allowed, because a chunked body does not say how long it is.
        body = request.stream.read(max_bytes + 1)
    except Exception:  # noqa: BLE001 - each server raises errors of its own for a body that is no proper HTTP
        return RawRequest(request.method, request.path, headers, b"", broken=True)
    ends_early = request.content_length is not None and len(body) < request.content_length
    return RawRequest(request.method, request.path, headers, body, broken=ends_early)
