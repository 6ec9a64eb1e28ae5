"""Tests of `make run`'s program as a person uses it: in a shell, with curl, ended by a signal."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ops.processes import answers, free_port
from ops.run import curl_lines

ROOT = Path(__file__).parents[2]
LAST_LINE_OF_THE_GREETING = "Ctrl-C ends all"


class Running:
    """The program, once it has greeted."""

    def __init__(self, process: subprocess.Popen[str], url: str, greeting: str, state_dir: Path) -> None:
        self.process = process
        self.url = url
        self.greeting = greeting
        self.state_dir = state_dir

    @property
    def maker_url(self) -> str:
        found = re.search(r"simulated MyBMW is (\S+)\.", self.greeting)
        assert found is not None
        return found[1]


@contextmanager
def running(state_dir: Path, **environ: str) -> Iterator[Running]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "ops.run", "--state-dir", str(state_dir)],
        cwd=ROOT,
        env={**os.environ, "PORT": str(port), **environ},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        greeting = ""
        for line in process.stdout:
            greeting += line
            if LAST_LINE_OF_THE_GREETING in line:
                break
        assert LAST_LINE_OF_THE_GREETING in greeting, greeting
        yield Running(process, f"http://127.0.0.1:{port}", greeting, state_dir)
    finally:
        process.terminate()
        process.communicate()


def pasted(line: str) -> dict[str, object]:
    """What a line of the greeting answers when it is pasted into a shell."""
    ran = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    answer: dict[str, object] = json.loads(ran.stdout)
    return answer


@pytest.mark.skipif(shutil.which("curl") is None, reason="this machine has no curl")
def test_the_three_lines_work_word_for_word_and_again(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        lines = re.findall(r"^ +(curl .*)$", run.greeting, re.MULTILINE)
        assert len(lines) == 3
        for line, action in zip(lines, ("connect", "fuel", "lock"), strict=True):
            answer = pasted(line)
            assert answer["success"] is True, answer
            assert answer["action"] == action
        assert pasted(lines[0])["success"] is True


def test_the_readme_shows_the_very_lines() -> None:
    shown = re.findall(r"^curl .*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert shown == curl_lines("http://127.0.0.1:8080")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_both_servers_and_leaves_only_the_log(tmp_path: Path, number: signal.Signals) -> None:
    with running(tmp_path) as run:
        assert answers(f"{run.url}/no-such-page")
        assert answers(run.maker_url)
        run.process.send_signal(number)
        output, _ = run.process.communicate(timeout=20)
        assert run.process.returncode == 0, output
        assert not answers(f"{run.url}/health")
        assert not answers(run.maker_url)
        assert "ENDPOINT_NOT_FOUND 404" in output
        assert "Traceback" not in output
        assert str(tmp_path / "api.log") in run.greeting
    events = [json.loads(line) for line in (tmp_path / "api.log").read_text().splitlines()]
    assert [event["httpRequest"]["status"] for event in events if "httpRequest" in event][-1] == 404


def test_a_service_that_dies_by_itself_ends_the_program_and_is_reported(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        children = Path(f"/proc/{run.process.pid}/task/{run.process.pid}/children").read_text().split()
        api = next(pid for pid in children if "functions_framework" in Path(f"/proc/{pid}/cmdline").read_text())
        os.killpg(int(api), signal.SIGKILL)
        output, _ = run.process.communicate(timeout=20)
        assert run.process.returncode == 1
        assert "The API ended by itself" in output
        assert not answers(run.maker_url)


def test_a_service_that_does_not_start_is_reported_with_the_reason(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "ops.run", "--state-dir", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PORT": str(free_port()), "WORKERS": "many"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    assert "The API ended with status 1" in ran.stderr
    assert "invalid literal" in ran.stderr


def test_a_taken_port_is_explained_in_one_line(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        ran = subprocess.run(
            [sys.executable, "-m", "ops.run", "--state-dir", str(tmp_path)],
            cwd=ROOT,
            env={**os.environ, "PORT": str(port)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert ran.returncode == 1
    assert ran.stdout + ran.stderr == f"Port {port} is taken. Take another: make run PORT={port + 1}\n"


def test_several_instances_share_a_valkey_and_a_storage_server(tmp_path: Path) -> None:
    with running(tmp_path, INSTANCES="2") as run:
        lines = re.findall(r"^ +(curl .*)$", run.greeting, re.MULTILINE)
        assert pasted(lines[0])["success"] is True
        for _ in range(6):
            assert pasted(lines[1])["success"] is True
        with urllib.request.urlopen(f"{run.url}/health", timeout=5) as health:  # noqa: S310 - our own server
            assert json.load(health)["checks"]["shared_state"] in ("ok", "degraded")
    assert not (tmp_path / "draiv.db").exists()


@pytest.mark.parametrize("instances", ["many", "0", "17", "-1"])
def test_a_number_of_instances_that_is_none_is_refused(tmp_path: Path, instances: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "ops.run", "--state-dir", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PORT": str(free_port()), "INSTANCES": instances},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2
    assert ran.stderr == "INSTANCES must be a number from 1 to 16.\n"


@pytest.mark.parametrize("port", ["eighty", "0", "65536", "-1"])
def test_a_port_that_is_none_is_refused(tmp_path: Path, port: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "ops.run", "--state-dir", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PORT": port},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2
    assert ran.stderr == "PORT must be a number from 1 to 65535.\n"
