"""What a plan makes of a read from a maker who rations requests: what is known, for how long, or why not. Pure."""

from collections.abc import Callable, Mapping
from typing import Final

from common.cache import Aged
from common.errors import ApiError, QuotaLimitExceeded, RateLimitExceeded, UpstreamError
from common.failure_memory import FailureKind, by_error_tree
from functions.providers.port import ReadPlan
from functions.snapshot import Snapshot

BRIEFLY_S: Final = 2.0
"""How long to hold what may be outdated at any moment."""
_REFUSALS: Final[Mapping[str, Callable[..., ApiError]]] = {
    "used_up": QuotaLimitExceeded,
    "failed": UpstreamError,
    "paced": RateLimitExceeded,
}
"""By why a plan asks nobody: what it is to whoever cannot be served with what is known."""


def refusal(plan: ReadPlan) -> ApiError:
    """For a caller who wants younger data than are known, of a plan that asks nobody."""
    return _REFUSALS[plan.because](plan.why, retry_after_s=plan.retry_after_s)


def as_planned(known: Snapshot, age_s: float, plan: ReadPlan, *, now_s: float, read_ttl_s: float) -> Aged[Snapshot]:
    """What is known, held in a cache of ``read_ttl_s`` no longer than until another request is worth it."""
    worth_it_in_s = plan.max_age_s - age_s
    early_s = max(0.0, read_ttl_s - worth_it_in_s) if worth_it_in_s > 0 else 0.0
    # What is streamed changes without our being told, unless instances share a channel.
    until_s = now_s + BRIEFLY_S if plan.source == "stream" else None
    return Aged(known, now_s - age_s, loaded=False, fresh_from=now_s - early_s, fresh_until=until_s)


def stands_in(failure: ApiError, max_age_s: float | None) -> bool:
    """Whether what is known is better than the maker's failure: for whoever names no age, while the maker is down."""
    return max_age_s is None and by_error_tree(failure) is FailureKind.OUTAGE


def instead(known: Snapshot, age_s: float, *, now_s: float) -> Aged[Snapshot]:
    """What is known in place of a read that has failed; whoever comes next tries anew, as the plan is then."""
    return Aged(known, now_s - age_s, loaded=False, fresh_until=now_s, stale=True)
