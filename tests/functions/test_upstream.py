"""Every call to a maker: deadline, breaker, and for reads retries."""

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from common.breaker import Breakers, CircuitBreaker, State
from common.clock import ManualClock
from common.errors import (
    ApiError,
    AuthenticationFailed,
    CircuitOpen,
    ProviderBlocked,
    ProviderError,
    StoreUnavailable,
    UpstreamError,
    UpstreamTimeout,
)
from common.retry import ReadRetry, RetryBudget
from functions.providers.port import Account, Region
from functions.upstream import BreakerKey, Kind, Upstream

ACCOUNT = Account("acc_1", "mybmw", Region.REST_OF_WORLD)
IN_CHINA = Account("acc_2", "mybmw", Region.CHINA)
ELSEWHERE = Account("acc_3", "cardata", Region.REST_OF_WORLD)


class Road:
    """An upstream, and a maker that raises what it is told to."""

    def __init__(self, clock: ManualClock) -> None:
        async def sleep(seconds: float) -> None:
            clock.advance(seconds)

        self.breakers: Breakers[BreakerKey] = Breakers(
            lambda key: CircuitBreaker(5, 60, ProviderError, name="/".join(key), clock=clock)
        )
        retry = ReadRetry(budget=RetryBudget(clock), sleep=sleep, uniform=lambda least, _most: least)
        self.upstream = Upstream(self.breakers, retry, clock, {"read": 20, "command": 30, "auth": 45})
        self.clock = clock
        self.calls = 0

    def answering(self, *answers: Exception | str) -> Callable[[], Coroutine[Any, Any, str]]:
        queue = list(answers)

        async def call() -> str:
            self.calls += 1
            answer = queue.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call


@pytest.fixture
def road(clock: ManualClock) -> Road:
    return Road(clock)


async def test_a_read_is_tried_three_times(road: Road) -> None:
    assert await road.upstream.read(ACCOUNT, road.answering(UpstreamError(), UpstreamError(), "well")) == "well"
    assert road.calls == 3


async def test_a_read_gives_up_with_the_last_failure(road: Road) -> None:
    last = UpstreamTimeout("the last")
    with pytest.raises(UpstreamTimeout) as failed:
        await road.upstream.read(ACCOUNT, road.answering(UpstreamError(), UpstreamError(), last))
    assert failed.value is last


@pytest.mark.parametrize("kind", ["command", "auth"])
async def test_what_is_done_once_is_done_once(road: Road, kind: Kind) -> None:
    with pytest.raises(UpstreamError):
        await road.upstream.once(ACCOUNT, kind, road.answering(UpstreamError(), "never"))
    assert road.calls == 1


@pytest.mark.parametrize("failure", [AuthenticationFailed(), StoreUnavailable(), KeyError("defect")])
async def test_what_says_nothing_of_the_maker_is_neither_retried_nor_counted(road: Road, failure: Exception) -> None:
    for _ in range(10):
        with pytest.raises(type(failure)):
            await road.upstream.read(ACCOUNT, road.answering(failure, "never"))
    assert road.calls == 10
    assert road.breakers.get(("mybmw", "rest_of_world", "read")).snapshot().state is State.CLOSED


async def fail(road: Road, account: Account, kind: Kind, times: int, failure: type[ApiError] = UpstreamError) -> None:
    for _ in range(times):
        with pytest.raises(failure):
            await road.upstream.once(account, kind, road.answering(failure()))


async def test_five_failures_close_the_road_for_that_maker_region_and_kind_alone(road: Road) -> None:
    await fail(road, ACCOUNT, "auth", 5)
    with pytest.raises(CircuitOpen):
        await road.upstream.once(ACCOUNT, "auth", road.answering("never"))
    assert road.calls == 5
    for account, kind in ((ACCOUNT, "command"), (IN_CHINA, "auth"), (ELSEWHERE, "auth")):
        assert await road.upstream.once(account, kind, road.answering("well")) == "well"  # type: ignore[arg-type]  # kinds
    assert await road.upstream.read(ACCOUNT, road.answering("well")) == "well"


async def test_the_accounts_of_one_maker_and_region_share_a_road(road: Road) -> None:
    await fail(road, ACCOUNT, "auth", 5)
    other = Account("acc_9", "mybmw", Region.REST_OF_WORLD)
    with pytest.raises(CircuitOpen):
        await road.upstream.once(other, "auth", road.answering("never"))


async def test_a_block_closes_the_road_at_once(road: Road) -> None:
    await fail(road, ACCOUNT, "auth", 1, ProviderBlocked)
    with pytest.raises(ApiError):
        await road.upstream.once(ACCOUNT, "auth", road.answering("never"))
    assert road.calls == 1


async def test_a_call_that_comes_back_too_late_to_be_begun_is_a_timeout(clock: ManualClock) -> None:
    upstream = Upstream(
        Breakers(lambda key: CircuitBreaker(name="/".join(key), clock=clock)),
        ReadRetry(budget=RetryBudget(clock)),
        clock,
        {"read": 0, "command": 0, "auth": 0},
    )
    begun = False

    async def call() -> None:
        nonlocal begun
        begun = True

    with pytest.raises(UpstreamTimeout):
        await upstream.once(ACCOUNT, "command", call)
    with pytest.raises(UpstreamTimeout):
        await upstream.read(ACCOUNT, call)
    assert not begun


async def test_retries_stay_inside_the_deadline_of_the_whole(road: Road, clock: ManualClock) -> None:
    calls = 0

    async def slow() -> None:
        nonlocal calls
        calls += 1
        clock.advance(12)
        raise UpstreamError

    with pytest.raises(UpstreamError):
        await road.upstream.read(ACCOUNT, slow)
    assert calls == 2


async def test_the_last_success_is_remembered_by_maker(road: Road, clock: ManualClock) -> None:
    assert road.upstream.last_success("mybmw") is None
    await fail(road, ACCOUNT, "auth", 1)
    assert road.upstream.last_success("mybmw") is None
    await road.upstream.once(ACCOUNT, "auth", road.answering("well"))
    at = clock.utc()
    clock.advance(10)
    await fail(road, ACCOUNT, "auth", 1)
    assert (road.upstream.last_success("mybmw"), road.upstream.last_success("cardata")) == (at, None)
