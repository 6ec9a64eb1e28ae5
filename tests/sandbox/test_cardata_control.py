"""The control endpoint: clock, customers, cars, truth, tokens, settings, counters, reset, help."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sandbox.cardata_catalogue import DESCRIPTORS, DISPLAYED_SOC, MILEAGE
from sandbox.cardata_wire import CU_ERRORS
from tests.support.cardata import I4, X1, X3, Client, error_of, simulated

README = (Path(__file__).resolve().parents[2] / "sandbox" / "README.md").read_text()
CBS = "vehicle.status.conditionBasedServices"


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with simulated() as client:
        yield client


async def test_requests_answers_and_errors_are_counted_and_controls_are_not(client: Client) -> None:
    await client.log_in()
    await client.call("vehicles/mappings")
    await client.call(f"vehicles/{I4}/basicData")
    await client.call("vehicles/nonsense/basicData")
    await client.call("nowhere")

    stats = await client.control("GET", "stats")

    assert stats["requests"] == {
        "GET /customers/vehicles/mappings": 1,
        "GET /customers/vehicles/{vin}/basicData": 2,
        "unmatched": 1,
    }
    assert stats["responses"] == {"200": 2, "400": 1, "404": 1}
    assert stats["errors"] == {"CU-120": 1, "CU-400": 1}
    assert (stats["requests_total"], stats["in_flight"], stats["stream_connections"]) == (4, 0, 0)

    await client.control("DELETE", "stats")
    zeroed = await client.control("GET", "stats")
    assert (zeroed["requests_total"], zeroed["quota_used"]) == (0, {client.gcid: 3})


async def test_requests_in_flight_are_counted(client: Client) -> None:
    await client.log_in()
    await client.control("POST", "settings", {"latency_ms": 30})

    await asyncio.gather(*(client.call("vehicles/mappings") for _ in range(4)))

    stats = await client.control("GET", "stats")
    assert (stats["in_flight"], stats["in_flight_max"]) == (0, 4)


async def test_the_clock_moves_as_told_and_never_back(client: Client) -> None:
    assert (await client.control("GET", "clock"))["now"] == "2026-01-05T12:00:00.000Z"

    advanced = await client.control("POST", "clock", {"advance_s": 90})
    assert advanced == {"now": "2026-01-05T12:01:30.000Z", "ahead_s": 90}
    assert (await client.control("POST", "clock", {"to": "2026-01-06"}))["now"] == "2026-01-06T00:00:00.000Z"

    await client.control("POST", "clock", {"to": "2026-01-05T00:00:00Z"}, status=400)
    await client.control("POST", "clock", {"to": 7}, status=400)
    await client.control("POST", "clock", {"advance_s": "much"}, status=400)
    await client.control("POST", "clock", {"flux": 1}, status=400)


async def test_many_customers_are_made_at_once_with_cars_of_their_own(client: Client) -> None:
    customers = await client.control("POST", "customers?count=500")

    assert len({customer["gcid"] for customer in customers}) == 500
    assert len({customer["client_id"] for customer in customers}) == 500
    vins = [vin for customer in customers for vin in customer["vins"]]
    assert len(set(vins)) == 1500
    assert all(re.fullmatch(r"WBA00000000C\d{5}", vin) for vin in vins)
    await client.log_in(customers[-1]["gcid"])
    assert len(await client.read("vehicles/mappings")) == 3
    for count in ("0", "many", "10001"):
        await client.control("POST", f"customers?count={count}", status=400)


async def test_a_customer_is_made_to_measure(client: Client) -> None:
    vin = "WBA00000000DEMO14"
    script = {
        "period_s": 3600,
        "phases": [
            {"kind": "drive", "start_s": 0, "end_s": 1800, "km": 30},
            {"kind": "sleep", "start_s": 1800, "end_s": 3600},
        ],
    }
    made = await client.control(
        "POST",
        "customers",
        {
            "gcid": "g",
            "client_id": "c",
            "cars": [{"vin": vin, "model": "x1", "script": script}, {"vin": X1, "mapping": "SECONDARY"}],
        },
    )

    assert (made["gcid"], made["client_id"], made["vins"]) == ("g", "c", {vin: "PRIMARY", X1: "SECONDARY"})
    first = await client.truth(vin, MILEAGE, "2026-01-05T12:00:00Z")
    second = await client.truth(vin, MILEAGE, "2026-01-05T12:15:00Z")
    assert second["value"] - first["value"] == pytest.approx(15)
    assert (await client.control("GET", f"cars/{vin}"))["doing"] == ["drive"]
    assert await client.control("GET", "customers/g") == made
    assert [customer["gcid"] for customer in await client.control("GET", "customers")] == [client.gcid, "g"]


@pytest.mark.parametrize(
    "body",
    [
        {"gcid": "587a3144-dade-57a8-a1b5-7d601c343502"},
        {"cars": [{"vin": "WBA00000000DEMO15", "model": "tractor"}]},
        {"cars": [{"model": "x1"}]},
        {"cars": [{"vin": "WBA00000000DEMO15", "mapping": "TERTIARY"}]},
        {"cars": [{"vin": "WBA00000000DEMO15", "script": {"phases": []}}]},
        {
            "cars": [
                {
                    "vin": "WBA00000000DEMO15",
                    "script": {"period_s": 9, "phases": [{"kind": "fly", "start_s": 0, "end_s": 1}]},
                }
            ]
        },
        {"cars": 7},
        {"color": "red"},
    ],
)
async def test_a_customer_that_makes_no_sense_is_refused(client: Client, body: dict[str, object]) -> None:
    await client.control("POST", "customers", body, status=400)

    assert len(await client.control("GET", "customers")) == 1


async def test_customers_change_as_told(client: Client) -> None:
    changed = await client.control(
        "POST", f"customers/{client.gcid}", {"quota_used": 49, "stream_subscribed": False, "streamed": None}
    )

    assert (changed["quota_used"], changed["stream_subscribed"], changed["api_subscribed"]) == (49, False, True)
    for body in ({"streamed": [CBS]}, {"streamed": "all"}, {"quota_used": -1}, {"flux": 1}):
        await client.control("POST", f"customers/{client.gcid}", body, status=400)
    await client.control("POST", "customers/nobody", {}, status=404)
    await client.control("GET", "customers/nobody", status=404)


async def test_the_truth_is_told_beside_what_the_car_has_said(client: Client) -> None:
    truth = await client.truth(I4, DISPLAYED_SOC, "2026-01-05T22:33:00Z")

    assert truth["exists"] is True
    assert (truth["at"], truth["unit"]) == ("2026-01-05T22:33:00.000Z", "%")
    assert truth["said"]["timestamp"] == "2026-01-05T22:30:00Z"
    assert truth["said"]["value"] <= truth["value"]
    assert (await client.truth(X1, DISPLAYED_SOC))["exists"] is False
    assert (await client.truth(X1, DISPLAYED_SOC))["said"] is None
    await client.control("GET", f"truth?vin={I4}&descriptor=vehicle.flux", status=404)
    await client.control("GET", f"truth?vin=WBA&descriptor={MILEAGE}", status=404)
    await client.control("GET", f"truth?vin={I4}&descriptor={MILEAGE}&at=noon", status=400)


async def test_the_truth_agrees_with_the_rest_api_for_every_descriptor(client: Client) -> None:
    await client.at("2026-01-05T17:20:30Z")
    for vin in (X1, I4, X3):
        said = await client.telematic(vin, *DESCRIPTORS)
        for key in DESCRIPTORS:
            truth = (await client.truth(vin, key))["said"]
            assert (truth is None) == (key not in said)
            if truth is not None:
                assert truth["timestamp"] == said[key]["timestamp"]
                assert (truth["value"] is None) == (said[key]["value"] is None)


async def test_what_a_car_says_can_be_bent_and_the_truth_cannot(client: Client) -> None:
    await client.log_in()
    before = await client.telematic(I4, MILEAGE, DISPLAYED_SOC, "vehicle.isMoving")
    overrides = {
        MILEAGE: {"value": None},
        DISPLAYED_SOC: {"timestamp": "2031-01-01T00:00:00Z"},
        "vehicle.isMoving": "absent",
        "vehicle.drivetrain.fuelSystem.level": {"value": 7, "unit": "%"},
    }
    car = await client.control("POST", f"cars/{I4}", {"overrides": overrides})
    assert set(car["overrides"]) == set(overrides)

    bent = await client.telematic(I4, MILEAGE, DISPLAYED_SOC, "vehicle.isMoving", "vehicle.drivetrain.fuelSystem.level")

    assert bent[MILEAGE]["value"] is None
    assert bent[DISPLAYED_SOC] == {**before[DISPLAYED_SOC], "timestamp": "2031-01-01T00:00:00Z"}
    assert "vehicle.isMoving" not in bent
    assert bent["vehicle.drivetrain.fuelSystem.level"]["value"] == "7"
    assert (await client.truth(I4, MILEAGE))["value"] == 45_660.0

    await client.control("POST", f"cars/{I4}", {"overrides": dict.fromkeys(overrides)})
    assert await client.telematic(I4, MILEAGE, DISPLAYED_SOC, "vehicle.isMoving") == before


async def test_a_key_that_the_car_lacks_can_be_made_up(client: Client) -> None:
    await client.log_in()
    await client.control("POST", f"cars/{X1}", {"overrides": {DISPLAYED_SOC: {"value": 50}}})

    assert (await client.telematic(X1, DISPLAYED_SOC))[DISPLAYED_SOC] == {"timestamp": None, "unit": "%", "value": "50"}


async def test_a_car_sleeps_and_wakes_as_told(client: Client) -> None:
    await client.control("POST", f"cars/{I4}", {"asleep": True})
    await client.at("2026-01-06T12:00:00Z")
    asleep = await client.telematic(I4, MILEAGE)
    await client.control("POST", f"cars/{I4}", {"asleep": False})
    awake = await client.telematic(I4, MILEAGE)

    assert asleep[MILEAGE]["timestamp"] == "2026-01-05T08:00:00Z"
    assert awake[MILEAGE]["timestamp"] == "2026-01-06T08:00:00Z"


@pytest.mark.parametrize(
    "body", [{"overrides": {"vehicle.flux": "absent"}}, {"overrides": {MILEAGE: {"color": 1}}}, {"speed": 1}]
)
async def test_a_change_to_a_car_that_makes_no_sense_is_refused(client: Client, body: dict[str, object]) -> None:
    await client.control("POST", f"cars/{I4}", body, status=400)

    assert (await client.control("GET", f"cars/{I4}"))["overrides"] == {}


async def test_tokens_can_be_expired_and_revoked(client: Client) -> None:
    tokens = await client.log_in()
    await client.control("POST", "tokens", {"expire_access": client.gcid})
    assert error_of(await client.call("vehicles/mappings")) == (401, "CU-102")

    await client.control("POST", "tokens", {"revoke_refresh": client.gcid})

    assert error_of(await client.refresh(tokens["refresh_token"])) == (400, "invalid_grant")
    await client.control("POST", "tokens", {"steal": client.gcid}, status=400)
    await client.control("POST", "tokens", {"issue": "nobody"}, status=404)


async def test_waiting_user_codes_are_listed_until_decided_used_or_expired(client: Client) -> None:
    device = await client.device_code()
    waiting = await client.control("GET", "devices")
    assert waiting == [{"user_code": device["user_code"], "client_id": client.client_id, "approved": None}]

    await client.control("POST", "devices", {"user_code": device["user_code"], "approve": True})
    assert (await client.control("GET", "devices"))[0]["approved"] is True
    client.clock.advance(300)

    assert await client.control("GET", "devices") == []
    await client.control("POST", "devices", {"user_code": "NOBODYS", "approve": True}, status=404)
    await client.control("POST", "devices", {"user_code": device["user_code"]}, status=400)


async def test_settings_change_as_told_and_all_or_none(client: Client) -> None:
    before = await client.control("GET", "settings")
    assert (before["quota_per_day"], before["access_life_s"], before["refresh_life_s"]) == (50, 3600, 1_209_600)

    changed = await client.control("POST", "settings", {"quota_per_day": 2, "interval_s": 1})
    assert changed == {**before, "quota_per_day": 2, "interval_s": 1}
    for body in ({"flux": 1}, {"quota_per_day": 9, "live_stream": 1}, {"quota_per_day": 9, "latency_ms": "slow"}):
        await client.control("POST", "settings", body, status=400)

    assert await client.control("GET", "settings") == changed


async def test_a_reset_forgets_everything(client: Client) -> None:
    await client.log_in()
    await client.container(MILEAGE)
    await client.control("POST", "customers?count=3")
    await client.control("POST", "faults", {"fault": "hang"})
    await client.control("POST", "settings", {"quota_per_day": 1})
    await client.control("POST", "clock", {"advance_s": 100})

    await client.control("POST", "reset")

    assert len(await client.control("GET", "customers")) == 1
    assert (await client.control("GET", "clock"))["ahead_s"] == 0
    assert (await client.control("GET", "settings"))["quota_per_day"] == 50
    assert error_of(await client.call("vehicles/mappings")) == (401, "CU-101")
    await client.log_in()
    assert await client.read("containers") == {"containers": []}


async def test_a_body_that_is_no_json_object_is_refused(client: Client) -> None:
    for content in (b"{", b"[]"):
        answer = await client.http.post("/_sandbox/faults", content=content)
        assert answer.status_code == 400


async def test_help_lists_every_control_and_the_readme_knows_them(client: Client) -> None:
    page = await client.control("GET", "")
    section = README.partition("## CarData")[2]

    assert page["demo"] == {
        "gcid": client.gcid,
        "client_id": client.client_id,
        "cars": {X1: "x1", I4: "i4", X3: "x3"},
    }
    paths = {name.split(" /_sandbox/")[1] for name in page["controls"]} - {""}
    assert [path for path in sorted(paths) if f"/_sandbox/{path}" not in section] == []
    settings = await client.control("GET", "settings")
    assert [name for name in settings if f"`{name}`" not in section] == []
    await client.control("GET", "nothing", status=404)


def test_the_codes_and_the_readme_agree() -> None:
    assert [code for code in CU_ERRORS if code not in README.partition("## CarData")[2]] == []
