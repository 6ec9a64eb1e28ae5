"""Everything the simulator remembers, in one place that a reset replaces."""

from collections.abc import Callable
from dataclasses import dataclass, field

from sandbox.mybmw_accounts import Accounts
from sandbox.mybmw_cars import Car
from sandbox.mybmw_clock import ShiftedClock
from sandbox.mybmw_commands import CommandLog
from sandbox.mybmw_counters import Counters
from sandbox.mybmw_faults import Fault, FaultRules, Subject, status_fault
from sandbox.mybmw_tokens import TokenStore
from sandbox.mybmw_wire import Call, not_found


@dataclass(slots=True)
class Settings:
    """What ``POST /_sandbox/settings`` can change."""

    latency_ms: float = 0.0
    """Added to every request."""
    expires_in_s: int = 3600
    """How long access tokens live that are given out from now on."""
    event_step_s: float = 2.0
    """How long a command stays in each stage; 0: each poll advances it."""
    live_times: bool = True
    """Cars have reported just now; else when they were recorded."""
    slow_ms: float = 3000.0
    """How late slow@example.com is answered."""


@dataclass(slots=True)
class PendingLogin:
    """A login between its steps; ``claims`` must be the same in each."""

    username: str
    claims: dict[str, str]
    region: str


@dataclass(slots=True)
class Logins:
    """Rest of world and North America: logins under way, by the code that continues them."""

    captchas_seen: set[str] = field(default_factory=set)
    authorizations: dict[str, PendingLogin] = field(default_factory=dict)
    codes: dict[str, PendingLogin] = field(default_factory=dict)


@dataclass(slots=True)
class SliderCaptcha:
    """China: a puzzle, its solution and whether it was solved."""

    mobile: str
    position: float
    solved: bool = False


@dataclass(slots=True)
class World:
    """All mutable state. Handlers are given it and keep nothing."""

    settings: Settings
    clock: ShiftedClock
    counters: Counters
    commands: CommandLog
    accounts: Accounts = field(default_factory=Accounts)
    tokens: TokenStore = field(default_factory=TokenStore)
    logins: Logins = field(default_factory=Logins)
    captchas: dict[str, SliderCaptcha] = field(default_factory=dict)
    faults: FaultRules = field(default_factory=FaultRules)

    def settle(self) -> None:
        """Let cars execute what is due by now."""
        self.commands.settle(self.clock.monotonic(), self.settings.event_step_s)

    def car(self, call: Call) -> Car:
        """The car that the request is about. Raises Refusal (404) where it is not the account's."""
        car = self.accounts.car(call.username, call.vin)
        if car is None:
            raise not_found("There is no such vehicle.")
        return car

    def fault(self, subject: Subject, *, is_api: bool) -> Fault | None:
        """What goes wrong with this request: by a rule, else because its account always fails."""
        fault = self.faults.pick(subject)
        if fault is None and subject.account in _ALWAYS:
            fault = _ALWAYS[subject.account](self.settings, is_api)
        if fault is not None:
            self.counters.faults_injected[fault.kind] += 1
        return fault


_ALWAYS: dict[str | None, Callable[[Settings, bool], Fault | None]] = {
    "blocked@example.com": lambda _settings, _is_api: status_fault(489),
    "down@example.com": lambda _settings, _is_api: status_fault(503),
    "quota@example.com": lambda _settings, is_api: status_fault(403) if is_api else None,
    "slow@example.com": lambda settings, _is_api: Fault("slow", perform=True, delay_ms=settings.slow_ms),
}
