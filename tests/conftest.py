"""What all tests have in common: how Hypothesis looks for examples, what is garbage, and what coverage measures.

Coverage measures the tests that are written for the product's own lines.
"""

import gc
import os
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest
from coverage import Coverage
from hypothesis import HealthCheck, settings

# How long an example takes says nothing on a machine that runs other tests meanwhile.
settings.register_profile("random", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("steady", settings.get_profile("random"), derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))

# Thousands of collected tests are no garbage: looking through them again and again took a fifth of the time.
gc.set_threshold(50_000, 20, 50)

TESTS = Path(__file__).parent
UNMEASURED = (
    "bench/*",
    "integration/*",
    "ops/*",
    "sandbox/*",
    "scorecard/*",
    "*_killed.py",
    "*_model.py",
    "*_races.py",
    "*_scorecard.py",
)
"""Tests of tools and of the simulators, and long walks over lines that others have been through: coverage would find
little there, and takes two thirds to the whole of a processor more."""
MEASURED = tuple(
    f"integration/test_{name}.py" for name in ("accounts", "batch", "cardata", "instances", "pages", "reads")
)
"""Those that between them take every road through the whole service: who comes in, what is asked, by which maker."""


def pytest_collection_finish() -> None:
    """What has been collected stays to the end."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def measured(request: pytest.FixtureRequest) -> Iterator[None]:
    """Coverage sleeps during the modules of UNMEASURED, in this process and in those that they start."""
    name = request.path.relative_to(TESTS).as_posix()
    coverage = Coverage.current()
    if coverage is None or name in MEASURED or not any(fnmatch(name, pattern) for pattern in UNMEASURED):
        yield
        return
    for_children = os.environ.pop("COVERAGE_PROCESS_CONFIG", None)
    coverage.stop()
    yield
    coverage.start()
    if for_children is not None:
        os.environ["COVERAGE_PROCESS_CONFIG"] = for_children
