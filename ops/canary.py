"""Gives the revision with the tag ``canary`` all traffic, step by step, or takes everything back.

``python -m ops.canary staging|production [--project ID] [--region REGION]`` after ``./deploy.sh ENV --canary``. Exits
with 0 where the new revision has all traffic; with 1 where it was rolled back; with 2 where there was nothing to do and
nothing was touched; with 3 where the traffic could not be taken back, and prints the command that does it; with 130
where it was interrupted, and rolled back. ``$CANARY_API_KEY`` is a key for its own requests to both revisions.
"""

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from common.clock import SystemClock
from ops import canary_guard, canary_smoke
from ops.canary_entrance import GOOGLE_IAM, Entrance
from ops.canary_gcloud import CANARY_TAG, PREVIOUS_TAG, Gcloud, GcloudFailed, Traffic
from ops.canary_monitoring import GOOGLE, Monitoring
from ops.canary_patience import Interrupted, Patience
from ops.canary_probes import Probes
from ops.canary_question import KEY_VARIABLE, Question
from ops.canary_rollout import Outcome, Refused, Rollout, SplitLeft
from ops.canary_settings import FOLDER, BadEnvironment, Plan, load


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ, folder: Path = FOLDER) -> int:
    """Returns the exit status."""
    asked = _parse(argv)
    question = Question(environ.get(KEY_VARIABLE) or None)
    gcloud = Gcloud({name: value for name, value in environ.items() if name != KEY_VARIABLE})
    try:
        plan = load(asked.environment, folder, asked.region or environ.get("REGION"))
        project = _project(asked.project or environ.get("PROJECT") or gcloud.run("config", "get-value", "project"))
        entrance = Entrance(gcloud, f"draiv-deploy-{asked.environment}@{project}.iam.gserviceaccount.com", asked.iam)
        traffic = Traffic(gcloud, project, plan.region, plan.service)
        outcome = _roll_out(plan, traffic, entrance, asked.monitoring, question)
    except (BadEnvironment, Refused, GcloudFailed) as refused:
        # Whatever fails once traffic may have moved is an outcome and no exception.
        return _end(2, str(refused))
    except SplitLeft as left:
        return _end(3, str(left))
    except Interrupted:
        return _end(130, "interrupted; rolled back")
    return _end(0 if outcome.promoted else 1, f"{'done' if outcome.promoted else 'ROLLED BACK'}: {outcome.reason}")


def _roll_out(plan: Plan, traffic: Traffic, entrance: Entrance, monitoring_url: str, question: Question) -> Outcome:
    if question.key is None:
        _say(f"no {KEY_VARIABLE}: probes can only be refused, and prove nothing where callers make too few requests")
        plan = replace(plan, rules=replace(plan.rules, probes_prove=False))
    with ExitStack() as stack:
        state = traffic.read()
        headers = entrance.headers(state.url)
        probed = {state.tags[tag]: url for tag, url in state.tag_urls.items() if tag in (CANARY_TAG, PREVIOUS_TAG)}
        probes = stack.enter_context(Probes(probed, headers, question))
        patience = stack.enter_context(Patience(probes.send, plan.probes_per_s))
        measure = Monitoring(
            traffic.project,
            plan.region,
            plan.service,
            lambda: traffic.gcloud.run("auth", "print-access-token"),
            question=question,
            base_url=monitoring_url,
            pause=patience.pause,
        )
        rollout = Rollout(
            plan=plan,
            traffic=traffic,
            measure=measure,
            probed=probes.counts,
            smoke=lambda url: canary_smoke.check(url, headers, patience.pause, question),
            guard=lambda revision: canary_guard.start(traffic, revision),
            clock=SystemClock(),
            pause=patience.pause,
            rest=time.sleep,
            say=_say,
        )
        return rollout.run()


def _project(found: str) -> str:
    if not found:
        raise Refused("no project: give --project")
    return found


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ops.canary", description=__doc__)
    parser.add_argument("environment", help="staging or production")
    parser.add_argument("--project", help="Google Cloud project; default: $PROJECT, then gcloud's own")
    parser.add_argument("--region", help="default: $REGION, then the environment's")
    parser.add_argument("--monitoring", default=GOOGLE, metavar="URL", help="another Cloud Monitoring, for a simulator")
    parser.add_argument("--iam", default=GOOGLE_IAM, metavar="URL", help="another IAM credentials API, for a simulator")
    return parser.parse_args(argv)


def _say(text: str) -> None:
    print(f"canary: {text}", flush=True)


def _end(status: int, text: str) -> int:
    print(f"canary: {text}", file=sys.stderr if status else sys.stdout, flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
