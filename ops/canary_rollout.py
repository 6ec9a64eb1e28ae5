"""Moves a service's traffic to a new revision step by step, or takes all of it back.

It only says which revision gets *new* requests. A request that was already handed to a revision is answered by it, and
nothing here sends, repeats or forwards a caller's request: a command in flight stays where it is. A caller who sends
the same command again with its Idempotency-Key may meet the other revision; both share one ledger, which knows the key.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from common.clock import Clock
from ops.canary_gcloud import CANARY_TAG, GcloudFailed, ServiceState, Traffic
from ops.canary_settings import Plan
from ops.canary_verdict import Figures, Kind, Probed, Probing, Window, judge

_BACK_ATTEMPTS = 6
_BACK_PAUSE_S = 10.0


class Refused(Exception):
    """There is nothing to roll out, or somebody else is at it; nothing was changed."""


class SplitLeft(Exception):
    """The traffic could not be taken back; the message holds the command that does it."""


class Measure(Protocol):
    """Where figures come from."""

    def figures(self, start: datetime, end: datetime) -> dict[str, Figures]:
        """By revision. Raises where there are none to be had."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended."""

    promoted: bool
    reason: str
    windows: int = 0
    """How many were looked at, over all steps."""


class Rollout:
    """One roll-out. ``pause`` waits so many seconds, and may raise to end it all; ``rest`` waits and never does."""

    def __init__(  # noqa: PLR0913 - collaborators, each by its name
        self,
        *,
        plan: Plan,
        traffic: Traffic,
        measure: Measure,
        probed: Callable[[], Mapping[str, Probed]],
        smoke: Callable[[str], None],
        guard: Callable[[str], Callable[[], None]],
        clock: Clock,
        pause: Callable[[float], None],
        rest: Callable[[float], None],
        say: Callable[[str], None],
    ) -> None:
        """``probed`` says how the canary's own requests were answered so far, by revision.

        ``smoke`` tries the revision at a URL and raises where it fails.

        ``guard`` watches over the traffic, which belongs to the given revision should this process die, and returns
        what dismisses it.
        """
        self._plan = plan
        self._traffic = traffic
        self._measure = measure
        self._probed = probed
        self._smoke = smoke
        self._guard = guard
        self._clock = clock
        self._pause = pause
        self._rest = rest
        self._say = say
        self._windows = 0

    def run(self) -> Outcome:
        """Roll out. Raises Refused before anything was changed, SplitLeft where the way back failed too.

        Whatever else goes wrong, the traffic is back where it was, and the outcome says why; what is no Exception (an
        interruption) is raised again afterwards.
        """
        state = self._traffic.read()
        canary = state.tags.get(CANARY_TAG)
        if canary is None:
            raise Refused(f"no revision of {self._plan.service} has the tag `{CANARY_TAG}`: deploy one with --canary")
        if state.percents == {canary: 100}:
            return self._alone(state, canary)
        others = [revision for revision in state.percents if revision != canary]
        if len(others) != 1:
            raise Refused(f"{len(others)} other revisions get traffic: promote one or roll back to one first")
        return self._guarded(state, others[0], canary)

    def _alone(self, state: ServiceState, canary: str) -> Outcome:
        try:
            self._smoke(state.tag_urls[CANARY_TAG])
        except Exception as failure:  # noqa: BLE001 - whatever it is, there is no other revision to go back to
            return Outcome(promoted=False, reason=f"{canary} is the only revision, and fails: {failure}")
        return Outcome(promoted=True, reason=f"{canary} has all traffic already, and nothing to be compared with")

    def _guarded(self, state: ServiceState, stable: str, canary: str) -> Outcome:
        dismiss = self._guard(stable)
        try:
            self._say(f"{canary} against {stable}: smoke test")
            self._smoke(state.tag_urls[CANARY_TAG])
            bad = self._steps(stable, canary)
        except Exception as failure:  # noqa: BLE001 - whatever went wrong, the old revision is the one known to work
            bad = f"{type(failure).__name__}: {failure}"
        except BaseException:
            self._go_back(stable, "interrupted")
            dismiss()
            raise
        if bad is not None:
            self._go_back(stable, bad)
        dismiss()
        if bad is not None:
            return Outcome(promoted=False, reason=bad, windows=self._windows)
        return Outcome(promoted=True, reason=f"{canary} has all traffic", windows=self._windows)

    def _steps(self, stable: str, canary: str) -> str | None:
        """What is wrong with the new revision; None where it has all traffic and nothing is."""
        for percent in self._plan.steps_percent:
            before = self._clock.utc()
            shares = {canary: percent} if percent == 100 else {stable: 100 - percent, canary: percent}
            self._traffic.split(shares)
            self._say(f"{percent} % to {canary}")
            bad = self._observe(stable, canary, before if percent == 100 else None)
            if bad is not None:
                return bad
        return None

    def _observe(self, stable: str, canary: str, all_since: datetime | None) -> str | None:
        """Watch one step. From ``all_since`` on the old revision has no traffic: it is judged by what it did before."""
        length = timedelta(seconds=self._plan.window_s)
        settle = timedelta(seconds=self._plan.settle_s)
        baseline = None
        if all_since is not None:
            until = _whole_second(all_since) - settle
            baseline = self._measure.figures(until - length, until).get(stable, Figures())
        start = _whole_second(self._clock.utc())
        probed_before = self._probed()
        windows: list[Window] = []
        while True:
            end = start + length
            self._pause(max(0.0, (end + settle - self._clock.utc()).total_seconds()))
            seen = self._measure.figures(start, end)
            stable_seen = seen.get(stable, Figures()) if baseline is None else baseline
            windows.append(Window(stable_seen, seen.get(canary, Figures())))
            self._windows += 1
            probing = _probing(stable, canary, probed_before, self._probed())
            verdict = judge(windows, self._plan.rules, probing)
            self._say(f"window {len(windows)}: {verdict.reason}")
            if verdict.kind is not Kind.WAIT:
                return verdict.reason if verdict.kind is Kind.BAD else None
            start = end

    def _go_back(self, stable: str, why: str) -> None:
        self._say(f"back to {stable}: {why}")
        go_back(self._traffic, stable, self._rest, self._say)


def go_back(traffic: Traffic, stable: str, rest: Callable[[float], None], say: Callable[[str], None]) -> None:
    """Give all traffic to ``stable`` and see that it has it. Doing it twice changes nothing. Raises SplitLeft."""
    for attempt in range(_BACK_ATTEMPTS):
        if attempt:
            rest(_BACK_PAUSE_S)
        try:
            traffic.back_to(stable)
            if traffic.read().percents == {stable: 100}:
                return
        except GcloudFailed as failure:
            say(f"not back yet: {failure}")
    raise SplitLeft(f"the traffic may still be split: gcloud {' '.join(traffic.back_command(stable))}")


def _probing(stable: str, canary: str, before: Mapping[str, Probed], now: Mapping[str, Probed]) -> Probing:
    def of(revision: str) -> Probed:
        return now.get(revision, Probed()).since(before.get(revision, Probed()))

    return Probing(of(stable), of(canary))


def _whole_second(at: datetime) -> datetime:
    return at.replace(microsecond=0)
