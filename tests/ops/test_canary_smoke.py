"""Tests of the smoke test on a revision's own address."""

from typing import Any

import pytest

from ops.canary_question import Question
from ops.canary_smoke import SmokeFailed, check
from ops.stack import Stack
from tests.support.scripted_service import WELL, Answers, scripted_service


def test_the_service_itself_passes_at_once(stack: Stack) -> None:
    pauses: list[float] = []
    check(stack.api_url, {"X-Serverless-Authorization": "Bearer t"}, pauses.append)
    assert pauses == []


@pytest.mark.parametrize(
    ("request_line", "answer", "problem"),
    [
        ("GET /health", (503, {"status": "unhealthy"}), "not healthy: 503 unhealthy"),
        ("GET /health", (200, {"status": "degraded"}), "not healthy: 200 degraded"),
        ("GET /openapi.json", (404, {}), "/openapi.json answers 404"),
        ("GET /openapi.json", (200, {"openapi": "2"}), "/openapi.json answers 200"),
        ("POST /", (200, {}), "a request without a key is answered 200, and not the contract's 401"),
        ("POST /", (401, {"error": "no"}), "a request without a key is answered 401, and not the contract's 401"),
        ("POST /", (401, ["no"]), "a request without a key is answered 401, and not the contract's 401"),
    ],
)
def test_a_service_that_answers_wrongly_fails(request_line: str, answer: tuple[int, Any], problem: str) -> None:
    with scripted_service({**WELL, request_line: answer}) as url, pytest.raises(SmokeFailed, match=problem):
        check(url, {}, lambda _seconds: None)


def test_with_a_key_the_way_of_every_request_is_gone(stack: Stack) -> None:
    check(stack.api_url, {}, lambda _seconds: None, Question(stack.key))


def test_a_service_that_fails_whoever_has_a_key_fails() -> None:
    # As everybody else is answered here, so is the holder of the key.
    with (
        scripted_service({**WELL}) as url,
        pytest.raises(SmokeFailed, match="a request with the canary's key is answered 401"),
    ):
        check(url, {}, lambda _seconds: None, Question("a key"))


def test_a_service_that_becomes_healthy_in_time_passes() -> None:
    answers: Answers = {**WELL, "GET /health": (503, {})}

    def pause(seconds: float) -> None:
        assert seconds == 5
        answers["GET /health"] = WELL["GET /health"]

    with scripted_service(answers) as url:
        check(url, {}, pause)


def test_a_service_that_is_not_there_is_asked_for_half_a_minute_and_fails() -> None:
    pauses: list[float] = []
    with pytest.raises(SmokeFailed, match="no answer from /health: ConnectError"):
        check("http://127.0.0.1:1", {}, pauses.append)
    assert sum(pauses) == 25
