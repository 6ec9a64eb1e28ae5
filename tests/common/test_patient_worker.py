"""A real gunicorn with the patient worker, its waits shortened, in front of clients that keep it waiting."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

SERVER = """
import resource, sys, threading, time
from gunicorn.app.base import BaseApplication
from common import endings
from common.patient_worker import PatientWorker

class Hasty(PatientWorker):
    first_byte_s, request_s, send_s, linger_s, linger_bytes, keepalive_s = 3, 2, 2, 2, 100_000, 1
    hold, held = threading.Event(), threading.Event()

    def init_process(self):
        Hasty.serving = self
        super().init_process()

    def wait_for_and_dispatch_events(self, timeout):
        if self.hold.is_set():
            self.held.set()
            self.poller.select()
            print("replied", flush=True)
            while len(self.poller.select(0)) < 2:
                time.sleep(0.001)
            self.hold.clear()
        super().wait_for_and_dispatch_events(timeout)

def application(environ, start_response):
    if environ["PATH_INFO"] == "/smuggled":
        print("smuggled", flush=True)
    if environ["PATH_INFO"] == "/held":
        Hasty.serving.method_queue.defer(Hasty.hold.set)
        Hasty.held.wait()
    read = environ["wsgi.input"].read() if environ["PATH_INFO"] not in ("/unread", "/held") else b""
    body = b"x" * 8_000_000 if environ["PATH_INFO"] == "/huge" else environ["PATH_INFO"].encode() + b" " + read
    start_response("200 OK", [("Content-Length", str(len(body)))])
    if environ["PATH_INFO"] == "/begun":
        endings.at_end(lambda: print("first begun, last ended", flush=True))
        endings.at_end(lambda: 1 / 0)
    return [body]

class Application(BaseApplication):
    def load_config(self):
        settings = {"bind": "127.0.0.1:0", "workers": 1, "threads": 2, "worker_class": Hasty, "loglevel": "info",
                    "worker_connections": int(sys.argv[1]), "timeout": 0}
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self):
        return application

if len(sys.argv) > 2:
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]),) * 2)
Application().run()
"""
THREADS, CONNECTIONS, HUGE = 2, 20, 8_000_000
_ESTABLISHED = 1
"""A TCP connection that neither side has closed, in Linux's numbers."""
GET = b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: localhost\r\n"
CLOSE = b"GET /close HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class Server:
    """The process, and clients of it."""

    def __init__(self, log: Path, *, connections: int = CONNECTIONS, open_files: str = "") -> None:
        arguments = [str(connections), *open_files.split()]
        self.log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SERVER, *arguments], stdout=out, stderr=out, env=_ENVIRON
            )
        self.port = self._port()

    def client(self) -> "Client":
        return Client(self.port)

    def answers(self, **more: Any) -> float:
        """How long an ordinary request takes, seconds."""
        began_s = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        connection.request("POST", "/", b"hello", **more)
        assert connection.getresponse().read() == b"/ hello"
        connection.close()
        return time.perf_counter() - began_s

    def _port(self) -> int:
        while self.process.poll() is None:
            lines = self.log.read_text().splitlines()
            listening = [line for line in lines if "Listening at:" in line]
            if listening and any("Booting worker" in line for line in lines):
                return int(listening[0].rpartition(":")[2].split()[0])
        raise AssertionError(self.log.read_text())


class Client:
    """A connection that sends what it is told to."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=5)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def until(self, ending: bytes) -> bytes:
        received = bytearray()
        while not received.endswith(ending):
            piece = self.socket.recv(2**20)
            assert piece, received[:1000]
            received += piece
        return bytes(received)

    def is_open(self) -> bool:
        """Whether the server has not closed it, without reading what it sent."""
        state = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        return state == _ESTABLISHED

    def until_closed(self) -> bytes:
        return b"".join(iter(lambda: self.socket.recv(65536), b""))


_ENVIRON = {**os.environ, "PYTHONPATH": str(Path.cwd())}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("server") / "log")
    yield running
    running.process.terminate()
    running.process.wait(10)
    assert "Traceback" not in running.log.read_text()
    assert "smuggled" not in running.log.read_text()


def test_requests_that_come_at_once_are_answered_one_after_the_other(server: Server) -> None:
    with server.client() as client:
        client.send(GET % b"/1" + POST + b"Content-Length: 3\r\n\r\ntwo" + GET % b"/3")
        replies = client.until(b"/3 ")
    assert [replies.index(body) for body in (b"/1 ", b"/ two", b"/3 ")] == sorted(
        replies.index(body) for body in (b"/1 ", b"/ two", b"/3 ")
    )
    assert replies.count(b"200 OK") == 3


def test_a_request_in_pieces_on_a_connection_that_was_used_before_is_answered(server: Server) -> None:
    with server.client() as client:
        client.send(GET % b"/1")
        client.until(b"/1 ")
        for piece in (POST, b"Content-Length: 5\r\n", b"\r\n", b"he", b"llo"):
            client.send(piece)
        assert client.until(b"/ hello")


def test_a_chunked_request_is_answered_and_its_connection_closed(server: Server) -> None:
    with server.client() as client:
        client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n" + GET % b"/smuggled")
        replies = client.until_closed()
    assert replies.endswith(b"/ hello")
    assert replies.count(b"200 OK") == 1


def test_whoever_asks_before_sending_a_body_is_told_to_go_ahead(server: Server) -> None:
    with server.client() as client:
        client.send(POST + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        assert client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"hello")
        assert b"200 OK" in client.until(b"/ hello")


def test_a_request_behind_another_is_told_to_go_ahead_too(server: Server) -> None:
    with server.client() as client:
        client.send(GET % b"/1" + POST + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        client.until(b"/1 HTTP/1.1 100 Continue\r\n\r\n")
        client.send(b"hello")
        client.until(b"/ hello")


def test_a_client_that_has_nothing_more_to_send_still_gets_its_reply(server: Server) -> None:
    with server.client() as client:
        client.send(GET % b"/half")
        client.socket.shutdown(socket.SHUT_WR)
        assert client.until_closed().endswith(b"/half ")


def test_a_body_cut_short_reaches_the_application_as_far_as_it_came(server: Server) -> None:
    with server.client() as client:
        client.send(POST + b"Content-Length: 5\r\n\r\nhel")
        client.socket.shutdown(socket.SHUT_WR)
        assert client.until_closed().endswith(b"/ hel")


@pytest.mark.parametrize(
    ("beginning", "drip", "reply"),
    [
        (b"", b"", b""),
        (b"POST / HT", b"", b"HTTP/1.1 408 Request Timeout"),
        (POST, b"X: 1\r\n", b"HTTP/1.1 408 Request Timeout"),
        (POST + b"Content-Length: 100\r\n\r\n", b"a", b"HTTP/1.1 200 OK"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n", b""),
    ],
    ids=["silence", "half a line", "headers one by one", "a body byte by byte", "chunks without an end"],
)
def test_slow_clients_keep_nobody_out_and_are_not_waited_for_long(
    server: Server, beginning: bytes, drip: bytes, reply: bytes
) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(server.client()) for _ in range(THREADS * 4)]
        for client in slow:
            client.send(beginning)
        began_s = time.monotonic()
        took_s: list[float] = []
        while (is_early := time.monotonic() < began_s + 0.4) or len(took_s) < 5:
            for client in slow if is_early else []:  # none is sent to a server that is just giving up
                client.send(drip)
            took_s.append(server.answers())
        assert sorted(took_s)[len(took_s) // 2] < 0.3
        for client in slow:
            assert client.until_closed().startswith(reply)
        assert time.monotonic() < began_s + 8


def test_clients_that_do_not_hang_up_after_their_last_reply_keep_nobody_out(server: Server) -> None:
    began_s = time.monotonic()
    with ExitStack() as stack:
        for _ in range(THREADS * 4):
            client = stack.enter_context(server.client())
            client.send(CLOSE)
            client.until(b"/close ")
        server.answers()
        assert time.monotonic() < began_s + 4


def test_clients_that_do_not_read_their_replies_keep_nobody_out_and_are_given_up(server: Server) -> None:
    with ExitStack() as stack:
        unread = [stack.enter_context(server.client()) for _ in range(THREADS * 2)]
        for client in unread:
            client.send(GET % b"/huge")
        assert server.answers() < 2
        time_up_s = time.monotonic() + 8
        while unread[0].is_open() and time.monotonic() < time_up_s:
            server.answers()
        assert len(unread[0].until_closed()) < HUGE


def test_a_large_reply_arrives_whole_and_the_next_request_is_answered(server: Server) -> None:
    with server.client() as client:
        client.send(GET % b"/huge" + GET % b"/next")
        assert len(client.until(b"/next ")) > HUGE


def test_a_body_that_nobody_reads_does_not_become_the_next_request(server: Server) -> None:
    smuggled = GET % b"/smuggled"
    with server.client() as client:
        client.send(
            b"POST /unread HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(smuggled)
            + smuggled
            + GET % b"/next"
        )
        replies = client.until(b"/next ")
    assert b"/smuggled" not in replies
    with server.client() as client:
        client.send(POST + b"Content-Length: 99999\r\n\r\n" + smuggled)
        replies = client.until_closed()
    assert replies.count(b"200 OK") == 1
    assert replies.endswith(b"/ " + smuggled)


def test_the_rest_of_a_body_that_is_too_large_is_no_request_and_costs_nobody_the_reply(server: Server) -> None:
    with server.client() as client:
        client.send(b"POST /unread HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999\r\n\r\n")
        client.until(b"/unread ")
        for _ in range(10):
            client.send(GET % b"/smuggled")
            server.answers()
        assert client.until_closed() == b""


def test_what_comes_in_the_round_in_which_the_last_reply_is_done_is_no_request(tmp_path: Path) -> None:
    server = Server(tmp_path / "log")
    with server.client() as client:
        # The main loop is held until both are there: the thread's word that the reply is sent, and these bytes.
        client.send(b"POST /held HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999\r\n\r\n")
        client.until(b"/held ")
        while server.process.poll() is None and "replied" not in server.log.read_text():
            time.sleep(0.01)
        client.send(GET % b"/smuggled")
        assert client.until_closed() == b""
        server.answers()
    server.process.terminate()
    assert server.process.wait(10) == 0
    assert "smuggled" not in server.log.read_text()


def test_what_is_sent_behind_the_last_request_is_taken_only_so_far(server: Server) -> None:
    with server.client() as client:
        client.send(CLOSE)
        client.until(b"/close ")
        with pytest.raises(OSError, match=r"reset|pipe"):
            client.send(b"x" * 500_000_000)


def test_headers_without_an_end_are_refused(server: Server) -> None:
    with server.client() as client:
        client.send(POST + b"X: " + b"a" * 66_000)
        assert client.until_closed().startswith(b"HTTP/1.1 431 ")


def test_whoever_takes_all_connections_loses_the_oldest_to_the_next_client(server: Server) -> None:
    with ExitStack() as stack:
        silent = [stack.enter_context(server.client()) for _ in range(CONNECTIONS * 2)]
        assert server.answers() < 2
        assert silent[0].until_closed() == b""


def test_a_server_that_may_open_no_more_files_gives_up_the_oldest_connection_too(tmp_path: Path) -> None:
    server = Server(tmp_path / "log", connections=1_000, open_files="40")
    with ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(server.client())
        assert server.answers() < 2
    server.process.terminate()
    assert server.process.wait(10) == 0
    assert "Traceback" not in server.log.read_text()


def test_the_server_ends_in_time_with_clients_that_wait(tmp_path: Path) -> None:
    server = Server(tmp_path / "log")
    with server.client() as idle, server.client() as half:
        half.send(POST)
        idle.send(GET % b"/1")
        idle.until(b"/1 ")
        server.process.terminate()
        assert server.process.wait(10) == 0
        assert half.until_closed().startswith(b"HTTP/1.1 408 ")
    assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT])
def test_what_the_application_has_begun_is_finished_when_the_server_ends(tmp_path: Path, asked: signal.Signals) -> None:
    server = Server(tmp_path / "log")
    with server.client() as client:
        client.send(GET % b"/begun")
        client.until(b"/begun ")
    server.process.send_signal(asked)
    server.process.wait(10)
    assert "first begun, last ended" in server.log.read_text()


def test_the_entry_points_choose_this_worker() -> None:
    code = (
        "import main, json; from gunicorn.config import Config; c = Config(); c.set('threads', 32);"
        "print(json.dumps([c.worker_class.__module__, c.worker_class.__name__]))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=_ENVIRON)
    assert json.loads(ran.stdout) == ["common.patient_worker", "PatientWorker"]
