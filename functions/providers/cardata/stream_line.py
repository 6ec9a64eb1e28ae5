"""One connection to the stream: MQTT 5 over TLS 1.3, which says why it ends."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

import aiomqtt
from paho.mqtt.reasoncodes import ReasonCode

from functions.providers.cardata.stream_retry import Ending

KEEPALIVE_S: Final = 25
"""BMW allows 30."""
_FAREWELL_S: Final = 2.0
_ENDINGS: Final[Mapping[int, Ending]] = {
    0x86: Ending.REFUSED,
    0x87: Ending.NOT_SUBSCRIBED,
    0x8E: Ending.EVICTED,
    0xA0: Ending.EXPIRED,
}
"""By MQTT's reason code; every other one is LOST."""


class LineEnded(Exception):
    """There is no connection (any more)."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending.value)
        self.ending = ending


class Line(Protocol):
    """A connection that hears one customer's cars."""

    def messages(self) -> AsyncIterator[tuple[str, bytes]]:
        """Topic and payload of each message; raises LineEnded at the end, and after the last one that arrived."""
        ...

    async def close(self) -> None:
        """End it; raises nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Broker:
    """Where the stream is."""

    host: str
    port: int
    tls: ssl.SSLContext = field(repr=False)
    patience_s: float = 10.0
    """How long to wait for each of its answers."""

    async def open(self, gcid: str, id_token: str) -> Line:
        """Connect as a customer and hear all of his cars, which ends any other connection of his. Raises LineEnded."""
        client = aiomqtt.Client(
            self.host,
            self.port,
            username=gcid,
            password=id_token,
            protocol=aiomqtt.ProtocolVersion.V5,
            tls_context=self.tls,
            keepalive=KEEPALIVE_S,
            timeout=self.patience_s,
        )
        await _connected(client)
        line = _MqttLine(client)
        try:
            _check(await client.subscribe(f"{gcid}/+", qos=0))
        except aiomqtt.MqttError as error:
            await line.close()
            raise LineEnded(_ending_of(error)) from error
        except BaseException:
            await line.close()
            raise
        return line


class _MqttLine:
    def __init__(self, client: aiomqtt.Client) -> None:
        self._client = client

    async def messages(self) -> AsyncIterator[tuple[str, bytes]]:
        try:
            async for message in self._client.messages:
                if isinstance(message.payload, bytes):
                    yield message.topic.value, message.payload
        except aiomqtt.MqttError as error:
            raise LineEnded(_ending_of(error)) from error

    async def close(self) -> None:
        with contextlib.suppress(aiomqtt.MqttError, TimeoutError):
            async with asyncio.timeout(_FAREWELL_S):
                await self._client.__aexit__(None, None, None)


async def _connected(client: aiomqtt.Client) -> None:
    # The library connects on a thread, which cannot be cancelled: given up half-way, it would connect all the same,
    # later, and evict whoever is connected by then.
    connecting = asyncio.ensure_future(client.__aenter__())
    try:
        await asyncio.shield(connecting)
    except aiomqtt.MqttError as error:
        raise LineEnded(_ending_of(error)) from error
    except asyncio.CancelledError:
        await asyncio.wait({connecting})
        if connecting.exception() is None:
            await _MqttLine(client).close()
        raise


def _check(answers: Iterable[int | ReasonCode]) -> None:
    """Raises LineEnded where the subscription was not granted."""
    for answer in answers:
        code = answer.value if isinstance(answer, ReasonCode) else answer
        if code >= 0x80:
            raise LineEnded(_ENDINGS.get(code, Ending.LOST))


def _ending_of(error: BaseException) -> Ending:
    """The library wraps what the broker said once more where messages were being waited for."""
    for one in (error, error.__cause__):
        if isinstance(one, aiomqtt.MqttCodeError) and isinstance(one.rc, ReasonCode):
            return _ENDINGS.get(one.rc.value, Ending.LOST)
    return Ending.LOST
