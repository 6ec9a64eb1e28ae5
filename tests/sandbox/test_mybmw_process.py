"""The sandbox as a process of its own."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from sandbox.process import RunningSandbox, SandboxError, running_sandbox

ROOT = Path(__file__).resolve().parents[2]
VIN = "WBA00000000DEMO01"
STATE = "/eadrax-vcs/v4/vehicles/state"


@pytest.fixture(scope="module")
def shared() -> Iterator[RunningSandbox]:
    with running_sandbox(event_step_s=1, latency_ms=0) as running:
        yield running


@pytest.fixture
def sandbox(shared: RunningSandbox) -> RunningSandbox:
    shared.reset()
    return shared


def call(sandbox: RunningSandbox, access_token: str, method: str, path: str) -> httpx.Response:
    headers = {
        "user-agent": "Dart/3.3 (dart:io)",
        "x-user-agent": "android(AP2A.1.1);bmw;4.9.2(36892);row",
        "authorization": f"Bearer {access_token}",
        "bmw-session-id": "a-session",
        "bmw-units-preferences": "d=KM",
        "bmw-vin": VIN,
        "content-type": "application/json",
    }
    content = b"{}" if method == "POST" else None
    with httpx.Client(trust_env=False) as http:
        return http.request(method, sandbox.origin + path, headers=headers, content=content)


def test_options_reach_the_process(sandbox: RunningSandbox) -> None:
    settings = sandbox.settings()

    assert (settings["event_step_s"], settings["latency_ms"]) == (1, 0)


def test_the_helper_covers_a_whole_story(sandbox: RunningSandbox) -> None:
    token = sandbox.issue_tokens("one@example.com")["access_token"]
    sandbox.patch_car("one@example.com", VIN, state={"currentMileage": 9})
    assert call(sandbox, token, "GET", STATE).json()["state"]["currentMileage"] == 9

    assert sandbox.fault(fault="status", status=503, times=1) == 1
    assert call(sandbox, token, "GET", STATE).status_code == 503
    assert sandbox.faults()[0]["fired"] == 1
    sandbox.clear_faults()
    assert sandbox.faults() == []

    call(sandbox, token, "POST", "/eadrax-vrccs/v4/presentation/remote-commands/door-unlock")
    sandbox.advance(2)
    assert sandbox.stats()["commands"] == {VIN: {"door-unlock": {"received": 1, "executed": 1}}}
    assert sandbox.stats("demo@example.com")["commands"] == {}
    assert sandbox.car("one@example.com", VIN)["state"]["doorsState"]["combinedSecurityState"] == "UNLOCKED"

    sandbox.zero_stats()
    assert sandbox.stats()["requests_total"] == 0
    assert sandbox.settings(latency_ms=1)["latency_ms"] == 1
    sandbox.expire_access("one@example.com")
    assert call(sandbox, token, "GET", STATE).status_code == 401
    sandbox.revoke_refresh("one@example.com")


def test_a_refused_control_request_says_why(sandbox: RunningSandbox) -> None:
    with pytest.raises(SandboxError, match=r"400.*fault is none of"):
        sandbox.fault(fault="meteor")


def test_a_control_path_may_be_given_whole(sandbox: RunningSandbox) -> None:
    assert sandbox.control("GET", "/_sandbox/cars/one@example.com") == [VIN]


def test_a_module_that_does_not_start_is_reported() -> None:
    with pytest.raises(SandboxError, match=r"sandbox\.nothing did not start"), running_sandbox("sandbox.nothing"):
        pass


def test_the_process_is_gone_afterwards() -> None:
    with running_sandbox() as running:
        os.kill(running.pid, 0)

    with pytest.raises(ProcessLookupError):
        os.kill(running.pid, 0)


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "sandbox.mybmw", "--port", "0", *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_it_has_said_one_line_only(end: signal.Signals) -> None:
    with start() as process:
        assert process.stdout is not None
        ready = process.stdout.readline()
        origin = ready.split()[-1]
        with httpx.Client(trust_env=False) as http:
            http.get(origin + STATE)
            process.send_signal(end)
            out, err = process.communicate(timeout=10)

    assert re.fullmatch(r"sandbox mybmw listening on http://127\.0\.0\.1:\d+\n", ready)
    assert (process.returncode, out, err) == (0, "", "")


def test_it_ends_with_its_standard_input_if_told_so() -> None:
    with start("--stop-on-eof") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        process.stdin.close()

        assert process.wait(timeout=10) == 0
