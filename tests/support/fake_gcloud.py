"""The simulated gcloud without a process of its own, and a project whose one service has an old and a new revision."""

from pathlib import Path
from typing import Any

from ops.canary_gcloud import Gcloud, GcloudFailed
from sandbox.gcloud import COMMANDS, strike
from sandbox.gcloud_output import shown
from sandbox.gcloud_words import Failed, Usage, parse
from sandbox.gcloud_world import World, opened

OLD, NEW = "bmw-1", "bmw-2"


class LocalGcloud(Gcloud):
    """Runs the simulated commands in this process."""

    def __init__(self, state: Path) -> None:
        super().__init__()
        self.state = state
        self.calls: list[tuple[str, ...]] = []

    def run(self, *words: str) -> str:
        self.calls.append(words)
        failure: Usage | Failed
        with opened(self.state) as world:
            try:
                strike(world, list(words))
                asked = parse(list(words), COMMANDS)
                return shown(asked.work(world, asked), asked.flags).strip()
            except (Usage, Failed) as failed:
                failure = failed  # raised outside: what the attempt changed is kept
        raise GcloudFailed(str(failure)) from failure


def two_revisions(
    service: str = "bmw", origins: tuple[str, str] = ("http://old", "http://new"), **sections: Any
) -> World:
    """A project in which a new revision waits for traffic."""
    described = {
        "revisions": [{"name": name, "origin": at, "flags": {}} for name, at in zip((OLD, NEW), origins, strict=True)],
        "percents": {OLD: 100},
        "tags": {"canary": NEW, "previous": OLD},
        "labels": {},
        "url": "http://service",
    }
    return {"services": {service: described}, **sections}
