"""Clients that take their time, in several ways."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_PAUSE_S = 0.2


@dataclass(frozen=True, slots=True)
class SlowClient:
    """One way of being slow."""

    name: str
    beginning: bytes
    """Sent at once."""
    drip: bytes
    """Sent every 0.2 s from then on, one byte of it after the other; nothing where it is empty."""

    @contextmanager
    def attacking(self, port: int, count: int) -> Iterator[None]:
        """``count`` connections that do this; one that the server closes is opened anew."""
        over = threading.Event()
        began = threading.Event()
        attack = threading.Thread(target=self._attack, args=(port, count, began, over), name="attack")
        attack.start()
        try:
            began.wait()
            yield
        finally:
            over.set()
            attack.join()

    def _attack(self, port: int, count: int, began: threading.Event, over: threading.Event) -> None:
        clients = [self._open(port) for _ in range(count)]
        began.set()
        step = 0
        while not over.wait(_PAUSE_S):
            for number, client in enumerate(clients):
                if self._is_closed(client):
                    client.close()
                    clients[number] = self._open(port)
                elif self.drip:
                    with contextlib.suppress(OSError):
                        client.send(self.drip[step % len(self.drip) :][:1])
            step += 1
        for client in clients:
            client.close()

    def _open(self, port: int) -> socket.socket:
        client = socket.socket()
        # So that what a client does not read fills no more than this.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.settimeout(5)
        client.connect(("127.0.0.1", port))
        client.setblocking(False)
        with contextlib.suppress(OSError):
            client.send(self.beginning)
        return client

    @staticmethod
    def _is_closed(client: socket.socket) -> bool:
        try:
            return client.recv(65536, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True


def slow_clients(request: bytes) -> tuple[SlowClient, ...]:
    """Every way; ``request`` is a good one, with the body ``{}``."""
    head, _, _ = request.partition(b"\r\n\r\n")
    endless = head.replace(b"Content-Length: 2", b"Content-Length: 33000000")
    chunked = head.replace(b"Content-Length: 2", b"Transfer-Encoding: chunked")
    closing = head + b"\r\nConnection: close\r\n\r\n{}"
    unhurried = head.replace(b"Content-Length: 2", b"Content-Length: 2000") + b"\r\n\r\n{"
    page = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    return (
        SlowClient("nothing to say", b"", b""),
        SlowClient("half a request line", b"POST / HT", b""),
        SlowClient("headers byte by byte", head + b"\r\nX: ", b"a"),
        SlowClient("a body byte by byte", unhurried, b" "),
        SlowClient("chunks byte by byte", chunked + b"\r\n\r\n", b"1\r\n \r\n"),
        SlowClient("33 MB byte by byte", endless + b"\r\n\r\n{", b" "),
        SlowClient("no wish to hang up", closing, b"x"),
        SlowClient("no eye for the replies", page * 40, b""),
    )
