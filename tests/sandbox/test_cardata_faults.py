"""Faults: every code, damage to bytes and fields, and only where and as often as asked."""

from collections.abc import AsyncIterator

import httpx
import pytest

from sandbox.cardata_wire import CU_ERRORS
from tests.support.cardata import I4, Client, error_of, simulated

FORBIDDEN = {"CU-429", "CU-105", "CU-124", "CU-103", "CU-403"}


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with simulated() as client:
        await client.log_in()
        yield client


@pytest.mark.parametrize("code", sorted(CU_ERRORS))
async def test_every_code_can_be_had_with_its_status(client: Client, code: str) -> None:
    await client.control("POST", "faults", {"fault": "cu", "code": code, "times": 1})

    status, seen = error_of(await client.call("vehicles/mappings"))

    assert seen == code
    assert (status == 403) == (code in FORBIDDEN | {"CU-104"})
    assert (await client.call("vehicles/mappings")).status_code == 200


async def test_a_code_can_be_had_with_another_status(client: Client) -> None:
    await client.control("POST", "faults", {"fault": "cu", "code": "CU-429", "status": 429})

    assert error_of(await client.call("vehicles/mappings")) == (429, "CU-429")


async def test_the_middle_page_of_a_history_can_fail(client: Client) -> None:
    await client.control(
        "POST", "faults", {"fault": "cu", "code": "CU-500", "match": {"path": "nextToken="}, "times": 1}
    )
    span = {"from": "2025-11-25T00:00:00Z", "to": "2026-01-05T00:00:00Z"}
    path = f"vehicles/{I4}/chargingHistory"

    first = await client.read(path, span)
    following = {**span, "nextToken": first["next_token"]}

    assert error_of(await client.call(path, following)) == (500, "CU-500")
    assert len((await client.read(path, following))["data"]) == 10


async def test_fields_go_missing_wherever_they_are(client: Client) -> None:
    await client.control("POST", "faults", {"fault": "missing", "fields": ["vin", "timestamp"]})

    assert all("vin" not in mapping for mapping in await client.read("vehicles/mappings"))
    said = await client.telematic(I4, "vehicle.isMoving")
    assert set(said["vehicle.isMoving"]) == {"unit", "value"}


async def test_unknown_fields_turn_up(client: Client) -> None:
    await client.control("POST", "faults", {"fault": "unknown", "fields": {"flux": [1, {"capacitor": True}]}})

    assert all("flux" in mapping for mapping in await client.read("vehicles/mappings"))
    assert (await client.read(f"vehicles/{I4}/basicData"))["flux"] == [1, {"capacitor": True}]
    image = await client.call(f"vehicles/{I4}/image")
    assert image.content.startswith(b"\x89PNG")


@pytest.mark.parametrize("fault", ["malformed", "empty", "wrong_type"])
async def test_a_body_can_be_garbage(client: Client, fault: str) -> None:
    await client.control("POST", "faults", {"fault": fault, "match": {"path": "basicData"}})

    answer = await client.call(f"vehicles/{I4}/basicData")

    assert answer.status_code == 200
    assert answer.content in (b'{"eventId": "0000', b"", b"[]")


@pytest.mark.parametrize(("fault", "error"), [("reset", httpx.ReadError), ("truncated", httpx.RemoteProtocolError)])
async def test_a_connection_can_break(client: Client, fault: str, error: type[Exception]) -> None:
    await client.control("POST", "faults", {"fault": fault, "times": 1})

    with pytest.raises(error):
        await client.call("vehicles/mappings")

    assert (await client.control("GET", "stats"))["faults_injected"] == {fault: 1}


async def test_a_lost_answer_may_have_made_a_container(client: Client) -> None:
    await client.control("POST", "faults", {"fault": "reset_after", "match": {"method": "POST"}, "times": 1})

    with pytest.raises(httpx.ReadError):
        await client.container("vehicle.isMoving")

    assert len((await client.read("containers"))["containers"]) == 1


async def test_latency_and_slow_answers_are_late_and_right(client: Client) -> None:
    await client.control("POST", "settings", {"latency_ms": 5})
    await client.control("POST", "faults", {"fault": "slow", "delay_ms": 5, "times": 1})

    answer = await client.call("vehicles/mappings")

    assert answer.elapsed.total_seconds() >= 0.01
    assert len(answer.json()) == 3


async def test_a_rule_strikes_one_customer_and_one_car_only(client: Client) -> None:
    other = await client.control("POST", "customers", {})
    rule = {"fault": "cu", "code": "CU-500", "match": {"account": other["gcid"]}}
    await client.control("POST", "faults", rule)
    await client.control("POST", "faults", {"fault": "cu", "code": "CU-127", "match": {"vin": I4}})

    assert (await client.call("vehicles/mappings")).status_code == 200
    assert error_of(await client.call(f"vehicles/{I4}/basicData")) == (404, "CU-127")
    await client.log_in(other["gcid"])

    assert error_of(await client.call("vehicles/mappings")) == (500, "CU-500")
    rules = await client.control("GET", "faults")
    assert [(rule["seen"], rule["fired"]) for rule in rules] == [(1, 1), (1, 1)]
    await client.control("DELETE", "faults")
    assert await client.control("GET", "faults") == []


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ({"fault": "meteor"}, "cu, missing, unknown"),
        ({"fault": "event", "outcome": "ERROR"}, "no commands"),
        ({"fault": "cu", "code": "CU-999"}, "CU-100"),
        ({"fault": "cu", "code": "CU-500", "status": 200}, "400 to 599"),
        ({"fault": "cu", "code": "CU-500", "color": "red"}, "color"),
        ({"fault": "cu", "code": "CU-500", "times": -1}, "times"),
        ({"fault": "oauth", "error": "sloth"}, "slow_down"),
        ({"fault": "missing", "fields": "vin"}, "list of names"),
        ({"fault": "unknown", "fields": ["vin"]}, "an object"),
        ({}, "fault"),
    ],
)
async def test_a_rule_that_means_nothing_is_refused_with_the_reason(
    client: Client, rule: dict[str, object], reason: str
) -> None:
    answer = await client.control("POST", "faults", rule, status=400)

    assert reason in answer["message"]
