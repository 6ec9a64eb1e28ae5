"""A car whose data are damaged at random: nothing escapes, and nothing is claimed that was not said."""

import copy
from datetime import UTC, datetime
from typing import Any

import pytest
from bimmer_connected.tests import ALL_CHARGING_SETTINGS, ALL_PROFILES, ALL_STATES
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UpstreamInvalid
from functions.providers.mybmw.mapping import to_snapshot, to_vehicle
from functions.providers.port import CommandName, Region
from functions.snapshot import Snapshot

VINS = sorted(ALL_STATES)
LIDS = {"left_front": "leftFront", "left_rear": "leftRear", "right_front": "rightFront", "right_rear": "rightRear"}
REMOVED = object()

junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["OPEN", "CLOSED", "LOCKED", "locked", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-14"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


def places(data: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The path of every value in a document."""
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path, *(place for key, value in inner for place in places(value, (*path, key)))]


def damaged(data: dict[str, Any], path: tuple[str | int, ...], value: object) -> None:
    """Replace, or take away, what is at ``path``; does nothing where that is gone already."""
    target: Any = data
    for key in path[:-1]:
        keys = target if isinstance(target, dict) else range(len(target)) if isinstance(target, list) else ()
        if key not in keys:
            return
        target = target[key]
    last = path[-1]
    if isinstance(target, dict) and last in target:
        if value is REMOVED:
            del target[last]
        else:
            target[last] = value


def document(vin: str) -> dict[str, Any]:
    """All that is recorded of a car, in one piece."""
    profile = {key: value for key, value in ALL_PROFILES[vin].items() if key != "vin"}
    return copy.deepcopy({"profile": profile, "charging_settings": ALL_CHARGING_SETTINGS.get(vin), **ALL_STATES[vin]})


PLACES = {vin: [place for place in places(document(vin)) if len(place) > 1] for vin in VINS}


def claims_nothing_false(snapshot: Snapshot, data: dict[str, Any]) -> None:
    """Whatever a reader could take for "shut" or "plugged in" must stand in the data word for word."""
    state = data["state"]
    doors = state.get("doorsState") if isinstance(state.get("doorsState"), dict) else {}
    windows = state.get("windowsState") if isinstance(state.get("windowsState"), dict) else {}
    openings = snapshot.openings
    for name, raw in LIDS.items():
        for shown, source in ((openings.doors, doors), (openings.windows, windows)):
            # Gone here is gone there: a door that is not reported any more must not pass for closed.
            assert (name in shown) == (raw in source)
            assert shown.get(name) != "CLOSED" or source[raw] == "CLOSED"
    assert openings.hood != "CLOSED" or doors["hood"] == "CLOSED"
    assert openings.trunk != "CLOSED" or doors["trunk"] == "CLOSED"
    if openings.is_locked is True:
        assert str(doors["combinedSecurityState"]).upper() in ("LOCKED", "SECURED")
    if snapshot.charging is not None and snapshot.charging.is_plugged_in:
        assert state["electricChargingState"]["isChargerConnected"] is True
    if snapshot.mileage_km is not None:
        assert snapshot.mileage_km == round(state["currentMileage"])
    if snapshot.location is not None:
        assert snapshot.location.latitude == state["location"]["coordinates"]["latitude"]
    capabilities = data["capabilities"] if isinstance(data["capabilities"], dict) else {}
    for command, flag in ((CommandName.LOCK, "lock"), (CommandName.UNLOCK, "unlock"), (CommandName.HORN, "horn")):
        if snapshot.capabilities.commands.get(command.value):
            assert capabilities[flag] is True


@given(st.data())
@settings(max_examples=100)
def test_a_damaged_car_raises_nothing_but_an_invalid_reply_and_claims_nothing_false(data: st.DataObject) -> None:
    vin = data.draw(st.sampled_from(VINS))
    body = document(vin)
    for place in data.draw(st.lists(st.sampled_from(PLACES[vin]), min_size=1, max_size=8)):
        damaged(body, place, data.draw(st.just(REMOVED) | junk))
    vehicle = to_vehicle(vin, body["profile"])

    try:
        snapshot = to_snapshot(vehicle, body, fetched_at=datetime.now(UTC), region=Region.REST_OF_WORLD)
    except UpstreamInvalid:
        assert not body["state"]
        return

    claims_nothing_false(snapshot, body)
    assert all(isinstance(note, str) for note in (*snapshot.unknown.values(), *snapshot.unavailable.values()))


@given(junk, st.sampled_from(VINS))
@settings(max_examples=50)
def test_a_state_that_is_something_else_altogether_is_an_invalid_reply_or_a_car_that_tells_nothing(
    whole: Any, vin: str
) -> None:
    body = {**document(vin), "state": whole}
    vehicle = to_vehicle(vin, body["profile"])

    if isinstance(whole, dict) and whole:
        snapshot = to_snapshot(vehicle, body, fetched_at=datetime.now(UTC), region=Region.REST_OF_WORLD)
        claims_nothing_false(snapshot, body)
        assert snapshot.openings.is_locked == "unknown"
    else:
        with pytest.raises(UpstreamInvalid):
            to_snapshot(vehicle, body, fetched_at=datetime.now(UTC), region=Region.REST_OF_WORLD)


@given(junk)
@settings(max_examples=50)
def test_a_vin_that_is_none_makes_the_list_an_invalid_reply(vin: Any) -> None:
    with pytest.raises(UpstreamInvalid):
        to_vehicle(vin, {})
