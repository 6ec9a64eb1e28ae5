"""Tests of deploy.sh beside the service itself: CarData's processes, what a deployment leans on, new projects."""

import re
import subprocess

import pytest

from common.settings import Settings, load
from tests.support.operator import (
    EVERYTHING,
    KMS_KEY,
    ROOT,
    SERVICE,
    Operator,
    following,
    printed_commands,
    settings_of,
)

pytestmark = pytest.mark.timeout(180)  # dozens of processes, one after another, in many of them

RUNTIME = "draiv-bmw-staging@p1.iam.gserviceaccount.com"
CLOCK = "draiv-clock-staging@p1.iam.gserviceaccount.com"
HEALTH, STREAM, JOB = "draiv-health-staging", "draiv-stream-staging", "draiv-keep-alive-staging"


def deployed(operator: Operator) -> list[str]:
    """Services and jobs, in the order in which they were deployed."""
    calls = operator.told()
    return [
        call[call.index("deploy") + 1] for call in calls if call[:2] == ["run", "deploy"] or call[2:3] == ["deploy"]
    ]


# CarData.


def test_all_means_also_what_cardata_needs_for_the_service_offers_it_by_default(operator: Operator) -> None:
    default = ",".join(Settings.model_fields["providers"].default)
    assert f"${{settings[SET_PROVIDERS]-{default}}}" in (ROOT / "ops/deploy/common.sh").read_text()
    operator.do("staging", "--all")
    assert deployed(operator) == [SERVICE, HEALTH, STREAM, JOB]


def test_the_rest_is_all_but_the_service(operator: Operator) -> None:
    operator.do("staging", "rest")
    assert deployed(operator) == [HEALTH, STREAM, JOB]


def test_the_pipeline_deploys_the_rest_where_its_failure_takes_nothing_back() -> None:
    workflow = (ROOT / ".github/workflows/deploy.yml").read_text()
    steps = [line.strip().removeprefix("run: ") for line in workflow.splitlines() if "./deploy.sh " in line]
    assert steps == [
        f"./deploy.sh {verb}" for verb in ('"$TO" --canary', 'promote "$TO"', 'rollback "$TO"', '"$TO" rest')
    ]


def test_without_cardata_nothing_of_it_is_deployed_or_missed(operator: Operator) -> None:
    with operator.checkout.saying("SET_PROVIDERS=mybmw"):
        operator.do("staging", "--all")
        assert deployed(operator) == [SERVICE, HEALTH]
        assert JOB not in operator.run("doctor", "staging").stdout


def test_the_stream_worker_is_one_instance_that_is_always_there_built_from_the_dockerfile(operator: Operator) -> None:
    operator.do("staging", "stream")
    words = operator.deployed()
    assert words[2] == STREAM
    assert "--no-cpu-throttling" in words
    assert (following(words, "--min"), following(words, "--max-instances")) == ("1", "1")
    assert "--args=-m,functions.providers.cardata.stream" in words
    assert settings_of(words)["CARDATA_STREAM_BIND"] == "0.0.0.0"  # noqa: S104 - inside its container
    source = operator.checkout.root / following(words, "--source")
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (source / "Dockerfile").read_text(), re.MULTILINE)
    assert [name for line in copied for name in line.split() if not (source / name).exists()] == []


def test_the_daily_job_is_the_workers_image_with_the_services_settings_and_account(operator: Operator) -> None:
    said = operator.do("staging", "stream")
    (words,) = [call for call in operator.told() if call[:3] == ["run", "jobs", "deploy"]]
    (worker,) = [call for call in operator.told() if call[:2] == ["run", "deploy"]]
    assert following(words, "--image") == f"r1-docker.pkg.dev/p1/sandbox/{STREAM}-00001-sbx"
    assert "--args=-m,functions.providers.cardata.keep_alive" in words
    assert following(words, "--service-account") == RUNTIME
    assert settings_of(words) == {name: v for name, v in settings_of(worker).items() if name != "CARDATA_STREAM_BIND"}
    assert following(words, "--set-secrets") == following(worker, "--set-secrets")
    assert f"Nobody starts {JOB} yet: ./deploy.sh bootstrap staging" in said


def test_the_scheduler_starts_the_job_daily_as_an_account_that_may_do_nothing_else(operator: Operator) -> None:
    operator.do("staging", "stream")
    assert f"MISSING  {JOB} is started daily\n" in operator.do("bootstrap", "staging")
    world = operator.project.world()
    assert world["triggers"] == {
        JOB: {
            "name": JOB,
            "state": "ENABLED",
            "schedule": "17 4 * * *",
            "uri": f"https://run.googleapis.com/v2/projects/p1/locations/europe-west1/jobs/{JOB}:run",
            "account": CLOCK,
        }
    }
    granted = [(at, role) for at, bound in world["policies"].items() for role, who in bound if CLOCK in who]
    assert granted == [(f"job/{JOB}", "roles/run.invoker")]
    assert "Nothing is missing." in operator.do("doctor", "staging")


def test_a_daily_job_that_somebody_paused_is_seen_and_goes_on(operator: Operator) -> None:
    operator.do("staging", "stream")
    operator.project.change(triggers={JOB: {"name": JOB, "state": "PAUSED"}})
    assert f"MISSING  {JOB} is started daily: paused" in operator.do("bootstrap", "staging")
    assert operator.project.world()["triggers"][JOB]["state"] == "ENABLED"


# What a deployment leans on.


def test_a_private_redis_is_reached_by_a_network_and_a_secret(operator: Operator) -> None:
    secrets = operator.project.world()["secrets"]
    with operator.checkout.saying(*EVERYTHING, "SECRET_REDIS_URL=redis-url:2"):
        missed = operator.do("bootstrap", "staging")
        assert "MISSING  secret redis-url, for REDIS_URL" in missed
        assert "REDIS_URL:" not in missed.replace("REDIS_URL: only you", "")
        operator.project.change(secrets={**secrets, "redis-url": {"name": "redis-url", "versions": ["a", "b"]}})
        said = operator.do("bootstrap", "staging")
        assert "note     MAX_INSTANCES" not in said
        assert "note     no REDIS_URL" not in said
        operator.do("staging", "--all")
    for words in [call for call in operator.told() if "deploy" in call[1:3]]:
        network = [following(words, f"--{name}") for name in ("network", "subnet", "vpc-egress")]
        assert network == ["net", "sub", "private-ranges-only"]
        assert following(words, "--set-secrets").endswith(",REDIS_URL=redis-url:2")


def test_a_network_needs_a_subnet(operator: Operator) -> None:
    with operator.checkout.saying("NETWORK=net"):
        refused = operator.run("staging")
    assert refused.returncode == 1
    assert "does not say SUBNET" in refused.stderr
    assert operator.told() == []


def test_a_key_in_kms_may_be_used_by_the_service(operator: Operator) -> None:
    with operator.checkout.saying(*EVERYTHING):
        operator.do("bootstrap", "staging")
        assert settings_of(printed(operator, "run", "deploy"))["KMS_KEY"] == KMS_KEY
    world = operator.project.world()
    assert "cloudkms.googleapis.com" in world["apis"]
    use = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
    assert world["policies"][f"kms/{KMS_KEY}"] == [[use, f"serviceAccount:{RUNTIME}"]]


def printed(operator: Operator, *verb: str) -> list[str]:
    """The command that a dry run of a deployment shows."""
    commands = printed_commands(operator.do("staging", "--dry-run"))
    return next(command for command in commands if tuple(command[1 : 1 + len(verb)]) == verb)


def test_doctor_says_what_instances_do_without_redis(operator: Operator) -> None:
    said = operator.do("doctor", "staging")
    assert "note     MAX_INSTANCES is 3 without REDIS_URL" in said
    assert "note     no REDIS_URL: the stream worker has no journal" in said


def test_doctor_says_where_the_other_environment_is_within_reach(operator: Operator) -> None:
    assert "is in this project too" not in operator.do("doctor", "staging")
    operator.do("bootstrap", "production")
    assert "note     production is in this project too: whoever deploys staging can" in operator.do("doctor", "staging")


def test_the_maximum_of_instances_is_the_services_and_can_be_raised_without_a_revision(operator: Operator) -> None:
    operator.do("staging")
    words = operator.deployed()
    assert (following(words, "--max"), following(words, "--max-instances")) == ("3", "default")


# Health, beside the service.


def test_the_health_page_is_opened_to_those_who_may_call_and_the_pipeline_only_calls_the_service(
    operator: Operator,
) -> None:
    operator.do("staging", "--all")
    with operator.checkout.saying("INVOKERS=user:a@example.com"):
        operator.do("bootstrap", "staging")
    policies = operator.project.world()["policies"]
    anybody = ["roles/run.invoker", "user:a@example.com"]
    pipeline = ["roles/run.invoker", "serviceAccount:draiv-deploy-staging@p1.iam.gserviceaccount.com"]
    assert policies[f"run/{HEALTH}"] == [anybody]
    assert policies[f"run/{SERVICE}"] == [anybody, pipeline]
    assert not policies.get(f"run/{STREAM}")


def test_the_health_page_goes_back_too_and_the_worker_by_a_deployment_only(operator: Operator) -> None:
    operator.do("staging", "--all")
    operator.do("staging", "health")
    assert operator.traffic(HEALTH) == {"2": 100}
    operator.do("rollback", "staging", "--service", "health")
    assert operator.traffic(HEALTH) == {"1": 100}
    refused = operator.run("rollback", "staging", "--service", "stream")
    assert refused.returncode == 2
    assert "goes back by deploying the older commit" in refused.stderr


def test_status_shows_everything_that_is_deployed(operator: Operator) -> None:
    operator.do("staging", "--all")
    lines = operator.do("status", "staging").splitlines()
    assert {SERVICE, HEALTH, STREAM} <= set(lines)
    assert any(line.startswith(f"{JOB}\t") for line in lines)


# From a checkout to the deployment's store.

SHOW_ALL = 'for name in $(compgen -e); do printf "%s=%s\\n" "$name" "${!name}"; done'


def evaluated(operator: Operator, then: str) -> subprocess.CompletedProcess[str]:
    """A shell that takes the settings over, and then does something."""
    environ = operator.project.environ({"PATH": str(operator.checkout.tools), "HOME": str(operator.checkout.root)})
    script = f'eval "$(./deploy.sh settings staging)"\n{then}'
    return subprocess.run(
        ["bash", "-c", script], cwd=operator.checkout.root, env=environ, capture_output=True, text=True, check=False
    )


def test_a_shell_gets_the_very_settings_that_the_service_is_deployed_with(operator: Operator) -> None:
    secrets = {name: secret["versions"][0] for name, secret in operator.project.world()["secrets"].items()}
    with operator.checkout.saying('SET_OIDC_ISSUERS=[{"firebase": "it\'s $HOME"}]', "SET_CORS_ORIGINS=https://a/?b="):
        shown = operator.do("settings", "staging")
        got = dict(line.partition("=")[::2] for line in evaluated(operator, SHOW_ALL).stdout.splitlines())
        words = printed(operator, "run", "deploy")
    assert not any(value in shown for value in secrets.values())
    wanted = {name: value for name, value in settings_of(words).items() if name != "THREADS"}
    assert {name: got.get(name) for name in wanted} == wanted
    kept = ("TOKEN_KEYS", "LOG_KEY", "AUDIT_KEY")
    assert [got[name] for name in kept] == [secrets[f"draiv-{name.lower().replace('_', '-')}-staging"] for name in kept]
    assert load({name: got[name] for name in (*wanted, *kept)}).documents_url == "gs://p1-draiv-staging/bmw"


def test_where_a_secret_cannot_be_read_the_shell_does_not_get_to_know_the_store(operator: Operator) -> None:
    operator.project.change(fail=[{"match": "versions access 1 --secret draiv-audit", "says": "PERMISSION_DENIED: no"}])
    ran = evaluated(operator, 'echo "to ${DOCUMENTS_URL:-nowhere}"')
    assert "to gs://" not in ran.stdout
    assert "AUDIT_KEY: could not be read" in ran.stderr


# A project that is new.


def test_a_project_in_which_nothing_was_enabled_yet_is_looked_at_and_not_stumbled_over(newcomer: Operator) -> None:
    said = newcomer.run("doctor", "staging", "--project", "p1")
    assert "MISSING  APIs" in said.stdout
    assert f"later    who starts {JOB} daily" in said.stdout
    assert "missing: the commands above mend it" in said.stderr


def test_what_was_just_enabled_is_waited_for(newcomer: Operator) -> None:
    newcomer.project.change(lag=9)
    made = newcomer.run("bootstrap", "staging", "--project", "p1", RETRY_PAUSE_S="0")
    assert made.returncode == 0, made.stderr
    assert newcomer.project.world()["refusals_left"] == 0
    assert "Nothing is missing." in newcomer.do("doctor", "staging", "--project", "p1")


def test_what_is_refused_for_another_reason_is_not_tried_again(newcomer: Operator) -> None:
    newcomer.project.change(fail=[{"match": "service-accounts create", "says": "PERMISSION_DENIED: no"}])
    refused = newcomer.run("bootstrap", "staging", "--project", "p1")
    assert refused.returncode == 1
    assert "PERMISSION_DENIED: no" in refused.stderr
    assert len([call for call in newcomer.told() if call[1:3] == ["service-accounts", "create"]]) == 1


def test_a_dry_run_before_bootstrap_shows_the_first_deployment_and_not_the_second(newcomer: Operator) -> None:
    said = newcomer.do("staging", "--project", "p1", "--dry-run")
    (words,) = [command for command in printed_commands(said) if command[0] == "gcloud"]
    assert "--no-allow-unauthenticated" in words
    assert "--no-traffic" not in words
