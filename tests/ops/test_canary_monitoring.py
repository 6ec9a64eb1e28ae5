"""Tests of reading figures, over real HTTP from the simulated Cloud Monitoring."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from common.clock import ManualClock
from ops.canary_monitoring import FiguresUnavailable, Monitoring
from ops.canary_verdict import Figures
from sandbox.cloud import Cloud, running_cloud
from sandbox.splitter import Observation
from tests.support.fake_gcloud import NEW, OLD, two_revisions

CLOCK = ManualClock()
START, END = CLOCK.utc(), CLOCK.utc() + timedelta(seconds=120)


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    state = tmp_path / "project.json"
    state.write_text(json.dumps(two_revisions()))
    with running_cloud(state, "bmw", CLOCK) as running:
        yield running


def monitoring(cloud: Cloud, pauses: list[float] | None = None) -> Monitoring:
    return Monitoring(
        "p1",
        "r1",
        "bmw",
        lambda: "token",
        base_url=cloud.monitoring_url,
        pause=(pauses if pauses is not None else []).append,
    )


def observe(cloud: Cloud, revision: str, *statuses: int, after_s: float = 60) -> None:
    at = START + timedelta(seconds=after_s)
    cloud.splitter.observations += [Observation(at, revision, status, float(n)) for n, status in enumerate(statuses)]


def test_each_revision_has_its_requests_errors_refusals_and_p95(cloud: Cloud) -> None:
    observe(cloud, OLD, *[200] * 95, *[401] * 3, *[500] * 2)
    observe(cloud, NEW, *[200] * 20)
    assert monitoring(cloud).figures(START, END) == {OLD: Figures(100, 2, 3, 94.0), NEW: Figures(20, 0, 0, 18.0)}


def test_only_the_window_counts(cloud: Cloud) -> None:
    observe(cloud, OLD, 200, after_s=120)
    observe(cloud, OLD, 500, 500, after_s=121)
    observe(cloud, OLD, 500, after_s=0)
    assert monitoring(cloud).figures(START, END) == {OLD: Figures(1, 0, 0, 0.0)}


def test_no_requests_are_no_figures(cloud: Cloud) -> None:
    assert monitoring(cloud).figures(START, END) == {}


def test_all_pages_are_read(cloud: Cloud) -> None:
    cloud.monitoring.page_size = 1
    observe(cloud, OLD, 200, 404, 500)
    observe(cloud, NEW, 200, 503)
    assert monitoring(cloud).figures(START, END) == {OLD: Figures(3, 1, 1, 2.0), NEW: Figures(2, 1, 0, 1.0)}


def test_it_asks_for_this_service_in_this_region_only(cloud: Cloud) -> None:
    monitoring(cloud).figures(START, END)
    for asked in cloud.monitoring.asked:
        (text,) = asked["filter"]
        assert 'resource.labels.service_name="bmw"' in text
        assert 'resource.labels.location="r1"' in text


def test_a_server_that_fails_for_a_moment_is_asked_again(cloud: Cloud) -> None:
    observe(cloud, OLD, 200)
    cloud.monitoring.failing = 2
    pauses: list[float] = []
    assert monitoring(cloud, pauses).figures(START, END) == {OLD: Figures(1, 0, 0, 0.0)}
    assert pauses == [2.0, 4.0]


def test_a_server_that_keeps_failing_gives_no_figures(cloud: Cloud) -> None:
    cloud.monitoring.failing = 3
    with pytest.raises(FiguresUnavailable, match="503"):
        monitoring(cloud).figures(START, END)


def test_a_request_that_is_refused_is_not_repeated(cloud: Cloud) -> None:
    with pytest.raises(FiguresUnavailable, match="400"):
        monitoring(cloud).figures(START, START + timedelta(seconds=30))
    assert len(cloud.monitoring.asked) == 1


def test_a_server_that_is_not_there_gives_no_figures() -> None:
    nobody = Monitoring("p1", "r1", "bmw", lambda: "t", base_url="http://127.0.0.1:1", pause=lambda _s: None)
    with pytest.raises(FiguresUnavailable, match="ConnectError"):
        nobody.figures(START, END)


def test_an_answer_that_is_not_understood_gives_no_figures(cloud: Cloud) -> None:
    # The splitter in front of a service that is not there answers with something else than Cloud Monitoring.
    nobody = Monitoring("p1", "r1", "bmw", lambda: "t", base_url=f"{cloud.monitoring_url}/", pause=lambda _s: None)
    with pytest.raises(FiguresUnavailable, match="404"):
        nobody.figures(START, END)
