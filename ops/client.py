"""The API as a client sees it, in a few lines of the standard library."""

import http.client
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Reply:
    """An answer: status, headers (lower-case names), parsed body, and how long it took, milliseconds."""

    status: int
    headers: Mapping[str, str]
    body: dict[str, Any]
    took_ms: float

    def at(self, path: str) -> Any:  # noqa: ANN401 - whatever JSON is there
        """What stands at a dotted path of the body; ``None`` where there is nothing."""
        value: Any = self.body
        for name in path.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        return value


class Client:
    """One connection to the API, kept open as a backend would."""

    def __init__(self, url: str, key: str | None = None, timeout_s: float = 70.0) -> None:
        """``key`` is an API key to send with each action."""
        self._key = {"X-API-Key": key} if key else {}
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=timeout_s)

    def post(self, request: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Reply:
        """Send one action."""
        headers = {"Content-Type": "application/json", **self._key, **(headers or {})}
        return self._exchange("POST", "/", json.dumps(request).encode(), headers)

    def get(self, path: str) -> Reply:
        """Read one of the service's pages."""
        return self._exchange("GET", path, None, {"Accept": "application/json"})

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _exchange(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Reply:
        began_s = time.perf_counter()
        self._connection.request(method, path, body, dict(headers))
        answer = self._connection.getresponse()
        content = answer.read()
        took_ms = (time.perf_counter() - began_s) * 1000
        named = {name.lower(): value for name, value in answer.getheaders()}
        return Reply(answer.status, named, _parsed(content), took_ms)


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        body = json.loads(content)
    except ValueError:
        body = None
    return body if isinstance(body, dict) else {"(not a JSON object)": content[:500].decode(errors="replace")}
