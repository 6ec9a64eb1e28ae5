"""What an environment's file says, for the canary. deploy.sh reads the same files."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ops.canary_verdict import Rules

FOLDER = Path(__file__).resolve().parent / "environments"
_LINE = re.compile(r"([A-Z][A-Z0-9_]*)=(.*)")
_MIN_WINDOW_S = 60
"""Cloud Monitoring aligns no finer, and Cloud Run is sampled once a minute."""

_BACK, _BY_PROBES = "rollback", "probes"
"""What may be decided where callers made too few requests to judge by."""


class BadEnvironment(Exception):
    """There is no such environment, or its file is wrong; the message says where."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a new revision gets the traffic."""

    service: str
    region: str
    steps_percent: tuple[int, ...]
    """Ends with 100."""
    window_s: float
    settle_s: float
    """How long after a window its figures are complete."""
    probes_per_s: float
    """Requests to each revision that the canary makes itself."""
    rules: Rules


def read(path: Path) -> dict[str, str]:
    """NAME=value lines as they stand; comments and empty lines aside. Raises BadEnvironment."""
    values: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line)
        if found is None or found[1] in values:
            raise BadEnvironment(f"{path.name}:{number} is no NAME=value, or is there twice")
        values[found[1]] = found[2]
    return values


def load(environment: str, folder: Path = FOLDER, region: str | None = None) -> Plan:
    """The plan of ``environment``. Raises BadEnvironment."""
    known = sorted(path.stem for path in folder.glob("*.env"))
    if environment not in known:
        raise BadEnvironment(f"unknown environment '{environment}': {' or '.join(known)}")
    values = read(folder / f"{environment}.env")
    try:
        plan = _plan(values, region)
    except KeyError as missing:
        raise BadEnvironment(f"{environment}.env does not say {missing.args[0]}") from missing
    except ValueError as bad:
        raise BadEnvironment(f"{environment}.env: {bad}") from bad
    steps = plan.steps_percent
    if sorted(set(steps)) != list(steps) or steps[0] < 1 or steps[-1] != 100:
        raise BadEnvironment(f"{environment}.env: CANARY_STEPS must grow and end with 100")
    if plan.window_s < _MIN_WINDOW_S:
        raise BadEnvironment(f"{environment}.env: CANARY_WINDOW_S must be {_MIN_WINDOW_S} at least")
    if values["CANARY_TOO_FEW"] not in (_BACK, _BY_PROBES):
        raise BadEnvironment(f"{environment}.env: CANARY_TOO_FEW must be {_BACK} or {_BY_PROBES}")
    if not 1 <= plan.rules.windows <= plan.rules.max_windows:
        raise BadEnvironment(f"{environment}.env: CANARY_WINDOWS must be at least 1 and at most CANARY_MAX_WINDOWS")
    return plan


def _plan(values: Mapping[str, str], region: str | None) -> Plan:
    return Plan(
        service=values["SERVICE"],
        region=region or values["REGION"],
        steps_percent=tuple(int(step) for step in values["CANARY_STEPS"].split(",")),
        window_s=float(values["CANARY_WINDOW_S"]),
        settle_s=float(values["CANARY_SETTLE_S"]),
        probes_per_s=float(values["CANARY_PROBES_PER_S"]),
        rules=Rules(
            windows=int(values["CANARY_WINDOWS"]),
            max_windows=int(values["CANARY_MAX_WINDOWS"]),
            min_requests=int(values["CANARY_MIN_REQUESTS"]),
            probes_prove=values["CANARY_TOO_FEW"] == _BY_PROBES,
        ),
    )
