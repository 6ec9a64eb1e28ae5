"""Everything the simulator remembers, in one place that a reset replaces."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from sandbox.cardata_counters import Counters
from sandbox.cardata_customers import Customer, Customers
from sandbox.cardata_faults import CarDataFaults
from sandbox.cardata_time import now_s
from sandbox.cardata_tokens import API_SCOPE, STREAM_SCOPE, Grant, Tokens, TokenStore
from sandbox.mybmw_clock import ShiftedClock

_OPENID: Final = frozenset({"authenticate_user", "openid"})
SCOPES: Final = _OPENID | {API_SCOPE, STREAM_SCOPE}


@dataclass(slots=True)
class Settings:
    """What ``POST /_sandbox/settings`` can change. Lives and intervals hold for what is given out from now on."""

    latency_ms: float = 0.0
    """Added to every request."""
    quota_per_day: int = 50
    """REST requests a GCID, until 00:00 UTC of the simulated clock."""
    access_life_s: float = 3600.0
    """Of access and id tokens."""
    refresh_life_s: float = 1_209_600.0
    device_life_s: float = 300.0
    interval_s: float = 5.0
    """Between two polls for a device code."""
    page_life_s: float = 300.0
    """Of a token for the next page."""
    complete_uri: bool = False
    """Whether ``verification_uri_complete`` is answered, as documented."""
    split_position: bool = True
    """Whether latitude and longitude are streamed in separate messages."""
    live_stream: bool = False
    """Whether cars stream as the clock goes, and not only when told to."""
    refuse_long_keepalive: bool = True
    """Whether a keepalive above 30 s, or none, is refused; else such a connection is cut after 45 s of silence."""


@dataclass(slots=True, eq=False)
class DeviceLogin:
    """A device code on its way."""

    device_code: str = field(repr=False)
    user_code: str
    client_id: str
    scope: frozenset[str]
    challenge: str
    expires_s: float
    interval_s: float
    approved: bool | None = None
    polled_s: float | None = None
    dead: bool = False
    """Redeemed, expired, denied or burnt."""


@dataclass(frozen=True, slots=True)
class Page:
    """Where a paged answer goes on."""

    vin: str
    from_s: float
    until_s: float
    offset: int
    expires_s: float


@dataclass(slots=True)
class World:
    """All mutable state. Handlers are given it and keep nothing."""

    settings: Settings
    clock: ShiftedClock
    counters: Counters
    customers: Customers
    tokens: TokenStore = field(default_factory=TokenStore)
    devices: dict[str, DeviceLogin] = field(default_factory=dict)
    pages: dict[str, Page] = field(default_factory=dict)
    faults: CarDataFaults = field(default_factory=CarDataFaults)
    quota: dict[str, Counter[str]] = field(default_factory=dict)
    """By GCID, then by UTC date."""

    @property
    def now_s(self) -> float:
        """Seconds since 1970 of the simulated clock."""
        return now_s(self.clock)

    def spend(self, gcid: str) -> int:
        """Count a REST request of the customer; how many there are today."""
        self.quota.setdefault(gcid, Counter())[self.today] += 1
        return self.quota_used(gcid)

    def set_quota_used(self, gcid: str, requests: int) -> None:
        """Pretend that the customer has made so many requests today."""
        self.quota.setdefault(gcid, Counter())[self.today] = requests

    def quota_used(self, gcid: str) -> int:
        """REST requests of the customer today, those refused for the quota included."""
        return self.quota.get(gcid, Counter())[self.today]

    @property
    def today(self) -> str:
        """The UTC date of the simulated clock."""
        return datetime.fromtimestamp(self.now_s, UTC).date().isoformat()

    def issue_tokens(self, customer: Customer, scope: frozenset[str]) -> Tokens:
        """Tokens for what was asked and is subscribed."""
        unsubscribed = set() if customer.stream_subscribed else {STREAM_SCOPE}
        if not customer.api_subscribed:
            unsubscribed.add(API_SCOPE)
        grant = Grant(customer.gcid, customer.client_id, scope - unsubscribed)
        return self.tokens.issue(grant, self.now_s, self.settings.access_life_s, self.settings.refresh_life_s)
