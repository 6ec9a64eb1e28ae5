"""Tests of what .importlinter cannot see: main.py, what an import drags in, and whose packages these are."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = frozenset(
    {
        "aiohttp",
        "aiosqlite",
        "bimmer_connected",
        "google.api_core",
        "google.auth",
        "google.cloud.logging",
        "google.cloud.storage",
        "h11",
        "httpx",
        "orjson",
        "prometheus_client",
        "pydantic",
        "tenacity",
        "uvicorn",
    }
)
"""Each costs milliseconds at a cold start, and h11 must not be where callers' bytes are parsed: see SECURITY.md."""


def loaded_by(statements: str) -> dict[str, str | None]:
    """The modules that a fresh interpreter holds after ``statements``: file by name."""
    show = "print(json.dumps({name: getattr(module, '__file__', None) for name, module in sys.modules.items()}))"
    code = f"{statements}\nimport json, sys\n{show}"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict[str, str | None] = json.loads(ran.stdout.splitlines()[-1])
    return found


def heavy(modules: dict[str, str | None]) -> set[str]:
    return {name for name in HEAVY if any(module == name or module.startswith(f"{name}.") for module in modules)}


def packages(modules: dict[str, str | None]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


@pytest.mark.parametrize("package", ["functions", "common", "main"])
def test_our_names_are_ours_and_not_some_installed_package(package: str) -> None:
    where = loaded_by(f"import {package}")[package]
    assert where is not None
    assert Path(where).is_relative_to(ROOT)
    assert ".venv" not in Path(where).parts


def test_importing_main_after_the_framework_brings_in_nothing_else() -> None:
    before = loaded_by("import functions_framework, flask, gunicorn.config")
    after = loaded_by("import functions_framework, flask, gunicorn.config, main")
    assert packages(after) - packages(before) == {"main"}
    assert heavy(after) == set()


def test_importing_main_alone_does_not_even_bring_in_flask() -> None:
    assert (
        packages(loaded_by("import main")) & (HEAVY | {"flask", "functions_framework", "functions", "common"}) == set()
    )


def test_building_the_service_does_not_load_what_only_some_requests_need() -> None:
    build = "from functions.app import build; from common.settings import Settings; build(Settings()).close()"
    only_for_some = {"bimmer_connected", "google.cloud.logging", "google.cloud.storage", "httpx"}
    assert heavy(loaded_by(build)) & only_for_some == set()


def test_main_imports_only_the_edge_and_only_when_called() -> None:
    tree = ast.parse((ROOT / "main.py").read_text())
    at_import = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [ast.unparse(node) for node in at_import] == ["from typing import TYPE_CHECKING", "import gunicorn.config"]
    entries = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert set(entries) == {"bmw_api", "bmw_api_staging", "health"}
    for entry in entries.values():
        inside = [node for node in ast.walk(entry) if isinstance(node, ast.Import | ast.ImportFrom)]
        assert [ast.unparse(node) for node in inside] == ["from functions.edge import serve"]
