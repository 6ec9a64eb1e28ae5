"""The HTTP/1.1 server beside the stream: requests in, routes and faults, replies out."""

import asyncio
import logging
import traceback
from dataclasses import replace
from typing import Final

import orjson
from aiohttp import web

from common.clock import Clock
from sandbox.cardata_auth import burn
from sandbox.cardata_control import CONTROL_PREFIX, control
from sandbox.cardata_counters import Counters
from sandbox.cardata_customers import Customers
from sandbox.cardata_faults import CarDataFault
from sandbox.cardata_mqtt import Why
from sandbox.cardata_routes import UNMATCHED, Route, find_route, no_such_path, spend_if_api
from sandbox.cardata_stream import Stream
from sandbox.cardata_time import now_s
from sandbox.cardata_tls import Certificates, make_certificates
from sandbox.cardata_wire import Call
from sandbox.cardata_world import Settings, World
from sandbox.mybmw_clock import ShiftedClock
from sandbox.mybmw_delivery import deliver, respond
from sandbox.mybmw_faults import Fault, Subject
from sandbox.mybmw_wire import JSON, TEXT, Reply

_SHUTDOWN_S: Final = 0.2
"""How long a stopping server waits for requests in hand; faults may hold some for ever."""


class CarData:
    """A simulated CarData service. ``start`` listens, ``stop`` ends it."""

    def __init__(self, settings: Settings, clock: Clock, certificates: Certificates | None = None) -> None:
        self._settings = settings
        self._clock = clock
        self._listener: web.Server | None = None
        self._socket: asyncio.Server | None = None
        self.world = self._new_world()
        self.stream = Stream(lambda: self.world, certificates or make_certificates())

    async def start(self, host: str, port: int, stream_port: int) -> str:
        """Listen; the origin of auth and REST, such as ``http://127.0.0.1:8902``. Port 0 takes a free one."""
        silent = logging.getLogger("sandbox.silent")
        silent.disabled = True
        self._listener = web.Server(self.handle, handler_cancellation=True, access_log=None, logger=silent)
        self._socket = await asyncio.get_running_loop().create_server(self._listener, host, port, backlog=1024)
        await self.stream.start(host, stream_port)
        return f"http://{host}:{self._socket.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Stop listening and drop every connection."""
        await self.stream.stop()
        if self._socket is not None and self._listener is not None:
            self._socket.close()
            self._listener.pre_shutdown()
            await self._listener.shutdown(_SHUTDOWN_S)
            await self._socket.wait_closed()

    def reset(self) -> None:
        """Forget everything, and return to the settings given at the start."""
        self.stream.drop_all(Why.SERVER_SHUTTING_DOWN)
        self.world = self._new_world()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        body = await request.read() if request.can_read_body else b""
        found = find_route(request.method, request.path)
        params = found[1] if found else {}
        origin = f"{request.scheme}://{request.host}"
        call = Call(request.method, request.path, origin, request.query, request.headers, body, params)
        if call.path.startswith(CONTROL_PREFIX):
            return respond(control(self, call))
        return await self._counted(request, call, found[0] if found else None)

    async def _counted(self, request: web.BaseRequest, call: Call, route: Route | None) -> web.StreamResponse:
        world = self.world
        world.counters.begin(route.name if route else UNMATCHED)
        status: int | None = None
        try:
            if world.settings.latency_ms > 0:
                await asyncio.sleep(world.settings.latency_ms / 1000)
            response = await _answer(world, request, call, route) if route else respond(no_such_path())
            status = response.status
            _count_error(world, response)
        finally:
            world.counters.finish(status)
        return response

    def _new_world(self) -> World:
        clock = ShiftedClock(self._clock)
        return World(replace(self._settings), clock, Counters(), Customers(now_s(clock)))


async def _answer(world: World, request: web.BaseRequest, call: Call, route: Route) -> web.StreamResponse:
    spend_if_api(world, route, call)
    subject = Subject(call.method, request.path_qs, route.who(world, call), call.params.get("vin"))
    fault = world.faults.pick(subject)
    if fault is None:
        return respond(_perform(world, route, call, None))
    world.counters.faults_injected[fault.label if isinstance(fault, CarDataFault) else fault.kind] += 1
    if isinstance(fault, CarDataFault) and fault.burns:
        burn(world, call)
    return await deliver(request, fault, lambda: _perform(world, route, call, fault), lambda: None)


def _perform(world: World, route: Route, call: Call, fault: Fault | None) -> Reply:
    try:
        reply = route.perform(world, call)
        return fault.edit(reply) if isinstance(fault, CarDataFault) else reply
    except Exception:  # noqa: BLE001 - whoever finds a defect of the sandbox needs to see it, and nothing is logged
        return Reply(599, f"Defect of the sandbox:\n{traceback.format_exc()}".encode(), TEXT)


def _count_error(world: World, response: web.StreamResponse) -> None:
    if response.status < 400 or not isinstance(response, web.Response) or response.content_type != JSON:
        return
    try:
        document = orjson.loads(response.body or b"")  # type: ignore[arg-type]  # replies are bytes
    except orjson.JSONDecodeError:
        return
    if isinstance(document, dict):
        world.counters.errors[str(document.get("exveErrorId") or document.get("error") or "other")] += 1
