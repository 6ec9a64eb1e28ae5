"""Tests of deploy.sh against a stand-in for gcloud that writes down what it was told."""

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from common.settings import load

SCRIPT = Path(__file__).parents[2] / "deploy.sh"
GCLOUD = """#!/bin/sh
if [ "$1" = config ]; then echo from-gcloud; exit; fi
for word in "$@"; do printf '%s\\n' "$word"; done >> "$GCLOUD_CALLS"
exit "${GCLOUD_EXIT:-0}"
"""


class Checkout:
    """A git checkout with deploy.sh in it, and a gcloud on the path."""

    def __init__(self, root: Path) -> None:
        self.root = root / "checkout"
        self.calls = root / "calls"
        self.bin = root / "bin"
        self.tools = root / "tools"
        for directory in (self.root, self.bin, self.tools):
            directory.mkdir()
        # Only these, so that a gcloud of this machine's own is never found.
        for tool in ("bash", "cat", "dirname", "git"):
            (self.tools / tool).symlink_to(str(shutil.which(tool)))
        shutil.copy(SCRIPT, self.root)
        (self.bin / "gcloud").write_text(GCLOUD)
        (self.bin / "gcloud").chmod(0o755)
        self.git("init", "-q")
        self.git("add", ".")
        self.git("-c", "user.name=n", "-c", "user.email=n@example.com", "commit", "-qm", "first")

    def git(self, *words: str) -> str:
        return subprocess.run(["git", *words], cwd=self.root, check=True, capture_output=True, text=True).stdout.strip()

    def deploy(self, *words: str, gcloud: bool = True, **environ: str) -> subprocess.CompletedProcess[str]:
        path = f"{self.bin}:{self.tools}" if gcloud else str(self.tools)
        return subprocess.run(
            ["./deploy.sh", *words],
            cwd=self.root,
            env={"PATH": path, "HOME": str(self.root), "GCLOUD_CALLS": str(self.calls), **environ},
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def told(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def following(words: list[str], option: str) -> str:
    return words[words.index(option) + 1]


@pytest.mark.parametrize(
    ("environment", "service", "target"),
    [("staging", "draiv-bmw-staging", "bmw_api_staging"), ("production", "draiv-bmw", "bmw_api")],
)
def test_each_environment_gets_its_own_service_entry_point_account_bucket_and_secret(
    checkout: Checkout, environment: str, service: str, target: str
) -> None:
    assert checkout.deploy(environment, "--project", "p1", "--region", "r1").returncode == 0
    told = checkout.told()
    assert told[:4] == ["run", "deploy", service, "--project"]
    assert following(told, "--project") == "p1"
    assert following(told, "--region") == "r1"
    assert following(told, "--function") == target
    assert following(told, "--service-account") == f"draiv-bmw-{environment}@p1.iam.gserviceaccount.com"
    secrets = [f"LOG_KEY=draiv-log-key-{environment}:1", f"AUDIT_KEY=draiv-audit-key-{environment}:1"]
    assert following(told, "--set-secrets").split(",") == secrets
    settings = dict(pair.split("=", 1) for pair in following(told, "--set-env-vars").split(","))
    assert settings["ENVIRONMENT"] == environment
    assert load(settings).environment == environment
    assert settings["DOCUMENTS_URL"] == f"gs://p1-draiv-{environment}/bmw"


def test_the_service_is_private_and_has_a_thread_for_every_request_it_takes(checkout: Checkout) -> None:
    checkout.deploy("production", "--project", "p1")
    told = checkout.told()
    assert "--no-allow-unauthenticated" in told
    assert "--allow-unauthenticated" not in told
    assert f"THREADS={following(told, '--concurrency')}," in following(told, "--set-env-vars")


def test_a_pinned_version_of_a_secret_is_the_one_that_is_mounted(checkout: Checkout) -> None:
    checkout.deploy("staging", "--project", "p1", LOG_KEY_VERSION="3", AUDIT_KEY_VERSION="4")
    mounted = following(checkout.told(), "--set-secrets")
    assert mounted == "LOG_KEY=draiv-log-key-staging:3,AUDIT_KEY=draiv-audit-key-staging:4"


def test_what_is_deployed_is_labelled_with_its_commit(checkout: Checkout) -> None:
    checkout.deploy("staging", "--project", "p1")
    assert following(checkout.told(), "--labels") == f"commit={checkout.git('rev-parse', '--short=12', 'HEAD')}"


def test_a_dry_run_prints_the_very_command_and_does_nothing(checkout: Checkout) -> None:
    dry = checkout.deploy("staging", "--project", "p1", "--dry-run", gcloud=False)
    assert dry.returncode == 0
    assert checkout.told() == []
    printed = dry.stdout.partition(":\n")[2].partition("Dry run")[0]
    checkout.deploy("staging", "--project", "p1")
    assert shlex.split(printed.replace("\\\n", " ")) == ["gcloud", *checkout.told()]


@pytest.mark.parametrize("change", ["new-file", "deploy.sh"])
def test_a_checkout_with_changes_is_not_deployed(checkout: Checkout, change: str) -> None:
    with (checkout.root / change).open("a") as file:
        file.write("\n# changed\n")
    refused = checkout.deploy("staging", "--project", "p1")
    assert refused.returncode == 1
    assert "not committed" in refused.stderr
    assert checkout.told() == []


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "which environment"),
        (["prod"], "unknown environment 'prod'"),
        (["staging", "production"], "one environment at a time"),
        (["staging", "--force"], "unknown option --force"),
        (["staging", "--project"], "--project needs a value"),
        (["staging", "--region", "--dry-run"], "--region needs a value"),
    ],
)
def test_a_command_line_that_makes_no_sense_changes_nothing(checkout: Checkout, words: list[str], problem: str) -> None:
    refused = checkout.deploy(*words)
    assert refused.returncode == 2
    assert problem in refused.stderr
    assert checkout.told() == []


def test_without_a_project_gclouds_own_is_taken(checkout: Checkout) -> None:
    checkout.deploy("staging")
    assert following(checkout.told(), "--project") == "from-gcloud"


def test_without_gclouds_own_project_one_must_be_given(checkout: Checkout) -> None:
    (checkout.bin / "gcloud").write_text("#!/bin/sh\nexit 1\n")
    refused = checkout.deploy("staging")
    assert refused.returncode == 1
    assert "give --project" in refused.stderr


def test_without_gcloud_and_without_a_project_there_is_nothing_to_say(checkout: Checkout) -> None:
    refused = checkout.deploy("staging", "--dry-run", gcloud=False)
    assert refused.returncode == 1
    assert "give --project" in refused.stderr


def test_a_deployment_that_fails_fails(checkout: Checkout) -> None:
    assert checkout.deploy("staging", "--project", "p1", GCLOUD_EXIT="7").returncode == 7


def test_help_is_help(checkout: Checkout) -> None:
    shown = checkout.deploy("--help")
    assert shown.returncode == 0
    assert shown.stdout.startswith("Usage: ./deploy.sh staging|production")
