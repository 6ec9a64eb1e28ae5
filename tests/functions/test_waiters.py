"""Places to wait in."""

from contextlib import ExitStack, suppress

from functions.waiters import Waiters
from tests.support.world import ME, STRANGER


def test_one_caller_takes_at_most_half_of_the_places_and_all_together_no_more_than_there_are() -> None:
    waiters = Waiters(4)
    with ExitStack() as stack:
        assert [stack.enter_context(waiters.place(ME)) for _ in range(4)] == [True, True, False, False]
        assert [stack.enter_context(waiters.place(STRANGER)) for _ in range(3)] == [True, True, False]
        assert stack.enter_context(waiters.place("a third one")) is False
    with waiters.place("a third one") as has_place:
        assert has_place


def test_whoever_goes_leaves_a_place_however_he_goes() -> None:
    waiters = Waiters(1)
    for _ in range(3):
        with suppress(KeyError), waiters.place(ME) as has_place:
            assert has_place
            raise KeyError
    with waiters.place(ME), waiters.place(STRANGER) as has_place:
        assert not has_place


def test_a_deployment_may_let_nobody_wait() -> None:
    with Waiters(0).place(ME) as has_place:
        assert not has_place
