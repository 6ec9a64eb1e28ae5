"""The device login and the renewal of tokens, against the sandbox."""

import asyncio
import base64
import hashlib
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from common.errors import (
    ApiError,
    AuthenticationFailed,
    RelinkRequired,
    UpstreamError,
    UpstreamInvalid,
    ValidationFailed,
)
from functions.providers.cardata.auth_manager import ends_soon, is_keep_alive_due, link_ends_at
from functions.providers.cardata.failures import BAD_CLIENT, CODE_DEAD, DENIED
from functions.providers.cardata.provider import assemble
from functions.providers.port import DeviceGrant, DevicePending
from functions.tokens import LEASE_S, RenewalPending, TokenHealth, TokenSet
from tests.providers.cardata.harness import NOON, Bench

TOKEN, DEVICE = "oauth/token", "device/code"
DAY_S = 86_400


async def begin(bench: Bench) -> DeviceGrant:
    return await bench.cardata.auth.begin(bench.sandbox.demo["client_id"])


async def test_an_owner_confirms_and_the_account_works(bench: Bench) -> None:
    grant = await begin(bench)
    assert isinstance(await bench.cardata.auth.poll(grant), DevicePending)
    bench.sandbox.decide(grant.user_code, approve=True)
    bench.advance(grant.interval_s)

    tokens = await bench.cardata.auth.poll(grant)

    assert isinstance(tokens, TokenSet)
    await bench.keeper.save(bench.account.id, tokens)
    assert len(await bench.cardata.vehicles.list_vehicles(bench.account)) == 3
    assert set(tokens.extra) == {"gcid", "client_id", "id_token"}
    assert tokens.extra["gcid"] == bench.sandbox.demo["gcid"]
    assert timedelta(minutes=59) < tokens.expires_at - NOON < timedelta(minutes=61)


async def test_what_the_owner_is_shown_and_what_is_kept_secret(bench: Bench) -> None:
    grant = await begin(bench)

    assert grant.user_code
    assert grant.verification_uri.startswith(bench.sandbox.origin)
    assert grant.verification_uri_complete is None
    assert grant.expires_at == NOON + timedelta(seconds=300)
    assert grant.interval_s == 5
    assert set(grant.secrets) == {"client_id", "device_code", "code_verifier"}
    assert grant.secrets["code_verifier"] not in repr(grant)
    digest = hashlib.sha256(grant.secrets["code_verifier"].encode()).digest()
    assert len(base64.urlsafe_b64encode(digest)) == 44


async def test_a_complete_link_is_passed_on(bench: Bench) -> None:
    bench.sandbox.settings(complete_uri=True)

    grant = await begin(bench)

    assert grant.verification_uri_complete is not None
    assert grant.user_code in grant.verification_uri_complete


@pytest.mark.parametrize("client_id", ["", "not-a-client", "01234567-89ab-cdef-0123-456789abcdeg", "a" * 5_000])
async def test_what_is_no_client_id_is_not_sent(bench: Bench, client_id: str) -> None:
    with pytest.raises(ValidationFailed) as refused:
        await bench.cardata.auth.begin(client_id)

    assert refused.value.details["fields"][0]["path"] == "params.client_id"
    assert bench.requests == []


async def test_a_client_id_that_bmw_does_not_know_is_refused_with_advice(bench: Bench) -> None:
    with pytest.raises(AuthenticationFailed, match="BMW portal") as refused:
        await bench.cardata.auth.begin("00000000-0000-0000-0000-000000000000")

    assert refused.value.message == BAD_CLIENT


async def test_a_client_without_a_subscription_is_refused(bench: Bench) -> None:
    bench.sandbox.change_customer(bench.sandbox.demo["gcid"], api_subscribed=False, stream_subscribed=False)

    with pytest.raises(AuthenticationFailed):
        await begin(bench)


async def test_polling_too_often_lengthens_the_interval(bench: Bench) -> None:
    grant = await begin(bench)
    first = await bench.cardata.auth.poll(grant)
    second = await bench.cardata.auth.poll(grant)

    assert (first, second) == (DevicePending(5), DevicePending(10))


async def test_an_owner_refuses(bench: Bench) -> None:
    grant = await begin(bench)
    bench.sandbox.decide(grant.user_code, approve=False)

    with pytest.raises(AuthenticationFailed) as refused:
        await bench.cardata.auth.poll(grant)

    assert refused.value.message == DENIED


async def test_a_code_that_has_expired_is_dead_without_asking(bench: Bench) -> None:
    grant = await begin(bench)
    asked = len(bench.requests)
    bench.advance(300)

    with pytest.raises(RelinkRequired, match="begin the link anew"):
        await bench.cardata.auth.poll(grant)
    assert len(bench.requests) == asked


async def test_a_code_that_has_expired_at_bmw_is_dead(bench: Bench) -> None:
    grant = await begin(bench)
    bench.sandbox.advance(301)

    with pytest.raises(RelinkRequired) as dead:
        await bench.cardata.auth.poll(grant)
    assert dead.value.message == CODE_DEAD


async def test_the_500_that_burns_a_code_says_to_begin_anew(bench: Bench) -> None:
    grant = await begin(bench)
    bench.sandbox.decide(grant.user_code, approve=True)
    bench.sandbox.fault(match={"path": TOKEN}, fault="burn", times=1)

    for _ in range(2):
        with pytest.raises(RelinkRequired) as dead:
            await bench.cardata.auth.poll(grant)
        assert dead.value.message == CODE_DEAD


@pytest.mark.parametrize("stolen", ["code_verifier", "device_code"])
async def test_a_code_is_of_no_use_without_its_secrets(bench: Bench, stolen: str) -> None:
    grant = await begin(bench)
    bench.sandbox.decide(grant.user_code, approve=True)

    with pytest.raises(RelinkRequired):
        await bench.cardata.auth.poll(replace(grant, secrets={**grant.secrets, stolen: "x" * 43}))


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        ("invalid_request", RelinkRequired),
        ("invalid_grant", RelinkRequired),
        ("expired_token", RelinkRequired),
        ("invalid_client", AuthenticationFailed),
        ("access_denied", AuthenticationFailed),
    ],
)
async def test_each_row_of_the_table_while_polling(bench: Bench, error: str, failure: type[ApiError]) -> None:
    grant = await begin(bench)
    bench.sandbox.fault(match={"path": TOKEN}, fault="oauth", error=error, times=1)

    with pytest.raises(failure):
        await bench.cardata.auth.poll(grant)


@pytest.mark.parametrize("field", ["user_code", "device_code", "verification_uri", "expires_in"])
async def test_a_code_without_what_it_must_hold_is_invalid(bench: Bench, field: str) -> None:
    bench.sandbox.fault(match={"path": DEVICE}, fault="missing", fields=[field])

    with pytest.raises(UpstreamInvalid):
        await begin(bench)


@pytest.mark.parametrize("field", ["access_token", "refresh_token", "expires_in"])
async def test_tokens_without_what_they_must_hold_are_invalid(bench: Bench, field: str) -> None:
    grant = await begin(bench)
    bench.sandbox.decide(grant.user_code, approve=True)
    bench.sandbox.fault(match={"path": TOKEN}, fault="missing", fields=[field])

    with pytest.raises(UpstreamInvalid):
        await bench.cardata.auth.poll(grant)


@pytest.mark.parametrize("error", ["authorization_pending", "slow_down"])
async def test_words_of_a_poll_mean_nothing_elsewhere(bench: Bench, error: str) -> None:
    bench.sandbox.fault(match={"path": "oauth"}, fault="oauth", error=error)

    with pytest.raises(UpstreamError):
        await begin(bench)
    await bench.link()
    bench.advance(3_600)
    with pytest.raises(UpstreamError):
        await bench.cardata.auth.usable(bench.account)


async def test_tokens_without_a_customer_are_of_no_use(bench: Bench) -> None:
    grant = await begin(bench)
    bench.sandbox.decide(grant.user_code, approve=True)
    bench.sandbox.fault(match={"path": TOKEN}, fault="missing", fields=["gcid"])

    with pytest.raises(UpstreamInvalid):
        await bench.cardata.auth.poll(grant)


@pytest.mark.parametrize("body", ["<html>", "[]", "{", '"x"'])
async def test_garbage_is_an_invalid_reply(bench: Bench, body: str) -> None:
    bench.sandbox.fault(match={"path": DEVICE}, fault="status", status=200, body=body)

    with pytest.raises(UpstreamInvalid):
        await begin(bench)


async def test_a_link_that_could_run_code_in_a_browser_is_not_shown(bench: Bench) -> None:
    bench.sandbox.fault(match={"path": DEVICE}, fault="unknown", fields={"verification_uri": "javascript:alert(1)"})

    with pytest.raises(UpstreamInvalid):
        await begin(bench)


async def test_a_renewal_rotates_all_three_and_keeps_the_customer(bench: Bench) -> None:
    old = await bench.link()
    bench.advance(3_600)

    new = await bench.cardata.auth.usable(bench.account)

    assert new.access_token != old.access_token
    assert new.refresh_token != old.refresh_token
    assert new.extra["id_token"] != old.extra["id_token"]
    assert (new.extra["gcid"], new.extra["client_id"]) == (old.extra["gcid"], old.extra["client_id"])


async def test_many_reads_at_once_renew_once(bench: Bench) -> None:
    await bench.link()
    bench.advance(3_600)

    await asyncio.gather(*[bench.cardata.auth.usable(bench.account) for _ in range(10)])

    assert [name for name, _, _ in bench.requests] == ["/gcdm/oauth/token"]
    assert bench.sandbox.stats()["auth"].get("refresh_reuse_detected", 0) == 0


@pytest.mark.parametrize("error", ["invalid_grant", "expired_token", "invalid_client", "access_denied"])
async def test_a_refresh_token_that_is_dead_ends_the_link(bench: Bench, error: str) -> None:
    await bench.link()
    bench.advance(3_600)
    bench.sandbox.fault(match={"path": TOKEN}, fault="oauth", error=error, times=1)

    for _ in range(2):
        with pytest.raises(RelinkRequired):
            await bench.cardata.auth.usable(bench.account)


async def test_a_subscription_that_is_removed_ends_the_link(bench: Bench) -> None:
    await bench.link()
    bench.sandbox.change_customer(bench.sandbox.demo["gcid"], api_subscribed=False)
    bench.advance(3_600)

    with pytest.raises(RelinkRequired):
        await bench.cardata.auth.usable(bench.account)


async def test_a_failure_of_bmws_does_not_end_the_link(bench: Bench) -> None:
    await bench.link()
    bench.advance(3_600)
    bench.sandbox.fault(match={"path": TOKEN}, fault="burn", times=1)

    with pytest.raises(UpstreamError):
        await bench.cardata.auth.usable(bench.account)
    assert (await bench.cardata.auth.usable(bench.account)).access_token


async def test_an_answer_with_new_tokens_is_waited_for_longer_than_any_other(bench: Bench) -> None:
    await bench.link()
    bench.advance(3_600)
    impatient = assemble(
        tokens=bench.keeper,
        documents=bench.documents,
        clock=bench.clock,
        auth_origin=bench.sandbox.origin,
        request_timeout_s=0.3,
    )
    bench.sandbox.fault(match={"path": TOKEN}, fault="slow", when="after", delay_ms=700, times=1)

    assert (await impatient.auth.usable(bench.account)).access_token
    await impatient.provider.close()


@pytest.mark.parametrize(
    "fault",
    [
        {"fault": "reset_after"},
        {"fault": "truncated"},
        {"fault": "missing", "fields": ["refresh_token"]},
        {"fault": "status", "status": 502},
    ],
)
async def test_a_refresh_token_that_bmw_may_have_taken_is_not_shown_again_before_the_lease_ends(
    bench: Bench, fault: dict[str, Any]
) -> None:
    await bench.link()
    bench.advance(3_600)
    bench.sandbox.fault(match={"path": TOKEN}, times=1, **fault)

    with pytest.raises(ApiError) as caught:
        await bench.cardata.auth.usable(bench.account)
    assert caught.value.retry_after_s == LEASE_S
    with pytest.raises(RenewalPending):
        await bench.cardata.auth.usable(bench.account)
    assert [name for name, _, _ in bench.requests] == ["/gcdm/oauth/token"]


async def health(bench: Bench) -> TokenHealth:
    found = await bench.keeper.health(bench.account.id)
    assert found is not None
    return found


async def test_a_link_that_is_kept_alive_daily_lives_on(bench: Bench) -> None:
    await bench.link()
    for _ in range(20):
        bench.advance(DAY_S)
        assert is_keep_alive_due(await health(bench), bench.clock.utc())
        await bench.cardata.auth.keep_alive(bench.account)
        assert not is_keep_alive_due(await health(bench), bench.clock.utc())
        assert not ends_soon(await health(bench), bench.clock.utc())

    assert len(await bench.cardata.vehicles.list_vehicles(bench.account)) == 3


async def test_thirteen_days_idle_are_survived_and_fifteen_are_not(bench: Bench) -> None:
    await bench.link()
    bench.advance(11 * DAY_S - 1)
    assert not ends_soon(await health(bench), bench.clock.utc())
    bench.advance(1)
    assert ends_soon(await health(bench), bench.clock.utc())
    bench.advance(2 * DAY_S)
    await bench.cardata.auth.keep_alive(bench.account)
    assert link_ends_at(await health(bench)) == bench.clock.utc() + timedelta(days=14)
    bench.advance(15 * DAY_S)

    with pytest.raises(RelinkRequired):
        await bench.cardata.auth.keep_alive(bench.account)
    dead = await health(bench)
    assert link_ends_at(dead) is None
    assert not ends_soon(dead, bench.clock.utc())
    assert not is_keep_alive_due(dead, bench.clock.utc())


async def test_an_account_that_is_forgotten_is_read_from_the_store_again(bench: Bench) -> None:
    tokens = await bench.link()
    await bench.cardata.auth.forget(bench.account.id)

    assert not bench.keeper.holds(bench.account.id)
    assert (await bench.cardata.auth.usable(bench.account)).access_token == tokens.access_token
