"""No chart is empty and no alert is silent: each is held against what the service really prints and counts."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock
from google.cloud.logging_v2.types import LogMetric
from google.cloud.monitoring_dashboard_v1.types import Dashboard
from google.cloud.monitoring_v3.types import AlertPolicy, Service, ServiceLevelObjective, UptimeCheckConfig

from functions.actions.catalogue import CATALOGUE
from functions.actions.spec import Kind, Target
from ops.monitoring.definitions import FOLDER, load, read
from ops.monitoring.things import things
from tests.ops.provoked import Provoked, provoke
from tests.support import promql
from tests.support.cloud_monitoring import Monitoring, parse_filter
from tests.support.log_filters import entries, field, matches, parse

pytestmark = pytest.mark.timeout(180)  # whichever test comes first waits for everything to be provoked

pytestmark = pytest.mark.timeout(180)  # whichever test comes first waits for everything to be provoked

ROOT = Path(__file__).resolve().parents[2]
VALUES = {
    "PROJECT": "a-project",
    "ENVIRONMENT": "production",
    "SERVICE": "draiv-bmw",
    "HEALTH_SERVICE": "draiv-health",
    "STREAM_SERVICE": "draiv-stream",
    "REGION": "europe-west1",
    "CHANNEL": "projects/a-project/notificationChannels/1",
}
METRICS, ALERTS, SLOS, UPTIME = (load(kind, VALUES) for kind in ("metrics", "alerts", "slos", "uptime"))
DASHBOARD = read(FOLDER / "dashboard.json", VALUES)
GRAFANA = json.loads((FOLDER / "grafana" / "draiv.json").read_text())
RULES = yaml.safe_load((FOLDER / "prometheus" / "rules.yml").read_text())
PROVOKED_BY = {
    "availability-fast-burn": "failing",
    "availability-slow-burn": "failing",
    "latency-fast-burn": "slow",
    "latency-slow-burn": "slow",
    "breaker-open": "failing",
    "provider-blocked": "blocked",
    "quota-used-up": "quota",
    "relink-wave": "relinks",
    "token-refresh-failing": "failing refreshes",
    "unknown-commands": "unknown",
    "revision-worse": "failing",
    "internal-error": "defect",
    "broken-seal": "broken seal",
    "misconfigured": "misconfigured",
    "store-unavailable": "lost store",
    "cardata-links-ending": "keep alive",
    "stream-troubles": "stream",
}
"""What is done to the service for each alert."""
PLATFORMS_OWN = {"platform-errors", "unreachable"}
"""Made of the platform's own metrics, which nothing that runs here emits."""
ABSENCES = {"no-requests": "nothing", "keep-alive-missing": "healthy"}
"""Alerts on what is not there, and a day on which it is not."""
BY_COUNT = (
    "availability-fast-burn",
    "availability-slow-burn",
    "latency-fast-burn",
    "latency-slow-burn",
    "revision-worse",
)
"""Alerts on shares, which a single request must not ring."""
READS = {row.name for row in CATALOGUE if row.kind is Kind.READ and row.target is not Target.NOTHING}


@pytest.fixture(scope="module")
def provoked(tmp_path_factory: pytest.TempPathFactory, testrun_uid: str) -> Provoked:
    """Provoked once a test run, however many processes these tests are spread over."""
    kept = tmp_path_factory.getbasetemp().parent / f"provoked-{testrun_uid}.json"
    with FileLock(f"{kept}.lock"):
        if not kept.exists():
            kept.write_text(json.dumps(asdict(provoke())))
    return Provoked(**json.loads(kept.read_text()))


@pytest.fixture(scope="module")
def scrape(provoked: Provoked) -> promql.Series:
    return promql.series(provoked.metrics)


def queries() -> Iterator[tuple[str, str]]:
    for panel in GRAFANA["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def rules() -> Iterator[Mapping[str, Any]]:
    for group in RULES["groups"]:
        yield from group["rules"]


RECORDED = {rule["record"] for rule in rules() if "record" in rule}


@pytest.mark.parametrize(
    ("kind", "message", "definition"),
    [
        *[pytest.param(LogMetric, name, body, id=f"metrics-{name}") for name, body in METRICS.items()],
        *[pytest.param(AlertPolicy, name, body, id=f"alerts-{name}") for name, body in ALERTS.items()],
        *[pytest.param(ServiceLevelObjective, name, body, id=f"slos-{name}") for name, body in SLOS.items()],
        *[pytest.param(UptimeCheckConfig, name, body, id=f"uptime-{name}") for name, body in UPTIME.items()],
        pytest.param(Dashboard, "dashboard", DASHBOARD, id="dashboard"),
        pytest.param(Service, "service", read(FOLDER / "service.json", VALUES), id="service"),
    ],
)
def test_google_would_understand_every_field(kind: Any, message: str, definition: Mapping[str, Any]) -> None:
    parsed = kind.from_json(json.dumps(definition), ignore_unknown_fields=False)
    assert parsed.display_name if hasattr(parsed, "display_name") else parsed.name


def test_a_field_that_google_does_not_know_would_be_noticed() -> None:
    with pytest.raises(Exception, match="thresholdVal"):
        AlertPolicy.from_json('{"conditions": [{"conditionThreshold": {"thresholdVal": 1}}]}')


def test_every_alert_is_provoked() -> None:
    assert set(PROVOKED_BY) | PLATFORMS_OWN | set(ABSENCES) == set(ALERTS)


@pytest.mark.parametrize("name", sorted(PROVOKED_BY))
def test_an_alert_fires_when_what_it_is_about_happens_and_not_on_a_good_day(name: str, provoked: Provoked) -> None:
    bad = Monitoring(METRICS, SLOS, entries(provoked.lines[PROVOKED_BY[name]]))
    good = Monitoring(METRICS, SLOS, entries(provoked.lines["healthy"]))
    assert bad.fires(ALERTS[name])
    assert not good.fires(ALERTS[name])


@pytest.mark.parametrize("name", sorted(ABSENCES))
def test_an_alert_on_what_is_missing_fires_when_it_is_and_not_when_it_is_there(name: str, provoked: Provoked) -> None:
    without = entries(provoked.lines.get(ABSENCES[name], ()))
    there = entries(provoked.lines["healthy"]) + entries(provoked.lines["keep alive"], kind="cloud_run_job")
    assert Monitoring(METRICS, SLOS, without).fires(ALERTS[name])
    assert not Monitoring(METRICS, SLOS, there).fires(ALERTS[name])


@pytest.mark.parametrize("name", BY_COUNT)
def test_a_share_of_one_request_rings_nothing(name: str, provoked: Provoked) -> None:
    said = entries(provoked.lines[PROVOKED_BY[name]])
    is_bad = 'jsonPayload.outcome="failed"' if PROVOKED_BY[name] == "failing" else "jsonPayload.duration_ms>500"
    bad = [entry for entry in said if matches(f'jsonPayload.message="request" AND {is_bad}', entry)]
    assert len(bad) > 5
    assert Monitoring(METRICS, SLOS, bad).fires(ALERTS[name])
    assert not Monitoring(METRICS, SLOS, bad[:5]).fires(ALERTS[name])


def test_a_stream_worker_that_cannot_begin_rings(provoked: Provoked) -> None:
    said = entries(provoked.lines["misconfigured stream"], "draiv-stream")
    assert Monitoring(METRICS, SLOS, said).fires(ALERTS["misconfigured"])


def test_the_check_from_outside_asks_the_service_that_the_alert_is_about() -> None:
    check = UPTIME["health"]
    assert check["monitoredResource"]["labels"]["service_name"] == VALUES["SERVICE"]
    (condition,) = ALERTS["unreachable"]["conditions"]
    assert f'resource.labels.service_name="{VALUES["SERVICE"]}"' in condition["conditionThreshold"]["filter"]
    # Each place asks once within what is looked at.
    period_s = int(condition["conditionThreshold"]["aggregations"][0]["alignmentPeriod"].rstrip("s"))
    assert period_s >= 2 * int(check["period"].rstrip("s"))


def test_staging_does_not_ring_productions_alerts(provoked: Provoked) -> None:
    staging = [
        line.replace('"environment":"production"', '"environment":"staging"')
        for line in provoked.all_lines
        if "misconfigured" not in line
    ]
    watching = Monitoring(METRICS, SLOS, entries(staging, "draiv-bmw-staging"))
    assert not [name for name in PROVOKED_BY if watching.fires(ALERTS[name])]


@pytest.mark.parametrize("name", sorted(PLATFORMS_OWN))
def test_an_alert_on_the_platforms_metrics_names_ones_that_it_has(name: str) -> None:
    for condition in ALERTS[name]["conditions"]:
        threshold = condition["conditionThreshold"]
        for side in ("filter", "denominatorFilter"):
            if side in threshold:
                assert parse_filter(METRICS, threshold[side]).is_platforms


@pytest.mark.parametrize("name", sorted(METRICS))
def test_each_label_of_a_metric_is_really_there(name: str, provoked: Provoked) -> None:
    definition = METRICS[name]
    assert {one["key"] for one in definition["metricDescriptor"]["labels"]} == set(definition["labelExtractors"])
    taken = [entry for entry in entries(provoked.all_lines) if matches(definition["filter"], entry)]
    assert taken
    for extractor in definition["labelExtractors"].values():
        path = extractor.removeprefix("EXTRACT(").removesuffix(")")
        assert any(field(entry, path) for entry in taken), path


def test_every_word_that_a_filter_waits_for_is_said(provoked: Provoked) -> None:
    """One name of several in a filter could be wrong, and the others would still match."""
    said = entries(provoked.all_lines)
    said += entries(provoked.lines["misconfigured"], VALUES["HEALTH_SERVICE"])
    said += entries(provoked.lines["misconfigured stream"], VALUES["STREAM_SERVICE"])
    unsaid = set()
    # A car's picture and the like are read nowhere here; the actions are held against the catalogue.
    exempt = {f"jsonPayload.action={action}" for action in READS} | {"jsonPayload.message=link_has_ended"}
    exempt |= {"jsonPayload.message=request_part"}
    filters = [definition["filter"] for definition in METRICS.values()]
    filters += [
        condition["conditionMatchedLog"]["filter"]
        for policy in ALERTS.values()
        for condition in policy["conditions"]
        if "conditionMatchedLog" in condition
    ]
    for filter_ in filters:
        for name, operator, values in parse(filter_):
            for value in values:
                text = f'{name}{operator}"{value}"'
                if f"{name}{operator}{value}" not in exempt and not any(matches(text, entry) for entry in said):
                    unsaid.add(text)
    assert not unsaid


@pytest.mark.parametrize("tile", DASHBOARD["mosaicLayout"]["tiles"], ids=lambda tile: tile["widget"]["title"])
def test_no_chart_of_the_cloud_dashboard_is_empty(tile: Mapping[str, Any], provoked: Provoked) -> None:
    watching = Monitoring(METRICS, SLOS, entries(provoked.all_lines))
    for data in tile["widget"]["xyChart"]["dataSets"]:
        query = data["timeSeriesQuery"]
        if "timeSeriesFilterRatio" in query:
            sides = [query["timeSeriesFilterRatio"][side] for side in ("numerator", "denominator")]
        else:
            sides = [query["timeSeriesFilter"]]
        for side in sides:
            assert watching.shows(side["filter"], side["aggregation"].get("groupByFields", ()))


@pytest.mark.parametrize(
    ("title", "query"), [pytest.param(*one, id=f"{one[0]}-{n}") for n, one in enumerate(queries())]
)
def test_no_panel_in_grafana_is_empty(title: str, query: str, scrape: promql.Series) -> None:
    assert not promql.problems(query, scrape)


@pytest.mark.parametrize("rule", list(rules()), ids=lambda rule: rule.get("alert") or rule.get("record"))
def test_no_rule_of_prometheus_waits_for_what_is_never_counted(rule: Mapping[str, Any], scrape: promql.Series) -> None:
    assert not promql.problems(rule["expr"], scrape, RECORDED)


def test_a_query_for_what_there_is_not_would_be_noticed(scrape: promql.Series) -> None:
    assert promql.problems("rate(draiv_request_total[1m])", scrape) == ["no series draiv_request_total"]
    assert promql.problems('draiv_breaker_state{state="opened"}', scrape)
    assert promql.problems('draiv_breaker_state{state!="shut"}', scrape)
    assert promql.problems("sum by (verb) (draiv_requests_total)", scrape) == ["no label verb"]


def test_the_composed_prometheus_loads_the_rules() -> None:
    composed = yaml.safe_load((ROOT / "compose.yaml").read_text())
    mounts = dict(one.removesuffix(":ro").split(":") for one in composed["services"]["prometheus"]["volumes"])
    (loaded,) = yaml.safe_load((ROOT / "ops/docker/compose/prometheus.yml").read_text())["rule_files"]
    assert mounts["./ops/monitoring/prometheus/rules.yml"] == loaded


def test_grafanas_panels_have_their_own_ids_and_places_and_the_data_source_of_the_compose_file() -> None:
    panels = GRAFANA["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    source = (ROOT / "ops/docker/compose/grafana/datasources/prometheus.yml").read_text()
    assert {panel["datasource"]["uid"] for panel in panels} == set(re.findall(r"uid: (\w+)", source))


def test_the_same_actions_count_as_reads_everywhere_and_the_catalogue_calls_them_so() -> None:
    (actions,) = [
        set(values) for name, _, values in parse(METRICS["read_duration"]["filter"]) if name == "jsonPayload.action"
    ]
    assert actions <= READS
    assert {"vehicles", "status", "fuel", "is_locked"} <= actions
    texts = [query for _, query in queries()] + [rule["expr"] for rule in rules()]
    named = [set(found.split("|")) for text in texts for found in re.findall(r'action=~"([^"]+)"', text)]
    assert named
    assert all(one == actions for one in named)


def test_every_alert_has_its_runbook_and_every_runbook_tells_what_to_do() -> None:
    named = {policy["userLabels"]["runbook"] for policy in ALERTS.values()}
    named |= {rule["annotations"]["runbook"] for rule in rules() if "alert" in rule}
    for policy in ALERTS.values():
        runbook = policy["userLabels"]["runbook"]
        assert policy["documentation"]["content"].endswith(f"Runbook: docs/runbooks/{runbook}.md")
    for name in named:
        text = (ROOT / "docs" / "runbooks" / f"{name}.md").read_text()
        for heading in ("## Symptom", "## First look", "## Commands", "## Way back"):
            assert heading in text, (name, heading)


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "runbooks").glob("*.md")), ids=lambda page: page.stem)
def test_what_a_runbook_searches_the_logs_for_is_said_there(page: Path, provoked: Provoked) -> None:
    said = entries(provoked.all_lines)
    text = page.read_text().replace("\\\n", " ")
    for filter_, fields in re.findall(r"gcloud logging read '([^']+)'(?:.*?--format 'value\(([^)]*)\)')?", text):
        if "logName" in filter_:
            continue  # the platform's own log
        found = [entry for entry in said if matches(filter_, entry)]
        assert found, filter_
        for name in filter(None, re.split(r",\s*", fields)):
            of_the_platform = name.startswith("resource.labels")
            assert of_the_platform or any(field(entry, name) is not None for entry in found), (filter_, name)


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "runbooks").glob("*.md")), ids=lambda page: page.stem)
def test_a_runbook_asks_the_service_only_in_the_way_that_its_door_lets_in(page: Path) -> None:
    shared = (ROOT / "docs" / "runbooks" / "README.md").read_text()
    (helper,) = re.findall(r"^ask\(\) \{.*X-Serverless-Authorization: Bearer \$\(.*\}$", shared, re.MULTILINE)
    text = page.read_text().replace(helper, "")
    assert "curl" not in text
    for name in re.findall(r"\$\{?([A-Z_]*URL)\b", text):
        assert re.search(rf"^{name}=", shared, re.MULTILINE), name


def test_each_alert_can_be_told_from_the_others() -> None:
    assert len({policy["displayName"] for policy in ALERTS.values()}) == len(ALERTS)


@pytest.mark.parametrize(
    "filter_",
    [
        'severity!="ERROR"',
        'NOT severity="ERROR"',
        'severity="ERROR" OR severity="INFO"',
        'severity="ERROR" severity="INFO"',
        'severity=("ERROR" AND "INFO")',
        'severity=("ERROR"',
        "severity",
        'severity=~"E.*"',
        'jsonPayload.code:"X"',
        "",
    ],
)
def test_a_filter_that_is_not_understood_is_refused(filter_: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the message is for people
        parse(filter_)


def test_filters_compare_as_cloud_logging_does() -> None:
    (entry,) = entries(['{"severity": "WARNING", "message": "request", "count": 3, "time": "2026-01-01T00:00:00Z"}'])
    for filter_, is_taken in (
        ("severity>=WARNING", True),
        ("severity>WARNING", False),
        ("severity<=ERROR", True),
        ("jsonPayload.count>2", True),
        ("jsonPayload.count=4", False),
        ('jsonPayload.message=("other" OR "request") AND severity="WARNING"', True),
        ('jsonPayload.missing="x"', False),
        ('resource.type="cloud_run_revision"', True),
    ):
        assert matches(filter_, entry) is is_taken, filter_
    assert matches('textPayload="no JSON"', entries(["no JSON"])[0])


def test_metrics_come_before_what_is_made_of_them_and_slos_before_their_alerts() -> None:
    kinds = [thing.kind for thing in things(VALUES)]
    assert kinds == sorted(kinds, key=["metric", "service", "SLO", "uptime check", "alert", "dashboard"].index)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool on this machine")
def test_the_rules_ring_when_prometheus_itself_reckons() -> None:
    rules_test = FOLDER / "prometheus" / "rules_test.yml"
    done = subprocess.run(["promtool", "test", "rules", rules_test], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
