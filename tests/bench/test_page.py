"""The page that a load test writes."""

from dataclasses import replace
from pathlib import Path

import pytest

from bench.loadtest import page
from bench.loadtest.client import Sample
from bench.loadtest.mix import Ask, Kind
from bench.loadtest.trouble import Events
from bench.loadtest.verdict import Accounts

GOOD = Accounts(sent=3, accepted=3, refused=0, unknown=0, received=3, lost=0, twice=0, lies=0)
EVENTS = Events([(2.0, "kill -9 of Valkey")], [(1.0, "ok"), (2.5, "degraded")])


def sample(number: int, took_s: float = 0.02, status: int | None = 200) -> Sample:
    body = b'{"success": true}' if status == 200 else b""
    return Sample(Ask(Kind.CACHED, b""), number / 1_000, took_s, status, body)


def findings(samples: list[Sample], accounts: Accounts = GOOD, events: Events = EVENTS) -> page.Findings:
    return page.Findings.of({"processors": 2}, samples, accounts, events, 4)


def failing(found: page.Findings) -> list[str]:
    return [gate.name for gate in found.gates() if not gate.passed]


def test_a_good_run_passes_every_bound() -> None:
    assert failing(findings([sample(n) for n in range(2_000)])) == []


@pytest.mark.parametrize(("errors", "fails"), [(1, []), (2, ["errors"])])
def test_one_error_in_a_thousand_is_one_too_many(errors: int, fails: list[str]) -> None:
    samples = [sample(n, status=None if n < errors else 200) for n in range(2_000)]
    assert failing(findings(samples)) == fails


@pytest.mark.parametrize(("slow", "fails"), [(100, []), (101, ["p95 of all requests"])])
def test_more_than_one_in_twenty_must_not_be_slow(slow: int, fails: list[str]) -> None:
    assert failing(findings([sample(n, took_s=0.6 if n < slow else 0.02) for n in range(2_000)])) == fails


@pytest.mark.parametrize(
    ("change", "fails"),
    [
        ({"lost": 1}, ["commands lost", "commands balance"]),
        ({"twice": 1}, ["commands received twice", "commands balance"]),
        ({"lies": 1}, ["commands told as not done, and done", "commands balance"]),
        ({"sent": 4}, ["commands balance"]),
    ],
)
def test_a_command_that_is_not_accounted_for_fails_the_test(change: dict[str, int], fails: list[str]) -> None:
    assert failing(findings([sample(0)], replace(GOOD, **change))) == fails


def test_health_must_have_told_of_the_valkey_that_was_gone() -> None:
    told = findings([sample(0)], events=Events([], [(1.0, "ok")]))
    assert failing(told) == ["/health told that the instances were alone"]


def test_the_page_shows_every_bound_every_kind_and_what_went_wrong(tmp_path: Path) -> None:
    samples = [sample(n, status=None if n == 5 else 200) for n in range(2_000)]
    text = page.write(findings(samples), tmp_path).read_text()
    for words in ("p95 of all requests", *Kind, "error: no reply", "kill -9 of Valkey", "processors"):
        assert words in text
    drawn = (tmp_path / "img" / "load-test.svg").read_text()
    assert "kill -9 of Valkey" in drawn
    page.write(findings(samples), tmp_path)
    assert (tmp_path / "img" / "load-test.svg").read_text() == drawn
