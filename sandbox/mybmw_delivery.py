"""Putting a reply on the wire, intact or as a fault wants it."""

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Final

from aiohttp import web

from sandbox.mybmw_faults import Fault
from sandbox.mybmw_wire import JSON, Reply

_MALFORMED: Final = b'{"eventId": "0000'
_LINGER_NOT_AT_ALL: Final = struct.pack("ii", 1, 0)


def respond(reply: Reply) -> web.Response:
    """The reply as it is."""
    response = web.Response(status=reply.status, body=reply.body, headers=reply.headers or None)
    if reply.body:
        response.headers["Content-Type"] = reply.content_type
    return response


async def deliver(
    request: web.BaseRequest, fault: Fault, perform: Callable[[], Reply], lose: Callable[[], None]
) -> web.StreamResponse:
    """Answer as the fault wants. ``lose`` is called where the client will never learn of an event it caused."""
    if not fault.delay_reply:
        await asyncio.sleep(fault.delay_ms / 1000)
    reply = perform() if fault.perform else Reply()
    if fault.delay_reply:
        await asyncio.sleep(fault.delay_ms / 1000)
    if fault.kind in ("slow", "event"):
        return respond(reply)
    lose()
    if (spoilt := _spoilt(reply, fault)) is not None:
        return respond(spoilt)
    if fault.kind == "truncated":
        await _cut_off(request, reply)
    if fault.kind == "reset":
        _reset(request)
    return await _never()


def _spoilt(reply: Reply, fault: Fault) -> Reply | None:
    """What goes out instead of the reply; None where no whole reply does."""
    match fault.kind:
        case "status":
            return Reply(fault.status, fault.body or b"", fault.content_type, fault.headers)
        case "malformed":
            return Reply(reply.status, _MALFORMED)
        case "wrong_type":
            return Reply(reply.status, fault.body or b"", JSON)
        case "empty":
            return Reply(reply.status)
    return None


async def _cut_off(request: web.BaseRequest, reply: Reply) -> None:
    """Announce the whole body, send half of it and hang up."""
    body = reply.body or b"{}"
    response = web.StreamResponse(status=reply.status, headers={"Content-Type": reply.content_type})
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.close()


def _reset(request: web.BaseRequest) -> None:
    transport = request.transport
    if transport is not None:
        raw = transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT_AT_ALL)
        transport.abort()


async def _never() -> web.StreamResponse:
    """Wait for the client to go away: the server then cancels this handler."""
    gone: asyncio.Future[web.StreamResponse] = asyncio.get_running_loop().create_future()
    return await gone
