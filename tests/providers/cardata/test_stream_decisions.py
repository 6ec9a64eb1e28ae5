"""What the stream worker decides and reads without any I/O."""

from collections import Counter

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.settings import SettingsError
from functions.providers.cardata.stream_messages import parse
from functions.providers.cardata.stream_retry import LEAST_S, Ending, Failures
from functions.providers.cardata.stream_settings import StreamSettings, load_stream
from functions.providers.cardata.stream_shares import owner_of, share_of
from tests.providers.cardata.harness import I4, NOON, X1

GCID = "8f4d3c2b-0000-4000-8000-000000000001"
SPREADS = st.floats(0, 1)


# --- when to come back -----------------------------------------------------------------------------------------------


@given(st.sampled_from(Ending), st.integers(1, 50), st.integers(0, 50), SPREADS)
def test_nobody_comes_back_sooner_than_bmw_asks_for(ending: Ending, count: int, evictions: int, spread: float) -> None:
    wait_s = Failures(count, evictions).wait_s(ending, spread)
    assert LEAST_S <= wait_s <= (3600 if ending is Ending.EVICTED else 300)


def test_failures_in_a_row_wait_longer_each_time_and_never_more_than_five_minutes() -> None:
    failures, most = Failures(), []
    for _ in range(9):
        failures = failures.after(Ending.LOST, 0.0)
        most.append(failures.wait_s(Ending.LOST, 1.0))
    assert most == [15, 20, 40, 80, 160, 300, 300, 300, 300]


def test_many_customers_who_lost_the_broker_at_once_do_not_come_back_at_once() -> None:
    failures = Failures(5)
    assert failures.wait_s(Ending.LOST, 0.0) == 80
    assert failures.wait_s(Ending.LOST, 1.0) == 160


def test_a_connection_that_lived_a_minute_has_worked() -> None:
    assert Failures(7).after(Ending.LOST, 59.0) == Failures(8)
    assert Failures(7).after(Ending.LOST, 60.0) == Failures(1)


def test_evictions_drive_us_away_for_longer_each_time_until_we_were_left_alone_for_ten_minutes() -> None:
    failures, waits = Failures(), []
    for _ in range(7):
        failures = failures.after(Ending.EVICTED, 120.0)
        waits.append(failures.wait_s(Ending.EVICTED, 1.0))
    assert waits == [15, 120, 240, 480, 960, 1920, 3600]
    assert failures.after(Ending.EVICTED, 600.0).evictions == 1


def test_one_eviction_is_an_accident_and_three_are_a_fight() -> None:
    assert [Failures(1, evictions).is_fight for evictions in (0, 1, 2, 3, 4)] == [False, False, False, True, True]


# --- who serves whom -------------------------------------------------------------------------------------------------

NAMES = [f"customer-{number}" for number in range(1_000)]


def test_shares_are_fair_and_leave_nobody_out() -> None:
    workers = [f"worker-{number}" for number in range(4)]
    shares = [share_of(worker, NAMES, workers) for worker in workers]
    assert sorted(name for share in shares for name in share) == sorted(NAMES)
    assert all(200 < len(share) < 300 for share in shares)


def test_when_a_worker_comes_only_what_it_takes_moves() -> None:
    before = {name: owner_of(name, ["a", "b", "c"]) for name in NAMES}
    after = {name: owner_of(name, ["c", "new", "a", "b"]) for name in NAMES}
    moved = {name for name in NAMES if before[name] != after[name]}
    assert {after[name] for name in moved} == {"new"}
    assert 200 < len(moved) < 300


def test_what_a_dead_worker_leaves_is_shared_out_among_all() -> None:
    dead = share_of("a", NAMES, ["a", "b", "c"])
    heirs = Counter(owner_of(name, ["b", "c"]) for name in dead)
    assert min(heirs.values()) > len(dead) / 3
    assert owner_of("customer", []) is None


# --- what a message says ---------------------------------------------------------------------------------------------


def message(**changes: object) -> bytes:
    data = {"vehicle.vehicle.travelledDistance": {"timestamp": NOON.isoformat(), "value": 12, "unit": "km"}}
    return orjson.dumps({"vin": I4, "entityId": "e", "topic": I4, "data": data, **changes})


def test_a_message_is_the_signals_of_the_car_in_its_topic() -> None:
    read = parse(f"{GCID}/{I4}", message(), gcid=GCID, at=NOON)
    assert read is not None
    assert read.vin == I4
    (signal,) = read.signals.values()
    assert (signal.value, signal.unit, signal.measured_at, signal.via) == (12, "km", NOON, "stream")


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        (f"{GCID}/{X1}", message()),
        (f"somebody-else/{I4}", message()),
        (I4, message()),
        (f"{GCID}/../{I4}", message()),
        (f"{GCID}/{I4[:-1]}/", message(vin=f"{I4[:-1]}/")),
        (f"{GCID}/{I4}", b"no JSON"),
        (f"{GCID}/{I4}", b"[]"),
        (f"{GCID}/{I4}", message(data=None)),
        (f"{GCID}/{I4}", message(data=[1])),
        (f"{GCID}/{I4}", message(filler="x" * 300_000)),
    ],
)
def test_what_is_no_message_of_that_car_is_left_out(topic: str, payload: bytes) -> None:
    assert parse(topic, payload, gcid=GCID, at=NOON) is None


@given(st.binary(max_size=200), st.text(max_size=40))
def test_no_bytes_and_no_topic_crash_the_reading(payload: bytes, topic: str) -> None:
    parse(topic, payload, gcid=GCID, at=NOON)
    parse(f"{GCID}/{I4}", b'{"vin": "' + I4.encode() + b'", "data": ' + payload + b"}", gcid=GCID, at=NOON)


# --- settings --------------------------------------------------------------------------------------------------------


def test_without_any_setting_the_worker_speaks_to_bmw() -> None:
    assert load_stream({}) == StreamSettings("customer.streaming-cardata.bmwgroup.com", 9000)


def test_every_setting_is_taken_from_the_environment_and_stagings_own_first() -> None:
    environ = {
        "ENVIRONMENT": "staging",
        "CARDATA_STREAM_URL": "mqtts://production:1",
        "STAGING_CARDATA_STREAM_URL": "mqtts://127.0.0.1:9001",
        "CARDATA_CA_FILE": "ca.pem",
        "CARDATA_AUTH_ORIGIN": "http://127.0.0.1:1",
        "CARDATA_API_ORIGIN": "http://127.0.0.1:2",
        "CARDATA_STREAM_BIND": "0.0.0.0",  # noqa: S104 - text only, nothing listens
        "CARDATA_STREAM_LEASE_S": "12.5",
        "CARDATA_STREAM_STORE_EVERY_S": "0",
        "PORT": "81",
    }
    assert load_stream(environ) == StreamSettings(
        "127.0.0.1",
        9001,
        "ca.pem",
        "http://127.0.0.1:1",
        "http://127.0.0.1:2",
        "0.0.0.0",  # noqa: S104 - text only, nothing listens
        81,
        12.5,
        0.0,
    )
    assert load_stream({**environ, "ENVIRONMENT": "production"}).broker_host == "production"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CARDATA_STREAM_URL", "mqtt://without-tls:1883"),
        ("CARDATA_STREAM_URL", "mqtts://without-port"),
        ("CARDATA_STREAM_URL", "mqtts://host:70000"),
        ("CARDATA_STREAM_LEASE_S", "soon"),
        ("CARDATA_STREAM_LEASE_S", "0.5"),
        ("CARDATA_STREAM_LEASE_S", "nan"),
        ("CARDATA_STREAM_STORE_EVERY_S", "-1"),
        ("PORT", "http"),
        ("PORT", "65536"),
    ],
)
def test_a_bad_setting_is_named_and_not_shown(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name) as refused:
        load_stream({name: value})
    assert value not in str(refused.value)


def test_the_tls_of_the_stream_is_1_3_and_checks_the_host() -> None:
    tls = load_stream({}).tls()
    assert tls.minimum_version.name == "TLSv1_3"
    assert tls.check_hostname
