"""The state of a car is the same in whatever order its signals come in."""

import itertools
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from functions.providers.cardata import descriptors as d
from functions.providers.cardata.signals import (
    MAX_DESCRIPTORS,
    Signal,
    from_body,
    merge,
    moment_of,
    received,
    to_body,
)
from functions.providers.cardata.values import Nothing, flag, moment, number, objects, position, word
from tests.providers.cardata.harness import NOON, said

LATER, LATEST = NOON + timedelta(minutes=5), NOON + timedelta(minutes=10)


def test_later_measured_replaces_earlier_and_never_the_other_way_round() -> None:
    old, new = said("40", at=NOON, received_at=LATEST), said(41, at=LATER, received_at=LATER, via="stream")

    assert merge({"a": old}, {"a": new}) == {"a": new}
    assert merge({"a": new}, {"a": old}) == {"a": new}


def test_a_signal_without_a_time_replaces_only_one_without_a_time() -> None:
    dated, undated = said("40"), said(None, at=None, received_at=LATER)

    assert merge({"a": dated}, {"a": undated})["a"] == dated
    assert merge({"a": undated}, {"a": dated})["a"] == dated
    assert merge({"a": said(None, at=None)}, {"a": undated})["a"] == undated


def test_a_time_in_the_future_is_kept_and_does_not_outlive_what_is_measured_later() -> None:
    ahead = said("10", at=NOON + timedelta(days=365), received_at=NOON)
    after = said("20", at=LATER, received_at=LATER)

    assert ahead.is_from_the_future
    assert not after.is_from_the_future
    assert merge({}, {"a": ahead})["a"].measured_at == NOON + timedelta(days=365)
    assert merge({"a": ahead}, {"a": after})["a"] == after
    assert merge({"a": after}, {"a": ahead})["a"] == after


times = st.sampled_from([None, NOON - timedelta(days=1), NOON, LATER, LATEST, NOON + timedelta(days=1)])
some_signal = st.builds(
    Signal,
    value=st.sampled_from(["1", 1, 1.5, True, None, "x"]),
    unit=st.sampled_from([None, "km"]),
    measured_at=times,
    received_at=st.sampled_from([NOON, LATER, LATEST]),
    via=st.sampled_from(["rest", "stream"]),
)


@given(st.lists(st.dictionaries(st.sampled_from("abc"), some_signal, min_size=1), min_size=2, max_size=4))
@settings(max_examples=150)
def test_every_order_of_arrival_ends_the_same(batches: list[dict[str, Signal]]) -> None:
    ends = []
    for order in itertools.permutations(batches):
        state: dict[str, Signal] = {}
        for batch in order:
            state = merge(merge(state, batch), batch)
        ends.append(state)

    assert all(end == ends[0] for end in ends)


def at(moment: datetime, value: float) -> Signal:
    return said(value, at=moment, received_at=moment, via="stream")


def test_a_position_is_made_only_of_halves_that_were_measured_together() -> None:
    state = merge({}, {d.LATITUDE: at(NOON, 48.0)})
    assert d.POSITION not in state

    state = merge(state, {d.LONGITUDE: at(NOON, 11.0)})
    assert state[d.POSITION].value == [48.0, 11.0]

    state = merge(state, {d.LATITUDE: at(LATER, 49.0)})
    assert state[d.POSITION].value == [48.0, 11.0]
    assert state[d.POSITION].measured_at == NOON

    state = merge(state, {d.LONGITUDE: at(LATER, 12.0)})
    assert state[d.POSITION].value == [49.0, 12.0]
    assert state[d.POSITION].measured_at == LATER


def test_a_new_half_a_second_later_does_not_make_a_place_where_nobody_was() -> None:
    soon = NOON + timedelta(seconds=1)
    state = merge({}, {d.LATITUDE: at(NOON, 48.0), d.LONGITUDE: at(NOON, 11.0)})

    state = merge(state, {d.LATITUDE: at(soon, 49.0)})
    assert state[d.POSITION].value == [48.0, 11.0]

    state = merge(state, {d.LONGITUDE: at(soon, 12.0)})
    assert (state[d.POSITION].value, state[d.POSITION].measured_at) == ([49.0, 12.0], soon)


def test_halves_that_are_nearly_together_make_a_position_and_replace_none_that_are_quite() -> None:
    soon, sooner = NOON + timedelta(milliseconds=400), NOON + timedelta(milliseconds=200)
    exact = merge({}, {d.LATITUDE: at(NOON, 48.0), d.LONGITUDE: at(NOON, 11.0)})

    held = merge(exact, {d.LATITUDE: at(sooner, 49.0)})
    assert held[d.POSITION].value == [48.0, 11.0]
    moved = merge(held, {d.LONGITUDE: at(soon, 12.0)})

    assert position(moved[d.POSITION]).value == (49.0, 12.0)
    assert moved[d.POSITION].measured_at == sooner
    assert merge(
        {}, {d.LATITUDE: at(NOON, 48.0), d.LONGITUDE: at(NOON + timedelta(milliseconds=251), 11.0)}
    ).keys() == {
        d.LATITUDE,
        d.LONGITUDE,
    }


def test_of_two_values_of_one_moment_the_one_that_came_last_counts() -> None:
    first, last = said("UNLOCKED", received_at=NOON), said("LOCKED", received_at=LATER)

    assert merge({"a": first}, {"a": last})["a"] == last
    assert merge({"a": last}, {"a": first})["a"] == last


def test_halves_of_nothing_make_no_position() -> None:
    assert d.POSITION not in merge({}, {d.LATITUDE: said(None), d.LONGITUDE: said(11.0)})
    assert d.POSITION not in merge({}, {d.LATITUDE: said(48.0, at=None), d.LONGITUDE: said(11.0, at=None)})


def test_the_end_of_a_charge_is_noted() -> None:
    charging = merge({}, {d.CHARGING_STATUS: at_text(NOON, "CHARGINGACTIVE")})
    ended = merge(charging, {d.CHARGING_STATUS: at_text(LATER, "NOCHARGING")})

    assert d.CHARGE_ENDED not in charging
    assert ended[d.CHARGE_ENDED].measured_at == LATER
    again = merge(ended, {d.CHARGING_STATUS: at_text(LATEST, "NOCHARGING")})
    assert again[d.CHARGE_ENDED].measured_at == LATER


def at_text(moment: datetime, value: str) -> Signal:
    return said(value, at=moment, received_at=moment)


def test_signals_are_read_from_what_bmw_sends() -> None:
    data = {
        "text": {"timestamp": "2026-01-05T12:00:00Z", "unit": "km", "value": "12"},
        "native": {"timestamp": "2026-01-05T13:00:00+01:00", "value": True},
        "null": {"timestamp": None, "unit": None, "value": None},
        "naive": {"timestamp": "2026-01-05T12:00:00", "unit": "", "value": 1},
    }

    found = received(data, at=LATER, via="stream")

    assert found["text"] == Signal("12", "km", NOON, LATER, "stream")
    assert found["native"] == Signal(True, None, NOON, LATER, "stream")
    assert found["null"] == Signal(None, None, None, LATER, "stream")
    assert found["naive"] == Signal(1, None, NOON, LATER, "stream")


def test_what_is_no_signal_is_left_out() -> None:
    entry = {"timestamp": "2026-01-05T12:00:00Z", "value": 1}
    odd = {
        "": entry,
        "draiv.read": entry,
        "x" * 201: entry,
        "\ud800": entry,
        "text": "12",
    }

    assert received(odd, at=NOON, via="rest") == {}
    assert received(["a"], at=NOON, via="rest") == {}
    assert len(received({str(n): entry for n in range(MAX_DESCRIPTORS + 5)}, at=NOON, via="rest")) == MAX_DESCRIPTORS
    assert received({"a": {"value": 1, "unit": "\ud800", "timestamp": 5}}, at=NOON, via="rest")["a"] == said(1, at=None)


def test_what_cannot_be_kept_is_malformed_and_not_absent() -> None:
    values = {
        "huge": 2**60,
        "nan": float("nan"),
        "long": "x" * 20_001,
        "half": "\udfff",
        "half in a list": ["\udfff"],
        "long list": ["x" * 20_000],
    }
    found = received({name: {"value": value} for name, value in values.items()}, at=NOON, via="rest")

    assert found.keys() == values.keys()
    for name, signal in from_body(to_body(found)).items():
        for read in (word, flag, moment, objects, lambda one: number(one, "km", 0, 9)):
            assert read(signal).nothing is Nothing.MALFORMED, name


def test_a_list_that_is_no_text_is_read_as_one_that_is() -> None:
    found = received({"list": {"value": [{"id": 1}]}, "object": {"value": {"id": 1}}}, at=NOON, via="stream")

    assert objects(found["list"]).value == objects(found["object"]).value == ({"id": 1},)


def test_a_time_that_is_none_is_none() -> None:
    for odd in ("soon", "", None, 5, "9999-12-31T23:59:59-14:00", "2026-01-05T12:00:00Z" * 9):
        assert moment_of(odd) is None
    assert moment_of("2026-01-05T12:00:00Z") == datetime(2026, 1, 5, 12, tzinfo=UTC)


def test_what_is_stored_is_read_back() -> None:
    state = merge({}, {"a": said(1.5, "km"), "b": said(None, at=None), d.LATITUDE: said(1), d.LONGITUDE: said(2)})

    assert from_body(to_body(state)) == state
