"""When a guess at a password has to wait: decisions over the tries so far, without I/O.

A try is counted before it is made, so that any number of guesses at once are as few as one after the other. One that
is neither settled nor recent belongs to a process that died: it counts as failed, for nobody knows that it did not.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

FREE_TRIES = 3
FIRST_LOCK_S = 30.0
LONGEST_LOCK_S = 3_600.0
FORGET_AFTER_S = 86_400.0
PENDING_S = 120.0
"""Longer than any login takes."""
BUSY_S = 2.0
"""When to come back where others' tries are not settled yet."""
_FAILING = timedelta(hours=1)
_KEPT = 16
"""More failures than these say nothing more: the lock has long been the longest."""


@dataclass(frozen=True, slots=True)
class Try:
    """One guess."""

    id: str
    at: datetime
    """When it failed, or when it began."""
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """Not now."""

    seconds: float
    failures: int
    """0 where it is only that others are not settled."""


Tries = tuple[Try, ...]
FailedAt = Mapping[str, datetime]
"""When each of a caller's failing identities last failed."""


def lock_s(failures: int) -> float:
    """How long the last of so many failures locks: nothing, then 30 s and twice as long each time, up to an hour."""
    doublings = failures - FREE_TRIES
    return 0.0 if doublings < 0 else min(LONGEST_LOCK_S, FIRST_LOCK_S * 2.0 ** min(doublings, 30))


def wait_for(tries: Tries, now: datetime) -> Wait | None:
    """Why another try may not begin, or None."""
    counted = remembered(tries, now)
    failures = [one for one in counted if _has_failed(one, now)]
    if failures:
        left_s = lock_s(len(failures)) - _age_s(max(one.at for one in failures), now)
        if left_s > 0:
            return Wait(left_s, len(failures))
    pending = len(counted) - len(failures)
    return Wait(BUSY_S, 0) if pending >= max(1, FREE_TRIES - len(failures)) else None


def begun(tries: Tries, try_id: str, now: datetime) -> Tries:
    """With one more, which is about to be made."""
    return (*remembered(tries, now), Try(try_id, now))


def failed(tries: Tries, try_id: str, now: datetime) -> Tries:
    """With this one known to have failed; it locks from now on."""
    return tuple(replace(one, at=now, failed=True) if one.id == try_id else one for one in tries)


def withdrawn(tries: Tries, try_id: str) -> Tries:
    """Without this one, which says nothing about the password."""
    return tuple(one for one in tries if one.id != try_id)


def remembered(tries: Tries, now: datetime) -> Tries:
    """Those that still count: none once a day has passed without a failure, and not more than matter."""
    ended = [one for one in tries if _has_failed(one, now)]
    if ended and _age_s(max(one.at for one in ended), now) >= FORGET_AFTER_S:
        ended = []
    return (*ended[-_KEPT:], *(one for one in tries if not _has_failed(one, now)))


def failing_now(failed_at: FailedAt, now: datetime) -> FailedAt:
    """The identities that failed within the hour."""
    return {identity: at for identity, at in failed_at.items() if now - at < _FAILING}


def next_identity_in_s(failed_at: FailedAt, identity: str, pending: int, cap: int, now: datetime) -> float:
    """How long until a caller may try ``identity``; 0 is now.

    ``failed_at`` tells which of his identities failed, and ``pending`` how many others are being tried.
    """
    others = sorted(at for name, at in failing_now(failed_at, now).items() if name != identity)
    if len(others) + pending < cap:
        return 0.0
    if len(others) < cap:
        return BUSY_S
    return (others[len(others) - cap] + _FAILING - now).total_seconds()


def _has_failed(one: Try, now: datetime) -> bool:
    return one.failed or _age_s(one.at, now) >= PENDING_S


def _age_s(at: datetime, now: datetime) -> float:
    return (now - at).total_seconds()
