"""Tests of the lock files: complete, with hashes, and free of addresses."""

import importlib.metadata
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = ["requirements", "requirements-dev", "requirements-sandbox"]


def pins(name: str) -> dict[str, str]:
    """Version by canonical name."""
    found = re.findall(
        r"^([A-Za-z0-9._-]+)(?:\[[a-z0-9,-]+\])?==([^ ;\\]+)", (ROOT / f"{name}.txt").read_text(), re.MULTILINE
    )
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
    assert len(named) > 5
    assert [line for line in requirements if "--hash=sha256:" not in line] == []


@pytest.mark.parametrize("name", LOCKS)
def test_everything_that_is_asked_for_is_locked(name: str) -> None:
    locked = pins(name)
    for requirement in asked_for(name):
        package, _, version = requirement.partition("==")
        assert package in locked
        assert version in ("", locked[package])


def test_tests_run_with_the_versions_that_are_deployed() -> None:
    tested = pins("requirements-dev")
    for image in ("requirements", "requirements-sandbox"):
        deployed = pins(image)
        assert {name: tested.get(name) for name in deployed} == deployed


def extras(name: str) -> set[tuple[str, str]]:
    """Packages that the lock names with extras."""
    found = re.findall(r"^([A-Za-z0-9._-]+)\[([a-z0-9,-]+)\]==", (ROOT / f"{name}.txt").read_text(), re.MULTILINE)
    return {(package.lower(), extra) for package, listed in found for extra in listed.split(",")}


def asked_with_extras(packages: dict[str, str]) -> set[tuple[str, str]]:
    """What these packages, as installed, ask for with extras."""
    asked = set()
    for package in packages:
        try:
            requirements = importlib.metadata.requires(package) or []
        except importlib.metadata.PackageNotFoundError:  # for another system
            continue
        for requirement in requirements:
            found = re.match(r"([A-Za-z0-9._-]+)\[([a-zA-Z0-9,_-]+)\]", requirement)
            if found and "extra ==" not in requirement:
                asked |= {(found[1].lower(), extra) for extra in found[2].split(",")}
    return asked


@pytest.mark.parametrize("name", ["requirements", "requirements-dev"])
def test_extras_are_locked_too_for_else_a_later_release_of_the_package_breaks_the_installation(name: str) -> None:
    asked = asked_with_extras(pins(name))
    assert len(asked) >= 2
    assert asked <= extras(name)
