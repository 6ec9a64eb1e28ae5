"""``python -m ops.release [--dry-run]``: tags this commit with its version, and with what the changelog says of it.

Before: raise ``VERSION`` in common/settings.py and ``version`` in pyproject.toml, turn the changelog's ``[Unreleased]``
into ``[X.Y.Z] - YYYY-MM-DD``, commit, merge. Prints the notes. Pushing the tag is left to whoever releases.
"""

import argparse
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_VERSION = re.compile(r'^VERSION = "([^"]+)"$', re.MULTILINE)
_SEMANTIC = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?")
_BRANCH = "main"


class NotReady(Exception):
    """This commit cannot be released; the message says why."""


def version_of(root: Path) -> str:
    """The version that the code and the project's file agree on. Raises NotReady."""
    found = _VERSION.search((root / "common" / "settings.py").read_text(encoding="utf-8"))
    declared = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    if found is None or found[1] != declared:
        raise NotReady(f"common/settings.py says {found[1] if found else 'no version'}, pyproject.toml {declared}")
    if _SEMANTIC.fullmatch(declared) is None:
        raise NotReady(f"{declared} is no semantic version")
    return str(declared)


def notes_of(changelog: str, version: str) -> str:
    """What the changelog says of a version, without its heading. Raises NotReady."""
    heading = re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d{{2}}-\d{{2}}$", changelog, re.MULTILINE)
    if heading is None:
        raise NotReady(f"CHANGELOG.md has no `## [{version}] - YYYY-MM-DD`")
    notes = re.split(r"^## |^\[[^\]]+\]: ", changelog[heading.end() :], maxsplit=1, flags=re.MULTILINE)[0].strip()
    if not notes:
        raise NotReady(f"CHANGELOG.md says nothing of {version}")
    return notes


def release(root: Path, *, dry_run: bool = False) -> tuple[str, str]:
    """Tag HEAD; the tag and its notes. Raises NotReady, and then nothing was changed."""
    version = version_of(root)
    notes = notes_of((root / "CHANGELOG.md").read_text(encoding="utf-8"), version)
    tag = f"v{version}"
    if _git(root, "status", "--porcelain"):
        raise NotReady("the checkout has changes that are not committed")
    branch = _git(root, "rev-parse", "--abbrev-ref", "HEAD")
    if branch != _BRANCH:
        raise NotReady(f"releases are made on {_BRANCH}, and this is {branch}")
    if _git(root, "tag", "--list", tag):
        raise NotReady(f"{tag} is there already")
    if not dry_run:
        # Verbatim: lines of the notes that begin with # are headings and no comments.
        _git(root, "tag", "--annotate", "--cleanup=verbatim", "--message", f"{tag}\n\n{notes}\n", tag)
    return tag, notes


def _git(root: Path, *words: str) -> str:
    ran = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise NotReady(f"git {words[0]}: {ran.stderr.strip()}")
    return ran.stdout.strip()


def main(argv: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="ops.release", description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="check and print the notes, and make no tag")
    try:
        tag, notes = release(root, dry_run=(asked := parser.parse_args(argv)).dry_run)
    except NotReady as why:
        print(f"not released: {why}", file=sys.stderr)
        return 1
    print(f"{notes}\n")
    print(f"{tag}: dry run, no tag was made" if asked.dry_run else f"{tag} is tagged: git push origin {tag}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
