"""Health, metrics and the OpenAPI document."""

import re
import time
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from sandbox.process import RunningSandbox
from tests.integration.conftest import Api, MakeApi


def test_health_says_how_things_stand_without_asking_the_maker(api: Api, sandbox: RunningSandbox) -> None:
    account = api.connect()
    api.post(action="status", account=account)
    api.post(action="status", account=account)
    before = sandbox.stats()["requests_total"]
    answered = api.get("/health")
    assert answered.status == 200
    health = answered.json
    assert health["status"] == "healthy"
    assert set(health) == {
        "status", "service", "version", "revision", "environment", "uptime_s", "checks", "metrics",
    }  # fmt: skip
    assert health["checks"]["token_store"] == "ok"
    assert health["checks"]["providers"]["mybmw"]["blocked"] is False
    assert health["checks"]["providers"]["mybmw"]["last_success"] is not None
    assert set(health["metrics"]) >= {
        "requests_total", "requests_success", "requests_failed", "avg_response_time", "error_rate", "cache_hit_ratio",
        "circuit_breaker_state", "cache_size",
    }  # fmt: skip
    assert health["metrics"]["requests_total"] >= 3
    assert health["metrics"]["cache_hit_ratio"] > 0
    assert sandbox.stats()["requests_total"] == before


def test_a_broken_store_is_unhealthy(make_api: MakeApi, tmp_path: Path) -> None:
    (tmp_path / "a-file").write_text("not a directory")
    broken = make_api(documents_url=f"sqlite:///{tmp_path}/a-file/documents.db")
    started = time.monotonic()
    answered = broken.get("/health")
    assert (answered.status, answered.json["status"]) == (503, "unhealthy")
    assert answered.json["checks"]["token_store"] == "unavailable"
    assert time.monotonic() - started < 1
    failed = broken.post(action="status", account="acc_" + "A" * 22)
    assert (failed.status, failed.error["code"]) == (503, "STORE_UNAVAILABLE")


def test_metrics_can_be_parsed_and_count_what_happened(api: Api) -> None:
    account = api.connect()
    api.post(action="status", account=account)
    api.post(action="fuel", account=account)
    api.post(action="lock", account=account, wait_s=1)
    answered = api.get("/metrics")
    families = {family.name: family for family in text_string_to_metric_families(answered.body.decode())}
    assert len(families) > 5
    text = answered.body.decode()
    for word in ('action="fuel"', "draiv_upstream", "draiv_cache", "draiv_commands", "process_resident_memory_bytes"):
        assert word in text
    assert re.search(r'draiv_upstream_connections_total\{provider="mybmw"\} [1-9]', text)
    assert "DEMO01" not in text
    assert account not in text
    as_json = api.get("/metrics", {"accept": "application/json"})
    assert as_json.headers  # the same figures, as JSON
    assert isinstance(as_json.json, dict)


def test_the_first_failure_of_a_renewal_and_the_first_unknown_command_can_be_seen_to_happen(api: Api) -> None:
    text = api.get("/metrics").body.decode()
    for provider in ("mybmw", "cardata"):
        assert f'draiv_token_refreshes_total{{outcome="failed",provider="{provider}"}} 0.0' in text
    assert 'draiv_commands_total{action="unlock",state="unknown"} 0.0' in text


def test_the_openapi_document_is_served(api: Api) -> None:
    document = api.get("/openapi.json").json
    assert document["openapi"] == "3.1.0"
    assert "lock" in document["paths"]["/"]["post"]["requestBody"]["content"]["application/json"]["examples"]


def test_what_a_car_cannot_do_is_no_failure_of_the_service(api: Api) -> None:
    account = api.connect("demo@example.com")
    assert api.post(action="charge_start", account=account, vin="WBA00000000DEMO03").status == 501
    figures = api.get("/health").json["metrics"]
    assert (figures["requests_failed"], figures["error_rate"]) == (0, 0.0)
