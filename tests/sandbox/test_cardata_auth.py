"""The device flow, and tokens that rotate."""

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.cardata import SCOPE, Client, error_of, simulated


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with simulated() as client:
        yield client


async def approve(client: Client, device: dict[str, Any], *, decision: bool = True) -> None:
    await client.control("POST", "devices", {"user_code": device["user_code"], "approve": decision})


async def test_the_device_flow_gives_tokens_once_the_customer_has_approved(client: Client) -> None:
    device = await client.device_code()
    assert (device["interval"], device["expires_in"]) == (5, 300)
    assert device["verification_uri"] == f"{client.http.base_url}/oneid/link".replace("//oneid", "/oneid")
    assert "verification_uri_complete" not in device

    assert error_of(await client.poll(device["device_code"])) == (403, "authorization_pending")
    await approve(client, device)
    client.clock.advance(5)
    answer = await client.poll(device["device_code"])

    tokens = answer.json()
    assert answer.status_code == 200
    assert set(tokens) == {
        "access_token",
        "token_type",
        "expires_in",
        "refresh_token",
        "scope",
        "id_token",
        "gcid",
    }
    assert (tokens["token_type"], tokens["expires_in"], tokens["gcid"]) == ("Bearer", 3599, client.gcid)
    assert set(tokens["scope"].split()) == set(SCOPE.split())
    client.access_token = tokens["access_token"]
    assert (await client.call("vehicles/mappings")).status_code == 200


async def test_an_id_token_says_whose_it_is_and_when_it_ends(client: Client) -> None:
    tokens = await client.log_in()

    header, claims, _signature = tokens["id_token"].split(".")
    claims = json.loads(base64.urlsafe_b64decode(claims + "=="))
    assert json.loads(base64.urlsafe_b64decode(header + "=="))["typ"] == "JWT"
    assert (claims["sub"], claims["aud"]) == (client.gcid, client.client_id)
    assert claims["exp"] == int(client.clock.utc().timestamp()) + 3600


async def test_the_documented_complete_uri_can_be_had(client: Client) -> None:
    await client.control("POST", "settings", {"complete_uri": True})

    device = await client.device_code()

    assert device["verification_uri_complete"].endswith(f"?user_code={device['user_code']}")


async def test_a_device_code_works_once(client: Client) -> None:
    device = await client.device_code()
    await approve(client, device)
    assert (await client.poll(device["device_code"])).status_code == 200

    client.clock.advance(5)

    assert error_of(await client.poll(device["device_code"])) == (400, "invalid_grant")


async def test_a_denied_request_is_access_denied_and_over(client: Client) -> None:
    device = await client.device_code()
    await approve(client, device, decision=False)

    assert error_of(await client.poll(device["device_code"])) == (403, "access_denied")
    client.clock.advance(5)
    assert error_of(await client.poll(device["device_code"])) == (400, "invalid_grant")


async def test_polling_faster_than_the_interval_is_slow_down_and_lengthens_it(client: Client) -> None:
    device = await client.device_code()
    await client.poll(device["device_code"])

    client.clock.advance(4.9)
    assert error_of(await client.poll(device["device_code"])) == (400, "slow_down")
    client.clock.advance(9.9)
    assert error_of(await client.poll(device["device_code"])) == (400, "slow_down")
    client.clock.advance(15)
    assert error_of(await client.poll(device["device_code"])) == (403, "authorization_pending")


async def test_a_device_code_expires_after_300_seconds_even_if_approved(client: Client) -> None:
    device = await client.device_code()
    await approve(client, device)
    client.clock.advance(299.9)
    late = await client.device_code()

    client.clock.advance(0.1)

    assert error_of(await client.poll(device["device_code"])) == (401, "expired_token")
    assert error_of(await client.poll(late["device_code"])) == (403, "authorization_pending")


async def test_a_verifier_that_does_not_match_is_an_invalid_grant(client: Client) -> None:
    device = await client.device_code()
    await approve(client, device)

    assert error_of(await client.poll(device["device_code"], code_verifier="another")) == (400, "invalid_grant")


async def test_a_device_code_belongs_to_the_client_that_asked_for_it(client: Client) -> None:
    other = await client.control("POST", "customers", {})
    device = await client.device_code()
    await approve(client, device)

    stolen = await client.poll(device["device_code"], client_id=other["client_id"])

    assert error_of(stolen) == (400, "invalid_grant")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"client_id": "00000000-0000-0000-0000-000000000000"}, (401, "invalid_client")),
        ({"client_id": ""}, (400, "invalid_request")),
        ({"response_type": "code"}, (400, "invalid_request")),
        ({"code_challenge_method": "plain"}, (400, "invalid_request")),
        ({"code_challenge": ""}, (400, "invalid_request")),
        ({"scope": "everything"}, (400, "invalid_request")),
    ],
)
async def test_a_device_request_that_is_wrong_is_refused(
    client: Client, changes: dict[str, str], expected: tuple[int, str]
) -> None:
    answer = await client.http.post("/gcdm/oauth/device/code", data=client.device_form(**changes))

    assert error_of(answer) == expected


async def test_a_body_that_is_no_form_is_refused(client: Client) -> None:
    answer = await client.http.post("/gcdm/oauth/device/code", json=client.device_form())

    assert error_of(answer) == (400, "invalid_request")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"client_id": "00000000-0000-0000-0000-000000000000"}, (401, "invalid_client")),
        ({"grant_type": "password"}, (400, "invalid_request")),
        ({"refresh_token": ""}, (400, "invalid_request")),
        ({"refresh_token": "unknown"}, (400, "invalid_grant")),
    ],
)
async def test_a_token_request_that_is_wrong_is_refused(
    client: Client, changes: dict[str, str], expected: tuple[int, str]
) -> None:
    tokens = await client.log_in()

    assert error_of(await client.refresh(tokens["refresh_token"], **changes)) == expected


async def test_every_refresh_rotates_all_three_and_kills_the_old_refresh_token(client: Client) -> None:
    first = await client.log_in()
    second = (await client.refresh(first["refresh_token"])).json()

    names = ("access_token", "refresh_token", "id_token")
    assert all(first[name] != second[name] for name in names)
    assert error_of(await client.refresh(first["refresh_token"])) == (400, "invalid_grant")
    third = await client.refresh(second["refresh_token"])
    assert third.status_code == 200

    auth = (await client.control("GET", "stats"))["auth"]
    assert auth == {"refreshes": 2, "refreshes_refused": 1, "refresh_reuse_detected": 1}


async def test_a_refresh_token_lives_14_days(client: Client) -> None:
    alive, dead = await client.log_in(), await client.log_in()

    client.clock.advance(14 * 86_400 - 1)
    assert (await client.refresh(alive["refresh_token"])).status_code == 200
    client.clock.advance(1)

    assert error_of(await client.refresh(dead["refresh_token"])) == (400, "invalid_grant")
    assert (await client.control("GET", "stats"))["auth"].get("refresh_reuse_detected", 0) == 0


async def test_removing_a_subscription_kills_the_refresh_token_at_once(client: Client) -> None:
    tokens = await client.log_in()

    await client.control("POST", f"customers/{client.gcid}", {"api_subscribed": False})

    assert error_of(await client.refresh(tokens["refresh_token"])) == (400, "invalid_grant")
    assert error_of(await client.call("vehicles/mappings")) == (403, "CU-403")


async def test_a_client_without_any_subscription_gets_no_device_code(client: Client) -> None:
    await client.control("POST", f"customers/{client.gcid}", {"api_subscribed": False, "stream_subscribed": False})

    answer = await client.http.post("/gcdm/oauth/device/code", data=client.device_form())

    assert error_of(answer) == (403, "access_denied")


async def test_only_subscribed_scopes_are_granted(client: Client) -> None:
    await client.control("POST", f"customers/{client.gcid}", {"stream_subscribed": False})

    tokens = await client.log_in()

    assert tokens["scope"].split() == ["authenticate_user", "cardata:api:read", "openid"]


async def test_the_500_fault_burns_the_device_code(client: Client) -> None:
    device = await client.device_code()
    await approve(client, device)
    await client.control("POST", "faults", {"fault": "burn", "match": {"path": "oauth/token"}, "times": 1})

    answer = await client.poll(device["device_code"])
    client.clock.advance(5)

    assert answer.status_code == 500
    assert answer.json()["fault"]["detail"]["errorcode"] == "keymanagement.service.invalid_access_token"
    assert error_of(await client.poll(device["device_code"])) == (400, "invalid_grant")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ("authorization_pending", 403),
        ("access_denied", 403),
        ("slow_down", 400),
        ("invalid_request", 400),
        ("invalid_grant", 400),
        ("expired_token", 401),
        ("invalid_client", 401),
    ],
)
async def test_each_row_of_the_table_can_be_had_as_a_fault_without_effect(
    client: Client, error: str, status: int
) -> None:
    tokens = await client.log_in()
    await client.control("POST", "faults", {"fault": "oauth", "error": error, "times": 1})

    assert error_of(await client.refresh(tokens["refresh_token"])) == (status, error)
    assert (await client.refresh(tokens["refresh_token"])).status_code == 200


async def test_a_lost_answer_to_a_refresh_leaves_a_dead_token_behind(client: Client) -> None:
    tokens = await client.log_in()
    await client.control("POST", "faults", {"fault": "malformed", "match": {"path": "token"}, "times": 1})

    spoilt = await client.refresh(tokens["refresh_token"])

    with pytest.raises(json.JSONDecodeError):
        spoilt.json()
    assert error_of(await client.refresh(tokens["refresh_token"])) == (400, "invalid_grant")


async def test_token_requests_cost_no_quota(client: Client) -> None:
    tokens = await client.log_in()
    for _ in range(60):
        tokens = (await client.refresh(tokens["refresh_token"])).json()

    assert (await client.control("GET", "stats"))["quota_used"] == {}
