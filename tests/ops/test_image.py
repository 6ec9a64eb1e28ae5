"""Tests of what tries the image: the smoke test and the probe on real servers, the verdict on what they report.

The image itself is built and tried by .github/workflows/docker.yml and ops/docker/build_offline.sh.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ops.docker import healthcheck, probe, smoke
from ops.docker.engines import Commands, docker, runc, runtime_config, write_bundle
from ops.docker.try_image import FILES, WRITABLE, NotAsItShould, problems, try_container
from ops.lint import ROOT
from ops.processes import Server, StartFailed, free_port
from ops.stack import Stack, running

IMAGE = {
    "User": "65532:65532",
    "Env": ["PATH=/opt/venv/bin:/bin", "PORT=8080", "THREADS=32"],
    "Cmd": ["functions-framework", "--target=bmw_api"],
    "WorkingDir": "/app",
    "Volumes": {"/data": {}},
}
GOOD: dict[str, Any] = {
    "uid": 65532,
    "capabilities": 0,
    "no_new_privileges": True,
    "writable": WRITABLE,
    "files": sorted(FILES),
    "uncompiled": [],
    "commands": ["/opt/venv/bin/python3"],
}


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a service as the image starts it: production, nobody let in."""
    folder, port = tmp_path_factory.mktemp("closed"), free_port()
    environ = {"PATH": str(Path(sys.executable).parent), "DOCUMENTS_URL": f"sqlite:///{folder / 'draiv.db'}"}
    command = [sys.executable, "-m", "functions_framework", "--target=bmw_api", "--host=127.0.0.1", f"--port={port}"]
    with Server("The API", command, environ=environ, cwd=ROOT, log=folder / "log") as server:
        server.wait_until_answers(f"http://127.0.0.1:{port}/health")
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The service as compose.yaml starts it: everybody let in, in front of the simulated maker."""
    environ = {**os.environ, "CALLERS": "open", "POLL_INTERVAL_S": "0.05"}
    with running(tmp_path_factory.mktemp("opened"), environ, event_step_s=0) as both:
        yield both


def broken(tmp_path: Path) -> Server:
    """A server that is none of ours: Python's own, on an empty folder, on the port in ``tmp_path / "port"``."""
    port = free_port()
    (tmp_path / "port").write_text(str(port))
    (tmp_path / "empty").mkdir()
    command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
    return Server("Nobody", command, environ={}, cwd=tmp_path / "empty", log=tmp_path / "log")


def test_a_closed_service_passes_the_smoke_test(closed: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert smoke.main([closed]) == 0
    said = capsys.readouterr().out
    assert "healthy after" in said
    assert "ok: nobody is let in" in said


def test_a_service_in_front_of_the_simulated_maker_passes_with_cars(opened: Stack) -> None:
    before = opened.sandbox.stats("one@example.com")["commands_received"]
    assert smoke.main([opened.api_url, "--cars", "--wait-s", "10"]) == 0
    assert opened.sandbox.stats("one@example.com")["commands_received"] == before + 1


def test_an_open_service_that_should_be_closed_fails(opened: Stack) -> None:
    with pytest.raises(smoke.SmokeFailed, match="nobody is let in without credentials, and got 4"):
        smoke.check(opened.api_url)


def test_a_closed_service_that_should_drive_cars_fails(closed: str) -> None:
    with pytest.raises(smoke.SmokeFailed, match="an account is connected, and got 401"):
        smoke.check(closed, cars=True)


def test_a_service_that_is_not_there_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert smoke.main([f"http://127.0.0.1:{free_port()}", "--wait-s", "0.1"]) == 1
    assert "last: no answer" in capsys.readouterr().err
    with pytest.raises(smoke.SmokeFailed, match="no proper answer"):
        smoke.check(f"http://127.0.0.1:{free_port()}")


def test_something_else_on_the_port_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with broken(tmp_path) as server:
        url = f"http://127.0.0.1:{(tmp_path / 'port').read_text()}"
        server.wait_until_answers(url)
        assert smoke.main([url, "--wait-s", "0"]) == 1
        assert "last: 404" in capsys.readouterr().err
        with pytest.raises(smoke.SmokeFailed, match="/health says healthy"):
            smoke.check(url)


def health_check(port: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", healthcheck.__name__]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PORT": port}, capture_output=True, text=True, check=False
    )


def test_the_health_check_passes_where_health_is_200_and_only_there(closed: str, tmp_path: Path) -> None:
    assert health_check(closed.rpartition(":")[2]).returncode == 0
    nobody = health_check(str(free_port()))
    assert (nobody.returncode, nobody.stdout) == (1, "no answer: ConnectionRefusedError\n")
    with broken(tmp_path) as server:
        port = (tmp_path / "port").read_text()
        server.wait_until_answers(f"http://127.0.0.1:{port}")
        assert health_check(port).returncode == 1


def test_a_container_as_it_should_be_has_no_problem() -> None:
    assert problems(GOOD) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"uid": 0}, "root"),
        ({"capabilities": 0x400}, "capabilities: 0x400"),
        ({"no_new_privileges": False}, "gain privileges"),
        ({"writable": WRITABLE[:1]}, "can write"),
        ({"writable": ["/app", *WRITABLE]}, "can write"),
        ({"files": [*GOOD["files"], "tests"]}, "tests"),
        ({"uncompiled": ["main.py"]}, "not compiled: ['main.py']"),
        ({"commands": ["/bin/sh", "python3"]}, "a shell runs in it: ['/bin/sh']"),
        ({"commands": ["-bash"]}, "a shell runs"),
        ({"commands": []}, "own processes"),
    ],
)
def test_each_thing_that_is_wrong_with_a_container_is_named(change: dict[str, Any], problem: str) -> None:
    [found] = problems({**GOOD, **change})
    assert problem in found


def test_the_probe_tells_what_it_sees(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app/one.py").touch()
    seen = probe.probe(tmp_path / "app", (str(tmp_path), "/proc", str(tmp_path / "none")))
    assert seen["writable"] == [str(tmp_path)]
    assert seen["files"] == ["one.py"]
    assert seen["uncompiled"] == ["one.py"]
    assert seen["no_new_privileges"] in (True, False)
    assert any("python" in command for command in seen["commands"])
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(tmp_path / "app")], check=True)
    assert probe.probe(tmp_path / "app", ())["uncompiled"] == []


def test_the_probe_reports_as_one_line_of_json_when_run_by_its_source(tmp_path: Path) -> None:
    source = Path(probe.__file__).read_text().replace("/app", str(tmp_path))
    ran = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert set(json.loads(ran.stdout)) == set(GOOD)


def test_docker_is_told_to_be_strict_and_to_publish_on_the_loopback_interface_only() -> None:
    commands = docker("image", "name", 9000, {"CALLERS": "open"})
    assert commands.run[-1] == "image"
    strict = {"--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--env=CALLERS=open"}
    assert {*strict, "--publish=127.0.0.1:9000:8080"} <= set(commands.run)
    assert commands.enter == ("docker", "exec", "name")


def test_runc_gets_the_images_own_command_and_user_on_a_read_only_root(tmp_path: Path) -> None:
    config = runtime_config(IMAGE, tmp_path / "rootfs", 9000, {"CALLERS": "open"})
    process = config["process"]
    assert process["args"] == IMAGE["Cmd"]
    assert process["user"] == {"uid": 65532, "gid": 65532}
    assert process["env"] == [
        "PATH=/opt/venv/bin:/bin", "THREADS=32", "HOST=127.0.0.1", "PORT=9000", "CALLERS=open"
    ]  # fmt: skip
    assert (process["noNewPrivileges"], process["capabilities"], process["cwd"]) == (True, {}, "/app")
    assert config["root"] == {"path": str(tmp_path / "rootfs"), "readonly": True}
    assert set(WRITABLE) <= {mount["destination"] for mount in config["mounts"]}
    write_bundle(tmp_path / "bundle", config)
    assert json.loads((tmp_path / "bundle/config.json").read_text()) == config
    assert runc(tmp_path / "bundle", "name").enter[-2:] == ("exec", "name")


def uncontained(folder: Path, port: int) -> Commands:
    """In place of a container: the service on this machine, which is neither read-only nor another user's."""
    environ = ("env", f"DOCUMENTS_URL=sqlite:///{folder / 'draiv.db'}", f"PORT={port}")
    where = ("--host=127.0.0.1", f"--source={ROOT / 'main.py'}")
    serve = (sys.executable, "-m", "functions_framework", "--target=bmw_api", *where)
    return Commands((*environ, f"PYTHONPATH={ROOT}", *serve), (*environ,))


def test_a_process_that_is_not_contained_is_told_from_a_container(tmp_path: Path) -> None:
    port = free_port()
    with pytest.raises(NotAsItShould, match=r"python3 -c inside|/app holds|it can write"):
        try_container(uncontained(tmp_path, port), f"http://127.0.0.1:{port}", tmp_path)


def test_a_container_that_does_not_start_is_told_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match="no such image"):
        try_container(Commands(("sh", "-c", "echo no such image; exit 125"), ()), "http://127.0.0.1:9", tmp_path)


STAND_IN = """#!{python}
# In place of docker and of runc: serves on this machine, and says of itself what it is told to say.
import json, os, sys
words = sys.argv[1:]
if "exec" in words:
    print(os.environ["REPORT"])
    sys.exit()
if "--bundle" in words:
    config = json.load(open(words[words.index("--bundle") + 1] + "/config.json"))
    told = dict(pair.split("=", 1) for pair in config["process"]["env"])
else:
    [place] = [word for word in words if word.startswith("--publish=")]
    told = {{"PORT": place.split(":")[1]}}
os.chdir("{root}")
serve = ["-m", "functions_framework", "--target=bmw_api", "--host=127.0.0.1", "--port=" + told["PORT"]]
os.execv("{python}", ["{python}", *serve])
"""


def try_image(folder: Path, report: object, *words: str) -> subprocess.CompletedProcess[str]:
    for name in ("docker", "runc"):
        (folder / name).write_text(STAND_IN.format(python=sys.executable, root=ROOT))
        (folder / name).chmod(0o755)
    environ = {**os.environ, "PATH": f"{folder}:/usr/bin:/bin", "REPORT": json.dumps(report), "PYTHONPATH": str(ROOT)}
    environ["DOCUMENTS_URL"] = f"sqlite:///{folder / 'draiv.db'}"
    command = [sys.executable, "-m", "ops.docker.try_image", *words]
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)


def test_an_image_that_is_as_it_should_be_passes_under_docker(tmp_path: Path) -> None:
    tried = try_image(tmp_path, GOOD, "--docker", "image")
    assert tried.returncode == 0, tried.stderr
    assert "read-only but for /tmp and /data" in tried.stdout
    assert "after the container was asked for" in tried.stdout


def test_an_image_that_is_not_as_it_should_be_fails_under_runc(tmp_path: Path) -> None:
    (tmp_path / "image.json").write_text(json.dumps({"Docker": {"config": IMAGE}}))
    words = ("--runc", str(tmp_path / "rootfs"), "--image", str(tmp_path / "image.json"))
    assert try_image(tmp_path, GOOD, *words).returncode == 0
    tried = try_image(tmp_path, {**GOOD, "uid": 0}, *words)
    assert tried.returncode == 1
    assert "it runs as root" in tried.stderr


def test_runc_without_the_images_config_is_refused(tmp_path: Path) -> None:
    refused = try_image(tmp_path, GOOD, "--runc", str(tmp_path))
    assert refused.returncode == 2
    assert "--runc needs --image" in refused.stderr


def test_the_image_starts_as_the_platform_does_and_without_a_shell() -> None:
    [command] = re.findall(r"^CMD (\[.*\])$", (ROOT / "Dockerfile").read_text().partition(" AS api")[2], re.MULTILINE)
    assert json.loads(command) == ["functions-framework", "--target=bmw_api"]


def test_compose_publishes_nothing_beyond_this_machine() -> None:
    ports = re.findall(r"ports: \[(.*)\]", (ROOT / "compose.yaml").read_text())
    assert len(ports) == 4
    assert all(port.startswith('"127.0.0.1:') for port in ports)


@pytest.mark.parametrize("path", sorted((ROOT / ".github/workflows").glob("*.yml")), ids=lambda path: path.stem)
def test_a_workflow_pins_every_action_by_commit_and_begins_without_permissions(path: Path) -> None:
    text = path.read_text()
    used = re.findall(r"uses: (?!\./)(\S+)(.*)", text)
    assert all(re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action) for action, _ in used)
    assert all(re.fullmatch(r" # v\d+\.\d+\.\d+", version) for _, version in used)
    assert re.search(r"^permissions: \{\}$", text, re.MULTILINE)


def test_one_action_is_pinned_to_one_commit_everywhere() -> None:
    workflows = (ROOT / ".github/workflows").glob("*.yml")
    pins = {use for path in workflows for use in re.findall(r"uses: ([\w-]+/[\w-]+)\S*@(\S+ # \S+)", path.read_text())}
    assert len(pins) == len({action for action, _ in pins})


def test_a_deployment_uses_no_stored_key() -> None:
    text = (ROOT / ".github/workflows/deploy.yml").read_text()
    assert "secrets." not in text
    assert "credentials_json" not in text
    assert "id-token: write" in text
