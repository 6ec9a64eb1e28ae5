"""A refresh token on its way to the maker, and what it means that no answer comes.

A refresh token works once. While nothing has left, nothing has happened; when it has, only an answer tells whether the
maker has traded the token in, and to show it once more could kill all that descend from it.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

from common.errors import ApiError
from functions.providers.pool import LEAVES
from functions.tokens import ANSWER_WITHIN_S, RenewalInDoubt

_NO_ANSWER: Final = frozenset({502, 504})
"""What a gateway says that has heard nothing itself."""


class Trade:
    """One renewal. ``patience_s`` is how long to wait for its answer."""

    def __init__(self, patience_s: float = ANSWER_WITHIN_S) -> None:
        self.patience_s = patience_s
        self.in_doubt = False
        """Whether the maker may have traded the token in, as far as the wire tells."""

    async def trace(self, event: str, _info: Mapping[str, Any]) -> None:
        """For the ``trace`` extension of httpcore, which tells before the first byte of a request is written."""
        if event == LEAVES:
            self.in_doubt = True

    def answered(self, status: int) -> None:
        """The maker has answered. A success that cannot be read leaves it in doubt."""
        if status >= 300 and status not in _NO_ANSWER:
            self.in_doubt = False

    @contextlib.contextmanager
    def judged(self) -> Iterator[None]:
        """Around the renewal: a failure in doubt leaves as RenewalInDoubt, any other as it is."""
        try:
            yield
        except ApiError as error:
            if not self.in_doubt:
                raise
            failure = error
        else:
            return
        raise RenewalInDoubt(failure) from failure.__cause__
