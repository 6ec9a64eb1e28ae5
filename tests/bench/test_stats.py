"""Fits and percentiles of measurements."""

import pytest

from bench.stats import Spread, exponent, percentile


@pytest.mark.parametrize("grows", [-0.5, 0.0, 0.3, 1.0, 2.0])
def test_the_exponent_of_a_power_law_is_found(grows: float) -> None:
    assert exponent({size: 7.0 * size**grows for size in (10.0, 100.0, 1_000.0)}) == pytest.approx(grows)


def test_the_exponent_of_noise_around_a_flat_cost_is_close_to_nothing() -> None:
    assert abs(exponent({10.0: 55.0, 1_000.0: 57.0, 100_000.0: 54.0})) < 0.01


@pytest.mark.parametrize("points", [{10.0: 1.0}, {10.0: 1.0, 20.0: 0.0}, {0.0: 1.0, 20.0: 1.0}])
def test_nothing_is_fitted_to_what_has_no_logarithm_or_no_length(points: dict[float, float]) -> None:
    with pytest.raises(ValueError, match="a fit needs"):
        exponent(points)


def test_a_spread_is_the_median_between_the_lowest_and_the_highest() -> None:
    assert Spread.of([9, 1, 2]) == Spread(median=2, low=1, high=9, rounds=3)


def test_the_nearest_rank_percentile_is_one_of_the_values() -> None:
    assert [percentile([1, 2, 3, 4], percent) for percent in (1, 50, 75, 100)] == [1, 2, 3, 4]
