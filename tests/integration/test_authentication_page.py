"""The pages on access: docs/authentication.md is run as it is written, and SECURITY.md names tests that exist."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from common.callers import Scope
from common.clock import SystemClock
from common.settings import Settings
from functions.limits import LimitPolicy
from ops.processes import free_port
from sandbox.issuer import AUDIENCE, SimulatedIssuer

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/authentication.md").read_text()
LINES = "".join(re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)).splitlines()
SCRIPT = "\n".join(sorted(LINES, key=lambda line: not line.startswith("export ")))
"""All settings first, so that one server serves the whole page."""


@pytest.mark.timeout(120)  # ten processes, one after the other
def test_every_command_of_the_page_does_what_the_page_says(tmp_path: Path) -> None:
    with SimulatedIssuer(SystemClock()) as issuer:
        script = SCRIPT.replace("https://accounts.google.com", issuer.origin).replace("my-client-id", AUDIENCE)
        script = script.replace("8080", str(free_port()))
        for name in set(re.findall(r"[\w-]+\.(?:key|log|db)\b", script)):
            script = re.sub(
                rf"(?<![\w/-]){re.escape(name)}\b|(?<=///){re.escape(name)}\b", f"{tmp_path}/{name}", script
            )
        # Each request ends its line, so that the replies can be told apart.
        script = re.sub(r"^(curl .*)$", r"\1; echo", script, flags=re.MULTILINE)
        done = subprocess.run(
            ["bash", "-eu", "-o", "pipefail", "-c", f"trap 'kill $(jobs -p)' EXIT\n{script}"],
            cwd=ROOT,
            env={"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "TOKEN": issuer.token()},
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    replies = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    outcomes = [reply["error"]["code"] if "error" in reply else reply.get("action", "health") for reply in replies]
    refused = "CALLER_UNAUTHENTICATED"
    by_key = ["health", "actions", refused, "actions", "actions"]
    assert outcomes == [*by_key, "accounts", refused, "actions"], done.stdout
    assert 'RateLimit-Policy: "caller-service";q=120;w=60' in done.stdout
    assert "my app" in done.stdout
    assert "is revoked" in done.stderr


def test_the_page_names_every_scope_and_every_limit_with_its_default() -> None:
    assert {scope.value for scope in Scope} == set(re.findall(r"^\| `([a-z]+)` \|", PAGE, re.MULTILINE)) - {
        "oidc",
        "open",
        "reason",
    }
    said = dict(re.findall(r"^\| `(LIMIT_\w+)` \| `([^`]+)` \|", PAGE, re.MULTILINE))
    fields = Settings.model_fields
    assert said == {name.upper(): fields[name].default for name in fields if name.startswith("limit_")}
    assert len(said) == len(LimitPolicy.__dataclass_fields__)


def test_every_reason_for_a_429_is_explained() -> None:
    sources = "".join((ROOT / "functions" / name).read_text() for name in ("limits.py", "login_guard.py"))
    reasons = set(re.findall(r'"((?:too_many|protects|login_under)_\w+)"', sources))
    explained = re.findall(r"^\| `(\w+)` \|", PAGE[PAGE.index("| `reason` |") :], re.MULTILINE)
    assert reasons == set(explained) - {"reason"}


def test_every_test_that_the_security_page_names_is_in_the_file_that_it_links() -> None:
    named = re.findall(r"\]\((tests/[\w/]+\.py)\)|`(test_\w+)`", (ROOT / "SECURITY.md").read_text())
    linked, found = "", 0
    for path, test in named:
        linked = (ROOT / path).read_text() if path else linked
        assert path or f"def {test}(" in linked, test
        found += bool(test)
    assert found > 10
