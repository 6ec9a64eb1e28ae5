"""Commands on their way: PENDING, DELIVERED, then the outcome, by elapsed time or by the number of polls.

With a step of ``event_step_s`` > 0 a car executes two steps after the command was sent, whether anybody polls or
not. With a step of 0 each poll advances one stage, and the third executes.
"""

import uuid
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from sandbox.mybmw_cars import Car
from sandbox.mybmw_counters import Counters
from sandbox.mybmw_effects import EXECUTED, Effect

NEVER_FINAL: Final = "NEVER"
"""The planned outcome of a command that stays DELIVERED for ever."""
_STAGES: Final = ("PENDING", "DELIVERED")


@dataclass(slots=True, eq=False)
class Command:
    """One command that a car was sent."""

    event_id: str
    username: str
    car: Car = field(repr=False)
    service: str
    effect: Effect = field(repr=False)
    sent_at_s: float
    planned: str
    """EXECUTED, or how a fault rule wants it to end; then the effect does not happen."""
    polls: int = 0
    outcome: str | None = None
    """The final status once reached."""


class CommandLog:
    """Every command sent since the last reset. Times are seconds of the sandbox's monotonic clock."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._by_id: dict[str, Command] = {}
        self._open: OrderedDict[str, Command] = OrderedDict()

    def send(
        self, username: str, car: Car, service: str, effect: Effect, now_s: float, planned: str = EXECUTED
    ) -> Command:
        """Accept a command."""
        command = Command(str(uuid.uuid4()), username, car, service, effect, now_s, planned)
        self._by_id[command.event_id] = command
        if planned != NEVER_FINAL:
            self._open[command.event_id] = command
        self._counters.received(username, car.vin, service)
        return command

    def find(self, event_id: str) -> Command | None:
        """The command of that event, whoever sent it."""
        return self._by_id.get(event_id)

    def poll(self, command: Command, now_s: float, step_s: float) -> str:
        """The status to report now; reaching the end executes the command."""
        self.settle(now_s, step_s)
        if command.outcome is not None:
            return command.outcome
        stage = int((now_s - command.sent_at_s) / step_s) if step_s > 0 else command.polls
        command.polls += 1
        if stage >= len(_STAGES) and command.planned != NEVER_FINAL:
            return self.execute(command)
        return _STAGES[min(stage, len(_STAGES) - 1)]

    def settle(self, now_s: float, step_s: float) -> None:
        """Execute, in the order they were sent, the commands whose time has come; with a step of 0 none has."""
        while step_s > 0 and self._open:
            oldest = next(iter(self._open.values()))
            if now_s - oldest.sent_at_s < len(_STAGES) * step_s:
                return
            self.execute(oldest)

    def execute(self, command: Command) -> str:
        """Bring the command to its end now; its final status."""
        if self._open.pop(command.event_id, None) is not None:
            command.outcome = command.effect(command.car) if command.planned == EXECUTED else command.planned
            if command.outcome == EXECUTED:
                self._counters.executed(command.username, command.car.vin, command.service)
        return command.outcome or _STAGES[-1]
