"""Whether a new revision does as well as the old one. Pure: figures in, verdict out.

Errors and refusals are compared by Fisher's exact test, one-sided: only *worse* counts, and what befalls both revisions
alike (the maker is down) does not. A difference must be both unlikely to be chance and large enough to matter.
Latency has no such test from a percentile alone, so it counts only where two windows in a row show it.

Only callers' requests prove a revision good. The canary's own (probes) can show that it is bad; that it is good they
show only where there are too few others and the rules say so.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from math import exp, lgamma


@dataclass(frozen=True, slots=True)
class Figures:
    """What one revision did in a window. Callers' requests only, but for ``answered``."""

    requests: int = 0
    errors: int = 0
    """Answered 5xx but 501, by the service or in its place."""
    refused: int = 0
    """Answered 4xx."""
    p95_ms: float | None = None
    """Of successful reads; None without any."""
    answered: int = 0
    """Everything that the platform counted, probes and pages too: 0 where figures are missing."""


@dataclass(frozen=True, slots=True)
class Probed:
    """The canary's own requests to one revision."""

    sent: int = 0
    failed: int = 0
    """Not answered, or not as they must be."""

    def since(self, earlier: "Probed") -> "Probed":
        """Those after ``earlier``."""
        return Probed(self.sent - earlier.sent, self.failed - earlier.failed)


@dataclass(frozen=True, slots=True)
class Window:
    """Both revisions in the same time."""

    stable: Figures
    canary: Figures


@dataclass(frozen=True, slots=True)
class Probing:
    """The probes of both revisions since a step began."""

    stable: Probed = Probed()
    canary: Probed = Probed()


@dataclass(frozen=True, slots=True)
class Rules:
    """When a revision is worse."""

    windows: int = 2
    """Judged good after this many at the earliest."""
    max_windows: int = 3
    """Judged after this many at the latest: with too few requests by then ``probes_prove`` decides."""
    min_requests: int = 100
    """Fewer requests of callers to the new revision, over all windows, prove nothing good."""
    probes_prove: bool = False
    """With too few requests: good if as many probes were answered as they must be. Otherwise bad."""
    chance: float = 0.01
    """A difference that chance makes more often than this is none."""
    error_floor: float = 0.01
    """A smaller increase of the share of errors is left to the alerts."""
    refused_floor: float = 0.05
    """The same for refusals, which depend on what callers send."""
    slower_times: float = 1.5
    slower_by_ms: float = 100.0
    """p95 counts as slower where it is so by both."""


class Kind(Enum):
    """What to do now."""

    WAIT = "wait"
    GOOD = "good"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A verdict and its reason, for people."""

    kind: Kind
    reason: str


def judge(windows: Sequence[Window], rules: Rules, probing: Probing = Probing()) -> Verdict:
    """The verdict on a step, after each of its windows; the last one is the newest."""
    stable, canary = _total([w.stable for w in windows]), _total([w.canary for w in windows])
    bad = (
        _worse(windows[-1].stable, windows[-1].canary, rules)
        or _worse(stable, canary, rules)
        or _worse_probed(probing, rules)
        or _slower_twice(windows, rules)
    )
    if bad is not None:
        return Verdict(Kind.BAD, bad)
    if len(windows) < rules.windows:
        return Verdict(Kind.WAIT, "so far as good")
    for name, figures in (("old", stable), ("new", canary)):
        if figures.requests == figures.answered == 0:
            return Verdict(Kind.BAD, f"no figures of the {name} revision in {len(windows)} windows")
    if canary.requests >= rules.min_requests and stable.requests > 0:
        return Verdict(Kind.GOOD, f"as good: {_rates(stable, canary)}")
    few = (
        f"{canary.requests} requests of callers to the new revision, {stable.requests} to the old one, "
        f"are too few to judge it by ({rules.min_requests})"
    )
    if len(windows) < rules.max_windows:
        return Verdict(Kind.WAIT, few)
    return _by_probes(probing.canary, rules, few)


def _by_probes(probed: Probed, rules: Rules, few: str) -> Verdict:
    if not rules.probes_prove:
        return Verdict(Kind.BAD, few)
    well = f"{probed.sent - probed.failed} of {probed.sent} probes were answered as they must be"
    enough = probed.sent - probed.failed >= rules.min_requests and probed.failed <= rules.error_floor * probed.sent
    return Verdict(Kind.GOOD if enough else Kind.BAD, f"{few}; {well}")


def chance_of(stable_hits: int, stable: int, canary_hits: int, canary: int) -> float:
    """How likely the canary gets at least so many of all hits by chance: Fisher's exact test, one-sided."""
    hits, everybody = stable_hits + canary_hits, stable + canary
    most = min(hits, canary)
    ways = _log_choose(everybody, hits)
    return sum(
        exp(_log_choose(canary, k) + _log_choose(stable, hits - k) - ways)
        for k in range(canary_hits, most + 1)
        if hits - k <= stable
    )


def _worse(stable: Figures, canary: Figures, rules: Rules) -> str | None:
    kinds = (
        ("errors", stable.errors, canary.errors, rules.error_floor),
        ("refusals", stable.refused, canary.refused, rules.refused_floor),
    )
    if stable.requests == 0 or canary.requests == 0:
        return None
    for name, before, now, floor in kinds:
        increase = now / canary.requests - before / stable.requests
        if increase >= floor and chance_of(before, stable.requests, now, canary.requests) < rules.chance:
            return f"more {name}: {now} of {canary.requests}, before {before} of {stable.requests}"
    return None


def _worse_probed(probing: Probing, rules: Rules) -> str | None:
    stable, canary = (Figures(of.sent, of.failed) for of in (probing.stable, probing.canary))
    worse = _worse(stable, canary, rules)
    return None if worse is None else f"probes: {worse}"


def _slower_twice(windows: Sequence[Window], rules: Rules) -> str | None:
    if len(windows) < 2 or not all(_slower(window, rules) for window in windows[-2:]):
        return None
    last = windows[-1]
    return f"slower: p95 {last.canary.p95_ms:.0f} ms, before {last.stable.p95_ms:.0f} ms"


def _slower(window: Window, rules: Rules) -> bool:
    before_ms, now_ms = window.stable.p95_ms, window.canary.p95_ms
    if before_ms is None or now_ms is None:
        return False
    return now_ms > before_ms * rules.slower_times and now_ms > before_ms + rules.slower_by_ms


def _total(figures: Sequence[Figures]) -> Figures:
    return Figures(
        sum(f.requests for f in figures),
        sum(f.errors for f in figures),
        sum(f.refused for f in figures),
        answered=sum(f.answered for f in figures),
    )


def _rates(stable: Figures, canary: Figures) -> str:
    return f"{canary.errors} errors of {canary.requests}, before {stable.errors} of {stable.requests}"


def _log_choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)
