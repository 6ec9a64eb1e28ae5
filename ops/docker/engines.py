"""How a container is run and entered: by Docker, or by runc where there is no engine.

Both run the image's own command as the image's own user, with a read-only file system, no capability and no way to
gain one; ``/tmp`` and ``/data`` are the only places to write.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_NAMESPACES = ("pid", "ipc", "uts", "mount")
"""Not the network's: without an engine there is nobody to connect a network to the machine's."""


@dataclass(frozen=True)
class Commands:
    """``run`` serves in the foreground and ends by SIGTERM; ``enter`` stands before what is to be run inside."""

    run: tuple[str, ...]
    enter: tuple[str, ...]


def docker(image: str, name: str, port: int, settings: Mapping[str, str]) -> Commands:
    """A container of ``image`` whose port 8080 is this machine's ``port``, loopback only."""
    hardened = ("--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges")
    environ = tuple(f"--env={key}={value}" for key, value in settings.items())
    place = (f"--name={name}", f"--publish=127.0.0.1:{port}:8080")
    return Commands(("docker", "run", "--rm", *hardened, *environ, *place, image), ("docker", "exec", name))


def runc(bundle: Path, name: str) -> Commands:
    """A container of the OCI bundle in ``bundle``, whose state is kept beside it."""
    program = ("runc", "--root", str(bundle / "state"))
    return Commands((*program, "run", "--bundle", str(bundle), name), (*program, "exec", name))


def runtime_config(image: Mapping[str, Any], rootfs: Path, port: int, settings: Mapping[str, str]) -> dict[str, Any]:
    """An OCI ``config.json`` for an image's own config (``User`` as numbers, ``Env``, ``Cmd``, ``WorkingDir``).

    It shares the machine's network, so it is told to listen on ``port`` of the loopback interface only.
    """
    uid, gid = (int(number) for number in image["User"].split(":"))
    told = {"HOST": "127.0.0.1", "PORT": str(port), **settings}
    kept = [pair for pair in image["Env"] if pair.partition("=")[0] not in told]
    return {
        "ociVersion": "1.0.2",
        "root": {"path": str(rootfs), "readonly": True},
        "hostname": "container",
        "process": {
            "user": {"uid": uid, "gid": gid},
            "args": [*(image.get("Entrypoint") or []), *image["Cmd"]],
            "env": [*kept, *(f"{name}={value}" for name, value in told.items())],
            "cwd": image["WorkingDir"],
            "capabilities": {},
            "noNewPrivileges": True,
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev"]},  # noqa: S108 - inside
            *(
                {"destination": place, "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", f"uid={uid}"]}
                for place in image.get("Volumes") or {}
            ),
        ],
        "linux": {"namespaces": [{"type": kind} for kind in _NAMESPACES]},
    }


def write_bundle(bundle: Path, config: Mapping[str, Any]) -> None:
    """Make ``bundle`` hold ``config``."""
    bundle.mkdir(parents=True, exist_ok=True)
    (bundle / "config.json").write_text(json.dumps(config))
