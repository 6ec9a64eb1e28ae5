"""Tests of reading figures, over real HTTP from the simulated Cloud Monitoring."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from common.clock import ManualClock
from ops.canary_monitoring import FiguresUnavailable, Monitoring
from ops.canary_question import Question
from ops.canary_verdict import Figures
from sandbox.cloud import Cloud, running_cloud
from sandbox.monitoring import REQUESTS
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


def monitoring(cloud: Cloud, pauses: list[float] | None = None, key: str | None = "a key") -> Monitoring:
    return Monitoring(
        "p1",
        "r1",
        "bmw",
        lambda: "token",
        question=Question(key),
        base_url=cloud.monitoring_url,
        pause=(pauses if pauses is not None else []).append,
    )


def observe(
    cloud: Cloud, revision: str, *statuses: int, after_s: float = 60, action: str = "status", code: str = ""
) -> None:
    at = START + timedelta(seconds=after_s)
    cloud.splitter.observations += [
        Observation(at, revision, status, float(n), action, code) for n, status in enumerate(statuses)
    ]


def test_each_revision_has_its_requests_errors_refusals_and_p95(cloud: Cloud) -> None:
    observe(cloud, OLD, *[200] * 95, *[401] * 3, *[500] * 2)
    observe(cloud, NEW, *[200] * 20)
    assert monitoring(cloud).figures(START, END) == {
        OLD: Figures(100, 2, 3, 90.0, 100),
        NEW: Figures(20, 0, 0, 18.0, 20),
    }


def test_probes_and_pages_are_no_requests_of_callers(cloud: Cloud) -> None:
    observe(cloud, NEW, *[200] * 240, action="actions")
    observe(cloud, NEW, *[200] * 60, action="")
    observe(cloud, NEW, 500, 500, 200)
    assert monitoring(cloud).figures(START, END) == {NEW: Figures(3, 2, 0, 2.0, 303)}


def test_without_a_key_it_is_refused_and_others_who_were_cannot_be_told_from_it(cloud: Cloud) -> None:
    observe(cloud, NEW, *[401] * 240, action="unknown", code="CALLER_UNAUTHENTICATED")
    observe(cloud, NEW, 403, action="unlock", code="INSUFFICIENT_SCOPE")
    assert monitoring(cloud, key=None).figures(START, END) == {NEW: Figures(1, 0, 1, None, 241)}
    assert monitoring(cloud).figures(START, END) == {NEW: Figures(241, 0, 241, None, 241)}


def test_a_request_over_which_the_instance_died_has_no_line_and_is_an_error(cloud: Cloud) -> None:
    observe(cloud, NEW, 200, 502)
    observe(cloud, NEW, 503, 503, action="")
    assert monitoring(cloud).figures(START, END) == {NEW: Figures(4, 3, 0, 0.0, 4)}


def test_a_car_that_cannot_do_it_is_no_error(cloud: Cloud) -> None:
    observe(cloud, NEW, 501, 501)
    assert monitoring(cloud).figures(START, END) == {NEW: Figures(2, 0, 2, None, 2)}


def test_metrics_that_were_never_installed_are_called_so(cloud: Cloud) -> None:
    cloud.monitoring.metrics -= {REQUESTS}
    with pytest.raises(FiguresUnavailable, match=r"404.*ops\.monitoring\.install"):
        monitoring(cloud).figures(START, END)


def test_only_the_window_counts(cloud: Cloud) -> None:
    observe(cloud, OLD, 200, after_s=120)
    observe(cloud, OLD, 500, 500, after_s=121)
    observe(cloud, OLD, 500, after_s=0)
    assert monitoring(cloud).figures(START, END) == {OLD: Figures(1, 0, 0, 0.0, 1)}


def test_no_requests_are_no_figures(cloud: Cloud) -> None:
    assert monitoring(cloud).figures(START, END) == {}


def test_all_pages_are_read(cloud: Cloud) -> None:
    cloud.monitoring.page_size = 1
    observe(cloud, OLD, 200, 404, 500)
    observe(cloud, NEW, 200, 503)
    assert monitoring(cloud).figures(START, END) == {
        OLD: Figures(3, 1, 1, 0.0, 3),
        NEW: Figures(2, 1, 0, 0.0, 2),
    }


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
    assert monitoring(cloud, pauses).figures(START, END) == {OLD: Figures(1, 0, 0, 0.0, 1)}
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
    nobody = Monitoring(
        "p1", "r1", "bmw", lambda: "t", question=Question(), base_url="http://127.0.0.1:1", pause=lambda _s: None
    )
    with pytest.raises(FiguresUnavailable, match="ConnectError"):
        nobody.figures(START, END)


def test_an_answer_that_is_not_understood_gives_no_figures(cloud: Cloud) -> None:
    # The splitter in front of a service that is not there answers with something else than Cloud Monitoring.
    nobody = Monitoring(
        "p1", "r1", "bmw", lambda: "t", question=Question(), base_url=f"{cloud.monitoring_url}/", pause=lambda _s: None
    )
    with pytest.raises(FiguresUnavailable, match="404"):
        nobody.figures(START, END)
