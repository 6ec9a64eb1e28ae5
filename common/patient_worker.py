"""A gunicorn worker that gives a request a thread only once the request has arrived whole.

gunicorn's own threaded worker reads requests in its threads, without a limit in time: as many clients as there are
threads, each sending a byte now and then, keep everybody else out. Its main loop waits up to 2 s for each client that
does not hang up after its last reply. Here the main loop gathers requests from all connections at once and waits for
none of them, and sends what a client is too slow to take: a thread neither reads from a client nor waits to write.

A connection stays registered with the poller while its request is being answered, and a thread that has sent the reply
at once gives it back without waking the main loop: most requests cost the main loop one round instead of two.

Who is too slow gets an answer as well: 408 for headers, and for a body whatever the application says to half of one.
"""

import errno
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from selectors import EVENT_READ, EVENT_WRITE
from typing import Any, ClassVar

from gunicorn.http.parser import RequestParser  # type: ignore[import-untyped] # it ships no types
from gunicorn.util import write_error  # type: ignore[import-untyped] # the same
from gunicorn.workers.gthread import TConn, ThreadWorker  # type: ignore[import-untyped] # the same

from common import endings
from common.gathering import Extent, Gathering, Refused, is_plain_and_whole

_READ_BYTES = 2**16
_KEEP_BYTES = 2**16
_LOOK_EVERY_S = 0.1
_GO_AHEAD = b"HTTP/1.1 100 Continue\r\n\r\n"


class _Outgoing:
    """Stands in for a socket while a reply is written: keeps what the socket does not take at once."""

    def __init__(self, real: socket.socket) -> None:
        self._real = real
        self.unsent = bytearray()

    def sendall(self, data: bytes) -> None:
        """Keep ``data``, so that head and body leave together; send what is large. Raises OSError."""
        self.unsent += data
        if len(self.unsent) > _KEEP_BYTES:
            self.send_more()

    def send(self, data: bytes) -> int:
        """The same, for whoever asks how much was taken."""
        self.sendall(data)
        return len(data)

    def setblocking(self, _flag: bool) -> None:
        """It never blocks."""

    def gettimeout(self) -> float:
        """The socket's way of saying so."""
        return 0.0

    def send_more(self) -> None:
        """Send what the socket takes now. Raises OSError where the client is gone."""
        with suppress(BlockingIOError):
            while self.unsent:
                del self.unsent[: self._real.send(self.unsent)]


class _Connection(TConn):  # type: ignore[misc] # it ships no types
    """A client's connection and what it has sent of its next request."""

    def __init__(self, *args: Any) -> None:  # noqa: ANN401 - gunicorn's own
        super().__init__(*args)
        self.initialized = True  # so that gunicorn makes no parser that reads from the socket
        self.gathering = Gathering()
        self.real = self.sock
        """The socket, also while a thread has put :attr:`outgoing` in its place."""
        self.outgoing = _Outgoing(self.sock)
        self.surplus = b""
        self.is_last = False
        self.deadline_s = 0.0
        self.lock = threading.Lock()
        """Between the thread that gives the connection back and the main loop that finds it readable."""
        self.is_busy = False
        """A thread has it. It stays registered all the same."""
        self.spoke_early = False
        """It became readable while it was busy, and is registered no longer."""
        self.on_ready: Callable[[_Connection], None] | None = None
        """What it waits for: an event of anything else is an old one."""
        self.discarded = 0
        """Bytes that arrived after the last reply, which nobody reads."""

    def begin_gathered(self, extent: Extent) -> None:
        """As :meth:`begin`, with what was gathered."""
        request, self.surplus = self.gathering.split(extent)
        self.is_last = extent.last
        self.gathering = Gathering()
        self.begin(request)

    def begin(self, request: bytes) -> None:
        """Make the request the one that the parser finds; a thread will have it."""
        self.is_busy, self.spoke_early = True, False
        # A parser for each: what one leaves unread must never be the beginning of the next.
        self.parser = RequestParser(self.cfg, [request], self.client)


class _Threads:
    """A fixed number of threads for one job, without the futures that an executor makes for each."""

    def __init__(self, count: int, job: Callable[[_Connection], None]) -> None:
        self._waiting: SimpleQueue[_Connection | None] = SimpleQueue()
        self._job = job
        self._count = count
        for number in range(count):
            threading.Thread(target=self._work, name=f"request-{number}", daemon=True).start()

    def take(self, conn: _Connection) -> None:
        """Have a thread do the job, as soon as one is free."""
        self._waiting.put(conn)

    def shutdown(self, *, wait: bool) -> None:  # noqa: ARG002 - gunicorn's, which never waits
        """Let the threads end when they have done what is theirs."""
        for _ in range(self._count):
            self._waiting.put(None)

    def _work(self) -> None:
        while (conn := self._waiting.get()) is not None:
            self._job(conn)


class PatientWorker(ThreadWorker):  # type: ignore[misc] # it ships no types
    """Everything but what threads do runs on the main loop, and never waits for a client."""

    first_byte_s: ClassVar[float] = 5.0
    """How long a new connection may stay silent."""
    request_s: ClassVar[float] = 10.0
    """How long a request may take from its first byte to its last."""
    keepalive_s: ClassVar[float] = 75.0
    """How long a connection may rest between two requests: longer than clients keep theirs, so that it is they who
    hang up, and no request meets a server that is just closing. gunicorn's 2 s are for workers to whom it is a cost."""
    send_s: ClassVar[float] = 10.0
    """How long a client may take to read a reply."""
    linger_s: ClassVar[float] = 2.0
    """How long to wait after the last reply for the client to hang up: closing earlier could cost it the reply."""
    linger_bytes: ClassVar[int] = 40 * 2**20
    """How much of what it still sends to take meanwhile: a little more than Cloud Run lets through."""

    def init_process(self) -> None:
        """Serve until told to end."""
        self._waiting: dict[_Connection, None] = {}
        self._looked_s = 0.0
        super().init_process()

    def run(self) -> None:
        """Serve; then let the application finish what it has begun, also where it is told to end at once."""
        try:
            super().run()
        finally:
            endings.end()

    def accept(self, listener: socket.socket) -> None:
        """Take a new connection."""
        if self.nr_conns >= self.worker_connections - 1:
            self._make_room()
        try:
            accepted, client = listener.accept()
        except OSError as failed:
            if failed.errno in (errno.EMFILE, errno.ENFILE):
                self._make_room()
            return
        self.nr_conns += 1
        self._wait(_Connection(self.cfg, accepted, client, listener.getsockname()), self.first_byte_s, self._receive)

    def get_thread_pool(self) -> _Threads:
        """Who answers requests."""
        return _Threads(self.cfg.threads, self._answer)

    def _answer(self, conn: _Connection) -> None:
        """A thread's job: answer, and give the connection back."""
        conn.sock = conn.outgoing
        try:
            keep = bool(self.handle(conn))
            conn.outgoing.send_more()
        except BaseException:  # noqa: BLE001 - whatever it was, the thread goes on and the connection ends
            keep = False
        finally:
            conn.sock = conn.real
        conn.is_last |= not keep
        if conn.is_last or conn.outgoing.unsent or conn.surplus:
            self.method_queue.defer(self.finish_request, conn)
            return
        with conn.lock:
            conn.deadline_s = time.monotonic() + (self.keepalive_s if self.alive else 0)
            conn.is_busy = False
            spoke_early = conn.spoke_early
        if spoke_early:
            self.method_queue.defer(self.finish_request, conn)

    def finish_request(self, conn: _Connection) -> None:
        """Send the rest of the reply, then wait for the connection's next request or end it."""
        conn.is_busy = False
        self._stop_waiting(conn)
        if conn.outgoing.unsent:
            self._wait(conn, self.send_s, self._send_rest, EVENT_WRITE)
        else:
            self._go_on(conn)

    def murder_keepalived(self, force: bool = False) -> None:
        """End the waiting of those whose time is up; of all with ``force``."""
        now_s = time.monotonic()
        if not force and now_s - self._looked_s < _LOOK_EVERY_S:
            return
        self._looked_s = now_s
        for conn in [conn for conn in self._waiting if not conn.is_busy and (force or conn.deadline_s <= now_s)]:
            if force or conn.gathering.is_empty:
                self._drop(conn)
            elif conn.gathering.has_head:
                self._hand_over(conn, conn.gathering.as_it_is())
            else:
                self._refuse(conn, 408, "Request Timeout")

    def _cap_keepalive(self, deadline: float) -> None:
        """When the server ends: whoever is not being answered waits until ``deadline`` at most."""
        for conn in self._waiting:
            conn.deadline_s = min(conn.deadline_s, deadline)

    def _wait(
        self, conn: _Connection, seconds: float, on_ready: Callable[[_Connection], None], events: int = EVENT_READ
    ) -> None:
        try:
            conn.real.setblocking(False)
            self.poller.register(conn.real, events, partial(self._on_ready, conn, on_ready))
        except (OSError, ValueError):  # it was closed meanwhile
            self._close(conn)
            return
        conn.deadline_s = time.monotonic() + seconds
        conn.on_ready = on_ready
        self._waiting[conn] = None

    def _on_ready(self, conn: _Connection, on_ready: Callable[[_Connection], None], _sock: socket.socket) -> None:
        if conn not in self._waiting or conn.on_ready != on_ready:
            return  # an earlier event of the same round dropped it, or has it wait for something else
        with conn.lock:
            if conn.is_busy:
                # It has more to say than it should yet: it is looked at again when it has been answered.
                conn.spoke_early = True
                self.poller.unregister(conn.real)
                return
        try:
            on_ready(conn)
        except BlockingIOError:
            return
        except OSError:
            self._drop(conn)

    def _receive(self, conn: _Connection) -> None:
        received = conn.real.recv(_READ_BYTES)
        if received:
            self._gather(conn, received)
        elif conn.gathering.is_empty:
            self._drop(conn)
        else:
            self._hand_over(conn, conn.gathering.as_it_is())

    def _send_rest(self, conn: _Connection) -> None:
        conn.outgoing.send_more()
        if not conn.outgoing.unsent:
            self._stop_waiting(conn)
            self._go_on(conn)

    def _go_on(self, conn: _Connection) -> None:
        if conn.is_last:
            self._linger(conn)
            return
        self._wait(conn, self.keepalive_s if self.alive else 0, self._receive)
        if conn.surplus and conn in self._waiting:
            self._gather(conn, conn.surplus)

    def _gather(self, conn: _Connection, received: bytes) -> None:
        if conn.gathering.is_empty:
            if is_plain_and_whole(received):
                conn.surplus = b""
                conn.begin(received)
                self.tpool.take(conn)
                return
            conn.deadline_s = time.monotonic() + self.request_s
        try:
            extent = conn.gathering.add(received)
        except Refused as refused:
            self._refuse(conn, refused.status, refused.reason)
            return
        if extent is not None:
            self._hand_over(conn, extent)
        elif conn.gathering.take_go_ahead():
            with suppress(OSError):  # reading will tell
                conn.real.send(_GO_AHEAD)

    def _hand_over(self, conn: _Connection, extent: Extent) -> None:
        conn.begin_gathered(extent)
        self.tpool.take(conn)

    def _refuse(self, conn: _Connection, status: int, reason: str) -> None:
        self._stop_waiting(conn)
        with suppress(OSError):
            write_error(conn.real, status, reason, "")
        self._linger(conn)

    def _linger(self, conn: _Connection) -> None:
        conn.gathering = Gathering()
        try:
            conn.real.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(conn)
        else:
            self._wait(conn, self.linger_s, self._discard)

    def _discard(self, conn: _Connection) -> None:
        received = conn.real.recv(_READ_BYTES)
        conn.discarded += len(received)
        if not received or conn.discarded > self.linger_bytes:
            self._drop(conn)

    def _make_room(self) -> None:
        """Give up the connection that has been waiting longest, so that nobody can take all there are."""
        idle = [conn for conn in self._waiting if not conn.is_busy]
        if idle:
            self._drop(min(idle, key=lambda conn: conn.deadline_s))

    def _drop(self, conn: _Connection) -> None:
        self._stop_waiting(conn)
        self._close(conn)

    def _stop_waiting(self, conn: _Connection) -> None:
        del self._waiting[conn]
        if not conn.spoke_early:
            self.poller.unregister(conn.real)
        conn.spoke_early = False

    def _close(self, conn: _Connection) -> None:
        self.nr_conns -= 1
        conn.close()
