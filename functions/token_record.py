"""Tokens, and the form in which an account's tokens are stored."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from common.stores.documents import Document

EXPIRY_MARGIN_S = 60.0
"""Refresh this long before the access token ends, so that no request is sent with a dying one."""


@dataclass(frozen=True, slots=True)
class TokenSet:
    """What a maker gave to act for an account. ``repr`` hides it."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_at: datetime
    extra: Mapping[str, str] = field(default_factory=dict, repr=False)
    """What else the maker ties to the session (``gcid``, ``session_id``, ``id_token``)."""

    def is_fresh(self, now: datetime, margin_s: float = EXPIRY_MARGIN_S) -> bool:
        """Whether the access token can still be used at ``now``."""
        return now + timedelta(seconds=margin_s) < self.expires_at


@dataclass(frozen=True, slots=True)
class Record:
    """The stored form: the tokens, which rotation wrote them, and who is renewing them."""

    tokens: TokenSet
    rotation: str
    rotated_at: datetime
    order: int
    """Greater than that of the tokens before; see :func:`next_order`."""
    needs_relink: bool = False
    lease: str | None = None
    leased_until: datetime | None = None

    def to_body(self) -> dict[str, Any]:
        """As a document's body."""
        return {
            "access_token": self.tokens.access_token,
            "refresh_token": self.tokens.refresh_token,
            "expires_at": self.tokens.expires_at.isoformat(),
            "extra": dict(self.tokens.extra),
            "rotation": self.rotation,
            "rotated_at": self.rotated_at.isoformat(),
            "order": self.order,
            "needs_relink": self.needs_relink,
            "lease": self.lease,
            "leased_until": self.leased_until.isoformat() if self.leased_until else None,
        }

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> "Record":
        """What :meth:`to_body` has made."""
        until = body.get("leased_until")
        return cls(
            tokens=TokenSet(
                access_token=body["access_token"],
                refresh_token=body["refresh_token"],
                expires_at=datetime.fromisoformat(body["expires_at"]).astimezone(UTC),
                extra=body.get("extra", {}),
            ),
            rotation=body["rotation"],
            rotated_at=datetime.fromisoformat(body["rotated_at"]).astimezone(UTC),
            order=order_of(body),
            needs_relink=body.get("needs_relink", False),
            lease=body.get("lease"),
            leased_until=datetime.fromisoformat(until).astimezone(UTC) if until else None,
        )


@dataclass(frozen=True, slots=True)
class Rotation:
    """Tokens that the maker has given and the store has yet to take."""

    document: Document = field(repr=False)
    consumed: str = field(repr=False)
    """The refresh token that was traded in; while it is the stored one, nothing newer is known."""
    record: Record = field(repr=False)


def order_of(body: Mapping[str, Any]) -> int:
    """Where stored tokens stand in the order in which an account's tokens were given."""
    order, rotated_at = body.get("order"), body.get("rotated_at")
    if isinstance(order, int):
        return order
    # Records of before there was one: the time of their rotation, on the same scale.
    return _milliseconds(datetime.fromisoformat(rotated_at)) if isinstance(rotated_at, str) else 0


def next_order(before: int, now: datetime) -> int:
    """What comes after ``before``: milliseconds, and one more than before where instances' clocks disagree."""
    return max(before + 1, _milliseconds(now))


def key_of(account_id: str) -> str:
    """The document of an account's tokens."""
    return f"tokens/{account_id}"


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000)
