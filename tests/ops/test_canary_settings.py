"""Tests of what the canary reads from an environment's file."""

from pathlib import Path

import pytest

from ops.canary_settings import FOLDER, BadEnvironment, load

GOOD = (FOLDER / "production.env").read_text()


@pytest.mark.parametrize("environment", ["staging", "production"])
def test_each_environment_has_a_plan_that_ends_with_all_traffic(environment: str) -> None:
    plan = load(environment)
    assert plan.steps_percent[-1] == 100
    assert plan.rules.windows == 2
    # What decides where nobody calls can be had within the windows, and stays below a caller's limit.
    step_s = plan.rules.max_windows * plan.window_s + plan.settle_s
    assert plan.probes_per_s * step_s >= plan.rules.min_requests
    assert 2 * 60 * plan.probes_per_s <= 60


def test_production_goes_by_5_and_25_percent_within_the_pipelines_hour() -> None:
    plan = load("production")
    assert plan.steps_percent == (5, 25, 100)
    longest_s = len(plan.steps_percent) * (plan.rules.max_windows * plan.window_s + plan.settle_s)
    assert longest_s < 50 * 60


def test_a_region_that_is_given_wins() -> None:
    assert load("staging", region="r9").region == "r9"


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("CANARY_STEPS=5,25,100", "CANARY_STEPS=5,25", "must grow and end with 100"),
        ("CANARY_STEPS=5,25,100", "CANARY_STEPS=25,5,100", "must grow and end with 100"),
        ("CANARY_STEPS=5,25,100", "CANARY_STEPS=0,100", "must grow and end with 100"),
        ("CANARY_STEPS=5,25,100", "CANARY_STEPS=some", "invalid literal"),
        ("CANARY_WINDOW_S=240", "CANARY_WINDOW_S=30", "must be 60 at least"),
        ("CANARY_MAX_WINDOWS=3", "CANARY_MAX_WINDOWS=1", "at most CANARY_MAX_WINDOWS"),
        ("CANARY_SETTLE_S=180", "", "does not say CANARY_SETTLE_S"),
        ("CANARY_TOO_FEW=probes", "CANARY_TOO_FEW=promote", "must be rollback or probes"),
        ("CPU=1", "what is this", "is no NAME=value"),
        ("CPU=1", "CPU=1\nCPU=2", "or is there twice"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_its_line_or_name(
    tmp_path: Path, old: str, new: str, problem: str
) -> None:
    assert old in GOOD
    (tmp_path / "production.env").write_text(GOOD.replace(old, new))
    with pytest.raises(BadEnvironment, match=problem):
        load("production", tmp_path)


def test_an_unknown_environment_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(BadEnvironment, match="unknown environment 'prod': production or staging"):
        load("prod")
