"""Puts the simulated gcloud on a path of programs, for those who start processes that call ``gcloud``."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sandbox.gcloud_world import World

_ROOT = Path(__file__).resolve().parent.parent
_SCRIPT = """#!/bin/sh
PYTHONPATH={root} SANDBOX_GCLOUD={state} exec {python} -S -m sandbox.gcloud "$@"
"""


class Installed:
    """A ``gcloud`` in a folder of its own, and the project behind it."""

    def __init__(self, folder: Path, world: Mapping[str, Any]) -> None:
        self.bin = folder / "bin"
        self.state = folder / "project.json"
        self.bin.mkdir(parents=True)
        self.state.write_text(json.dumps(world), encoding="utf-8")
        script = self.bin / "gcloud"
        script.write_text(_SCRIPT.format(root=_ROOT, state=self.state, python=sys.executable), encoding="utf-8")
        script.chmod(0o755)

    def environ(self, environ: Mapping[str, str]) -> dict[str, str]:
        """``environ`` with this gcloud before any other."""
        return {**environ, "PATH": f"{self.bin}:{environ.get('PATH', '')}"}

    def world(self) -> World:
        """The project as it is now."""
        found: World = json.loads(self.state.read_text(encoding="utf-8"))
        return found

    def change(self, **sections: Any) -> None:  # noqa: ANN401 - any JSON
        """Replace sections of the project by hand, while no gcloud runs."""
        self.state.write_text(json.dumps({**self.world(), **sections}), encoding="utf-8")

    def calls(self) -> list[list[str]]:
        """The words of every call so far."""
        told = self.state.with_name(f"{self.state.name}.calls")
        return [json.loads(line) for line in told.read_text(encoding="utf-8").splitlines()] if told.exists() else []
