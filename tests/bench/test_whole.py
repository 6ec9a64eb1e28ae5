"""A short load test with everything in it: four instances, a Valkey, a maker that fails, and both kills."""

from pathlib import Path

import pytest

from bench.loadtest.__main__ import main


@pytest.mark.timeout(240)  # dozens of processes, some started twice
def test_a_load_test_kills_what_it_should_and_accounts_for_every_command(tmp_path: Path) -> None:
    # How quick it was says nothing of a machine that runs other tests meanwhile; nor does one reply of so few.
    main(["--seconds", "4", "--rate", "25"], docs=tmp_path)
    text = (tmp_path / "load-test.md").read_text()
    for event in ("kill -9 of an instance", "its successor started", "kill -9 of Valkey", "Valkey restarted, empty"):
        assert event in text
    for bound in ("commands lost", "commands received twice", "commands told as not done, and done"):
        assert f"| {bound} | 0 | = 0 | pass |" in text
    assert "| all | 100 |" in text
    assert (tmp_path / "img" / "load-test.svg").exists()
