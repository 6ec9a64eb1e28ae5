"""Whether a revision works at all, asked on its own address. Sends nothing that could reach a car."""

from collections.abc import Callable, Mapping

import httpx

_ATTEMPTS = 6
_PAUSE_S = 5.0


class SmokeFailed(Exception):
    """Something was not as it should be; the message says what."""


def check(url: str, headers: Mapping[str, str], pause: Callable[[float], None]) -> None:
    """Raises SmokeFailed. ``headers`` let us through Cloud Run's own door, and mean nothing to the service."""
    with httpx.Client(base_url=url, headers=dict(headers), timeout=20) as client:
        _wait_until_healthy(client, pause)
        described = _ask(client, "GET", "/openapi.json")
        if described.status_code != 200 or not str(described.json().get("openapi", "")).startswith("3."):
            raise SmokeFailed(f"/openapi.json answers {described.status_code}")
        refused = _ask(client, "POST", "/")
        if refused.status_code != 401:
            raise SmokeFailed(f"a request without a key is answered {refused.status_code} and not 401")


def _wait_until_healthy(client: httpx.Client, pause: Callable[[float], None]) -> None:
    said = ""
    for attempt in range(_ATTEMPTS):
        if attempt:
            pause(_PAUSE_S)
        try:
            answer = _ask(client, "GET", "/health")
            said = f"{answer.status_code} {answer.json().get('status')}"
        except (SmokeFailed, ValueError) as broken:
            said = str(broken)
            continue
        if said == "200 healthy":
            return
    raise SmokeFailed(f"/health is not healthy: {said}")


def _ask(client: httpx.Client, method: str, path: str) -> httpx.Response:
    try:
        return client.request(method, path, json={"action": "status"} if method == "POST" else None)
    except httpx.HTTPError as broken:
        raise SmokeFailed(f"no answer from {path}: {type(broken).__name__}") from broken
