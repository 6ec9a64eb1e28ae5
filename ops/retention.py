"""What leaves the document store by itself, and when: one table for buckets and for SQLite files. Pure.

A bucket goes by its rules, which :mod:`ops.lifecycle` makes of this table: there a document's age is the time since it
was last written. Where nothing follows rules :mod:`ops.sweep` goes by the latest moment that the document itself names.
Either way ``days`` must be far longer than the service reads the document after writing it for the last time.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from common.stores.documents import Body
from functions.command_slot import SLOT_S
from functions.idempotency import KEY_TTL_S
from functions.lockout import FORGET_AFTER_S
from functions.step_up import CODE_TTL_S

Moments = Callable[[Body], Iterable[str]]

_SHORT_DAYS: Final = 7
_HOUR_S: Final = 3_600.0
_DAY_S: Final = 86_400.0

OLD_VERSIONS_DAYS: Final = 30
"""How long a bucket keeps what was replaced or deleted."""


@dataclass(frozen=True, slots=True)
class Swept:
    """A collection whose documents leave."""

    collection: str
    needed_s: float
    """Longer after its last write, or after the latest moment that it names, the service has no use for a document."""
    days: int
    """Then it leaves."""
    moments: Moments
    """The moments that tell how old a body is, ISO 8601; raises what a body of another form makes it raise."""

    def last_moment(self, body: Body) -> datetime | None:
        """The latest of the moments; None where the body names none."""
        try:
            # A day without a time is a CarData quota's, which is BMW's and hence UTC.
            found = [datetime.fromisoformat(moment) for moment in self.moments(body)]
        except (KeyError, TypeError, ValueError, AttributeError):
            return None
        return max((moment.replace(tzinfo=moment.tzinfo or UTC) for moment in found), default=None)

    def has_ended(self, body: Body, now: datetime) -> bool:
        """Whether it is to leave by ``now``; never where it does not say when it was written."""
        last = self.last_moment(body)
        return last is not None and (now - last).total_seconds() >= self.days * _DAY_S


def _fields(*names: str) -> Moments:
    return lambda body: [body[name] for name in names]


def _tries(body: Body) -> Iterable[str]:
    """Of an identity, or of a caller whose logins fail for many of them."""
    return body["failed_at"].values() if "failed_at" in body else [one["at"] for one in body["tries"]]


SWEPT: Final = (
    Swept("caps", _HOUR_S, _SHORT_DAYS, lambda body: body["sent_at"]),
    Swept("claims", KEY_TTL_S, _SHORT_DAYS, _fields("claimed_at")),
    Swept("confirmations", CODE_TTL_S, _SHORT_DAYS, _fields("until")),
    # As long as the maker says: CarData five minutes.
    Swept("connects", _HOUR_S, _SHORT_DAYS, _fields("expires_at", "next_poll_at")),
    Swept("lockouts", FORGET_AFTER_S, _SHORT_DAYS, _tries),
    # The day's last minute counts on the next day, too.
    Swept("quota", 2 * _DAY_S, _SHORT_DAYS, _fields("day")),
    Swept("slots", SLOT_S, _SHORT_DAYS, _fields("until")),
    Swept("stream_workers", 2 * _HOUR_S, _SHORT_DAYS, _fields("until")),
    # Longer than any claim: one without its command counts as abandoned, and the command would be sent again.
    Swept("commands", KEY_TTL_S, 400, _fields("updated_at")),
)

_WITH_THE_ACCOUNT: Final = "until the account is disconnected"
KEPT: Final[Mapping[str, str]] = {
    "apikeys": "for ever, the revoked and ended ones too",
    "audit": "for ever",
    **dict.fromkeys(("cardata", "identities", "links", "signals", "streams", "tokens"), _WITH_THE_ACCOUNT),
    # A lease that holds is not written again: its age would say nothing.
    "stream_owners": "until the customer's last account is disconnected",
}
"""The collections of ``DOCUMENTS_URL`` in which nothing leaves by its age, and what ends a document instead."""
KEPT_KEYS: Final[Mapping[str, str]] = {"keys": _WITH_THE_ACCOUNT}
"""The same of ``KEYS_URL``."""
