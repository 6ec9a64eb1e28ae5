"""The library's classes, made to use our connections, our tokens and our failures.

The library offers no way to hand in an HTTP client: it names ``MyBMWClient`` and ``MyBMWLoginClient`` wherever it needs
one, and makes a new one, with a TLS handshake of its own, for nearly every request. :func:`bind` therefore puts the
subclasses below in the places of those names. Nothing else of the library is replaced, except the solver of China's
captcha, which would hold up the loop.
"""

import asyncio
import functools
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import bimmer_connected.account as library_account
import bimmer_connected.api.authentication as library_authentication
import bimmer_connected.api.client as library_client
import bimmer_connected.vehicle.remote_services as library_remote_services
import bimmer_connected.vehicle.vehicle as library_vehicle
import httpx
from bimmer_connected.account import MyBMWAccount
from bimmer_connected.api.authentication import MyBMWAuthentication, MyBMWLoginClient
from bimmer_connected.api.client import MyBMWClient, MyBMWClientConfiguration
from bimmer_connected.api.utils import get_capture_position, get_x_user_agent_buildstring
from bimmer_connected.const import AUTH_CHINA_CAPTCHA_URL, CarBrands, Regions
from bimmer_connected.models import GPSPosition

from common.errors import InternalError
from functions.providers.mybmw.endpoints import is_command
from functions.providers.mybmw.failures import BMWInvalidReply, BMWRelinkRequired, Stage, failure_of
from functions.providers.mybmw.transport import PATIENCE, PooledTransport
from functions.providers.port import Region
from functions.providers.renewal import Trade
from functions.tokens import TokenSet

REGIONS = {
    Region.NORTH_AMERICA: Regions.NORTH_AMERICA,
    Region.REST_OF_WORLD: Regions.REST_OF_WORLD,
    Region.CHINA: Regions.CHINA,
}

Usable = Callable[[str | None], Awaitable[TokenSet]]
"""Gives tokens that can be used now; told of an access token that was refused, others than that."""

_Steps = Callable[[], Awaitable[dict[str, Any]]]

_HANDSHAKES = ("/oauth/config", "/cop/publickey")
_PICTURES = ("/cop/slider-captcha", "/cop/check-captcha")
_ABOUT_A_CAR = ("/vehicles/state", "/vehicle-data/profile", "/vehicles/images")


@dataclass(frozen=True, slots=True)
class LoginRoute:
    """How a login reaches BMW, and what its failures mean."""

    transport: PooledTransport
    stage: Stage
    """LOGIN or REFRESH."""
    trade: Trade | None = None
    """Goes with REFRESH."""


class PooledLoginClient(MyBMWLoginClient):
    """The client of logins and refreshes, on our transport.

    ``verify`` is the one argument that the library passes on from the authentication object to this client, so a
    :class:`LoginRoute` travels in it.
    """

    def __init__(self, *, region: Regions, verify: LoginRoute) -> None:
        super().__init__(  # type: ignore[no-untyped-call]  # the library's signature is *args, **kwargs
            region=region, transport=verify.transport, trust_env=False
        )
        # The library's hook logs what BMW wrote. Ours raises on a 429 too, so its auth has none to sleep and retry on.
        self.event_hooks = {"response": [self._refuse]}
        self._stage = verify.stage
        self._trade = verify.trade

    async def post(self, url: Any, **kwargs: Any) -> httpx.Response:  # noqa: ANN401 - handed on to httpx
        """Post, and solve China's captcha picture, which takes up to a second of computing, on another thread."""
        if self._trade is not None:  # the only thing that a renewal posts is the refresh token
            kwargs["extensions"] = {"trace": self._trade.trace, PATIENCE: self._trade.patience_s}
        response = await super().post(url, **kwargs)
        if url == AUTH_CHINA_CAPTCHA_URL:
            picture = response.json()["data"]["backGroundImg"]
            try:
                _solved.set((picture, await asyncio.to_thread(get_capture_position, picture)))
            except OSError as error:  # what Pillow raises for something that is no picture
                raise BMWInvalidReply from error
        return response

    async def _refuse(self, response: httpx.Response) -> None:
        if self._trade is not None:
            self._trade.answered(response.status_code)
        if response.is_error:
            await response.aread()
            raise failure_of(response, self._stage_of(response.request.url.path))

    def _stage_of(self, path: str) -> Stage:
        if path.endswith(_PICTURES):
            return Stage.PICTURE
        is_code_exchange = self._stage is Stage.LOGIN and path.endswith("/token")
        return Stage.HANDSHAKE if is_code_exchange or path.endswith(_HANDSHAKES) else self._stage


_solved: ContextVar[tuple[str, str]] = ContextVar("mybmw_solved_captcha", default=("", ""))
"""A captcha picture and its solution."""


def _position_in(picture: str) -> str:
    """What the library calls where it would solve the captcha on the loop: :class:`PooledLoginClient` has done so."""
    solved, position = _solved.get()
    return position if picture == solved else get_capture_position(picture)


class LoginAttempt(MyBMWAuthentication):
    """The library's login and refresh, used once, on our transport."""

    def __init__(self, region: Region, route: LoginRoute, username: str = "", password: str = "") -> None:
        super().__init__(username, password, REGIONS[region])
        self.verify: Any = route

    async def log_in(self) -> TokenSet:
        """Log in with the password."""
        steps: _Steps = self._login_china if self.region is Regions.CHINA else self._login_row_na
        return self._tokens(await steps())

    async def refresh(self, old: TokenSet) -> TokenSet:
        """Trade a refresh token in. The session id stays, as the app's does."""
        self.refresh_token = old.refresh_token
        self.gcid = old.extra.get("gcid")
        self.session_id = old.extra.get("session_id", self.session_id)
        steps: _Steps = self._refresh_token_china if self.region is Regions.CHINA else self._refresh_token_row_na
        return self._tokens(await steps())

    def _tokens(self, answer: dict[str, Any]) -> TokenSet:
        access, refresh, gcid = answer["access_token"], answer["refresh_token"], answer["gcid"]
        if not all(isinstance(value, str) and value for value in (access, refresh, gcid)):
            raise BMWInvalidReply
        return TokenSet(access, refresh, answer["expires_at"], {"gcid": gcid, "session_id": self.session_id})


class PooledClient(MyBMWClient):
    """The client of reads and commands, on the transport of the authentication it is configured with."""

    def __init__(self, config: MyBMWClientConfiguration, *, brand: CarBrands | None = None) -> None:
        if not isinstance(config.authentication, Authentication):
            raise InternalError("The library was used without a session of ours.")
        super().__init__(config, brand=brand, transport=config.authentication.transport, trust_env=False)
        # The library's hook logs what BMW wrote.
        self.event_hooks = {"response": [_refuse]}
        self._cookies = _NoCookies()


class _NoCookies(httpx.Cookies):
    """BMW's data endpoints know us by token. Looking for cookies in each answer is a twentieth of a read's work."""

    def extract_cookies(self, response: httpx.Response) -> None:
        """Keep none."""


async def _refuse(response: httpx.Response) -> None:
    # 401 is for Authentication below, which may have it answered better.
    if response.is_success or response.status_code == 401:
        return
    await response.aread()
    raise failure_of(response, _stage_of(response.request))


def _stage_of(request: httpx.Request) -> Stage:
    path = request.url.path
    if is_command(request.method, path):
        return Stage.COMMAND
    if path.endswith(("/eventStatus", "/eventPosition")):
        return Stage.EVENT
    return Stage.VEHICLE if path.endswith(_ABOUT_A_CAR) else Stage.READ


class Authentication(MyBMWAuthentication):
    """Signs requests with tokens that somebody else keeps. Never logs in, never sleeps, never tries a third time."""

    def __init__(self, region: Region, transport: PooledTransport, usable: Usable) -> None:
        super().__init__("", "", REGIONS[region])
        self.transport = transport
        self._usable = usable

    async def ready(self) -> None:
        """Have tokens that can be used now, and with them the ``gcid`` that some paths carry."""
        self._take(await self._usable(None))

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Sign, and after a 401 sign once more with other tokens: even a command, for a 401 comes before any effect."""
        tokens = await self._usable(None)
        response = yield self._signed(request, tokens)
        if response.status_code != 401:
            return
        response = yield self._signed(request, await self._usable(tokens.access_token))
        if response.status_code == 401:
            raise BMWRelinkRequired

    def _signed(self, request: httpx.Request, tokens: TokenSet) -> httpx.Request:
        self._take(tokens)
        request.headers["authorization"] = f"Bearer {tokens.access_token}"
        request.headers["bmw-session-id"] = tokens.extra.get("session_id", self.session_id)
        return request

    def _take(self, tokens: TokenSet) -> None:
        self.gcid = tokens.extra.get("gcid")


class Session(MyBMWAccount):
    """What the library calls an account. It holds no tokens, so one may serve many requests at a time."""

    def __init__(self, authentication: Authentication, observer_position: GPSPosition | None = None) -> None:
        config = MyBMWClientConfiguration(authentication, observer_position=observer_position)
        super().__init__("", "", authentication.region, config=config)
        self.authentication = authentication

    def seen_from(self, latitude: float, longitude: float) -> "Session":
        """A session of its own for somebody who looks for his car: the library keeps his position in it."""
        return Session(self.authentication, GPSPosition(latitude, longitude))


_BINDINGS = (
    (library_account, "MyBMWClient", PooledClient),
    (library_vehicle, "MyBMWClient", PooledClient),
    (library_remote_services, "MyBMWClient", PooledClient),
    (library_authentication, "MyBMWLoginClient", PooledLoginClient),
    (library_authentication, "get_capture_position", _position_in),
    # The same for the life of a process, and hashed anew for each client and each set of headers.
    (library_client, "get_x_user_agent_buildstring", functools.cache(get_x_user_agent_buildstring)),
)


def bind() -> None:
    """Put our classes where the library names its own. Does the same however often it is called."""
    for module, name, ours in _BINDINGS:
        setattr(module, name, ours)
