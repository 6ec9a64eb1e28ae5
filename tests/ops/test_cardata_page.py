"""The owner's guide to CarData: its commands run as they stand, and its table says what both mappings say."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from ops import docs_cardata
from ops.stack import Stack

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/cardata.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
GIVEN, *COMMANDS = BLOCKS
"""The first block holds what `make run` prints."""


def test_the_commands_of_the_guide_link_an_account_and_read_it_word_for_word(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / ".run").mkdir()
    (tmp_path / ".run/api-key").write_text(stack.key)
    stack.cardata.settings(interval_s=1)
    script = "set -eu\n" + "".join(COMMANDS).replace("http://127.0.0.1:8080", stack.api_url)
    given = dict(re.findall(r"^(\w+)=(\S+)", GIVEN, re.MULTILINE))
    assert set(given) == {"BMW", "CLIENT_ID"}

    ran = subprocess.run(
        ["bash", "-o", "pipefail", "-c", script.replace("sleep 5", "sleep 1")],
        cwd=tmp_path,
        env={**os.environ, "BMW": stack.cardata.origin, "CLIENT_ID": stack.cardata.demo["client_id"]},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert ran.returncode == 0, ran.stderr
    replies = [json.loads(line) for line in ran.stderr.splitlines() if line.startswith("{")]
    assert [reply["action"] for reply in replies] == [
        *("connect", "connect_status", "vehicles", "status", "fuel", "status"),
        *("charging_history", "tyre_diagnosis", "charging_settings_by_place", "accounts"),
    ]
    assert all(reply["success"] for reply in replies)
    assert replies[5]["result"]["explain"]["cost"] == 0


def test_the_guide_names_what_make_run_prints() -> None:
    printed = (ROOT / "ops/run.py").read_text()
    assert "docs/cardata.md" in printed
    assert "stack.cardata.origin" in printed
    assert 'stack.cardata.demo["client_id"]' in printed


def test_every_code_that_the_guide_names_exists() -> None:
    codes = set(re.findall(r"^### (\w+)$", (ROOT / "docs/errors.md").read_text(), re.MULTILINE))
    named = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", GUIDE))
    assert named
    settings = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", (ROOT / "docs/configuration.md").read_text()))
    assert named <= codes | settings


def test_the_table_tells_the_makers_apart() -> None:
    rows = dict(re.findall(r"^\| `(.+?)` \| (.+) \|$", docs_cardata.table(), re.MULTILINE))
    assert rows["fuel_and_battery.battery_level"] == "yes | yes"
    assert rows["charging.departure_timers[].time"] == "yes | -"
    assert rows["charging.charging_end_time"] == "yes | yes"
    assert "charging.departure_timers" not in rows
    assert "extra" not in rows
    assert "`vehicle.electricalSystem.battery.voltage`" in docs_cardata.table()


def test_the_page_is_written_by_hand_but_for_the_table() -> None:
    stale = f"before\n{docs_cardata.BEGIN}\nold\n{docs_cardata.END}\nafter\n"
    page = docs_cardata.page(stale)
    assert page.startswith("before\n")
    assert page.endswith("\nafter\n")
    assert "old" not in page
    assert docs_cardata.page(page) == page


@pytest.mark.parametrize("text", ["", docs_cardata.BEGIN, docs_cardata.END])
def test_a_page_without_its_marks_is_not_written_over(text: str) -> None:
    with pytest.raises(ValueError, match="lacks"):
        docs_cardata.page(text)
