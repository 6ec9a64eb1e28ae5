"""The quickest HTTP server that plain asyncio makes: it shows what the load generator can do, not what a server can.

Prints its port, then answers every request on 127.0.0.1 with the same few bytes until it is terminated.
"""

import asyncio

REPLY = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


class Answer(asyncio.Protocol):
    """Answers each segment as one request, which holds for clients that wait for each reply."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 -- asyncio promises it for TCP; mypy cannot know
        self._transport = transport

    def data_received(self, data: bytes) -> None:  # noqa: ARG002 -- the signature is asyncio's
        """Answer."""
        self._transport.write(REPLY)


async def main() -> None:
    """Serve for ever."""
    server = await asyncio.get_running_loop().create_server(Answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
