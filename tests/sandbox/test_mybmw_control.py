"""The control endpoint: counters, clock, settings, cars, tokens, reset, help."""

import asyncio
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from common.clock import ManualClock
from sandbox.mybmw import create_app
from sandbox.mybmw_world import Settings

STATE = "/eadrax-vcs/v4/vehicles/state"
VIN = "WBA00000000DEMO01"
README = (Path(__file__).resolve().parents[2] / "sandbox" / "README.md").read_text()


async def test_requests_are_counted_by_method_and_template(app: Any) -> None:
    session = await app.signed_in()
    for vin in (VIN, "WBA00000000DEMO02"):
        await session.state(vin)
    await session.charging("start-charging", VIN)
    await session.charging("stop-charging", "WBA00000000DEMO02")
    await session.get(STATE, "WBA00000000NOBODY")

    stats = await app.control("GET", "stats")

    assert stats["requests"] == {
        "GET /eadrax-vcs/v4/vehicles/state": 3,
        "POST /eadrax-crccs/v1/vehicles/{vin}/{service}": 2,
    }
    assert stats["requests_total"] == 5
    assert stats["responses"] == {"200": 4, "404": 1}


async def test_control_requests_are_not_counted(app: Any) -> None:
    await app.control("GET", "settings")

    stats = await app.control("GET", "stats")

    assert (stats["requests_total"], stats["connections_opened"], stats["connections_accepted"]) == (0, 0, 1)


async def test_connections_are_counted_as_tcp_sees_them(app: Any) -> None:
    session = await app.signed_in()
    origin = str(app.http.base_url)

    async with httpx.AsyncClient(base_url=origin, trust_env=False) as pooled:
        for _ in range(5):
            await pooled.get(STATE, headers=session.headers(VIN))
    for _ in range(3):
        async with httpx.AsyncClient(base_url=origin, trust_env=False) as fresh:
            await fresh.get(STATE, headers=session.headers(VIN))
    address = urlsplit(origin)
    socket.create_connection((address.hostname, address.port)).close()
    await session.state(VIN)

    stats = await app.control("GET", "stats")
    assert stats["connections_opened"] == 1 + 3 + 1
    assert stats["connections_accepted"] == stats["connections_opened"] + 1


async def test_requests_in_flight_are_counted(app: Any) -> None:
    await app.control("POST", "settings", {"latency_ms": 30})
    session = await app.signed_in()

    await asyncio.gather(*(session.state(VIN) for _ in range(4)))
    await session.state(VIN)

    stats = await app.control("GET", "stats")
    assert (stats["in_flight"], stats["in_flight_max"]) == (0, 4)


async def test_latency_delays_every_answer(app: Any) -> None:
    await app.control("POST", "settings", {"latency_ms": 25})

    answer = await app.http.get("/eadrax-coas/v1/cop/publickey", headers=app.client_headers("cn"))

    assert answer.elapsed.total_seconds() >= 0.025


async def test_counters_can_be_zeroed_alone(app: Any) -> None:
    session = await app.signed_in()
    await session.command("horn-blow", VIN)

    await app.control("DELETE", "stats")

    stats = await app.control("GET", "stats")
    assert (stats["requests_total"], stats["commands"]) == (0, {})
    assert await session.state(VIN)


async def test_the_clock_can_be_pushed_forward(app: Any) -> None:
    session = await app.signed_in()

    assert await app.control("POST", "clock", {"advance_s": 3599}) == {"ahead_s": 3599}
    assert (await session.state(VIN))["lastFetched"] == "2026-01-01T12:59:59.000Z"
    assert await app.control("POST", "clock", {"advance_s": 1}) == {"ahead_s": 3600}
    assert (await session.get(STATE, VIN)).status_code == 401


@pytest.mark.parametrize("body", [{}, {"advance_s": -1}, {"advance_s": "1"}, {"advance_s": True}])
async def test_time_only_goes_forward(app: Any, body: dict[str, Any]) -> None:
    answer = await app.http.post("/_sandbox/clock", json=body)

    assert (answer.status_code, "advance_s" in answer.json()["message"]) == (400, True)


async def test_reset_forgets_everything(app: Any) -> None:
    session = await app.signed_in()
    await session.command("horn-blow", VIN)
    await app.step_one(captcha="a-token")
    await app.control("POST", f"cars/demo@example.com/{VIN}", {"state": {"currentMileage": 7}})
    await app.control("POST", "clock", {"advance_s": 10})
    await app.control("POST", "settings", {"slow_ms": 1, "event_step_s": 9, "times": "recorded"})
    await app.control("POST", "faults", {"fault": "hang"})

    await app.control("POST", "reset")

    assert (await session.get(STATE, VIN)).status_code == 401
    assert (await app.step_one(captcha="a-token")).status_code == 200
    state = await (await app.signed_in()).state(VIN)
    assert (state["currentMileage"], state["lastFetched"]) == (1121, "2026-01-01T12:00:00.000Z")
    settings = await app.control("GET", "settings")
    assert (settings["slow_ms"], settings["event_step_s"], settings["times"]) == (3000, 0, "live")
    assert (await app.control("GET", "stats"))["commands_received"] == 0


async def test_settings_are_changed_one_by_one(app: Any) -> None:
    await app.control("POST", "settings", {"latency_ms": 1.5})
    await app.control("POST", "settings", {"expires_in": 10, "times": "recorded"})

    assert await app.control("GET", "settings") == {
        "latency_ms": 1.5,
        "expires_in": 10,
        "event_step_s": 0,
        "times": "recorded",
        "slow_ms": 3000,
    }


@pytest.mark.parametrize(
    "body", [{"latency": 1}, {"latency_ms": -1}, {"latency_ms": "1"}, {"times": "now"}, {"latency_ms": 5, "x": 1}]
)
async def test_bad_settings_change_nothing(app: Any, body: dict[str, Any]) -> None:
    before = await app.control("GET", "settings")

    answer = await app.http.post("/_sandbox/settings", json=body)

    assert answer.status_code == 400
    assert await app.control("GET", "settings") == before


async def test_a_car_can_be_changed_by_hand(app: Any) -> None:
    session = await app.signed_in()

    car = await app.control(
        "POST",
        f"cars/demo@example.com/{VIN}",
        {
            "state": {
                "electricChargingState": {"isChargerConnected": False, "remainingChargingMinutes": None},
                "roofState": "gone",
                "newPart": {"deep": {"value": 1}},
            },
            "capabilities": {"horn": False},
            "profile": {"model": "iX"},
            "charging_settings": {"servicePack": "OTHER"},
        },
    )

    state = (await session.get(STATE, VIN)).json()
    assert state["state"]["electricChargingState"] == {
        "chargingConnectionType": "UNKNOWN",
        "chargingLevelPercent": 70,
        "chargingStatus": "CHARGING",
        "chargingTarget": 80,
        "isChargerConnected": False,
        "range": 340,
    }
    assert (state["state"]["roofState"], state["state"]["newPart"]) == ("gone", {"deep": {"value": 1}})
    assert state["capabilities"]["horn"] is False
    profile = await session.get("/eadrax-vcs/v5/vehicle-data/profile", VIN)
    assert (profile.json()["model"], profile.json()["vin"]) == ("iX", VIN)
    assert car["charging_settings"]["servicePack"] == "OTHER"
    assert await app.control("GET", f"cars/demo@example.com/{VIN}") == car


async def test_a_time_set_by_hand_stays(app: Any) -> None:
    old = "2025-12-31T00:00:00.000Z"
    await app.control("POST", f"cars/demo@example.com/{VIN}", {"state": {"lastFetched": old}})

    state = await (await app.signed_in()).state(VIN)

    assert (state["lastFetched"], state["lastUpdatedAt"]) == (old, "2026-01-01T12:00:00.000Z")


@pytest.mark.parametrize(
    ("vin", "patch", "problem"),
    [
        (VIN, {"doors": {}}, "unknown section"),
        (VIN, {"state": 1}, "not an object"),
        ("WBA00000000DEMO03", {"charging_settings": {"a": 1}}, "has no charging_settings"),
    ],
)
async def test_a_bad_patch_is_refused_and_said_why(app: Any, vin: str, patch: dict[str, Any], problem: str) -> None:
    answer = await app.http.post(f"/_sandbox/cars/demo@example.com/{vin}", json=patch)

    assert answer.status_code == 400
    assert problem in answer.json()["message"]


async def test_the_cars_of_an_account_are_listed(app: Any) -> None:
    assert await app.control("GET", "cars/one@example.com") == [VIN]


@pytest.mark.parametrize(
    "path", ["cars/nobody@example.com", f"cars/nobody@example.com/{VIN}", "cars/one@example.com/WBA", "nothing"]
)
async def test_what_does_not_exist_is_not_found(app: Any, path: str) -> None:
    assert (await app.http.get(f"/_sandbox/{path}")).status_code == 404


async def test_issued_tokens_are_as_good_as_those_of_a_login(app: Any) -> None:
    session = await app.signed_in("one@example.com", "na")

    assert await session.vehicles() == [VIN]
    assert (await app.refresh(session.tokens["refresh_token"], "na")).status_code == 200


async def test_an_unknown_token_control_is_refused(app: Any) -> None:
    answer = await app.http.post("/_sandbox/tokens", json={"revoke": "demo@example.com"})

    assert answer.status_code == 400


async def test_the_help_lists_accounts_and_controls(app: Any) -> None:
    page = await app.control("GET", "")

    assert page["password"] == "demo-password"
    assert "fleet-<n>@example.com" in page["accounts"]
    assert "POST /_sandbox/faults" in page["controls"]


async def test_the_readme_knows_every_account_control_setting_counter_and_fault(app: Any) -> None:
    page = await app.control("GET", "")
    refusal = (await app.http.post("/_sandbox/faults", json={})).json()["message"]
    names = {
        *page["accounts"],
        *(control.split()[1] for control in page["controls"]),
        *await app.control("GET", "settings"),
        *await app.control("GET", "stats"),
        *refusal.removeprefix("fault is none of ").split(", "),
    }

    assert [name for name in sorted(names) if f"{name}`" not in README] == []


async def test_a_defect_of_the_sandbox_shows_itself_in_the_answer(app: Any) -> None:
    session = await app.signed_in()
    await app.control("POST", f"cars/demo@example.com/{VIN}", {"state": {"location": "nowhere"}})
    sent = await session.command("vehicle-finder", VIN)
    for _ in range(3):
        await session.poll(sent)

    answer = await app.http.post(
        "/eadrax-vrccs/v4/presentation/remote-commands/eventPosition",
        params={"eventId": sent.json()["eventId"]},
        headers=session.headers() | {"latitude": "1", "longitude": "2"},
    )

    assert answer.status_code == 599
    assert "TypeError" in answer.text


async def test_a_sandbox_that_never_listened_can_be_stopped() -> None:
    await create_app().stop()


async def test_stopping_does_not_wait_for_hanging_requests() -> None:
    sandbox = create_app(Settings(), ManualClock())
    origin = await sandbox.start("127.0.0.1", 0)
    sandbox.world.faults.add({"fault": "hang"})

    async def stop_once_hanging() -> None:
        async with httpx.AsyncClient(base_url=origin, trust_env=False) as other:
            stats: dict[str, int] = {}
            while not stats.get("in_flight"):
                stats = (await other.get("/_sandbox/stats")).json()
        await sandbox.stop()

    async with httpx.AsyncClient(base_url=origin, trust_env=False, timeout=10) as http:
        with pytest.raises(httpx.TransportError):
            await asyncio.gather(http.get(STATE), stop_once_hanging())
