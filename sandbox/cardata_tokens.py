"""Access, id and refresh tokens. All three rotate together: a refresh token works once."""

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass, field

import orjson

API_SCOPE = "cardata:api:read"
STREAM_SCOPE = "cardata:streaming:read"


@dataclass(frozen=True, slots=True)
class Grant:
    """What a customer has let a client do."""

    gcid: str
    client_id: str
    scope: frozenset[str]


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a login or a refresh gives out."""

    grant: Grant
    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    id_token: str = field(repr=False)


@dataclass(slots=True)
class Issued:
    """One token that was given out."""

    grant: Grant
    expires_s: float
    used: bool = False


class TokenStore:
    """Every token given out. Times are seconds since 1970 of the simulated clock."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self.access: dict[str, Issued] = {}
        self.ids: dict[str, Issued] = {}
        self._refresh: dict[str, Issued] = {}

    def issue(self, grant: Grant, now_s: float, access_life_s: float, refresh_life_s: float) -> Tokens:
        """A new set of tokens."""
        tokens = Tokens(grant, secrets.token_urlsafe(32), secrets.token_urlsafe(32), "")
        id_token = self._sign(grant, now_s, access_life_s)
        self.access[tokens.access_token] = Issued(grant, now_s + access_life_s)
        self.ids[id_token] = Issued(grant, now_s + access_life_s)
        self._refresh[tokens.refresh_token] = Issued(grant, now_s + refresh_life_s)
        return Tokens(grant, tokens.access_token, tokens.refresh_token, id_token)

    def redeem(self, refresh_token: str, client_id: str, now_s: float) -> tuple[Grant | None, bool]:
        """The grant behind a refresh token, which is dead from now on; else None, and whether it was used before."""
        known = self._refresh.get(refresh_token)
        if known is None or known.grant.client_id != client_id:
            return None, False
        if known.used or now_s >= known.expires_s:
            return None, known.used
        known.used = True
        return known.grant, False

    def owner(self, token: str) -> str | None:
        """The GCID that an access or a refresh token belongs to, valid or not."""
        known = self.access.get(token) or self._refresh.get(token)
        return known.grant.gcid if known else None

    def expire(self, gcid: str) -> None:
        """End the lives of the customer's access and id tokens."""
        for issued in (*self.access.values(), *self.ids.values()):
            if issued.grant.gcid == gcid:
                issued.expires_s = float("-inf")

    def revoke_refresh(self, gcid: str) -> None:
        """Kill the customer's refresh tokens, leaving the others alone."""
        self._refresh = {token: issued for token, issued in self._refresh.items() if issued.grant.gcid != gcid}

    def _sign(self, grant: Grant, now_s: float, life_s: float) -> str:
        # Shaped as BMW's, which is signed with RSA; only the sandbox itself ever checks one.
        claims = {
            "iss": "https://customer.bmwgroup.com/gcdm",
            "sub": grant.gcid,
            "aud": grant.client_id,
            "iat": int(now_s),
            "exp": int(now_s + life_s),
            "jti": secrets.token_urlsafe(8),
        }
        unsigned = b".".join(_base64(orjson.dumps(part)) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
        signature = _base64(hmac.digest(self._key, unsigned, hashlib.sha256))
        return b".".join((unsigned, signature)).decode()


def _base64(text: bytes) -> bytes:
    return base64.urlsafe_b64encode(text).rstrip(b"=")
