"""HTTP/1.1 over a plain socket, as little as a measurement needs: one keep-alive connection, one reply at a time.

A full client library would spend more time on a reply than some of the servers measured here.
"""

import socket
from dataclasses import dataclass
from types import TracebackType
from typing import Self


@dataclass(frozen=True)
class Reply:
    """A whole HTTP reply."""

    status: int
    headers: dict[str, str]
    body: bytes


def post(path: str, body: bytes, headers: dict[str, str] | None = None) -> bytes:
    """The bytes of a JSON POST."""
    return request("POST", path, body, {"Content-Type": "application/json"} | (headers or {}))


def request(method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> bytes:
    """The bytes of any request."""
    fields = {"Host": "127.0.0.1", "Content-Length": str(len(body))} | (headers or {})
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body


def split_head(received: bytes) -> tuple[int, dict[str, str], int] | None:
    """Status, headers (names in lower case) and where the body begins; ``None`` while the head is incomplete."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return None
    first, *lines = received[:end].decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(first.split(" ", 2)[1]), headers, end + 4


class Connection:
    """One keep-alive connection. Not for use by several threads."""

    def __init__(self, port: int, timeout_s: float = 60.0) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()

    def ask(self, message: bytes) -> Reply:
        """Send a request and wait for its whole reply; raises ``ConnectionError`` where the server hangs up."""
        self._socket.sendall(message)
        received = b""
        while (head := split_head(received)) is None:
            received += self._receive()
        status, headers, start = head
        if "content-length" not in headers:
            raise ConnectionError("a reply without Content-Length")
        end = start + int(headers["content-length"])
        while len(received) < end:
            received += self._receive()
        return Reply(status, headers, received[start:end])

    def _receive(self) -> bytes:
        part = self._socket.recv(65536)
        if not part:
            raise ConnectionError("the server closed the connection in the middle of a reply")
        return part


def ask_once(port: int, message: bytes, timeout_s: float = 60.0) -> Reply:
    """One request on a connection of its own."""
    with Connection(port, timeout_s) as connection:
        return connection.ask(message)
