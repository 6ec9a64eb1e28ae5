"""Whether time tells what a reply does not: "not yours" against "not there", in one process to keep the noise down."""

import asyncio
import json
import random
import string
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from math import sqrt
from statistics import median
from typing import Any

from common.clock import ManualClock
from common.settings import Settings, load
from functions.app import App, build
from functions.wire import RawRequest
from sandbox.mybmw_accounts import PASSWORD
from sandbox.process import running_sandbox
from scorecard.access_people import Person, a_store, enrol, everybody
from scorecard.row import Say

POOL = 150
"""Foreign things, and as many that do not exist."""
ROUNDS = 24
"""Each asks for everything in both pools once, in an order of its own."""
FORM_ROUNDS = 16
"""A form writes to the store before it fails, and takes milliseconds."""
FORGOTTEN_AFTER_S = 3.0
"""Longer than an instance remembers that something is not there."""
MOST_TELLING = 0.03
"""Largest distance from one half, of the chance that a foreign thing takes longer than a nonexistent one.

Chance alone is four standard errors short of it at 3,000 samples a side, and wider apart with fewer.
"""

Fields = dict[str, Any]
"""A request's body."""


@dataclass(frozen=True, slots=True)
class Compared:
    """Two distributions of response times."""

    name: str
    samples: int
    superiority: float
    """The chance that one of the first takes longer than one of the second; one half if time tells nothing."""
    distance: float
    """Kolmogorov and Smirnov's: the largest between the two distribution functions."""
    median_apart_us: float

    @property
    def tells(self) -> bool:
        """Whether somebody who measures learns something."""
        by_chance = 4 * sqrt((2 * self.samples + 1) / (12 * self.samples**2))
        return abs(self.superiority - 0.5) > max(MOST_TELLING, by_chance)

    def __str__(self) -> str:
        return f"{self.name} {self.superiority:.3f} (D {self.distance:.3f}, {self.median_apart_us:+.0f} us)"


def superiority(first: Sequence[float], second: Sequence[float]) -> float:
    """Mann and Whitney's U as a share: the chance that one of ``first`` is greater than one of ``second``."""
    marked = sorted([(value, True) for value in first] + [(value, False) for value in second])
    below, wins = 0, 0.0
    for _, tied in groupby(marked, key=lambda pair: pair[0]):
        same = [is_first for _, is_first in tied]
        of_first = sum(same)
        wins += of_first * (below + (len(same) - of_first) / 2)
        below += len(same) - of_first
    return wins / (len(first) * len(second))


def distance(first: Sequence[float], second: Sequence[float]) -> float:
    """Kolmogorov and Smirnov's D."""
    steps = sorted([(value, 1 / len(first)) for value in first] + [(value, -1 / len(second)) for value in second])
    apart = largest = 0.0
    for _, tied in groupby(steps, key=lambda pair: pair[0]):
        apart += sum(step for _, step in tied)
        largest = max(largest, abs(apart))
    return largest


def measure(say: Say) -> tuple[list[Compared], Compared]:
    """How each pair compares; and one that must differ, for whoever doubts that a difference would be seen."""
    rng = random.Random(17)
    with running_sandbox(event_step_s=0) as maker, a_store() as store:
        clock = ManualClock(wall=datetime.now(UTC))
        environ = {
            **store,
            "ENVIRONMENT": "development",
            "CALLERS": "api_keys",
            "MYBMW_ORIGIN": maker.origin,
            "LOG_LEVEL": "ERROR",
            **{name.upper(): "" for name in Settings.model_fields if name.startswith("limit_")},
        }
        settings = load(environ)
        # Others own cars of VINs that I do not, so that those exist.
        *others, me = asyncio.run(enrol(settings, maker, everybody(POOL + 1), fleets=POOL, clock=clock))
        app = build(settings, clock=clock)
        try:
            return _compare_all(app, clock, rng, me, others, say)
        finally:
            app.close()


def _compare_all(
    app: App, clock: ManualClock, rng: random.Random, me: Person, others: Sequence[Person], say: Say
) -> tuple[list[Compared], Compared]:
    stopwatch = _Stopwatch(app, clock, rng, me, say)
    foreign = [other.account for other in others]
    nobodys = [f"acc_{_letters(rng, 22)}" for _ in others]
    unbuilt = [f"WBA00000000N{index:05d}" for index in range(POOL)]
    strangers = [f"fleet-{POOL + 1 + index}@example.com" for index in range(POOL)]
    found = [
        stopwatch.compare("account", _by_account(me, foreign), _by_account(me, nobodys), cold=True),
        stopwatch.compare("account remembered", _by_account(me, foreign), _by_account(me, nobodys)),
        stopwatch.compare("command", _by_command(rng, foreign), _by_command(rng, nobodys), cold=True),
        stopwatch.compare("vehicle", _by_vin(me, [other.vins[0] for other in others]), _by_vin(me, unbuilt)),
        stopwatch.compare(
            "form", _by_form([other.email for other in others]), _by_form(strangers), cold=True, rounds=FORM_ROUNDS
        ),
    ]
    own = stopwatch.compare("own account", _by_vin(me, unbuilt), _by_account(me, nobodys), cold=True, rounds=2)
    return found, own


class _Stopwatch:
    """Asks for both kinds in turns of a random order."""

    def __init__(self, app: App, clock: ManualClock, rng: random.Random, me: Person, say: Say) -> None:
        self._app = app
        self._clock = clock
        self._rng = rng
        self._headers = {"content-type": "application/json", **me.headers}
        self._say = say

    def compare(
        self, name: str, first: Sequence[Fields], second: Sequence[Fields], *, cold: bool = False, rounds: int = ROUNDS
    ) -> Compared:
        """``cold``: an instance has forgotten by the next round what it found in the last one."""
        self._say(f"{name}: {rounds * (len(first) + len(second))} requests")
        taken: tuple[list[float], list[float]] = [], []
        todo = [(side, self._request(fields)) for side, pool in enumerate((first, second)) for fields in pool]
        for _ in range(rounds):
            if cold:
                self._clock.advance(FORGOTTEN_AFTER_S)
            self._rng.shuffle(todo)
            for side, request in todo:
                taken[side].append(self.seconds(request))
        apart_us = (median(taken[0]) - median(taken[1])) * 1e6
        return Compared(name, len(taken[0]), superiority(*taken), distance(*taken), apart_us)

    def seconds(self, request: RawRequest) -> float:
        """How long a request takes that must be refused."""
        began_s = time.perf_counter()
        reply = self._app.loop.run(self._app.pipeline.handle(request))
        taken_s = time.perf_counter() - began_s
        if reply.status not in (401, 404):
            raise AssertionError(reply.body)
        return taken_s

    def _request(self, fields: Fields) -> RawRequest:
        return RawRequest("POST", "/", self._headers, json.dumps(fields).encode())


def _by_account(me: Person, accounts: Sequence[str]) -> list[Fields]:
    return [{"action": "status", "account": account, "vin": me.vins[0]} for account in accounts]


def _by_command(rng: random.Random, accounts: Sequence[str]) -> list[Fields]:
    ids = [f"cmd_{account.removeprefix('acc_')}_{_letters(rng, 22)}" for account in accounts]
    return [{"action": "command_status", "params": {"command_id": command_id}} for command_id in ids]


def _by_vin(me: Person, vins: Sequence[str]) -> list[Fields]:
    return [{"action": "status", "account": me.account, "vin": vin} for vin in vins]


def _by_form(emails: Sequence[str]) -> list[Fields]:
    return [{"action": "status", "email": email, "password": PASSWORD} for email in emails]


def _letters(rng: random.Random, count: int) -> str:
    return "".join(rng.choices(string.ascii_letters + string.digits, k=count))
