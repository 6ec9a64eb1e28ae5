"""Callers with ID tokens: who gets in, as whom, and that nobody else does."""

import asyncio
import random
import string
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.callers import Caller, Scope
from common.clock import ManualClock
from common.errors import CallerUnauthenticated, IdentityUnavailable
from common.id_token import MAX_HEADER_CHARS, MAX_TOKEN_CHARS, Reason
from common.issuers import Issuer
from common.jwks import COOL_DOWN_S, MAX_FRESH_S, MIN_FRESH_S
from common.loops import LoopThread
from common.oidc import LEEWAY_S, REMEMBER_S, OidcCallers
from sandbox.forgeries import KINDS, forged
from sandbox.forgery_target import Target, under_attack
from sandbox.issuer import AUDIENCE, JWKS, Answer, SimulatedIssuer, new_key, segment, signed

READ = frozenset({Scope.READ})
VARIANTS = 60


@dataclass
class Door:
    """Callers, and why each of them was refused."""

    callers: OidcCallers
    reasons: list[Reason] = field(default_factory=list)

    async def enter(self, token: str) -> Caller:
        return await self.callers.identify({"authorization": f"Bearer {token}"})

    async def refuses(self, token: str) -> Reason:
        """The reason for which ``token`` is refused; fails where it is not, or is refused in other words."""
        self.reasons.clear()
        with pytest.raises(CallerUnauthenticated) as refused:
            await self.enter(token)
        assert refused.value.message == "The bearer token is not valid here."
        assert refused.value.details == {}
        assert refused.value.__suppress_context__
        assert refused.value.__cause__ is None
        (reason,) = self.reasons
        return reason


MakeDoor = Callable[..., Door]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def issuer(clock: ManualClock) -> Iterator[SimulatedIssuer]:
    with SimulatedIssuer(clock) as simulated:
        yield simulated


@pytest.fixture
def make_door(issuer: SimulatedIssuer, clock: ManualClock) -> MakeDoor:
    def make(*, remember_bytes: int = 2**20, **row: Any) -> Door:
        return door_to(Issuer(issuer.origin, **{"audience": (AUDIENCE,), **row}), clock, remember_bytes)

    return make


def door_to(row: Issuer, clock: ManualClock, remember_bytes: int = 2**20) -> Door:
    reasons: list[Reason] = []
    return Door(OidcCallers([row], clock, remember_bytes=remember_bytes, on_refusal=reasons.append), reasons)


@pytest.fixture
def door(make_door: MakeDoor) -> Door:
    return make_door()


# Who gets in.


async def test_a_good_token_lets_its_subject_in(door: Door, issuer: SimulatedIssuer) -> None:
    caller = await door.enter(issuer.token(sub="user-7"))
    assert caller == Caller(f"{issuer.origin}|user-7", READ)


@pytest.mark.parametrize(
    "algorithm", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
)
@pytest.mark.parametrize("stated", [True, False], ids=["alg in the key", "no alg in the key"])
async def test_every_asymmetric_algorithm_is_understood(
    door: Door, issuer: SimulatedIssuer, algorithm: str, *, stated: bool
) -> None:
    key = issuer.rotate(algorithm)
    issuer.published = [key.jwk() if stated else key.jwk(alg=None)]
    assert (await door.enter(issuer.token())).principal == f"{issuer.origin}|user-1"


async def test_an_algorithm_that_the_row_leaves_out_is_refused(make_door: MakeDoor, issuer: SimulatedIssuer) -> None:
    rs_only = make_door(algorithms=frozenset({"RS256"}))
    issuer.rotate("RS256")
    await rs_only.enter(issuer.token())
    by_the_old_key = signed({"alg": "ES256", "kid": "key-1"}, issuer.claims(), issuer.keys[0])
    assert await rs_only.refuses(by_the_old_key) is Reason.KEY


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_scheme_is_read_without_case(door: Door, issuer: SimulatedIssuer, scheme: str) -> None:
    await door.callers.identify({"authorization": f"{scheme} {issuer.token()}"})


@pytest.mark.parametrize("kind", [None, "JWT", "jwt", "at+jwt", "application/at+jwt"])
async def test_a_type_may_be_missing_or_say_that_it_is_a_token(
    door: Door, issuer: SimulatedIssuer, kind: str | None
) -> None:
    await door.enter(signed(issuer.header(typ=kind), issuer.claims(), issuer.current))


@pytest.mark.parametrize("audience", [AUDIENCE, [AUDIENCE], "api", ["api", AUDIENCE]])
async def test_a_token_may_be_for_any_of_the_rows_audiences(
    make_door: MakeDoor, issuer: SimulatedIssuer, audience: object
) -> None:
    await make_door(audience=("api", AUDIENCE)).enter(issuer.token(aud=audience))


async def test_who_somebody_is_does_not_depend_on_an_email_address(door: Door, issuer: SimulatedIssuer) -> None:
    before = await door.enter(issuer.token(email="old@example.com", email_verified=True))
    after = await door.enter(issuer.token(email="new@example.com", email_verified=True))
    without = await door.enter(issuer.token())
    other = await door.enter(issuer.token(sub="user-2", email="old@example.com", email_verified=True))
    assert before == after == without != other
    assert "@" not in before.principal


async def test_an_unverified_address_passes_only_where_the_row_says_so(
    make_door: MakeDoor, issuer: SimulatedIssuer
) -> None:
    token = issuer.token(email="user@example.com", email_verified=False)
    assert await make_door().refuses(token) is Reason.EMAIL
    await make_door(require_email_verified=False).enter(token)


ALL_BUT_ADMIN = frozenset(Scope) - {Scope.ADMIN}


@pytest.mark.parametrize(
    ("claim", "granted"),
    [
        ("read command", {Scope.READ, Scope.COMMAND}),
        (["read", "unlock"], {Scope.READ, Scope.UNLOCK}),
        ("admin openid READ", set()),
        ("read,command", set()),
        (["admin", 7, None, ["read"], "read"], {Scope.READ}),
        ("", set()),
        (None, set()),
        (True, set()),
        ({"read": True}, set()),
        (7, set()),
    ],
)
async def test_a_scope_claim_only_ever_narrows_the_rows_scopes(
    make_door: MakeDoor, issuer: SimulatedIssuer, claim: object, granted: set[Scope]
) -> None:
    narrowed = make_door(scopes=ALL_BUT_ADMIN, scope_claim="permissions")
    caller = await narrowed.enter(issuer.token(permissions=claim, scope="admin read command"))
    assert caller.scopes == granted


async def test_without_a_scope_claim_each_token_may_do_what_the_row_says(
    make_door: MakeDoor, issuer: SimulatedIssuer
) -> None:
    caller = await make_door(scopes=ALL_BUT_ADMIN).enter(issuer.token(scope="admin"))
    assert caller.scopes == ALL_BUT_ADMIN


# Who does not.

S, K, M = Reason.SIGNATURE, Reason.KEY, Reason.MALFORMED
REFUSED_FOR: dict[str, set[Reason]] = {
    "no algorithm": {Reason.ALGORITHM, M},
    "public key as HMAC secret": {Reason.ALGORITHM},
    "guessed HMAC secret": {Reason.ALGORITHM},
    "foreign key under a known id": {S, K},
    "unknown key id": {K},
    "odd key id": {K},
    "embedded key": {S, K},
    "key at an address in the header": {S, K},
    "certificate in the header": {S, K},
    "the attacker's own issuer": {Reason.ISSUER},
    "zero signature": {S, M},
    "random signature": {S},
    "garbage": {M},
    "signature cut off": {M},
    "SIGNATURE_REMOVED_BY_GOOGLE": {S},
    "flipped bit": {S},
    "truncated signature": {S},
    "claims swapped": {S},
    "header swapped": {S, K},
    "another spelling of a good token": {S, M},
    "another algorithm than the key's": {K},
    "odd algorithm": {Reason.ALGORITHM},
    "key for encryption": {K},
    "retired key": {K},
    "critical extension": {Reason.CRITICAL},
    "unencoded payload": {Reason.CRITICAL, M},
    "duplicate claim": {M},
    "duplicate header": {M},
    "odd JSON": {M},
    "expired": {Reason.EXPIRED},
    "no expiry": {M},
    "not yet valid": {Reason.NOT_YET, M},
    "another audience": {Reason.AUDIENCE},
    "another name of the issuer": {Reason.ISSUER},
    "odd subject": {Reason.SUBJECT},
    "unverified email": {Reason.EMAIL},
    "another kind of token": {Reason.TYPE},
    "too long": {M},
    "encrypted": {M},
    "JSON serialisation": {M},
}


@pytest.fixture(scope="module")
def frozen() -> ManualClock:
    return ManualClock()


@pytest.fixture(scope="module")
def target(frozen: ManualClock) -> Iterator[Target]:
    with under_attack(frozen) as attacked:
        yield attacked


@pytest.mark.parametrize("kind", KINDS)
async def test_a_forged_token_is_refused_for_what_is_wrong_with_it(
    target: Target, frozen: ManualClock, kind: str
) -> None:
    rng = random.Random(kind)
    attacked = door_to(Issuer(target.issuer.origin, (AUDIENCE,)), frozen)
    await attacked.enter(target.good(rng))
    before = target.issuer.fetched[JWKS]
    reasons = {await attacked.refuses(KINDS[kind](target, rng)) for _ in range(VARIANTS)}
    assert reasons == REFUSED_FOR[kind]
    assert target.issuer.fetched[JWKS] == before
    assert target.attacker.fetched == {}
    await attacked.enter(target.good(rng))


async def test_forgeries_are_the_same_for_the_same_seed(target: Target) -> None:
    kinds = [kind for kind, _ in islice(forged(target, seed=1), len(KINDS))]
    assert kinds == list(KINDS)
    # EC signatures are made with fresh randomness, HMACs are not.
    first, second = ([token for kind, token in islice(forged(target, 1), 80) if "HMAC" in kind] for _ in range(2))
    assert first == second


async def test_forgers_alone_cause_one_fetch_of_keys(target: Target, frozen: ManualClock) -> None:
    attacked = door_to(Issuer(target.issuer.origin, (AUDIENCE,)), frozen)
    before = target.issuer.fetched[JWKS]
    tokens = [token for _, token in islice(forged(target, seed=2), 400)]
    results = await asyncio.gather(*(attacked.enter(token) for token in tokens), return_exceptions=True)
    assert all(isinstance(result, CallerUnauthenticated) for result in results)
    assert target.issuer.fetched[JWKS] == before + 1


@given(data=st.data())
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_change_of_one_character_leaves_a_token_good(
    target: Target, frozen: ManualClock, data: st.DataObject
) -> None:
    async def attempt() -> None:
        attacked = door_to(Issuer(target.issuer.origin, (AUDIENCE,)), frozen)
        token = target.good(random.Random(3))
        await attacked.enter(token)
        place = data.draw(st.integers(0, len(token) - 1))
        other = data.draw(st.sampled_from(string.printable).filter(lambda char: char != token[place]))
        changed = data.draw(
            st.sampled_from(
                [
                    token[:place] + other + token[place + 1 :],
                    token[:place] + token[place + 1 :],
                    token[:place] + other + token[place:],
                    token[:place],
                ]
            )
        )
        if changed != token:
            await attacked.refuses(changed)

    asyncio.run(attempt())


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": "Basic dXNlcjpwYXNz"},
        {"x-api-key": "key"},
    ],
)
async def test_without_a_token_there_is_no_caller(door: Door, headers: dict[str, str]) -> None:
    with pytest.raises(CallerUnauthenticated, match=r"^The bearer token is not valid here\.$"):
        await door.callers.identify(headers)
    assert door.reasons == [Reason.MISSING]


async def test_the_platforms_own_token_is_no_identity(door: Door, issuer: SimulatedIssuer) -> None:
    with pytest.raises(CallerUnauthenticated):
        await door.callers.identify({"x-serverless-authorization": f"Bearer {issuer.token()}"})
    caller = await door.callers.identify(
        {
            "authorization": f"Bearer {issuer.token(sub='user')}",
            "x-serverless-authorization": f"Bearer {issuer.token(sub='platform')}",
        }
    )
    assert caller.principal.endswith("|user")


async def test_nobody_is_trusted_where_no_issuer_is(clock: ManualClock, issuer: SimulatedIssuer) -> None:
    reasons: list[Reason] = []
    nobody = Door(OidcCallers([], clock, on_refusal=reasons.append), reasons)
    assert await nobody.refuses(issuer.token()) is Reason.ISSUER
    assert issuer.fetched == {}


async def test_one_trusted_issuer_cannot_speak_for_another(clock: ManualClock) -> None:
    with ExitStack() as stack:
        one, two = (stack.enter_context(SimulatedIssuer(clock, new_key("shared"))) for _ in range(2))
        reasons: list[Reason] = []
        rows = [Issuer(one.origin, (AUDIENCE,)), Issuer(two.origin, ("other",), scopes=frozenset(Scope))]
        both = Door(OidcCallers(rows, clock, on_refusal=reasons.append), reasons)
        assert (await both.enter(one.token())).scopes == READ
        assert (await both.enter(two.token(aud="other"))).scopes == frozenset(Scope)
        assert await both.refuses(two.token(iss=one.origin)) is Reason.SIGNATURE
        assert await both.refuses(one.token(iss=two.origin, aud="other")) is Reason.SIGNATURE
        assert await both.refuses(one.token(aud="other")) is Reason.AUDIENCE


def test_two_rows_of_one_issuer_are_a_mistake(clock: ManualClock) -> None:
    with pytest.raises(ValueError, match="issuer: a second row"):
        OidcCallers([Issuer("https://a.example", ("x",)), Issuer("https://a.example", ("y",))], clock)


async def test_a_token_may_be_as_long_as_the_limit_and_no_longer(door: Door, issuer: SimulatedIssuer) -> None:
    # Base64 skips one length in four; two parts of the token make up for that.
    tokens = {
        len(token): token
        for head in range(4)
        for body in range(5_870, 5_960)
        for token in [signed(issuer.header(x="x" * head), issuer.claims(x="x" * body), issuer.current)]
    }
    await door.enter(tokens[MAX_TOKEN_CHARS])
    assert await door.refuses(tokens[MAX_TOKEN_CHARS + 1]) is Reason.MALFORMED


async def test_a_header_may_not_take_up_the_token(door: Door, issuer: SimulatedIssuer) -> None:
    sizes = {size: len(segment(issuer.header(x="x" * size))) for size in range(1_400, 1_500)}
    fits = max(size for size, chars in sizes.items() if chars <= MAX_HEADER_CHARS)
    await door.enter(signed(issuer.header(x="x" * fits), issuer.claims(), issuer.current))
    larger = signed(issuer.header(x="x" * (fits + 1)), issuer.claims(), issuer.current)
    assert await door.refuses(larger) is Reason.MALFORMED


# Time.


async def test_a_token_is_good_until_it_expires_and_not_at_that_moment(
    make_door: MakeDoor, issuer: SimulatedIssuer, clock: ManualClock
) -> None:
    token = issuer.token(exp=int(clock.utc().timestamp()) + 100)
    clock.advance(99.9)
    await make_door().enter(token)
    clock.advance(0.1)
    assert await make_door().refuses(token) is Reason.EXPIRED


@pytest.mark.parametrize("claim", ["iat", "nbf", "auth_time"])
async def test_an_issuers_clock_may_run_ahead_by_the_leeway(
    door: Door, issuer: SimulatedIssuer, clock: ManualClock, claim: str
) -> None:
    now = int(clock.utc().timestamp())
    await door.enter(issuer.token(**{claim: now + LEEWAY_S}))
    assert await door.refuses(issuer.token(**{claim: now + LEEWAY_S + 1})) is Reason.NOT_YET


async def test_the_leeway_is_the_deployments_to_choose(issuer: SimulatedIssuer, clock: ManualClock) -> None:
    strict = OidcCallers([Issuer(issuer.origin, (AUDIENCE,))], clock, leeway_s=0)
    with pytest.raises(CallerUnauthenticated):
        await strict.identify({"authorization": f"Bearer {issuer.token(iat=int(clock.utc().timestamp()) + 1)}"})


async def test_a_remembered_token_still_expires(door: Door, issuer: SimulatedIssuer, clock: ManualClock) -> None:
    token = issuer.token(exp=int(clock.utc().timestamp()) + 100)
    for _ in range(3):
        await door.enter(token)
        clock.advance(33)
    clock.advance(1)
    assert await door.refuses(token) is Reason.EXPIRED


async def test_a_remembered_token_expires_by_the_wall_clock_however_it_moves(
    door: Door, issuer: SimulatedIssuer, clock: ManualClock
) -> None:
    token = issuer.token()
    await door.enter(token)
    clock.step_wall(3_600)
    assert await door.refuses(token) is Reason.EXPIRED


async def withdraw(door: Door, issuer: SimulatedIssuer, clock: ManualClock) -> None:
    """The issuer replaces its key, and the door comes to know."""
    issuer.rotate(keep=False)
    clock.advance(COOL_DOWN_S)
    await door.enter(issuer.token(sub="herald"))


async def test_a_withdrawn_key_counts_for_as_long_as_a_token_is_remembered(
    door: Door, issuer: SimulatedIssuer, clock: ManualClock
) -> None:
    token = issuer.token()
    await door.enter(token)
    await withdraw(door, issuer, clock)
    clock.advance(REMEMBER_S - COOL_DOWN_S - 1)
    await door.enter(token)
    clock.advance(1)
    assert await door.refuses(token) is Reason.KEY


async def test_fifteen_minutes_after_a_key_was_withdrawn_no_token_of_it_lets_anybody_in(
    door: Door, issuer: SimulatedIssuer, clock: ManualClock
) -> None:
    issuer.headers = {"Cache-Control": "public, max-age=86400"}
    token = issuer.token()
    await door.enter(token)
    issuer.rotate(keep=False)
    clock.advance(MAX_FRESH_S - 1)
    await door.enter(token)  # with a key that is held, and remembered once more
    clock.advance(REMEMBER_S + 1)
    assert await door.refuses(token) is Reason.KEY


async def test_only_so_many_tokens_are_remembered(
    make_door: MakeDoor, issuer: SimulatedIssuer, clock: ManualClock
) -> None:
    small = make_door(remember_bytes=3 * 1024)
    tokens = [issuer.token(sub=f"user-{number}") for number in range(3)]
    for token in tokens:
        await small.enter(token)
    await withdraw(small, issuer, clock)
    assert await small.refuses(tokens[0]) is Reason.KEY
    await small.enter(tokens[1])
    await small.enter(tokens[2])


async def test_a_refused_token_is_never_remembered(door: Door, issuer: SimulatedIssuer, clock: ManualClock) -> None:
    early = issuer.token(nbf=int(clock.utc().timestamp()) + 90)
    assert await door.refuses(early) is Reason.NOT_YET
    clock.advance(30)
    await door.enter(early)


# Threads, and issuers that are not there.


def in_hand(door: Door, token: str) -> Caller:
    """The caller, if that is known without waiting and without a loop."""
    begun = door.enter(token)
    try:
        begun.send(None)
    except StopIteration as done:
        caller: Caller = done.value
        return caller
    begun.close()
    raise AssertionError("it waited")


async def test_with_keys_at_hand_no_token_leaves_the_thread(door: Door, issuer: SimulatedIssuer) -> None:
    first = await door.enter(issuer.token(sub="user-1"))
    assert await asyncio.to_thread(in_hand, door, issuer.token(sub="user-1", jti="another")) == first
    again = issuer.token()
    assert await asyncio.to_thread(in_hand, door, again) == await asyncio.to_thread(in_hand, door, again)


def test_many_threads_tell_their_callers_apart(door: Door, issuer: SimulatedIssuer) -> None:
    loop = LoopThread("test-loop")
    tokens = [issuer.token(sub=f"user-{number}") for number in range(40)] * 5
    with ThreadPoolExecutor(32) as pool:
        callers = list(pool.map(lambda token: loop.run(door.enter(token)), tokens))
    loop.close()
    assert [caller.principal for caller in callers] == [f"{issuer.origin}|user-{number}" for number in range(40)] * 5
    assert issuer.fetched[JWKS] == 1


async def test_without_the_issuer_nobody_can_be_told_and_forgers_are_still_refused(
    door: Door, issuer: SimulatedIssuer, clock: ManualClock
) -> None:
    token = issuer.token()
    issuer.stop()
    with pytest.raises(IdentityUnavailable) as unavailable:
        await door.enter(token)
    assert unavailable.value.retry_after_s is not None
    assert await door.refuses(issuer.token(aud="another")) is Reason.AUDIENCE
    assert await door.refuses(token.rpartition(".")[0] + ".SIGNATURE_REMOVED_BY_GOOGLE") is Reason.SIGNATURE


async def test_an_outage_of_the_issuer_goes_unnoticed_while_its_keys_are_held(
    door: Door, issuer: SimulatedIssuer, clock: ManualClock
) -> None:
    await door.enter(issuer.token())
    issuer.stop()
    clock.advance(10 * MIN_FRESH_S)
    await door.enter(issuer.token(sub="user-2"))


async def test_a_deployment_is_told_of_each_fetch(issuer: SimulatedIssuer, clock: ManualClock) -> None:
    told: list[tuple[str, str]] = []
    watched = OidcCallers(
        [Issuer(issuer.origin, (AUDIENCE,))], clock, on_keys=lambda name, outcome: told.append((name, outcome))
    )
    await watched.identify({"authorization": f"Bearer {issuer.token()}"})
    assert told == [(issuer.origin, "ok")]


async def test_waiting_for_keys_does_not_hold_up_those_who_are_known(
    door: Door, issuer: SimulatedIssuer, clock: ManualClock
) -> None:
    token, go = issuer.token(), threading.Event()
    await door.enter(token)
    clock.advance(COOL_DOWN_S)
    issuer.replies[JWKS] = Answer(wait_for=go)
    stranger = signed(issuer.header(kid="stranger"), issuer.claims(), issuer.current)
    waiting = asyncio.create_task(door.refuses(stranger))
    await asyncio.sleep(0)
    assert in_hand(door, token).principal == f"{issuer.origin}|user-1"
    go.set()
    assert await waiting is Reason.KEY


# Firebase.


@pytest.fixture
def firebase_door(make_door: MakeDoor, issuer: SimulatedIssuer) -> Door:
    return make_door(firebase=True)


async def test_a_firebase_user_who_has_signed_in_gets_in(firebase_door: Door, issuer: SimulatedIssuer) -> None:
    now = issuer.claims()["iat"]
    details = {"sign_in_provider": "password"}
    await firebase_door.enter(issuer.token(auth_time=now - 10, firebase=details))
    await firebase_door.enter(issuer.token(auth_time=now, firebase=None))


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({}, Reason.MALFORMED),
        ({"auth_time": "now"}, Reason.MALFORMED),
        ({"auth_time": 2**40}, Reason.NOT_YET),
        ({"auth_time": 1, "iat": None}, Reason.MALFORMED),
        ({"auth_time": 1, "sub": ""}, Reason.SUBJECT),
        ({"auth_time": 1, "firebase": {"sign_in_provider": "anonymous"}}, Reason.ANONYMOUS),
        ({"auth_time": 1, "email": "a@example.com", "email_verified": False}, Reason.EMAIL),
    ],
)
async def test_firebases_own_rules_hold(
    firebase_door: Door, issuer: SimulatedIssuer, claims: dict[str, Any], reason: Reason
) -> None:
    assert await firebase_door.refuses(issuer.token(**claims)) is reason
