"""The stream: MQTT over TLS, one connection a customer, nothing kept for those who are away."""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from sandbox.cardata_messages import messages
from sandbox.cardata_mqtt import (
    Connect,
    MalformedError,
    Packet,
    Why,
    acknowledge,
    connack,
    disconnect,
    parse_connect,
    parse_subscribe,
    pingresp,
    publish,
    read_packet,
)
from sandbox.cardata_time import real_s
from sandbox.cardata_tls import Certificates
from sandbox.cardata_tokens import STREAM_SCOPE
from sandbox.cardata_world import World

KEEPALIVE_MAX_S: Final = 30
_GRACE: Final = 1.5
"""A client may be silent for so many keepalives."""
_CONNECT_WITHIN_S: Final = 10.0
_SWEEP_EVERY_S: Final = 0.25
_FAREWELL_S: Final = 0.5
"""How long a client may take to hang up once the server has."""


@dataclass(slots=True, eq=False)
class Connection:
    """One client that was let in."""

    gcid: str
    connect: Connect
    writer: asyncio.StreamWriter = field(repr=False)
    expires_s: float
    """When its id token does, on the simulated clock."""
    heard_s: float
    """When it last sent something, on the real one."""
    filters: set[str] = field(default_factory=set)

    @property
    def silence_allowed_s(self) -> float:
        """How long it may say nothing."""
        return _GRACE * min(self.connect.keepalive_s or KEEPALIVE_MAX_S, KEEPALIVE_MAX_S)

    def send(self, packet: bytes) -> None:
        """Write, unless it is on its way out."""
        if not self.writer.is_closing():
            self.writer.write(packet)


class Stream:
    """The broker. ``start`` listens, ``stop`` ends it; all else is done within one turn of the loop."""

    def __init__(self, world: Callable[[], World], certificates: Certificates) -> None:
        self._world = world
        self.certificates = certificates
        self.address: tuple[str, int] = ("", 0)
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()
        self._connections: dict[str, Connection] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._streamed_s = 0.0

    async def start(self, host: str, port: int) -> None:
        """Listen; port 0 takes a free one."""
        self._server = await asyncio.start_server(
            self._client, host, port, ssl=self.certificates.context, backlog=1024, ssl_shutdown_timeout=_FAREWELL_S
        )
        self.address = (host, self._server.sockets[0].getsockname()[1])
        self._streamed_s = self._world().now_s
        self._keep_sweeping()

    async def stop(self) -> None:
        """Stop listening and drop every connection."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._server is not None:
            self._server.close()
        self.drop_all(Why.SERVER_SHUTTING_DOWN)
        if self._clients:
            _, left = await asyncio.wait(self._clients, timeout=_FAREWELL_S)
            for task in left:
                task.cancel()
            await asyncio.gather(*left)

    @property
    def waiting(self) -> int:
        """TCP connections that have not been let in, or are on their way out."""
        return len(self._clients) - len(self._connections)

    def connections(self) -> list[dict[str, Any]]:
        """Who is connected, as JSON."""
        return [
            {
                "gcid": connection.gcid,
                "client_id": connection.connect.client_id,
                "mqtt": {4: "3.1.1", 5: "5"}[connection.connect.version],
                "keepalive_s": connection.connect.keepalive_s,
                "filters": sorted(connection.filters),
            }
            for connection in self._connections.values()
        ]

    def drop(self, gcid: str, why: Why) -> bool:
        """End the customer's connection; whether there was one."""
        connection = self._connections.pop(gcid, None)
        if connection is None:
            return False
        self._world().counters.stream[f"dropped_{why.name.lower()}"] += 1
        connection.send(disconnect(connection.connect.version, why))
        connection.writer.close()
        return True

    def drop_all(self, why: Why) -> int:
        """End every connection; how many there were."""
        return sum(self.drop(gcid, why) for gcid in list(self._connections))

    def sweep(self) -> None:
        """End connections that are silent, or whose id token has expired; stream, if streaming is live."""
        world = self._world()
        now_s, real_now_s = world.now_s, real_s(world.clock)
        for connection in list(self._connections.values()):
            if now_s >= connection.expires_s:
                self.drop(connection.gcid, Why.ID_TOKEN_EXPIRED)
            elif real_now_s - connection.heard_s > connection.silence_allowed_s:
                self.drop(connection.gcid, Why.KEEPALIVE)
        if world.settings.live_stream:
            for gcid in list(self._connections):
                self.publish_span(gcid, None, self._streamed_s, now_s)
        self._streamed_s = now_s

    def publish_span(self, gcid: str, vin: str | None, after_s: float, until_s: float) -> tuple[int, int]:
        """Stream what the customer's cars said in a span, in order; how many messages there were, and arrived."""
        world = self._world()
        customer = world.customers.find(gcid)
        vins = [own for own in customer.vins if customer.may_read(own) and vin in (None, own)] if customer else []
        cars = [world.customers.cars[own] for own in vins]
        split = world.settings.split_position
        keys = customer.streamed if customer else ()
        span = [m for car in cars for m in messages(car, keys, after_s, until_s, split_position=split)]
        span.sort(key=lambda message: message.sent_s)
        return len(span), sum(self.publish(gcid, message.vin, message.payload) for message in span)

    def publish(self, gcid: str, vin: str, payload: bytes) -> bool:
        """Send one message; whether somebody was there to get it."""
        counters = self._world().counters
        counters.stream["messages"] += 1
        connection = self._connections.get(gcid)
        if connection is None or not connection.filters & {f"{gcid}/+", f"{gcid}/{vin}"}:
            return False
        connection.send(publish(connection.connect.version, f"{gcid}/{vin}", payload))
        counters.stream["delivered"] += 1
        return True

    def _keep_sweeping(self) -> None:
        self.sweep()
        self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_EVERY_S, self._keep_sweeping)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._clients.add(task)
            task.add_done_callback(self._clients.discard)
        connection: Connection | None = None
        try:
            async with asyncio.timeout(_CONNECT_WITHIN_S):
                kind, body = await read_packet(reader)
            if kind is not Packet.CONNECT:
                raise MalformedError("it does not introduce itself")  # noqa: TRY301 - as all that is malformed
            connection = self._let_in(parse_connect(body), writer)
            while connection is not None and self._hear(connection, *await read_packet(reader)):
                pass
        except MalformedError:
            self._world().counters.stream["malformed"] += 1
            if connection is not None:
                self._drop_this(connection, Why.PROTOCOL_ERROR)
        except asyncio.CancelledError:
            # Only stop() cancels, and asyncio's own callback cannot bear a cancelled handler.
            writer.transport.abort()
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            pass
        finally:
            if connection is not None and self._connections.get(connection.gcid) is connection:
                del self._connections[connection.gcid]
            writer.close()

    def _let_in(self, connect: Connect, writer: asyncio.StreamWriter) -> Connection | None:
        world = self._world()
        why = self._refusal(world, connect)
        if why is not Why.NORMAL:
            world.counters.stream[f"refused_{why.name.lower()}"] += 1
            writer.write(connack(connect.version, why))
            return None
        gcid = connect.username
        self.drop(gcid, Why.TAKEN_OVER)
        expires_s = world.tokens.ids[connect.password].expires_s
        connection = Connection(gcid, connect, writer, expires_s, real_s(world.clock))
        self._connections[gcid] = connection
        world.counters.stream["connects"] += 1
        assigned = None if connect.client_id else secrets.token_hex(8)
        connection.send(connack(connect.version, Why.NORMAL, assigned))
        return connection

    def _refusal(self, world: World, connect: Connect) -> Why:
        issued = world.tokens.ids.get(connect.password)
        customer = world.customers.find(connect.username)
        if issued is None or customer is None or issued.grant.gcid != customer.gcid or world.now_s >= issued.expires_s:
            return Why.BAD_CREDENTIALS
        if STREAM_SCOPE not in issued.grant.scope or not customer.stream_subscribed:
            return Why.NOT_AUTHORIZED
        if world.settings.refuse_long_keepalive and not 0 < connect.keepalive_s <= KEEPALIVE_MAX_S:
            return Why.KEEPALIVE_REFUSED
        return Why.NORMAL

    def _hear(self, connection: Connection, kind: Packet, body: bytes) -> bool:
        """Act on a packet; whether the connection goes on."""
        connection.heard_s = real_s(self._world().clock)
        version = connection.connect.version
        match kind:
            case Packet.PINGREQ:
                connection.send(pingresp())
            case Packet.SUBSCRIBE:
                asked = parse_subscribe(kind, body, version)
                if not self._may_hear(connection.gcid, asked.filters):
                    self._drop_this(connection, Why.TOPIC_FILTER)
                    return False
                connection.filters.update(asked.filters)
                connection.send(acknowledge(Packet.SUBACK, version, asked))
            case Packet.UNSUBSCRIBE:
                asked = parse_subscribe(kind, body, version)
                connection.filters.difference_update(asked.filters)
                connection.send(acknowledge(Packet.UNSUBACK, version, asked))
            case Packet.DISCONNECT:
                return False
            case _:
                self._drop_this(connection, Why.PROTOCOL_ERROR)
                return False
        return True

    def _may_hear(self, gcid: str, filters: tuple[str, ...]) -> bool:
        """``{gcid}/+`` or one of the customer's cars below it; a bare VIN, say, ends the connection."""
        customer = self._world().customers.find(gcid)
        own = {f"{gcid}/{vin}" for vin in customer.vins if customer.may_read(vin)} if customer else set()
        return set(filters) <= own | {f"{gcid}/+"}

    def _drop_this(self, connection: Connection, why: Why) -> None:
        if self._connections.get(connection.gcid) is connection:
            self.drop(connection.gcid, why)
