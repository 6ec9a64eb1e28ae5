"""Login and refresh for the rest of the world and North America."""

import base64
from collections.abc import Callable
from typing import Any

import pytest
from bimmer_connected.account import MyBMWAccount
from bimmer_connected.const import Regions
from bimmer_connected.models import MyBMWAuthError
from bimmer_connected.tests import RESPONSE_DIR, load_response

from common.clock import ManualClock

CONFIG = "/eadrax-ucs/v1/presentation/oauth/config"
AUTHENTICATE = "/gcdm/oauth/authenticate"
TOKEN = "/gcdm/oauth/token"
WRONG_PASSWORD = load_response(RESPONSE_DIR / "auth" / "auth_error_wrong_password.json")
VIN = "WBA00000000DEMO01"

Library = Callable[..., MyBMWAccount]


@pytest.mark.parametrize("region", [Regions.REST_OF_WORLD, Regions.NORTH_AMERICA])
async def test_the_real_library_logs_in_and_finds_all_nine_cars(app: Any, library: Library, region: Regions) -> None:
    account = library(region=region)

    await account.get_vehicles()

    assert len(account.vehicles) == 9
    assert account.gcid == app.world.accounts.find("demo@example.com").gcid
    assert (await app.control("GET", "stats"))["logins"] == 1


@pytest.mark.parametrize("region", [Regions.REST_OF_WORLD, Regions.NORTH_AMERICA])
async def test_the_oauth_configuration_is_the_recorded_one(app: Any, region: Regions) -> None:
    answer = await app.http.get(CONFIG, headers=app.config_headers(region))

    assert answer.json() == load_response(RESPONSE_DIR / "auth" / "oauth_config.json")


@pytest.mark.parametrize(
    "header",
    [
        "user-agent",
        "x-user-agent",
        "ocp-apim-subscription-key",
        "bmw-session-id",
        "x-identity-provider",
        "x-correlation-id",
        "bmw-correlation-id",
    ],
)
async def test_the_oauth_configuration_names_a_missing_header(app: Any, header: str) -> None:
    answer = await app.http.get(CONFIG, headers=app.config_headers() | {header: ""})

    assert (answer.status_code, answer.json()["header"]) == (400, header)


async def test_the_subscription_key_of_another_region_is_refused(app: Any) -> None:
    key = app.config_headers(Regions.NORTH_AMERICA)["ocp-apim-subscription-key"]

    answer = await app.http.get(CONFIG, headers=app.config_headers() | {"ocp-apim-subscription-key": key})

    assert answer.status_code == 401


async def test_the_login_of_the_rest_of_the_world_is_not_for_china(app: Any) -> None:
    answer = await app.http.post(AUTHENTICATE, data=app.password_form(), headers=app.client_headers("cn"))

    assert (answer.status_code, answer.json()["header"]) == (400, "x-user-agent")


@pytest.mark.parametrize(
    "field",
    [
        "client_id",
        "response_type",
        "scope",
        "redirect_uri",
        "state",
        "nonce",
        "code_challenge",
        "code_challenge_method",
        "grant_type",
        "username",
        "password",
    ],
)
async def test_the_first_step_names_a_missing_field(app: Any, field: str) -> None:
    form = app.password_form()
    del form[field]

    answer = await app.step_one(form)

    assert (answer.status_code, answer.json()["error"], answer.json()["field"]) == (400, "invalid_request", field)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("client_id", "another"),
        ("response_type", "token"),
        ("redirect_uri", "https://elsewhere.example"),
        ("code_challenge_method", "plain"),
        ("grant_type", "password"),
    ],
)
async def test_the_first_step_accepts_only_the_apps_own_values(app: Any, field: str, value: str) -> None:
    answer = await app.step_one(app.password_form() | {field: value})

    assert (answer.status_code, answer.json()["field"]) == (400, field)


async def test_a_login_form_must_be_form_encoded(app: Any) -> None:
    answer = await app.http.post(AUTHENTICATE, json=app.password_form(), headers=app.client_headers())

    assert (answer.status_code, answer.json()["header"]) == (400, "content-type")


@pytest.mark.parametrize(
    ("username", "password"),
    [
        ("demo@example.com", "a-wrong-one"),
        ("wrong-password@example.com", "demo-password"),
        ("nobody@example.com", "demo-password"),
    ],
)
async def test_a_wrong_password_gets_the_recorded_refusal(app: Any, username: str, password: str) -> None:
    answer = await app.step_one(app.password_form(username, password))

    assert (answer.status_code, answer.json()) == (401, WRONG_PASSWORD)
    assert (await app.control("GET", "stats"))["logins_refused"] == {"password": 1}


async def test_the_real_library_reports_a_wrong_password(library: Library) -> None:
    with pytest.raises(MyBMWAuthError):
        await library(password="a-wrong-one").get_vehicles()


async def test_an_email_is_the_same_account_in_any_spelling(app: Any) -> None:
    answer = await app.step_one(app.password_form(" Demo@Example.COM "))

    assert answer.status_code == 200


async def test_a_captcha_works_once(app: Any) -> None:
    first = await app.step_one(captcha="a-token")
    second = await app.step_one(captcha="a-token")

    assert (first.status_code, second.status_code) == (200, 401)
    assert second.json() == WRONG_PASSWORD
    assert (await app.control("GET", "stats"))["logins_refused"] == {"captcha": 1}


async def test_a_captcha_is_used_up_by_a_wrong_password(app: Any) -> None:
    await app.step_one(app.password_form(password="a-wrong-one"), captcha="a-token")

    assert (await app.step_one(captcha="a-token")).status_code == 401


async def test_the_captcha_called_refused_is_refused(app: Any) -> None:
    assert (await app.step_one(captcha="refused")).status_code == 401


async def test_a_login_without_a_captcha_is_refused(app: Any) -> None:
    answer = await app.http.post(AUTHENTICATE, data=app.password_form(), headers=app.client_headers())

    assert (answer.status_code, answer.json()) == (401, WRONG_PASSWORD)


async def test_every_captcha_of_the_captcha_account_is_refused(app: Any) -> None:
    await app.step_one(app.password_form("captcha@example.com"))

    assert (await app.control("GET", "stats"))["logins_refused"] == {"captcha": 1}


async def test_the_second_step_redirects_with_a_code_and_the_state(app: Any) -> None:
    answer = await app.step_two(await app.authorization())

    assert answer.status_code == 302
    location = answer.headers["location"]
    assert location.startswith("com.bmw.connected://oauth?code=")
    assert "state=a-state" in location


async def test_an_authorization_works_once(app: Any) -> None:
    authorization = await app.authorization()

    statuses = [(await app.step_two(authorization)).status_code for _ in range(2)]

    assert statuses == [302, 400]


async def test_the_second_step_must_repeat_the_first_steps_challenge(app: Any) -> None:
    answer = await app.step_two(await app.authorization(), code_challenge="another")

    assert (answer.status_code, answer.json()["field"]) == (400, "authorization")


@pytest.mark.parametrize("parameter", ["interaction-id", "client-version"])
async def test_the_second_step_names_a_missing_parameter(app: Any, parameter: str) -> None:
    params = {"interaction-id": "1", "client-version": "1"}
    del params[parameter]
    form = {**app.claims(), "authorization": await app.authorization()}

    answer = await app.http.post(AUTHENTICATE, params=params, data=form, headers=app.client_headers())

    assert (answer.status_code, answer.json()["parameter"]) == (400, parameter)


async def test_tokens_have_the_recorded_shape(app: Any) -> None:
    tokens = await app.log_in()

    assert set(tokens) == set(load_response(RESPONSE_DIR / "auth" / "auth_token.json"))
    assert (tokens["token_type"], tokens["expires_in"]) == ("Bearer", 3600)


async def test_a_code_works_once(app: Any) -> None:
    form = app.code_form(await app.code())

    answers = [await app.token(form) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 400]
    assert answers[1].json()["error"] == "invalid_grant"


async def test_a_code_needs_the_verifier_of_its_challenge(app: Any) -> None:
    answer = await app.token(app.code_form(await app.code()) | {"code_verifier": "another"})

    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")


@pytest.mark.parametrize("auth", [None, ("clientId", "wrong"), ("wrong", "clientSecret")])
async def test_the_token_endpoint_wants_the_apps_own_credentials(app: Any, auth: tuple[str, str] | None) -> None:
    answer = await app.token(app.code_form(await app.code()), auth=auth)

    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


@pytest.mark.parametrize("field", ["code", "code_verifier", "redirect_uri", "grant_type"])
async def test_the_token_endpoint_names_a_missing_field(app: Any, field: str) -> None:
    form = app.code_form(await app.code())
    del form[field]

    answer = await app.token(form)

    assert (answer.status_code, answer.json()["field"]) == (400, field)


@pytest.mark.parametrize(
    ("field", "value"), [("redirect_uri", "https://elsewhere.example"), ("grant_type", "password")]
)
async def test_the_token_endpoint_refuses_values_that_are_not_the_apps(app: Any, field: str, value: str) -> None:
    answer = await app.token(app.code_form(await app.code()) | {field: value})

    assert (answer.status_code, answer.json()["field"]) == (400, field)


async def test_every_login_gets_tokens_of_its_own(app: Any) -> None:
    logins = [await app.log_in(name) for name in ("demo@example.com", "demo@example.com", "user-1@example.com")]

    assert len({tokens["access_token"] for tokens in logins}) == 3
    assert len({tokens["refresh_token"] for tokens in logins}) == 3
    assert logins[0]["gcid"] == logins[1]["gcid"] != logins[2]["gcid"]


async def test_a_refresh_rotates_both_tokens(app: Any) -> None:
    old = await app.log_in()

    new = (await app.refresh(old["refresh_token"])).json()

    assert new["access_token"] != old["access_token"]
    assert new["refresh_token"] != old["refresh_token"]
    assert (await app.refresh(new["refresh_token"])).status_code == 200
    assert (await app.control("GET", "stats"))["refreshes"] == 2


async def test_a_used_refresh_token_revokes_its_whole_family(app: Any) -> None:
    session = await app.signed_in()
    old = session.tokens["refresh_token"]
    new = (await app.refresh(old)).json()
    other_login = await app.signed_in()

    reuse = await app.refresh(old)

    assert (reuse.status_code, reuse.json()["error"]) == (400, "invalid_grant")
    assert (await app.refresh(new["refresh_token"])).status_code == 400
    session.tokens = new
    assert (await session.get("/eadrax-vcs/v4/vehicles/state", VIN)).status_code == 401
    assert await other_login.state(VIN)
    stats = await app.control("GET", "stats")
    assert (stats["refresh_reuse_detected"], stats["refreshes_refused"], stats["refreshes"]) == (1, 2, 1)


@pytest.mark.parametrize("region", ["na"])
async def test_a_refresh_token_of_another_region_is_unknown(app: Any, region: str) -> None:
    tokens = await app.log_in()

    assert (await app.refresh(tokens["refresh_token"], region)).status_code == 400
    assert (await app.refresh(tokens["refresh_token"])).status_code == 200


@pytest.mark.parametrize("field", ["refresh_token", "scope"])
async def test_a_refresh_names_a_missing_field(app: Any, field: str) -> None:
    form = {"grant_type": "refresh_token", "redirect_uri": "com.bmw.connected://oauth", "refresh_token": "x"}
    form |= {"scope": "openid"}
    del form[field]

    answer = await app.token(form)

    assert (answer.status_code, answer.json()["field"]) == (400, field)


async def test_an_access_token_expires_by_the_clock(app: Any, clock: ManualClock) -> None:
    session = await app.signed_in()

    clock.advance(3599)
    assert await session.state(VIN)
    clock.advance(1)
    assert (await session.get("/eadrax-vcs/v4/vehicles/state", VIN)).status_code == 401


async def test_the_lifetime_of_access_tokens_can_be_set(app: Any, clock: ManualClock) -> None:
    await app.control("POST", "settings", {"expires_in": 60})
    session = await app.signed_in()

    assert session.tokens["expires_in"] == 60
    clock.advance(60)
    assert (await session.get("/eadrax-vcs/v4/vehicles/state", VIN)).status_code == 401


async def test_the_real_library_refreshes_an_expired_token(app: Any, library: Library, clock: ManualClock) -> None:
    account = library("one@example.com")
    await account.get_vehicles()
    before = account.refresh_token

    clock.advance(3600)
    await account.get_vehicles()

    assert account.refresh_token != before
    stats = await app.control("GET", "stats")
    assert (stats["logins"], stats["refreshes"]) == (1, 1)


async def test_the_real_library_reuses_a_stored_session(app: Any, library: Library) -> None:
    tokens = await app.log_in("one@example.com")
    account = library("one@example.com", captcha=None)
    account.set_refresh_token(tokens["refresh_token"], tokens["gcid"], tokens["access_token"], "a-session")

    await account.get_vehicles()

    assert [vehicle.vin for vehicle in account.vehicles] == [VIN]
    assert (await app.control("GET", "stats"))["refreshes"] == 0


async def test_an_access_token_is_only_good_in_its_region(app: Any) -> None:
    session = await app.signed_in()
    session.region = "na"

    assert (await session.get("/eadrax-vcs/v4/vehicles/state", VIN)).status_code == 401


@pytest.mark.parametrize("authorization", ["Bearer unknown", "Basic " + base64.b64encode(b"a:b").decode()])
async def test_an_unknown_access_token_is_refused(app: Any, authorization: str) -> None:
    headers = (await app.signed_in()).headers(VIN) | {"authorization": authorization}

    answer = await app.http.get("/eadrax-vcs/v4/vehicles/state", headers=headers)

    assert answer.status_code == 401


async def test_access_tokens_can_be_expired_by_hand(app: Any) -> None:
    session, other = await app.signed_in(), await app.signed_in("one@example.com")

    assert await app.control("POST", "tokens", {"expire_access": "demo@example.com"}) == {"expire_access": 1}

    assert (await session.get("/eadrax-vcs/v4/vehicles/state", VIN)).status_code == 401
    assert await other.state(VIN)
    assert (await app.refresh(session.tokens["refresh_token"])).status_code == 200


async def test_refresh_tokens_can_be_revoked_by_hand(app: Any) -> None:
    session = await app.signed_in()

    assert await app.control("POST", "tokens", {"revoke_refresh": "demo@example.com"}) == {"revoke_refresh": 1}

    answer = await app.refresh(session.tokens["refresh_token"])
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
    assert await session.state(VIN)
    assert (await app.control("GET", "stats"))["refresh_reuse_detected"] == 0
