"""Failed loads, remembered briefly, so that what has just failed for one is not asked again for the next."""

import copy
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import Enum

from common.errors import NotFound, RequestError, Resolution

MAX_FAILURES = 1_024


class FailureKind(Enum):
    """What a failed load means for those who ask next."""

    ANSWER = "answer"
    """It is not there: remembered for ``negative_ttl_s``, and what was held is dropped."""
    OUTAGE = "outage"
    """The source has trouble: remembered for ``failure_ttl_s``, and a stale value may stand in."""
    PRIVATE = "private"
    """It concerns only those who waited for this load: never remembered, and nothing stands in."""


def by_error_tree(exc: Exception) -> FailureKind:
    """NotFound is an answer; the caller's own doing and refused credentials are private; all else is an outage."""
    if isinstance(exc, NotFound):
        return FailureKind.ANSWER
    if isinstance(exc, RequestError) or getattr(exc, "resolution", None) is Resolution.REAUTHENTICATE:
        return FailureKind.PRIVATE
    return FailureKind.OUTAGE


@dataclass(frozen=True, slots=True)
class Failure:
    """A load that failed. Times in monotonic seconds."""

    error: Exception
    kind: FailureKind
    at: float
    until: float


class FailureMemory:
    """The latest failure of each key, for as long as its kind is remembered; MAX_FAILURES keys. Not thread-safe."""

    def __init__(self, negative_ttl_s: float, failure_ttl_s: float) -> None:
        self._ttl_s = {FailureKind.ANSWER: negative_ttl_s, FailureKind.OUTAGE: failure_ttl_s, FailureKind.PRIVATE: 0.0}
        self._failures: OrderedDict[Hashable, Failure] = OrderedDict()

    def remember(self, key: Hashable, error: Exception, kind: FailureKind, now: float) -> None:
        """Keep a copy of ``error`` that holds on to no frames, where its kind is remembered at all."""
        self.forget(key)
        if self._ttl_s[kind] > 0:
            self._failures[key] = Failure(fresh_copy(error), kind, now, now + self._ttl_s[kind])
            if len(self._failures) > MAX_FAILURES:
                self._failures.popitem(last=False)

    def recall(self, key: Hashable, now: float, max_age_s: float | None) -> Failure | None:
        """The failure of ``key`` that is still remembered, and younger than ``max_age_s`` if given."""
        failure = self._failures.get(key)
        if failure is None or now >= failure.until:
            return None
        return failure if max_age_s is None or now - failure.at < max_age_s else None

    def forget(self, key: Hashable) -> None:
        """Let ``key`` be asked again."""
        self._failures.pop(key, None)

    def forget_where(self, matches: Callable[[Hashable], bool]) -> None:
        """The same for every key that ``matches``."""
        for key in [key for key in self._failures if matches(key)]:
            del self._failures[key]


def fresh_copy(error: Exception) -> Exception:
    """The same error without its traceback, which would grow with everybody who raises the one object."""
    try:
        return copy.copy(error)
    except Exception:  # noqa: BLE001 -- a constructor may ask for more than an exception remembers
        return error
