"""An issuer's keys: which are usable, how long they are kept, and how rarely they are asked for."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Coroutine, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from common.clock import ManualClock
from common.errors import IdentityUnavailable
from common.fetch import HttpFetch
from common.issuers import Issuer
from common.jwks import (
    COOL_DOWN_S,
    MAX_FRESH_S,
    MAX_KEYS,
    MIN_FRESH_S,
    RETRY_S,
    STALE_S,
    KeySet,
    usable_keys,
)
from common.loops import LoopThread
from sandbox.issuer import AUDIENCE, DISCOVERY, JWKS, Answer, SimulatedIssuer, new_key

EC = new_key("ec", "ES256")
RSA = new_key("rsa", "RS256")
PRIVATE = ec.generate_private_key(ec.SECP256R1())
RSA_NAMES = {("rsa", name) for name in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")}


def jwks(*keys: Any) -> bytes:
    return json.dumps({"keys": keys}).encode()


@pytest.mark.parametrize(
    ("jwk", "names"),
    [
        (EC.jwk(), {("ec", "ES256")}),
        (EC.jwk(alg=None, use=None), {("ec", "ES256")}),
        (EC.jwk(key_ops=["verify"]), {("ec", "ES256")}),
        (RSA.jwk(), {("rsa", "RS256")}),
        (RSA.jwk(alg="PS512"), {("rsa", "PS512")}),
        (RSA.jwk(alg=None), RSA_NAMES),
        (new_key("384", "ES384").jwk(alg=None), {("384", "ES384")}),
        (new_key("521", "ES512").jwk(alg=None), {("521", "ES512")}),
        (new_key("ed", "EdDSA").jwk(alg=None), {("ed", "EdDSA")}),
    ],
)
def test_a_key_verifies_what_its_type_and_its_own_word_allow(jwk: dict[str, Any], names: set[tuple[str, str]]) -> None:
    assert set(usable_keys(jwks(jwk))) == names


@pytest.mark.parametrize(
    "jwk",
    [
        EC.jwk(use="enc"),
        EC.jwk(use=None, key_ops=["encrypt"]),
        EC.jwk(key_ops="verify"),
        EC.jwk(key_ops=[]),
        EC.jwk(alg="HS256"),
        EC.jwk(alg="RS256"),
        EC.jwk(alg="ES384"),
        EC.jwk(alg=["ES256"]),
        EC.jwk(kid=None),
        EC.jwk(kid=7),
        EC.jwk(kty="oct", k="c2VjcmV0"),
        EC.jwk(kty="RSA"),
        EC.jwk(kty=["EC"]),
        EC.jwk(kty=None),
        EC.jwk(crv="P-384", alg=None),
        EC.jwk(crv="secp256k1", alg=None),
        EC.jwk(crv=["P-256"]),
        EC.jwk(x=None),
        EC.jwk(x="AA"),
        EC.jwk(x=7),
        EC.jwk(y=EC.jwk()["x"]),
        ECAlgorithm.to_jwk(PRIVATE, as_dict=True) | {"kid": "private", "key_ops": ["verify"]},
        RSA.jwk(alg="RSA-OAEP-256"),
        RSA.jwk(alg="none"),
        RSA.jwk(n=None),
        RSA.jwk(n="AQAB"),
        RSA.jwk(n=7),
        RSA.jwk(e="AA"),
        RSA.jwk(e="\ud800"),
        new_key("small", "RS256", bits=1024).jwk(),
        "key",
        None,
        [],
    ],
)
def test_a_key_that_must_not_verify_is_left_out(jwk: object) -> None:
    assert set(usable_keys(jwks(jwk, RSA.jwk(kid="good")))) == {("good", "RS256")}


def test_an_issuer_may_be_held_to_fewer_algorithms() -> None:
    found = usable_keys(jwks(EC.jwk(), RSA.jwk(alg=None)), frozenset({"RS256", "PS256"}))
    assert set(found) == {("rsa", "RS256"), ("rsa", "PS256")}


def test_of_two_keys_of_one_name_the_first_counts() -> None:
    first = usable_keys(jwks(EC.jwk()))[("ec", "ES256")]
    both = usable_keys(jwks(EC.jwk(), new_key("ec", "ES256").jwk()))[("ec", "ES256")]
    assert both.key.public_numbers() == first.key.public_numbers()


def test_only_so_many_keys_are_read() -> None:
    many = [EC.jwk(kid=f"key-{number}") for number in range(MAX_KEYS + 1)]
    assert set(usable_keys(jwks(*many))) == {(f"key-{number}", "ES256") for number in range(MAX_KEYS)}


GARBAGE = [
    b"",
    b"<html>",
    b"[]",
    b"{}",
    b'{"keys": {}}',
    b'{"keys": []}',
    b'{"keys": [{}]}',
    b'{"keys": [], "keys": [' + json.dumps(EC.jwk()).encode() + b"]}",
    b"\xff\xfe",
    b"[" * 100_000,
]


@pytest.mark.parametrize("body", GARBAGE)
def test_what_holds_no_usable_key_is_no_answer(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"^(no|is not|must be|holds)"):
        usable_keys(body)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def issuer(clock: ManualClock) -> Iterator[SimulatedIssuer]:
    with SimulatedIssuer(clock) as simulated:
        yield simulated


@pytest.fixture
def outcomes() -> list[str]:
    return []


@pytest.fixture
def keys(issuer: SimulatedIssuer, clock: ManualClock, outcomes: list[str]) -> KeySet:
    return key_set(issuer, clock, outcomes)


def key_set(issuer: SimulatedIssuer, clock: ManualClock, outcomes: list[str], timeout_s: float = 5.0) -> KeySet:
    return KeySet(
        Issuer(issuer.origin, (AUDIENCE,)),
        clock,
        HttpFetch(timeout_s=timeout_s),
        observe=lambda _issuer, outcome: outcomes.append(outcome),
    )


async def has(keys: KeySet, kid: str) -> bool:
    return await keys.find(kid, "ES256") is not None


async def test_keys_are_fetched_when_they_are_first_needed_and_then_held(keys: KeySet, issuer: SimulatedIssuer) -> None:
    assert issuer.fetched.total() == 0
    for _ in range(10):
        assert await has(keys, "key-1")
    assert issuer.fetched == {DISCOVERY: 1, JWKS: 1}


async def test_a_row_that_says_where_the_keys_are_needs_no_discovery(
    issuer: SimulatedIssuer, clock: ManualClock
) -> None:
    direct = KeySet(Issuer(issuer.origin, (AUDIENCE,), f"{issuer.origin}/jwks"), clock, HttpFetch())
    assert await has(direct, "key-1")
    assert issuer.fetched == {JWKS: 1}


@pytest.mark.parametrize(
    ("header", "fresh_s"),
    [
        ("max-age=450", 450),
        ("max-age=1", MIN_FRESH_S),
        ("no-store", MIN_FRESH_S),
        ("max-age=31536000", MAX_FRESH_S),
    ],
)
async def test_keys_are_kept_as_the_issuer_says_within_bounds(
    keys: KeySet, issuer: SimulatedIssuer, clock: ManualClock, header: str, fresh_s: float
) -> None:
    issuer.headers = {"Cache-Control": header}
    await has(keys, "key-1")
    clock.advance(fresh_s - 1)
    await has(keys, "key-1")
    assert issuer.fetched[JWKS] == 1
    clock.advance(1)
    await has(keys, "key-1")
    assert issuer.fetched[JWKS] == 2


async def test_a_step_of_the_wall_clock_changes_nothing(
    keys: KeySet, issuer: SimulatedIssuer, clock: ManualClock
) -> None:
    await has(keys, "key-1")
    for step_s in (10 * STALE_S, -20 * STALE_S):
        clock.step_wall(step_s)
        assert await has(keys, "key-1")
    assert issuer.fetched[JWKS] == 1


async def test_a_new_key_is_found_and_a_withdrawn_one_lost_with_one_fetch(
    keys: KeySet, issuer: SimulatedIssuer, clock: ManualClock
) -> None:
    assert await has(keys, "key-1")
    issuer.rotate(keep=False)
    clock.advance(COOL_DOWN_S)
    assert await has(keys, "key-2")
    assert not await has(keys, "key-1")
    assert issuer.fetched[JWKS] == 2


async def test_a_withdrawn_key_is_lost_within_minutes_even_where_the_issuer_speaks_of_a_day(
    keys: KeySet, issuer: SimulatedIssuer, clock: ManualClock
) -> None:
    issuer.headers = {"Cache-Control": "public, max-age=86400"}
    assert await has(keys, "key-1")
    issuer.rotate(keep=False)
    clock.advance(15 * 60)
    assert not await has(keys, "key-1")


async def test_while_the_issuer_is_down_a_key_serves_for_little_more_than_an_hour(
    keys: KeySet, issuer: SimulatedIssuer, clock: ManualClock
) -> None:
    issuer.headers = {"Cache-Control": "public, max-age=86400"}
    await has(keys, "key-1")
    issuer.stop()
    clock.advance(70 * 60)
    with pytest.raises(IdentityUnavailable):
        await has(keys, "key-1")


async def test_a_flood_of_unknown_keys_makes_one_fetch_a_cool_down(
    keys: KeySet, issuer: SimulatedIssuer, clock: ManualClock
) -> None:
    for number in range(200):
        assert not await has(keys, f"unknown-{number}")
    assert issuer.fetched[JWKS] == 1
    clock.advance(COOL_DOWN_S - 1)
    assert not await has(keys, "unknown")
    assert issuer.fetched[JWKS] == 1
    clock.advance(1)
    assert not any(await asyncio.gather(*(has(keys, f"unknown-{number}") for number in range(200))))
    assert issuer.fetched[JWKS] == 2


async def test_a_key_is_found_only_for_its_own_algorithm(keys: KeySet) -> None:
    assert await keys.find("key-1", "ES256") is not None
    assert await keys.find("key-1", "RS256") is None


@asynccontextmanager
async def held_up(issuer: SimulatedIssuer) -> AsyncIterator[threading.Event]:
    """The JWK set is asked for and not answered until the event is set, which the end of the block does."""
    go = threading.Event()
    issuer.replies[JWKS] = Answer(body=jwks(*issuer.published), headers=issuer.headers, wait_for=go)
    try:
        yield go
    finally:
        go.set()


async def until_asked(issuer: SimulatedIssuer, times: int) -> None:
    while issuer.fetched[JWKS] < times:
        issuer.asked.clear()
        if issuer.fetched[JWKS] < times:
            assert await asyncio.to_thread(issuer.asked.wait, 5)


async def test_a_thousand_callers_at_once_make_one_fetch(keys: KeySet, issuer: SimulatedIssuer) -> None:
    async with held_up(issuer) as go:
        waiting = [asyncio.create_task(has(keys, "key-1")) for _ in range(1000)]
        await until_asked(issuer, 1)
        go.set()
        assert all(await asyncio.gather(*waiting))
    assert issuer.fetched == {DISCOVERY: 1, JWKS: 1}


def test_many_threads_at_once_make_one_fetch(keys: KeySet, issuer: SimulatedIssuer) -> None:
    loop = LoopThread("test-loop")
    go = threading.Event()
    issuer.replies[JWKS] = Answer(body=jwks(*issuer.published), wait_for=go)
    with ThreadPoolExecutor(32) as pool:
        found = [pool.submit(lambda: loop.run(has(keys, "key-1"))) for _ in range(200)]
        while not issuer.fetched[JWKS]:
            assert issuer.asked.wait(5)
        go.set()
        assert all(future.result() for future in found)
    loop.close()
    assert issuer.fetched[JWKS] == 1


async def test_who_gives_up_waiting_takes_nobody_along(keys: KeySet, issuer: SimulatedIssuer) -> None:
    async with held_up(issuer) as go:
        leader = asyncio.create_task(has(keys, "key-1"))
        await until_asked(issuer, 1)
        others = [asyncio.create_task(has(keys, "key-1")) for _ in range(5)]
        await asyncio.sleep(0)
        leader.cancel()
        await asyncio.gather(leader, return_exceptions=True)
        go.set()
        assert all(await asyncio.gather(*others))
    assert issuer.fetched[JWKS] == 1


async def test_a_fetch_that_all_have_given_up_serves_the_next(
    keys: KeySet, issuer: SimulatedIssuer, outcomes: list[str]
) -> None:
    async with held_up(issuer) as go:
        only = asyncio.create_task(has(keys, "key-1"))
        await until_asked(issuer, 1)
        only.cancel()
        await asyncio.gather(only, return_exceptions=True)
        following = asyncio.create_task(has(keys, "key-1"))
        await asyncio.sleep(0)
        go.set()
        assert await following
    assert (issuer.fetched[JWKS], outcomes) == (1, ["ok"])


def test_a_fetch_that_ends_with_its_loop_says_so(keys: KeySet, issuer: SimulatedIssuer, outcomes: list[str]) -> None:
    loop = LoopThread("test-loop")
    issuer.replies[JWKS] = Answer(wait_for=threading.Event())
    asking = loop.submit(has(keys, "key-1"))
    while not issuer.fetched[JWKS]:
        assert issuer.asked.wait(5)
    loop.close()
    assert asking.cancelled()
    assert outcomes == ["cut short"]


async def test_while_one_asks_anew_the_others_go_on_with_the_old_keys(
    keys: KeySet, issuer: SimulatedIssuer, clock: ManualClock
) -> None:
    await has(keys, "key-1")
    clock.advance(MAX_FRESH_S)
    async with held_up(issuer) as go:
        asking = asyncio.create_task(has(keys, "key-1"))
        await until_asked(issuer, 2)
        assert step_by_hand(keys, "key-1")
        go.set()
        assert await asking
    assert issuer.fetched[JWKS] == 2


async def test_a_new_key_that_is_on_its_way_is_waited_for(
    keys: KeySet, issuer: SimulatedIssuer, clock: ManualClock
) -> None:
    await has(keys, "key-1")
    clock.advance(COOL_DOWN_S)
    issuer.rotate()
    async with held_up(issuer) as go:
        asking = asyncio.create_task(has(keys, "stranger"))
        await until_asked(issuer, 2)
        joining = asyncio.create_task(has(keys, "key-2"))
        await asyncio.sleep(0)
        go.set()
        assert (await asking, await joining) == (False, True)
    assert issuer.fetched[JWKS] == 2


def step_by_hand(keys: KeySet, kid: str) -> bool:
    """The answer of ``find`` if it has one without waiting and without a loop."""
    begun = keys.find(kid, "ES256")
    try:
        begun.send(None)
    except StopIteration as done:
        return done.value is not None
    begun.close()
    raise AssertionError("it waited")


async def test_keys_that_are_held_are_found_without_leaving_the_thread(keys: KeySet) -> None:
    await has(keys, "key-1")
    assert step_by_hand(keys, "key-1")
    assert not step_by_hand(keys, "unknown")


class Rest:
    """What is left of a coroutine that was begun elsewhere."""

    def __init__(self, begun: Coroutine[Any, Any, Any]) -> None:
        self._begun = begun

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield from self._begun.__await__())


async def test_who_finds_the_keys_there_on_reaching_the_loop_asks_no_more(
    keys: KeySet, issuer: SimulatedIssuer
) -> None:
    begun = keys.find("key-1", "ES256")
    await asyncio.to_thread(begun.send, None)
    assert await has(keys, "key-1")
    assert await Rest(begun) is not None
    assert issuer.fetched[JWKS] == 1


async def test_while_the_issuer_is_down_old_keys_serve_to_their_limit(
    keys: KeySet, issuer: SimulatedIssuer, clock: ManualClock, outcomes: list[str]
) -> None:
    issuer.headers = {"Cache-Control": "max-age=600"}
    await has(keys, "key-1")
    issuer.stop()
    clock.advance(600)
    assert await has(keys, "key-1")
    assert await has(keys, "key-1")
    assert outcomes == ["ok", "ConnectError"]
    clock.advance(COOL_DOWN_S)
    assert await has(keys, "key-1")
    assert outcomes == ["ok", "ConnectError", "ConnectError"]
    clock.advance(STALE_S - COOL_DOWN_S - 1)
    assert await has(keys, "key-1")
    clock.advance(1)
    with pytest.raises(IdentityUnavailable):
        await has(keys, "key-1")


async def test_an_unknown_key_is_unknown_while_the_issuer_is_down(
    keys: KeySet, issuer: SimulatedIssuer, clock: ManualClock
) -> None:
    await has(keys, "key-1")
    issuer.stop()
    clock.advance(COOL_DOWN_S)
    assert not await has(keys, "unknown")


async def test_without_any_keys_the_issuer_is_asked_again_soon(
    keys: KeySet, issuer: SimulatedIssuer, clock: ManualClock, outcomes: list[str]
) -> None:
    issuer.stop()
    for _ in range(3):
        with pytest.raises(IdentityUnavailable) as down:
            await has(keys, "key-1")
        assert down.value.retry_after_s == RETRY_S
    assert outcomes == ["ConnectError"]
    clock.advance(RETRY_S - 0.5)
    with pytest.raises(IdentityUnavailable) as still:
        await has(keys, "key-1")
    assert still.value.retry_after_s == 1
    issuer.start()
    clock.advance(0.5)
    assert await has(keys, "key-1")
    assert outcomes == ["ConnectError", "ok"]


BAD_ANSWERS = [
    *(Answer(body=body) for body in GARBAGE),
    Answer(status=500, body=jwks(EC.jwk())),
    Answer(status=302, headers={"Location": JWKS + "?"}),
    Answer(body=b" " * 300_000),
]


@pytest.mark.parametrize("path", [DISCOVERY, JWKS])
@pytest.mark.parametrize("answer", BAD_ANSWERS, ids=lambda answer: f"{answer.status} {answer.body[:12]!r}")
async def test_a_bad_answer_changes_nothing(
    keys: KeySet, issuer: SimulatedIssuer, clock: ManualClock, outcomes: list[str], path: str, answer: Answer
) -> None:
    issuer.replies[path] = answer
    with pytest.raises(IdentityUnavailable):
        await has(keys, "key-1")
    del issuer.replies[path]
    clock.advance(RETRY_S)
    assert await has(keys, "key-1")
    issuer.replies[path] = answer
    clock.advance(MAX_FRESH_S)
    assert await has(keys, "key-1")
    assert [outcome == "ok" for outcome in outcomes] == [False, True, False]


async def test_an_issuer_that_does_not_answer_is_given_up(
    issuer: SimulatedIssuer, clock: ManualClock, outcomes: list[str]
) -> None:
    impatient = key_set(issuer, clock, outcomes, timeout_s=0.05)
    async with held_up(issuer):
        with pytest.raises(IdentityUnavailable):
            await has(impatient, "key-1")
    assert len(outcomes) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": "https://another.example"},
        {"issuer": None},
        {"jwks_uri": None},
        {"jwks_uri": 7},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": "http://keys.example/jwks"},
    ],
)
async def test_a_discovery_document_that_is_not_the_issuers_own_leads_nowhere(
    keys: KeySet, issuer: SimulatedIssuer, changes: dict[str, Any]
) -> None:
    good = {"issuer": issuer.origin, "jwks_uri": issuer.origin + JWKS}
    issuer.replies[DISCOVERY] = Answer(body=json.dumps(good | changes).encode())
    with pytest.raises(IdentityUnavailable):
        await has(keys, "key-1")
    assert issuer.fetched == {DISCOVERY: 1}


async def test_keys_that_have_moved_are_found_where_they_are_now(
    keys: KeySet, issuer: SimulatedIssuer, clock: ManualClock
) -> None:
    assert await has(keys, "key-1")
    new = issuer.rotate(keep=False)
    moved = {"issuer": issuer.origin, "jwks_uri": f"{issuer.origin}/moved"}
    issuer.replies = {
        DISCOVERY: Answer(body=json.dumps(moved).encode()),
        "/moved": Answer(body=jwks(new.jwk())),
        JWKS: Answer(body=jwks(issuer.keys[0].jwk())),
    }
    clock.advance(COOL_DOWN_S)
    assert await has(keys, "key-2")
