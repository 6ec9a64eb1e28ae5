"""Our handlers under functions-framework's async server: an experiment, which nothing deploys.

The pipeline is async already, so Starlette's request becomes ours and everything stays on the server's own loop.
"""

import os

import functions_framework.aio
from starlette.requests import Request
from starlette.responses import Response

from common.settings import load
from functions.app import App, build
from functions.wire import RawRequest

_apps: list[App] = []


@functions_framework.aio.http
async def draiv(request: Request) -> Response:
    """Answer one request."""
    if not _apps:  # not at import: the server forks after it
        _apps.append(build(load(os.environ)))
    body = await request.body()
    headers = {name.lower(): value for name, value in request.headers.items()}
    reply = await _apps[0].pipeline.handle(RawRequest(request.method, request.url.path, headers, body))
    return Response(reply.body, reply.status, dict(reply.headers), reply.content_type)
