"""State machines that walk until they have taken a number of steps together."""

import itertools
from typing import ClassVar

from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test


class CountingMachine(RuleBasedStateMachine):
    """One whose subclasses count their own steps, of all walks together."""

    steps: ClassVar[int] = 0


def take_steps(machine: type[CountingMachine], count: int) -> None:
    """Walk until ``count`` steps are taken, other ways in each round.

    A second call goes the same ways, unless the profile looks for new ones.
    """
    machine.steps = 0
    for round_number in itertools.count():
        missing = count - machine.steps
        if missing <= 0:
            return
        run_state_machine_as_test(
            seed(round_number)(machine) if settings().derandomize else machine,
            settings=settings(
                max_examples=max(missing // 50, 1),
                stateful_step_count=50,
                database=None,
                derandomize=False,
                suppress_health_check=list(HealthCheck),
            ),
        )
