"""Leave to send one command once."""

import pytest

from common.clock import ManualClock
from common.errors import RemoteServiceError, UpstreamTimeout, Vote
from functions.send_permit import Expired, OneSend


def test_a_permit_is_for_one_send(clock: ManualClock) -> None:
    permit = OneSend(clock, 30)
    permit.take()
    assert permit.in_doubt
    with pytest.raises(RemoteServiceError) as again:
        permit.take()
    assert again.value.may_have_succeeded


def test_a_permit_knows_when_it_was_taken_and_until_when_it_lasts(clock: ManualClock) -> None:
    permit = OneSend(clock, 30)
    assert (permit.sent_at, permit.in_doubt) == (None, False)
    assert (permit.expires_at - clock.utc()).total_seconds() == 30
    clock.advance(5)
    permit.take()
    assert permit.sent_at == clock.utc()


def test_a_refused_send_may_be_made_again_within_the_time(clock: ManualClock) -> None:
    permit = OneSend(clock, 30)
    permit.take()
    permit.refused()
    assert not permit.in_doubt
    clock.advance(29)
    permit.take()
    permit.refused()
    clock.advance(1)
    with pytest.raises(Expired):
        permit.take()


@pytest.mark.parametrize("seconds", [30, 31, 1e9])
def test_an_expired_permit_never_sends(clock: ManualClock, seconds: float) -> None:
    permit = OneSend(clock, 30)
    clock.advance(seconds)
    with pytest.raises(Expired):
        permit.take()
    assert (permit.in_doubt, permit.sent_at) == (False, None)


def test_a_wall_clock_set_back_does_not_keep_it_alive(clock: ManualClock) -> None:
    permit = OneSend(clock, 30)
    clock.advance(30)
    clock.step_wall(-3_600)
    with pytest.raises(Expired):
        permit.take()


def test_a_wall_clock_set_forward_ends_it_too_because_the_record_says_when_it_expires(clock: ManualClock) -> None:
    permit = OneSend(clock, 30)
    clock.step_wall(30)
    with pytest.raises(Expired):
        permit.take()


def test_running_out_of_time_says_nothing_about_the_maker() -> None:
    assert issubclass(Expired, UpstreamTimeout)
    assert Expired.vote is Vote.NONE


def test_the_time_counts_from_when_the_request_came(clock: ManualClock) -> None:
    arrived_s = clock.monotonic()
    clock.advance(20)
    permit = OneSend(clock, 30, arrived_s=arrived_s)
    assert (permit.expires_at - clock.utc()).total_seconds() == 10
    clock.advance(9)
    permit.check()
    clock.advance(1)
    with pytest.raises(Expired):
        permit.take()
