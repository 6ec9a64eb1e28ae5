"""What is asked and checked for the picture of the Grafana dashboard. The picture itself needs programs of its own."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from common.settings import Settings
from ops.monitoring.screenshot import page
from ops.monitoring.screenshot.dashboard import empty_panels, height_px, kiosk, queries, unready, window
from ops.monitoring.screenshot.devtools import Browser, DevToolsError
from ops.monitoring.screenshot.incidents import INCIDENTS
from ops.monitoring.screenshot.prometheus import settings
from ops.monitoring.screenshot.stage import WARM_UP_S, service_settings, warm_up_s

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = json.loads((ROOT / "ops/monitoring/grafana/draiv.json").read_text())
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
PACKAGES = json.loads((page.SOURCE / "package.json").read_text())
LOCK = (page.SOURCE / "package-lock.json").read_text()

A_BROWSER = """
import json, os
unread = b""
while part := os.read(3, 65536):
    *commands, unread = (unread + part).split(b"\\0")
    for command in map(json.loads, commands):
        if command["method"] == "End":
            os.close(3)
            raise SystemExit
        answer = {"result": command} if command["method"] != "Bad" else {"error": {"message": "no such method"}}
        for message in ({"method": "An.event"}, {"id": command["id"], **answer}):
            text = json.dumps(message).encode() + b"\\0"
            os.write(4, text[:5])
            os.write(4, text[5:])
"""
"""Speaks as Chromium does on its pipe, in pieces, with events in between."""


def panel(number: int, expr: str = "up", title: str = "Caches: bytes & more") -> dict[str, Any]:
    return {
        "id": number,
        "title": title,
        "gridPos": {"x": 0, "y": 4 * number, "w": 8, "h": 4},
        "targets": [{"refId": "A", "expr": expr}],
    }


def document(dashboard: Mapping[str, Any], drawn: str) -> str:
    titles = [one["title"].replace("&", "&amp;") for one in dashboard["panels"]]
    return "".join(f'<section data-testid="data-testid Panel header {title}">{drawn}</section>' for title in titles)


def test_every_query_of_the_dashboard_is_asked_without_variables() -> None:
    asked = queries(DASHBOARD, window(1_000_000, 240))
    assert [(query.panel, query.ref) for query in asked] == [
        (one["id"], target["refId"]) for one in DASHBOARD["panels"] for target in one["targets"]
    ]
    assert not [query.expr for query in asked if "$" in query.expr]
    assert any("[20s]" in query.expr for query in asked)


def test_a_variable_that_nobody_fills_in_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Caches: bytes & more: \$__interval is not known"):
        queries({"panels": [panel(1, "rate(x[$__interval])")]}, window(1_000_000, 240))


@pytest.mark.parametrize(("range_s", "step_s", "rate_interval_s"), [(240, 5, 20), (3_600, 6, 20), (86_400, 144, 149)])
def test_a_long_window_has_wider_steps_and_rates_over_more_than_a_step(
    range_s: int, step_s: int, rate_interval_s: int
) -> None:
    over = window(1_000_003, range_s)
    assert (over.step_s, over.rate_interval_s) == (step_s, rate_interval_s)


def test_a_window_begins_and_ends_at_multiples_of_its_step() -> None:
    over = window(1_000_003.7, 242)
    assert (over.begin_s, over.end_s) == (999_760, 1_000_000)


@pytest.mark.parametrize("now_s", [1_000_000.0, 1_000_019.9, 1_000_047.0])
def test_a_picture_ends_half_a_minute_past_and_waits_no_longer_than_that_takes(now_s: float) -> None:
    waited = warm_up_s(now_s, 240)
    assert WARM_UP_S <= waited < WARM_UP_S + 60
    assert (now_s + waited + 240) % 60 == pytest.approx(30)


def test_prometheus_scrapes_the_instance_as_often_as_the_composed_one_does() -> None:
    composed = yaml.safe_load((ROOT / "ops/docker/compose/prometheus.yml").read_text())
    ours = yaml.safe_load(settings("127.0.0.1:8080"))
    assert ours["global"] == composed["global"]
    assert ours["scrape_configs"][0]["static_configs"] == [{"targets": ["127.0.0.1:8080"]}]


def test_a_panel_without_a_series_is_named() -> None:
    full, none = {"panel": 1, "series": [{}]}, {"panel": 2, "series": []}
    assert empty_panels({"panels": [panel(1), panel(2, title="Empty")]}, [full, none]) == ["Empty"]
    assert empty_panels({"panels": [panel(1), panel(2)]}, [full, {**full, "panel": 2}]) == []


@pytest.mark.parametrize("drawn", ['<div class="uplot u-hz">', "<p>No data</p>"])
def test_a_page_with_every_panel_drawn_is_ready(drawn: str) -> None:
    assert unready(DASHBOARD, document(DASHBOARD, drawn)) == ""


def test_a_page_says_what_it_still_lacks() -> None:
    dashboard = {"panels": [panel(1), panel(2, title="Another")]}
    assert unready(dashboard, document(dashboard, "")) == "0 of 2 panels are drawn"
    assert unready(dashboard, document({"panels": [panel(1)]}, "No data")) == "there is no panel Another"


def test_the_page_is_as_tall_as_its_lowest_panel() -> None:
    assert height_px({"panels": [panel(1), panel(0)]}) == 16 + 8 * 30 + 7 * 8 + 16


@pytest.mark.parametrize(("url", "mark"), [("http://127.0.0.1:3000/d/draiv", "?"), ("http://h/d/draiv?orgId=1", "&")])
def test_grafana_is_asked_for_the_panels_alone(url: str, mark: str) -> None:
    assert kiosk(url, 4) == f"{url}{mark}kiosk&theme=dark&from=now-240s&to=now"


def test_incidents_come_in_order_and_within_the_time() -> None:
    shares = [incident.share for incident in INCIDENTS]
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] < 1


def test_the_service_knows_the_issuer_and_has_one_limit() -> None:
    chosen = service_settings("http://127.0.0.1:1")
    assert json.loads(chosen["OIDC_ISSUERS"])[0]["issuer"] == "http://127.0.0.1:1"
    limits = {name: value for name, value in chosen.items() if name.startswith("LIMIT_")}
    assert set(limits) == {name.upper() for name in Settings.model_fields if name.startswith("limit_")}
    assert [name for name, value in limits.items() if value] == ["LIMIT_CALLER_SERVICE"]


def test_the_components_are_of_the_grafana_that_compose_starts() -> None:
    version = COMPOSE["services"]["grafana"]["image"].partition(":")[2]
    locked = json.loads(LOCK)["packages"]
    assert {locked[f"node_modules/@grafana/{name}"]["version"] for name in ("data", "schema", "ui")} == {version}


def test_versions_are_exact_and_the_lock_names_no_registry() -> None:
    asked = {**PACKAGES["dependencies"], **PACKAGES["devDependencies"], **PACKAGES["overrides"]}
    assert [version for version in asked.values() if not re.fullmatch(r"\d+\.\d+\.\d+(-beta\.\d+)?", version)] == []
    assert '"resolved"' not in LOCK
    packages = {name: locked for name, locked in json.loads(LOCK)["packages"].items() if name}
    assert len(packages) > 100
    assert [name for name, locked in packages.items() if "integrity" not in locked] == []


def test_the_page_is_served_beside_its_data(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("the page")
    with page.served(tmp_path, {"window": 1}) as url:
        assert httpx.get(url, trust_env=False).text == "the page"
        assert httpx.get(url.replace("index.html", "picture.json"), trust_env=False).json() == {"window": 1}
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, trust_env=False)


def test_a_browser_answers_over_its_pipe_and_ends_with_the_block() -> None:
    with Browser([sys.executable, "-c", A_BROWSER]) as browser:
        assert browser.call("Page.go", url="x")["params"] == {"url": "x"}
        assert browser.call("Page.go", "a-session")["sessionId"] == "a-session"
        with pytest.raises(DevToolsError, match="Bad: no such method"):
            browser.call("Bad")
        for _ in range(2):
            with pytest.raises(DevToolsError, match="Chromium ended"):
                browser.call("End")


@pytest.mark.parametrize(("words", "missing"), [([], "npm prometheus pngquant chromium"), (["--url", "x"], "pngquant")])
def test_what_is_not_installed_is_named_in_one_line(words: list[str], missing: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "ops.monitoring.screenshot", *words],
        cwd=ROOT,
        env={**os.environ, "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2
    assert f"apt-get install {missing}" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
