"""What one breaker does, call by call."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from common.breaker import BreakerEvent, CircuitBreaker, Permit, Reason, Refusal, State, Tuning
from common.clock import ManualClock
from common.errors import (
    ApiError,
    AuthenticationFailed,
    CircuitOpen,
    ProviderBlocked,
    QuotaLimitExceeded,
    UpstreamError,
    VehicleNotFound,
)


def middle(low: float, high: float) -> float:
    return (low + high) / 2


def lowest(low: float, high: float) -> float:
    return low


def highest(low: float, high: float) -> float:
    return high


class World:
    """A breaker, its clock and what it told."""

    def __init__(
        self,
        failure_threshold: int = 5,
        recovery_timeout: float = 60.0,
        uniform: Callable[[float, float], float] = middle,
        tuning: Tuning | None = None,
    ) -> None:
        self.clock = ManualClock()
        self.events: list[BreakerEvent] = []
        self.breaker = CircuitBreaker(
            failure_threshold,
            recovery_timeout,
            ApiError,
            name="mybmw",
            tuning=tuning,
            clock=self.clock,
            uniform=uniform,
            on_change=self.events.append,
        )

    def state(self) -> State:
        return self.breaker.snapshot().state

    def fail(self, times: int = 1, exc: BaseException | None = None) -> None:
        for _ in range(times):
            self.breaker.acquire().failure(exc or UpstreamError())

    def succeed(self, times: int = 1, took_s: float = 0.0) -> None:
        for _ in range(times):
            permit = self.breaker.acquire()
            self.clock.advance(took_s)
            permit.success()

    def rejection(self) -> ApiError:
        with pytest.raises(ApiError) as caught:
            self.breaker.acquire()
        return caught.value

    def trip(self) -> None:
        self.fail(5)
        assert self.state() is State.OPEN

    def half_open_soon(self) -> None:
        """Trip and let the open time pass: the next call is a probe."""
        self.trip()
        self.clock.advance(60)


def test_it_opens_at_the_threshold_and_not_before() -> None:
    world = World()
    world.fail(4)
    assert world.state() is State.CLOSED
    world.fail()
    assert world.state() is State.OPEN
    assert world.breaker.snapshot().reason is Reason.CONSECUTIVE_FAILURES


def test_a_success_starts_the_count_of_failures_in_a_row_anew() -> None:
    world = World()
    world.fail(4)
    world.succeed()
    world.fail(4)
    assert world.state() is State.CLOSED


def test_a_rejection_says_in_whole_seconds_rounded_up_when_to_come_back() -> None:
    world = World()
    world.trip()
    world.clock.advance(0.75)
    refused = world.rejection()
    assert type(refused) is CircuitOpen
    assert refused.retry_after_s == 60
    world.clock.advance(58.5)
    assert world.rejection().retry_after_s == 1


def test_failures_between_successes_open_it_by_their_rate() -> None:
    world = World()
    for _ in range(9):
        world.succeed()
        world.fail()
    assert world.state() is State.CLOSED, "18 calls are below the minimum"
    world.succeed()
    world.fail()
    assert world.breaker.snapshot().reason is Reason.FAILURE_RATE


def test_failures_that_left_the_window_do_not_count_towards_the_rate() -> None:
    world = World()
    for _ in range(9):
        world.succeed()
        world.fail()
    world.clock.advance(60)
    for _ in range(9):
        world.succeed()
        world.fail()
    assert world.state() is State.CLOSED


def test_failures_in_neighbouring_slices_of_the_window_add_up() -> None:
    world = World()
    for _ in range(10):
        world.succeed()
        world.fail()
        world.clock.advance(5)
    assert world.breaker.snapshot().reason is Reason.FAILURE_RATE


def test_slow_successes_open_it_only_where_slowness_is_defined() -> None:
    careless, strict = World(), World(tuning=Tuning(slow_call_s=3.0))
    for world in (careless, strict):
        world.succeed(19, took_s=3.0)
        assert world.state() is State.CLOSED
        world.succeed(took_s=3.0)
    assert careless.state() is State.CLOSED
    assert strict.breaker.snapshot().reason is Reason.SLOW_RATE


def test_the_slow_rate_is_reached_exactly_at_its_share_of_the_calls() -> None:
    world = World(tuning=Tuning(slow_call_s=3.0, slow_rate=0.8))
    world.succeed(4)
    world.succeed(15, took_s=3.0)
    assert world.state() is State.CLOSED
    world.succeed(took_s=3.0)
    assert world.breaker.snapshot().reason is Reason.SLOW_RATE


@pytest.mark.parametrize(("took_s", "reason"), [(2.9, None), (3.0, Reason.SLOW_RATE)])
def test_a_failure_may_be_slow_as_well(took_s: float, reason: Reason | None) -> None:
    world = World(tuning=Tuning(slow_call_s=3.0, slow_rate=0.5, failure_rate=0.9))
    for _ in range(10):
        world.succeed()
        permit = world.breaker.acquire()
        world.clock.advance(took_s)
        permit.failure(UpstreamError())
    assert world.breaker.snapshot().reason is reason


def test_quick_successes_keep_the_slow_rate_down() -> None:
    world = World(tuning=Tuning(slow_call_s=3.0))
    for _ in range(10):
        world.succeed(3, took_s=0.1)
        world.succeed(took_s=3.0)
    assert world.state() is State.CLOSED


def test_ten_thousand_outcomes_of_the_callers_doing_never_open_it() -> None:
    world = World()
    for number in range(10_000):
        world.fail(exc=(AuthenticationFailed(), VehicleNotFound(), asyncio.CancelledError())[number % 3])
    assert world.state() is State.CLOSED
    assert world.events == []


def test_a_hundred_such_outcomes_between_failures_do_not_keep_it_closed() -> None:
    world = World()
    for _ in range(5):
        world.fail(20, exc=AuthenticationFailed())
        world.fail()
    assert world.breaker.snapshot().reason is Reason.CONSECUTIVE_FAILURES


def test_the_failure_rate_is_not_diluted_by_ignored_outcomes() -> None:
    world = World()
    for _ in range(10):
        world.succeed()
        world.fail(10, exc=VehicleNotFound())
        world.fail()
    assert world.breaker.snapshot().reason is Reason.FAILURE_RATE


def test_a_blocked_maker_opens_it_at_once_and_rejections_say_blocked() -> None:
    world = World()
    world.fail(exc=ProviderBlocked())
    refused = world.rejection()
    assert type(refused) is ProviderBlocked
    assert refused.retry_after_s == 3_600
    assert world.breaker.snapshot().held_by is ProviderBlocked
    assert world.breaker.snapshot().reason is Reason.HOLD


def test_a_used_up_quota_holds_for_as_long_as_the_maker_says() -> None:
    world = World()
    world.fail(exc=QuotaLimitExceeded(retry_after_s=7_200.5))
    refused = world.rejection()
    assert type(refused) is QuotaLimitExceeded
    assert refused.retry_after_s == 7_201
    world.clock.advance(7_200)
    assert type(world.rejection()) is QuotaLimitExceeded
    world.clock.advance(0.5)
    world.succeed()
    assert world.state() is State.CLOSED
    assert world.breaker.snapshot().held_by is None


def test_a_rejection_for_a_hold_repeats_nothing_of_the_first_error_but_its_kind() -> None:
    world = World()
    world.fail(exc=ProviderBlocked("seen by someone else", details={"of": "someone else"}, may_have_succeeded=True))
    refused = world.rejection()
    assert (refused.message, refused.details, refused.may_have_succeeded) == (ProviderBlocked.summary, {}, False)


def test_while_a_hold_is_probed_the_others_still_hear_of_the_hold() -> None:
    world = World()
    world.fail(exc=ProviderBlocked())
    world.clock.advance(3_600)
    world.breaker.acquire()
    assert type(world.rejection()) is ProviderBlocked


def test_a_plain_failure_of_the_probe_ends_what_the_hold_said() -> None:
    world = World()
    world.fail(exc=ProviderBlocked())
    world.clock.advance(3_600)
    world.fail()
    assert type(world.rejection()) is CircuitOpen


def test_a_probe_that_meets_the_hold_again_holds_again() -> None:
    world = World()
    world.fail(exc=ProviderBlocked())
    world.clock.advance(3_600)
    world.fail(exc=ProviderBlocked(retry_after_s=100))
    assert world.rejection().retry_after_s == 100


def open_times(world: World, count: int) -> list[float]:
    world.fail(5)
    for _ in range(count - 1):
        waited = world.events[-1].open_for_s
        assert waited is not None
        world.clock.advance(waited)
        world.fail()
    return [event.open_for_s for event in world.events if event.open_for_s is not None]


def test_each_failed_probe_doubles_the_open_time_up_to_the_cap() -> None:
    assert open_times(World(), 7) == [60, 120, 240, 480, 900, 900, 900]


def test_an_outage_of_years_does_not_overflow_the_open_time() -> None:
    assert open_times(World(), 2_000)[-1] == 900


def test_a_recovery_timeout_beyond_the_cap_is_kept() -> None:
    assert open_times(World(recovery_timeout=2_000), 3) == [2_000, 2_000, 2_000]


@pytest.mark.parametrize(("uniform", "first_s"), [(lowest, 54), (highest, 66)])
def test_the_open_time_varies_by_ten_percent(uniform: Callable[[float, float], float], first_s: float) -> None:
    assert open_times(World(uniform=uniform), 1) == [pytest.approx(first_s)]


def test_a_recovery_starts_the_open_times_anew() -> None:
    world = World()
    open_times(world, 3)
    world.clock.advance(240)
    world.succeed()
    world.fail(5)
    assert world.events[-1].open_for_s == 60


@pytest.mark.parametrize(
    ("said_s", "open_s"),
    [(300.0, 300), (10.0, 60), (0.0, 60), (-5.0, 60), (float("nan"), 60), (float("inf"), 86_400), (1e9, 86_400)],
)
def test_retry_after_is_the_least_open_time_within_reason(said_s: float, open_s: float) -> None:
    world = World()
    world.fail(4)
    world.fail(exc=UpstreamError(retry_after_s=said_s))
    assert world.events[-1].open_for_s == open_s


def test_a_failed_probes_retry_after_counts_too() -> None:
    world = World()
    world.half_open_soon()
    world.fail(exc=UpstreamError(retry_after_s=500))
    assert world.rejection().retry_after_s == 500


def test_half_open_lets_one_probe_through_and_its_success_closes() -> None:
    world = World()
    world.half_open_soon()
    probe = world.breaker.acquire()
    assert world.state() is State.HALF_OPEN
    assert type(world.rejection()) is CircuitOpen
    probe.success()
    assert world.state() is State.CLOSED
    assert world.breaker.snapshot().reason is None
    world.fail(4)
    assert world.state() is State.CLOSED, "nothing is left of the failures before"


def test_after_a_recovery_the_window_of_before_is_forgotten() -> None:
    world = World(failure_threshold=100, recovery_timeout=10)
    world.fail(20)
    world.clock.advance(10)
    world.succeed()
    world.fail(19)
    assert world.state() is State.CLOSED


def test_an_ignored_probe_gives_its_permit_back() -> None:
    world = World()
    world.half_open_soon()
    for outcome in (asyncio.CancelledError(), AuthenticationFailed(), ValueError()):
        world.fail(exc=outcome)
        assert world.state() is State.HALF_OPEN
    world.succeed()
    assert world.state() is State.CLOSED


def test_a_probe_given_back_cannot_report_any_more() -> None:
    world = World()
    world.half_open_soon()
    probe = world.breaker.acquire()
    probe.ignore()
    probe.success()
    assert world.state() is State.HALF_OPEN
    world.succeed()
    assert world.state() is State.CLOSED


def test_a_slow_probe_does_not_close_it() -> None:
    world = World(tuning=Tuning(slow_call_s=3.0))
    world.half_open_soon()
    world.succeed(took_s=3.0)
    assert (world.state(), world.breaker.snapshot().reason) == (State.OPEN, Reason.PROBE_SLOW)


def test_a_hung_probe_frees_itself_and_its_late_success_changes_nothing() -> None:
    world = World()
    world.half_open_soon()
    hung = world.breaker.acquire()
    world.clock.advance(29.5)
    assert world.rejection().retry_after_s == 1
    world.clock.advance(0.5)
    second = world.breaker.acquire()
    hung.success()
    assert world.state() is State.HALF_OPEN
    second.failure(UpstreamError())
    assert world.state() is State.OPEN


def test_a_probe_later_than_its_lease_counts_no_more_even_if_nobody_took_its_place() -> None:
    world = World()
    world.half_open_soon()
    hung = world.breaker.acquire()
    world.clock.advance(30)
    hung.failure(UpstreamError())
    assert world.state() is State.HALF_OPEN


def test_a_hung_probe_that_gives_up_late_does_not_free_its_successors_place() -> None:
    world = World()
    world.half_open_soon()
    hung = world.breaker.acquire()
    world.clock.advance(30)
    world.breaker.acquire()
    hung.ignore()
    assert type(world.rejection()) is CircuitOpen


@pytest.mark.parametrize("outcome", [None, UpstreamError(), ProviderBlocked()])
def test_the_result_of_a_call_from_before_the_trip_changes_nothing(outcome: Exception | None) -> None:
    world = World()
    late = world.breaker.acquire()
    world.half_open_soon()
    world.breaker.acquire()
    if outcome is None:
        late.success()
    else:
        late.failure(outcome)
    assert world.state() is State.HALF_OPEN


@pytest.mark.parametrize("step_s", [3_600, -3_600])
def test_a_corrected_wall_clock_neither_opens_nor_closes_it(step_s: float) -> None:
    world = World()
    world.fail(4)
    world.clock.step_wall(step_s)
    assert world.state() is State.CLOSED
    world.fail()
    world.clock.step_wall(step_s)
    assert world.rejection().retry_after_s == 60
    world.clock.advance(60)
    probe = world.breaker.acquire()
    world.clock.step_wall(step_s)
    assert type(world.rejection()) is CircuitOpen
    probe.success()
    assert [event.after for event in world.events] == [State.OPEN, State.HALF_OPEN, State.CLOSED]


def test_only_the_first_report_of_a_permit_counts() -> None:
    world = World()
    permit = world.breaker.acquire()
    for _ in range(10):
        permit.failure(UpstreamError())
    assert world.breaker.snapshot().failures == 1
    for first in (Permit.success, Permit.ignore):
        permit = world.breaker.acquire()
        first(permit)
        world.fail(2)
        failures = world.breaker.snapshot().failures
        permit.failure(UpstreamError())
        permit.success()
        assert world.breaker.snapshot().failures == failures


def test_forced_open_rejects_without_promising_an_end() -> None:
    world = World()
    world.breaker.force_open()
    world.clock.advance(100_000)
    assert world.rejection().retry_after_s is None
    snapshot = world.breaker.snapshot()
    assert (snapshot.opened_for_s, snapshot.reason, snapshot.retry_after_s) == (100_000, Reason.FORCED, None)


def test_forced_closed_counts_nothing_until_it_is_reset() -> None:
    world = World()
    world.trip()
    world.breaker.force_closed()
    world.fail(100, exc=ProviderBlocked())
    assert world.state() is State.FORCED_CLOSED
    assert world.breaker.snapshot().opened_for_s == 0
    world.breaker.reset()
    world.fail(4)
    assert world.state() is State.CLOSED
    world.fail()
    assert world.state() is State.OPEN


def test_events_tell_the_whole_story_in_order() -> None:
    world = World()
    world.half_open_soon()
    world.fail()
    world.clock.advance(120)
    world.succeed()
    assert [(e.before.value, e.after.value, e.reason.value, e.open_for_s) for e in world.events] == [
        ("closed", "open", "consecutive_failures", 60),
        ("open", "half_open", "recovery_due", None),
        ("half_open", "open", "probe_failed", 120),
        ("open", "half_open", "recovery_due", None),
        ("half_open", "closed", "probe_succeeded", None),
    ]
    generations = [event.generation for event in world.events]
    assert generations == sorted(set(generations))
    assert {event.breaker for event in world.events} == {"mybmw"}


def test_a_listener_is_called_outside_the_lock() -> None:
    seen: list[State] = []

    def listen(_: BreakerEvent) -> None:
        # Another thread, because the lock is reentrant.
        other = threading.Thread(target=lambda: seen.append(breaker.snapshot().state), daemon=True)
        other.start()
        other.join(5)

    breaker = CircuitBreaker(failure_threshold=1, on_change=listen)
    breaker.acquire().failure(UpstreamError())
    assert seen == [State.OPEN]


def test_a_defective_listener_costs_neither_the_call_nor_the_change(caplog: pytest.LogCaptureFixture) -> None:
    def listen(_: BreakerEvent) -> None:
        raise ZeroDivisionError

    breaker = CircuitBreaker(failure_threshold=1, on_change=listen)
    breaker.acquire().failure(UpstreamError())
    assert breaker.snapshot().state is State.OPEN
    assert [record.message for record in caplog.records] == ["breaker_listener_failed"]


def test_a_snapshot_says_how_things_stand() -> None:
    world = World()
    world.succeed()
    world.clock.advance(5)
    world.trip()
    world.clock.advance(10.5)
    snapshot = world.breaker.snapshot()
    assert (snapshot.name, snapshot.state, snapshot.failures) == ("mybmw", State.OPEN, 5)
    assert (snapshot.opened_for_s, snapshot.retry_after_s, snapshot.last_success_ago_s) == (10.5, 50, 15.5)
    world.clock.advance(100)
    assert world.breaker.snapshot().retry_after_s == 0
    world.fail()
    assert world.breaker.snapshot().opened_for_s == 110.5, "it has not been closed in between"
    closed = World().breaker.snapshot()
    assert (closed.opened_for_s, closed.retry_after_s, closed.reason, closed.last_success_ago_s) == (
        0,
        None,
        None,
        None,
    )


def test_the_rejection_factory_makes_the_error() -> None:
    refusals: list[Refusal] = []

    def reject(refusal: Refusal) -> Exception:
        refusals.append(refusal)
        return KeyError("closed for today")

    clock = ManualClock()
    breaker = CircuitBreaker(1, clock=clock, uniform=middle, name="x", rejection=reject)
    breaker.acquire().failure(QuotaLimitExceeded(retry_after_s=5))
    with pytest.raises(KeyError):
        breaker.acquire()
    assert refusals == [Refusal("x", State.OPEN, 5, QuotaLimitExceeded)]


def test_without_settings_five_failures_open_it_for_a_minute() -> None:
    clock, events = ManualClock(), list[BreakerEvent]()
    breaker = CircuitBreaker(clock=clock, uniform=middle, on_change=events.append)
    for _ in range(5):
        assert events == []
        breaker.acquire().failure(UpstreamError())
    assert [event.open_for_s for event in events] == [60]


def test_settings_at_the_edge_of_sense_are_accepted() -> None:
    Tuning(minimum_calls=1, growth=1, jitter=0, window_s=0.5, slow_rate=1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: CircuitBreaker(failure_threshold=0),
        lambda: CircuitBreaker(recovery_timeout=0),
        lambda: Tuning(minimum_calls=0),
        lambda: Tuning(window_s=0),
        lambda: Tuning(growth=0.5),
        lambda: Tuning(jitter=1.0),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="must be"):
        make()
