"""One Redis connection that listens. It ends rather than reconnects: whoever listens must learn that he was deaf."""

import math
from typing import Any

from redis.exceptions import RedisError

from common.stores.shared import SharedUnavailable


class RedisSubscription:
    """See :class:`common.stores.shared.Subscription`. ``connection`` is a redis-py connection, not yet connected."""

    def __init__(self, connection: Any) -> None:  # noqa: ANN401 - the library's connections are untyped
        self._connection = connection

    async def enter(self, topic: str) -> None:
        """Connect and subscribe; the server has confirmed it when this returns. Raises the library's errors."""
        await self._connection.connect()
        await self._connection.send_command("SUBSCRIBE", topic)
        await self._connection.read_response()

    async def receive(self) -> bytes | None:
        """See the port."""
        try:
            kind, *_, content = await self._connection.read_response(timeout=math.inf)
        except (RedisError, OSError) as exc:
            raise SharedUnavailable(type(exc).__name__) from exc
        return content if kind == b"message" else None

    async def ping(self) -> None:
        """See the port."""
        try:
            # The library would connect again where the connection has ended.
            if not self._connection.is_connected:
                raise SharedUnavailable("the subscription has ended")
            await self._connection.send_command("PING")
        except (RedisError, OSError) as exc:
            raise SharedUnavailable(type(exc).__name__) from exc

    async def leave(self) -> None:
        """Close the connection."""
        await self._connection.disconnect(nowait=True)
