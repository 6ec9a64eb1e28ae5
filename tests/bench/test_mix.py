"""What a load test asks for."""

import json
import random
from collections import Counter
from itertools import pairwise

from bench.loadtest.mix import PARTS, READS, SHARES, Car, Kind, Mix

CARS = [
    Car({"X-API-Key": f"key-{caller}"}, f"user-{caller}@example.com", f"acc_{caller}", f"WBA00000000DEMO0{number}")
    for caller in range(3)
    for number in range(1, 8)
]
FLEET = [Car({"X-API-Key": "key-0"}, "fleet-9@example.com", "acc_fleet", f"WBA00000000D{n:05d}") for n in range(50)]


def body(message: bytes) -> dict[str, object]:
    fields: dict[str, object] = json.loads(message.partition(b"\r\n\r\n")[2])
    return fields


def test_the_shares_make_a_whole() -> None:
    assert sum(SHARES.values()) == sum(READS.values()) == 100
    assert SHARES[Kind.CACHED] == 90


def test_a_stream_of_requests_has_the_shares_of_the_mix() -> None:
    mix = Mix(random.Random(1), CARS, FLEET * 100)
    kinds = Counter(mix.next().kind for _ in range(10_000))
    for kind, share in SHARES.items():
        assert 0.7 * share < kinds[kind] / 100 < 1.3 * share


def test_the_same_seed_gives_the_same_requests() -> None:
    first, second = (Mix(random.Random(3), CARS, FLEET) for _ in range(2))
    assert [first.next() for _ in range(300)] == [second.next() for _ in range(300)]


def test_every_command_has_a_key_of_its_own_and_a_car_that_gets_no_other_command() -> None:
    mix = Mix(random.Random(2), CARS, FLEET)
    commands = [ask.command for ask in (mix.next() for _ in range(20_000)) if ask.command is not None]
    assert len(commands) == len(FLEET)
    assert len({command.key for command in commands}) == len({command.car.vin for command in commands}) == len(FLEET)
    for command in commands:
        assert f"Idempotency-Key: {command.key}\r\n".encode() in command.message


def test_where_every_car_has_had_its_command_reads_take_their_place() -> None:
    mix = Mix(random.Random(2), CARS, [])
    asks = [mix.next() for _ in range(2_000)]
    assert {ask.kind for ask in asks} == set(Kind) - {Kind.COMMAND}


def test_only_fresh_reads_are_forced() -> None:
    mix = Mix(random.Random(4), CARS, [])
    for ask in (mix.next() for _ in range(2_000)):
        assert (body(ask.message).get("fresh") is True) == (ask.kind is Kind.FRESH)


def test_a_batch_asks_for_different_cars_of_one_caller() -> None:
    mix = Mix(random.Random(5), CARS, [])
    batches = [ask for ask in (mix.next() for _ in range(3_000)) if ask.kind is Kind.BATCH]
    assert batches
    for batch in batches:
        params = body(batch.message)["params"]
        assert isinstance(params, dict)
        parts = params["requests"]
        assert len({part["vin"] for part in parts}) == PARTS
        caller = batch.message.split(b"X-API-Key: key-")[1][:1].decode()
        assert {part["account"] for part in parts} == {f"acc_{caller}"}


def test_reads_go_round_among_all_cars() -> None:
    mix = Mix(random.Random(6), CARS, [])
    seen = [ask.message for ask in (mix.next() for _ in range(2_000)) if ask.kind is Kind.CACHED]
    assert {(body(m)["account"], body(m)["vin"]) for m in seen} == {(car.account, car.vin) for car in CARS}
    assert any(a != b for a, b in pairwise(seen))
