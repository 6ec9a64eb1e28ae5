"""Questions to both revisions, all the time, on their own addresses: they show one that fails where nobody calls.

Their answers are looked at here, and counted apart: they must not be taken for callers' requests, which a revision may
fail while it answers these.
"""

import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Self

import httpx

from ops.canary_question import Question
from ops.canary_verdict import Probed

_TIMEOUT_S = 10.0
_AT_ONCE = 16


class Probes:
    """Asks each revision's address the question, on threads of its own."""

    def __init__(self, urls: Mapping[str, str], headers: Mapping[str, str], question: Question) -> None:
        """``urls`` by revision; ``headers`` let us through Cloud Run's own door."""
        self._urls = urls
        self._headers = dict(headers)
        self._question = question
        self._counts = {revision: Probed() for revision in urls}
        self._counting = threading.Lock()
        self._asked: set[Future[None]] = set()

    def __enter__(self) -> Self:
        self._pool = ThreadPoolExecutor(_AT_ONCE, "probe")
        self._client = httpx.Client(headers=self._headers, timeout=_TIMEOUT_S)
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._client.close()

    def send(self) -> None:
        """One question to each revision, without waiting for the answers."""
        self._asked = {asked for asked in self._asked if not asked.done()}
        self._asked |= {self._pool.submit(self._one, *of) for of in self._urls.items()}

    def wait(self) -> None:
        """Until everything that was sent is answered, or has failed."""
        wait(self._asked)

    def counts(self) -> dict[str, Probed]:
        """By revision, since the beginning."""
        with self._counting:
            return dict(self._counts)

    def _one(self, revision: str, url: str) -> None:
        try:
            well = self._question.is_answered_well(self._question.ask(self._client, url))
        except httpx.HTTPError:
            well = False
        with self._counting:
            before = self._counts[revision]
            self._counts[revision] = Probed(before.sent + 1, before.failed + (not well))
