"""What callers ask for: mostly cached reads, some fresh ones, batches, questions, and a few commands."""

import itertools
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from bench import wire


class Kind(StrEnum):
    """Of a request."""

    CACHED = "cached read"
    FRESH = "fresh read"
    BATCH = "batch of five"
    STATUS = "connect_status"
    COMMAND = "command"


SHARES: Mapping[Kind, int] = {Kind.CACHED: 90, Kind.FRESH: 5, Kind.BATCH: 2, Kind.STATUS: 2, Kind.COMMAND: 1}
"""Per cent."""
READS: Mapping[str, int] = {"fuel": 40, "status": 25, "is_locked": 20, "mileage": 10, "location": 5}
COMMANDS = ("lock", "unlock", "flash")
PARTS = 5


@dataclass(frozen=True, slots=True)
class Car:
    """One car, and the headers of the caller who may use it."""

    headers: Mapping[str, str] = field(repr=False)
    email: str
    account: str
    vin: str


@dataclass(frozen=True, slots=True)
class Command:
    """A command of a load test. No car gets more than one, so each can be told from every other at the maker."""

    key: str
    action: str
    car: Car

    @property
    def fields(self) -> dict[str, Any]:
        """The request's body."""
        return {"action": self.action, "account": self.car.account, "vin": self.car.vin}

    @property
    def message(self) -> bytes:
        """The request; the same again is the same command."""
        return _post({**self.car.headers, "Idempotency-Key": self.key}, self.fields)


@dataclass(frozen=True, slots=True)
class Ask:
    """A request, ready to send."""

    kind: Kind
    message: bytes = field(repr=False)
    command: Command | None = None


class Mix:
    """An endless stream of requests; the same seed and cars give the same one."""

    def __init__(self, rng: random.Random, cars: Sequence[Car], commanded: Sequence[Car]) -> None:
        """``cars`` are read, ``commanded`` are others, each of which gets one command."""
        self._rng = rng
        self._cars = cars
        self._commands: Iterator[Command] = (
            Command(f"load-{number}", rng.choice(COMMANDS), car)
            for number, car in zip(itertools.count(), commanded, strict=False)
        )

    def next(self) -> Ask:
        """One more. Where every car has had its command, a cached read instead."""
        (kind,) = self._rng.choices(list(SHARES), list(SHARES.values()))
        car = self._rng.choice(self._cars)
        match kind:
            case Kind.FRESH:
                return Ask(kind, _post(car.headers, {**self._read(car), "fresh": True}))
            case Kind.BATCH:
                mine = [other for other in self._cars if other.headers == car.headers]
                parts = [self._read(other) for other in self._rng.sample(mine, min(PARTS, len(mine)))]
                return Ask(kind, _post(car.headers, {"action": "batch", "params": {"requests": parts}}))
            case Kind.STATUS:
                return Ask(kind, _post(car.headers, {"action": "connect_status", "account": car.account}))
            case Kind.COMMAND if (command := next(self._commands, None)) is not None:
                return Ask(kind, command.message, command)
        return Ask(Kind.CACHED, _post(car.headers, self._read(car)))

    def _read(self, car: Car) -> dict[str, Any]:
        (action,) = self._rng.choices(list(READS), list(READS.values()))
        return {"action": action, "account": car.account, "vin": car.vin}


def _post(headers: Mapping[str, str], fields: Mapping[str, Any]) -> bytes:
    return wire.post("/", json.dumps(fields, separators=(",", ":")).encode(), dict(headers))
