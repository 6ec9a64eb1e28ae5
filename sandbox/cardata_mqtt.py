"""MQTT 3.1.1 and 5, as much of it as a server needs that only publishes, at most once. Bytes only, no sockets.

Not amqtt: it knows no MQTT 5, takes a second connection for the first one's successor by client id and not by user
name, answers a forbidden subscription with 0x80 where CarData hangs up, and cannot be told the time.
"""

import asyncio
import struct
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

V311: Final = 4
V5: Final = 5
MAX_PACKET: Final = 64 * 1024


class Packet(IntEnum):
    """Control packet types."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14


class Why(IntEnum):
    """Why a connection is refused or ended: reason codes of MQTT 5."""

    NORMAL = 0x00
    PROTOCOL_ERROR = 0x82
    KEEPALIVE_REFUSED = 0x83
    """Implementation specific."""
    BAD_CREDENTIALS = 0x86
    NOT_AUTHORIZED = 0x87
    SERVER_SHUTTING_DOWN = 0x8B
    KEEPALIVE = 0x8D
    TAKEN_OVER = 0x8E
    TOPIC_FILTER = 0x8F
    ID_TOKEN_EXPIRED = 0xA0
    """Maximum connect time."""


_V311_CODES: Final = {Why.BAD_CREDENTIALS: 4, Why.NOT_AUTHORIZED: 5, Why.KEEPALIVE_REFUSED: 3}
_FIXED_FLAGS: Final = {Packet.SUBSCRIBE: 2, Packet.UNSUBSCRIBE: 2}


class MalformedError(Exception):
    """The bytes are no MQTT, or of a version that nobody speaks here."""


@dataclass(frozen=True, slots=True)
class Connect:
    """A client that introduces itself."""

    version: int
    client_id: str
    keepalive_s: int
    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Topic filters that a client asks for, or no longer wants."""

    packet_id: int
    filters: tuple[str, ...]


class _Reader:
    """Takes a packet apart. Raises MalformedError where it ends early."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    @property
    def more(self) -> bool:
        return self._at < len(self._body)

    def take(self, length: int) -> bytes:
        taken = self._body[self._at : self._at + length]
        if len(taken) < length:
            raise MalformedError("the packet ends early")
        self._at += length
        return taken

    def byte(self) -> int:
        return self.take(1)[0]

    def short(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def binary(self) -> bytes:
        return self.take(self.short())

    def text(self) -> str:
        try:
            return self.binary().decode()
        except UnicodeDecodeError as error:
            raise MalformedError("a text is not UTF-8") from error

    def skip_properties(self, version: int) -> None:
        """Properties are MQTT 5's; none of them changes what this server does."""
        if version == V5:
            length = shift = 0
            while True:
                digit = self.byte()
                length |= (digit & 0x7F) << shift
                shift += 7
                if digit < 0x80:
                    break
                if shift > 21:
                    raise MalformedError("a length is too long")
            self.take(length)


async def read_packet(reader: asyncio.StreamReader) -> tuple[Packet, bytes]:
    """The next packet a client may send. Raises MalformedError, and IncompleteReadError at the end."""
    first = (await reader.readexactly(1))[0]
    length = shift = 0
    while True:
        digit = (await reader.readexactly(1))[0]
        length |= (digit & 0x7F) << shift
        shift += 7
        if digit < 0x80:
            break
        if shift > 21:
            raise MalformedError("a length is too long")
    if length > MAX_PACKET:
        raise MalformedError("the packet is too long")
    try:
        kind = Packet(first >> 4)
    except ValueError as error:
        raise MalformedError("there is no such packet") from error
    if kind is not Packet.PUBLISH and first & 0x0F != _FIXED_FLAGS.get(kind, 0):
        raise MalformedError("wrong flags")
    return kind, await reader.readexactly(length)


def parse_connect(body: bytes) -> Connect:
    """A CONNECT. Raises MalformedError."""
    reader = _Reader(body)
    name, version, flags, keepalive_s = reader.text(), reader.byte(), reader.byte(), reader.short()
    if name != "MQTT" or version not in (V311, V5) or flags & 0x01:
        raise MalformedError("not MQTT 3.1.1 or 5")
    reader.skip_properties(version)
    client_id = reader.text()
    if flags & 0x04:
        reader.skip_properties(version)
        reader.text()
        reader.binary()
    username = reader.text() if flags & 0x80 else ""
    password = reader.binary().decode("utf-8", "replace") if flags & 0x40 else ""
    return Connect(version, client_id, keepalive_s, username, password)


def parse_subscribe(kind: Packet, body: bytes, version: int) -> Subscribe:
    """A SUBSCRIBE or an UNSUBSCRIBE. Raises MalformedError."""
    reader = _Reader(body)
    packet_id = reader.short()
    reader.skip_properties(version)
    filters = []
    while reader.more:
        filters.append(reader.text())
        if kind is Packet.SUBSCRIBE:
            reader.byte()
    if not packet_id or not filters:
        raise MalformedError("it asks for nothing")
    return Subscribe(packet_id, tuple(filters))


def connack(version: int, why: Why, assigned_client_id: str | None = None) -> bytes:
    """The answer to a CONNECT. Sessions are never kept, nothing is retained, and QoS is 0."""
    if version == V311:
        return _packet(Packet.CONNACK, bytes((0, _V311_CODES.get(why, int(why)))))
    properties = b""
    if why is Why.NORMAL:
        properties = b"\x11" + bytes(4) + b"\x24\x00" + b"\x25\x00"
        if assigned_client_id is not None:
            properties += b"\x12" + _text(assigned_client_id)
    return _packet(Packet.CONNACK, bytes((0, why)) + _length(len(properties)) + properties)


def acknowledge(kind: Packet, version: int, asked: Subscribe) -> bytes:
    """SUBACK, granting QoS 0 each, or UNSUBACK."""
    properties = b"\x00" if version == V5 else b""
    codes = b"" if kind is Packet.UNSUBACK and version == V311 else bytes(len(asked.filters))
    return _packet(kind, asked.packet_id.to_bytes(2, "big") + properties + codes)


def publish(version: int, topic: str, payload: bytes) -> bytes:
    """A message, at most once."""
    return _packet(Packet.PUBLISH, _text(topic) + (b"\x00" if version == V5 else b"") + payload)


def pingresp() -> bytes:
    """The answer to a PINGREQ."""
    return _packet(Packet.PINGRESP, b"")


def disconnect(version: int, why: Why) -> bytes:
    """A server's last words: only MQTT 5 has any."""
    return _packet(Packet.DISCONNECT, bytes((why, 0))) if version == V5 else b""


def _packet(kind: Packet, body: bytes) -> bytes:
    return bytes((kind << 4,)) + _length(len(body)) + body


def _length(length: int) -> bytes:
    encoded = bytearray()
    while True:
        length, digit = divmod(length, 128)
        encoded.append(digit | (0x80 if length else 0))
        if not length:
            return bytes(encoded)


def _text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack(">H", len(encoded)) + encoded
