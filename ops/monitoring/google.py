"""Google's Logging and Monitoring APIs, as far as definitions are installed through them."""

from collections.abc import Callable, Mapping
from typing import Any

import httpx

GOOGLE = ("https://logging.googleapis.com", "https://monitoring.googleapis.com")
_PAUSE_S = 20.0
_PAUSES = 45
"""In all: a quarter of an hour, where ten minutes are what a new metric may take until others may name it."""


class NotInstalled(Exception):
    """Google refuses, or does not answer; the message says what and why."""


class Google:
    """Calls with an access token, some of them again."""

    def __init__(
        self,
        client: httpx.Client,
        token: Callable[[], str],
        *,
        pause: Callable[[float], None],
        say: Callable[[str], None],
        base_url: str | None = None,
    ) -> None:
        """``pause`` waits, seconds. ``base_url`` is another's than Google's, for both APIs."""
        self._client = client
        self._token = token
        self._pause = pause
        self._say = say
        self._logging, self._monitoring = (base_url, base_url) if base_url else GOOGLE
        self._pauses_left = _PAUSES
        self._headers: dict[str, str] = {}

    def get(self, path: str, **parameters: str) -> dict[str, Any] | None:
        """What is there; None where nothing is. Raises NotInstalled."""
        answer = self._call("GET", path, parameters, None)
        if answer.status_code == 404:
            return None
        return self._understood(answer, path)

    def put(self, method: str, path: str, body: Mapping[str, Any], **parameters: str) -> None:
        """Make or change something. Asked again while what it names is not to be found yet. Raises NotInstalled."""
        while (answer := self._call(method, path, parameters, body)).status_code == 404 and self._may_wait(answer):
            pass
        self._understood(answer, path)

    def _call(
        self, method: str, path: str, parameters: Mapping[str, str], body: Mapping[str, Any] | None
    ) -> httpx.Response:
        url = f"{self._logging if path.startswith('/v2/') else self._monitoring}{path}"
        while True:
            if not self._headers:
                self._headers = {"Authorization": f"Bearer {self._token()}"}
            try:
                answer = self._client.request(method, url, params=dict(parameters), json=body, headers=self._headers)
            except httpx.HTTPError as broken:
                raise NotInstalled(f"no answer from {url}: {type(broken).__name__}") from broken
            if answer.status_code != 429 and answer.status_code < 500:
                return answer
            if not self._may_wait(answer):
                raise NotInstalled(f"{path}: {_reason(answer)}")

    def _may_wait(self, answer: httpx.Response) -> bool:
        if self._pauses_left == 0:
            return False
        self._pauses_left -= 1
        self._say(f"again in {_PAUSE_S:.0f} s: {_reason(answer)}")
        self._pause(_PAUSE_S)
        self._headers = {}  # a token may end while we wait
        return True

    def _understood(self, answer: httpx.Response, path: str) -> dict[str, Any]:
        if not answer.is_success:
            raise NotInstalled(f"{path}: {_reason(answer)}")
        found: dict[str, Any] = answer.json()
        return found


def _reason(answer: httpx.Response) -> str:
    try:
        return f"{answer.status_code} {answer.json()['error']['message']}"
    except (ValueError, KeyError, TypeError):
        return f"{answer.status_code} {answer.text[:200]}"
