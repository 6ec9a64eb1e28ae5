"""Two instances and a real Valkey between them: what one has read, changed or found out, the other knows."""

import json
from collections.abc import Iterator

import pytest
from redis import Redis

from common.clock import ManualClock
from functions.assembly import Patience
from ops.valkey import Valkey, running_valkey
from sandbox.process import RunningSandbox
from tests.integration.conftest import IX, PATIENT, Api, MakeApi


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    with running_valkey() as server:
        yield server


@pytest.fixture
def pair(make_api: MakeApi, valkey: Valkey, clock: ManualClock) -> tuple[Api, Api]:
    """Two instances on one clock. Moved by more than a second, the word between them has to prove itself anew."""
    return make_api(clock, PATIENT, redis_url=valkey.url), make_api(clock, PATIENT, redis_url=valkey.url)


def fetches(sandbox: RunningSandbox) -> int:
    return sum(count for route, count in sandbox.stats()["requests"].items() if route.endswith("/vehicles/state"))


def state(api: Api) -> str:
    shown: str = api.get("/health").json["checks"]["shared_state"]
    return shown


def test_what_one_instance_has_read_serves_the_other(pair: tuple[Api, Api], sandbox: RunningSandbox) -> None:
    first, second = pair
    account = first.connect()
    first.post(action="status", account=account)
    before = fetches(sandbox)
    answered = second.post(action="fuel", account=account)
    assert answered.meta["cached"] is True
    assert answered.meta["fetched_at"] == first.post(action="fuel", account=account).meta["fetched_at"]
    assert fetches(sandbox) == before
    # And its own first level answers from then on.
    assert second.post(action="mileage", account=account).meta["cached"] is True


def test_what_must_be_fresh_is_read_although_another_instance_has_it(
    pair: tuple[Api, Api], sandbox: RunningSandbox
) -> None:
    first, second = pair
    account = first.connect()
    first.post(action="status", account=account)
    before = fetches(sandbox)
    assert second.post(action="status", account=account, fresh=True).meta["cached"] is False
    assert fetches(sandbox) == before + 1


def test_after_a_command_no_instance_serves_what_was_read_before_it(pair: tuple[Api, Api], clock: ManualClock) -> None:
    first, second = pair
    account = first.connect()
    for api in pair:
        assert api.post(action="is_locked", account=account).result["locked"] is True
    assert first.post(action="unlock", account=account, wait_s=10).result["state"] == "confirmed"
    clock.advance(2)
    assert second.post(action="is_locked", account=account).result["locked"] is False


def test_an_account_that_is_disconnected_here_is_gone_there(pair: tuple[Api, Api], clock: ManualClock) -> None:
    first, second = pair
    account = first.connect()
    assert second.post(action="status", account=account).status == 200
    first.post(action="disconnect", account=account)
    clock.advance(2)
    assert second.post(action="lock", account=account).error["code"] == "ACCOUNT_NOT_FOUND"
    assert second.post(action="status", account=account).error["code"] == "ACCOUNT_NOT_FOUND"


def test_a_maker_that_one_instance_finds_failing_is_left_alone_by_the_other(
    pair: tuple[Api, Api], sandbox: RunningSandbox, clock: ManualClock
) -> None:
    first, second = pair
    account = first.connect()
    second.post(action="vehicles", account=account)
    sandbox.fault(match={"path": "vehicles/state"}, fault="status", status=500)
    for _ in range(5):
        first.post(action="status", account=account, fresh=True)
    assert first.post(action="status", account=account, fresh=True).error["code"] == "CIRCUIT_OPEN"
    clock.advance(2)
    before = sandbox.stats()["requests_total"]
    assert second.post(action="status", account=account, fresh=True).error["code"] == "CIRCUIT_OPEN"
    assert sandbox.stats()["requests_total"] == before
    # It finds out for itself whether the maker is back.
    sandbox.clear_faults()
    clock.advance(70)
    assert second.post(action="status", account=account, fresh=True).status == 200


def test_an_instance_that_starts_later_learns_of_it_with_its_first_call(
    make_api: MakeApi, pair: tuple[Api, Api], valkey: Valkey, sandbox: RunningSandbox, clock: ManualClock
) -> None:
    first, _ = pair
    account = first.connect()
    first.post(action="vehicles", account=account)
    sandbox.fault(match={"path": "vehicles/state"}, fault="status", status=500)
    for _ in range(6):
        first.post(action="status", account=account, fresh=True)
    before = sandbox.stats()["requests_total"]
    late = make_api(clock, PATIENT, redis_url=valkey.url)
    assert late.post(action="status", account=account).error["code"] == "CIRCUIT_OPEN"
    assert sandbox.stats()["requests_total"] == before


def test_a_limit_is_one_limit_over_all_instances(make_api: MakeApi, valkey: Valkey, clock: ManualClock) -> None:
    apis = [make_api(clock, PATIENT, redis_url=valkey.url, limit_caller_service="20/hour") for _ in range(2)]
    statuses = [apis[number % 2].post(action="actions").status for number in range(30)]
    assert statuses.count(200) == 20
    assert statuses.count(429) == 10


def test_without_the_shared_store_each_instance_goes_on_by_itself_and_says_so(
    pair: tuple[Api, Api], valkey: Valkey, clock: ManualClock
) -> None:
    first = pair[0]
    account = first.connect()
    assert first.post(action="status", account=account).status == 200
    assert state(first) == "ok"
    valkey.kill()
    clock.advance(2)
    for api in pair:
        assert api.post(action="status", account=account).status == 200
        assert api.post(action="fuel", account=account, fresh=True).meta["cached"] is False
        assert api.post(action="flash", account=account, wait_s=10).result["status"] == "success"
        assert state(api) == "degraded"
        assert api.get("/health").json["status"] == "degraded"
    valkey.start()
    clock.advance(10)
    for api in pair:
        assert api.post(action="fuel", account=account, fresh=True).status == 200
        assert state(api) == "ok"


def test_a_store_that_stops_for_a_moment_takes_nothing_from_an_instance(
    make_api: MakeApi, valkey: Valkey, clock: ManualClock, sandbox: RunningSandbox
) -> None:
    first = make_api(clock, Patience(store_s=1, word_s=1, limits_s=1), redis_url=valkey.url)
    account = first.connect()
    first.post(action="status", account=account)
    before = fetches(sandbox)
    valkey.pause()
    clock.advance(2)
    first.post(action="status", account=account)
    valkey.resume()
    with Redis.from_url(valkey.url) as client:
        client.flushall()
    clock.advance(2)
    for _ in range(2):
        assert first.post(action="status", account=account).meta["stale"] is False
    assert fetches(sandbox) == before


def test_after_a_restart_of_the_store_what_is_held_still_stands_in_while_the_maker_is_down(
    pair: tuple[Api, Api], valkey: Valkey, clock: ManualClock, sandbox: RunningSandbox
) -> None:
    account = pair[0].connect()
    read_at = [api.post(action="status", account=account).meta["fetched_at"] for api in pair]
    valkey.kill()
    valkey.start()
    sandbox.fault(match={"path": "vehicles/state"}, fault="status", status=500)
    clock.advance(2)
    answered = [api.post(action="status", account=account) for api in pair]
    assert [(each.status, each.meta["stale"]) for each in answered] == [(200, True)] * 2
    assert [each.meta["fetched_at"] for each in answered] == read_at


def test_after_a_restart_of_the_store_a_car_is_read_once_for_all_instances(
    pair: tuple[Api, Api], valkey: Valkey, clock: ManualClock, sandbox: RunningSandbox
) -> None:
    account = pair[0].connect()
    for api in pair:
        api.post(action="status", account=account)
    before = fetches(sandbox)
    valkey.kill()
    valkey.start()
    clock.advance(10)
    for api in pair:
        assert api.post(action="status", account=account).meta["stale"] is False
    assert fetches(sandbox) == before + 1


def test_what_stands_in_after_a_restart_of_the_store_is_nothing_of_an_account_that_ended_meanwhile(
    pair: tuple[Api, Api], valkey: Valkey, clock: ManualClock, sandbox: RunningSandbox
) -> None:
    first, second = pair
    account = first.connect()
    assert second.post(action="status", account=account).status == 200
    valkey.kill()
    assert first.post(action="disconnect", account=account).status == 200
    valkey.start()
    sandbox.fault(match={"path": "vehicles/state"}, fault="status", status=500)
    clock.advance(2)
    assert second.post(action="status", account=account).error["code"] == "ACCOUNT_NOT_FOUND"


def test_what_lies_in_the_shared_store_is_sealed_and_ends_by_itself(pair: tuple[Api, Api], valkey: Valkey) -> None:
    first, _ = pair
    account = first.connect()
    first.post(action="flash", account=account, wait_s=10)
    first.post(action="status", account=account)
    with Redis.from_url(valkey.url) as client:
        keys = list(client.scan_iter())
        assert keys
        for key in keys:
            assert client.ttl(key) > 0, key
            held = client.dump(key) or b""
            for secret in (IX, account, "one@example.com", "BMW", "acc_", json.dumps(48.177334)):
                assert secret.encode() not in key + held, (key, secret)
