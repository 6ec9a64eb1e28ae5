"""The definitions in this folder, filled in for one project and environment."""

import json
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

from ops.canary_settings import FOLDER as ENVIRONMENTS
from ops.canary_settings import read as read_environment

FOLDER = Path(__file__).resolve().parent

Definition = dict[str, Any]


def values_of(project: str, environment: str, channel: str) -> dict[str, str]:
    """What the files' ``${NAME}`` stand for. ``channel`` is a notification channel's resource name."""
    settings = read_environment(ENVIRONMENTS / f"{environment}.env")
    named = {name: settings[name] for name in ("SERVICE", "HEALTH_SERVICE", "STREAM_SERVICE", "REGION")}
    return {"PROJECT": project, "ENVIRONMENT": environment, "CHANNEL": channel, **named}


def load(kind: str, values: Mapping[str, str]) -> dict[str, Definition]:
    """The files of a folder by name, each ``${NAME}`` replaced by its value.

    ``values`` as of :func:`values_of`. Raises KeyError for one that is missing.
    """
    return {path.stem: read(path, values) for path in sorted((FOLDER / kind).glob("*.json"))}


def read(path: Path, values: Mapping[str, str]) -> Definition:
    """One file, filled in."""
    filled: Definition = json.loads(Template(path.read_text(encoding="utf-8")).substitute(values))
    return filled
