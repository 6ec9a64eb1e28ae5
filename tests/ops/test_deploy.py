"""Tests of deploy.sh in a real checkout, against the simulated gcloud."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common.crypto.keyset import Keyset
from common.settings import VERSION, Settings, load
from ops import canary_settings, lifecycle
from tests.support.operator import (
    ROOT,
    SERVICE,
    Checkout,
    Operator,
    following,
    gcloud,
    printed_commands,
    settings_of,
)

pytestmark = pytest.mark.timeout(180)  # dozens of processes, one after another, in many of them

RUNTIME = "serviceAccount:draiv-bmw-staging@p1.iam.gserviceaccount.com"
RULES = {
    "p1-draiv-staging": "ops/deploy/lifecycle.json",
    "p1-draiv-staging-keys": "ops/deploy/lifecycle-keys.json",
}


@pytest.fixture
def changed(checkout: Checkout) -> Iterator[Path]:
    """A file of the checkout that may be changed."""
    file = checkout.root / "requirements.txt"
    before = file.read_text()
    yield file
    file.write_text(before)


# Bootstrap and doctor.


def test_bootstrap_makes_everything_that_a_deployment_needs(made: Operator) -> None:
    world = made.project.world()
    assert set(world["accounts"]) == {
        f"draiv-{name}-staging@p1.iam.gserviceaccount.com" for name in ("bmw", "build", "clock", "deploy")
    }
    assert set(world["secrets"]) == {f"draiv-{name}-staging" for name in ("token-keys", "log-key", "audit-key")}
    apis = {f"{name}.googleapis.com" for name in ("run", "secretmanager", "sts", "iamcredentials", "cloudscheduler")}
    assert apis <= set(world["apis"])
    assert "Nothing is missing." in made.do("doctor", "staging")


def test_documents_keep_their_versions_and_a_deleted_key_stays_deleted(made: Operator) -> None:
    buckets = made.project.world()["buckets"]
    documents, keys = buckets["p1-draiv-staging"], buckets["p1-draiv-staging-keys"]
    assert documents["versioning_enabled"] is True
    assert "versioning_enabled" not in keys
    assert keys["soft_delete_policy"] == {"retentionDurationSeconds": "0"}
    assert all(bucket["uniform_bucket_level_access"] for bucket in (documents, keys))
    assert all(bucket["public_access_prevention"] == "enforced" for bucket in (documents, keys))


def test_the_service_may_use_its_buckets_and_read_its_secrets_and_nothing_else(made: Operator) -> None:
    granted = {
        (resource, role)
        for resource, bound in made.project.world()["policies"].items()
        for role, who in bound
        if who == RUNTIME
    }
    secrets = {
        (f"secret/draiv-{name}-staging", "roles/secretmanager.secretAccessor")
        for name in ("token-keys", "log-key", "audit-key")
    }
    buckets = {(f"bucket/p1-draiv-staging{name}", "roles/storage.objectUser") for name in ("", "-keys")}
    assert granted == secrets | buckets


def test_secrets_are_usable_and_appear_in_no_command_and_no_output(newcomer: Operator) -> None:
    said = newcomer.run("bootstrap", "production", "--project", "p1")
    values = {name: secret["versions"][0] for name, secret in newcomer.project.world()["secrets"].items()}
    assert Keyset.parse(values["draiv-token-keys-production"]).active
    keys = [values[f"draiv-{name}-production"] for name in ("log-key", "audit-key")]
    assert all(len(key) >= 32 and key.isalnum() for key in keys)
    assert len(set(keys)) == 2
    everything = said.stdout + said.stderr + str(newcomer.project.calls())
    assert not any(
        value.partition(":")[2] in everything if ":" in value else value in everything for value in values.values()
    )


def test_bootstrap_again_changes_nothing(operator: Operator) -> None:
    before = operator.project.world()
    operator.do("bootstrap", "staging")
    assert operator.told() == []
    assert operator.project.world() == {**before, "fail": []}


def test_doctor_names_what_is_missing_with_the_command_that_mends_it_and_changes_nothing(newcomer: Operator) -> None:
    said = newcomer.run("doctor", "staging", "--project", "p1")
    assert said.returncode == 1
    assert newcomer.told() == []
    assert said.stdout.count("MISSING") == int(re.search(r"(\d+) missing", said.stderr)[1])  # type: ignore[index] # it is there
    made = Operator(newcomer.checkout, newcomer.gcloud)
    made.do("bootstrap", "staging", "--project", "p1")
    # All but the secrets, which go through a pipe.
    told = [call for call in made.told() if call[:2] != ["secrets", "create"]]
    assert printed_commands(said.stdout) == [["gcloud", *call] for call in told]


def test_doctor_sees_each_kind_of_thing_that_is_missing(operator: Operator) -> None:
    world = operator.project.world()
    world["apis"].remove("run.googleapis.com")
    del world["accounts"]["draiv-build-staging@p1.iam.gserviceaccount.com"]
    del world["secrets"]["draiv-log-key-staging"]
    del world["buckets"]["p1-draiv-staging-keys"]
    world["secrets"]["draiv-audit-key-staging"]["versions"] = []
    world["policies"]["secret/draiv-token-keys-staging"] = []
    operator.project.change(**world)
    said = operator.run("doctor", "staging").stdout
    assert re.findall("^MISSING  (.*)", said, re.MULTILINE) == [
        "APIs",
        "account draiv-build-staging@p1.iam.gserviceaccount.com: the image is built as",
        "bucket gs://p1-draiv-staging-keys",
        "bucket gs://p1-draiv-staging-keys: the accounts' keys; nothing deleted is kept",
        "bucket gs://p1-draiv-staging-keys: rules of ops/deploy/lifecycle-keys.json",
        "secret draiv-log-key-staging",
        "secret draiv-audit-key-staging, version 1: correct AUDIT_KEY_VERSION in ops/environments/staging.env",
        f"roles/secretmanager.secretAccessor on draiv-token-keys-staging for {RUNTIME}",
    ]


@pytest.mark.parametrize(
    ("documents", "keys"),
    [
        ({"versioning_enabled": False}, {"versioning_enabled": True}),
        (
            {"uniform_bucket_level_access": False},
            {"soft_delete_policy": {"retentionDurationSeconds": "604800"}},
        ),
    ],
)
def test_a_bucket_that_is_there_but_wrong_is_mended(
    operator: Operator, documents: dict[str, Any], keys: dict[str, Any]
) -> None:
    right = operator.project.world()["buckets"]
    wrong = operator.project.world()["buckets"]
    wrong["p1-draiv-staging"].update(documents)
    wrong["p1-draiv-staging-keys"].update(keys)
    operator.project.change(buckets=wrong)
    assert operator.do("bootstrap", "staging").count("MISSING  bucket gs://p1-draiv-staging") == 2
    assert operator.project.world()["buckets"] == right


# What the buckets forget.


def test_the_buckets_forget_by_the_rules_in_the_files(made: Operator) -> None:
    buckets = made.project.world()["buckets"]
    for name, file in RULES.items():
        assert buckets[name]["lifecycle_config"] == json.loads((ROOT / file).read_text())


# Every way in which rules can differ is in test_lifecycle.py.
@pytest.mark.parametrize("change", ["none", "one too many"])
def test_a_bucket_that_forgets_by_other_rules_is_seen_and_mended(operator: Operator, change: str) -> None:
    right = operator.project.world()["buckets"]
    wrong = operator.project.world()["buckets"]
    foreign = {"action": {"type": "Delete"}, "condition": {"age": 365}}
    for bucket in wrong.values():
        rules = bucket["lifecycle_config"]["rule"]
        if change == "none":
            del bucket["lifecycle_config"]
        else:
            rules.append(foreign)
    operator.project.change(buckets=wrong)
    said = operator.run("doctor", "staging")
    assert said.returncode == 1
    assert operator.told() == []
    assert printed_commands(said.stdout) == [
        ["gcloud", "storage", "buckets", "update", f"gs://{bucket}", "--lifecycle-file", file]
        for bucket, file in RULES.items()
    ]
    # What mending takes away is said before.
    named = [
        f"note     gs://{bucket} has {json.dumps(foreign)}, which {file} does not" for bucket, file in RULES.items()
    ]
    lines = said.stdout.splitlines()
    assert [line for line in lines if " has {" in line] == (named if change in ("one too many", "another age") else [])
    operator.do("bootstrap", "staging")
    assert operator.project.world()["buckets"] == right


def test_a_dry_run_shows_the_rules_that_would_be_set_and_sets_none(newcomer: Operator) -> None:
    said = newcomer.do("bootstrap", "staging", "--project", "p1", "--dry-run")
    assert newcomer.told() == []
    shown = [words[4:] for words in printed_commands(said) if "--lifecycle-file" in words]
    assert shown == [[f"gs://{name}", "--lifecycle-file", file] for name, file in RULES.items()]


def test_rules_that_cannot_be_compared_are_not_called_missing(operator: Operator) -> None:
    refused = operator.run("doctor", "staging", PYTHON="no-such-python")
    assert refused.returncode == 1
    assert "could not be compared" in refused.stderr
    assert "was `make venv` run?" in refused.stderr
    assert "MISSING" not in refused.stdout


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"rule": [{"action": {"type": "Delete"}, "condition": {"agee": 1}}]}', "invalid JSON/YAML"),
        ("{", "invalid JSON/YAML"),
        (None, "Unable to read file"),
    ],
)
def test_the_simulated_gcloud_refuses_rules_as_the_real_one_does(
    made: Operator, operator: Operator, tmp_path: Path, text: str | None, says: str
) -> None:
    file = tmp_path / "rules.json"
    if text is not None:
        file.write_text(text)
    refused = gcloud(
        operator.project.environ({}),
        "storage",
        "buckets",
        "update",
        "gs://p1-draiv-staging",
        f"--lifecycle-file={file}",
    )
    assert refused.returncode == 1
    assert says in refused.stderr
    assert operator.project.world()["buckets"] == made.project.world()["buckets"]


def test_a_service_that_its_pipeline_may_not_call_is_seen_and_mended(operator: Operator) -> None:
    operator.do("staging")
    said = operator.run("doctor", "staging")
    assert said.returncode == 1
    (command,) = printed_commands(said.stdout)
    assert command[:5] == ["gcloud", "run", "services", "add-iam-policy-binding", SERVICE]
    assert following(command, "--role") == "roles/run.invoker"
    operator.do("bootstrap", "staging")
    assert "Nothing is missing." in operator.do("doctor", "staging")


def test_without_the_right_to_say_who_may_call_the_command_for_somebody_who_has_it_is_shown(operator: Operator) -> None:
    operator.do("staging")
    operator.project.change(no_set_iam_policy=["run"])
    refused = operator.run("bootstrap", "staging")
    assert refused.returncode == 1
    assert "setIamPolicy' denied" in refused.stderr
    assert "somebody who has it can run the command" in refused.stderr
    assert f"gcloud run services add-iam-policy-binding {SERVICE}" in refused.stdout


def test_a_project_that_cannot_be_asked_is_not_called_empty(operator: Operator) -> None:
    operator.project.change(fail=[{"match": "secrets describe", "says": "PERMISSION_DENIED: no"}])
    refused = operator.run("doctor", "staging")
    assert refused.returncode == 1
    assert "PERMISSION_DENIED" in refused.stderr
    assert "MISSING" not in refused.stdout


# Deployments.


def test_the_first_deployment_gets_all_traffic_and_lets_nobody_in(operator: Operator) -> None:
    operator.do("staging")
    words = operator.deployed()
    assert words[2] == SERVICE
    assert "--no-allow-unauthenticated" in words
    assert "--no-traffic" not in words
    assert operator.traffic() == {"LATEST": 100}


def test_the_next_one_gets_all_traffic_once_it_is_ready_and_leaves_alone_who_may_call(operator: Operator) -> None:
    operator.do("staging")
    operator.do("staging")
    assert "--no-traffic" in operator.deployed()
    assert not [word for word in operator.deployed() if "unauthenticated" in word]
    assert operator.traffic() == {"2": 100}


def test_a_canary_gets_no_traffic_or_as_much_as_was_said(operator: Operator) -> None:
    operator.do("staging")
    operator.do("staging", "--canary")
    assert operator.traffic() == {"1": 100}
    operator.do("staging", "--canary", "10")
    assert operator.traffic() == {"1": 90, "3": 10}


def test_a_canary_is_promoted_twice_or_taken_back_once(operator: Operator) -> None:
    operator.do("staging")
    operator.do("staging", "--canary", "10")
    for _ in range(2):
        operator.do("promote", "staging")
        assert operator.traffic() == {"2": 100}
    operator.do("rollback", "staging")
    assert operator.traffic() == {"1": 100}


@pytest.mark.parametrize("revision", [(), (f"{SERVICE}-00001-sbx",)])
def test_a_rollback_to_what_serves_already_is_refused_and_shows_what_there_is(
    operator: Operator, revision: tuple[str, ...]
) -> None:
    operator.do("staging")
    operator.do("staging")
    operator.do("rollback", "staging")
    before = operator.told()
    refused = operator.run("rollback", "staging", *revision)
    assert refused.returncode == 1
    assert f"{SERVICE}-00001-sbx has all traffic of {SERVICE} already" in refused.stderr
    assert f"{SERVICE}-00002-sbx\t{VERSION.replace('.', '-')}" in refused.stdout
    assert operator.told() == before


def test_a_canary_that_waits_without_traffic_is_taken_back_too(operator: Operator) -> None:
    operator.do("staging")
    operator.do("staging", "--canary")
    operator.do("rollback", "staging")
    assert operator.traffic() == {"1": 100}
    assert operator.run("promote", "staging").returncode == 1


def test_without_an_earlier_revision_a_rollback_says_so(operator: Operator) -> None:
    operator.do("staging")
    refused = operator.run("rollback", "staging")
    assert refused.returncode == 1
    assert f"nothing says which revision of {SERVICE} served before" in refused.stderr


def test_what_was_rolled_back_cannot_be_promoted_by_mistake(operator: Operator) -> None:
    operator.do("staging")
    operator.do("staging", "--canary", "10")
    operator.do("rollback", "staging")
    refused = operator.run("promote", "staging")
    assert refused.returncode == 1
    assert operator.traffic() == {"1": 100}


def test_a_rollback_can_name_a_revision(operator: Operator) -> None:
    for _ in range(3):
        operator.do("staging")
    operator.do("rollback", "staging", f"{SERVICE}-00001-sbx")
    assert operator.traffic() == {"1": 100}
    assert operator.run("rollback", "staging", "no-such-revision").returncode == 1
    assert operator.traffic() == {"1": 100}


def test_a_deployment_that_fails_changes_no_traffic_and_leaves_the_way_back(operator: Operator) -> None:
    operator.do("staging")
    operator.do("staging")
    operator.project.change(fail=[{"match": "run deploy", "status": 1, "says": "Container failed to start."}])
    assert operator.run("staging").returncode == 1
    assert operator.traffic() == {"2": 100}
    operator.do("rollback", "staging")
    assert operator.traffic() == {"1": 100}


def test_nothing_is_deployed_onto_a_split(operator: Operator) -> None:
    operator.do("staging")
    operator.do("staging", "--canary", "10")
    refused = operator.run("staging")
    assert refused.returncode == 1
    assert "is split between" in refused.stderr
    operator.do("promote", "staging")
    operator.do("staging")


def test_a_commit_without_a_stream_worker_is_refused_as_one(operator: Operator) -> None:
    checkout = operator.checkout
    checkout.git("rm", "-q", "functions/providers/cardata/stream.py")
    checkout.commit()
    try:
        refused = operator.run("staging", "stream")
    finally:
        checkout.git("reset", "-q", "--hard", "HEAD~")
    assert refused.returncode == 1
    assert "this commit has no stream worker" in refused.stderr
    assert operator.told() == []


def test_status_shows_shares_tags_and_commits(operator: Operator) -> None:
    operator.do("staging")
    operator.do("staging", "--canary", "10")
    shown = operator.do("status", "staging")
    assert f"90\t\t{SERVICE}-00001-sbx" in shown
    assert f"\tcanary\t{SERVICE}-00002-sbx" in shown
    assert (
        f"{SERVICE}-00002-sbx\t{VERSION.replace('.', '-')}\t{operator.checkout.git('rev-parse', '--short=12', 'HEAD')}"
        in shown
    )


def test_status_of_a_service_that_was_never_deployed_says_so(operator: Operator) -> None:
    refused = operator.run("status", "staging")
    assert refused.returncode == 1
    assert f"there is no service {SERVICE}" in refused.stderr


def test_what_is_deployed_is_the_commit_and_of_it_only_what_runs(operator: Operator) -> None:
    operator.do("staging")
    source = operator.checkout.root / following(operator.deployed(), "--source")
    assert sorted(path.name for path in source.iterdir()) == ["common", "functions", "main.py", "requirements.txt"]
    assert operator.checkout.git("status", "--porcelain") == ""


def test_what_is_deployed_is_labelled_with_its_version_and_commit(operator: Operator) -> None:
    operator.do("staging")
    commit = operator.checkout.git("rev-parse", "--short=12", "HEAD")
    assert following(operator.deployed(), "--labels") == f"commit={commit},version={VERSION.replace('.', '-')}"


def test_the_service_has_a_thread_for_every_request_it_takes(operator: Operator) -> None:
    operator.do("staging")
    words = operator.deployed()
    assert settings_of(words)["THREADS"] == following(words, "--concurrency")


@pytest.mark.parametrize(("environment", "target"), [("staging", "bmw_api_staging"), ("production", "bmw_api")])
def test_the_service_accepts_the_settings_that_it_is_deployed_with(
    newcomer: Operator, environment: str, target: str
) -> None:
    said = newcomer.do(environment, "--project", "p1", "--dry-run")
    (words,) = [command for command in printed_commands(said) if command[1:3] == ["run", "deploy"]]
    assert following(words, "--function") == target
    values = settings_of(words)
    secrets = dict(pair.split("=", 1) for pair in following(words, "--set-secrets").split(","))
    assert secrets == {
        "TOKEN_KEYS": f"draiv-token-keys-{environment}:1",
        "LOG_KEY": f"draiv-log-key-{environment}:1",
        "AUDIT_KEY": f"draiv-audit-key-{environment}:1",
    }
    assert {name.lower() for name in {*values, *secrets} - {"THREADS"}} <= set(Settings.model_fields)
    loaded = load({**values, **dict.fromkeys(secrets, "k1:" + "A" * 43 + "=")})
    assert (loaded.environment, loaded.callers) == (environment, ("api_keys",))
    assert loaded.documents_url == f"gs://p1-draiv-{environment}/{lifecycle.PREFIX}"
    assert loaded.keys_url == f"gs://p1-draiv-{environment}-keys/bmw"


def test_the_environments_differ_in_values_and_not_in_what_they_say() -> None:
    staging, production = (
        canary_settings.read(canary_settings.FOLDER / f"{name}.env") for name in ("staging", "production")
    )
    assert list(staging) == list(production)
    assert staging["SERVICE"] != production["SERVICE"]


# Dry runs and mistakes.


def test_a_dry_run_prints_the_very_commands_and_runs_none(operator: Operator) -> None:
    operator.do("staging")
    before = len(operator.told())
    said = operator.do("staging", "--canary", "10", "--dry-run")
    assert len(operator.told()) == before
    printed = [command[1:] for command in printed_commands(said) if command[0] == "gcloud"]
    operator.do("staging", "--canary", "10")
    assert printed == operator.told()[before:]
    assert len(printed) == 3


def test_a_dry_run_needs_no_gcloud_and_says_what_it_assumes(checkout: Checkout) -> None:
    said = Operator(checkout, None).do("production", "--project", "p1", "--dry-run")
    assert "draiv-bmw is taken for a service that does not exist yet" in said
    assert "--no-allow-unauthenticated" in said
    assert "--no-traffic" not in said
    assert "Dry run: nothing was changed." in said


def test_without_gcloud_nothing_else_works(checkout: Checkout) -> None:
    refused = Operator(checkout, None).run("production", "--project", "p1")
    assert refused.returncode == 1
    assert "gcloud is not installed" in refused.stderr


def test_a_checkout_with_changes_is_not_deployed(operator: Operator, changed: Path) -> None:
    changed.write_text("something-else\n")
    refused = operator.run("staging")
    assert refused.returncode == 1
    assert "not committed" in refused.stderr
    assert operator.told() == []


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "which environment"),
        (["prod"], "unknown environment 'prod'; there are: production staging"),
        (["../environments/staging"], "unknown environment"),
        (["staging", "no-such"], "unknown target 'no-such'"),
        (["staging", "bmw_api", "health"], "too many words"),
        (["promote", "staging", "x"], "promote takes one environment"),
        (["promote"], "which environment"),
        (["promote", "staging", "--canary"], "--canary belongs to a deployment"),
        (["staging", "health", "--canary"], "--canary is for bmw_api alone"),
        (["staging", "--canary", "100"], "1 to 99 percent"),
        (["staging", "--force"], "unknown option --force"),
        (["staging", "--project"], "--project needs a value"),
        (["staging", "--region", "--dry-run"], "--region needs a value"),
        (["staging", "--project", "p; rm"], "is no project id"),
    ],
)
def test_a_command_line_that_makes_no_sense_changes_nothing(operator: Operator, words: list[str], problem: str) -> None:
    refused = operator.run(*words)
    assert refused.returncode == 2
    assert problem in refused.stderr
    assert operator.told() == []


def test_the_project_is_the_options_then_the_environments_then_gclouds_own(operator: Operator) -> None:
    said = operator.run("staging", "--dry-run", "--project", "p2", PROJECT="p3").stdout
    assert "in p2" in said
    assert "in p3" in operator.run("staging", "--dry-run", PROJECT="p3").stdout
    assert "in p1" in operator.run("staging", "--dry-run").stdout


def test_without_any_project_one_must_be_given(newcomer: Operator) -> None:
    refused = newcomer.run("staging")
    assert refused.returncode == 1
    assert "give --project" in refused.stderr


def test_the_region_is_the_options_or_the_files(operator: Operator) -> None:
    assert "(r9)" in operator.do("staging", "--dry-run", "--region", "r9")
    assert "(europe-west1)" in operator.do("staging", "--dry-run")


def test_help_is_help(checkout: Checkout) -> None:
    assert Operator(checkout, None).do("--help").startswith("Usage: ./deploy.sh staging|production")
