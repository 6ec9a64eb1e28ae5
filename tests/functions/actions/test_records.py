"""Past charges, tyre wear and charging settings by place, as an action answers them."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from common.callers import ALL_SCOPES, Scope
from common.clock import ManualClock
from common.errors import CacheMiss, NotSupported, UpstreamError, ValidationFailed
from common.loops import needs_loop
from common.stores.documents import Documents
from functions.actions.catalogue import find
from functions.actions.records import CHARGES_KEPT_S, MAX_SPAN, NO_SCOPE, USUAL_SPAN
from functions.actions.spec import Answer, Call
from functions.contract import Envelope
from functions.providers.port import Account, ChargingHistory, ChargingSession, TyreWear, Vehicle
from functions.wire import encode
from tests.support.driver import Driver, drive
from tests.support.fake_provider import FakeMaker
from tests.support.world import build_world, caller

ACTIONS = ("charging_history", "tyre_diagnosis", "charging_settings_by_place")
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SESSION = ChargingSession(NOON - timedelta(hours=3), NOON, 40, 80, 21.5, 1_000, "Demoweg 1")
NOTHING = ChargingSession(None, None, None, None, None, None, None)


@dataclass
class Records:
    """A maker with records, by hand."""

    sessions: tuple[ChargingSession, ...] = (SESSION,)
    tyres: Mapping[str, TyreWear] = field(
        default_factory=lambda: {
            "front_left": TyreWear("Tyre wear", 20_000, "GREEN"),
            "rear_left": TyreWear(*3 * [None]),
        }
    )
    calls: Counter[str] = field(default_factory=Counter)
    spans: list[tuple[datetime, datetime]] = field(default_factory=list)
    failure: Exception | None = None

    async def charging_history(
        self, account: Account, vehicle: Vehicle, start: datetime, end: datetime
    ) -> ChargingHistory:
        await self._called("charging_history")
        self.spans.append((start, end))
        return ChargingHistory(self.sessions, False, "There are more.", 3)

    async def tyre_diagnosis(self, account: Account, vehicle: Vehicle) -> Mapping[str, TyreWear]:
        await self._called("tyre_diagnosis")
        return self.tyres

    async def charging_settings_by_place(self, account: Account, vehicle: Vehicle) -> tuple[Mapping[str, Any], ...]:
        await self._called("charging_settings_by_place")
        return ({"latitude": 48.1, "chargingMode": "IMMEDIATE_CHARGING"},)

    async def _called(self, name: str) -> None:
        await needs_loop()
        self.calls[name] += 1
        if self.failure is not None:
            raise self.failure


@pytest.fixture
def records() -> Records:
    return Records()


@pytest.fixture
async def owner(documents: Documents, clock: ManualClock, maker: FakeMaker, records: Records) -> Driver:
    """Somebody whose maker has records."""
    offered = replace(maker.provider(), charges=records, tyres=records, charging_places=records)
    return await drive(build_world(documents, clock, maker, provider=offered))


async def act(
    owner: Driver,
    action: str,
    params: Mapping[str, Any] | None = None,
    *,
    scopes: frozenset[Scope] = ALL_SCOPES,
    **more: Any,
) -> Answer:
    spec = find(action)
    call = Call(
        Envelope.model_validate({"action": action, **more}),
        spec.params.model_validate(params or {}),
        caller(*scopes, principal=owner.link.principal),
        link=owner.link,
        vehicle=owner.vehicle,
    )
    answer = await spec.handler(owner.world.services, call)
    json.loads(encode(answer.result))
    return answer


@pytest.mark.parametrize("action", ACTIONS)
async def test_a_maker_without_records_says_so(driver: Driver, action: str) -> None:
    with pytest.raises(NotSupported, match=r"mybmw has no \w+"):
        await act(driver, action)


async def test_charges_are_shown_with_their_quantities(owner: Driver) -> None:
    result = (await act(owner, "charging_history")).result
    assert result["sessions"] == [
        {
            "started_at": SESSION.started_at and SESSION.started_at.isoformat(),
            "ended_at": NOON.isoformat(),
            "start_percent": 40,
            "end_percent": 80,
            "energy": {"value": 21.5, "unit": "kWh"},
            "mileage": {"value": 1_000, "unit": "km"},
            "place": "Demoweg 1",
        }
    ]
    assert (result["count"], result["is_complete"], result["note"], result["unavailable"]) == (
        1,
        False,
        "There are more.",
        {},
    )
    imperial = (await act(owner, "charging_history", units="imperial")).result
    assert imperial["sessions"][0]["mileage"] == {"value": 621, "unit": "mi"}


async def test_where_a_car_was_charged_is_for_who_may_know_where_it_is(owner: Driver) -> None:
    result = (await act(owner, "charging_history", scopes=frozenset({Scope.READ}))).result
    assert result["sessions"][0]["place"] is None
    assert result["unavailable"] == {"sessions.0.place": NO_SCOPE}
    # Nor does it depend on who asked first.
    assert (await act(owner, "charging_history")).result["sessions"][0]["place"] == "Demoweg 1"


async def test_what_the_maker_did_not_tell_is_null_with_a_reason(owner: Driver, records: Records) -> None:
    records.sessions = (SESSION, NOTHING)
    result = (await act(owner, "charging_history")).result
    assert set(result["sessions"][1].values()) == {None}
    assert set(result["unavailable"]) == {f"sessions.1.{name}" for name in result["sessions"][1]}
    tyres = (await act(owner, "tyre_diagnosis")).result
    assert tyres["front_left"] == {
        "label": "Tyre wear",
        "remaining_distance": {"value": 20_000, "unit": "km"},
        "color": "GREEN",
    }
    assert set(tyres["unavailable"]) == {
        "front_right",
        "rear_right",
        *(f"rear_left.{name}" for name in ("label", "remaining_distance", "color")),
    }


async def test_settings_by_place_are_shown_as_the_maker_words_them(owner: Driver) -> None:
    result = (await act(owner, "charging_settings_by_place")).result
    assert result["places"] == [{"latitude": 48.1, "chargingMode": "IMMEDIATE_CHARGING"}]
    assert result["count"] == 1


# --- the span ---------------------------------------------------------------------------------------------------------


async def test_without_a_span_it_is_the_last_30_days(owner: Driver, records: Records, clock: ManualClock) -> None:
    await act(owner, "charging_history")
    assert records.spans == [(clock.utc() - USUAL_SPAN, clock.utc())]
    await act(owner, "charging_history", {"to": "2025-12-01T01:00:00+01:00"})
    assert records.spans[-1] == (datetime(2025, 11, 1, tzinfo=UTC), datetime(2025, 12, 1, tzinfo=UTC))


async def test_45_days_are_taken_and_no_more(owner: Driver, records: Records, clock: ManualClock) -> None:
    await act(owner, "charging_history", {"from": (clock.utc() - MAX_SPAN).isoformat()})
    assert records.calls["charging_history"] == 1
    for start in (clock.utc() - MAX_SPAN - timedelta(seconds=1), clock.utc() + timedelta(seconds=1)):
        with pytest.raises(ValidationFailed) as refused:
            await act(owner, "charging_history", {"from": start.isoformat()})
        assert refused.value.details["fields"][0]["path"] == "params.to"
    assert records.calls["charging_history"] == 1


@pytest.mark.parametrize(
    "given",
    [
        "2026-01-01T00:00:00",
        "2026-01-01",
        "yesterday",
        "",
        5,
        True,
        "2" * 65,
        {},
        "0001-01-01T00:00:00+10:00",
        "9999-12-31T23:59:59-10:00",
    ],
)
def test_a_time_that_is_none_is_refused(given: object) -> None:
    with pytest.raises(ValidationError, match="ISO 8601") as refused:
        find("charging_history").params.model_validate({"from": given})
    assert "yesterday" not in str(refused.value)


# --- what it costs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ACTIONS)
async def test_what_was_asked_once_is_kept(owner: Driver, records: Records, action: str, clock: ManualClock) -> None:
    first = await act(owner, action)
    clock.advance(60)
    again = await act(owner, action)
    assert records.calls[action] == 1
    assert again.result == first.result
    assert first.source is not None
    assert again.source is not None
    assert (first.source.cached, again.source.cached, again.source.age_s) == (False, True, 60)
    assert again.source.fetched_at == first.source.fetched_at
    await act(owner, action, fresh=True)
    assert records.calls[action] == 2


async def test_charges_are_kept_for_an_hour(owner: Driver, records: Records, clock: ManualClock) -> None:
    for action in ACTIONS:
        await act(owner, action)
    clock.advance(CHARGES_KEPT_S)
    for action in ACTIONS:
        await act(owner, action)
    assert records.calls == {"charging_history": 2, "tyre_diagnosis": 1, "charging_settings_by_place": 1}


async def test_another_span_is_another_question(owner: Driver, records: Records) -> None:
    for params in ({}, {"to": "2025-12-01T00:00:00Z"}, {"from": "2025-12-01T00:00:00Z"}, {}):
        await act(owner, "charging_history", params)
    assert records.calls["charging_history"] == 3


async def test_nobody_is_asked_where_nobody_may_be(owner: Driver, records: Records) -> None:
    with pytest.raises(CacheMiss):
        await act(owner, "tyre_diagnosis", cache_only=True)
    assert records.calls == {}
    await act(owner, "tyre_diagnosis")
    assert (await act(owner, "tyre_diagnosis", cache_only=True)).source is not None


async def test_a_maker_that_fails_is_asked_once(owner: Driver, records: Records) -> None:
    records.failure = UpstreamError()
    with pytest.raises(UpstreamError):
        await act(owner, "tyre_diagnosis")
    assert records.calls["tyre_diagnosis"] == 1


async def test_a_link_that_ends_takes_its_records_along(owner: Driver, records: Records) -> None:
    await act(owner, "tyre_diagnosis")
    owner.world.vehicles.forget(owner.link.account.id)
    await act(owner, "tyre_diagnosis")
    assert records.calls["tyre_diagnosis"] == 2
