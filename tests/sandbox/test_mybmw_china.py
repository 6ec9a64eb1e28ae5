"""Login and refresh for China."""

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import jwt
import pytest
from bimmer_connected.account import MyBMWAccount
from bimmer_connected.api.utils import get_capture_position
from bimmer_connected.const import Regions
from bimmer_connected.models import MyBMWAPIError
from bimmer_connected.tests import RESPONSE_DIR, load_response
from Crypto.Cipher import PKCS1_v1_5
from Crypto.PublicKey import RSA

from common.clock import ManualClock

MOBILE = "8613800138000"
REFUSAL = load_response(RESPONSE_DIR / "auth" / "auth_cn_login_error.json")
NONCE = {"x-login-nonce": "a-nonce"}

Library = Callable[..., MyBMWAccount]


@dataclass
class ChinaApp:
    """The Chinese app in raw HTTP."""

    http: httpx.AsyncClient
    headers: dict[str, str]

    async def post(self, path: str, json: dict[str, Any], headers: dict[str, str] | None = None) -> httpx.Response:
        return await self.http.post(f"/eadrax-coas/{path}", json=json, headers=self.headers | (headers or {}))

    async def encrypted(self, password: str) -> str:
        answer = await self.http.get("/eadrax-coas/v1/cop/publickey", headers=self.headers)
        key = RSA.import_key(answer.json()["data"]["value"])
        return base64.b64encode(PKCS1_v1_5.new(key).encrypt(password.encode())).decode()

    async def captcha(self, mobile: str = MOBILE) -> dict[str, str]:
        data: dict[str, str] = (await self.post("v2/cop/slider-captcha", {"mobile": mobile})).json()["data"]
        return data

    async def solved(self, mobile: str = MOBILE) -> str:
        captcha = await self.captcha(mobile)
        position = get_capture_position(captcha["backGroundImg"])
        answer = await self.post("v1/cop/check-captcha", {"position": position, "verifyId": captcha["verifyId"]})
        assert answer.status_code == 200, answer.text
        return captcha["verifyId"]

    async def form(self, **changes: str) -> dict[str, str]:
        return {
            "mobile": MOBILE,
            "password": await self.encrypted("demo-password"),
            "verifyId": await self.solved(),
            "deviceId": MOBILE,
        } | changes

    async def log_in(self, form: dict[str, str]) -> httpx.Response:
        return await self.post("v2/login/pwd", form, NONCE)

    async def refresh(self, form: dict[str, str], headers: dict[str, str] | None = None) -> httpx.Response:
        all_headers = self.headers | (NONCE if headers is None else headers)
        return await self.http.post("/eadrax-coas/v2/oauth/token", data=form, headers=all_headers)


@pytest.fixture
def china(app: Any) -> ChinaApp:
    return ChinaApp(app.http, app.client_headers("cn"))


async def test_the_real_library_logs_in_and_finds_all_nine_cars(app: Any, library: Library) -> None:
    account = library(MOBILE, region=Regions.CHINA, captcha=None)

    await account.get_vehicles()

    assert len(account.vehicles) == 9
    assert (await app.control("GET", "stats"))["logins"] == 1


async def test_the_real_library_reports_a_wrong_password(app: Any, library: Library) -> None:
    with pytest.raises(MyBMWAPIError):
        await library(MOBILE, "a-wrong-one", Regions.CHINA, None).get_vehicles()

    assert (await app.control("GET", "stats"))["logins_refused"] == {"password": 1}


async def test_the_real_library_refreshes_an_expired_token(app: Any, library: Library, clock: ManualClock) -> None:
    account = library(MOBILE, region=Regions.CHINA, captcha=None)
    await account.get_vehicles()

    clock.advance(3600)
    await account.get_vehicles()

    stats = await app.control("GET", "stats")
    assert (stats["logins"], stats["refreshes"]) == (1, 1)


async def test_captchas_differ_and_the_library_solves_them(china: ChinaApp) -> None:
    captchas = [await china.captcha() for _ in range(8)]

    assert len({captcha["verifyId"] for captcha in captchas}) == 8
    assert len({get_capture_position(captcha["backGroundImg"]) for captcha in captchas}) > 1


async def test_a_wrongly_placed_slider_spends_the_captcha(app: Any, china: ChinaApp) -> None:
    captcha = await china.captcha()
    right = get_capture_position(captcha["backGroundImg"])

    wrong = await china.post("v1/cop/check-captcha", {"position": "0.99", "verifyId": captcha["verifyId"]})
    too_late = await china.post("v1/cop/check-captcha", {"position": right, "verifyId": captcha["verifyId"]})

    assert (wrong.status_code, wrong.json()) == (422, REFUSAL)
    assert too_late.status_code == 422
    assert (await app.control("GET", "stats"))["logins_refused"] == {"captcha": 2}


async def test_a_slider_position_is_a_number(china: ChinaApp) -> None:
    answer = await china.post("v1/cop/check-captcha", {"position": "left", "verifyId": "x"})

    assert (answer.status_code, answer.json()["field"]) == (400, "position")


async def test_a_login_needs_a_solved_captcha(china: ChinaApp) -> None:
    unsolved = (await china.captcha())["verifyId"]

    assert (await china.log_in(await china.form(verifyId=unsolved))).status_code == 422


async def test_a_solved_captcha_is_for_one_mobile_and_one_login(china: ChinaApp) -> None:
    form = await china.form()
    for_another = await china.form(verifyId=await china.solved("8613800138001"))

    assert (await china.log_in(for_another)).status_code == 422
    assert [(await china.log_in(form)).status_code for _ in range(2)] == [200, 422]


@pytest.mark.parametrize("password", ["bm90IGVuY3J5cHRlZA==", "not base64 at all"])
async def test_a_password_that_cannot_be_decrypted_is_refused(china: ChinaApp, password: str) -> None:
    answer = await china.log_in(await china.form(password=password))

    assert (answer.status_code, answer.json()) == (422, REFUSAL)


async def test_an_unknown_mobile_is_refused(china: ChinaApp) -> None:
    verify_id = await china.solved("8699900000000")

    assert (await china.log_in(await china.form(mobile="8699900000000", verifyId=verify_id))).status_code == 422


@pytest.mark.parametrize("field", ["mobile", "password", "verifyId", "deviceId"])
async def test_a_login_names_a_missing_field(china: ChinaApp, field: str) -> None:
    answer = await china.log_in(await china.form(**{field: ""}))

    assert (answer.status_code, answer.json()["field"]) == (400, field)


@pytest.mark.parametrize("content", [b"no json", b"[]"])
async def test_a_login_body_is_a_json_object(china: ChinaApp, content: bytes) -> None:
    answer = await china.http.post("/eadrax-coas/v2/login/pwd", content=content, headers=china.headers | NONCE)

    assert (answer.status_code, answer.json()["field"]) == (400, "body")


async def test_a_login_and_a_refresh_need_a_nonce(china: ChinaApp) -> None:
    login = await china.post("v2/login/pwd", await china.form())
    refresh = await china.refresh({"grant_type": "refresh_token", "refresh_token": "x"}, {})

    assert (login.status_code, login.json()["header"]) == (400, "x-login-nonce")
    assert (refresh.status_code, refresh.json()["header"]) == (400, "x-login-nonce")


async def test_access_tokens_are_jwts_that_expire_by_the_clock(china: ChinaApp, clock: ManualClock) -> None:
    tokens = (await china.log_in(await china.form())).json()["data"]

    claims = jwt.decode(tokens["access_token"], options={"verify_signature": False})

    assert claims["exp"] == clock.utc().timestamp() + 3600


async def test_a_refresh_rotates_and_a_used_token_revokes_the_family(app: Any, china: ChinaApp) -> None:
    old = (await china.log_in(await china.form())).json()["data"]
    form = {"grant_type": "refresh_token", "refresh_token": old["refresh_token"]}

    new = (await china.refresh(form)).json()
    reuse = await china.refresh(form)
    after = await china.refresh(form | {"refresh_token": new["refresh_token"]})

    assert new["access_token"] != old["access_token"]
    assert new["gcid"] == old["gcid"]
    assert (reuse.status_code, after.status_code) == (400, 400)
    assert (await app.control("GET", "stats"))["refresh_reuse_detected"] == 1


@pytest.mark.parametrize(
    ("form", "field"),
    [
        ({"grant_type": "password", "refresh_token": "x"}, "grant_type"),
        ({"grant_type": "refresh_token"}, "refresh_token"),
    ],
)
async def test_a_refresh_names_a_bad_field(china: ChinaApp, form: dict[str, str], field: str) -> None:
    answer = await china.refresh(form)

    assert (answer.status_code, answer.json()["field"]) == (400, field)


async def test_the_chinese_login_is_not_for_the_rest_of_the_world(app: Any) -> None:
    answer = await app.http.get("/eadrax-coas/v1/cop/publickey", headers=app.client_headers())

    assert (answer.status_code, answer.json()["header"]) == (400, "x-user-agent")


async def test_fault_rules_find_the_account_in_every_step_of_the_login(app: Any, china: ChinaApp) -> None:
    verify_id = (await china.captcha())["verifyId"]
    tokens = (await china.log_in(await china.form())).json()["data"]
    await app.control("POST", "faults", {"match": {"account": MOBILE}, "fault": "status", "status": 500})

    answers = [
        await china.post("v2/cop/slider-captcha", {"mobile": MOBILE}),
        await china.post("v1/cop/check-captcha", {"verifyId": verify_id, "position": "0"}),
        await china.post("v2/login/pwd", {"mobile": MOBILE}),
        await china.refresh({"refresh_token": tokens["refresh_token"]}),
    ]
    others = [
        await china.post("v2/cop/slider-captcha", {"mobile": "8613800138001"}),
        await china.http.post("/eadrax-coas/v2/login/pwd", content=b"no json", headers=china.headers | NONCE),
    ]

    assert [answer.status_code for answer in answers] == [500] * 4
    assert [answer.status_code for answer in others] == [200, 400]
