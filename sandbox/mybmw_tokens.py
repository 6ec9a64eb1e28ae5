"""Access tokens that expire and refresh tokens that rotate, with reuse detection.

All tokens that descend from one login form a *family*. A refresh token works once; showing a used one again
revokes its whole family, access tokens included, as a provider with reuse detection does.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Family:
    """The tokens that descend from one login."""

    username: str
    region: str
    refresh_revoked: bool = False
    access: set[str] = field(default_factory=set, repr=False)


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a login or a refresh gives out."""

    username: str
    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_in_s: int


@dataclass(slots=True)
class _Access:
    family: Family
    expires_at_s: float


@dataclass(slots=True)
class _Refresh:
    family: Family
    used: bool = False


class InvalidGrantError(Exception):
    """The refresh token is unknown, revoked, of another region, or was used before."""

    def __init__(self, *, reused: bool) -> None:
        super().__init__("reused" if reused else "unknown")
        self.reused = reused


def random_token() -> str:
    """43 characters that nobody guesses."""
    return secrets.token_urlsafe(32)


class TokenStore:
    """Every token given out. Times are seconds of the sandbox's monotonic clock."""

    def __init__(self) -> None:
        self._access: dict[str, _Access] = {}
        self._refresh: dict[str, _Refresh] = {}

    def log_in(
        self, username: str, region: str, now_s: float, expires_in_s: int, mint: Callable[[], str] = random_token
    ) -> Tokens:
        """Tokens of a new family; ``mint`` makes the access token."""
        return self._issue(Family(username, region), now_s, expires_in_s, mint)

    def refresh(
        self, refresh_token: str, region: str, now_s: float, expires_in_s: int, mint: Callable[[], str] = random_token
    ) -> Tokens:
        """The next tokens of the family. Raises InvalidGrantError."""
        known = self._refresh.get(refresh_token)
        if known is None or known.family.region != region:
            raise InvalidGrantError(reused=False)
        if known.used:
            self._revoke(known.family)
            raise InvalidGrantError(reused=True)
        if known.family.refresh_revoked:
            raise InvalidGrantError(reused=False)
        known.used = True
        return self._issue(known.family, now_s, expires_in_s, mint)

    def session(self, access_token: str, now_s: float) -> Family | None:
        """Whose token this is; None where it is unknown, revoked or expired."""
        access = self._access.get(access_token)
        return access.family if access is not None and now_s < access.expires_at_s else None

    def owner(self, token: str) -> str | None:
        """The account that an access or a refresh token belongs to, valid or not."""
        known = self._access.get(token) or self._refresh.get(token)
        return known.family.username if known else None

    def expire_access(self, username: str) -> int:
        """Expire every access token of the account; how many were known."""
        mine = [access for access in self._access.values() if access.family.username == username]
        for access in mine:
            access.expires_at_s = float("-inf")
        return len(mine)

    def revoke_refresh(self, username: str) -> int:
        """Revoke every refresh token of the account, leaving access tokens alone; how many were unused."""
        mine = [refresh for refresh in self._refresh.values() if refresh.family.username == username]
        for refresh in mine:
            refresh.family.refresh_revoked = True
        return sum(not refresh.used for refresh in mine)

    def _issue(self, family: Family, now_s: float, expires_in_s: int, mint: Callable[[], str]) -> Tokens:
        tokens = Tokens(family.username, mint(), random_token(), expires_in_s)
        self._access[tokens.access_token] = _Access(family, now_s + expires_in_s)
        family.access.add(tokens.access_token)
        self._refresh[tokens.refresh_token] = _Refresh(family)
        return tokens

    def _revoke(self, family: Family) -> None:
        family.refresh_revoked = True
        for token in family.access:
            del self._access[token]
        family.access.clear()
