"""Harmless requests to both revisions, so that there is something to judge where nobody calls."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

import httpx

_TIMEOUT_S = 10.0
_AT_ONCE = 16


class Probes:
    """Asks ``/health`` of each URL. Cloud Monitoring counts the answers, so nobody here looks at them."""

    def __init__(self, urls: Sequence[str], headers: Mapping[str, str]) -> None:
        self._urls = urls
        self._headers = dict(headers)

    def __enter__(self) -> Self:
        self._pool = ThreadPoolExecutor(_AT_ONCE, "probe")
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def send(self) -> None:
        """One request to each URL, without waiting for it."""
        for url in self._urls:
            self._pool.submit(self._one, url)

    def _one(self, url: str) -> None:
        try:
            httpx.get(f"{url}/health", headers=self._headers, timeout=_TIMEOUT_S)
        except httpx.HTTPError:
            return
