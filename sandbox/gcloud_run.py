"""The simulated gcloud's commands on Cloud Run: services, revisions, tags, traffic.

Traffic behaves as the platform's: a new revision gets all of it where the service says "the latest", and none once
somebody has named revisions; shares that are not named keep their proportions; a tag stays until it is moved.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sandbox.gcloud_project import add_binding, read_policy
from sandbox.gcloud_words import Asked, Command, Commands, Failed, pairs
from sandbox.gcloud_world import World, policy

LATEST = "LATEST"


def _service(world: World, asked: Asked) -> dict[str, Any]:
    service: dict[str, Any] | None = world.get("services", {}).get(asked.words[0])
    if service is None:
        raise Failed(f"Cannot find service [{asked.words[0]}]")
    return service


def _deploy(world: World, asked: Asked) -> None:
    name, flags = asked.words[0], asked.flags
    service = world.setdefault("services", {}).get(name)
    if "--no-traffic" in flags and service is None:
        raise Failed("--no-traffic not supported when creating a new service.")
    _check_source(flags)
    check_identity(world, flags)
    if service is None:
        service = {"revisions": [], "percents": {LATEST: 100}, "tags": {}, "url": f"https://{name}-sandbox.a.run.app"}
        world["services"][name] = service
    if "--no-traffic" in flags and LATEST in service["percents"]:
        share = service["percents"].pop(LATEST)
        newest = service["revisions"][-1]["name"]
        service["percents"][newest] = service["percents"].get(newest, 0) + share
    revision = f"{name}-{len(service['revisions']) + 1:05d}-sbx"
    origins = world.get("origins", [])
    service["revisions"].append({"name": revision, "origin": origins.pop(0) if origins else None, "flags": flags})
    service["labels"] = pairs(flags.get("--labels", ""))
    if "--tag" in flags:
        service["tags"][flags["--tag"]] = revision
    if "--allow-unauthenticated" in flags and "run" not in world.get("no_set_iam_policy", []):
        policy(world, f"run/{name}").append(["roles/run.invoker", "allUsers"])


def _check_source(flags: Mapping[str, str]) -> None:
    source = Path(flags["--source"])
    if not source.is_dir():
        raise Failed(f"could not find source [{source}]")
    if "--base-image" in flags and (source / "Dockerfile").exists():
        raise Failed("--base-image: Base image is not supported for services built from Dockerfile.")


def check_identity(world: World, flags: Mapping[str, str]) -> None:
    """Refuse an account that is not there, and secrets that are not there or that it may not read."""
    account = flags["--service-account"]
    if account not in world.get("accounts", {}):
        raise Failed(f"Service account {account} was not found.")
    for reference in pairs(flags.get("--set-secrets", "")).values():
        secret, _, version = reference.partition(":")
        if int(version) > len(world.get("secrets", {}).get(secret, {"versions": []})["versions"]):
            raise Failed(f"Secret {secret}/versions/{version} was not found")
        if ["roles/secretmanager.secretAccessor", f"serviceAccount:{account}"] not in policy(world, f"secret/{secret}"):
            raise Failed(f"Permission denied on secret: {secret} for Revision service account {account}.")


def _update_traffic(world: World, asked: Asked) -> None:
    service, flags = _service(world, asked), asked.flags
    known = {revision["name"] for revision in service["revisions"]}
    for tag in filter(None, flags.get("--remove-tags", "").split(",")):
        service["tags"].pop(tag, None)
    for tag, revision in pairs(flags.get("--update-tags", "")).items():
        if revision not in known:
            raise Failed(f"Revision [{revision}] could not be found.")
        service["tags"][tag] = revision
    wanted = pairs(flags.get("--to-revisions", ""))
    for tag, percent in pairs(flags.get("--to-tags", "")).items():
        if tag not in service["tags"]:
            raise Failed(f"The tag [{tag}] does not exist.")
        wanted[service["tags"][tag]] = percent
    for revision in wanted:
        if revision not in known:
            raise Failed(f"Revision [{revision}] could not be found.")
    if wanted:
        service["percents"] = _shares(service["percents"], {name: int(share) for name, share in wanted.items()})


def _shares(before: dict[str, int], wanted: dict[str, int]) -> dict[str, int]:
    left = 100 - sum(wanted.values())
    others = {name: share for name, share in before.items() if name not in wanted}
    if left < 0:
        raise Failed("Over 100% of traffic is specified.")
    if left and not others:
        raise Failed("Every target with traffic is updated but 100% of traffic has not been specified.")
    shared = {name: left * share // sum(others.values()) for name, share in others.items()}
    if shared:
        first = next(iter(shared))
        shared[first] += left - sum(shared.values())
    return {name: share for name, share in {**shared, **wanted}.items() if share}


def _describe(world: World, asked: Asked) -> dict[str, Any]:
    service, name = _service(world, asked), asked.words[0]
    newest = service["revisions"][-1]["name"]
    targets: list[dict[str, Any]] = [
        {"latestRevision": True, "percent": share, "revisionName": newest}
        if revision == LATEST
        else {"percent": share, "revisionName": revision}
        for revision, share in service["percents"].items()
    ]
    targets += [
        {"revisionName": revision, "tag": tag, "url": tag_url(service, tag)}
        for tag, revision in service["tags"].items()
    ]
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": service["labels"]},
        "spec": {"template": {"spec": {"containers": [{"image": f"r1-docker.pkg.dev/p1/sandbox/{newest}"}]}}},
        "status": {
            "latestCreatedRevisionName": newest,
            "latestReadyRevisionName": newest,
            "traffic": targets,
            "url": service["url"],
        },
    }


def tag_url(service: dict[str, Any], tag: str) -> str:
    """Where a tag's revision answers: its ``door`` if it has one, or where it really runs, if it does."""
    origins = {revision["name"]: revision.get("door") or revision["origin"] for revision in service["revisions"]}
    found: str = origins[service["tags"][tag]] or service["url"].replace("https://", f"https://{tag}---")
    return found


def _services(world: World, _asked: Asked) -> list[dict[str, Any]]:
    return [{"metadata": {"name": name}} for name in world.get("services", {})]


def _revisions(world: World, asked: Asked) -> list[dict[str, Any]]:
    revisions = world.get("services", {}).get(asked.flags["--service"], {"revisions": []})["revisions"]
    return [
        {"metadata": {"name": revision["name"], "labels": pairs(revision["flags"].get("--labels", ""))}}
        for revision in reversed(revisions)
    ][: int(asked.flags.get("--limit", "1000"))]


COMMANDS: Commands = {
    "run deploy": Command(
        _deploy,
        1,
        "region source function base-image build-service-account service-account concurrency cpu memory min "
        "max max-instances timeout set-env-vars set-secrets labels tag command args network subnet vpc-egress",
        "cpu-boost no-cpu-throttling no-traffic allow-unauthenticated no-allow-unauthenticated",
    ),
    "run services update-traffic": Command(
        _update_traffic,
        1,
        "region to-revisions to-tags update-tags remove-tags",
    ),
    "run services describe": Command(_describe, 1, "region"),
    "run services list": Command(_services, 0, "region"),
    "run revisions list": Command(_revisions, 0, "region service limit"),
    "run services get-iam-policy": Command(read_policy("run"), 1, "region"),
    "run services add-iam-policy-binding": Command(add_binding("run"), 1, "region member role condition"),
}
