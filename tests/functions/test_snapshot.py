"""What a car last said, and what that means."""

from dataclasses import FrozenInstanceError

import pytest

from functions.snapshot import EMPTY, Climate, Openings
from tests.support.fake_provider import bare_snapshot


@pytest.mark.parametrize(
    ("state", "locked"),
    [
        ("LOCKED", True),
        ("SECURED", True),
        ("UNLOCKED", False),
        ("SELECTIVE_LOCKED", "partial"),
        ("PARTIALLY_LOCKED", "partial"),
        ("UNKNOWN", "unknown"),
        ("INVALID", "unknown"),
        ("LOCKED_SOMEHOW", "unknown"),
        ("locked", "unknown"),
        ("", "unknown"),
        (None, "unknown"),
    ],
)
def test_a_car_is_locked_only_where_it_says_so_in_words_we_know(state: str | None, locked: bool | str) -> None:
    assert Openings(lock_state=state).is_locked == locked


@pytest.mark.parametrize(
    ("activity", "on"),
    [
        ("COOLING", True),
        ("HEATING", True),
        ("VENTILATION", True),
        ("INACTIVE", False),
        ("STANDBY", False),
        ("UNKNOWN", None),
        ("DEFROSTING", None),
        (None, None),
    ],
)
def test_the_cabin_is_conditioned_or_not_only_where_the_car_says_so(activity: str | None, on: bool | None) -> None:
    assert Climate(activity).is_on is on


def test_a_snapshot_cannot_be_changed_because_many_share_it() -> None:
    with pytest.raises(FrozenInstanceError):
        bare_snapshot().mileage_km = 1  # type: ignore[misc]  # that is the point
    with pytest.raises(TypeError):
        EMPTY["a"] = 1  # type: ignore[index]  # that is the point
