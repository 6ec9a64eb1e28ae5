"""A Cloud Run service's traffic, through ``gcloud``: the same tool and the same identity as deploy.sh."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

CANARY_TAG = "canary"
PREVIOUS_TAG = "previous"


class GcloudFailed(Exception):
    """It ended with another status than 0, or not in time; the message holds its last words."""


@dataclass(frozen=True, slots=True)
class ServiceState:
    """Who serves what."""

    url: str
    percents: Mapping[str, int]
    """By revision; only those that get traffic."""
    tags: Mapping[str, str]
    """Revision by tag."""
    tag_urls: Mapping[str, str]


class Gcloud:
    """Runs gcloud."""

    def __init__(self, environ: Mapping[str, str] = os.environ, timeout_s: float = 300.0) -> None:
        """``environ`` is what gcloud sees, and where it is found (``PATH``)."""
        self.environ = environ
        self._timeout_s = timeout_s
        self.pass_fds: tuple[int, ...] = ()
        """Kept open by each gcloud that runs, so that others can tell when the last one has ended."""

    def run(self, *words: str) -> str:
        """What it prints. Raises GcloudFailed."""
        try:
            # In a session of its own: Ctrl-C must not cut a change of traffic in two.
            ran = subprocess.run(
                ["gcloud", *words],
                capture_output=True,
                text=True,
                check=False,
                timeout=self._timeout_s,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=self.pass_fds,
                env=self.environ,
            )
        except (OSError, subprocess.TimeoutExpired) as broken:
            raise GcloudFailed(f"gcloud {' '.join(words[:3])}: {type(broken).__name__}") from broken
        if ran.returncode:
            raise GcloudFailed(f"gcloud {' '.join(words[:3])}: {ran.stderr.strip()[-500:]}")
        return ran.stdout.strip()


@dataclass(frozen=True, slots=True)
class Traffic:
    """The traffic of one service. Everything may raise GcloudFailed."""

    gcloud: Gcloud = field(repr=False)
    project: str
    region: str
    service: str

    def read(self) -> ServiceState:
        """How it is now."""
        text = self.gcloud.run("run", "services", "describe", self.service, *self._where(), "--format=json")
        try:
            return _state(json.loads(text)["status"])
        except (ValueError, KeyError, TypeError) as strange:
            raise GcloudFailed(f"gcloud described {self.service} in a way that is not understood") from strange

    def split(self, percents: Mapping[str, int]) -> None:
        """Give each revision its share; all others get nothing."""
        shares = ",".join(f"{revision}={percent}" for revision, percent in percents.items())
        self.gcloud.run(*self._update("--to-revisions", shares))

    def back_to(self, revision: str) -> None:
        """All to one revision, and no revision left that a later ``promote`` could take for a good one."""
        self.gcloud.run(*self.back_command(revision))

    def back_command(self, revision: str) -> Sequence[str]:
        """The words of :meth:`back_to`, for people."""
        return self._update("--to-revisions", f"{revision}=100", "--remove-tags", CANARY_TAG)

    def _update(self, *words: str) -> Sequence[str]:
        return ("run", "services", "update-traffic", self.service, *self._where(), *words, "--quiet")

    def _where(self) -> tuple[str, ...]:
        return ("--project", self.project, "--region", self.region)


def _state(status: Mapping[str, Any]) -> ServiceState:
    percents: dict[str, int] = {}
    tags: dict[str, str] = {}
    urls: dict[str, str] = {}
    for target in status["traffic"]:
        revision = target["revisionName"]
        if target.get("percent"):
            percents[revision] = percents.get(revision, 0) + target["percent"]
        if target.get("tag"):
            tags[target["tag"]], urls[target["tag"]] = revision, target["url"]
    return ServiceState(status["url"], percents, tags, urls)
