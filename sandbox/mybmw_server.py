"""The HTTP/1.1 server: sockets and requests in, routes and faults, replies out."""

import asyncio
import logging
import traceback
from dataclasses import replace
from typing import Final

from aiohttp import web

from common.clock import Clock
from sandbox.mybmw_clock import ShiftedClock
from sandbox.mybmw_commands import CommandLog
from sandbox.mybmw_control import CONTROL_PREFIX, control
from sandbox.mybmw_counters import Counters
from sandbox.mybmw_delivery import deliver, respond
from sandbox.mybmw_faults import Subject
from sandbox.mybmw_routes import UNMATCHED, Route, find_route, no_such_path, perform, subject_vin
from sandbox.mybmw_wire import TEXT, Call, Reply
from sandbox.mybmw_world import Settings, World

_SHUTDOWN_S: Final = 0.2
"""How long a stopping server waits for requests in hand; faults may hold some for ever."""


class Sandbox:
    """A simulated MyBMW service. ``start`` listens, ``stop`` ends it."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._listener: _Listener | None = None
        self._socket: asyncio.Server | None = None
        self.world = self._new_world()

    async def start(self, host: str, port: int) -> str:
        """Listen; the origin, such as ``http://127.0.0.1:8901``. Port 0 takes a free one."""
        self._listener = _Listener(self)
        self._socket = await asyncio.get_running_loop().create_server(self._listener, host, port, backlog=1024)
        return f"http://{host}:{self._socket.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Stop listening and drop every connection."""
        if self._socket is not None and self._listener is not None:
            self._socket.close()
            self._listener.pre_shutdown()
            await self._listener.shutdown(_SHUTDOWN_S)
            await self._socket.wait_closed()

    def reset(self) -> None:
        """Forget everything, and return to the settings given at the start."""
        self.world = self._new_world()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        body = await request.read() if request.can_read_body else b""
        found = find_route(request.method, request.path)
        call = Call(request.method, request.path, request.query, request.headers, body, found[1] if found else {})
        if call.path.startswith(CONTROL_PREFIX):
            return respond(control(self, call))
        return await self._counted(request, call, found[0] if found else None)

    async def _counted(self, request: web.BaseRequest, call: Call, route: Route | None) -> web.StreamResponse:
        world = self.world
        if self._listener is not None and self._listener.first_use(request.protocol):
            world.counters.connections_opened += 1
        world.counters.begin(route.name if route else UNMATCHED)
        status: int | None = None
        try:
            if world.settings.latency_ms > 0:
                await asyncio.sleep(world.settings.latency_ms / 1000)
            response = await _answer(world, request, call, route) if route else respond(no_such_path())
            status = response.status
        finally:
            world.counters.finish(status)
        return response

    def _new_world(self) -> World:
        counters = Counters()
        return World(replace(self._settings), ShiftedClock(self._clock), counters, CommandLog(counters))


class _Listener(web.Server):
    """An aiohttp server that knows which connections have not yet carried a request to the service."""

    def __init__(self, sandbox: Sandbox) -> None:
        silent = logging.getLogger("sandbox.silent")
        silent.disabled = True
        super().__init__(sandbox.handle, handler_cancellation=True, access_log=None, logger=silent)
        self._sandbox = sandbox
        self._unused: set[object] = set()

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Count a TCP connection."""
        super().connection_made(handler, transport)
        self._unused.add(handler)
        self._sandbox.world.counters.connections_accepted += 1

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        """Forget a TCP connection."""
        super().connection_lost(handler, exc)
        self._unused.discard(handler)

    def first_use(self, handler: object) -> bool:
        """Whether this connection carries its first request to the service."""
        if handler not in self._unused:
            return False
        self._unused.discard(handler)
        return True


async def _answer(world: World, request: web.BaseRequest, call: Call, route: Route) -> web.StreamResponse:
    subject = Subject(
        call.method, request.path_qs, route.who(world, call), subject_vin(world, call), has_event=route.has_event
    )
    fault = world.fault(subject, is_api=route.is_api)
    if fault is None:
        return respond(_perform(world, route, call))
    if fault.kind == "event":
        call.outcome = fault.outcome

    def lose() -> None:
        command = world.commands.find(call.event_id or "")
        if command is not None:
            world.commands.execute(command)

    return await deliver(request, fault, lambda: _perform(world, route, call), lose)


def _perform(world: World, route: Route, call: Call) -> Reply:
    try:
        return perform(world, route, call)
    except Exception:  # noqa: BLE001 - whoever finds a defect of the sandbox needs to see it, and nothing is logged
        return Reply(599, f"Defect of the sandbox:\n{traceback.format_exc()}".encode(), TEXT)
