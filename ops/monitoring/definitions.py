"""The definitions in this folder, filled in for one project and environment."""

import json
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

FOLDER = Path(__file__).resolve().parent
KINDS = ("metrics", "alerts", "slos")

Definition = dict[str, Any]


def load(kind: str, values: Mapping[str, str]) -> dict[str, Definition]:
    """The files of a folder by name, each ``${NAME}`` replaced by its value.

    ``values`` are ``PROJECT``, ``ENVIRONMENT``, ``SERVICE`` (the Cloud Run service) and ``CHANNEL`` (a notification
    channel's resource name). Raises KeyError for one that is missing.
    """
    return {path.stem: read(path, values) for path in sorted((FOLDER / kind).glob("*.json"))}


def read(path: Path, values: Mapping[str, str]) -> Definition:
    """One file, filled in."""
    filled: Definition = json.loads(Template(path.read_text(encoding="utf-8")).substitute(values))
    return filled
