"""The simulated gcloud's commands on Cloud Run jobs, and on Cloud Scheduler, which starts them."""

from typing import Any

from sandbox.gcloud_project import add_binding, read_policy
from sandbox.gcloud_run import check_identity
from sandbox.gcloud_words import Asked, Command, Commands, Failed, pairs
from sandbox.gcloud_world import World


def _deploy(world: World, asked: Asked) -> None:
    check_identity(world, asked.flags)
    world.setdefault("jobs", {})[asked.words[0]] = {
        "metadata": {"name": asked.words[0], "labels": pairs(asked.flags.get("--labels", ""))},
        "flags": dict(asked.flags),
    }


def _describe(world: World, asked: Asked) -> dict[str, Any]:
    found: dict[str, Any] | None = world.get("jobs", {}).get(asked.words[0])
    if found is None:
        raise Failed(f"Cannot find job [{asked.words[0]}]")
    return found


def _trigger(world: World, asked: Asked) -> dict[str, Any]:
    found: dict[str, Any] | None = world.get("triggers", {}).get(asked.words[0])
    if found is None:
        raise Failed("NOT_FOUND: Job not found.")
    return found


def _create_trigger(world: World, asked: Asked) -> None:
    name, flags = asked.words[0], asked.flags
    if name in world.setdefault("triggers", {}):
        raise Failed(f"ALREADY_EXISTS: Job [{name}] already exists.")
    if flags["--oauth-service-account-email"] not in world.get("accounts", {}):
        raise Failed("NOT_FOUND: The principal (user or service account) could not be found.")
    world["triggers"][name] = {
        "name": name,
        "state": "ENABLED",
        "schedule": flags["--schedule"],
        "uri": flags["--uri"],
        "account": flags["--oauth-service-account-email"],
    }


def _resume(world: World, asked: Asked) -> None:
    _trigger(world, asked)["state"] = "ENABLED"


COMMANDS: Commands = {
    "run jobs deploy": Command(
        _deploy,
        1,
        "region image command args service-account cpu memory max-retries task-timeout set-env-vars set-secrets labels "
        "network subnet vpc-egress",
    ),
    "run jobs describe": Command(_describe, 1, "region"),
    "run jobs get-iam-policy": Command(read_policy("job"), 1, "region"),
    "run jobs add-iam-policy-binding": Command(add_binding("job"), 1, "region member role condition"),
    "scheduler jobs describe": Command(_trigger, 1, "location"),
    "scheduler jobs create http": Command(
        _create_trigger, 1, "location schedule time-zone uri http-method oauth-service-account-email"
    ),
    "scheduler jobs resume": Command(_resume, 1, "location"),
}
