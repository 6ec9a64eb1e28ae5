"""Callers of the service: reads, commands and mistakes, from several threads."""

import random
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx

from ops.monitoring.screenshot.incidents import USERS, email
from sandbox.issuer import SimulatedIssuer

CALLERS = 5
_VINS = tuple(f"WBA00000000DEMO0{number}" for number in range(1, 5))
_WEIGHTS = {
    "status": 30.0,
    "fuel": 20.0,
    "location": 15.0,
    "lock_status": 15.0,
    "charging": 10.0,
    "mileage": 8.0,
    "lock": 1.0,
    "flash": 1.0,
    "ac": 1.0,
    "actions": 0.6,
    "nonsense": 0.5,
}
"""How often each action is asked for, in proportion; ``nonsense`` is none."""
_OF_NO_CAR = ("actions", "nonsense")
_FRESH_SHARE, _TOKEN_SHARE = 0.03, 0.06
_PAUSES_S = (0.05, 0.25)


@dataclass(frozen=True, slots=True)
class Callers:
    """Whom they call and as whom."""

    url: str
    key: str
    issuer: SimulatedIssuer

    def connect(self) -> list[str]:
        """Link an account for each user; their ids. Raises HTTPStatusError."""
        with self._client() as client:
            return [self._link(client, number) for number in range(USERS)]

    def call_until(self, over: threading.Event, accounts: Sequence[str]) -> list[threading.Thread]:
        """Start calling; the threads end soon after ``over``."""
        threads = [
            threading.Thread(target=self._call, args=(over, accounts, random.Random(seed)))  # noqa: S311 - no secret
            for seed in range(CALLERS)
        ]
        for thread in threads:
            thread.start()
        return threads

    def _client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60, trust_env=False)

    def _link(self, client: httpx.Client, number: int) -> str:
        form = {"action": "connect", "email": email(number), "password": "demo-password", "hcaptcha": f"for-{number}"}
        answered = client.post("/", json=form, headers={"X-API-Key": self.key})
        answered.raise_for_status()
        account: str = answered.json()["result"]["account"]
        return account

    def _call(self, over: threading.Event, accounts: Sequence[str], dice: random.Random) -> None:
        with self._client() as client:
            while not over.wait(dice.uniform(*_PAUSES_S)):
                # What the service answers is what the picture shows: no answer is a failure here.
                with suppress(httpx.HTTPError):
                    if dice.random() < _TOKEN_SHARE:
                        client.post("/", json={"action": "actions"}, headers=self._bearer(dice))
                    else:
                        client.post("/", json=_request(accounts, dice), headers={"X-API-Key": self.key})

    def _bearer(self, dice: random.Random) -> dict[str, str]:
        """A token of ours, or in two of five cases one that is refused."""
        kind = dice.choices(("good", "expired", "audience", "nonsense"), (60, 20, 10, 10))[0]
        token = {
            "good": self.issuer.token(),
            "expired": self.issuer.token(exp=1_700_000_000),
            "audience": self.issuer.token(aud="somebody-else"),
            "nonsense": "nonsense",
        }[kind]
        return {"Authorization": f"Bearer {token}"}


def _request(accounts: Sequence[str], dice: random.Random) -> dict[str, Any]:
    action = dice.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
    if action in _OF_NO_CAR:
        return {"action": action}
    body: dict[str, Any] = {"action": action, "account": dice.choice(accounts), "vin": dice.choice(_VINS)}
    if action in ("status", "fuel") and dice.random() < _FRESH_SHARE:
        body["fresh"] = True
    return body
