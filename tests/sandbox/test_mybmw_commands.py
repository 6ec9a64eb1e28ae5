"""Remote services: from the command to its effect on the car."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from bimmer_connected.account import MyBMWAccount
from bimmer_connected.models import MyBMWAPIError
from bimmer_connected.vehicle.charging_profile import ChargingMode
from bimmer_connected.vehicle.climate import ClimateActivityState
from bimmer_connected.vehicle.doors_windows import LockState
from bimmer_connected.vehicle.fuel_and_battery import ChargingState
from bimmer_connected.vehicle.remote_services import ExecutionState
from bimmer_connected.vehicle.vehicle import MyBMWVehicle

from common.clock import ManualClock

VIN = "WBA00000000DEMO01"
I3 = "WBY000000NOREXI01"
COMBUSTION = "WBA00000000DEMO03"
SILENT = "WBA00000000000F31"
EVENT_STATUS = "/eadrax-vrccs/v3/presentation/remote-commands/eventStatus"
EVENT_POSITION = "/eadrax-vrccs/v4/presentation/remote-commands/eventPosition"
POI = {"lat": 37.4028943, "lon": -121.9700289, "name": "49ers", "city": "Santa Clara"}

Library = Callable[..., MyBMWAccount]


@pytest.fixture
async def vehicle(library: Library) -> MyBMWVehicle:
    account = library("one@example.com")
    await account.get_vehicles()
    return account.vehicles[0]


async def commands(app: Any, vin: str = VIN) -> Any:
    return (await app.control("GET", "stats"))["commands"].get(vin, {})


async def test_the_real_library_unlocks_and_locks(app: Any, vehicle: MyBMWVehicle) -> None:
    unlocked = await vehicle.remote_services.trigger_remote_door_unlock()
    assert (unlocked.state, vehicle.doors_and_windows.door_lock_state) == (ExecutionState.EXECUTED, LockState.UNLOCKED)

    await vehicle.remote_services.trigger_remote_door_lock()
    assert vehicle.doors_and_windows.door_lock_state == LockState.LOCKED

    assert await commands(app) == {
        "door-unlock": {"received": 1, "executed": 1},
        "door-lock": {"received": 1, "executed": 1},
    }


async def test_the_real_library_starts_and_stops_the_climate(vehicle: MyBMWVehicle) -> None:
    await vehicle.remote_services.trigger_remote_air_conditioning()
    running = vehicle.climate.activity, vehicle.climate.activity_end_time is not None
    await vehicle.remote_services.trigger_remote_air_conditioning_stop()
    stopped = vehicle.climate.activity, vehicle.climate.activity_end_time is not None

    assert running == (ClimateActivityState.COOLING, True)
    assert stopped == (ClimateActivityState.STANDBY, False)


async def test_the_real_library_stops_and_starts_charging(vehicle: MyBMWVehicle) -> None:
    await vehicle.remote_services.trigger_charge_stop()
    stopped = vehicle.fuel_and_battery.charging_status
    await vehicle.remote_services.trigger_charge_start()
    started = vehicle.fuel_and_battery.charging_status

    assert (stopped, started) == (ChargingState.PLUGGED_IN, ChargingState.CHARGING)


async def test_the_real_library_sets_target_and_limit(app: Any, vehicle: MyBMWVehicle) -> None:
    await vehicle.remote_services.trigger_charging_settings_update(target_soc=75, ac_limit=20)

    assert vehicle.fuel_and_battery.charging_target == 75
    assert vehicle.charging_profile is not None
    assert vehicle.charging_profile.ac_current_limit == 20
    details = (await app.control("GET", f"cars/one@example.com/{VIN}"))["charging_settings"]["chargingSettingsDetail"]
    assert (details["chargingTarget"], details["acLimit"]["current"]["value"]) == (75, 20)


async def test_the_real_library_replaces_the_charging_profile(app: Any, vehicle: MyBMWVehicle) -> None:
    await vehicle.remote_services.trigger_charging_profile_update(ChargingMode.DELAYED_CHARGING, True)

    assert vehicle.charging_profile is not None
    assert vehicle.charging_profile.charging_mode == ChargingMode.DELAYED_CHARGING
    assert vehicle.charging_profile.is_pre_entry_climatization_enabled
    car = await app.control("GET", f"cars/one@example.com/{VIN}")
    timer = car["charging_settings"]["chargeAndClimateTimerDetail"]
    assert timer["chargingMode"]["type"] == "TIME_SLOT"
    assert timer["isPreconditionForDepartureActive"]


async def test_the_real_library_sends_a_place(app: Any, vehicle: MyBMWVehicle) -> None:
    status = await vehicle.remote_services.trigger_send_poi(POI)

    assert status.state == ExecutionState.EXECUTED
    assert await commands(app) == {"send-to-car": {"received": 1, "executed": 1}}
    (place,) = (await app.control("GET", f"cars/one@example.com/{VIN}"))["places"]
    assert (place["title"], place["position"]) == ("49ers", {"lat": 37.4028943, "lng": -121.9700289})


async def test_the_real_library_flashes_and_honks(app: Any, vehicle: MyBMWVehicle) -> None:
    await vehicle.remote_services.trigger_remote_light_flash()
    await vehicle.remote_services.trigger_remote_horn()

    assert set(await commands(app)) == {"light-flash", "horn-blow"}


async def test_the_real_library_finds_the_car(app: Any, vehicle: MyBMWVehicle) -> None:
    await app.control(
        "POST",
        f"cars/one@example.com/{VIN}",
        {"state": {"location": {"coordinates": {"latitude": 1.5, "longitude": 2.5}, "heading": 90}}},
    )
    vehicle.account.set_observer_position(48.0, 11.0)

    await vehicle.remote_services.trigger_remote_vehicle_finder()

    assert vehicle.vehicle_location.location == (1.5, 2.5)
    assert vehicle.vehicle_location.heading == 90


async def test_each_poll_advances_a_command_when_the_step_is_zero(app: Any) -> None:
    session = await app.signed_in()
    sent = await session.command("door-unlock", VIN)

    assert [await session.poll(sent) for _ in range(4)] == ["PENDING", "DELIVERED", "EXECUTED", "EXECUTED"]
    assert (await session.state(VIN))["doorsState"]["combinedSecurityState"] == "UNLOCKED"
    assert await commands(app) == {"door-unlock": {"received": 1, "executed": 1}}


async def test_a_command_that_nobody_polls_stays_pending_when_the_step_is_zero(app: Any, clock: ManualClock) -> None:
    session = await app.signed_in()
    await session.command("door-unlock", VIN)

    clock.advance(1000)

    assert (await session.state(VIN))["doorsState"]["combinedSecurityState"] == "LOCKED"


async def test_a_command_advances_by_elapsed_time(app: Any, clock: ManualClock) -> None:
    await app.control("POST", "settings", {"event_step_s": 2})
    session = await app.signed_in()
    sent = await session.command("door-unlock", VIN)

    seen = []
    for elapsed_s in (0, 1.9, 0.1, 1.9, 0.1):
        clock.advance(elapsed_s)
        seen.append(await session.poll(sent))

    assert seen == ["PENDING", "PENDING", "DELIVERED", "DELIVERED", "EXECUTED"]


async def test_a_car_executes_in_time_even_if_nobody_polls(app: Any, clock: ManualClock) -> None:
    await app.control("POST", "settings", {"event_step_s": 2})
    session = await app.signed_in()
    await session.command("door-unlock", VIN)

    clock.advance(3.9)
    assert (await session.state(VIN))["doorsState"]["combinedSecurityState"] == "LOCKED"
    clock.advance(0.1)
    assert (await session.state(VIN))["doorsState"]["combinedSecurityState"] == "UNLOCKED"


async def test_the_counters_know_of_what_was_executed_unseen(app: Any, clock: ManualClock) -> None:
    await app.control("POST", "settings", {"event_step_s": 2})
    await (await app.signed_in()).command("horn-blow", VIN)

    assert await commands(app) == {"horn-blow": {"received": 1, "executed": 0}}
    clock.advance(4)
    assert await commands(app) == {"horn-blow": {"received": 1, "executed": 1}}


async def test_commands_execute_in_the_order_they_were_sent(app: Any, clock: ManualClock) -> None:
    await app.control("POST", "settings", {"event_step_s": 1})
    session = await app.signed_in()

    for service in ("door-unlock", "door-lock", "door-unlock", "door-lock"):
        await session.command(service, VIN)
        clock.advance(0.1)
    clock.advance(10)

    assert (await session.state(VIN))["doorsState"]["combinedSecurityState"] == "LOCKED"


async def test_the_counters_can_be_read_for_one_account(app: Any) -> None:
    for name in ("user-1@example.com", "user-2@example.com"):
        await (await app.signed_in(name)).command("horn-blow", VIN)

    assert (await commands(app))["horn-blow"]["received"] == 2
    stats = await app.control("GET", "stats?account=user-1@example.com")
    assert stats["commands"][VIN]["horn-blow"]["received"] == 1


async def test_a_silent_car_obeys_but_nobody_can_see_it(app: Any) -> None:
    session = await app.signed_in()

    for service, params in (("door-unlock", None), ("climate-now", {"action": "STOP"})):
        sent = await session.command(service, SILENT, params)
        assert [await session.poll(sent) for _ in range(3)][-1] == "EXECUTED"

    assert set(await session.state(SILENT)).isdisjoint({"doorsState", "climateControlState"})


@pytest.mark.parametrize("service", ["start-charging", "stop-charging"])
async def test_a_car_that_is_not_plugged_in_ignores_charging_commands(app: Any, service: str) -> None:
    session = await app.signed_in()
    battery = {"electricChargingState": {"isChargerConnected": False, "chargingStatus": "INVALID"}}
    await app.control("POST", f"cars/demo@example.com/{VIN}", {"state": battery})

    sent = await session.charging(service, VIN)

    assert [await session.poll(sent) for _ in range(3)][-1] == "IGNORED"
    assert (await session.state(VIN))["electricChargingState"]["chargingStatus"] == "INVALID"
    assert await commands(app) == {service: {"received": 1, "executed": 0}}


PROFILE_BODY = {
    "chargingMode": {"chargingPreference": "CHARGING_WINDOW", "type": "TIME_SLOT"},
    "departureTimer": {},
    "isPreconditionForDepartureActive": True,
    "servicePack": "WAVE_01",
}


@pytest.mark.parametrize(
    ("service", "body"),
    [("start-charging", {}), ("charging-settings", {"chargingTarget": 80}), ("charging-profile", PROFILE_BODY)],
)
async def test_a_car_without_a_battery_fails_charging_commands(app: Any, service: str, body: dict[str, Any]) -> None:
    session = await app.signed_in()

    sent = await session.charging(service, COMBUSTION, body)

    assert [await session.poll(sent) for _ in range(3)][-1] == "ERROR"
    assert await commands(app, COMBUSTION) == {service: {"received": 1, "executed": 0}}


async def test_a_car_without_charging_details_still_takes_a_target(app: Any) -> None:
    session = await app.signed_in()

    sent = await session.charging("charging-settings", I3, {"chargingTarget": 90})

    assert [await session.poll(sent) for _ in range(3)][-1] == "EXECUTED"
    assert (await session.state(I3))["electricChargingState"]["chargingTarget"] == 90


async def test_a_profile_is_taken_by_a_car_whose_charging_settings_are_not_known(app: Any) -> None:
    battery = {"electricChargingState": {"isChargerConnected": True}}
    await app.control("POST", f"cars/demo@example.com/{COMBUSTION}", {"state": battery})
    session = await app.signed_in()

    sent = await session.charging("charging-profile", COMBUSTION, PROFILE_BODY)

    assert [await session.poll(sent) for _ in range(3)][-1] == "EXECUTED"
    assert (await session.state(COMBUSTION))["chargingProfile"]["chargingMode"] == "DELAYED_CHARGING"


async def test_charging_settings_of_nothing_but_nulls_change_nothing(app: Any) -> None:
    session = await app.signed_in()
    before = await session.state(VIN)

    sent = await session.charging("charging-settings", VIN, {"chargingTarget": None, "acLimitValue": None})

    assert [await session.poll(sent) for _ in range(3)][-1] == "EXECUTED"
    assert await session.state(VIN) == before


@pytest.mark.parametrize(
    ("vin", "body", "field"),
    [
        (VIN, {"chargingTarget": 15}, "chargingTarget"),
        (VIN, {"chargingTarget": 105}, "chargingTarget"),
        (VIN, {"chargingTarget": 81}, "chargingTarget"),
        (VIN, {"chargingTarget": 80.0}, "chargingTarget"),
        (VIN, {"chargingTarget": True}, "chargingTarget"),
        (VIN, {"acLimitValue": 17}, "acLimitValue"),
        (COMBUSTION, {"acLimitValue": 16}, "acLimitValue"),
    ],
)
async def test_charging_settings_name_a_bad_value(app: Any, vin: str, body: dict[str, Any], field: str) -> None:
    answer = await (await app.signed_in()).charging("charging-settings", vin, body)

    assert (answer.status_code, answer.json()["field"]) == (400, field)
    assert await commands(app, vin) == {}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("chargingMode", {"chargingPreference": "NO_PRESELECTION", "type": "TIME_SLOT"}),
        ("chargingMode", {"chargingPreference": "CHARGING_WINDOW", "type": "CHARGING_IMMEDIATELY"}),
        ("chargingMode", {"chargingPreference": "CHARGING_WINDOW", "type": "SOMETIMES"}),
        ("chargingMode", "TIME_SLOT"),
        ("isPreconditionForDepartureActive", "yes"),
    ],
)
async def test_a_charging_profile_names_a_bad_value(app: Any, field: str, value: Any) -> None:
    answer = await (await app.signed_in()).charging("charging-profile", VIN, PROFILE_BODY | {field: value})

    assert (answer.status_code, answer.json()["field"]) == (400, field)


@pytest.mark.parametrize("field", sorted(PROFILE_BODY))
async def test_a_charging_profile_is_replaced_as_a_whole(app: Any, field: str) -> None:
    body = {name: value for name, value in PROFILE_BODY.items() if name != field}

    answer = await (await app.signed_in()).charging("charging-profile", VIN, body)

    assert (answer.status_code, answer.json()["field"]) == (400, field)


async def test_unknown_services_are_not_found(app: Any) -> None:
    session = await app.signed_in()

    assert (await session.command("self-destruct", VIN)).status_code == 404
    assert (await session.charging("self-destruct", VIN)).status_code == 404


@pytest.mark.parametrize("action", [None, "PAUSE"])
async def test_the_climate_needs_an_action(app: Any, action: str | None) -> None:
    answer = await (await app.signed_in()).command("climate-now", VIN, {"action": action} if action else None)

    assert (answer.status_code, answer.json()["parameter"]) == (400, "action")


async def test_commands_for_a_car_of_somebody_else_are_not_found(app: Any) -> None:
    session = await app.signed_in("one@example.com")

    assert (await session.command("door-unlock", "WBA00000000DEMO02")).status_code == 404
    assert (await session.charging("start-charging", "WBA00000000DEMO02")).status_code == 404
    assert (await app.control("GET", "stats"))["commands_received"] == 0


@pytest.mark.parametrize(
    ("headers", "content", "named"),
    [
        ({"bmw-vin": ""}, b"{}", "bmw-vin"),
        ({"content-type": "text/plain"}, b"{}", "content-type"),
        ({}, b"{", "body"),
        ({}, b"[]", "body"),
    ],
)
async def test_a_command_names_what_is_wrong_with_it(
    app: Any, headers: dict[str, str], content: bytes, named: str
) -> None:
    session = await app.signed_in()
    proper = session.headers(VIN) | {"content-type": "application/json"}

    answer = await app.http.post(
        "/eadrax-vrccs/v4/presentation/remote-commands/door-lock", content=content, headers=proper | headers
    )

    assert answer.status_code == 400
    assert named in answer.json().values()


async def event(app: Any, session: Any, path: str, event_id: str, headers: dict[str, str] | None = None) -> Any:
    return await app.http.post(path, params={"eventId": event_id}, headers=session.headers() | (headers or {}))


OBSERVER = {"latitude": "48.1", "longitude": "11.5"}


@pytest.mark.parametrize("path", [EVENT_STATUS, EVENT_POSITION])
async def test_events_that_are_unknown_or_somebody_elses_are_not_found(app: Any, path: str) -> None:
    mine, other = await app.signed_in(), await app.signed_in("user-1@example.com")
    event_id = (await other.command("vehicle-finder", VIN)).json()["eventId"]

    assert (await event(app, other, path, event_id, OBSERVER)).status_code == 200
    assert (await event(app, mine, path, event_id, OBSERVER)).status_code == 404
    assert (await event(app, mine, path, "no-such-event", OBSERVER)).status_code == 404


@pytest.mark.parametrize("path", [EVENT_STATUS, EVENT_POSITION])
async def test_an_event_id_is_needed(app: Any, path: str) -> None:
    session = await app.signed_in()

    answer = await event(app, session, path, "", OBSERVER)

    assert (answer.status_code, answer.json()["parameter"]) == (400, "eventId")


@pytest.mark.parametrize("header", sorted(OBSERVER))
async def test_a_position_needs_the_observers_own(app: Any, header: str) -> None:
    session = await app.signed_in()
    event_id = (await session.command("vehicle-finder", VIN)).json()["eventId"]

    answer = await event(app, session, EVENT_POSITION, event_id, OBSERVER | {header: ""})

    assert (answer.status_code, answer.json()["header"]) == (400, header)


@pytest.mark.parametrize(
    ("service", "vin", "polls"),
    [("vehicle-finder", VIN, 1), ("light-flash", VIN, 3), ("vehicle-finder", "WBY00000000REXI01", 3)],
    ids=["not found yet", "not searched", "not located"],
)
async def test_a_position_is_unknown_until_the_car_was_found(app: Any, service: str, vin: str, polls: int) -> None:
    session = await app.signed_in()
    sent = await session.command(service, vin)
    for _ in range(polls):
        await session.poll(sent)

    answer = (await event(app, session, EVENT_POSITION, sent.json()["eventId"], OBSERVER)).json()

    assert answer["positionData"] is None
    assert answer["errorDetails"]["title"] == "Unknown position"


@pytest.fixture
async def place_sender(app: Any) -> Callable[..., Any]:
    session = await app.signed_in("one@example.com")
    place = {"position": {"lat": 1.0, "lng": 2.0}, "title": "Home"}

    async def send(gcid: str | None = None, **changes: Any) -> httpx.Response:
        body = {"places": [place], "vehicleInformation": {"vin": VIN}} | changes
        path = f"/eadrax-dcs/v2/user/{gcid or session.tokens['gcid']}/send-to-car"
        answer: httpx.Response = await app.http.post(path, json=body, headers=session.headers(VIN))
        return answer

    return send


async def test_a_place_is_accepted_with_an_empty_body(place_sender: Callable[..., Any]) -> None:
    answer = await place_sender()

    assert (answer.status_code, answer.content) == (201, b"")


@pytest.mark.parametrize("gcid", ["None", "another"])
async def test_a_place_for_another_user_is_not_found(app: Any, place_sender: Callable[..., Any], gcid: str) -> None:
    assert (await place_sender(gcid)).status_code == 404
    assert (await app.control("GET", "stats"))["commands_received"] == 0


@pytest.mark.parametrize("vehicle", [{"vin": "WBA00000000DEMO02"}, None])
async def test_a_place_for_another_vehicle_is_not_found(place_sender: Callable[..., Any], vehicle: Any) -> None:
    assert (await place_sender(vehicleInformation=vehicle)).status_code == 404


@pytest.mark.parametrize(
    ("places", "field"),
    [
        (None, "places"),
        ([], "places"),
        (["Home"], "places"),
        ([{"title": "Home"}], "position"),
        ([{"position": {"lat": 1.0}, "title": "Home"}], "position"),
        ([{"position": {"lat": "1.0", "lng": 2.0}, "title": "Home"}], "position"),
        ([{"position": {"lat": 1.0, "lng": 2.0}, "title": ""}], "title"),
    ],
)
async def test_a_place_names_what_is_wrong_with_it(place_sender: Callable[..., Any], places: Any, field: str) -> None:
    answer = await place_sender(places=places)

    assert (answer.status_code, answer.json()["field"]) == (400, field)


async def test_the_real_library_without_a_gcid_sends_a_place_to_nobody(app: Any, library: Library) -> None:
    tokens = await app.log_in("one@example.com")
    account = library("one@example.com", captcha=None)
    account.set_refresh_token(tokens["refresh_token"], None, tokens["access_token"], "a-session")
    await account.get_vehicles()

    with pytest.raises(MyBMWAPIError):
        await account.vehicles[0].remote_services.trigger_send_poi(POI)
