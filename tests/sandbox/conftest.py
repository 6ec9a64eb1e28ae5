"""A sandbox on a real socket in this process, an app that speaks to it in raw HTTP, and the real library."""

import base64
import hashlib
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from bimmer_connected.account import MyBMWAccount
from bimmer_connected.api.authentication import MyBMWLoginClient
from bimmer_connected.api.client import MyBMWClient
from bimmer_connected.api.regions import get_ocp_apim_key
from bimmer_connected.const import Regions

from common.clock import ManualClock
from sandbox.mybmw import create_app
from sandbox.mybmw_accounts import PASSWORD
from sandbox.mybmw_world import Settings, World

CONFIG = "/eadrax-ucs/v1/presentation/oauth/config"
AUTHENTICATE = "/gcdm/oauth/authenticate"
TOKEN = "/gcdm/oauth/token"
VEHICLES = "/eadrax-vcs/v5/vehicle-list"
PROFILE = "/eadrax-vcs/v5/vehicle-data/profile"
STATE = "/eadrax-vcs/v4/vehicles/state"
REMOTE = "/eadrax-vrccs/v4/presentation/remote-commands"
EVENT_STATUS = "/eadrax-vrccs/v3/presentation/remote-commands/eventStatus"
NO_TLS = httpx.create_ssl_context()
"""Never used, but made once: a client that makes its own takes 15 ms."""
VERIFIER = "a-code-verifier-that-is-long-enough-for-anybody-to-accept"


class App:
    """A MyBMW app in raw HTTP: each method is one request with all that it must carry, unless told otherwise."""

    def __init__(self, http: httpx.AsyncClient, world: Callable[[], World]) -> None:
        self.http = http
        self._world = world
        self._captchas = itertools.count()

    @property
    def world(self) -> World:
        """The sandbox's memory as it is now."""
        return self._world()

    def client_headers(self, region: str = "row", brand: str = "bmw") -> dict[str, str]:
        return {
            "user-agent": "Dart/3.3 (dart:io)",
            "x-user-agent": f"android(AP2A.123456.789);{brand};4.9.2(36892);{region}",
        }

    def config_headers(self, region: Regions = Regions.REST_OF_WORLD) -> dict[str, str]:
        return {
            **self.client_headers(region.value),
            "ocp-apim-subscription-key": get_ocp_apim_key(region),
            "bmw-session-id": "a-session",
            "x-identity-provider": "gcdm",
            "x-correlation-id": "a-correlation",
            "bmw-correlation-id": "a-correlation",
        }

    def claims(self) -> dict[str, str]:
        digest = hashlib.sha256(VERIFIER.encode()).digest()
        return {
            "client_id": "clientId",
            "response_type": "code",
            "scope": "openid vehicle_data",
            "redirect_uri": "com.bmw.connected://oauth",
            "state": "a-state",
            "nonce": "a-nonce",
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }

    def password_form(self, username: str = "demo@example.com", password: str = PASSWORD) -> dict[str, str]:
        return {**self.claims(), "grant_type": "authorization_code", "username": username, "password": password}

    async def step_one(self, form: dict[str, str] | None = None, captcha: str | None = None) -> httpx.Response:
        headers = self.client_headers() | {"hcaptchatoken": captcha or f"captcha-{next(self._captchas)}"}
        return await self.http.post(AUTHENTICATE, data=form or self.password_form(), headers=headers)

    async def authorization(self, username: str = "demo@example.com") -> str:
        """The first step's result."""
        answer = await self.step_one(self.password_form(username))
        assert answer.status_code == 200, answer.text
        redirect_to: str = answer.json()["redirect_to"]
        return parse_qs(redirect_to.partition("?")[2])["authorization"][0]

    async def step_two(self, authorization: str, **changes: str) -> httpx.Response:
        return await self.http.post(
            AUTHENTICATE,
            params={"interaction-id": "1", "client-version": "4.9.2"},
            data={**self.claims(), "authorization": authorization, **changes},
            headers=self.client_headers(),
        )

    async def code(self, username: str = "demo@example.com") -> str:
        answer = await self.step_two(await self.authorization(username))
        assert answer.status_code == 302, answer.text
        return parse_qs(urlsplit(answer.headers["location"]).query)["code"][0]

    def code_form(self, code: str) -> dict[str, str]:
        return {
            "code": code,
            "code_verifier": VERIFIER,
            "redirect_uri": "com.bmw.connected://oauth",
            "grant_type": "authorization_code",
        }

    async def token(self, form: dict[str, str], *, auth: tuple[str, str] | None = ("clientId", "clientSecret")) -> Any:
        basic = httpx.BasicAuth(*auth) if auth else httpx.Auth()
        return await self.http.post(TOKEN, data=form, headers=self.client_headers(), auth=basic)

    async def log_in(self, username: str = "demo@example.com") -> dict[str, Any]:
        """The four steps; the tokens."""
        answer = await self.token(self.code_form(await self.code(username)))
        assert answer.status_code == 200, answer.text
        tokens: dict[str, Any] = answer.json()
        return tokens

    async def refresh(self, refresh_token: str, region: str = "row") -> httpx.Response:
        form = {
            "scope": "openid",
            "redirect_uri": "com.bmw.connected://oauth",
            "grant_type": "refresh_token",
            "refresh_token": refresh_token,
        }
        return await self.http.post(
            TOKEN, data=form, headers=self.client_headers(region), auth=("clientId", "clientSecret")
        )

    async def control(self, method: str, path: str, json: object = None) -> Any:
        answer = await self.http.request(method, f"/_sandbox/{path}", json=json)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def signed_in(self, username: str = "demo@example.com", region: str = "row") -> "SignedIn":
        """A session without the ceremony."""
        tokens = await self.control("POST", "tokens", {"issue": username, "region": region})
        return SignedIn(self, tokens, region)


@dataclass
class SignedIn:
    """An app with an access token."""

    app: App
    tokens: dict[str, Any]
    region: str = "row"

    def headers(self, vin: str | None = None, brand: str = "bmw") -> dict[str, str]:
        return {
            **self.app.client_headers(self.region, brand),
            "authorization": f"Bearer {self.tokens['access_token']}",
            "bmw-session-id": "a-session",
            "bmw-units-preferences": "d=KM;v=L;p=B;ec=KWH100KM;fc=L100KM;em=GKM;",
            **({"bmw-vin": vin} if vin else {}),
        }

    async def vehicles(self, brand: str = "bmw") -> list[str]:
        answer = await self.app.http.post(VEHICLES, headers=self.headers(brand=brand))
        assert answer.status_code == 200, answer.text
        return [entry["vin"] for entry in answer.json()["mappingInfos"]]

    async def get(self, path: str, vin: str, params: dict[str, str] | None = None) -> httpx.Response:
        return await self.app.http.get(path, params=params, headers=self.headers(vin))

    async def state(self, vin: str) -> dict[str, Any]:
        answer = await self.get(STATE, vin)
        assert answer.status_code == 200, answer.text
        state: dict[str, Any] = answer.json()["state"]
        return state

    async def command(self, service: str, vin: str, params: dict[str, str] | None = None) -> httpx.Response:
        return await self.app.http.post(f"{REMOTE}/{service}", json={}, params=params, headers=self.headers(vin))

    async def charging(self, service: str, vin: str, body: dict[str, Any] | None = None) -> httpx.Response:
        path = f"/eadrax-crccs/v1/vehicles/{vin}/{service}"
        return await self.app.http.post(path, json=body or {}, headers=self.headers())

    async def poll(self, sent: httpx.Response) -> str:
        assert sent.status_code == 200, sent.text
        event_id = sent.json()["eventId"]
        answer = await self.app.http.post(EVENT_STATUS, params={"eventId": event_id}, headers=self.headers())
        assert answer.status_code == 200, answer.text
        status: str = answer.json()["eventStatus"]
        return status


class ToSandbox(httpx.AsyncBaseTransport):
    """Sends every request to the sandbox, whatever host it names."""

    def __init__(self, origin: str) -> None:
        self._origin = httpx.URL(origin)
        self._inner = httpx.AsyncHTTPTransport(verify=NO_TLS)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url.copy_with(scheme=self._origin.scheme, host=self._origin.host, port=self._origin.port)
        moved = httpx.Request(
            request.method, url, headers=request.headers, stream=request.stream, extensions=request.extensions
        )
        return await self._inner.handle_async_request(moved)

    async def aclose(self) -> None:
        """Stay open: the library closes a client after each few requests."""

    async def really_close(self) -> None:
        await self._inner.aclose()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def app(clock: ManualClock) -> AsyncIterator[App]:
    """A sandbox whose commands advance with each poll, and an app that knows where it is."""
    sandbox = create_app(Settings(event_step_s=0), clock)
    origin = await sandbox.start("127.0.0.1", 0)
    async with httpx.AsyncClient(base_url=origin, verify=NO_TLS, trust_env=False, timeout=10) as http:
        yield App(http, lambda: sandbox.world)
    await sandbox.stop()


@pytest.fixture
async def library(app: App, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[..., MyBMWAccount]]:
    """Makes accounts of the real library whose requests reach the sandbox, and whose polls do not wait."""
    transport = ToSandbox(str(app.http.base_url))

    class Client(MyBMWClient):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, transport=transport, **kwargs)

    class LoginClient(MyBMWLoginClient):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, transport=transport, **kwargs)  # type: ignore[no-untyped-call]  # the library types no arguments

    for module in ("account", "vehicle.vehicle", "vehicle.remote_services"):
        monkeypatch.setattr(f"bimmer_connected.{module}.MyBMWClient", Client)
    monkeypatch.setattr("bimmer_connected.api.authentication.MyBMWLoginClient", LoginClient)
    monkeypatch.setattr("bimmer_connected.vehicle.remote_services._POLLING_CYCLE", 0)

    def account(
        username: str = "demo@example.com",
        password: str = PASSWORD,
        region: Regions = Regions.REST_OF_WORLD,
        captcha: str | None = "a-captcha",
    ) -> MyBMWAccount:
        return MyBMWAccount(username, password, region, hcaptcha_token=captcha)

    yield account
    await transport.really_close()
