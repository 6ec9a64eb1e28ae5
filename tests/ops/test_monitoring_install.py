"""Tests of installing the monitoring: as a program, against APIs that keep what Google's messages understand."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from ops.monitoring import install
from ops.monitoring.definitions import values_of
from ops.monitoring.google import Google, NotInstalled
from ops.monitoring.things import Thing, things
from sandbox.gcloud_install import Installed
from tests.support.google_apis import GoogleApis, google_apis

CHANNEL = "projects/p1/notificationChannels/1"
WANTED = list(things(values_of("p1", "staging", CHANNEL)))


class Operator:
    """Somebody with a project, who installs."""

    def __init__(self, folder: Path, url: str, apis: GoogleApis) -> None:
        self.apis = apis
        self.pauses: list[float] = []
        self._gcloud = Installed(folder / "gcloud", {})
        self.url = url

    def run(self, *words: str) -> int:
        arguments = ["--project", "p1", "--environment", "staging", "--google", self.url, *words]
        return install.main(arguments, self._gcloud.environ(os.environ), self.pauses.append)

    def install(self, *words: str) -> int:
        return self.run("--channel", CHANNEL, *words)


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    apis = GoogleApis()
    with google_apis(apis) as url:
        yield Operator(tmp_path, url, apis)


def counts(apis: GoogleApis) -> dict[str, int]:
    kinds = ("metrics", "services", "serviceLevelObjectives", "uptimeCheckConfigs", "alertPolicies", "dashboards")
    return {kind: len(apis.of(kind)) for kind in kinds}


def of_kind(kind: str) -> list[Thing]:
    return [thing for thing in WANTED if thing.kind == kind]


def test_everything_is_there_once_however_often_it_is_installed(operator: Operator) -> None:
    assert operator.install() == 0
    first, called = counts(operator.apis), len(operator.apis.calls)
    assert sum(first.values()) == len(WANTED)
    assert first["alertPolicies"] == len(of_kind("alert")) > 15
    assert operator.install() == 0
    assert counts(operator.apis) == first
    # The second time nothing is made anew: metrics are put, all others patched.
    assert "POST" not in {method for method, _ in operator.apis.calls[called:]}


def test_nothing_is_left_to_be_filled_in_and_no_other_environment_is_named(operator: Operator) -> None:
    operator.install()
    for name, body in operator.apis.kept.items():
        assert "${" not in str(body), name
        assert "/metrics/" in name or "production" not in str(body), name
    assert all(policy["notificationChannels"] == [CHANNEL] for policy in operator.apis.of("alertPolicies"))


def test_what_was_changed_by_hand_is_set_back(operator: Operator) -> None:
    operator.install()
    operator.apis.of("alertPolicies")[0]["enabled"] = False
    operator.install()
    assert all(policy["enabled"] for policy in operator.apis.of("alertPolicies"))


def test_metrics_that_cannot_be_named_yet_are_waited_for(operator: Operator) -> None:
    operator.apis.metrics_come_after = 30  # of 20 seconds: ten minutes
    assert operator.install() == 0
    assert operator.pauses == [20.0] * 30
    assert sum(counts(operator.apis).values()) == len(WANTED)


def test_the_wait_for_them_has_an_end_and_what_was_done_so_far_is_kept(
    operator: Operator, capsys: pytest.CaptureFixture[str]
) -> None:
    operator.apis.metrics_come_after = 1000
    assert operator.install() == 1
    assert sum(operator.pauses) == 15 * 60
    assert "Cannot find metric(s)" in capsys.readouterr().err
    operator.apis.metrics_come_after = 0
    assert operator.install() == 0
    assert sum(counts(operator.apis).values()) == len(WANTED)


def test_an_api_that_fails_for_a_moment_is_asked_again(operator: Operator) -> None:
    operator.apis.failing = 2
    assert operator.install() == 0
    assert len(operator.pauses) == 2


def test_two_of_one_name_are_left_to_a_person(operator: Operator, capsys: pytest.CaptureFixture[str]) -> None:
    operator.install()
    # As an installer that only creates leaves them: it is not known here which one somebody watches.
    kept = operator.apis.kept
    name, policy = next((name, body) for name, body in kept.items() if "/alertPolicies/" in name)
    kept["/v3/projects/p1/alertPolicies/7"] = {**policy, "name": "projects/p1/alertPolicies/7"}
    assert operator.install() == 1
    assert "is there 2 times: delete projects/p1/alertPolicies/7" in capsys.readouterr().err
    assert name in kept


def test_a_definition_that_google_refuses_ends_it_with_googles_words(operator: Operator) -> None:
    thing = replace(of_kind("alert")[0], body={"displayName": "x", "conditions": [{"conditionThreshhold": {}}]})
    with httpx.Client() as client:
        google = Google(
            client, lambda: "sandbox-access-token", pause=operator.pauses.append, say=print, base_url=operator.url
        )
        with pytest.raises(NotInstalled, match=r"400 .*conditionThreshhold"):
            list(install.install(google, [thing]))
    assert operator.pauses == []


def test_a_dry_run_says_what_it_would_do_and_changes_nothing(
    operator: Operator, capsys: pytest.CaptureFixture[str]
) -> None:
    assert operator.install("--dry-run") == 0
    said = capsys.readouterr().out.splitlines()
    assert len(said) == len(WANTED)
    assert all(line.endswith("would be created") for line in said)
    assert {method for method, _ in operator.apis.calls} == {"GET"}


def test_a_check_counts_what_is_there_and_names_what_is_missing(
    operator: Operator, capsys: pytest.CaptureFixture[str]
) -> None:
    assert operator.run("--check") == 1
    assert f"alert: 0 of {len(of_kind('alert'))}" in capsys.readouterr().out
    operator.install()
    capsys.readouterr()
    assert operator.run("--check") == 0
    assert "missing" not in capsys.readouterr().out
    del operator.apis.kept[next(name for name in operator.apis.kept if name.endswith("slow_reads"))]
    assert operator.run("--check") == 1
    said = capsys.readouterr().out
    assert "missing: metric slow_reads" in said
    assert f"metric: {len(of_kind('metric')) - 1} of {len(of_kind('metric'))}" in said


def test_without_a_channel_nobody_would_be_told(operator: Operator, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        operator.run()
    assert "--channel is needed" in capsys.readouterr().err
    assert operator.apis.calls == []


def test_without_gcloud_it_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--project", "p1", "--environment", "staging", "--check", "--google", "http://127.0.0.1:1"]
    assert install.main(arguments, {"PATH": str(tmp_path)}) == 2
    assert "FileNotFoundError" in capsys.readouterr().err
