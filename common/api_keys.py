"""API keys: callers that prove themselves by a secret which we gave them.

A key is ``draiv_<id>_<secret><checksum>``: 22 letters and digits that name it, 43 url-safe characters that prove it
(256 random bits), and a checksum of 8 that tells a text which is no key from one that may be, before anything is
looked up. It is keyless: it spares the store noise and typing errors, not an attacker.

Stored is one document a key, ``apikeys/<id>``::

    {"name", "principal", "scopes": [...], "hash": "<hex>", "created_at", "expires_at"?, "revoked_at"?, "replaced_by"?}

``hash`` is the SHA-256 of the secret. A slow, salted hash is for secrets that can be guessed; nobody tries 2^256 of
them, and every request pays for it. A principal is ``key|<id of its first key>``: it outlives a key's renewal, and
several keys may share it. :mod:`ops.keys` issues, renews and revokes keys; the service only reads them.
"""

import hashlib
import hmac
import re
import secrets
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, Self

from common.cache import Cache, CacheStats, FailureKind
from common.callers import Caller, Scope
from common.clock import Clock
from common.errors import CallerUnauthenticated, StoreUnavailable
from common.ids import random_id
from common.stores.documents import Body, Documents

HEADER = "x-api-key"
COLLECTION = "apikeys"
PRINCIPAL_PREFIX = "key|"
TTL_S = 30.0
"""How long an instance may go on without asking the store about a key: so soon a revocation reaches all of them."""
UNKNOWN_TTL_S = 10.0
"""How long an id that no key has is remembered as such. Ids are random, so none comes into being in that time."""
REFUSAL: Final = "The request needs a valid X-API-Key."
"""Whatever is wrong with a key: the difference would tell which ids exist, and which keys once worked."""

_RECORD_BYTES = 600
"""A record's weight in the cache: measured at 500 bytes, and names are short."""
_SHAPE = re.compile(r"draiv_([0-9A-Za-z]{22})_([0-9A-Za-z_-]{43})([0-9a-f]{8})")
_ID = re.compile(r"[0-9A-Za-z]{22}")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key itself, which only its holder has."""

    id: str
    secret: str = field(repr=False)

    @classmethod
    def generate(cls) -> Self:
        """A key that nobody has."""
        return cls(random_id(), secrets.token_urlsafe(32))

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The key in a header's value; None where it holds anything else."""
        shape = _SHAPE.fullmatch(text)
        if shape is None:
            return None
        key_id, secret, checksum = shape.groups()
        return cls(key_id, secret) if checksum == _checksum(text[: shape.start(3)]) else None

    @property
    def text(self) -> str:
        """What its holder sends."""
        text = f"draiv_{self.id}_{self.secret}"
        return text + _checksum(text)

    @property
    def hash(self) -> bytes:
        """What is stored of the secret. Of its text: two texts may decode to the same 32 bytes."""
        return hashlib.sha256(self.secret.encode()).digest()


class KeyState(StrEnum):
    """What has become of a key."""

    ACTIVE = "active"
    REPLACED = "replaced"
    """Renewed, and valid until the overlap ends."""
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What is known of a key. Times are UTC."""

    id: str
    name: str
    """For people; it means nothing to the service."""
    principal: str
    scopes: frozenset[Scope]
    hash: bytes = field(repr=False)
    created_at: datetime
    expires_at: datetime | None = None
    """From then on the key is refused."""
    revoked_at: datetime | None = None
    replaced_by: str | None = None
    """The id of the key that a renewal has made."""

    def state(self, now: datetime) -> KeyState:
        """What has become of it by ``now``."""
        if self.revoked_at is not None:
            return KeyState.REVOKED
        if self.expires_at is not None and now >= self.expires_at:
            return KeyState.EXPIRED
        return KeyState.ACTIVE if self.replaced_by is None else KeyState.REPLACED

    def admits(self, key: ApiKey, now: datetime) -> bool:
        """Whether ``key`` is this one and may be used at ``now``."""
        return hmac.compare_digest(key.hash, self.hash) and self.state(now) in (KeyState.ACTIVE, KeyState.REPLACED)

    def to_body(self) -> Body:
        """As it is stored."""
        return {
            "name": self.name,
            "principal": self.principal,
            "scopes": [scope.value for scope in Scope if scope in self.scopes],
            "hash": self.hash.hex(),
            "created_at": self.created_at.isoformat(),
            "expires_at": self.expires_at and self.expires_at.isoformat(),
            "revoked_at": self.revoked_at and self.revoked_at.isoformat(),
            "replaced_by": self.replaced_by,
        }

    @classmethod
    def from_body(cls, key_id: str, body: Body) -> Self:
        """What was stored. Scopes that this version does not know give nothing.

        Raises StoreUnavailable where the document is no key's.
        """
        try:
            return cls(
                id=key_id,
                name=str(body["name"]),
                principal=str(body["principal"]),
                scopes=frozenset(scope for scope in Scope if scope.value in list(body["scopes"])),
                hash=bytes.fromhex(body["hash"]),
                created_at=_at(body["created_at"]),
                expires_at=None if body["expires_at"] is None else _at(body["expires_at"]),
                revoked_at=None if body["revoked_at"] is None else _at(body["revoked_at"]),
                replaced_by=None if body["replaced_by"] is None else str(body["replaced_by"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise StoreUnavailable from error


class ApiKeyCallers:
    """Callers by their API key. See :class:`common.callers.Callers`.

    What the store said of a key is believed for TTL_S, its end is kept to the moment. A store that cannot be read lets
    in who was known less than TTL_S ago, and nobody else. ``max_cache_bytes`` is enough for some 3,700 keys.
    """

    def __init__(self, documents: Documents, clock: Clock, *, max_cache_bytes: int = 4 * 2**20) -> None:
        self._documents = documents
        self._clock = clock
        self._records: Cache[KeyRecord] = Cache(
            "api_keys",
            ttl_s=TTL_S,
            # Nothing is loaded together that could expire together, and the promise is a bound.
            jitter=0.0,
            max_bytes=max_cache_bytes,
            weigh=lambda _: _RECORD_BYTES,
            negative_ttl_s=UNKNOWN_TTL_S,
            classify=lambda exc: FailureKind.ANSWER if isinstance(exc, _UnknownKey) else FailureKind.OUTAGE,
            clock=clock,
        )

    async def identify(self, headers: Mapping[str, str]) -> Caller:
        """The caller whose key is in ``x-api-key``; answered on the calling thread while the key is remembered.

        Raises CallerUnauthenticated, the same for every reason, and StoreUnavailable.
        """
        # Servers join two instances of a header with a comma, which no key holds.
        key = ApiKey.parse(headers.get(HEADER, ""))
        if key is None:
            raise CallerUnauthenticated(REFUSAL)
        held = self._records.held(key.id, TTL_S)
        if held is not None:
            return self._admitted(held.value, key)
        try:
            # An age besides the time to live: that counts from the end of a load, and loads may be slow.
            hit = await self._records.get_or_load(
                key.id, lambda: self._load(key.id), max_age_s=TTL_S, on_error_stale=False
            )
        except _UnknownKey:
            raise CallerUnauthenticated(REFUSAL) from None
        return self._admitted(hit.value, key)

    def _admitted(self, record: KeyRecord, key: ApiKey) -> Caller:
        if not record.admits(key, self._clock.utc()):
            raise CallerUnauthenticated(REFUSAL)
        return Caller(record.principal, record.scopes)

    def stats(self) -> CacheStats:
        """Counts and sizes of what is remembered."""
        return self._records.stats()

    async def _load(self, key_id: str) -> KeyRecord:
        document = await self._documents.get(document_key(key_id))
        if document is None:
            raise _UnknownKey
        return KeyRecord.from_body(key_id, document.body)


class _UnknownKey(Exception):
    """No key has this id."""


def document_key(key_id: str) -> str:
    """Where a key is stored."""
    return f"{COLLECTION}/{key_id}"


def is_key_id(text: str) -> bool:
    """Whether ``text`` has the shape of a key's id."""
    return _ID.fullmatch(text) is not None


def _checksum(text: str) -> str:
    """CRC-32, as 8 hexadecimal digits."""
    return f"{zlib.crc32(text.encode()):08x}"


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
