"""The simulated gcloud's commands on a project: APIs, accounts, secrets, buckets, and who may do what."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sandbox.gcloud_words import Asked, Command, Commands, Failed
from sandbox.gcloud_world import World, policy

_APIS = {
    "iam": "iam",
    "kms": "cloudkms",
    "run": "run",
    "scheduler": "cloudscheduler",
    "secrets": "secretmanager",
    "storage": "storage",
}
_INVALID_RULES = "Found invalid JSON/YAML for the lifecycle rule"
_RULE_FIELDS = {
    *("type", "storageClass", "age", "createdBefore", "customTimeBefore", "daysSinceCustomTime"),
    *("daysSinceNoncurrentTime", "isLive", "matchesPattern", "matchesPrefix", "matchesStorageClass", "matchesSuffix"),
    *("noncurrentTimeBefore", "numNewerVersions"),
}


def _configured(world: World, asked: Asked) -> str:
    return f"{world.get('configured' if asked.words[0] == 'project' else asked.words[0], '')}\n"


def _access_token(_world: World, _asked: Asked) -> str:
    return "sandbox-access-token\n"


def _identity_token(world: World, asked: Asked) -> str:
    # Federated: there are access tokens of the account that is named there, and no identity tokens at all.
    if "--audiences" in asked.flags and (world.get("person") or world.get("federated")):
        raise Failed("Invalid account type for `--audiences`. Requires valid service account.")
    if world.get("federated"):
        raise Failed("No identity token can be obtained from the current credentials.")
    return "sandbox-identity-token\n"


def _apis(world: World, _asked: Asked) -> list[dict[str, Any]]:
    return [{"config": {"name": name}, "state": "ENABLED"} for name in world.get("apis", [])]


def _enable(world: World, asked: Asked) -> None:
    world["apis"] = sorted({*world.get("apis", []), *asked.words})
    world["refusals_left"] = world.get("lag", 0)


def check_api(world: World, argv: list[str]) -> None:
    """Raises Failed where the API of a command is not enabled, or is not known to be yet."""
    api = _APIS.get(argv[0])
    if api is None or "apis" not in world:
        return
    known = f"{api}.googleapis.com" in world["apis"]
    if known and not world.get("refusals_left"):
        return
    if known:
        world["refusals_left"] -= 1
    raise Failed(
        f"PERMISSION_DENIED: {api} API has not been used in project 1 before or it is disabled. Enable it by visiting "
        "the console then retry. If you enabled this API recently, wait a few minutes."
    )


def _describe(kind: str, said: str) -> Callable[[World, Asked], Any]:
    def describe(world: World, asked: Asked) -> Any:  # noqa: ANN401 - any JSON
        name = asked.words[0].removeprefix("gs://")
        if name not in world.get(kind, {}):
            raise Failed(said.format(name))
        return world[kind][name]

    return describe


def _create_account(world: World, asked: Asked) -> None:
    email = f"{asked.words[0]}@{asked.flags['--project']}.iam.gserviceaccount.com"
    if email in world.setdefault("accounts", {}):
        raise Failed(f"Service account {asked.words[0]} already exists within project.")
    world["accounts"][email] = {"email": email, "displayName": asked.flags.get("--display-name", "")}


def _create_bucket(world: World, asked: Asked) -> None:
    name, flags = asked.words[0].removeprefix("gs://"), asked.flags
    if name in world.setdefault("buckets", {}):
        raise Failed(
            "HTTPError 409: Your previous request to create the named bucket succeeded and you already own it."
        )
    world["buckets"][name] = {
        "name": name,
        "location": flags["--location"].upper(),
        "uniform_bucket_level_access": "--uniform-bucket-level-access" in flags,
        "public_access_prevention": "enforced" if "--public-access-prevention" in flags else "inherited",
        # As the platform does where nothing else is said: a week.
        "soft_delete_policy": {"retentionDurationSeconds": flags.get("--soft-delete-duration", "604800").rstrip("s")},
    }


def _update_bucket(world: World, asked: Asked) -> None:
    bucket = _describe("buckets", "gs://{} not found: 404.")(world, asked)
    if "--versioning" in asked.flags:
        bucket["versioning_enabled"] = True
    if "--no-versioning" in asked.flags:
        bucket.pop("versioning_enabled", None)
    if "--clear-soft-delete" in asked.flags:
        bucket["soft_delete_policy"] = {"retentionDurationSeconds": "0"}
    if "--uniform-bucket-level-access" in asked.flags:
        bucket["uniform_bucket_level_access"] = True
    if "--lifecycle-file" in asked.flags:
        _set_lifecycle(bucket, Path(asked.flags["--lifecycle-file"]))


def _set_lifecycle(bucket: dict[str, Any], file: Path) -> None:
    """The rules in the file take the place of all others, and are shown as they stand there."""
    if not file.is_file():
        raise Failed(f"Unable to read file [{file}]: [Errno 2] No such file or directory: '{file}'")
    try:
        given = json.loads(file.read_text(encoding="utf-8"))
        rules = given.get("lifecycle", given)
        named = {name for rule in rules["rule"] for name in (*rule["action"], *rule["condition"])}
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise Failed(_INVALID_RULES) from error
    if not named <= _RULE_FIELDS:
        raise Failed(_INVALID_RULES)
    bucket["lifecycle_config"] = rules


def _create_secret(world: World, asked: Asked) -> None:
    name = asked.words[0]
    if name in world.setdefault("secrets", {}):
        raise Failed(f"Secret [projects/{asked.flags['--project']}/secrets/{name}] already exists.")
    if asked.flags.get("--data-file") != "-":
        raise Failed("the sandbox takes secrets by standard input only")
    world["secrets"][name] = {"name": name, "versions": [sys.stdin.read()]}


def _secret_version(world: World, asked: Asked) -> dict[str, str]:
    secret = world.get("secrets", {}).get(asked.flags["--secret"], {"versions": []})
    if not 1 <= int(asked.words[0]) <= len(secret["versions"]):
        raise Failed("NOT_FOUND: Secret Version not found.")
    return {"name": asked.words[0], "state": "ENABLED"}


def _read_secret(world: World, asked: Asked) -> str:
    version = int(_secret_version(world, asked)["name"])
    text: str = world["secrets"][asked.flags["--secret"]]["versions"][version - 1]
    return text


def read_policy(resource: str) -> Callable[[World, Asked], Any]:
    """A command that shows the policy of ``resource``/its word."""

    def read(world: World, asked: Asked) -> Any:  # noqa: ANN401 - any JSON
        members: dict[str, list[str]] = {}
        for role, member in policy(world, f"{resource}/{asked.words[0].removeprefix('gs://')}"):
            members.setdefault(role, []).append(member)
        return {"bindings": [{"members": who, "role": role} for role, who in members.items()]}

    return read


def add_binding(resource: str) -> Callable[[World, Asked], Any]:
    """A command that adds to the policy of ``resource``/its word."""

    def add(world: World, asked: Asked) -> None:
        if resource in world.get("no_set_iam_policy", []):
            raise Failed(f"PERMISSION_DENIED: Permission '{resource}.setIamPolicy' denied")
        member = asked.flags["--member"]
        kind, _, email = member.partition(":")
        if kind == "serviceAccount" and email not in world.get("accounts", {}):
            raise Failed(f"INVALID_ARGUMENT: Service account {email} does not exist.")
        bound = policy(world, f"{resource}/{asked.words[0].removeprefix('gs://')}")
        if [asked.flags["--role"], member] not in bound:
            bound.append([asked.flags["--role"], member])

    return add


_BIND = "member role condition"
COMMANDS: Commands = {
    "config get-value": Command(_configured, 1),
    "auth print-access-token": Command(_access_token, 0),
    "auth print-identity-token": Command(_identity_token, 0, "audiences"),
    "services list": Command(_apis, 0, switches="enabled"),
    "services enable": Command(_enable, None),
    "projects get-iam-policy": Command(read_policy("project"), 1),
    "projects add-iam-policy-binding": Command(add_binding("project"), 1, _BIND),
    "iam service-accounts describe": Command(_describe("accounts", "NOT_FOUND: Unknown service account {}."), 1),
    "iam service-accounts create": Command(_create_account, 1, "display-name"),
    "iam service-accounts get-iam-policy": Command(read_policy("account"), 1),
    "iam service-accounts add-iam-policy-binding": Command(add_binding("account"), 1, _BIND),
    "storage buckets describe": Command(_describe("buckets", "gs://{} not found: 404."), 1),
    "storage buckets create": Command(
        _create_bucket, 1, "location soft-delete-duration", "uniform-bucket-level-access public-access-prevention"
    ),
    "storage buckets update": Command(
        _update_bucket,
        1,
        "lifecycle-file",
        "versioning no-versioning clear-soft-delete uniform-bucket-level-access",
    ),
    "storage buckets get-iam-policy": Command(read_policy("bucket"), 1),
    "storage buckets add-iam-policy-binding": Command(add_binding("bucket"), 1, _BIND),
    "secrets describe": Command(_describe("secrets", "NOT_FOUND: Secret [{}] not found."), 1),
    "secrets create": Command(_create_secret, 1, "replication-policy data-file"),
    "secrets versions describe": Command(_secret_version, 1, "secret"),
    "secrets versions access": Command(_read_secret, 1, "secret"),
    "secrets get-iam-policy": Command(read_policy("secret"), 1),
    "secrets add-iam-policy-binding": Command(add_binding("secret"), 1, _BIND),
    "kms keys get-iam-policy": Command(read_policy("kms"), 1),
    "kms keys add-iam-policy-binding": Command(add_binding("kms"), 1, _BIND),
}
