"""Tests of the installation's stamp; installing itself is what every clean checkout does first."""

from pathlib import Path

import pytest

from ops.venv import ensure, fingerprint, main


def project(root: Path, lock: str = "") -> Path:
    (root / "requirements-dev.txt").write_text(lock)
    return root


@pytest.mark.timeout(300)  # a real environment, made and filled by a child
def test_an_empty_lock_installs_and_the_second_time_does_nothing(tmp_path: Path) -> None:
    root = project(tmp_path)
    assert main(root) == 0
    assert (root / ".venv/bin/python").exists()
    assert not ensure(root)


def test_a_changed_lock_is_installed_again(tmp_path: Path) -> None:
    before = fingerprint(project(tmp_path, "a==1") / "requirements-dev.txt")
    assert fingerprint(project(tmp_path, "a==2") / "requirements-dev.txt") != before


def test_a_moved_checkout_is_installed_again_because_scripts_hold_its_path(tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    here, there = (fingerprint(project(tmp_path / name) / "requirements-dev.txt") for name in ("here", "there"))
    assert here != there


def test_an_installation_that_failed_is_explained_and_not_taken_for_one(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = project(tmp_path)
    (root / ".venv").mkdir()
    (root / ".venv/bin").write_text("in the way")
    (root / ".venv/.installed").write_text("of an earlier lock")
    assert main(root) == 1
    assert "Could not install" in capfd.readouterr().err
    assert not (root / ".venv/.installed").exists()


def test_an_old_python_is_told_what_is_needed_and_installs_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(project(tmp_path), version=(3, 10)) == 1
    assert "needs Python 3.11 or newer" in capsys.readouterr().err
    assert not (tmp_path / ".venv").exists()
