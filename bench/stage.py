"""What a scenario is given to work with."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from bench.contestants import Contestant, Stable
from bench.load import Generator, PythonGenerator, fastest
from bench.outcome import Outcome
from bench.plan import Plan
from bench.upstream import Tokens, Upstream, simulated

THREADS = 32
"""Of every contestant: what we deploy with, and more than the framework's default of four a core."""
FRESH_ACCOUNTS = 32


@dataclass
class Stage:
    """The simulated maker, the contestants (each started when first asked for) and the generators."""

    plan: Plan
    upstream: Upstream
    stable: Stable
    quick_replies: Generator
    slow_replies: PythonGenerator

    @cached_property
    def tokens(self) -> Tokens:
        """Of an account with one electric car, for the naive wrapper and for the harness itself."""
        return self.upstream.issue_tokens("one@example.com")

    @cached_property
    def cached(self) -> Contestant:
        """Ours, from the cache."""
        return self.stable.cached()

    @cached_property
    def fresh(self) -> Contestant:
        """Ours, from the maker."""
        return self.stable.fresh(FRESH_ACCOUNTS)

    @cached_property
    def empty(self) -> Contestant:
        """The empty function, with the reply of :attr:`cached`."""
        headers = self.cached.server.headers
        return self.stable.empty(reply=self.cached.warm(), body=self.cached.bodies[0], headers=headers)

    @cached_property
    def empty_patient(self) -> Contestant:
        """The empty function under our worker."""
        headers = self.cached.server.headers
        return self.stable.empty_patient(reply=self.cached.warm(), body=self.cached.bodies[0], headers=headers)

    @cached_property
    def naive(self) -> Contestant:
        """The naive wrapper, asked with the request of :attr:`cached`."""
        return self.stable.naive(self.tokens, body=self.cached.bodies[0])

    def say(self, text: str) -> None:
        """Tell whoever watches how far it is."""
        print(f"  {text}", flush=True)


class Scenario(Protocol):
    """One file in `bench/scenarios`."""

    name: str

    def run(self, stage: Stage) -> Outcome:
        """Measure, and hand back what was found."""
        ...


@contextmanager
def set_up(plan: Plan) -> Iterator[Stage]:
    """A stage, taken down at the end with every process that was started on it."""
    with TemporaryDirectory(prefix="bench-") as folder, simulated() as upstream:
        stable = Stable(upstream, Path(folder), THREADS)
        try:
            yield Stage(plan, upstream, stable, fastest(), PythonGenerator())
        finally:
            stable.close()


def load_average() -> float:
    """Processes that want a core, averaged over a minute."""
    return os.getloadavg()[0]
