"""A simulated ``gcloud``: ``python -m sandbox.gcloud WORD...``, with its project in the file ``$SANDBOX_GCLOUD``.

It knows the commands that deploy.sh and ops/canary use, with the real one's flags, exit statuses, error texts in short
and shapes of output; anything else is refused as the real one refuses it. What it was told is appended, one JSON array
a line, to ``$SANDBOX_GCLOUD.calls``. ``fail`` in the project, a list of ``{"match", "times", "status"}``, makes
commands that contain ``match`` fail. ``hold``, ``{"match", "here", "go_on"}``, names two FIFOs: such a
command says by the first that it has come, and waits for the second. Where the project names ``apis``, commands of
others are refused; ``lag`` says how many are refused still after an API was enabled.
"""

import json
import os
import sys
from pathlib import Path

from sandbox.gcloud_jobs import COMMANDS as JOB_COMMANDS
from sandbox.gcloud_output import shown
from sandbox.gcloud_project import COMMANDS as PROJECT_COMMANDS
from sandbox.gcloud_project import check_api
from sandbox.gcloud_run import COMMANDS as RUN_COMMANDS
from sandbox.gcloud_words import Commands, Failed, Usage, parse
from sandbox.gcloud_world import World, opened

COMMANDS: Commands = {**PROJECT_COMMANDS, **RUN_COMMANDS, **JOB_COMMANDS}


def main(argv: list[str], state: Path) -> int:
    """Returns the exit status: 0, 1 where the platform refuses, 2 where the command line makes no sense."""
    _hold(state, argv)
    with opened(state) as world:
        with state.with_name(f"{state.name}.calls").open("a", encoding="utf-8") as calls:
            calls.write(json.dumps(argv) + "\n")
        try:
            strike(world, argv)
            asked = parse(argv, COMMANDS)
            check_api(world, argv)
            print(shown(asked.work(world, asked), asked.flags), end="")
        except Usage as usage:
            print(f"ERROR: (gcloud) {usage}", file=sys.stderr)
            return 2
        except Failed as failed:
            print(f"ERROR: (gcloud) {failed}", file=sys.stderr)
            return failed.status
    return 0


def _hold(state: Path, argv: list[str]) -> None:
    rule = json.loads(state.read_text(encoding="utf-8")).get("hold")
    if rule is not None and rule["match"] in " ".join(argv):
        Path(rule["here"]).write_text("")
        Path(rule["go_on"]).read_text()


def strike(world: World, argv: list[str]) -> None:
    """Raises Failed where a rule says so."""
    for rule in world.setdefault("fail", []):
        if rule["match"] in " ".join(argv) and rule.get("times", 1) > 0:
            rule["times"] = rule.get("times", 1) - 1
            raise Failed(rule.get("says", "The service is currently unavailable."), rule.get("status", 1))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Path(os.environ["SANDBOX_GCLOUD"])))
