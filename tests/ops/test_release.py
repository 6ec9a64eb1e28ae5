"""Tests of releasing, in small checkouts."""

import subprocess
from pathlib import Path

import pytest

from ops.release import main, notes_of

CHANGELOG = """# Changelog

## [Unreleased]

## [1.2.0] - 2026-05-01

### Added
- Something.

## [1.1.0] - 2026-04-01
- Older.
"""


def git(root: Path, *words: str) -> str:
    alone = ("-c", "user.name=n", "-c", "user.email=n@example.com")
    return subprocess.run(["git", *alone, *words], cwd=root, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "settings.py").write_text('VERSION = "1.2.0"\n')
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.0"\n')
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "config", "user.name", "n")
    git(tmp_path, "config", "user.email", "n@example.com")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "ready")
    return tmp_path


def change(root: Path, file: str, old: str, new: str) -> None:
    path = root / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    git(root, "commit", "-qam", "changed")


def test_a_release_is_a_tag_with_the_changelogs_notes(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([], root) == 0
    assert git(root, "tag", "--list", "--format=%(contents)") == "v1.2.0\n\n### Added\n- Something.\n\n"
    assert git(root, "rev-parse", "v1.2.0^{commit}") == git(root, "rev-parse", "HEAD")
    assert "git push origin v1.2.0" in capsys.readouterr().out


def test_a_dry_run_prints_the_notes_and_makes_no_tag(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--dry-run"], root) == 0
    assert capsys.readouterr().out.startswith("### Added\n- Something.\n")
    assert git(root, "tag", "--list") == ""


@pytest.mark.parametrize(
    ("file", "old", "new", "problem"),
    [
        ("common/settings.py", "1.2.0", "1.3.0", "settings.py says 1.3.0, pyproject.toml 1.2.0"),
        ("common/settings.py", "VERSION", "NUMBER", "settings.py says no version"),
        ("CHANGELOG.md", "[1.2.0] - 2026-05-01", "[1.2.0]", "has no `## [1.2.0] - YYYY-MM-DD`"),
        ("CHANGELOG.md", "### Added\n- Something.\n", "", "says nothing of 1.2.0"),
    ],
)
def test_what_does_not_fit_together_is_not_released(
    root: Path, file: str, old: str, new: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change(root, file, old, new)
    assert main([], root) == 1
    assert problem in capsys.readouterr().err
    assert git(root, "tag", "--list") == ""


def test_a_version_that_is_not_semantic_is_not_released(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in ("common/settings.py", "pyproject.toml"):
        change(root, file, "1.2.0", "1.2")
    assert main([], root) == 1
    assert "1.2 is no semantic version" in capsys.readouterr().err


def test_changes_that_are_not_committed_are_not_released(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "new").write_text("x")
    assert main([], root) == 1
    assert "not committed" in capsys.readouterr().err


def test_another_branch_is_not_released(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    git(root, "switch", "-qc", "develop")
    assert main([], root) == 1
    assert "made on main, and this is develop" in capsys.readouterr().err


def test_a_version_is_released_once(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([], root) == 0
    assert main([], root) == 1
    assert "v1.2.0 is there already" in capsys.readouterr().err


def test_outside_a_checkout_git_says_what_is_wrong(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / ".git").rename(root / "elsewhere")
    assert main([], root) == 1
    assert "git status: fatal" in capsys.readouterr().err


def test_notes_end_where_the_links_begin() -> None:
    assert notes_of("## [1.0.0] - 2026-01-01\n- One.\n\n[1.0.0]: somewhere\n", "1.0.0") == "- One."
