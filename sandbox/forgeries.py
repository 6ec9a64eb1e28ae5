"""Tokens that must never be accepted: a table of kinds, each with unlimited variants."""

import random
from collections.abc import Iterator, Mapping
from itertools import cycle
from typing import Final

from sandbox import forgery_holders, forgery_insiders, forgery_outsiders
from sandbox.forgery_target import Forger, Target

KINDS: Final[Mapping[str, Forger]] = {
    **forgery_outsiders.FORGERS,
    **forgery_holders.FORGERS,
    **forgery_insiders.FORGERS,
}
"""By name."""


def forged(target: Target, seed: int) -> Iterator[tuple[str, str]]:
    """Kind and token, each kind in turn, for ever; the variants depend on ``seed`` only."""
    rng = random.Random(seed)
    for kind, forger in cycle(KINDS.items()):
        yield kind, forger(target, rng)
