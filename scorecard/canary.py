"""Row 27: a new revision that fails one request in twenty is taken back; one that is well gets all traffic."""

from ops.canary_settings import load
from scorecard.canary_stage import CANARY, FLEET, STABLE, Stage, staged
from scorecard.row import Finding, Row, Say

WINDOWS = 2


def _five_percent_errors(say: Say) -> Finding:
    plan = load("production")

    def requests(percent: int) -> int:
        """So many that each window brings a hundred to the new revision."""
        return 2_000 if percent <= 5 else 400

    with staged(FAULT_EVERY="20") as stage:
        faulty = stage.roll_out(plan, requests, commands_a_window=FLEET // 10, say=say)
        back = stage.percents() == {STABLE: 100}
        faulty_commands, once = stage.commands, _each_once(stage)
    with staged(FAULT_EVERY="20") as stage:
        # Four requests in seven minutes: what shows the errors are the canary's own.
        quiet = stage.roll_out(plan, lambda _percent: 4, say=say)
        quiet_back = stage.percents() == {STABLE: 100}
    with staged() as stage:
        well = stage.roll_out(plan, requests, commands_a_window=FLEET // 10, say=say)
        there = stage.percents() == {CANARY: 100}
        commands, once = faulty_commands + stage.commands, once and _each_once(stage)
    measured = f"5 % errors: {'back' if back else 'NOT BACK'} after {faulty.windows} window(s), "
    measured += f"and {'back' if quiet_back else 'NOT BACK'} after {quiet.windows} where hardly anybody calls; "
    measured += f"healthy: {'100 %' if there else 'NOT THERE'} after {well.windows}; "
    measured += f"{commands} commands meanwhile, each sent {'once' if once else 'NOT ONCE'}"
    passed = all(not one.promoted and one.windows <= WINDOWS for one in (faulty, quiet)) and back and quiet_back
    return Finding(measured, passed and well.promoted and there and once and commands > 0)


def _each_once(stage: Stage) -> bool:
    return stage.sends() == stage.commands and not stage.failed


ROWS = (Row(27, "canary with 5 % errors", "rolled back within 2 windows", _five_percent_errors),)
