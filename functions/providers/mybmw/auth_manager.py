"""Logging in, renewing tokens, and the library's idea of an account for each linked one."""

from collections import OrderedDict
from dataclasses import dataclass

from common.clock import Clock
from common.errors import ApiError, InternalError, ValidationFailed
from common.loops import needs_loop
from functions.providers.mybmw.failures import Stage, translated
from functions.providers.mybmw.session import Authentication, LoginAttempt, LoginRoute, Session
from functions.providers.mybmw.transport import PooledTransport
from functions.providers.port import Account, Credentials, Region
from functions.providers.renewal import Trade
from functions.tokens import ANSWER_WITHIN_S, TokenKeeper, TokenSet

MAX_CHINESE_PASSWORD_BYTES = 117
"""What BMW's RSA key of 1,024 bits can encrypt there (PKCS #1 v1.5)."""


@dataclass(frozen=True, slots=True)
class _Held:
    session: Session
    since_s: float


class AuthManager:
    """Implements :class:`functions.providers.port.LogIn`, and gives the other managers their sessions.

    Sessions are held for ``session_ttl_s``, at most ``max_sessions`` of them, the least recently used going first.
    They hold no tokens: those are the keeper's.
    """

    def __init__(
        self,
        transport: PooledTransport,
        tokens: TokenKeeper,
        clock: Clock,
        *,
        session_ttl_s: float = 86_400.0,
        max_sessions: int = 1_000,
        renewal_timeout_s: float = ANSWER_WITHIN_S,
    ) -> None:
        self._transport = transport
        self._tokens = tokens
        self._clock = clock
        self._session_ttl_s = session_ttl_s
        self._max_sessions = max_sessions
        self._renewal_timeout_s = renewal_timeout_s
        self._held: OrderedDict[str, _Held] = OrderedDict()

    async def log_in(self, credentials: Credentials) -> TokenSet:
        """Log in with a password; outside China that takes an hCaptcha token. Stores nothing.

        Raises BMWCaptchaRequired (where there is no captcha token, before any request), ValidationFailed (a password
        that cannot be sent), BMWCredentialsRefused, BMWBlocked, BMWQuotaExceeded, BMWTimeout, BMWInvalidReply,
        BMWMisunderstood, BMWUnavailable.
        """
        await needs_loop()
        if credentials.region is Region.CHINA and len(credentials.password.encode()) > MAX_CHINESE_PASSWORD_BYTES:
            problem = f"takes at most {MAX_CHINESE_PASSWORD_BYTES} bytes in region `china`"
            raise ValidationFailed(details={"fields": [{"path": "password", "problem": problem}]})
        attempt = LoginAttempt(
            credentials.region, LoginRoute(self._transport, Stage.LOGIN), credentials.username, credentials.password
        )
        attempt.hcaptcha_token = credentials.captcha_token
        with translated():
            return await attempt.log_in()

    async def forget(self, account_id: str) -> None:
        """Drop the session of an account and the tokens held in memory."""
        await needs_loop()
        self._held.pop(account_id, None)
        self._tokens.forget(account_id)

    def session(self, account: Account) -> Session:
        """The library's idea of an account. Call it on the loop."""
        now_s = self._clock.monotonic()
        held = self._held.pop(account.id, None)
        if held is None or now_s - held.since_s >= self._session_ttl_s:
            held = _Held(self._new_session(account), now_s)
        self._held[account.id] = held
        while len(self._held) > self._max_sessions:
            self._held.popitem(last=False)
        return held.session

    def _new_session(self, account: Account) -> Session:
        async def refresh(old: TokenSet) -> TokenSet:
            trade = Trade(self._renewal_timeout_s)
            attempt = LoginAttempt(account.region, LoginRoute(self._transport, Stage.REFRESH, trade))
            with trade.judged(), translated():
                return await attempt.refresh(old)

        async def usable(refused: str | None) -> TokenSet:
            try:
                return await self._tokens.usable(account.id, refresh, refused=refused, provider=account.provider)
            except ApiError:
                raise
            except Exception as defect:
                # This runs inside the library's calls, where a KeyError of ours would pass for a bad reply of BMW's.
                raise InternalError from defect

        return Session(Authentication(account.region, self._transport, usable))
