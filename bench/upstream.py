"""The simulated maker as the harness sees it: its latency, its counters, and the requests of one read."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from bench import wire
from sandbox.process import RunningSandbox, running_sandbox

PASSWORD = "demo-password"  # noqa: S105 -- the simulator's public password
DEMO_VIN = "WBA00000000DEMO01"
STATE = "GET /eadrax-vcs/v4/vehicles/state"
APP_HEADERS = {
    "accept": "application/json",
    "accept-language": "en",
    "user-agent": "Dart/3.3 (dart:io)",
    "x-user-agent": "android(AP2A.240905.003);bmw;4.9.2(36892);row",
    "bmw-session-id": "00000000-0000-4000-8000-000000000000",
    "bmw-units-preferences": "d=KM;v=L;p=B;ec=KWH100KM;fc=L100KM;em=GKM;",
    "24-hour-format": "true",
}


@dataclass(frozen=True)
class Seen:
    """What the maker has counted so far."""

    requests: int
    connections: int
    by_route: dict[str, int]

    def since(self, earlier: Self) -> "Seen":
        """What came after ``earlier``."""
        by_route = {route: count - earlier.by_route.get(route, 0) for route, count in self.by_route.items()}
        return Seen(
            self.requests - earlier.requests,
            self.connections - earlier.connections,
            {route: count for route, count in by_route.items() if count},
        )


@dataclass(frozen=True)
class Tokens:
    """What a login would have given; the access token outlives the run."""

    email: str
    access_token: str
    refresh_token: str
    gcid: str


class Upstream:
    """The simulator's counters and settings, and requests made to it directly."""

    def __init__(self, sandbox: RunningSandbox) -> None:
        self.origin = sandbox.origin
        self.pid = sandbox.pid
        self.port = int(sandbox.origin.rpartition(":")[2])
        self.sandbox = sandbox

    def set_latency(self, latency_ms: float) -> None:
        """Delay every reply from now on."""
        self.sandbox.settings(latency_ms=latency_ms)

    def seen(self) -> Seen:
        """The counters."""
        counted = self.sandbox.stats()
        return Seen(counted["requests_total"], counted["connections_opened"], dict(counted["requests"]))

    def issue_tokens(self, email: str) -> Tokens:
        """Tokens as of a login."""
        issued = self.sandbox.issue_tokens(email)
        return Tokens(email, issued["access_token"], issued["refresh_token"], issued["gcid"])

    def read_messages(self, tokens: Tokens) -> tuple[bytes, ...]:
        """The requests of one read of an electric car, as the MyBMW app words them."""
        headers = APP_HEADERS | {"authorization": f"Bearer {tokens.access_token}", "bmw-vin": DEMO_VIN}
        charging = "/eadrax-crccs/v2/vehicles?fields=charging-profile&has_charging_settings_capabilities=True"
        return tuple(wire.request("GET", path, headers=headers) for path in ("/eadrax-vcs/v4/vehicles/state", charging))


@contextmanager
def simulated() -> Iterator[Upstream]:
    """A simulated maker in a process of its own."""
    with running_sandbox() as sandbox:
        sandbox.settings(expires_in=86_400)  # nobody refreshes in the middle of a round
        yield Upstream(sandbox)
