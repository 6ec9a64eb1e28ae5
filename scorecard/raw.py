"""HTTP by hand: exactly these bytes to a server, and whatever it answers."""

import contextlib
import socket
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RawReply:
    """One reply. Header names are lower-case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def is_json(self) -> bool:
        """Whether it says so."""
        return self.headers.get("content-type") == "application/json"


def exchange(port: int, sent: bytes, *, timeout_s: float = 20) -> bytes:
    """All that a server on this machine answers to ``sent`` and the end of sending. Raises TimeoutError."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection:
        # A server may hang up before it has read everything; what it answered is there to read all the same.
        with contextlib.suppress(ConnectionError):
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
        received = bytearray()
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(65536):
                received += piece
    return bytes(received)


def replies(received: bytes, *, to_head: bool = False) -> list[RawReply]:
    """The replies in ``received``, without interim ones. Raises ValueError for anything that is no HTTP.

    ``to_head``: they answer HEAD requests, and have no body whatever their headers say.
    """
    found = []
    while received:
        head, separator, received = received.partition(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")
        version, _, rest = status_line.partition(" ")
        if not separator or version not in ("HTTP/1.0", "HTTP/1.1"):
            raise ValueError(f"not a reply: {head[:80]!r}")
        status = int(rest[:3])
        if status < 200:
            continue
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        # A server that could not read the request does not know either that it was HEAD.
        bodiless = to_head and not received.startswith(b"<")
        length = 0 if bodiless else int(headers.get("content-length", "0"))
        if len(received) < length:
            raise ValueError("a reply cut short")
        found.append(RawReply(status, headers, received[:length]))
        received = received[length:]
    return found
