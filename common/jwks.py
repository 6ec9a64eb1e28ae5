"""An issuer's public keys: fetched once for everybody, kept for minutes, asked for sparingly.

Four ages: *fresh* for the reply's ``max-age`` within MIN_FRESH_S and MAX_FRESH_S; then *stale*, where the next token
has them fetched anew and they go on serving where that fails; STALE_S later gone. And never two fetches within
COOL_DOWN_S, whatever tokens name: strangers choose key ids freely.

So a key that its issuer withdraws is found for MAX_FRESH_S at most, however long the issuer lets its keys be cached:
they often say a day, and a stolen key must not be good for that long. While the issuer cannot be asked, nobody can know
of a withdrawal, and STALE_S comes on top.

Nothing is ever fetched but the issuer's own addresses: no token has a say in where.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jwt import PyJWK
from jwt.exceptions import PyJWTError

from common.clock import Clock
from common.errors import IdentityUnavailable
from common.fetch import Fetch, Fetched, FetchFailed
from common.issuers import ALGORITHMS, Issuer
from common.loops import needs_loop
from common.strict_json import parse_object

MIN_FRESH_S = 300.0
MAX_FRESH_S = 600.0
STALE_S = 3_600.0
COOL_DOWN_S = 60.0
RETRY_S = 5.0
"""The cool-down while there are no keys at all: every caller is locked out, so ask again soon."""
MAX_KEYS = 64

KeyName = tuple[str, str]
"""A key's id and the algorithm that it is used with."""
KeysObserver = Callable[[str, str], None]
"""Told of each fetch: the issuer, and ``ok`` or what went wrong."""

_BY_TYPE: Mapping[tuple[str, str | None], frozenset[str]] = {
    ("RSA", None): frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
    ("EC", "P-256"): frozenset({"ES256"}),
    ("EC", "P-384"): frozenset({"ES384"}),
    ("EC", "P-521"): frozenset({"ES512"}),
    ("OKP", "Ed25519"): frozenset({"EdDSA"}),
}
"""What a key of a type and curve can verify."""


def usable_keys(body: bytes, algorithms: frozenset[str] = ALGORITHMS) -> Mapping[KeyName, PyJWK]:
    """The keys of a JWK set (RFC 7517) that may verify signatures.

    Left out: keys without an id, symmetric ones, those meant for encryption, RSA below 2048 bits, and those published
    with their private half. Raises ValueError where none is left.
    """
    keys = parse_object(body).get("keys")
    if not isinstance(keys, list):
        raise ValueError("no list of keys")  # noqa: TRY004 - it is bad data
    found: dict[KeyName, PyJWK] = {}
    for jwk in keys[:MAX_KEYS]:
        for name, key in _verifiers(jwk, algorithms):
            found.setdefault(name, key)
    if not found:
        raise ValueError("no usable key")
    return found


def _verifiers(jwk: object, algorithms: frozenset[str]) -> Iterator[tuple[KeyName, PyJWK]]:
    if not isinstance(jwk, dict) or "d" in jwk or jwk.get("use", "sig") != "sig":
        return
    kid, kty, operations = jwk.get("kid"), jwk.get("kty"), jwk.get("key_ops", ["verify"])
    if not isinstance(kid, str) or not isinstance(operations, list) or "verify" not in operations:
        return
    curve = None if kty == "RSA" else jwk.get("crv")
    if not isinstance(kty, str) or not isinstance(curve, str | None):
        return
    able = _BY_TYPE.get((kty, curve), frozenset()) & algorithms
    for algorithm in sorted(able if "alg" not in jwk else able & {_text(jwk["alg"])}):
        key = _load(jwk, algorithm)
        if key is not None:
            yield (kid, algorithm), key


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _load(jwk: dict[str, Any], algorithm: str) -> PyJWK | None:
    try:
        key = PyJWK(jwk, algorithm)
    except (PyJWTError, TypeError, ValueError, KeyError):
        return None
    return None if key.Algorithm.check_key_length(key.key) else key


@dataclass(frozen=True, slots=True)
class _Held:
    """What one fetch brought. Times in monotonic seconds."""

    keys: Mapping[KeyName, PyJWK]
    fresh_until: float
    kept_until: float


class KeySet:
    """The keys of one issuer. See the module's docstring.

    Keys that are held are found on any thread; fetching happens on the one loop.
    """

    def __init__(
        self,
        issuer: Issuer,
        clock: Clock,
        fetch: Fetch,
        *,
        observe: KeysObserver = lambda _issuer, _outcome: None,
    ) -> None:
        self._issuer = issuer
        self._clock = clock
        self._fetch = fetch
        self._observe = observe
        self._held: _Held | None = None
        self._ask_again_at = clock.monotonic()
        self._asking: asyncio.Task[None] | None = None

    async def find(self, kid: str, algorithm: str) -> PyJWK | None:
        """The issuer's key of that id for that algorithm, None where it has none.

        Raises IdentityUnavailable where no keys are held and none can be had.
        """
        name = kid, algorithm
        key, fresh = self._look_up(name)
        # Where somebody is asking already, an old key is answer enough.
        if key is not None and (fresh or self._asking is not None):
            return key
        if self._may_ask():
            await needs_loop()
            await self._asked()
            key, _ = self._look_up(name)
        if key is None and self._current() is None:
            raise IdentityUnavailable(retry_after_s=max(1.0, self._ask_again_at - self._clock.monotonic()))
        return key

    def _may_ask(self) -> bool:
        return self._clock.monotonic() >= self._ask_again_at

    async def _asked(self) -> None:
        """Wait for the fetch that is under way, or for a new one if it is time for one."""
        # Looked at again, because the keys may have come on the way to the loop.
        if self._asking is None and self._may_ask():
            self._asking = asyncio.get_running_loop().create_task(self._refresh())
        if self._asking is not None:
            # Shielded: whoever gives up waiting takes nobody along, and the next need not begin again.
            await asyncio.shield(self._asking)

    def _current(self) -> _Held | None:
        held = self._held
        return held if held is not None and self._clock.monotonic() < held.kept_until else None

    def _look_up(self, name: KeyName) -> tuple[PyJWK | None, bool]:
        held = self._current()
        return (None, False) if held is None else (held.keys.get(name), self._clock.monotonic() < held.fresh_until)

    async def _refresh(self) -> None:
        outcome = "cut short"
        try:
            fetched = await self._fetch(await self._keys_url())
            keys = usable_keys(fetched.body, self._issuer.algorithms)
            self._held, outcome = self._hold(keys, fetched), "ok"
        except (FetchFailed, ValueError) as problem:
            outcome = str(problem)
        finally:
            pause_s = RETRY_S if self._current() is None else COOL_DOWN_S
            self._ask_again_at = self._clock.monotonic() + pause_s
            self._asking = None
            self._observe(self._issuer.issuer, outcome)

    async def _keys_url(self) -> str:
        if self._issuer.jwks_uri is not None:
            return self._issuer.jwks_uri
        # Each time, rather than remembered: an issuer that moves its keys need not break the old address.
        discovered = parse_object((await self._fetch(self._issuer.discovery_url)).body)
        if discovered.get("issuer") != self._issuer.issuer:
            raise ValueError("the discovery document is of another issuer")
        return self._issuer.keys_url(discovered.get("jwks_uri"))

    def _hold(self, keys: Mapping[KeyName, PyJWK], fetched: Fetched) -> _Held:
        fresh_s = min(max(fetched.fresh_s or 0.0, MIN_FRESH_S), MAX_FRESH_S)
        fresh_until = self._clock.monotonic() + fresh_s
        return _Held(keys, fresh_until, fresh_until + STALE_S)
