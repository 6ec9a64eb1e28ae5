"""Tests of the canary as a program: what it exits with, and what it leaves when it is interrupted or killed."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from common.clock import SystemClock
from ops import canary
from ops.canary_patience import Interrupted, Patience
from ops.canary_probes import Probes
from ops.canary_question import Question
from ops.canary_verdict import Probed
from ops.stack import Stack
from sandbox.cloud import Cloud, running_cloud
from sandbox.gcloud_install import Installed
from sandbox.iam import ID_TOKEN
from tests.support.fake_gcloud import NEW, OLD, two_revisions
from tests.support.scripted_service import WELL, scripted_service

ROOT = Path(__file__).parents[2]
SERVICE = "draiv-bmw-staging"


class Scene:
    """A project, a service with two real revisions, and a canary to be started."""

    def __init__(self, folder: Path, stack: Stack, **sections: Any) -> None:
        self.folder = folder
        world = two_revisions(SERVICE, (stack.api_url, stack.api_url), configured="p1", **sections)
        self.gcloud = Installed(folder / "gcloud", world)

    def percents(self) -> dict[str, int]:
        found: dict[str, int] = self.gcloud.world()["services"][SERVICE]["percents"]
        return found

    def tags(self) -> dict[str, str]:
        found: dict[str, str] = self.gcloud.world()["services"][SERVICE]["tags"]
        return found

    @contextmanager
    def started(self, cloud: Cloud) -> Iterator[subprocess.Popen[str]]:
        """The program, in its first window or on the way there."""
        command = [sys.executable, "-m", "ops.canary", "staging", "--monitoring", cloud.monitoring_url]
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=self.gcloud.environ(os.environ),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


@pytest.fixture
def scene(tmp_path: Path, stack: Stack) -> Scene:
    return Scene(tmp_path, stack)


@pytest.fixture
def cloud(scene: Scene) -> Iterator[Cloud]:
    with running_cloud(scene.gcloud.state, SERVICE, SystemClock()) as running:
        yield running


def wait_for_the_split(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert any("25 % to" in line for line in process.stdout)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_takes_the_traffic_back(scene: Scene, cloud: Cloud, number: signal.Signals) -> None:
    with scene.started(cloud) as process:
        wait_for_the_split(process)
        assert scene.percents() == {OLD: 75, NEW: 25}
        # As a terminal does, to all of its processes; and the second one must not stop the way back.
        os.killpg(process.pid, number)
        os.killpg(process.pid, number)
        said, _ = process.communicate()
        assert process.returncode == 130, said
    assert scene.percents() == {OLD: 100}


def test_killed_without_warning_its_guard_takes_the_traffic_back(scene: Scene, cloud: Cloud) -> None:
    with scene.started(cloud) as process:
        wait_for_the_split(process)
        os.killpg(process.pid, signal.SIGKILL)
        # The guard has the same output, and so this ends when it does.
        said, _ = process.communicate()
    assert f"it died; back to {OLD}" in said
    assert scene.percents() == {OLD: 100}


def test_killed_while_gcloud_moves_traffic_the_guard_waits_for_it_and_then_takes_it_back(
    scene: Scene, cloud: Cloud
) -> None:
    here, go_on = scene.folder / "here", scene.folder / "go-on"
    for fifo in (here, go_on):
        os.mkfifo(fifo)
    scene.gcloud.change(hold={"match": f"{NEW}=25", "here": str(here), "go_on": str(go_on)})
    with scene.started(cloud) as process:
        here.read_text()
        assert process.stdout is not None
        assert any("smoke test" in line for line in process.stdout)
        process.kill()
        process.wait()
        # Nobody says anything while gcloud is at it.
        assert select.select([process.stdout], [], [], 0.5)[0] == []
        go_on.write_text("")
        process.communicate()
    # It moved the traffic although nobody waited for it any more, and only then the guard set to work.
    moves = [call for call in scene.gcloud.calls() if "update-traffic" in call]
    assert [f"{NEW}=25" in " ".join(call) for call in moves] == [True, False]
    assert scene.percents() == {OLD: 100}


def run(scene: Scene, *words: str, **environ: str) -> int:
    return canary.main(list(words), {**scene.gcloud.environ(os.environ), **environ})


def test_a_revision_that_fails_its_smoke_test_ends_with_1_and_cannot_be_promoted_any_more(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    world = scene.gcloud.world()
    with scripted_service({**WELL, "POST /": (200, {})}) as url:
        world["services"][SERVICE]["revisions"][1]["origin"] = url
        scene.gcloud.change(**world)
        assert run(scene, "staging") == 1
    assert "ROLLED BACK: SmokeFailed: a request without a key" in capsys.readouterr().err
    assert scene.percents() == {OLD: 100}
    assert "canary" not in scene.tags()


def test_without_a_canary_it_ends_with_2(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    world = scene.gcloud.world()
    del world["services"][SERVICE]["tags"]["canary"]
    scene.gcloud.change(**world)
    assert run(scene, "staging") == 2
    assert "deploy one with --canary" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["prod"], "unknown environment 'prod'"),
        (["production"], "Cannot find service [draiv-bmw]"),
    ],
)
def test_what_cannot_be_begun_ends_with_2(
    scene: Scene, words: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(scene, *words) == 2
    assert problem in capsys.readouterr().err


def test_without_any_project_it_ends_with_2(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.gcloud.change(configured="")
    assert run(scene, "staging") == 2
    assert "give --project" in capsys.readouterr().err


def test_without_gcloud_it_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert canary.main(["staging"], {"PATH": str(tmp_path)}) == 2
    assert "FileNotFoundError" in capsys.readouterr().err


def test_the_only_revision_is_tried_and_left_alone(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    world = scene.gcloud.world()
    world["services"][SERVICE]["percents"] = {"LATEST": 100}
    scene.gcloud.change(**world)
    assert run(scene, "staging", PROJECT="p1", REGION="r1") == 0
    assert "nothing to be compared with" in capsys.readouterr().out


def test_people_are_let_in_too_although_they_get_no_token_for_an_audience(scene: Scene) -> None:
    world = scene.gcloud.world()
    world["services"][SERVICE]["percents"] = {"LATEST": 100}
    scene.gcloud.change(**world, person=True)
    assert run(scene, "staging") == 0
    tokens = [call for call in scene.gcloud.calls() if call[:2] == ["auth", "print-identity-token"]]
    assert tokens == [
        ["auth", "print-identity-token", "--audiences", "http://service"],
        ["auth", "print-identity-token"],
    ]


DEPLOYER = "draiv-deploy-staging@p1.iam.gserviceaccount.com"
MAY_MAKE_ITS_OWN = {
    f"account/{DEPLOYER}": [["roles/iam.serviceAccountOpenIdTokenCreator", f"serviceAccount:{DEPLOYER}"]]
}


@contextmanager
def private(scene: Scene) -> Iterator[None]:
    """The only revision, behind a door that takes the token of the simulated IAM."""
    world = scene.gcloud.world()
    with scripted_service(dict(WELL), ID_TOKEN) as url:
        service = world["services"][SERVICE]
        service["revisions"][1]["origin"] = service["url"] = url
        service["percents"] = {"LATEST": 100}
        scene.gcloud.change(**world)
        yield


@pytest.mark.parametrize("named", [DEPLOYER, ""])
def test_a_pipeline_that_borrows_its_account_is_let_into_a_private_service(
    scene: Scene, cloud: Cloud, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with private(scene):
        scene.gcloud.change(federated=DEPLOYER, account=named, policies=MAY_MAKE_ITS_OWN)
        url = scene.gcloud.world()["services"][SERVICE]["url"]
        ended = run(scene, "staging", "--iam", cloud.monitoring_url)
    assert ended == 0, capsys.readouterr().err
    assert cloud.iam.asked == [{"audience": url, "includeEmail": True}]


def test_without_any_token_a_private_service_is_no_failed_revision_and_is_told_apart(
    scene: Scene, cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    with private(scene):
        scene.gcloud.change(federated=DEPLOYER)
        assert run(scene, "staging", "--iam", cloud.monitoring_url) == 2
    said = capsys.readouterr().err
    assert "lets nobody in without an identity token" in said
    assert "getOpenIdToken' denied" in said
    assert "Invalid account type for `--audiences`" in said


def test_without_any_token_a_public_service_is_tried_all_the_same(scene: Scene, cloud: Cloud) -> None:
    world = scene.gcloud.world()
    with scripted_service(dict(WELL)) as url:
        world["services"][SERVICE]["revisions"][1]["origin"] = world["services"][SERVICE]["url"] = url
        world["services"][SERVICE]["percents"] = {"LATEST": 100}
        scene.gcloud.change(**world, federated=DEPLOYER)
        assert run(scene, "staging", "--iam", cloud.monitoring_url) == 0


def test_a_dismissed_guard_changes_nothing(scene: Scene) -> None:
    scene.gcloud.change(services={})
    process = subprocess.run(
        [sys.executable, "-m", "ops.canary_guard", "p1", "r1", SERVICE, OLD],
        input=b"dismissed\n",
        cwd=ROOT,
        env=scene.gcloud.environ(os.environ),
        check=False,
    )
    assert process.returncode == 0
    assert scene.gcloud.calls() == []


def test_a_wait_that_is_over_is_over_and_probes_are_sent_meanwhile(stack: Stack) -> None:
    sent: list[int] = []
    with Patience(lambda: sent.append(1), times_per_s=100) as patience:
        patience.pause(1.0)
    assert len(sent) >= 2


def test_a_signal_before_a_wait_ends_it_at_once() -> None:
    with Patience() as patience:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted):
            patience.pause(60)


@pytest.mark.parametrize("with_key", [True, False])
def test_probes_ask_both_revisions_and_count_how_each_answered(stack: Stack, with_key: bool) -> None:
    question = Question(stack.key if with_key else None)
    with (
        scripted_service({"POST /": (500, {})}) as failing,
        Probes({"well": stack.api_url, "ill": failing, "gone": "http://127.0.0.1:1"}, {}, question) as probes,
    ):
        probes.send()
        probes.send()
        probes.wait()
        assert probes.counts() == {"well": Probed(2), "ill": Probed(2, 2), "gone": Probed(2, 2)}


@pytest.mark.parametrize(
    ("key", "status", "body", "is_well"),
    [
        (None, 401, '{"error": {"code": "CALLER_UNAUTHENTICATED"}}', True),
        (None, 401, '{"error": {"code": "INTERNAL_ERROR"}}', False),
        (None, 403, '{"error": {"code": "CALLER_UNAUTHENTICATED"}}', False),
        (None, 401, "<html>", False),
        (None, 401, "[]", False),
        ("k", 200, '{"success": true, "result": {"actions": [{}]}}', True),
        ("k", 200, '{"success": true, "result": {"actions": []}}', False),
        ("k", 200, '{"success": false, "result": {"actions": [{}]}}', False),
        ("k", 401, '{"error": {"code": "CALLER_UNAUTHENTICATED"}}', False),
    ],
)
def test_only_the_contracts_own_answer_is_a_good_one(key: str | None, status: int, body: str, is_well: bool) -> None:
    assert Question(key).is_answered_well(httpx.Response(status, text=body)) is is_well


def test_the_canarys_key_is_shown_to_no_gcloud_and_in_no_text(stack: Stack, scene: Scene) -> None:
    assert stack.key not in repr(Question(stack.key))
    assert run(scene, "staging", CANARY_API_KEY="a-secret") == 1  # the smoke test: nobody has such a key
    assert "a-secret" not in str(scene.gcloud.calls())


def test_a_key_that_the_service_does_not_know_is_found_before_any_traffic_moves(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(scene, "staging", CANARY_API_KEY="a-secret") == 1
    assert "a request with the canary's key is answered 401" in capsys.readouterr().err
    assert scene.percents() == {OLD: 100}


def test_without_a_key_it_says_what_that_means(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    world = scene.gcloud.world()
    world["services"][SERVICE]["percents"] = {"LATEST": 100}
    scene.gcloud.change(**world)
    assert run(scene, "staging") == 0
    assert "no CANARY_API_KEY: probes can only be refused" in capsys.readouterr().out
