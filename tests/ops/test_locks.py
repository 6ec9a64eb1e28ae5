"""Tests of the lock files: complete, with hashes, and free of addresses."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = ["requirements", "requirements-dev"]


def pins(name: str) -> dict[str, str]:
    """Version by canonical name."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", (ROOT / f"{name}.txt").read_text(), re.MULTILINE)
    return {package.lower().replace("_", "-"): version for package, version in found}


def asked_for(name: str) -> list[str]:
    lines = (ROOT / f"{name}.in").read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith(("#", "-"))]


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_names_no_index_and_no_file(name: str) -> None:
    lines = (ROOT / f"{name}.txt").read_text().splitlines()
    assert [line for line in lines if "://" in line or " @ " in line] == []
    assert [line for line in lines if line.strip().startswith("-") and not line.strip().startswith("--hash=")] == []


@pytest.mark.parametrize("name", LOCKS)
def test_every_pin_has_its_hashes(name: str) -> None:
    text = (ROOT / f"{name}.txt").read_text()
    requirements = re.split(r"(?m)^(?=[A-Za-z0-9])", text)[1:]
    # One package may be pinned twice, for two versions of Python.
    named = {re.split(r"[\[=]", requirement)[0].lower().replace("_", "-") for requirement in requirements}
    assert named == set(pins(name))
    assert len(named) > 10
    assert [line for line in requirements if "--hash=sha256:" not in line] == []


@pytest.mark.parametrize("name", LOCKS)
def test_everything_that_is_asked_for_is_locked(name: str) -> None:
    locked = pins(name)
    for requirement in asked_for(name):
        package, _, version = requirement.partition("==")
        assert package in locked
        assert version in ("", locked[package])


def test_tests_run_with_the_versions_that_are_deployed() -> None:
    deployed, tested = pins("requirements"), pins("requirements-dev")
    assert {name: tested.get(name) for name in deployed} == deployed
