"""``python -m ops.monitoring.render --project P --environment production --channel C FOLDER``.

Writes the definitions, filled in, to FOLDER, and prints the commands that install them, in order. Runs none of them.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ops.monitoring.definitions import FOLDER, KINDS, load, read

_API = "https://monitoring.googleapis.com/v3"


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    asked = _parse(argv)
    values = {
        "PROJECT": asked.project,
        "ENVIRONMENT": asked.environment,
        "SERVICE": asked.service or _service(asked.environment),
        "CHANNEL": asked.channel,
    }
    write(asked.folder, values)
    for line in commands(asked.folder, values):
        print(line)
    return 0


def write(folder: Path, values: Mapping[str, str]) -> None:
    """Every definition for Cloud Monitoring, as a file below ``folder``."""
    for kind in KINDS:
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for name, definition in load(kind, values).items():
            (folder / kind / f"{name}.json").write_text(json.dumps(definition, indent=2) + "\n")
    for name in ("dashboard.json", "service.json"):
        (folder / name).write_text(json.dumps(read(FOLDER / name, values), indent=2) + "\n")


def commands(folder: Path, values: Mapping[str, str]) -> Iterator[str]:
    """What installs the files in ``folder``: metrics before what is made of them, SLOs before their alerts."""
    project, environment = values["PROJECT"], values["ENVIRONMENT"]
    flag = f"--project={shlex.quote(project)}"
    for name in load("metrics", values):
        path = shlex.quote(str(folder / "metrics" / f"{name}.json"))
        # An existing metric is updated, so that running all of it again is harmless.
        yield (
            f"gcloud logging metrics update draiv/{name} --config-from-file={path} {flag} || "
            f"gcloud logging metrics create draiv/{name} --config-from-file={path} {flag}"
        )
    services = f"{_API}/projects/{project}/services"
    service = f"draiv-{environment}"
    yield _post(f"{services}?service_id={service}", folder / "service.json")
    for name in load("slos", values):
        yield _post(
            f"{services}/{service}/serviceLevelObjectives?service_level_objective_id={name}",
            folder / "slos" / f"{name}.json",
        )
    for name in load("alerts", values):
        path = shlex.quote(str(folder / "alerts" / f"{name}.json"))
        yield f"gcloud monitoring policies create --policy-from-file={path} {flag}"
    yield f"gcloud monitoring dashboards create --config-from-file={shlex.quote(str(folder / 'dashboard.json'))} {flag}"


def _post(url: str, body: Path) -> str:
    # gcloud has no command for services and their objectives.
    return (
        'curl --fail-with-body -H "Authorization: Bearer $(gcloud auth print-access-token)" '
        f"-H 'Content-Type: application/json' -d @{shlex.quote(str(body))} {shlex.quote(url)}"
    )


def _service(environment: str) -> str:
    settings = (FOLDER.parent / "environments" / f"{environment}.env").read_text(encoding="utf-8")
    return next(line.partition("=")[2] for line in settings.splitlines() if line.startswith("SERVICE="))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ops.monitoring.render", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--project", required=True)
    parser.add_argument("--environment", choices=("staging", "production"), required=True)
    parser.add_argument("--service", help="Cloud Run service; default: what ops/environments names")
    parser.add_argument("--channel", required=True, help="projects/P/notificationChannels/ID")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
