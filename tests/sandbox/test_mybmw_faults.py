"""Faults: what reaches the client, and whether the request took effect."""

import json
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from bimmer_connected.account import MyBMWAccount
from bimmer_connected.models import MyBMWQuotaError
from bimmer_connected.vehicle.remote_services import ExecutionState

from common.clock import ManualClock

STATE = "/eadrax-vcs/v4/vehicles/state"
VIN = "WBA00000000DEMO01"
OTHER_VIN = "WBA00000000DEMO02"

Library = Callable[..., MyBMWAccount]


async def add(app: Any, **rule: Any) -> int:
    number: int = (await app.control("POST", "faults", rule))["id"]
    return number


async def unlocks(app: Any) -> dict[str, int]:
    counts: dict[str, int] = (await app.control("GET", "stats"))["commands"].get(VIN, {}).get("door-unlock", {})
    return counts


async def lock_state(app: Any) -> str:
    """As the car knows it, asking no endpoint of BMW's."""
    car = await app.control("GET", f"cars/demo@example.com/{VIN}")
    state: str = car["state"]["doorsState"]["combinedSecurityState"]
    return state


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, {"statusCode": 401, "message": "Access token is missing or invalid."}),
        (429, {"statusCode": 429, "message": "Rate limit is exceeded. Try again in 13 seconds."}),
        (503, {"statusCode": 503, "message": "Service Unavailable"}),
        (418, {"statusCode": 418, "message": "I'm a Teapot"}),
        (599, {"statusCode": 599, "message": "Error"}),
    ],
)
async def test_a_status_comes_with_the_body_that_bmw_gives_it(app: Any, status: int, body: dict[str, Any]) -> None:
    await add(app, fault="status", status=status)

    answer = await (await app.signed_in()).get(STATE, VIN)

    assert (answer.status_code, answer.json()) == (status, body)
    assert "retry-after" not in answer.headers


@pytest.mark.parametrize(("status", "text"), [(489, "Blocked"), (500, "INTERNAL SERVER ERROR")])
async def test_some_statuses_come_with_plain_text(app: Any, status: int, text: str) -> None:
    await add(app, fault="status", status=status)

    answer = await (await app.signed_in()).get(STATE, VIN)

    assert (answer.status_code, answer.text) == (status, text)
    assert answer.headers["content-type"].startswith("text/plain")


async def test_a_used_up_quota_says_when_it_is_replenished(app: Any) -> None:
    await add(app, fault="status", status=403, replenish_s=7384)

    answer = await (await app.signed_in()).get(STATE, VIN)

    assert answer.json()["message"] == "Out of call volume quota. Quota will be replenished in 02:03:04."


async def test_the_real_library_understands_the_quota_message(app: Any, library: Library) -> None:
    account = library("one@example.com")
    await account.get_vehicles()
    await add(app, fault="status", status=403)

    with pytest.raises(MyBMWQuotaError, match=re.escape("replenished in 02:21:31")):
        await account.get_vehicles()


async def test_a_rate_limit_can_name_its_wait_in_both_ways(app: Any) -> None:
    await add(app, fault="status", status=429, wait_s=4, retry_after_s=5)

    answer = await (await app.signed_in()).get(STATE, VIN)

    assert "Try again in 4 seconds." in answer.json()["message"]
    assert answer.headers["retry-after"] == "5"


@pytest.mark.parametrize(
    ("body", "content", "content_type"),
    [({"a": 1}, b'{"a":1}', "application/json"), ("down", b"down", "text/plain")],
)
async def test_body_and_headers_of_a_status_can_be_given(
    app: Any, body: Any, content: bytes, content_type: str
) -> None:
    await add(app, fault="status", status=502, body=body, headers={"x-seen": 1})

    answer = await (await app.signed_in()).get(STATE, VIN)

    assert (answer.content, answer.headers["x-seen"]) == (content, "1")
    assert answer.headers["content-type"].startswith(content_type)


@pytest.mark.parametrize(
    ("rule", "executed"),
    [
        ({"fault": "status", "status": 500}, 0),
        ({"fault": "status", "status": 500, "perform": True}, 1),
        ({"fault": "empty"}, 1),
        ({"fault": "empty", "perform": False}, 0),
        ({"fault": "malformed"}, 1),
        ({"fault": "wrong_type"}, 1),
    ],
    ids=json.dumps,
)
async def test_a_spoilt_answer_tells_nothing_of_whether_the_command_took_effect(
    app: Any, rule: dict[str, Any], executed: int
) -> None:
    session = await app.signed_in()
    await add(app, **rule)

    answer = await session.command("door-unlock", VIN)

    assert b"eventStatus" not in answer.content
    assert (await unlocks(app)).get("executed", 0) == executed
    assert await lock_state(app) == ("UNLOCKED" if executed else "LOCKED")


async def test_an_empty_answer_is_a_success_without_a_body(app: Any) -> None:
    await add(app, fault="empty")

    answer = await (await app.signed_in()).command("door-unlock", VIN)

    assert (answer.status_code, answer.content) == (200, b"")


async def test_a_malformed_answer_is_announced_as_json_and_is_none(app: Any) -> None:
    await add(app, fault="malformed")

    answer = await (await app.signed_in()).get(STATE, VIN)

    assert answer.headers["content-type"] == "application/json"
    with pytest.raises(json.JSONDecodeError):
        answer.json()


@pytest.mark.parametrize(("rule", "document"), [({}, []), ({"body": {"eventId": 7}}, {"eventId": 7})])
async def test_an_answer_of_the_wrong_type_is_a_list_or_what_is_given(
    app: Any, rule: dict[str, Any], document: Any
) -> None:
    await add(app, fault="wrong_type", **rule)

    answer = await (await app.signed_in()).get(STATE, VIN)

    assert (answer.status_code, answer.json()) == (200, document)


async def test_a_truncated_answer_announces_more_than_it_sends(app: Any) -> None:
    session = await app.signed_in()
    whole = len((await session.get(STATE, VIN)).content)
    await add(app, fault="truncated")

    with pytest.raises(httpx.RemoteProtocolError, match=f"received {whole // 2} bytes, expected {whole}"):
        await session.get(STATE, VIN)


async def test_a_truncated_empty_answer_still_announces_something(app: Any) -> None:
    session = await app.signed_in()
    await add(app, fault="truncated", perform=False)

    with pytest.raises(httpx.RemoteProtocolError):
        await session.get(STATE, VIN)


@pytest.mark.parametrize(
    ("rule", "executed"),
    [
        ({"fault": "reset"}, 0),
        ({"fault": "reset_after"}, 1),
        ({"fault": "reset", "perform": True}, 1),
        ({"fault": "truncated"}, 1),
    ],
    ids=json.dumps,
)
async def test_a_cut_connection_tells_nothing_of_whether_the_command_took_effect(
    app: Any, rule: dict[str, Any], executed: int
) -> None:
    session = await app.signed_in()
    await add(app, **rule)

    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        await session.command("door-unlock", VIN)

    assert (await unlocks(app)).get("executed", 0) == executed
    assert await lock_state(app) == ("UNLOCKED" if executed else "LOCKED")


async def test_a_reset_is_one_to_the_client(app: Any) -> None:
    session = await app.signed_in()
    await add(app, fault="reset")

    with pytest.raises(httpx.ReadError):
        await session.get(STATE, VIN)


@pytest.mark.parametrize("perform", [False, True])
async def test_a_hanging_request_never_ends_and_may_have_taken_effect(app: Any, perform: bool) -> None:
    session = await app.signed_in()
    await add(app, fault="hang", perform=perform)

    with pytest.raises(httpx.ReadTimeout):
        await app.http.post(
            "/eadrax-vrccs/v4/presentation/remote-commands/door-unlock",
            json={},
            headers=session.headers(VIN),
            timeout=httpx.Timeout(5, read=0.05),
        )

    assert (await unlocks(app)).get("executed", 0) == perform


async def test_a_request_that_was_given_up_no_longer_counts_as_in_flight(app: Any) -> None:
    session = await app.signed_in()
    await add(app, fault="hang")

    with pytest.raises(httpx.ReadTimeout):
        await app.http.get(STATE, headers=session.headers(VIN), timeout=httpx.Timeout(5, read=0.05))

    stats = await app.control("GET", "stats")
    assert (stats["in_flight"], stats["in_flight_max"], stats["responses"]) == (0, 1, {"none": 1})


@pytest.mark.parametrize(("when", "received"), [("before", {}), ("after", {"received": 1, "executed": 0})])
async def test_a_slow_request_takes_effect_after_or_before_its_delay(
    app: Any, when: str, received: dict[str, int]
) -> None:
    session = await app.signed_in()
    await add(app, fault="slow", delay_ms=60_000, when=when)

    with pytest.raises(httpx.ReadTimeout):
        await app.http.post(
            "/eadrax-vrccs/v4/presentation/remote-commands/door-unlock",
            json={},
            headers=session.headers(VIN),
            timeout=httpx.Timeout(5, read=0.05),
        )

    assert await unlocks(app) == received


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_slow_request_is_answered_in_the_end(app: Any, when: str) -> None:
    session = await app.signed_in()
    await add(app, fault="slow", delay_ms=20, when=when)

    answer = await session.get(STATE, VIN)

    assert answer.status_code == 200
    assert answer.elapsed.total_seconds() >= 0.02


@pytest.mark.parametrize(
    ("outcome", "third", "executed"),
    [
        ("ERROR", "ERROR", 0),
        ("IGNORED", "IGNORED", 0),
        ("INITIATED", "INITIATED", 0),
        ("NEVER", "DELIVERED", 0),
        ("SOMETHING_NEW", "SOMETHING_NEW", 0),
    ],
)
async def test_a_command_can_be_made_to_end_otherwise(app: Any, outcome: str, third: str, executed: int) -> None:
    session = await app.signed_in()
    await add(app, fault="event", outcome=outcome, times=1)
    sent = await session.command("door-unlock", VIN)

    assert [await session.poll(sent) for _ in range(4)] == ["PENDING", "DELIVERED", third, third]

    assert await unlocks(app) == {"received": 1, "executed": executed}
    following = await session.command("door-unlock", VIN)
    assert [await session.poll(following) for _ in range(3)][-1] == "EXECUTED"


async def test_only_commands_meet_a_planned_outcome(app: Any) -> None:
    session = await app.signed_in()
    await add(app, fault="event", outcome="IGNORED", times=1)

    await session.state(VIN)
    sent = await session.command("door-unlock", VIN)

    assert [await session.poll(sent) for _ in range(3)][-1] == "IGNORED"


async def test_a_planned_outcome_comes_by_elapsed_time_too(app: Any, clock: ManualClock) -> None:
    await app.control("POST", "settings", {"event_step_s": 1})
    session = await app.signed_in()
    await add(app, fault="event", outcome="NEVER", times=1)
    stuck, fine = await session.command("door-unlock", VIN), await session.command("horn-blow", VIN)

    clock.advance(100)

    assert (await session.poll(stuck), await session.poll(fine)) == ("DELIVERED", "EXECUTED")


async def test_a_failed_command_has_the_recorded_body(app: Any) -> None:
    session = await app.signed_in()
    await add(app, fault="event", outcome="ERROR")
    sent = await session.command("door-unlock", VIN)
    for _ in range(2):
        await session.poll(sent)

    answer = await app.http.post(
        "/eadrax-vrccs/v3/presentation/remote-commands/eventStatus",
        params=sent.json() | {},
        headers=session.headers(),
    )

    assert answer.json() == {"eventStatus": "ERROR", "details": "Not sure if this is the correct structure."}


async def test_the_real_library_takes_an_ignored_command_for_a_normal_end(app: Any, library: Library) -> None:
    account = library("one@example.com")
    await account.get_vehicles()
    await add(app, fault="event", outcome="IGNORED")

    status = await account.vehicles[0].remote_services.trigger_remote_light_flash()

    assert status.state == ExecutionState.IGNORED


async def test_the_real_library_takes_an_empty_answer_for_executed(app: Any, library: Library) -> None:
    account = library("one@example.com")
    await account.get_vehicles()
    await add(app, fault="empty", perform=False)

    status = await account.vehicles[0].remote_services.trigger_remote_light_flash()

    assert status.state == ExecutionState.EXECUTED
    assert (await app.control("GET", "stats"))["commands_received"] == 0


async def statuses(session: Any, count: int, vin: str = VIN) -> list[int]:
    return [(await session.get(STATE, vin)).status_code for _ in range(count)]


async def test_a_rule_can_be_met_so_many_times(app: Any) -> None:
    await add(app, fault="status", status=503, times=2)

    assert await statuses(await app.signed_in(), 4) == [503, 503, 200, 200]


async def test_a_rule_can_spare_the_first_requests(app: Any) -> None:
    await add(app, fault="status", status=503, after=2, times=1)

    assert await statuses(await app.signed_in(), 4) == [200, 200, 503, 200]


async def test_a_rule_can_hit_every_third_request(app: Any) -> None:
    await add(app, fault="status", status=503, every=3)

    assert await statuses(await app.signed_in(), 7) == [200, 200, 503, 200, 200, 503, 200]


async def test_a_rule_with_times_zero_never_fires(app: Any) -> None:
    await add(app, fault="status", status=503, times=0)

    assert await statuses(await app.signed_in(), 1) == [200]


async def test_the_first_rule_that_fires_decides(app: Any) -> None:
    await add(app, fault="status", status=503, after=1)
    await add(app, fault="status", status=502)

    assert await statuses(await app.signed_in(), 2) == [502, 503]


@pytest.mark.parametrize(
    ("match", "hit"),
    [
        ({}, True),
        ({"path": "/vehicles/state"}, True),
        ({"path": r"/v\d/vehicles/st.te$"}, True),
        ({"path": "profile"}, False),
        ({"method": "get"}, True),
        ({"method": "POST"}, False),
        ({"account": "Demo@example.com"}, True),
        ({"account": "one@example.com"}, False),
        ({"vin": VIN}, True),
        ({"vin": OTHER_VIN}, False),
        ({"path": "state", "method": "GET", "account": "demo@example.com", "vin": VIN}, True),
        ({"path": "state", "method": "GET", "account": "demo@example.com", "vin": OTHER_VIN}, False),
    ],
    ids=json.dumps,
)
async def test_a_rule_hits_what_it_matches(app: Any, match: dict[str, str], hit: bool) -> None:
    await add(app, match=match, fault="status", status=503)

    assert await statuses(await app.signed_in(), 1) == [503 if hit else 200]


async def test_a_path_may_name_the_query(app: Any) -> None:
    session = await app.signed_in()
    await add(app, match={"path": "climate-now?action=START"}, fault="status", status=503)

    assert (await session.command("climate-now", VIN, {"action": "STOP"})).status_code == 200
    assert (await session.command("climate-now", VIN, {"action": "START"})).status_code == 503


async def test_the_vehicle_of_a_rule_is_found_in_paths_and_in_events(app: Any) -> None:
    session = await app.signed_in()
    mine, other = await session.command("horn-blow", VIN), await session.command("horn-blow", OTHER_VIN)
    await add(app, match={"vin": VIN}, fault="status", status=503)

    assert (await session.charging("start-charging", VIN)).status_code == 503
    assert (await session.charging("start-charging", OTHER_VIN)).status_code == 200
    for sent, status in ((mine, 503), (other, 200)):
        answer = await app.http.post(
            "/eadrax-vrccs/v3/presentation/remote-commands/eventStatus",
            params={"eventId": sent.json()["eventId"]},
            headers=session.headers(),
        )
        assert answer.status_code == status


async def test_the_account_of_a_rule_is_found_in_every_step_of_a_login(app: Any) -> None:
    authorization, code = await app.authorization(), await app.code()
    tokens = await app.log_in()
    await add(app, match={"account": "demo@example.com"}, fault="status", status=503)

    answers = [
        await app.step_one(),
        await app.step_two(authorization),
        await app.token(app.code_form(code)),
        await app.refresh(tokens["refresh_token"]),
    ]

    assert [answer.status_code for answer in answers] == [503] * 4
    assert (await app.step_one(app.password_form("one@example.com"))).status_code == 200


async def test_the_account_of_a_rule_is_found_behind_an_expired_token(app: Any, clock: ManualClock) -> None:
    session = await app.signed_in()
    clock.advance(4000)
    await add(app, match={"account": "demo@example.com"}, fault="status", status=503)

    assert await statuses(session, 1) == [503]


async def test_a_lost_answer_to_a_refresh_has_rotated_the_token(app: Any) -> None:
    tokens = await app.log_in()
    await add(app, match={"path": "/oauth/token"}, fault="reset_after", times=1)

    with pytest.raises(httpx.ReadError):
        await app.refresh(tokens["refresh_token"])

    assert (await app.refresh(tokens["refresh_token"])).status_code == 400
    assert (await app.control("GET", "stats"))["refresh_reuse_detected"] == 1


async def test_a_fault_after_a_poll_loses_no_command(app: Any) -> None:
    session = await app.signed_in()
    sent = await session.command("door-unlock", VIN)
    await add(app, match={"path": "eventStatus"}, fault="malformed", times=1)

    await app.http.post(
        "/eadrax-vrccs/v3/presentation/remote-commands/eventStatus",
        params={"eventId": sent.json()["eventId"]},
        headers=session.headers(),
    )

    assert [await session.poll(sent) for _ in range(2)] == ["DELIVERED", "EXECUTED"]


async def test_rules_tell_how_often_they_were_met(app: Any) -> None:
    number = await add(app, match={"vin": VIN}, fault="status", status=503, after=1)
    session = await app.signed_in()
    await statuses(session, 3)
    await statuses(session, 1, OTHER_VIN)

    (rule,) = await app.control("GET", "faults")

    assert (rule["id"], rule["seen"], rule["fired"], rule["rule"]["after"]) == (number, 3, 2, 1)
    assert (await app.control("GET", "stats"))["faults_injected"] == {"status": 2}


async def test_rules_can_be_dropped(app: Any) -> None:
    await add(app, fault="status", status=503)
    await app.control("DELETE", "faults")

    assert await statuses(await app.signed_in(), 1) == [200]
    assert await app.control("GET", "faults") == []


async def test_control_requests_are_never_hit(app: Any) -> None:
    await add(app, fault="status", status=503)

    assert len(await app.control("GET", "faults")) == 1


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ({}, "fault is none of"),
        ({"fault": "meteor"}, "fault is none of"),
        ({"fault": ["status"]}, "fault is none of"),
        ({"fault": "hang", "status": 500}, "unknown parameters for hang: status"),
        ({"fault": "hang", "match": "state"}, "match is an object"),
        ({"fault": "hang", "match": {"path": 1}}, "match is an object"),
        ({"fault": "hang", "match": {"url": "x"}}, "not url"),
        ({"fault": "hang", "match": {"path": "("}}, "regular expression"),
        ({"fault": "hang", "times": -1}, "times"),
        ({"fault": "hang", "after": "1"}, "after"),
        ({"fault": "hang", "every": 0}, "every"),
        ({"fault": "hang", "every": None}, "every"),
        ({"fault": "status"}, "status needs"),
        ({"fault": "status", "status": 99}, "status needs"),
        ({"fault": "status", "status": "500"}, "status needs"),
        ({"fault": "slow"}, "delay_ms"),
        ({"fault": "slow", "delay_ms": 1, "when": "during"}, "before"),
        ({"fault": "event"}, "outcome"),
        ({"fault": "event", "outcome": ""}, "outcome"),
    ],
    ids=json.dumps,
)
async def test_a_bad_rule_is_refused_and_said_why(app: Any, rule: dict[str, Any], problem: str) -> None:
    answer = await app.http.post("/_sandbox/faults", json=rule)

    assert answer.status_code == 400
    assert problem in answer.json()["message"]
    assert await app.control("GET", "faults") == []


@pytest.mark.parametrize(("username", "status"), [("blocked@example.com", 489), ("down@example.com", 503)])
async def test_some_accounts_always_fail_from_the_password_on(app: Any, username: str, status: int) -> None:
    assert (await app.step_one(app.password_form(username))).status_code == status
    assert await statuses(await app.signed_in(username), 1) == [status]
    assert (await app.control("GET", "stats"))["faults_injected"] == {"status": 2}


async def test_the_quota_account_logs_in_and_is_refused_afterwards(app: Any) -> None:
    session = await app.signed_in("quota@example.com")
    session.tokens = await app.log_in("quota@example.com")

    answer = await session.get(STATE, VIN)

    assert answer.status_code == 403
    assert "replenished in" in answer.text


async def test_the_slow_account_is_answered_late(app: Any) -> None:
    await app.control("POST", "settings", {"slow_ms": 20})

    answer = await (await app.signed_in("slow@example.com")).get(STATE, VIN)

    assert answer.status_code == 200
    assert answer.elapsed.total_seconds() >= 0.02


async def test_a_rule_goes_before_what_the_account_always_does(app: Any) -> None:
    session = await app.signed_in("down@example.com")
    await add(app, fault="status", status=429, times=1)

    assert await statuses(session, 2) == [429, 503]
