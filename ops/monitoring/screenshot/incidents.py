"""What befalls the service while its picture is taken, and when: a table."""

from collections.abc import Callable
from dataclasses import dataclass

from sandbox.issuer import JWKS, Answer, SimulatedIssuer
from sandbox.process import RunningSandbox

LATENCY_MS, SLOW_LATENCY_MS = 80, 420
USERS = 12


@dataclass(frozen=True, slots=True)
class Outside:
    """Who can fail the service: the maker, and the issuer of callers' tokens."""

    maker: RunningSandbox
    issuer: SimulatedIssuer


@dataclass(frozen=True, slots=True)
class Incident:
    """``act`` happens when ``share`` of the time is over; ``says`` tells whoever watches."""

    share: float
    says: str
    act: Callable[[Outside], object]


def email(number: int) -> str:
    """The address of a user at the simulated maker."""
    return f"user-{number}@example.com"


def _expire_one(outside: Outside) -> None:
    outside.maker.expire_access(email(0))


def _expire_half(outside: Outside) -> None:
    for number in range(USERS // 2):
        outside.maker.expire_access(email(number))


def _change_key(outside: Outside) -> None:
    outside.issuer.rotate()


def _slow(outside: Outside) -> None:
    outside.maker.settings(latency_ms=SLOW_LATENCY_MS)


def _quick(outside: Outside) -> None:
    outside.maker.settings(latency_ms=LATENCY_MS)


def _fail_reads(outside: Outside) -> None:
    outside.maker.fault(fault="status", status=503, match={"path": "vehicles/state"})


def _hide_key(outside: Outside) -> None:
    # The service asks again only for a key that it does not know.
    outside.issuer.replies[JWKS] = Answer(status=503)
    outside.issuer.rotate()


def _heal(outside: Outside) -> None:
    outside.maker.clear_faults()


def _show_key(outside: Outside) -> None:
    outside.issuer.replies.clear()


def _lose_answers(outside: Outside) -> None:
    outside.maker.fault(fault="empty", match={"path": "door-lock"}, times=3)


def _kill_link(outside: Outside, number: int = USERS - 1) -> None:
    outside.maker.revoke_refresh(email(number))
    outside.maker.expire_access(email(number))


def _kill_another_link(outside: Outside) -> None:
    _kill_link(outside, USERS - 2)


INCIDENTS = (
    Incident(0.06, "a token expires", _expire_one),
    Incident(0.10, "the issuer of callers' tokens changes its key", _change_key),
    Incident(0.22, "half of the tokens expire", _expire_half),
    Incident(0.35, "the maker becomes slow", _slow),
    Incident(0.42, "the issuer changes its key and cannot show it", _hide_key),
    Incident(0.48, "the maker is quick again", _quick),
    Incident(0.55, "the maker answers reads with 503", _fail_reads),
    Incident(0.68, "the maker is well again", _heal),
    Incident(0.70, "the issuer shows its keys again", _show_key),
    Incident(0.78, "the answers to three commands are lost", _lose_answers),
    Incident(0.82, "a link dies", _kill_link),
    Incident(0.88, "another link dies", _kill_another_link),
)
"""What is counted in five minutes happens twice: ``increase()`` does not see a series begin."""
