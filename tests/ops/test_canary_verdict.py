"""Tests of the verdict on a new revision."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.canary_verdict import Figures, Kind, Probed, Probing, Rules, Window, chance_of, judge

RULES = Rules(windows=2, max_windows=3, min_requests=100)


def window(
    stable: tuple[int, int], canary: tuple[int, int], p95_ms: tuple[float | None, float | None] = (100, 100)
) -> Window:
    """Requests and errors of both."""
    return Window(Figures(*stable, p95_ms=p95_ms[0]), Figures(*canary, p95_ms=p95_ms[1]))


def kinds(windows: Sequence[Window], rules: Rules = RULES) -> list[Kind]:
    """The verdict after each window."""
    return [judge(windows[: number + 1], rules).kind for number in range(len(windows))]


def test_one_that_does_as_well_is_good_after_the_least_number_of_windows() -> None:
    assert kinds([window((1900, 2), (100, 0))] * 2) == [Kind.WAIT, Kind.GOOD]


def test_five_percent_of_errors_are_bad_in_the_first_window() -> None:
    verdict = judge([window((1900, 0), (100, 5))], RULES)
    assert verdict.kind is Kind.BAD
    assert verdict.reason == "more errors: 5 of 100, before 0 of 1900"


def test_what_befalls_both_alike_is_nobodys_fault() -> None:
    assert kinds([window((1900, 950), (100, 55))] * 2)[-1] is Kind.GOOD


def test_a_revision_that_mends_what_the_old_one_did_wrong_is_good() -> None:
    assert kinds([window((1900, 190), (100, 0))] * 2)[-1] is Kind.GOOD


def test_a_handful_of_errors_that_chance_makes_is_no_reason() -> None:
    assert kinds([window((200, 1), (60, 1))] * 2)[-1] is Kind.GOOD


def test_an_increase_too_small_to_matter_is_no_reason_however_certain() -> None:
    assert chance_of(100, 100_000, 200, 100_000) < 0.001
    assert kinds([window((100_000, 100), (100_000, 200))] * 2)[-1] is Kind.GOOD


def test_errors_too_few_to_be_seen_in_a_window_are_seen_in_two() -> None:
    small = window((760, 0), (40, 1))
    assert kinds([small] * 2, Rules(min_requests=40)) == [Kind.WAIT, Kind.BAD]


def test_refusals_that_only_the_new_revision_makes_are_bad() -> None:
    verdict = judge([Window(Figures(1900, 0, 40), Figures(100, 0, 30))], RULES)
    assert verdict.kind is Kind.BAD
    assert verdict.reason.startswith("more refusals")


def test_slowness_is_bad_when_two_windows_in_a_row_show_it() -> None:
    slow, quick = window((1900, 0), (100, 0), (100, 400)), window((1900, 0), (100, 0))
    assert kinds([slow, slow]) == [Kind.WAIT, Kind.BAD]
    assert kinds([slow, quick]) == [Kind.WAIT, Kind.GOOD]


@pytest.mark.parametrize("p95_ms", [(1000, 1400), (10, 90), (None, 400), (100, None)])
def test_slower_by_a_little_or_against_nothing_is_not_slow(p95_ms: tuple[float | None, float | None]) -> None:
    assert kinds([window((1900, 0), (100, 0), p95_ms)] * 2)[-1] is Kind.GOOD


def test_too_few_requests_are_waited_for_and_then_not_trusted() -> None:
    few = window((500, 0), (30, 0))
    assert kinds([few, few, few]) == [Kind.WAIT, Kind.WAIT, Kind.BAD]
    assert kinds([few, few, window((500, 0), (60, 0))]) == [Kind.WAIT, Kind.WAIT, Kind.GOOD]


QUIET = [Window(Figures(60, answered=300), Figures(3, answered=240))] * 3
"""Callers who hardly call: probes are nearly everything that the platform counts."""
BY_PROBES = Rules(windows=2, max_windows=3, min_requests=100, probes_prove=True)


def test_probes_are_no_requests_of_callers_and_prove_nothing_by_default() -> None:
    verdict = judge(QUIET, RULES, Probing(Probed(300), Probed(300)))
    assert verdict.kind is Kind.BAD
    assert "9 requests of callers to the new revision" in verdict.reason


@pytest.mark.parametrize(
    ("probed", "kind"),
    [
        (Probed(100), Kind.GOOD),
        (Probed(99), Kind.BAD),
        (Probed(300, 3), Kind.GOOD),
        (Probed(300, 4), Kind.BAD),
        (Probed(300, 300), Kind.BAD),
        (Probed(), Kind.BAD),
    ],
)
def test_where_they_may_decide_as_many_probes_must_be_answered_as_requests_would_be_needed(
    probed: Probed, kind: Kind
) -> None:
    assert judge(QUIET, BY_PROBES, Probing(Probed(), probed)).kind is kind


def test_good_probes_do_not_excuse_callers_who_are_failed_however_few() -> None:
    failed = [Window(Figures(60, answered=300), Figures(3, 3, answered=243))]
    verdict = judge(failed, BY_PROBES, Probing(Probed(300), Probed(300)))
    assert verdict.kind is Kind.BAD
    assert verdict.reason == "more errors: 3 of 3, before 0 of 60"


def test_an_old_revision_that_nobody_called_is_nothing_to_be_compared_with() -> None:
    windows = [Window(Figures(answered=240), Figures(500, answered=740))] * 3
    assert judge(windows, RULES).kind is Kind.BAD
    assert judge(windows, BY_PROBES, Probing(Probed(300), Probed(300))).kind is Kind.GOOD


@pytest.mark.parametrize(("stable", "canary", "missing"), [((0, 0), (200, 0), "old"), ((2000, 0), (0, 0), "new")])
def test_figures_that_are_missing_are_bad(stable: tuple[int, int], canary: tuple[int, int], missing: str) -> None:
    windows = [window(stable, canary)] * 2
    assert kinds(windows) == [Kind.WAIT, Kind.BAD]
    assert f"no figures of the {missing} revision" in judge(windows, RULES).reason


def test_the_exact_test_agrees_with_a_known_table() -> None:
    # Fisher's tea: all four of four guessed right, 1 of 70.
    assert chance_of(0, 4, 4, 4) == pytest.approx(1 / 70)
    assert chance_of(1, 4, 3, 4) == pytest.approx(17 / 70)


@given(st.integers(1, 300), st.integers(1, 300), st.data())
def test_chance_is_a_probability_and_falls_with_each_more_hit(stable: int, canary: int, data: st.DataObject) -> None:
    before = data.draw(st.integers(0, stable))
    chances = [chance_of(before, stable, hits, canary) for hits in range(canary + 1)]
    assert chances[0] == pytest.approx(1)
    assert all(-1e-9 <= later <= earlier + 1e-9 for earlier, later in pairwise(chances))
