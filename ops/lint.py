"""``python -m ops.lint``: everything that is neither Python nor prose, through its linter, without a network.

Looks at what git has or would add. The tools come with ``.venv``; one that is missing is a failure, and so is a check
that finds nothing to look at: neither is skipped.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ops.console import Style

ROOT = Path(__file__).resolve().parent.parent
TOOLS = Path(sys.executable).parent
TIMEOUT_S = 60.0
_SHELLS = ("sh", "bash", "dash")
_WORKFLOWS = ".github/workflows/"


@dataclass(frozen=True)
class Check:
    """One linter over some files: ``command`` is the tool's name and what stands before the files.

    ``in_copy``: run in a copy that holds these files and nothing else, for a tool that takes a whole directory.
    """

    name: str
    command: tuple[str, ...]
    files: tuple[str, ...]
    in_copy: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a check said; ``problem`` is empty where there is none."""

    check: Check
    problem: str
    took_s: float


def checks(files: Sequence[str], first_line: Callable[[str], str], tools: Path = TOOLS) -> list[Check]:
    """What is to be run over ``files``, paths from the root; ``first_line`` reads one's first line."""
    workflows = tuple(name for name in files if name.startswith(_WORKFLOWS) and name.endswith((".yml", ".yaml")))
    dependabot = tuple(name for name in files if name == ".github/dependabot.yml")
    python = tuple(name for name in files if name.endswith(".py") and not name.startswith(("tests/", "bench/")))
    actionlint = ("actionlint", "-no-color", "-shellcheck", str(tools / "shellcheck"), "-pyflakes", "")
    return [
        Check("workflows", actionlint, workflows),
        Check(
            "security of workflows",
            ("zizmor", "--offline", "-q", "--persona", "pedantic", "--strict-collection"),
            (*workflows, *dependabot),
        ),
        _schema("workflows", "github-workflows", workflows),
        _schema("dependabot", "dependabot", dependabot),
        _schema("compose", "compose-spec", tuple(name for name in files if name == "compose.yaml")),
        _schema("issue forms", "github-issue-forms", tuple(_issue_forms(files))),
        Check("Dockerfiles", ("hadolint", "--no-color"), tuple(name for name in files if _is_dockerfile(name))),
        Check("shell scripts", ("shellcheck",), tuple(name for name in files if _is_script(name, first_line))),
        # Without what ruff's rules S hold too, where each exception has its reason: low severity, and B108 (S108).
        Check("bandit", ("bandit", "-q", "-ll", "--skip", "B108"), python),
        Check(
            "secrets", ("gitleaks", "dir", "--no-banner", "--no-color", "--redact", "-v"), tuple(files), in_copy=True
        ),
    ]


def _schema(name: str, schema: str, files: tuple[str, ...]) -> Check:
    return Check(f"schema of {name}", ("check-jsonschema", "--builtin-schema", f"vendor.{schema}"), files)


def _issue_forms(files: Iterable[str]) -> Iterable[str]:
    folder = ".github/ISSUE_TEMPLATE/"
    return (name for name in files if name.startswith(folder) and not name.endswith("/config.yml"))


def _is_dockerfile(name: str) -> bool:
    return PurePosixPath(name).name == "Dockerfile" or name.endswith(".Dockerfile")


def _is_script(name: str, first_line: Callable[[str], str]) -> bool:
    if name.endswith(".sh"):
        return True
    if PurePosixPath(name).suffix:
        return False
    return any(PurePosixPath(word).name in _SHELLS for word in _interpreter(first_line(name)))


def _interpreter(line: str) -> list[str]:
    return line.removeprefix("#!").split() if line.startswith("#!") else []


def run(check: Check, root: Path, tools: Path = TOOLS, timeout_s: float = TIMEOUT_S) -> Outcome:
    """Run one check in ``root``."""
    began_s = time.monotonic()
    problem = _problem(check, root, tools, timeout_s)
    return Outcome(check, problem, time.monotonic() - began_s)


def _problem(check: Check, root: Path, tools: Path, timeout_s: float) -> str:
    tool = tools / check.command[0]
    if not tool.exists():
        return f"{tool.name} is not installed; `make lock` and `make check` put it into .venv"
    if not check.files:
        return "found nothing to look at"
    with tempfile.TemporaryDirectory(prefix="draiv-lint-") as folder:
        command, cwd = [str(tool), *check.command[1:], *check.files], root
        if check.in_copy:
            command, cwd = [str(tool), *check.command[1:], "."], Path(folder)
            _copy(check.files, root, cwd)
        try:
            ran = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            return f"did not end within {timeout_s:g} s"
    return (ran.stdout + ran.stderr).strip() or f"exit status {ran.returncode}" if ran.returncode else ""


def _copy(files: Iterable[str], source: Path, target: Path) -> None:
    for name in files:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)


def files_of(root: Path) -> list[str]:
    """What git has in ``root`` or would add; raises CalledProcessError outside a checkout."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    return sorted({name for name in listed.split("\0") if name and (root / name).is_file()})


def _first_line(path: Path) -> str:
    with path.open("rb") as file:
        return file.readline(100).decode(errors="replace").rstrip("\n")


def lint(root: Path, tools: Path = TOOLS) -> list[Outcome]:
    """Run every check of ``root``, side by side."""
    wanted = checks(files_of(root), lambda name: _first_line(root / name), tools)
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda check: run(check, root, tools), wanted))


def main(argv: list[str] | None = None, tools: Path = TOOLS) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="ops.lint", description=__doc__)
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout to look at")
    style, failed = Style.of_stdout(), 0
    for outcome in lint(parser.parse_args(argv).root, tools):
        tool, found = outcome.check.command[0], f"{len(outcome.check.files)} files, {outcome.took_s:.1f} s"
        if outcome.problem:
            failed += 1
            print(f"{style.bad('FAILED')} {outcome.check.name} ({tool}, {found})\n{outcome.problem}\n")
        else:
            print(f"{style.good('ok')} {outcome.check.name} ({tool}, {found})")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
