"""The OpenAPI document against the server that gives it out, and bytes that no document allows."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case
from schemathesis import checks as known
from schemathesis.generation import GenerationMode

from common.errors import BY_CODE
from functions import openapi
from scorecard.fuzzing import Target
from scorecard.hostile import Judge, attempts
from scorecard.service import Deployment, deployed

CONFORMANCE = (
    known.status_code_conformance,
    known.content_type_conformance,
    known.response_headers_conformance,
    known.response_schema_conformance,
)
SHARE = 0.03
"""Of the scorecard's ten thousand requests."""


@pytest.fixture(scope="module")
def service() -> Iterator[Deployment]:
    with deployed(1) as running:
        yield running


DOCUMENT = schemathesis.openapi.from_dict(json.loads(json.dumps(openapi.document())))


def test_the_server_gives_out_the_document_that_it_is_tested_against(service: Deployment) -> None:
    given_out = httpx.get(f"http://127.0.0.1:{service.instances[0].port}/openapi.json", trust_env=False)
    assert given_out.json() == DOCUMENT.raw_schema


@pytest.mark.parametrize(
    ("path", "method", "mode", "examples"),
    [
        ("/", "POST", GenerationMode.POSITIVE, 150),
        ("/", "POST", GenerationMode.NEGATIVE, 150),
        ("/health", "GET", GenerationMode.POSITIVE, 5),
        ("/metrics", "GET", GenerationMode.POSITIVE, 5),
        ("/openapi.json", "GET", GenerationMode.POSITIVE, 5),
    ],
)
def test_every_reply_is_one_that_the_document_describes(
    service: Deployment, path: str, method: str, mode: GenerationMode, examples: int
) -> None:
    instance = service.instances[0]
    invalid = 0

    # The same requests each time: the scorecard's row 24 is the one that looks for new ones.
    @settings(max_examples=examples, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=DOCUMENT[path][method].as_strategy(generation_mode=mode))
    def send(case: Case[Any]) -> None:
        answered = case.call(
            base_url=f"http://127.0.0.1:{instance.port}", headers={"X-API-Key": instance.key}, timeout=20
        )
        case.validate_response(answered, checks=[*CONFORMANCE])
        if answered.status_code >= 500:
            assert BY_CODE[answered.json()["error"]["code"]].status == answered.status_code != 500
        nonlocal invalid
        invalid += answered.status_code == 400 and answered.json()["error"]["code"] == "VALIDATION_ERROR"

    send()
    # What the document calls wrong is refused, and what it calls right gets past the door often enough.
    assert invalid >= examples // 2 if mode is GenerationMode.NEGATIVE else invalid <= examples * 0.9


def test_no_bytes_break_the_server_or_command_a_car(service: Deployment) -> None:
    instance = service.instances[0]
    account = service.connect("one@example.com", "fuzz")
    instance.post(action="status", account=account)
    service.maker.zero_stats()
    judge = Judge()
    for attempt in attempts(Target(instance.key, account), SHARE):
        statuses = judge.answer(attempt, instance.port)
        assert attempt.kind != "duplicate key" or statuses == [400]
    assert judge.wrong == {}
    assert service.sends() == 0
    assert {"200", "400", "413", "415", "431"} <= set(judge.statuses)
    log = instance.log()
    assert "Traceback" not in log
    assert '"internal_error"' not in log
    instance.post(action="unlock", account=account)
    assert service.sends() == 1
