"""Row 16: a caller is who the issuer says, or nobody."""

import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import islice

from common.clock import ManualClock
from common.errors import CallerUnauthenticated
from common.issuers import Issuer
from common.loops import LoopThread
from common.oidc import OidcCallers
from sandbox.forgeries import KINDS, forged
from sandbox.forgery_target import Target, under_attack
from sandbox.issuer import AUDIENCE, JWKS
from scorecard.row import Finding, Row, Say

FORGED = 10_000
GENUINE = 500
"""Among the forged ones, so that refusing everybody does not pass."""
_THREADS = 8


def _forged_tokens(say: Say) -> Finding:
    # Held still, so that the cool-down between two fetches of keys cannot end on a slow machine.
    clock = ManualClock(wall=datetime.now(UTC))
    loop = LoopThread("scorecard")
    try:
        with under_attack(clock) as target:
            callers = OidcCallers([Issuer(target.issuer.origin, (AUDIENCE,))], clock)

            def admitted(token: str) -> bool:
                try:
                    loop.run(callers.identify({"authorization": f"Bearer {token}"}))
                except CallerUnauthenticated:
                    return False
                return True

            return _judge(say, target, admitted)
    finally:
        loop.close()


def _judge(say: Say, target: Target, admitted: Callable[[str], bool]) -> Finding:
    rng = random.Random(16)
    tokens = [*islice(forged(target, seed=16), FORGED), *(("genuine", target.good(rng)) for _ in range(GENUINE))]
    rng.shuffle(tokens)
    say(f"{FORGED} forged and {GENUINE} genuine tokens made")
    with ThreadPoolExecutor(_THREADS) as pool:
        verdicts = list(pool.map(admitted, [token for _, token in tokens]))
    accepted = Counter(kind for (kind, _), verdict in zip(tokens, verdicts, strict=True) if verdict)
    genuine = accepted.pop("genuine", 0)
    fetches, lured = target.issuer.fetched[JWKS], target.attacker.fetched.total()
    wrong = f" ({', '.join(accepted)})" if accepted else ""
    measured = f"{FORGED} forged of {len(KINDS)} kinds: {accepted.total()} accepted{wrong}; "
    measured += f"{genuine} of {GENUINE} genuine accepted; {fetches} key fetch, {lured} at the attacker's address"
    passed = accepted.total() == 0 and genuine == GENUINE and fetches <= 1 and lured == 0
    return Finding(measured, passed and len(KINDS) >= 13)


ROWS = (Row(16, "10,000 forged caller tokens of >= 13 kinds", "0 accepted; <= 1 key fetch", _forged_tokens),)
