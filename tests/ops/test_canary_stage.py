"""Tests of a roll-out of real revisions of the service behind a splitter, judged by what the splitter really saw."""

from dataclasses import replace

import pytest

from ops.canary_settings import Plan, load
from ops.canary_verdict import Rules
from scorecard.canary_stage import CANARY, STABLE, Stage, staged

pytestmark = pytest.mark.timeout(180)

PLAN: Plan = replace(load("production"), rules=Rules(min_requests=30))
UNHURRIED: Plan = replace(PLAN, rules=replace(PLAN.rules, slower_by_ms=5_000))
"""Where times are not what is judged: both revisions, the splitter and other tests share this machine's processors."""


def requests(percent: int) -> int:
    return 700 if percent <= 5 else 150


def every_command_was_sent_once(stage: Stage) -> bool:
    return stage.commands > 0 and stage.sends() == stage.commands and stage.failed == []


def test_five_percent_of_errors_are_taken_back_within_two_windows_and_no_command_is_sent_twice() -> None:
    with staged(FAULT_EVERY="20") as stage:
        outcome = stage.roll_out(UNHURRIED, requests, commands_a_window=8)
        assert not outcome.promoted
        assert outcome.reason.startswith("more errors")
        assert outcome.windows <= 2
        assert stage.percents() == {STABLE: 100}
        assert every_command_was_sent_once(stage)


def test_a_healthy_revision_gets_all_traffic_and_no_command_is_sent_twice() -> None:
    with staged() as stage:
        plan = replace(UNHURRIED, steps_percent=(25, 100))
        outcome = stage.roll_out(plan, lambda _percent: 150, commands_a_window=8)
        assert outcome.promoted
        assert stage.percents() == {CANARY: 100}
        assert every_command_was_sent_once(stage)
        seen = {seen.revision for seen in stage.cloud.splitter.observations}
        assert seen == {STABLE, CANARY}


def test_a_slow_revision_is_taken_back() -> None:
    with staged(FAULT_DELAY_MS="400") as stage:
        outcome = stage.roll_out(replace(PLAN, steps_percent=(50, 100)), lambda _percent: 60)
        assert not outcome.promoted
        assert outcome.reason.startswith("slower")
        assert stage.percents() == {STABLE: 100}


def test_a_revision_that_fails_every_request_is_taken_back_where_hardly_anybody_calls() -> None:
    with staged(FAULT_EVERY="1") as stage:
        outcome = stage.roll_out(UNHURRIED, lambda _percent: 4)
        assert not outcome.promoted
        assert "canary's key is answered 500" in outcome.reason
        assert stage.percents() == {STABLE: 100}


def test_five_percent_of_errors_are_taken_back_where_hardly_anybody_calls() -> None:
    with staged(FAULT_EVERY="20") as stage:
        outcome = stage.roll_out(replace(UNHURRIED, rules=load("production").rules), lambda _percent: 4)
        assert not outcome.promoted
        assert outcome.reason.startswith("probes: more errors")
        assert outcome.windows <= 2
        assert stage.percents() == {STABLE: 100}


def test_a_healthy_revision_gets_all_traffic_where_hardly_anybody_calls_if_probes_may_prove_it() -> None:
    rules = replace(UNHURRIED.rules, min_requests=100, max_windows=2, probes_prove=True)
    plan = replace(UNHURRIED, steps_percent=(25, 100), rules=rules)
    with staged() as stage:
        assert stage.roll_out(plan, lambda _percent: 4).promoted
        assert stage.percents() == {CANARY: 100}
