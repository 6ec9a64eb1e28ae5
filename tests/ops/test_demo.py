"""Tests of the tour: it passes, it shows what it does, and it notices when the service does not."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def demo(**environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ops.demo"],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_the_tour_passes_and_shows_requests_replies_and_times() -> None:
    toured = demo()
    assert toured.returncode == 0, toured.stdout + toured.stderr
    assert toured.stderr == ""
    requests = re.findall(r'^  POST \{"action": "(\w+)"', toured.stdout, re.MULTILINE)
    for action in ("connect", "vehicles", "status", "fuel", "lock", "command_status", "is_locked", "disconnect"):
        assert action in requests
    assert len(re.findall(r"^  -> \d{3} in [\d.]+ ms$", toured.stdout, re.MULTILINE)) >= len(requests)
    assert "\x1b[" not in toured.stdout
    cardata = toured.stdout.partition("Link a CarData account")[2]
    assert re.findall(r'^  POST \{"action": "(\w+)"', cardata, re.MULTILINE) == [
        *("connect", "connect_status", "fuel", "fuel", "unlock"),
    ]
    assert '"limit": 50' in cardata
    assert '"explain": {' in cardata


def test_a_service_that_refuses_everybody_fails_the_tour_at_its_first_step() -> None:
    toured = demo(CALLERS="")
    assert toured.returncode == 1
    assert "step 1 (Connect the account)" in toured.stderr


def test_a_service_without_a_cache_fails_the_tour_where_it_expects_one() -> None:
    toured = demo(READ_TTL_S="0.000001")
    assert toured.returncode == 1
    assert "step 4 (Read a part of it)" in toured.stderr


def test_a_service_that_does_not_start_fails_the_tour_with_the_reason() -> None:
    toured = demo(WORKERS="many")
    assert toured.returncode == 1
    assert "The API ended with status" in toured.stderr
