"""What it costs to know who is calling: a cached read with open callers, with an API key, and with an ID token."""

import json
from collections.abc import Callable, Iterator
from itertools import count, repeat

from bench.inprocess import Instance, caller_of, instances, linked, raw, settings_of
from bench.outcome import Outcome, Table, at_most, ranged
from bench.stage import Stage
from bench.stats import Spread
from bench.upstream import DEMO_VIN
from common.clock import SystemClock
from functions.wire import RawRequest
from sandbox.issuer import AUDIENCE, SimulatedIssuer

ROUNDS = 9
STORE = "callers"
EMAIL = "user-1@example.com"
KEY_BOUND_MS, TOKEN_BOUND_MS = 0.3, 1.0
OPEN, KEY, TOKEN, NEW_TOKEN = "open", "API key", "ID token, remembered", "ID token, new each time"


class Authentication:
    """In this process, round by round: medians of single requests."""

    name = "authentication"

    def run(self, stage: Stage) -> Outcome:
        """Each kind of caller reads the same car from an instance of its own."""
        key_headers, key_principal = caller_of(stage, STORE)
        with SimulatedIssuer(SystemClock()) as issuer:
            rows = json.dumps([{"issuer": issuer.origin, "audience": [AUDIENCE], "scopes": ["read"]}])
            principals = {OPEN: "open", KEY: key_principal, TOKEN: f"{issuer.origin}|user-1"}
            settings = {
                OPEN: settings_of(stage, STORE, ENVIRONMENT="development", CALLERS="open"),
                KEY: settings_of(stage, STORE),
                TOKEN: settings_of(stage, STORE, CALLERS="oidc", OIDC_ISSUERS=rows),
            }
            accounts = {kind: linked(stage, settings[kind], who, [EMAIL])[0] for kind, who in principals.items()}
            fields = {
                kind: {"action": "fuel", "account": one.account, "vin": DEMO_VIN} for kind, one in accounts.items()
            }
            numbers = count()

            def bearer(**claims: object) -> dict[str, str]:
                return {"authorization": f"Bearer {issuer.token(**claims)}"}

            with instances(*settings.values()) as (opened, by_key, by_token):
                contestants: dict[str, tuple[Instance, Callable[[], Iterator[RawRequest]]]] = {
                    OPEN: (opened, lambda: repeat(raw({}, fields[OPEN]))),
                    KEY: (by_key, lambda: repeat(raw(key_headers, fields[KEY]))),
                    TOKEN: (by_token, lambda: repeat(raw(bearer(), fields[TOKEN]))),
                    NEW_TOKEN: (by_token, lambda: (raw(bearer(jti=str(n)), fields[TOKEN]) for n in numbers)),
                }
                return self._outcome(_rounds(contestants, stage.plan.samples))

    def _outcome(self, medians_us: dict[str, list[float]]) -> Outcome:
        added = {
            kind: Spread.of((a - b) / 1e3 for a, b in zip(medians, medians_us[OPEN], strict=True))
            for kind, medians in medians_us.items()
            if kind != OPEN
        }
        table = Table(
            "Who is calling",
            ("callers", "cached read, p50 us", "more than open, ms"),
            [[kind, ranged(Spread.of(medians), 0), ranged(added.get(kind), 3)] for kind, medians in medians_us.items()],
            "In one process, without HTTP; each round's figure is the median of its requests. Scopes and the account's "
            "owner are checked for each of them.",
        )
        gates = [
            at_most("an API key and its scopes add to a cached read", added[KEY], KEY_BOUND_MS, " ms", digits=3),
            at_most(
                "an ID token that was seen before adds to a cached read", added[TOKEN], TOKEN_BOUND_MS, " ms", digits=3
            ),
        ]
        return Outcome({"medians_us": medians_us}, [table], gates=gates)


def _rounds(
    contestants: dict[str, tuple[Instance, Callable[[], Iterator[RawRequest]]]], samples: int
) -> dict[str, list[float]]:
    """Each contestant's median of each round, after one that is not counted."""
    medians: dict[str, list[float]] = {kind: [] for kind in contestants}
    for number in range(ROUNDS + 1):
        for kind, (instance, requests) in contestants.items():
            stream = requests()
            taken = instance.times_us([next(stream) for _ in range(samples)])
            if number:
                medians[kind].append(Spread.of(taken).median)
    return medians
