"""What the sandbox has seen: the ground truth that tests and benches compare with."""

from collections import Counter, defaultdict
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
        self.faults_injected: Counter[str] = Counter()
        """By kind; the faults of magic accounts too."""
        self.connections_accepted = 0
        self.connections_opened = 0
        self.logins = 0
        self.logins_refused: Counter[str] = Counter()
        """By what was refused: password or captcha."""
        self.refreshes = 0
        self.refreshes_refused = 0
        self.refresh_reuse_detected = 0
        self._received: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self._executed: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)

    def begin(self, route: str) -> None:
        """A request has arrived."""
        self.requests[route] += 1
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)

    def finish(self, status: int | None) -> None:
        """A request has been answered, or never will be."""
        self.in_flight -= 1
        self.responses["none" if status is None else str(status)] += 1

    def received(self, username: str, vin: str, service: str) -> None:
        """A command was accepted."""
        self._received[username, vin][service] += 1

    def executed(self, username: str, vin: str, service: str) -> None:
        """A car has done what it was told."""
        self._executed[username, vin][service] += 1

    def report(self, username: str | None = None) -> dict[str, Any]:
        """Everything as JSON; with ``username`` only that account's commands."""
        commands: dict[str, dict[str, dict[str, int]]] = {}
        for tally, name in ((self._received, "received"), (self._executed, "executed")):
            for (owner, vin), services in tally.items():
                if username in (None, owner):
                    for service, count in services.items():
                        counts = commands.setdefault(vin, {}).setdefault(service, {"received": 0, "executed": 0})
                        counts[name] += count
        return {
            "requests_total": self.requests.total(),
            "requests": dict(sorted(self.requests.items())),
            "responses": dict(sorted(self.responses.items())),
            "connections_opened": self.connections_opened,
            "connections_accepted": self.connections_accepted,
            "in_flight": self.in_flight,
            "in_flight_max": self.in_flight_max,
            "logins": self.logins,
            "logins_refused": dict(self.logins_refused),
            "refreshes": self.refreshes,
            "refreshes_refused": self.refreshes_refused,
            "refresh_reuse_detected": self.refresh_reuse_detected,
            "commands": commands,
            "commands_received": sum(tally.total() for tally in self._received.values()),
            "commands_executed": sum(tally.total() for tally in self._executed.values()),
            "faults_injected": dict(self.faults_injected),
        }
