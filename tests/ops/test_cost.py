"""The calculator of costs, by hand-made figures and by the files that it really reads."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ops import cost

KINDS = cost.KINDS
PRICES: Mapping[str, Any] = {
    "cpu_s": 1e-6,
    "memory_gib_s": 1e-7,
    "idle_cpu_s": 1e-8,
    "idle_memory_gib_s": 0,
    "million_requests": 1.0,
    "log_gib": 2.0**30 / 1e6,
    "store_write_1000": 0.002,
    "store_read_1000": 0.001,
    "egress_gib": 2.0**30 / 1e6,
    "shared_store_month": 5.0,
}
MEASURED: Mapping[str, Any] = {
    "reply_bytes": dict.fromkeys(KINDS, 3),
    "log_bytes": dict.fromkeys(KINDS, 2),
    "store_writes": {"cached read": 0, "fresh read": 0, "command": 4},
    "store_reads": {"cached read": 0, "fresh read": 0, "command": 2},
}
ASSUMED: Mapping[str, Any] = {
    "maker_ms": {"cached read": 0, "fresh read": 390, "command": 0},
    "concurrency_in_use": 4,
    "cpu_in_use_at_most": 0.5,
    "instance_memory_gib": 0.5,
    "instance_cpu": 1,
    "requests_a_car_and_day": {"cached read": 10, "fresh read": 0, "command": 0},
    "peak_times_the_mean": 10,
    "hours_a_month": 730,
}
INPUTS = cost.Inputs(PRICES, MEASURED, ASSUMED, {"cached read": 0.001, "fresh read": 0.01, "command": 0.02})


def results(samples: list[tuple[str, int, float]]) -> dict[str, Any]:
    return {
        "scenarios": {
            "reads": {
                "samples": [
                    {"cell": {"contestant": who, "connections": connections}, "cpu_us": cpu_us}
                    for who, connections, cpu_us in samples
                ]
            }
        }
    }


def test_a_million_cached_reads_cost_their_cpu_at_the_use_it_may_have() -> None:
    found = cost.million(INPUTS, "cached read")
    assert found == pytest.approx(
        # 1 ms at half an instance is 2 ms of instance, a microdollar a second
        {"CPU": 0.002, "memory": 0.0001, "requests": 1, "logs": 2, "document store": 0, "network": 3}
    )


def test_a_fresh_read_pays_for_its_wait_shared_with_those_that_wait_beside_it() -> None:
    assert cost.million(INPUTS, "fresh read")["CPU"] == pytest.approx(0.4 / 4)
    alone = replace(INPUTS, assumed={**ASSUMED, "concurrency_in_use": 1})
    assert cost.million(alone, "fresh read")["CPU"] == pytest.approx(0.4)


def test_a_command_pays_for_its_records() -> None:
    assert cost.million(INPUTS, "command")["document store"] == pytest.approx((4 * 0.002 + 2 * 0.001) * 1000)


def test_a_fleet_needs_instances_for_its_peak_and_a_shared_store_from_the_second_on() -> None:
    small, large = cost.fleet(INPUTS, 10), cost.fleet(INPUTS, 1_000_000)
    assert small.requests_month == pytest.approx(10 * 10 * 30.4)
    assert small.instances == 1
    assert small.dollars_month == pytest.approx(730 * 3600 * 1e-8 + small.requests_month * 6.0021e-6)
    assert large.peak_per_s == pytest.approx(1_000_000 * 10 * 30.4 / (730 * 3600) * 10)
    assert large.instances == 3  # 1,157 a second x 1 ms of CPU, at half use: 2.3
    assert large.dollars_month == pytest.approx(730 * 3600 * 1e-8 + large.requests_month * 6.0021e-6 + 5)


def test_cpu_is_the_median_of_the_rounds_with_32_connections() -> None:
    found = cost.measured_cpu_s(
        results([("cached", 32, 900), ("cached", 32, 800), ("cached", 32, 5000), ("cached", 1, 1), ("fresh", 32, 8000)])
    )
    assert found == pytest.approx({"cached read": 900e-6, "fresh read": 8e-3})


@pytest.mark.parametrize("broken", [{}, {"scenarios": []}, results([("cached", 32, 1)]), results([])])
def test_results_of_another_shape_are_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not the results"):
        cost.measured_cpu_s(broken)


def test_the_files_that_there_are_can_be_reckoned_with(capsys: pytest.CaptureFixture[str]) -> None:
    assert cost.main(["--cars", "7"]) == 0
    printed = capsys.readouterr().out
    assert "| **together** |" in printed
    assert "| 7 |" in printed


def test_what_is_missing_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.json").write_text("{}")
    assert cost.main(["--bench", str(tmp_path / "none.json")]) == 2
    assert cost.main(["--bench", str(tmp_path / "empty.json")]) == 2
    assert cost.main(["--inputs", str(tmp_path / "empty.json")]) == 2
    assert "ops.cost: " in capsys.readouterr().err
    with pytest.raises(ValueError, match="make bench"):
        cost.newest(tmp_path / "nowhere")


def test_every_figure_names_where_it_comes_from() -> None:
    for group in json.loads(cost.INPUTS.read_text()).values():
        assert group["source"]
