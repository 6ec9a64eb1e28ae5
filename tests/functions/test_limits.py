"""Which limits apply to a request, and what its reply says of them."""

from dataclasses import replace

import pytest

from common.clock import ManualClock
from common.errors import RateLimitExceeded
from common.ratelimit_fixed import FixedLimiter
from common.ratelimit_moving import MovingLimiter
from functions.actions.spec import Kind
from functions.limits import LimitPolicy, LimitRefused, RequestLimits, Tally

NONE = LimitPolicy(**dict.fromkeys(LimitPolicy.__dataclass_fields__, ""))


def limits_of(clock: ManualClock, policy: LimitPolicy) -> RequestLimits:
    return RequestLimits(policy, FixedLimiter(clock), MovingLimiter(clock))


async def refusal(work: object) -> LimitRefused:
    with pytest.raises(LimitRefused) as caught:
        await work  # type: ignore[misc]  # a coroutine, whose kind does not matter here
    return caught.value


async def test_a_reply_tells_how_the_callers_and_the_accounts_limits_stand(clock: ManualClock) -> None:
    clock.advance(28)
    limits, tally = limits_of(clock, LimitPolicy()), Tally()
    await limits.admit_caller("me", "read", tally)
    await limits.admit_account("acc_1", "read", tally)
    assert tally.headers() == {
        "RateLimit-Policy": '"account-read";q=300;w=60, "caller-read";q=600;w=60, "caller-read-3600s";q=10000;w=3600',
        "RateLimit": '"account-read";r=299;t=32, "caller-read";r=599;t=32, "caller-read-3600s";r=9999;t=3572',
    }


async def test_the_tightest_window_is_told_first_and_of_equals_the_longest(clock: ManualClock) -> None:
    policy = replace(NONE, caller_read="3/minute;3/hour", account_read="2/minute")
    limits, tally = limits_of(clock, policy), Tally()
    await limits.admit_caller("me", "read", tally)
    await limits.admit_account("acc_1", "read", tally)
    assert tally.headers()["RateLimit"] == (
        '"account-read";r=1;t=60, "caller-read-3600s";r=2;t=3600, "caller-read";r=2;t=60'
    )


async def test_the_parts_of_a_batch_count_one_each_and_the_last_one_says_how_things_stand(clock: ManualClock) -> None:
    limits, tally = limits_of(clock, replace(NONE, caller_read="2/minute")), Tally()
    for _ in range(2):
        await limits.admit_caller("me", "read", tally)
    assert tally.headers()["RateLimit"] == '"caller-read";r=0;t=60'
    await refusal(limits.admit_caller("me", "read", tally))


async def test_a_refusal_names_its_limit_says_when_to_come_back_and_still_fills_the_headers(
    clock: ManualClock,
) -> None:
    limits, tally = limits_of(clock, replace(NONE, caller_command="1/minute")), Tally()
    await limits.admit_caller("me", "command", tally)
    clock.advance(20)
    refused = await refusal(limits.admit_caller("me", "command", tally))
    assert isinstance(refused, RateLimitExceeded)
    assert refused.details == {"limit": "caller-command", "reason": "too_many_requests"}
    assert refused.retry_after_s == 40.0
    assert tally.headers()["RateLimit"] == '"caller-command";r=0;t=40'


async def test_what_is_refused_deep_inside_brings_its_headers_along(clock: ManualClock) -> None:
    limits = limits_of(clock, replace(NONE, login_identity="1/minute"))
    await limits.admit_login("me", "identity")
    refused = await refusal(limits.admit_login("me", "identity"))
    tally = Tally()
    tally.note(refused.standings)
    assert tally.headers() == {
        "RateLimit-Policy": '"login-identity";q=1;w=60',
        "RateLimit": '"login-identity";r=0;t=60',
    }


async def test_every_kind_of_action_has_limits_of_its_own(clock: ManualClock) -> None:
    every = dict.fromkeys(LimitPolicy.__dataclass_fields__, "1/minute")
    limits, tally = limits_of(clock, LimitPolicy(**every)), Tally()
    for kind in Kind:
        await limits.admit_caller("me", kind, tally)
        refused = await refusal(limits.admit_caller("me", kind, tally))
        assert refused.details["limit"] == f"caller-{kind}"
        await limits.admit_caller("somebody else", kind, tally)
    for kind in (Kind.READ, Kind.COMMAND, Kind.ACCOUNT):
        await limits.admit_account("acc_1", kind, tally)
        refused = await refusal(limits.admit_account("acc_1", kind, tally))
        assert refused.details["limit"] == f"account-{kind}"
        await limits.admit_account("acc_2", kind, tally)


async def test_a_deployment_may_set_no_limits_at_all(clock: ManualClock) -> None:
    limits, tally = limits_of(clock, NONE), Tally()
    for _ in range(1_000):
        await limits.admit_caller("me", "read", tally)
        await limits.admit_account("acc_1", "read", tally)
        await limits.admit_login("me", "identity")
        await limits.admit_fresh_read("a-car")
    assert tally.headers() == {}


async def test_the_defaults_never_let_an_ordinary_client_wait(clock: ManualClock) -> None:
    limits, tally = limits_of(clock, LimitPolicy()), Tally()
    for _ in range(60):
        for kind in Kind:
            await limits.admit_caller("me", kind, tally)
            await limits.admit_account("acc_1", kind, tally)
        clock.advance(15)


def test_a_policy_that_cannot_be_read_stops_the_service_with_the_limits_name(clock: ManualClock) -> None:
    with pytest.raises(ValueError, match="caller-read is not like"):
        limits_of(clock, replace(LimitPolicy(), caller_read="plenty"))


async def test_logins_are_limited_by_caller_and_by_identity(clock: ManualClock) -> None:
    limits = limits_of(clock, replace(NONE, login_caller="3/minute", login_identity="1/minute"))
    await limits.admit_login("me", "mine")
    by_identity = await refusal(limits.admit_login("me", "mine"))
    assert by_identity.details == {"limit": "login-identity", "reason": "too_many_logins"}
    await limits.admit_login("me", "my other one")
    by_caller = await refusal(limits.admit_login("me", "a third"))
    assert by_caller.details == {"limit": "login-caller", "reason": "too_many_logins"}
    await limits.admit_login("somebody else", "theirs")


async def test_logins_have_no_boundary_to_double_around(clock: ManualClock) -> None:
    limits = limits_of(clock, replace(NONE, login_identity="1/minute"))
    clock.advance(59)
    await limits.admit_login("me", "mine")
    clock.advance(2)
    assert (await refusal(limits.admit_login("me", "mine"))).retry_after_s == 58.0


async def test_a_vehicle_is_read_afresh_so_often_an_hour_and_the_refusal_says_why(clock: ManualClock) -> None:
    limits = limits_of(clock, LimitPolicy())
    for _ in range(12):
        await limits.admit_fresh_read("a-car")
        clock.advance(60)
    refused = await refusal(limits.admit_fresh_read("a-car"))
    assert refused.details == {"limit": "vehicle-fresh", "reason": "protects_12v_battery"}
    assert "12 V battery" in refused.message
    assert refused.retry_after_s == 3_600.0 - 12 * 60
    clock.advance(refused.retry_after_s)
    await limits.admit_fresh_read("a-car")
    await refusal(limits.admit_fresh_read("a-car"))


async def test_forced_reads_of_other_vehicles_are_counted_apart(clock: ManualClock) -> None:
    limits = limits_of(clock, replace(NONE, vehicle_fresh="1/hour"))
    await limits.admit_fresh_read("a-car")
    await limits.admit_fresh_read("another-car")
    await refusal(limits.admit_fresh_read("a-car"))


async def test_forced_lists_of_an_account_are_counted_apart_from_reads_of_its_vehicles(clock: ManualClock) -> None:
    limits = limits_of(clock, replace(NONE, vehicle_fresh="2/hour"))
    for _ in range(2):
        await limits.admit_fresh_list("acc_1")
    refused = await refusal(limits.admit_fresh_list("acc_1"))
    assert refused.details == {"limit": "vehicle-fresh", "reason": "too_many_lists"}
    await limits.admit_fresh_list("acc_2")
    clock.advance(3_600)
    await limits.admit_fresh_list("acc_1")
