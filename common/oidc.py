"""Callers who come with an ID token of an issuer that the deployment trusts.

The token is the user's and comes as ``Authorization: Bearer``. ``X-Serverless-Authorization`` is never read: in it
comes the token that lets a request through the platform's IAM, which has checked it in front of us, may have removed
its signature, and says nothing of who the user is.

Importing this loads PyJWT and cryptography (100 ms): import it where OIDC is configured, and nowhere else.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from common.cache import Cache
from common.callers import Caller
from common.clock import Clock
from common.errors import CallerUnauthenticated
from common.fetch import Fetch, HttpFetch
from common.id_token import (
    Reason,
    Refused,
    check_claims,
    check_signature,
    expires_at_s,
    principal_of,
    read,
    scopes_of,
)
from common.issuers import Issuer
from common.jwks import KeySet, KeysObserver

LEEWAY_S = 60.0
REMEMBER_S = 300.0
"""How long a token is believed without another look at its signature, and so at its issuer's keys."""
REMEMBER_BYTES = 4 * 2**20

_REFUSED = "The bearer token is not valid here."
"""For every kind of bad token: which check it failed is nobody's business but ours."""
_VERIFIED_BYTES = 512


@dataclass(frozen=True, slots=True)
class _Verified:
    caller: Caller
    expires_at_s: float
    """Unix seconds."""


class OidcCallers:
    """Tells callers by their ID tokens.

    A token that was verified is remembered by its digest, for REMEMBER_S and never past its ``exp``: so a key that an
    issuer withdraws counts for that long after it was last found among the issuer's (:mod:`common.jwks`). Together they
    take at most ``remember_bytes``.
    Neither that nor verifying with keys that are held leaves the calling thread.

    ``leeway_s`` is for issuers whose clocks run ahead. ``on_refusal`` is told why a token was refused, ``on_keys`` of
    each fetch of keys.
    """

    def __init__(
        self,
        issuers: Sequence[Issuer],
        clock: Clock,
        fetch: Fetch | None = None,
        *,
        leeway_s: float = LEEWAY_S,
        remember_bytes: int = REMEMBER_BYTES,
        on_refusal: Callable[[Reason], None] = lambda _reason: None,
        on_keys: KeysObserver = lambda _issuer, _outcome: None,
    ) -> None:
        self._clock = clock
        self._leeway_s = leeway_s
        self._on_refusal = on_refusal
        by_name = {issuer.issuer: issuer for issuer in issuers}
        if len(by_name) != len(issuers):
            raise ValueError("issuer: a second row of the same issuer")
        source = fetch or HttpFetch()
        self._issuers = {
            name: (issuer, KeySet(issuer, clock, source, observe=on_keys)) for name, issuer in by_name.items()
        }
        self._verified: Cache[_Verified] = Cache(
            "id_tokens",
            ttl_s=REMEMBER_S,
            jitter=0.0,
            max_bytes=remember_bytes,
            weigh=lambda _verified: _VERIFIED_BYTES,
            clock=clock,
        )

    async def identify(self, headers: Mapping[str, str]) -> Caller:
        """The caller whose token ``authorization`` holds.

        Raises CallerUnauthenticated, always with the same message, or IdentityUnavailable where the issuer's keys
        cannot be had.
        """
        try:
            token = _bearer(headers)
            digest = hashlib.sha256(token.encode()).hexdigest()
            known = self._verified.get(digest)
            if known is not None and self._clock.utc().timestamp() < known.value.expires_at_s:
                return known.value.caller
            verified = await self._verify(token)
        except Refused as refused:
            self._on_refusal(refused.reason)
            raise CallerUnauthenticated(_REFUSED) from None
        self._verified.put(digest, verified)
        return verified.caller

    async def _verify(self, token: str) -> _Verified:
        claimed = read(token)
        claims, name = claimed.claims, claimed.claims.get("iss")
        # The token's word for its issuer only selects among those that we trust; its key then has to bear it out.
        found = self._issuers.get(name) if isinstance(name, str) else None
        if found is None:
            raise Refused(Reason.ISSUER)
        issuer, keys = found
        check_claims(claims, issuer, self._clock.utc().timestamp(), self._leeway_s)
        key = await keys.find(claimed.kid, claimed.algorithm)
        if key is None:
            raise Refused(Reason.KEY)
        check_signature(claimed, key)
        return _Verified(Caller(principal_of(claims), scopes_of(claims, issuer)), expires_at_s(claims))


def _bearer(headers: Mapping[str, str]) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Refused(Reason.MISSING)
    if not token.isascii():
        raise Refused(Reason.MALFORMED)
    return token
