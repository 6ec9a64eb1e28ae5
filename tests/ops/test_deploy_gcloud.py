"""Tests of deploy.sh's commands, and of those that its pages show, against the real gcloud where there is one."""

import json
import os
import re
import shlex
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ops import lifecycle
from tests.support.operator import EVERYTHING, ROOT, SERVICE, Operator, gcloud

needs_gcloud = pytest.mark.skipif(shutil.which("gcloud") is None, reason="there is no real gcloud here to ask")


@needs_gcloud
@pytest.mark.timeout(300)  # some seventy simulated commands, and then as many for the real one
def test_the_real_gcloud_understands_every_command(made: Operator, operator: Operator, tmp_path: Path) -> None:
    with made.checkout.saying(*EVERYTHING):
        operator.do("staging", "--all")
        operator.do("staging", "--canary", "10")
        operator.do("status", "staging")
        operator.do("rollback", "staging")
        operator.do("rollback", "staging", f"{SERVICE}-00002-sbx")
        operator.do("bootstrap", "staging")
        exported = operator.do("settings", "staging")
    calls = {shlex.join(["gcloud", *call]) for call in made.project.calls() + operator.project.calls()}
    calls |= set(re.findall(r"\$\((gcloud [^)]*)\)", exported))
    assert len(calls) > 60
    assert problems(calls, tmp_path) == []


def problems(calls: set[str], folder: Path) -> list[str]:
    """What the real gcloud's parser has against command lines."""
    asked = folder / "commands.json"
    # A configuration of its own: nothing of this machine's accounts is read.
    alone = {"CLOUDSDK_CONFIG": str(folder / "config"), "CLOUDSDK_CORE_CHECK_GCE_METADATA": "false"}

    def lint(commands: list[str]) -> list[tuple[str, str]]:
        asked.write_text(json.dumps([{"command_string": command} for command in commands]))
        checked = subprocess.run(
            ["gcloud", "meta", "lint-gcloud-commands", f"--commands-file={asked}"],
            env={**os.environ, **alone, "CLOUDSDK_CORE_DISABLE_PROMPTS": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        verdicts = json.loads(checked.stdout)
        assert len(verdicts) == len(commands)
        return [
            (command, verdict["error_message"])
            for command, verdict in zip(commands, verdicts, strict=True)
            if not verdict["success"]
        ]

    refused = lint(sorted(calls))
    # A gcloud of 2025 has --max in its beta only.
    newer = [command for command, says in refused if "--max flag is available in one or more alternate" in says]
    in_beta = lint([command.replace("gcloud ", "gcloud beta ", 1) for command in newer]) if newer else []
    return [says for command, says in refused if command not in newer] + [says for _, says in in_beta]


@needs_gcloud
@pytest.mark.parametrize("page", ["ci.md", "runbooks/latency.md", "runbooks/key-rotation.md", "deployment.md"])
def test_the_real_gcloud_understands_every_command_of_the_pages_about_deploying(page: str, tmp_path: Path) -> None:
    shown = "\n".join(
        re.findall(r"^ *```sh\n(.*?)^ *```", (ROOT / "docs" / page).read_text(), re.MULTILINE | re.DOTALL)
    )
    commands = set(
        re.findall(
            r"(?:^ *|\$\(|\| )(gcloud (?:[^\n|&)\"']|\"[^\"]*\"|'[^']*')*)", shown.replace("\\\n", " "), re.MULTILINE
        )
    )
    assert commands
    assert problems({re.sub(r"\"?\$\{?\w+\}?\"?", "x", command.strip()) for command in commands}, tmp_path) == []


class OneBucket(BaseHTTPRequestHandler):
    """Of Cloud Storage's API: one bucket, which is described and changed."""

    bucket: ClassVar[dict[str, Any]]

    def do_GET(self) -> None:
        self.answer()

    def do_PATCH(self) -> None:
        self.bucket.update(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.answer()

    def answer(self) -> None:
        body = json.dumps(self.bucket).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class calls it so
        pass


@needs_gcloud
def test_the_real_gcloud_sets_the_rules_and_describes_them_as_doctor_compares_them(
    made: Operator, tmp_path: Path
) -> None:
    OneBucket.bucket = {"kind": "storage#bucket", "name": "b"}
    with ThreadingHTTPServer(("127.0.0.1", 0), OneBucket) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            alone = {
                "CLOUDSDK_CONFIG": str(tmp_path / "config"),
                "CLOUDSDK_CORE_CHECK_GCE_METADATA": "false",
                "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
                "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
                "CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE": f"http://127.0.0.1:{server.server_port}/storage/v1/",
            }
            rules = ROOT / "ops/deploy/lifecycle.json"
            updated = gcloud(alone, "storage", "buckets", "update", "gs://b", "--lifecycle-file", str(rules))
            described = gcloud(alone, "storage", "buckets", "describe", "gs://b", "--format", "json")
        finally:
            server.shutdown()
            serving.join()
    assert (updated.returncode, described.returncode) == (0, 0), updated.stderr + described.stderr
    assert OneBucket.bucket["lifecycle"] == json.loads(rules.read_text())
    real = json.loads(described.stdout)
    assert real["lifecycle_config"] == made.project.world()["buckets"]["p1-draiv-staging"]["lifecycle_config"]
    assert lifecycle.differences(lifecycle.of_documents(), real) == []
