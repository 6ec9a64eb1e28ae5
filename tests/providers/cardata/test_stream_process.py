"""Real worker processes, a real Valkey, a real broker: what a kill and what a stop leave behind."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest

from common.breaker import Breakers, CircuitBreaker
from common.clock import SystemClock
from common.errors import ProviderError
from common.stores.shared import open_shared
from functions.assembly import Patience, shared_store
from functions.peers import CHANGED, ROTATED, UNLINKED, Peers
from functions.providers.cardata import stream as program
from functions.upstream import BreakerKey
from scorecard.stream_stage import RunningWorker, Stage, staged

MILEAGE = "vehicle.vehicle.travelledDistance"
LEASE_S = 3.0
CUSTOMERS = 24
"""Shares are drawn by a hash of random names: of six, one worker would get all once in 32 runs, of 24 never."""
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with staged(lease_s=LEASE_S, CARDATA_STREAM_STORE_EVERY_S="3600") as running:
        yield running


def until(holds: Callable[[], bool], within_s: float = 20.0) -> float:
    begun_s = time.monotonic()
    while not holds():
        assert time.monotonic() < begun_s + within_s
        time.sleep(0.02)
    return time.monotonic() - begun_s


def speak(stage: Stage, gcid: str, vin: str, value: int) -> None:
    now = SystemClock().utc().isoformat()
    data = {MILEAGE: {"timestamp": now, "value": value}}
    raw = orjson.dumps({"vin": vin, "entityId": "e", "topic": vin, "timestamp": now, "data": data}).decode()
    assert stage.cardata.publish(gcid, vin=vin, raw=raw)["delivered"] == 1


def counted(worker: RunningWorker, stage: str, count: float) -> None:
    until(lambda: worker.figures()["messages_total", stage] == count)


def test_a_kill_loses_nothing_that_was_kept_and_a_stop_nothing_that_was_received(stage: Stage) -> None:
    customers = stage.cardata.add_customers(CUSTOMERS)
    accounts = stage.link(customers)
    cars = {customer["gcid"]: (accounts[customer["gcid"]], min(customer["vins"])) for customer in customers}
    killed, heir = stage.start(), stage.start()
    until(lambda: killed.connected() + heir.connected() == CUSTOMERS and killed.connected() > 0 < heir.connected())

    # The first message of each goes to the document store, the second waits in the journal: for an hour.
    for value in (1, 2):
        for gcid, (_, vin) in cars.items():
            speak(stage, gcid, vin, value)
        until(
            lambda told=value: (
                CUSTOMERS * told  # type: ignore[misc]  # a default binds the value
                == sum(worker.figures()["messages_total", "kept"] for worker in (killed, heir))
            )
        )
    assert set(stage.values(cars, MILEAGE).values()) == {1}

    orphans = killed.connected()
    killed.kill()

    assert until(lambda: heir.connected() == CUSTOMERS) < LEASE_S + 2
    # What the killed one had kept is stored by its heir; the heir's own messages still wait.
    until(lambda: list(stage.values(cars, MILEAGE).values()).count(2) == orphans)
    assert list(stage.values(cars, MILEAGE).values()).count(1) == CUSTOMERS - orphans

    for gcid, (_, vin) in cars.items():
        speak(stage, gcid, vin, 3)
    until(lambda: heir.received() == 2 * (CUSTOMERS - orphans) + CUSTOMERS)
    begun_s = time.monotonic()
    heir.end()
    assert time.monotonic() - begun_s < 10
    assert set(stage.values(cars, MILEAGE).values()) == {3}
    assert stage.cardata.stream_connections() == []
    events = [json.loads(line)["message"] for line in heir.log.read_text().splitlines() if line.startswith("{")]
    assert events[0] == "stream_started"
    assert events[-1] == "stream_stopped"


def test_the_pages_tell_what_the_worker_does(stage: Stage) -> None:
    worker = stage.start()
    until(lambda: worker.health()["workers"] == 1)  # it has looked around
    until(lambda: worker.health()["status"] == "healthy" and worker.health()["customers"].get("connecting", 0) == 0)
    assert worker.health()["shared_state"] == "ok"
    assert worker.figures()["store_failures_total", ""] == 0
    worker.end()


def test_without_redis_every_message_is_stored_at_once_and_a_kill_loses_nothing_of_it() -> None:
    with staged(redis=False, lease_s=LEASE_S) as alone:
        (customer,) = alone.cardata.add_customers(1)
        accounts = alone.link([customer])
        gcid, vin = customer["gcid"], min(customer["vins"])
        worker = alone.start()
        until(lambda: worker.connected() == 1)
        for value in range(1, 20):
            speak(alone, gcid, vin, value)
        counted(worker, "stored", 19)
        worker.kill()
        assert alone.values({gcid: (accounts[gcid], vin)}, MILEAGE) == {gcid: 19}


def breaker(key: BreakerKey) -> CircuitBreaker:
    return CircuitBreaker(
        failure_threshold=5,
        recovery_timeout=60,
        expected_exception=ProviderError,
        name="/".join(key),
        clock=SystemClock(),
    )


def test_the_instances_of_the_api_hear_what_the_worker_has_stored(stage: Stage) -> None:
    (customer,) = stage.cardata.add_customers(1)
    accounts = stage.link([customer])
    worker = stage.start()
    # Connected is not yet subscribed, and what is said between the two is lost: QoS 0.
    until(lambda: any(one["gcid"] == customer["gcid"] and one["filters"] for one in stage.cardata.stream_connections()))
    heard: list[str] = []

    async def listen() -> None:
        peers = Peers(
            shared_store(stage.settings, SystemClock(), Patience(store_s=5)),
            SystemClock(),
            Breakers(breaker),
            handlers={CHANGED: heard.append},
            on_gap=lambda: None,
        )
        await peers.fence()
        await asyncio.to_thread(speak, stage, customer["gcid"], min(customer["vins"]), 1)
        async with asyncio.timeout(10):
            while accounts[customer["gcid"]] not in heard:  # noqa: ASYNC110 - what is waited for lies in another process
                await asyncio.sleep(0.02)
        await peers.aclose()

    asyncio.run(listen())
    worker.end()


def test_the_words_between_instances_are_the_same_on_both_sides() -> None:
    assert (program.CHANGED, program.UNLINKED, program.ROTATED) == (CHANGED, UNLINKED, ROTATED)
    assert open_shared("", SystemClock(), namespace="x").channel is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CARDATA_STREAM_URL", "mqtt://plain"),
        ("CARDATA_CA_FILE", "/no/such/file.pem"),
        ("DOCUMENTS_URL", "ftp://nowhere"),
    ],
)
def test_settings_that_cannot_be_used_end_the_program_at_once(tmp_path: Path, name: str, value: str) -> None:
    environ = {**os.environ, "DOCUMENTS_URL": f"sqlite:///{tmp_path}/documents.db", "PORT": "0", name: value}
    ran = subprocess.run(
        [sys.executable, "-m", "functions.providers.cardata.stream"],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert ran.returncode == 2
    assert "Traceback" not in ran.stderr
