"""Tests of the roll-out: simulated gcloud, scripted figures, a clock that is moved by hand."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from common.clock import ManualClock
from ops.canary_gcloud import Traffic
from ops.canary_monitoring import FiguresUnavailable
from ops.canary_patience import Interrupted
from ops.canary_rollout import Outcome, Refused, Rollout, SplitLeft
from ops.canary_settings import Plan
from ops.canary_verdict import Figures, Probed, Rules
from tests.support.fake_gcloud import NEW, OLD, LocalGcloud, two_revisions

PLAN = Plan("bmw", "r1", (5, 25, 100), 120, 180, 0, Rules())
WELL = {OLD: Figures(2000, 0, 0, 100), NEW: Figures(200, 0, 0, 100)}
FAILING = {**WELL, NEW: Figures(200, 10, 0, 100)}
Script = Callable[[int], dict[str, Figures]]


class Scene:
    """A roll-out with everything about it in a test's hands."""

    def __init__(self, folder: Path, world: dict[str, Any] | None = None) -> None:
        self.state = folder / "project.json"
        self.state.write_text(json.dumps(world or two_revisions()))
        self.gcloud = LocalGcloud(self.state)
        self.clock = ManualClock()
        self.asked: list[tuple[datetime, datetime]] = []
        self.shares: list[int] = []
        self.smoked: list[str] = []
        self.guarded: list[str] = []
        self.said: list[str] = []
        self.script: Script = lambda _number: WELL
        self.on_pause: Callable[[int], None] = lambda _number: None
        self.smoke_fails = False
        self.probed: Callable[[int], dict[str, Probed]] = lambda _pauses: {}
        self.pauses = 0

    @property
    def percents(self) -> dict[str, int]:
        found: dict[str, int] = json.loads(self.state.read_text())["services"]["bmw"]["percents"]
        return found

    def figures(self, start: datetime, end: datetime) -> dict[str, Figures]:
        assert self.clock.utc() >= end + timedelta(seconds=PLAN.settle_s)
        self.asked.append((start, end))
        self.shares.append(self.percents.get(NEW, 0))
        return self.script(len(self.asked))

    def pause(self, seconds: float) -> None:
        self.pauses += 1
        self.on_pause(self.pauses)
        self.clock.advance(seconds)

    def smoke(self, url: str) -> None:
        self.smoked.append(url)
        if self.smoke_fails:
            raise OSError("no answer")

    def guard(self, revision: str) -> Callable[[], None]:
        self.guarded.append(revision)
        return lambda: self.guarded.append("dismissed")

    def fail(self, *rules: dict[str, Any]) -> None:
        self.state.write_text(json.dumps({**json.loads(self.state.read_text()), "fail": list(rules)}))

    def run(self, plan: Plan = PLAN) -> Outcome:
        rollout = Rollout(
            plan=plan,
            traffic=Traffic(self.gcloud, "p1", "r1", "bmw"),
            measure=self,
            probed=lambda: self.probed(self.pauses),
            smoke=self.smoke,
            guard=self.guard,
            clock=self.clock,
            pause=self.pause,
            rest=self.clock.advance,
            say=self.said.append,
        )
        return rollout.run()

    def is_back(self) -> bool:
        """All traffic where it was, no revision left to be promoted by mistake, and nobody watching any more."""
        tags = json.loads(self.state.read_text())["services"]["bmw"]["tags"]
        return self.percents == {OLD: 100} and "canary" not in tags and self.guarded == [OLD, "dismissed"]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_a_healthy_revision_gets_all_traffic_by_the_steps_of_the_plan(scene: Scene) -> None:
    outcome = scene.run()
    assert outcome.promoted
    assert outcome.windows == 6
    # The baseline of the last step is asked for once more, when all traffic has moved.
    assert scene.shares == [5, 5, 25, 25, 100, 100, 100]
    assert scene.percents == {NEW: 100}
    assert scene.smoked == ["http://new"]
    assert scene.guarded == [OLD, "dismissed"]


def test_windows_follow_each_other_and_are_judged_when_their_figures_are_complete(scene: Scene) -> None:
    began = scene.clock.utc()
    scene.run(replace(PLAN, steps_percent=(50, 100)))
    (first, second, baseline, *_) = scene.asked
    assert first == (began, began + timedelta(seconds=120))
    assert second == (first[1], first[1] + timedelta(seconds=120))
    moved = second[1] + timedelta(seconds=180)
    assert baseline == (moved - timedelta(seconds=300), moved - timedelta(seconds=180))


@pytest.mark.parametrize(("bad_at", "windows"), [(1, 1), (2, 2), (4, 4)])
def test_more_errors_take_all_traffic_back_in_the_window_that_shows_them(
    scene: Scene, bad_at: int, windows: int
) -> None:
    scene.script = lambda number: FAILING if number >= bad_at else WELL
    outcome = scene.run()
    assert not outcome.promoted
    assert outcome.windows == windows
    assert outcome.reason.startswith("more errors: ")
    assert scene.is_back()


def test_a_revision_that_fails_under_all_traffic_is_compared_with_what_the_old_one_did_before(scene: Scene) -> None:
    scene.script = lambda number: WELL if number <= 5 else {NEW: Figures(5000, 250, 0, 100)}
    outcome = scene.run()
    assert outcome.reason == "more errors: 250 of 5000, before 0 of 2000"
    assert scene.is_back()


def test_figures_that_are_missing_take_it_back_within_two_windows(scene: Scene) -> None:
    scene.script = lambda _number: {OLD: Figures(2000)}
    outcome = scene.run()
    assert "no figures of the new revision" in outcome.reason
    assert outcome.windows == 2
    assert scene.is_back()


def test_figures_that_cannot_be_had_take_it_back(scene: Scene) -> None:
    def unavailable(_number: int) -> dict[str, Figures]:
        raise FiguresUnavailable("503")

    scene.script = unavailable
    assert scene.run().reason == "FiguresUnavailable: 503"
    assert scene.is_back()


def test_few_requests_make_a_step_longer_and_then_end_it(scene: Scene) -> None:
    scene.script = lambda _number: {OLD: Figures(500), NEW: Figures(20)}
    outcome = scene.run()
    assert outcome.windows == 3
    assert "too few to judge" in outcome.reason
    assert scene.is_back()


def test_where_the_plan_says_so_probes_decide_what_few_requests_cannot(scene: Scene) -> None:
    scene.script = lambda _number: {OLD: Figures(50, answered=200), NEW: Figures(2, answered=150)}
    scene.probed = lambda pauses: {OLD: Probed(40 * pauses), NEW: Probed(40 * pauses)}
    outcome = scene.run(replace(PLAN, rules=Rules(probes_prove=True)))
    assert outcome.promoted
    assert outcome.windows == 9
    assert any("120 of 120 probes were answered" in line for line in scene.said)


def test_probes_that_only_the_new_revision_fails_take_it_back_in_the_first_window(scene: Scene) -> None:
    scene.probed = lambda pauses: {OLD: Probed(100 * pauses), NEW: Probed(100 * pauses, 8 * pauses)}
    outcome = scene.run()
    assert outcome.reason == "probes: more errors: 8 of 100, before 0 of 100"
    assert outcome.windows == 1
    assert scene.is_back()


def test_what_was_probed_before_a_step_is_not_counted_in_it(scene: Scene) -> None:
    # Five windows' worth of good answers in the earlier steps do not hide what begins to fail in the last one.
    scene.probed = lambda pauses: {OLD: Probed(100 * pauses), NEW: Probed(100 * pauses, 8 * max(0, pauses - 4))}
    outcome = scene.run()
    assert outcome.reason == "probes: more errors: 8 of 100, before 0 of 100"
    assert outcome.windows == 5


def test_a_revision_that_fails_its_smoke_test_never_gets_any_traffic(scene: Scene) -> None:
    scene.smoke_fails = True
    assert scene.run().reason == "OSError: no answer"
    assert scene.shares == []
    assert not [call for call in scene.gcloud.calls if any(f"{NEW}=" in word for word in call)]
    assert scene.is_back()


def test_an_interruption_takes_it_back_before_it_goes_on(scene: Scene) -> None:
    def interrupt(number: int) -> None:
        if number == 3:
            raise Interrupted

    scene.on_pause = interrupt
    with pytest.raises(Interrupted):
        scene.run()
    assert scene.shares == [5, 5]
    assert scene.is_back()


def test_a_defect_of_its_own_takes_it_back(scene: Scene) -> None:
    def defect(_number: int) -> dict[str, Figures]:
        raise ZeroDivisionError

    scene.script = defect
    assert not scene.run().promoted
    assert scene.is_back()


def test_a_step_that_gcloud_refuses_takes_it_back(scene: Scene) -> None:
    scene.fail({"match": f"{NEW}=25"})
    assert scene.run().reason.startswith("GcloudFailed")
    assert scene.is_back()


def test_a_way_back_that_fails_is_tried_again(scene: Scene) -> None:
    scene.script = lambda _number: FAILING
    scene.fail({"match": f"{OLD}=100", "times": 4})
    assert not scene.run().promoted
    assert scene.is_back()


def test_a_way_back_that_was_only_claimed_is_gone_again(tmp_path: Path) -> None:
    class Forgetful(LocalGcloud):
        forgotten = 0

        def run(self, *words: str) -> str:
            if f"{OLD}=100" in words and self.forgotten < 2:
                self.forgotten += 1
                return ""
            return super().run(*words)

    scene = Scene(tmp_path)
    scene.script = lambda _number: FAILING
    scene.gcloud = Forgetful(scene.state)
    assert not scene.run().promoted
    assert scene.is_back()


def test_a_way_back_that_stays_closed_is_shown_to_people(scene: Scene) -> None:
    scene.script = lambda _number: FAILING
    scene.fail({"match": f"{OLD}=100", "times": 99})
    with pytest.raises(SplitLeft, match=f"gcloud run services update-traffic bmw .* --to-revisions {OLD}=100"):
        scene.run()
    # The guard is still there, and has its own attempts when this process ends.
    assert scene.guarded == [OLD]


def test_without_a_canary_nothing_is_touched(scene: Scene) -> None:
    world = two_revisions()
    del world["services"]["bmw"]["tags"]["canary"]
    scene.state.write_text(json.dumps(world))
    with pytest.raises(Refused, match="deploy one with --canary"):
        scene.run()
    assert (scene.guarded, scene.smoked) == ([], [])


def test_a_split_among_others_is_somebody_elses_business(scene: Scene) -> None:
    world = two_revisions()
    service = world["services"]["bmw"]
    service["revisions"].append({"name": "bmw-0", "origin": None, "flags": {}})
    service["percents"] = {OLD: 50, "bmw-0": 50}
    scene.state.write_text(json.dumps(world))
    with pytest.raises(Refused, match="2 other revisions get traffic"):
        scene.run()
    assert scene.percents == {OLD: 50, "bmw-0": 50}


def test_a_canary_that_was_deployed_with_a_share_goes_the_same_way(scene: Scene) -> None:
    world = two_revisions()
    world["services"]["bmw"]["percents"] = {OLD: 90, NEW: 10}
    scene.state.write_text(json.dumps(world))
    assert scene.run().promoted
    assert scene.percents == {NEW: 100}


@pytest.mark.parametrize("works", [True, False])
def test_the_only_revision_is_only_tried(scene: Scene, works: bool) -> None:
    world = two_revisions()
    world["services"]["bmw"]["percents"] = {"LATEST": 100}
    scene.state.write_text(json.dumps(world))
    scene.smoke_fails = not works
    assert scene.run().promoted is works
    assert scene.percents == {"LATEST": 100}


@pytest.mark.parametrize("strange", ["not JSON", "{}", '{"status": {"url": "u", "traffic": [{}]}}'])
def test_a_description_that_is_not_understood_touches_nothing(tmp_path: Path, strange: str) -> None:
    class Strange(LocalGcloud):
        def run(self, *words: str) -> str:
            return strange

    scene = Scene(tmp_path)
    scene.gcloud = Strange(scene.state)
    with pytest.raises(Exception, match="not understood"):
        scene.run()
    assert scene.guarded == []
