"""The actions' functions, each called as the pipeline calls it."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from common.callers import Scope
from common.clock import ManualClock
from common.errors import AccountNotFound, CacheMiss, CommandNotFound, UpstreamError, ValidationFailed
from functions.actions.accounts import credentials
from functions.actions.catalogue import find
from functions.actions.reads import freshness
from functions.actions.spec import Answer, Call, Target
from functions.contract import Envelope
from functions.links import Link
from functions.providers.port import Outcome, Progress, Region
from functions.snapshot import Location
from functions.vehicles import Freshness
from functions.wire import encode
from tests.support.driver import Driver
from tests.support.fake_provider import FIRST, PASSWORD, PNG, SECOND, USERNAME, FakeMaker, fake_car
from tests.support.world import READ_TTL_S, STRANGER, World, caller

READS = [
    "status", "fuel", "location", "mileage", "lock_status", "is_locked", "check_control", "charging", "climate_status",
    "tires", "service", "capabilities",
]  # fmt: skip
HERE = {"latitude": 48.1, "longitude": 11.5}


async def act(
    driver: Driver,
    action: str,
    *scopes: Scope,
    params: dict[str, Any] | None = None,
    principal: str | None = None,
    key: str | None = None,
    **fields: Any,
) -> Answer:
    """What an action answers somebody with these scopes, all of them where none is named."""
    spec = find(action)
    call = Call(
        Envelope.model_validate({"action": action, **fields}),
        spec.params.model_validate(params or {}),
        caller(*scopes, principal=principal or driver.link.principal),
        idempotency_key=key,
        link=driver.link if spec.target is not Target.NOTHING else None,
        vehicle=driver.vehicle if spec.target is Target.VEHICLE else None,
    )
    answer = await spec.handler(driver.world.services, call)
    if answer.png is None:
        json.loads(encode(answer.result))
    return answer


# --- reads ------------------------------------------------------------------------------------------------------------


async def test_all_reads_of_a_vehicle_are_one_read_of_the_maker(driver: Driver, maker: FakeMaker) -> None:
    for action in READS:
        assert "unavailable" in (await act(driver, action)).result
    assert maker.calls["read_vehicle"] == 1


@pytest.mark.parametrize("action", READS)
async def test_a_read_says_where_its_data_come_from(
    driver: Driver, action: str, maker: FakeMaker, clock: ManualClock
) -> None:
    maker.cars[0].measured_at = measured_at = clock.utc() - timedelta(minutes=5)
    fetched_at = clock.utc()
    first = (await act(driver, action)).source
    clock.advance(100)
    again = (await act(driver, action)).source
    assert first is not None
    assert again is not None
    assert (first.cached, first.stale, first.age_s) == (False, False, 0)
    assert (again.cached, again.stale, again.age_s) == (True, False, 100)
    assert (again.fetched_at, again.measured_at) == (fetched_at, measured_at)


async def test_old_data_are_marked_stale(driver: Driver, maker: FakeMaker, clock: ManualClock) -> None:
    await act(driver, "fuel")
    clock.advance(READ_TTL_S)
    maker.then("read_vehicle", *[UpstreamError() for _ in range(3)])
    source = (await act(driver, "fuel")).source
    assert source is not None
    assert (source.cached, source.stale) == (True, True)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, Freshness(is_callers=True)),
        ({"fresh": True}, Freshness(0, is_callers=True)),
        ({"max_age_s": 60}, Freshness(60, is_callers=True)),
        ({"max_age_s": 0}, Freshness(0, is_callers=True)),
        ({"cache_only": True, "max_age_s": 60}, Freshness(60, cache_only=True, is_callers=True)),
    ],
)
def test_a_request_says_how_old_its_data_may_be(fields: dict[str, Any], expected: Freshness) -> None:
    assert freshness(Envelope.model_validate(fields)) == expected


async def test_the_age_asked_for_reaches_the_cache(driver: Driver, maker: FakeMaker) -> None:
    with pytest.raises(CacheMiss):
        await act(driver, "status", cache_only=True)
    await act(driver, "fuel")
    await act(driver, "status", cache_only=True)
    await act(driver, "status", fresh=True)
    await act(driver, "fuel", fresh=True)
    assert maker.calls["read_vehicle"] == 3


async def test_units_reach_the_projection(driver: Driver) -> None:
    assert (await act(driver, "mileage", units="imperial")).result["unit"] == "mi"
    assert (await act(driver, "status", units="imperial")).result["mileage"]["unit"] == "mi"


@pytest.mark.parametrize("with_scope", [True, False])
async def test_the_status_shows_the_position_only_to_those_who_may_see_it(
    driver: Driver, maker: FakeMaker, with_scope: bool
) -> None:
    car = maker.cars[0]
    car.snapshot = replace(car.snapshot, location=Location(48.123456, 11.654321, 271))
    scopes = (Scope.READ, Scope.LOCATION) if with_scope else (Scope.READ, Scope.COMMAND, Scope.UNLOCK, Scope.ADMIN)
    shown = encode((await act(driver, "status", *scopes)).result).decode()
    assert ("48.123456" in shown) is with_scope
    assert ("11.654321" in shown) is with_scope
    assert ("271" in shown) is with_scope


async def test_vehicles_are_listed_with_what_is_known_of_them(driver: Driver, maker: FakeMaker) -> None:
    maker.cars.append(fake_car(SECOND))
    await act(driver, "status")
    result = (await act(driver, "vehicles", fresh=True)).result
    assert result["count"] == 2
    first, second = result["vehicles"]
    assert (first["vin"], first["brand"], first["name"], first["drivetrain"]) == (
        FIRST, "BMW", "iX xDrive50", "ELECTRIC",
    )  # fmt: skip
    assert first["capabilities"]["lock"] is True
    assert (second["vin"], second["capabilities"]) == (SECOND, None)
    assert set(result["unavailable"]) == {"vehicles.1.capabilities"}


async def test_a_list_just_given_by_the_maker_is_not_called_cached(
    driver: Driver, maker: FakeMaker, clock: ManualClock
) -> None:
    async def take_time() -> None:
        clock.advance(1)

    at_once = (await act(driver, "vehicles", fresh=True)).source
    assert at_once is not None
    assert (at_once.cached, at_once.age_s) == (False, 0)
    maker.before["list_vehicles"] = take_time
    fresh = (await act(driver, "vehicles", fresh=True)).source
    clock.advance(5)
    cached = (await act(driver, "vehicles")).source
    assert fresh is not None
    assert cached is not None
    assert (fresh.cached, cached.cached, cached.age_s) == (False, True, 5)
    assert cached.measured_at is None


async def test_a_picture_is_a_png(driver: Driver) -> None:
    answer = await act(driver, "image", params={"view": "rear"})
    assert answer.png == PNG + b"rear"


# --- commands ---------------------------------------------------------------------------------------------------------


async def test_an_open_command_answers_202_and_a_final_one_200(driver: Driver) -> None:
    sent = await act(driver, "lock")
    assert (sent.status, sent.result["status"]) == (202, "pending")
    params = {"command_id": sent.result["command_id"]}
    done = await act(driver, "command_status", params=params, wait_s=10)
    assert (done.status, done.result["state"]) == (200, "confirmed")
    assert done.result["deduplicated"] is False


async def test_the_alias_sends_the_same_command(driver: Driver, maker: FakeMaker) -> None:
    assert (await act(driver, "climate")).result["operation"] == "ac"
    assert maker.sent[0][0] == "ac"


async def test_parameters_are_sent_without_those_that_are_ours(driver: Driver, maker: FakeMaker) -> None:
    await act(driver, "charging_settings", params={"target_soc": 80, "ac_limit": None, "dry_run": False})
    assert dict(maker.sent[0][1]) == {"target_soc": 80}


async def test_a_dry_run_answers_200_and_sends_nothing(driver: Driver, maker: FakeMaker) -> None:
    answer = await act(driver, "lock", params={"dry_run": True})
    assert (answer.status, answer.result["dry_run"], maker.calls["send"]) == (200, True, 0)


async def test_a_key_is_handed_on_and_a_repetition_marked(driver: Driver, maker: FakeMaker) -> None:
    first = await act(driver, "lock", key="a-key", wait_s=10)
    again = await act(driver, "lock", key="a-key")
    assert again.result == {**first.result, "deduplicated": True}
    assert maker.calls["send"] == 1


async def test_waiting_is_handed_on(driver: Driver) -> None:
    assert (await act(driver, "lock", wait_s=10)).result["state"] == "confirmed"


@pytest.mark.parametrize("with_scope", [True, False])
async def test_a_found_car_is_shown_only_to_those_who_may_see_where_it_stands(
    driver: Driver, maker: FakeMaker, with_scope: bool
) -> None:
    maker.then("poll", Progress(Outcome.EXECUTED, Location(48.123456, 11.654321, 271)))
    scopes = [Scope.COMMAND, Scope.READ] + [Scope.LOCATION] * with_scope
    sent = await act(driver, "find", *scopes, params=HERE, wait_s=10)
    asked = await act(driver, "command_status", *scopes, params={"command_id": sent.result["command_id"]})
    for answer in (sent, asked):
        assert ("48.123456" in encode(answer.result).decode()) is with_scope
        assert (answer.result["position"] is not None) is with_scope
        assert ("scope" in (answer.result["note"] or "")) is not with_scope


async def test_a_strangers_command_is_not_found(driver: Driver) -> None:
    sent = await act(driver, "lock")
    with pytest.raises(CommandNotFound):
        await act(driver, "command_status", params={"command_id": sent.result["command_id"]}, principal=STRANGER)


# --- accounts ---------------------------------------------------------------------------------------------------------


def test_a_form_becomes_credentials() -> None:
    fields = {"email": USERNAME, "password": PASSWORD, "hcaptcha": "P1_x", "region": "china"}
    found = credentials(Envelope.model_validate(fields))
    assert (found.username, found.password, found.captcha_token, found.region) == (
        USERNAME, PASSWORD, "P1_x", Region.CHINA,
    )  # fmt: skip
    for secret in (USERNAME, PASSWORD, "P1_x"):
        assert secret not in repr(found)


def test_no_form_is_refused_by_its_path() -> None:
    with pytest.raises(ValidationFailed) as failed:
        credentials(Envelope(account="acc_" + "A" * 22))
    assert failed.value.details["fields"][0]["path"] == "email"


async def test_connecting_shows_the_account_and_nothing_secret(driver: Driver, clock: ManualClock) -> None:
    form: dict[str, Any] = {"email": USERNAME, "password": PASSWORD, "hcaptcha": "captcha-9"}
    result = (await act(driver, "connect", **form)).result
    assert result == {
        "account": driver.link.account.id,
        "provider": "mybmw",
        "region": "rest_of_world",
        "label": "o***@e***.com",
        "status": "connected",
        "created_at": clock.utc(),
        "tokens": {
            "access_expires_at": clock.utc() + timedelta(hours=1),
            "rotated_at": clock.utc(),
            "needs_relink": False,
            "link_ends_at": None,
        },
        "warning": None,
    }
    text = repr(result)
    for secret in (USERNAME, PASSWORD, "captcha-9", "access-", "refresh-", "scrypt"):
        assert secret not in text


async def test_a_link_without_tokens_needs_to_be_linked_again(driver: Driver) -> None:
    await driver.world.tokens.delete(driver.link.account.id)
    result = (await act(driver, "connect_status", account=driver.link.account.id)).result
    assert result["status"] == "needs_relink"
    unknown = dict.fromkeys(("access_expires_at", "rotated_at", "link_ends_at"))
    assert result["tokens"] == unknown | {"needs_relink": True}


async def test_accounts_lists_the_callers_own(driver: Driver) -> None:
    other: Link = await driver.world.placed(STRANGER)
    mine = (await act(driver, "accounts")).result
    assert (mine["count"], mine["accounts"][0]["account"]) == (1, driver.link.account.id)
    his = (await act(driver, "accounts", principal=STRANGER)).result
    assert [entry["account"] for entry in his["accounts"]] == [other.account.id]


async def test_disconnecting_forgets_what_was_held_too(driver: Driver, world: World) -> None:
    await act(driver, "status")
    assert (await act(driver, "disconnect")).result == {"account": driver.link.account.id, "disconnected": True}
    assert await world.traces() == []
    with pytest.raises(CacheMiss):
        await act(driver, "status", cache_only=True)
    with pytest.raises(AccountNotFound):
        await act(driver, "disconnect")
