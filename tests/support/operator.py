"""Somebody who deploys: deploy.sh in a real checkout, against the simulated gcloud."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sandbox.gcloud_install import Installed

ROOT = Path(__file__).parents[2]
FOLDERS = ("common", "functions", "ops", "sandbox")
FILES = ("deploy.sh", "main.py", "requirements.txt", "requirements-sandbox.txt", "Dockerfile", ".gitignore")
TOOLS = ("bash", "cat", "dirname", "git", "grep", "mkdir", "mktemp", "rm", "sed", "sleep", "sort", "tar", "tr")
READS = re.compile(r"(describe|list|get-iam-policy|get-value|print-)")
SERVICE = "draiv-bmw-staging"
KMS_KEY = "projects/p1/locations/europe-west1/keyRings/draiv/cryptoKeys/draiv"
EVERYTHING = ("NETWORK=net", "SUBNET=sub", f"SET_KMS_KEY={KMS_KEY}", "INVOKERS=user:a@example.com")
"""What staging may say and does not."""
EMPTY: dict[str, Any] = {"apis": []}


class Checkout:
    """A git checkout, and only the tools that deploy.sh may need: never a gcloud of this machine's own."""

    def __init__(self, root: Path) -> None:
        self.root = root / "checkout"
        self.tools = root / "tools"
        self.tools.mkdir(parents=True)
        for tool in TOOLS:
            (self.tools / tool).symlink_to(str(shutil.which(tool)))
        for folder in FOLDERS:
            shutil.copytree(ROOT / folder, self.root / folder, ignore=shutil.ignore_patterns("__pycache__"))
        for file in FILES:
            shutil.copy(ROOT / file, self.root)
        self.git("init", "-q")
        self.git("add", ".")
        self.commit()

    def commit(self) -> None:
        self.git("-c", "user.name=n", "-c", "user.email=n@example.com", "commit", "-qm", "some")

    @contextmanager
    def saying(self, *lines: str) -> Iterator[None]:
        """With a commit in which staging's file says so too, or says it otherwise."""
        file = self.root / "ops/environments/staging.env"
        names = tuple(f"{line.partition('=')[0]}=" for line in lines)
        kept = [line for line in file.read_text().splitlines() if not line.startswith(names)]
        file.write_text("\n".join([*kept, *lines]) + "\n")
        self.git("add", ".")
        self.commit()
        try:
            yield
        finally:
            self.git("reset", "-q", "--hard", "HEAD~")

    def git(self, *words: str) -> str:
        return subprocess.run(["git", *words], cwd=self.root, check=True, capture_output=True, text=True).stdout.strip()


class Operator:
    """Somebody at a terminal in the checkout, with a project."""

    def __init__(self, checkout: Checkout, gcloud: Installed | None) -> None:
        self.checkout = checkout
        self.gcloud = gcloud

    def run(self, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        clean = {"PATH": str(self.checkout.tools), "HOME": str(self.checkout.root), "PYTHON": sys.executable}
        return subprocess.run(
            ["./deploy.sh", *words],
            cwd=self.checkout.root,
            env={**(self.gcloud.environ(clean) if self.gcloud else clean), **environ},
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def do(self, *words: str) -> str:
        """Run what must succeed; what it says."""
        ran = self.run(*words)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    @property
    def project(self) -> Installed:
        assert self.gcloud is not None
        return self.gcloud

    def told(self) -> list[list[str]]:
        """The calls that may have changed something."""
        return [call for call in self.project.calls() if not READS.search(" ".join(call[:4]))]

    def deployed(self) -> list[str]:
        """The words of the last deployment."""
        return [call for call in self.told() if call[:2] == ["run", "deploy"]][-1]

    def traffic(self, service: str = SERVICE) -> dict[str, int]:
        """Percent by the number of the revision, counted from 1; a service that follows the latest says so."""
        found = self.project.world()["services"][service]["percents"]
        return {re.sub(r".*-0+(\d+)-sbx", r"\1", name): percent for name, percent in found.items()}


def following(words: list[str], option: str) -> str:
    return words[words.index(option) + 1]


def settings_of(words: list[str]) -> dict[str, str]:
    text = following(words, "--set-env-vars")
    assert text.startswith("^|^")
    return dict(pair.split("=", 1) for pair in text[3:].split("|"))


def printed_commands(text: str) -> list[list[str]]:
    """The commands, as somebody would paste them; those that go through a pipe are left out."""
    joined = text.replace("\\\n", " ")
    lines = [line for line in joined.splitlines() if line.startswith("  ") and not line.endswith(" |")]
    return [shlex.split(line) for line in lines if "--data-file=-" not in line]


def gcloud(environ: Mapping[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """Run whichever gcloud is on the path."""
    return subprocess.run(
        ["gcloud", *words], env={"PATH": os.environ["PATH"], **environ}, capture_output=True, text=True, check=False
    )
