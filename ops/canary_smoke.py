"""Whether a revision works at all, asked on its own address. Sends nothing that could reach a car."""

from collections.abc import Callable, Mapping

import httpx

from ops.canary_question import Question

_ATTEMPTS = 6
_PAUSE_S = 5.0


class SmokeFailed(Exception):
    """Something was not as it should be; the message says what."""


def check(
    url: str, headers: Mapping[str, str], pause: Callable[[float], None], question: Question | None = None
) -> None:
    """Raises SmokeFailed. ``headers`` let us through Cloud Run's own door, and mean nothing to the service.

    ``question`` is the canary's, asked with its key where it has one.
    """
    with httpx.Client(base_url=url, headers=dict(headers), timeout=20) as client:
        _wait_until_healthy(client, pause)
        described = _ask(client, "/openapi.json")
        if described.status_code != 200 or not str(described.json().get("openapi", "")).startswith("3."):
            raise SmokeFailed(f"/openapi.json answers {described.status_code}")
        stranger = Question()
        refused = _put(stranger, client, url)
        if not stranger.is_answered_well(refused):
            raise SmokeFailed(f"a request without a key is answered {refused.status_code}, and not the contract's 401")
        if question is not None and question.key is not None:
            answered = _put(question, client, url)
            if not question.is_answered_well(answered):
                raise SmokeFailed(f"a request with the canary's key is answered {answered.status_code}")


def _wait_until_healthy(client: httpx.Client, pause: Callable[[float], None]) -> None:
    said = ""
    for attempt in range(_ATTEMPTS):
        if attempt:
            pause(_PAUSE_S)
        try:
            answer = _ask(client, "/health")
            said = f"{answer.status_code} {answer.json().get('status')}"
        except (SmokeFailed, ValueError) as broken:
            said = str(broken)
            continue
        if said == "200 healthy":
            return
    raise SmokeFailed(f"/health is not healthy: {said}")


def _ask(client: httpx.Client, path: str) -> httpx.Response:
    try:
        return client.get(path)
    except httpx.HTTPError as broken:
        raise SmokeFailed(f"no answer from {path}: {type(broken).__name__}") from broken


def _put(question: Question, client: httpx.Client, url: str) -> httpx.Response:
    try:
        return question.ask(client, url)
    except httpx.HTTPError as broken:
        raise SmokeFailed(f"no answer to a request: {type(broken).__name__}") from broken
