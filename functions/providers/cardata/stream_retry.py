"""When to try again after a connection to the stream has ended. Pure.

BMW asks for at least 10 s between two connections and for a back-off from 5 to 300 s. It allows one connection a
customer: a second one evicts the first. So if the owner runs another client, each of our returns would throw that one
out, and it would throw us out again: after a second eviction we stay away longer, and longer each time. The first may
be an accident.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

LEAST_S: Final = 10.0
_FIRST_S: Final = 5.0
_MOST_S: Final = 300.0
_FIRST_AFTER_EVICTION_S: Final = 60.0
_MOST_AFTER_EVICTION_S: Final = 3600.0
_STABLE_S: Final = 60.0
"""A connection that lived so long has worked: the next failure is the first again."""
_UNDISTURBED_S: Final = 600.0
"""The same for evictions."""
FIGHT_FROM: Final = 3
"""So many evictions in a row are no accident: somebody else uses this customer's stream."""


class Ending(StrEnum):
    """Why there is no connection (any more)."""

    LOST = "lost"
    """The network, or the broker's own reasons."""
    EXPIRED = "expired"
    """The ID token ended."""
    EVICTED = "evicted"
    """Another client has connected as this customer."""
    REFUSED = "refused"
    """The broker does not take the ID token."""
    NOT_SUBSCRIBED = "not_subscribed"
    """The customer has not subscribed the client to the stream, or has taken that back."""
    NO_TOKENS = "no_tokens"
    """No fresh tokens can be had at the moment."""
    RELINK_REQUIRED = "relink_required"
    """The link is dead: nothing helps but the owner."""


@dataclass(frozen=True, slots=True)
class Failures:
    """How often in a row it has failed."""

    count: int = 0
    evictions: int = 0

    def after(self, ending: Ending, lived_s: float) -> "Failures":
        """One more, of a connection that had lived ``lived_s``: 0 for one that was never made."""
        count = 1 if lived_s >= _STABLE_S else self.count + 1
        evictions = 0 if lived_s >= _UNDISTURBED_S else self.evictions
        return Failures(count, evictions + (ending is Ending.EVICTED))

    def wait_s(self, ending: Ending, spread: float) -> float:
        """How long to stay away; ``spread`` from 0 to 1 keeps many customers from coming back at once."""
        match ending:
            case Ending.EVICTED if self.evictions > 1:
                most = min(_MOST_AFTER_EVICTION_S, _FIRST_AFTER_EVICTION_S * 2.0 ** min(self.evictions - 1, 10))
            case Ending.RELINK_REQUIRED | Ending.NOT_SUBSCRIBED:
                most = _MOST_S
            case _:
                most = min(_MOST_S, max(1.5 * LEAST_S, _FIRST_S * 2.0 ** min(self.count, 10)))
        least = max(LEAST_S, most / 2)
        return least + spread * (most - least)

    @property
    def is_fight(self) -> bool:
        """Whether another client keeps coming back."""
        return self.evictions >= FIGHT_FROM
