"""What a read costs in questions to the shared store, as a real Valkey saw them. The figures are those of ADR 0013."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from redis import Redis

from common.clock import ManualClock
from functions.limits import LimitPolicy
from ops.valkey import Valkey, running_valkey
from tests.integration.conftest import PATIENT, Api, MakeApi

LIMITS = {
    "limit_caller_read": LimitPolicy().caller_read,
    "limit_account_read": LimitPolicy().account_read,
    "limit_vehicle_fresh": LimitPolicy().vehicle_fresh,
}
PROOF, SLICE, CLAIM, HIT, STORE = "proof", "slice", "claim", "hit", "store"
SHOWN = {
    "PING": PROOF,
    "limits:caller": SLICE,
    "limits:account": SLICE,
    "limits:vehicle-fresh": HIT,
    "value:opened": "circuit",
}


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    with running_valkey() as server:
        yield server


@dataclass
class Pair:
    """Two instances of one deployment, and an account of both."""

    first: Api
    second: Api
    account: str
    valkey: Valkey

    def questions(self, api: Api, **fields: object) -> list[str]:
        """What one request for a status asks the store, in order."""
        seen: list[str] = []
        url = self.valkey.url
        with Redis.from_url(url) as watch, Redis.from_url(url) as last, watch.monitor() as monitor:
            last.ping()
            while "PING" not in monitor.next_command()["command"]:
                continue
            assert api.post(action="status", account=self.account, **fields).status == 200
            last.echo("that was all")
            while "that was all" not in (said := monitor.next_command())["command"]:
                # What a script does of itself is no question.
                if said["client_type"] != "lua":
                    seen.append(_shown(said["command"]))
        return seen


@pytest.fixture
def pair(make_api: MakeApi, valkey: Valkey, clock: ManualClock) -> Pair:
    """Both have served the account, at the beginning of an hour."""
    clock.advance(3_600 - clock.utc().timestamp() % 3_600)
    first, second = (make_api(clock, PATIENT, redis_url=valkey.url, **LIMITS) for _ in range(2))
    account = first.connect()
    for api in (first, second):
        # Connections, scripts, sessions: what only the first requests pay for.
        for fresh in (False, True):
            assert api.post(action="status", account=account, fresh=fresh).status == 200
    return Pair(first, second, account, valkey)


def _shown(command: str) -> str:
    for part, name in SHOWN.items():
        if part in command:
            return name
    claims = command.startswith("EVALSHA") and ":entry:" in command
    return command if not claims else STORE if len(command) > 1_000 else CLAIM


def test_between_pauses_a_read_from_the_first_level_asks_nothing(pair: Pair) -> None:
    assert pair.questions(pair.first) == []


def test_between_pauses_a_read_from_the_second_level_asks_once(pair: Pair, clock: ManualClock) -> None:
    clock.advance(30)
    pair.first.post(action="status", account=pair.account, max_age_s=10)
    pair.second.post(action="vehicles", account=pair.account)
    assert pair.questions(pair.second, max_age_s=10) == [CLAIM]


def test_after_a_pause_a_read_first_proves_that_it_has_heard_everything(pair: Pair, clock: ManualClock) -> None:
    clock.advance(2)
    assert pair.questions(pair.first) == [PROOF]
    clock.advance(60)
    assert pair.questions(pair.first) == [PROOF, SLICE, SLICE]


def test_at_its_dearest_a_cached_read_asks_for_two_slices_between_the_proof_and_the_claim(
    pair: Pair, clock: ManualClock
) -> None:
    clock.advance(62)
    pair.first.post(action="status", account=pair.account, max_age_s=10)
    assert pair.questions(pair.second, max_age_s=10) == [PROOF, SLICE, SLICE, CLAIM]


def test_a_forced_read_asks_whether_it_may_and_stores_what_it_read(pair: Pair, clock: ManualClock) -> None:
    clock.advance(2)
    assert pair.questions(pair.first, fresh=True) == [PROOF, CLAIM, HIT, STORE]
