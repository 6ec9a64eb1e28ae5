"""``python -m ops.docker.try_image``: run an image as strictly as it can be run, and see that it is what it should be.

::

    --docker IMAGE                 by Docker
    --runc ROOTFS --image FILE     by runc: the image's unpacked file system, and what `buildah inspect` says of it
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ops.docker import probe, smoke
from ops.docker.engines import Commands, docker, runc, runtime_config, write_bundle
from ops.processes import Server, StartFailed, free_port

FILES = {"__pycache__", "common", "functions", "healthcheck.py", "main.py"}
WRITABLE = ["/tmp", "/data"]  # noqa: S108 - inside the container
_SHELLS = {"ash", "bash", "busybox", "dash", "sh"}
_ENTER_TIMEOUT_S = 30.0


class NotAsItShould(Exception):
    """What is wrong with the image, a line each."""


def problems(report: Mapping[str, Any]) -> list[str]:
    """What is wrong with a container that reports so of itself (:mod:`ops.docker.probe`)."""
    shells = [command for command in report["commands"] if Path(command).name.lstrip("-") in _SHELLS]
    expected = {
        "it runs as root": report["uid"] == 0,
        f"it has capabilities: {report['capabilities']:#x}": report["capabilities"] != 0,
        "it may gain privileges": not report["no_new_privileges"],
        f"it can write to {report['writable']}, which should be {WRITABLE}": report["writable"] != WRITABLE,
        f"/app holds {report['files']}, which should be {sorted(FILES)}": set(report["files"]) != FILES,
        f"it has modules that are not compiled: {report['uncompiled'][:5]}": bool(report["uncompiled"]),
        f"a shell runs in it: {shells}": bool(shells),
        "it does not see its own processes": not report["commands"],
    }
    return [problem for problem, is_so in expected.items() if is_so]


def try_container(commands: Commands, url: str, scratch: Path) -> float:
    """Start it, try it, end it; how long it took to be healthy, seconds. Raises NotAsItShould and SmokeFailed."""
    began_s = time.monotonic()
    server = Server("The container", commands.run, environ=os.environ, cwd=scratch, log=scratch / "container.log")
    with server:
        server.wait_until_answers(f"{url}/health", timeout_s=60)
        healthy_after_s = time.monotonic() - began_s
        smoke.check(url, say=print)
        report = json.loads(_inside(commands, "-c", Path(probe.__file__).read_text()))
        if wrong := problems(report):
            raise NotAsItShould("\n".join(wrong))
        places = " and ".join(report["writable"])
        print(f"ok: uid {report['uid']}, no capabilities, read-only but for {places}, no shell runs")
        _inside(commands, "healthcheck.py")
        print("ok: its own health check passes")
    return healthy_after_s


def _inside(commands: Commands, *arguments: str) -> str:
    entered = subprocess.run(
        [*commands.enter, "python3", *arguments], capture_output=True, text=True, check=False, timeout=_ENTER_TIMEOUT_S
    )
    if entered.returncode != 0:
        raise NotAsItShould(f"python3 {arguments[0]} inside: {entered.returncode} {entered.stdout}{entered.stderr}")
    return entered.stdout


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="ops.docker.try_image", description=__doc__)
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--docker", metavar="IMAGE")
    kind.add_argument("--runc", metavar="ROOTFS", type=Path)
    parser.add_argument("--image", metavar="FILE", type=Path, help="with --runc: `buildah inspect --type image`")
    given = parser.parse_args(argv)
    if given.runc and not given.image:
        parser.error("--runc needs --image")
    port = free_port()
    name = f"draiv-try-{os.getpid()}"
    with tempfile.TemporaryDirectory(prefix="draiv-try-") as folder:
        scratch = Path(folder)
        if given.docker:
            commands = docker(given.docker, name, port, {})
        else:
            image = json.loads(given.image.read_text())["Docker"]["config"]
            write_bundle(scratch / "bundle", runtime_config(image, given.runc.resolve(), port, {}))
            commands = runc(scratch / "bundle", name)
        try:
            took_s = try_container(commands, f"http://127.0.0.1:{port}", scratch)
        except (NotAsItShould, smoke.SmokeFailed, StartFailed) as failure:
            print(f"FAILED: {failure}", file=sys.stderr)
            return 1
    print(f"healthy {took_s:.2f} s after the container was asked for")
    return 0


if __name__ == "__main__":
    sys.exit(main())
