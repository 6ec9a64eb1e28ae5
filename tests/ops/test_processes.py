"""Tests of child processes that serve HTTP, with real ones."""

import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from ops.processes import Server, StartFailed, answers, free_port, is_free

GIVEN_BY_THE_SYSTEM = Path("/proc/sys/net/ipv4/ip_local_port_range")
SERVES = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(404)
        self.end_headers()
    def log_message(self, *args): pass
print("hello", flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
DEAF = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


def server(tmp_path: Path, code: str, *arguments: object, lines: list[str] | None = None) -> Server:
    command: Sequence[str] = [sys.executable, "-c", code, *map(str, arguments)]
    return Server(
        "child",
        command,
        environ=dict(os.environ),
        cwd=tmp_path,
        log=tmp_path / "log",
        on_line=(lines if lines is not None else []).append,
    )


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        # One that ended and was handed to a parent that does not wait is no process any more.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # reaped before it was opened, or before it was read
        return not Path("/proc").exists()


def test_a_server_answers_after_the_wait_and_is_gone_after_the_block(tmp_path: Path) -> None:
    port = free_port()
    lines: list[str] = []
    with server(tmp_path, SERVES, port, lines=lines) as child:
        child.wait_until_answers(f"http://127.0.0.1:{port}/")
        assert answers(f"http://127.0.0.1:{port}/anything")
        assert child.is_running
    assert not child.is_running
    assert not answers(f"http://127.0.0.1:{port}/")
    assert lines == ["hello"]
    assert (tmp_path / "log").read_text() == "hello\n"


def test_a_server_that_ends_before_it_answers_is_reported_with_its_last_words(tmp_path: Path) -> None:
    with (
        server(tmp_path, "import sys; sys.exit('no such thing as luck')") as child,
        pytest.raises(StartFailed, match=r"(?s)ended with status 1.*no such thing as luck"),
    ):
        child.wait_until_answers(f"http://127.0.0.1:{free_port()}/")


def test_a_server_that_stays_silent_is_given_up(tmp_path: Path) -> None:
    with (
        server(tmp_path, "import time; time.sleep(600)") as child,
        pytest.raises(StartFailed, match="did not answer"),
    ):
        child.wait_until_answers(f"http://127.0.0.1:{free_port()}/", timeout_s=0.1)


def test_a_wait_ends_when_it_is_given_up(tmp_path: Path) -> None:
    with server(tmp_path, "import time; time.sleep(600)") as child:
        child.wait_until_answers(f"http://127.0.0.1:{free_port()}/", give_up=lambda: True)
        assert child.is_running


def test_a_server_that_does_not_want_to_end_is_killed_with_its_children(tmp_path: Path) -> None:
    grandchildren: list[str] = []
    with server(tmp_path, DEAF, lines=grandchildren) as child:
        while not grandchildren:
            assert child.is_running
        child.end(timeout_s=0.1)
    assert not child.is_running
    while is_alive(int(grandchildren[0])):
        pass  # killed, and on its way out; one that was not killed runs into the test's timeout


def test_a_signal_to_our_own_group_does_not_reach_the_server(tmp_path: Path) -> None:
    with server(tmp_path, "import time; time.sleep(600)") as child:
        assert os.getpgid(child.pid) == child.pid != os.getpgid(0)
        os.kill(child.pid, signal.SIGTERM)


def test_a_port_is_taken_while_somebody_listens_there() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        assert not is_free(listener.getsockname()[1])
    assert is_free(free_port())


def test_a_port_that_was_chosen_is_none_that_the_system_gives_to_others_meanwhile() -> None:
    if not GIVEN_BY_THE_SYSTEM.exists() or (first := int(GIVEN_BY_THE_SYSTEM.read_text().split()[0])) < 12_000:
        pytest.skip("this system does not say which ports it gives away, or gives away nearly all")
    chosen = {free_port() for _ in range(50)}
    assert max(chosen) < first
    assert len(chosen) > 40
