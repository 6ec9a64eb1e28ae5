"""The CarData sandbox as a process of its own."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import aiomqtt
import httpx
import pytest

from sandbox.cardata_catalogue import MILEAGE
from sandbox.cardata_process import RunningCarData, running_cardata
from tests.support.cardata import I4

ROOT = Path(__file__).resolve().parents[2]
HEADERS = {"x-version": "v1", "accept": "application/json"}


@pytest.fixture(scope="module")
def shared() -> Iterator[RunningCarData]:
    with running_cardata(frozen_at="2026-01-05T12:00:00Z") as running:
        yield running


@pytest.fixture
def sandbox(shared: RunningCarData) -> RunningCarData:
    shared.reset()
    return shared


def status_of(sandbox: RunningCarData, access_token: str, path: str = "mappings") -> int:
    headers = {**HEADERS, "authorization": f"Bearer {access_token}"}
    with httpx.Client(trust_env=False) as http:
        return http.get(f"{sandbox.origin}/customers/vehicles/{path}", headers=headers).status_code


def test_the_helper_covers_a_whole_story(sandbox: RunningCarData) -> None:
    gcid = sandbox.demo["gcid"]
    token = sandbox.issue_tokens(gcid)["access_token"]
    assert status_of(sandbox, token) == 200
    assert sandbox.fault(fault="cu", code="CU-503", times=1) == 1
    assert status_of(sandbox, token) == 503
    assert sandbox.faults()[0]["fired"] == 1
    sandbox.clear_faults()
    assert sandbox.stats()["quota_used"] == {gcid: 2}

    assert sandbox.change_customer(gcid, quota_used=50)["quota_used"] == 50
    assert status_of(sandbox, token) == 403
    assert sandbox.advance_to("2026-01-06T00:00:00Z") == "2026-01-06T00:00:00.000Z"
    assert sandbox.advance(60) == "2026-01-06T00:01:00.000Z"
    assert status_of(sandbox, token) == 401

    assert sandbox.truth(I4, MILEAGE, "2026-01-05T12:00:00Z")["value"] == 45_660.0
    assert sandbox.truth(I4, MILEAGE)["value"] == 45_680.0
    assert sandbox.patch_car(I4, asleep=True)["asleep"] is True
    assert len(sandbox.add_customers(5)) == 5
    other = sandbox.add_customer(cars=[{"vin": I4, "mapping": "SECONDARY"}])
    assert other["vins"] == {I4: "SECONDARY"}
    assert sandbox.settings(quota_per_day=3)["quota_per_day"] == 3
    sandbox.expire_access(gcid)
    sandbox.revoke_refresh(gcid)


def test_a_user_code_is_decided_upon(sandbox: RunningCarData) -> None:
    form = {
        "client_id": sandbox.demo["client_id"],
        "response_type": "device_code",
        "scope": "openid",
        "code_challenge": "c",
        "code_challenge_method": "S256",
    }
    with httpx.Client(base_url=sandbox.origin, trust_env=False) as http:
        device = http.post("/gcdm/oauth/device/code", data=form).json()

    sandbox.decide(device["user_code"], approve=True)

    assert sandbox.control("GET", "devices")[0]["approved"] is True
    assert device["verification_uri"] == f"{sandbox.origin}/oneid/link"


async def test_the_stream_is_reached_with_the_exported_authority(sandbox: RunningCarData) -> None:
    gcid = sandbox.demo["gcid"]
    address = sandbox.stream()
    client = aiomqtt.Client(
        address.host,
        address.port,
        username=gcid,
        password=sandbox.issue_tokens(gcid)["id_token"],
        tls_context=address.ssl_context(),
        keepalive=30,
        timeout=5,
    )
    async with client as mqtt:
        await mqtt.subscribe(f"{gcid}/+")
        assert [connection["gcid"] for connection in sandbox.stream_connections()] == [gcid]
        span = {"from": "2026-01-05T07:00:00Z", "to": "2026-01-05T07:10:00Z"}
        published = sandbox.publish(gcid, vin=I4, **span)
        assert published["delivered"] == published["messages"] > 10
        async with asyncio.timeout(5):
            assert (await anext(aiter(mqtt.messages))).topic.matches(f"{gcid}/{I4}")
        assert sandbox.drop_connections(gcid) == 1

    assert sandbox.drop_connections() == 0


def test_the_process_is_gone_afterwards() -> None:
    with running_cardata() as running:
        os.kill(running.pid, 0)

    with pytest.raises(ProcessLookupError):
        os.kill(running.pid, 0)


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "sandbox.cardata", "--port", "0", *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_signal_ends_it_and_it_has_said_one_line_only(tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    with start("--ca-file", str(authority), "--live-stream", "--latency-ms", "1") as process:
        assert process.stdout is not None
        ready = process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=10)

    form = r"sandbox cardata, stream mqtts://127\.0\.0\.1:\d+, listening on http://127\.0\.0\.1:\d+\n"
    assert re.fullmatch(form, ready)
    assert (process.returncode, out, err) == (0, "", "")
    assert authority.read_text().startswith("-----BEGIN CERTIFICATE-----")


def test_it_ends_with_its_standard_input_if_told_so() -> None:
    with start("--stop-on-eof") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        process.stdin.close()

        assert process.wait(timeout=10) == 0
