"""What is counted, what it is called, and what /health makes of it."""

import math
import threading
import time

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from common.metrics import MAX_SERIES, BreakerReading, CacheReading, Metrics

VIN = "WBA00000000DEMO01"


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(["status", "fuel", "lock"])


def figures(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample of the text format, by name and labels, as a Prometheus server would read it."""
    text = metrics.expose_text()[0].decode()
    samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
    return {(one.name, frozenset(one.labels.items())): one.value for one in samples}


def figure(metrics: Metrics, name: str, **labels: str) -> float | None:
    return figures(metrics).get((name, frozenset(labels.items())))


def test_a_request_is_counted_and_its_time_falls_into_the_buckets_around_the_objective(metrics: Metrics) -> None:
    metrics.request("status", "success", 200, 0.45)
    metrics.request("status", "success", 200, 0.55)
    assert figure(metrics, "draiv_requests_total", action="status", outcome="success", status="200") == 2
    labels = {"action": "status", "outcome": "success"}
    name = "draiv_request_duration_seconds"
    assert [figure(metrics, f"{name}_bucket", le=le, **labels) for le in ("0.4", "0.5", "0.6", "+Inf")] == [0, 1, 2, 2]
    assert figure(metrics, f"{name}_sum", **labels) == pytest.approx(1.0)
    assert figure(metrics, f"{name}_count", **labels) == 2


def test_what_an_alert_must_see_begin_is_there_before_it_happens(metrics: Metrics) -> None:
    metrics.begin_at_nought([("mybmw", "failed")], [("lock", "unknown")])
    assert figure(metrics, "draiv_token_refreshes_total", provider="mybmw", outcome="failed") == 0
    assert figure(metrics, "draiv_commands_total", action="lock", state="unknown") == 0
    metrics.commands("lock", "unknown")
    assert figure(metrics, "draiv_commands_total", action="lock", state="unknown") == 1


def test_each_method_moves_its_own_series(metrics: Metrics) -> None:
    metrics.upstream("mybmw", "vehicle_state", "success", 0.3)
    metrics.upstream_connection("mybmw")
    metrics.id_token_refused("expired")
    metrics.issuer_keys("ok")
    metrics.cache("snapshots", "hit")
    metrics.commands("lock", "confirmed")
    metrics.token_refresh("mybmw", "success")
    metrics.rate_limited("caller")
    metrics.log_dropped()
    upstream = {"provider": "mybmw", "endpoint": "vehicle_state", "outcome": "success"}
    assert figure(metrics, "draiv_upstream_request_duration_seconds_count", **upstream) == 1
    assert figure(metrics, "draiv_upstream_connections_total", provider="mybmw") == 1
    assert figure(metrics, "draiv_id_tokens_refused_total", reason="expired") == 1
    assert figure(metrics, "draiv_issuer_key_fetches_total", outcome="ok") == 1
    assert figure(metrics, "draiv_cache_lookups_total", cache="snapshots", result="hit") == 1
    assert figure(metrics, "draiv_commands_total", action="lock", state="confirmed") == 1
    assert figure(metrics, "draiv_token_refreshes_total", provider="mybmw", outcome="success") == 1
    assert figure(metrics, "draiv_rate_limited_total", kind="caller") == 1
    assert figure(metrics, "draiv_log_records_dropped_total") == 1


def test_every_name_begins_with_draiv_and_no_series_tells_only_when_it_was_made(metrics: Metrics) -> None:
    metrics.request("status", "success", 200, 0.1)
    names = {name for name, _ in figures(metrics)}
    assert {name for name in names if not name.startswith("draiv_") or name.endswith("_created")} == set()
    assert "draiv_process_resident_memory_bytes" in names


def test_an_action_that_does_not_exist_is_counted_as_unknown(metrics: Metrics) -> None:
    for guess in ("x", "y", VIN):
        metrics.request(guess, "rejected", 400, 0.001)
        metrics.commands(guess, "failed")
    assert figure(metrics, "draiv_requests_total", action="unknown", outcome="rejected", status="400") == 3
    assert figure(metrics, "draiv_commands_total", action="unknown", state="failed") == 3


def test_a_label_that_takes_ever_new_values_ends_as_unknown_and_no_count_is_lost(metrics: Metrics) -> None:
    for number in range(MAX_SERIES + 50):
        metrics.rate_limited(f"kind {number}")
    told = figures(metrics)
    assert told["draiv_rate_limited_total", frozenset({("kind", "unknown")})] == 50
    assert sum(name == "draiv_rate_limited_total" for name, _ in told) == MAX_SERIES + 1


def test_a_failure_counts_as_one_even_where_its_other_labels_ended_as_unknown(metrics: Metrics) -> None:
    for number in range(MAX_SERIES + 50):
        metrics.request("status", f"outcome {number}", 503, 0.1)
    assert metrics.summary()["requests_failed"] == MAX_SERIES + 50


def test_a_label_that_holds_a_secret_is_masked(metrics: Metrics) -> None:
    metrics.upstream("mybmw", f"/vehicles/{VIN}/state", "owner@example.com", 0.1)
    text = metrics.expose_text()[0].decode()
    assert VIN not in text
    assert "owner@example.com" not in text
    assert 'endpoint="/vehicles/<vin>/state"' in text


def test_the_summary_counts_4xx_as_rejected_and_only_5xx_as_failed(metrics: Metrics) -> None:
    for status, count in {200: 5, 202: 1, 401: 2, 429: 1, 503: 1}.items():
        for _ in range(count):
            metrics.request("fuel", "any", status, 0.2)
    for result in ("hit", "hit", "hit", "miss"):
        metrics.cache("snapshots", result)
    summary = metrics.summary()
    assert summary == {
        "requests_total": 10,
        "requests_success": 6,
        "requests_rejected": 3,
        "requests_failed": 1,
        "avg_response_time": pytest.approx(0.2),
        "error_rate": pytest.approx(0.1),
        "cache_hit_ratio": pytest.approx(0.75),
    }


def test_the_summary_of_a_service_that_did_nothing_is_all_zero(metrics: Metrics) -> None:
    assert set(metrics.summary().values()) == {0}


def test_breakers_and_caches_are_asked_when_the_metrics_are_read(metrics: Metrics) -> None:
    breaker = [BreakerReading("mybmw", "row", "read", "closed")]
    caches: list[CacheReading] = []
    metrics.watch_breakers(lambda: breaker)
    metrics.watch_caches(lambda: caches)

    def states() -> list[float | None]:
        labels = {"provider": "mybmw", "region": "row", "kind": "read"}
        return [figure(metrics, "draiv_breaker_state", state=s, **labels) for s in ("closed", "half_open", "open")]

    assert states() == [1, 0, 0]
    breaker[0] = BreakerReading("mybmw", "row", "read", "open")
    caches.append(CacheReading("snapshots", 3, 4096))
    assert states() == [0, 0, 1]
    assert figure(metrics, "draiv_cache_entries", cache="snapshots") == 3
    assert figure(metrics, "draiv_cache_bytes", cache="snapshots") == 4096


def test_a_gauge_that_cannot_be_read_is_missing_and_spoils_nothing_else(metrics: Metrics) -> None:
    def fail() -> list[CacheReading]:
        raise OSError("the cache is gone")

    metrics.watch_caches(fail)
    metrics.watch_breakers(lambda: [BreakerReading("mybmw", "row", "read", "open")])
    metrics.rate_limited("caller")
    names = {name for name, _ in figures(metrics)}
    assert {"draiv_breaker_state", "draiv_rate_limited_total"} <= names
    assert "draiv_cache_entries" not in names


def test_json_tells_the_same_figures_as_the_text(metrics: Metrics) -> None:
    metrics.request("status", "success", 200, 0.3)
    metrics.request("fuel", "failed", 502, 1.3)
    metrics.cache("snapshots", "stale")
    metrics.watch_breakers(lambda: [BreakerReading("mybmw", "row", "read", "half_open")])
    told = orjson.loads(orjson.dumps(metrics.expose_json()))
    from_json = {
        (one["name"], frozenset(one["labels"].items())): one["value"]
        for metric in told["metrics"].values()
        for one in metric["samples"]
    }
    changing = {"draiv_process_cpu_seconds_total", "draiv_process_resident_memory_bytes", "draiv_process_open_fds",
                "draiv_process_virtual_memory_bytes"}  # fmt: skip
    text = figures(metrics)
    assert from_json.keys() == text.keys()
    assert {key: value for key, value in from_json.items() if key[0] not in changing} == {
        key: value for key, value in text.items() if key[0] not in changing
    }
    assert told["summary"] == metrics.summary()
    assert told["metrics"]["draiv_requests"]["type"] == "counter"
    assert all(math.isfinite(value) for value in from_json.values())


def test_the_text_says_what_format_it_is(metrics: Metrics) -> None:
    assert metrics.expose_text()[1] == "text/plain; version=0.0.4; charset=utf-8"


def test_two_apps_in_one_process_share_no_figure(metrics: Metrics) -> None:
    other = Metrics(["status"])
    metrics.request("status", "success", 200, 0.1)
    assert other.summary()["requests_total"] == 0
    assert metrics.summary()["requests_total"] == 1


def test_no_count_is_lost_when_many_threads_count_at_once(metrics: Metrics) -> None:
    together = threading.Barrier(8)

    def work() -> None:
        together.wait()
        for number in range(500):
            metrics.request("status", f"outcome {number % 50}", 200, 0.1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert metrics.summary()["requests_total"] == 4_000
    assert metrics.summary()["avg_response_time"] == pytest.approx(0.1)


def test_counting_a_request_costs_microseconds(metrics: Metrics) -> None:
    rounds = []
    for _ in range(20):
        began = time.process_time()
        for _ in range(500):
            metrics.request("status", "success", 200, 0.6)
        rounds.append((time.process_time() - began) / 500)
    assert min(rounds) < 20e-6  # measured: 2 us; labels() at each call alone would make it 4
