"""What the simulated project holds, in one JSON file that one command at a time changes."""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

World = dict[str, Any]
"""``apis``, ``accounts``, ``secrets``, ``buckets``, ``policies``, ``services``; see the commands for their contents."""


@contextmanager
def opened(path: Path) -> Iterator[World]:
    """The world, for one command alone; kept when it is done."""
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        world: World = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        yield world
        # Whole or not at all: others read it without the lock.
        draft = path.with_name(f"{path.name}.draft")
        draft.write_text(json.dumps(world, indent=1), encoding="utf-8")
        draft.replace(path)


def policy(world: World, resource: str) -> list[list[str]]:
    """The [role, member] pairs of a resource, such as ``bucket/x``; to be changed in place."""
    found: list[list[str]] = world.setdefault("policies", {}).setdefault(resource, [])
    return found
