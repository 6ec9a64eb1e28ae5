"""The device login with PKCE as steps without a state of their own, and the renewal of tokens.

Access and id token live an hour, a refresh token 14 days from when it was given; every renewal gives all three anew
and kills the old refresh token. So a link that is used, or kept alive daily, never ends, and the end of one that is
not can be told from when its tokens were last rotated.
"""

import base64
import hashlib
import re
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

import orjson

from common.clock import Clock
from common.errors import ValidationFailed
from common.loops import needs_loop
from functions.providers.cardata.failures import (
    CODE_DEAD,
    AuthStage,
    CarDataInvalidReply,
    CarDataRelinkRequired,
    PollingTooFast,
    StillUndecided,
    auth_failure,
)
from functions.providers.cardata.transport import Reply, Request, Transport
from functions.providers.port import Account, DeviceGrant, DevicePending
from functions.providers.renewal import Trade
from functions.tokens import ANSWER_WITHIN_S, TokenHealth, TokenKeeper, TokenSet

AUTH_ORIGIN: Final = "https://customer.bmwgroup.com"
SCOPE: Final = "authenticate_user openid cardata:api:read cardata:streaming:read"
REFRESH_TOKEN_LIVES: Final = timedelta(days=14)
KEEP_ALIVE_AFTER: Final = timedelta(hours=20)
"""Less than a day: a scheduler that runs daily is some seconds early now and then."""
WARN_BEFORE_END: Final = timedelta(days=3)
SLOWER_S: Final = 5.0
"""How much longer to wait between polls after each ``slow_down`` (RFC 8628)."""

_DEVICE: Final = "/gcdm/oauth/device/code"
_TOKEN: Final = "/gcdm/oauth/token"  # noqa: S105 - a path
_CLIENT_ID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_DEFAULT_INTERVAL_S: Final = 5.0
_MAX_LIFE_S: Final = 86_400.0


def link_ends_at(health: TokenHealth) -> datetime | None:
    """When the link dies of idleness; ``None`` where that is not known, and where it is dead already."""
    if health.needs_relink or health.rotated_at is None:
        return None
    return health.rotated_at + REFRESH_TOKEN_LIVES


def ends_soon(health: TokenHealth, now: datetime) -> bool:
    """Whether the link dies within three days unless it is kept alive: from day 11 on."""
    ends_at = link_ends_at(health)
    return ends_at is not None and now >= ends_at - WARN_BEFORE_END


def is_keep_alive_due(health: TokenHealth, now: datetime) -> bool:
    """Whether the tokens have not been rotated since a daily round before this one."""
    return not health.needs_relink and health.rotated_at is not None and now >= health.rotated_at + KEEP_ALIVE_AFTER


class AuthManager:
    """Implements :class:`functions.providers.port.LogInByDevice`, and gives the other managers their tokens.

    ``extra`` of its tokens holds ``gcid``, ``client_id`` and ``id_token``, the stream's password.
    """

    def __init__(
        self,
        transport: Transport,
        tokens: TokenKeeper,
        clock: Clock,
        *,
        origin: str | None = None,
        renewal_timeout_s: float = ANSWER_WITHIN_S,
    ) -> None:
        self._transport = transport
        self._tokens = tokens
        self._clock = clock
        self._origin = (origin or AUTH_ORIGIN).rstrip("/")
        self._renewal_timeout_s = renewal_timeout_s

    async def begin(self, client_id: str) -> DeviceGrant:
        """Ask BMW for a code that the owner confirms in a browser.

        Raises ValidationFailed for what is no client id, CarDataRefused for one that BMW does not accept,
        CarDataTimeout, CarDataUnavailable, CarDataInvalidReply.
        """
        await needs_loop()
        if not _CLIENT_ID.fullmatch(client_id):
            problem = "is not a client id from the BMW portal, such as 01234567-89ab-cdef-0123-456789abcdef"
            raise ValidationFailed(details={"fields": [{"path": "params.client_id", "problem": problem}]})
        verifier = secrets.token_urlsafe(64)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        form = {
            "client_id": client_id,
            "response_type": "device_code",
            "scope": SCOPE,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        answer = await self._ask(AuthStage.BEGIN, _DEVICE, form)
        complete = answer.get("verification_uri_complete")
        return DeviceGrant(
            user_code=_text(answer, "user_code"),
            verification_uri=_link(answer.get("verification_uri")),
            verification_uri_complete=_link(complete) if complete is not None else None,
            expires_at=self._clock.utc() + timedelta(seconds=_seconds(answer, "expires_in")),
            interval_s=_seconds(answer, "interval") if "interval" in answer else _DEFAULT_INTERVAL_S,
            secrets={
                "client_id": client_id,
                "device_code": _text(answer, "device_code"),
                "code_verifier": verifier,
            },
        )

    async def poll(self, grant: DeviceGrant) -> TokenSet | DevicePending:
        """Ask once whether the owner has confirmed. The tokens are given once: whoever asks must store them.

        Raises CarDataRefused where the owner has refused or the client id is not accepted, CarDataRelinkRequired where
        the code is dead, CarDataTimeout, CarDataUnavailable, CarDataInvalidReply.
        """
        await needs_loop()
        if self._clock.utc() >= grant.expires_at:
            raise CarDataRelinkRequired(CODE_DEAD)
        form = {**grant.secrets, "grant_type": "urn:ietf:params:oauth:grant-type:device_code"}
        try:
            answer = await self._ask(AuthStage.POLL, _TOKEN, form)
        except PollingTooFast:
            return DevicePending(grant.interval_s + SLOWER_S)
        except StillUndecided:
            return DevicePending(grant.interval_s)
        return self._tokens_of(answer, {"client_id": grant.secrets["client_id"]})

    async def usable(self, account: Account, *, refused: str | None = None) -> TokenSet:
        """Tokens that can be used now; told of an access token that was refused, others than that.

        Raises RelinkRequired, StoreUnavailable, and what :meth:`begin` raises of BMW's failures.
        """
        return await self._tokens.usable(account.id, self._refresh, refused=refused, provider=account.provider)

    async def gcid(self, account: Account) -> str:
        """The customer behind an account, without asking BMW. Raises RelinkRequired, StoreUnavailable."""
        return (await self._tokens.peek(account.id)).extra["gcid"]

    async def keep_alive(self, account: Account) -> None:
        """Use the link once, so that it does not die of idleness. Costs none of the day's requests.

        Where the access token is still good, the link was used within the last hour, and nothing is asked.
        """
        await needs_loop()
        await self.usable(account)

    async def forget(self, account_id: str) -> None:
        """Drop the tokens held in memory."""
        await needs_loop()
        self._tokens.forget(account_id)

    async def _refresh(self, old: TokenSet) -> TokenSet:
        form = {
            "grant_type": "refresh_token",
            "refresh_token": old.refresh_token,
            "client_id": old.extra["client_id"],
        }
        trade = Trade(self._renewal_timeout_s)
        with trade.judged():
            return self._tokens_of(await self._ask(AuthStage.REFRESH, _TOKEN, form, trade), old.extra)

    def _tokens_of(self, answer: Mapping[str, Any], before: Mapping[str, str]) -> TokenSet:
        given = {name: answer[name] for name in ("gcid", "id_token") if _is_text(answer.get(name))}
        extra = {**{name: value for name, value in before.items() if name != "id_token"}, **given}
        if "gcid" not in extra:
            raise CarDataInvalidReply
        return TokenSet(
            access_token=_text(answer, "access_token"),
            refresh_token=_text(answer, "refresh_token"),
            expires_at=self._clock.utc() + timedelta(seconds=_seconds(answer, "expires_in")),
            extra=extra,
        )

    async def _ask(
        self, stage: AuthStage, path: str, form: Mapping[str, str], trade: Trade | None = None
    ) -> dict[str, Any]:
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        reply = await self._transport.send(
            Request(path, "POST", self._origin + path, headers, urlencode(form).encode(), trade)
        )
        if trade is not None:
            trade.answered(reply.status)
        failure = auth_failure(stage, reply.status, reply.body, reply.headers)
        if failure is not None:
            raise failure
        return _object(reply)


def _object(reply: Reply) -> dict[str, Any]:
    try:
        answer = orjson.loads(reply.body)
    except orjson.JSONDecodeError as error:
        raise CarDataInvalidReply from error
    if not isinstance(answer, dict):
        raise CarDataInvalidReply
    return answer


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _text(answer: Mapping[str, Any], name: str) -> str:
    value = answer.get(name)
    if not isinstance(value, str) or not value:
        raise CarDataInvalidReply
    return value


def _link(value: object) -> str:
    """A link that is shown to an owner: nothing but a web address."""
    if not isinstance(value, str) or not value.startswith(("https://", "http://")):
        raise CarDataInvalidReply
    return value


def _seconds(answer: Mapping[str, Any], name: str) -> float:
    value = answer.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _MAX_LIFE_S:
        raise CarDataInvalidReply
    return float(value)
