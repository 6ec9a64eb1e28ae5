"""What the sandbox has seen: the ground truth that tests and benches compare with."""

from collections import Counter
from typing import Any


class Counters:
    """Counts since the last reset. Control requests are not counted."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.zero()

    def zero(self) -> None:
        """Start counting anew; requests in flight stay so."""
        self.in_flight_max = self.in_flight
        self.requests: Counter[str] = Counter()
        """By ``"METHOD template"``."""
        self.responses: Counter[str] = Counter()
        """By status; ``"none"`` where the connection was cut or the client went away."""
        self.errors: Counter[str] = Counter()
        """By ``exveErrorId`` or OAuth ``error``."""
        self.faults_injected: Counter[str] = Counter()
        """By kind."""
        self.auth: Counter[str] = Counter()
        """device_codes, device_logins, refreshes, refreshes_refused, refresh_reuse_detected."""
        self.stream: Counter[str] = Counter()
        """connects, refused_<why>, dropped_<why>, messages (published to somebody or nobody), delivered."""

    def begin(self, route: str) -> None:
        """A request has arrived."""
        self.requests[route] += 1
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)

    def finish(self, status: int | None) -> None:
        """A request has been answered, or never will be."""
        self.in_flight -= 1
        self.responses["none" if status is None else str(status)] += 1

    def report(self) -> dict[str, Any]:
        """Everything as JSON."""
        return {
            "requests_total": self.requests.total(),
            "in_flight": self.in_flight,
            "in_flight_max": self.in_flight_max,
            **{
                name: dict(sorted(getattr(self, name).items()))
                for name in ("requests", "responses", "errors", "faults_injected", "auth", "stream")
            },
        }
