"""Nothing sensitive comes out: not by the log, the metrics or the database, not with another caller's reply."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from ops.valkey import running_valkey
from sandbox.canaries import CANARIES, Search, forms
from scorecard.hygiene import Outcome, plant_and_search
from tests.integration.conftest import MASTER_KEY

REQUESTS = 600


@pytest.fixture(scope="module")
def outcome() -> Iterator[Outcome]:
    """Of a real server, a real maker, a real store and a real Valkey."""
    with running_valkey() as valkey:
        yield plant_and_search(REQUESTS, valkey.url, lambda _: None)


@pytest.mark.parametrize(
    "place",
    [
        "log",
        "other callers' replies",
        "metrics and health",
        "OpenAPI",
        "shared cache",
        "database",
        "sender's replies",
    ],
)
def test_no_planted_secret_comes_out_in_any_form(outcome: Outcome, place: str) -> None:
    assert outcome.hits[place] == []


def test_secrets_were_planted_where_they_could_come_out(outcome: Outcome) -> None:
    assert outcome.faults >= 10
    assert outcome.cache_bytes > 0
    assert outcome.database_bytes > 0
    requests = [json.loads(line) for line in outcome.log.splitlines() if '"message":"request"' in line]
    assert len(requests) >= REQUESTS
    assert {"success", "rejected", "failed"} <= {line["outcome"] for line in requests}
    assert "Traceback" not in outcome.log


@pytest.mark.parametrize("name", CANARIES)
def test_the_search_finds_a_secret_in_every_form_it_may_take(name: str) -> None:
    secret = CANARIES[name]
    search = Search({name: secret})
    raw = secret.encode()
    shapes = [
        secret,
        secret.upper() if secret.isascii() else secret,
        quote(secret, safe=""),
        json.dumps({"a": [secret]}),
        json.dumps(json.dumps({"a": secret}, ensure_ascii=False), ensure_ascii=False),
        repr({"a": raw}),
        raw.hex().upper(),
        *(base64.b64encode(b"ab"[:before] + raw + b"cd").decode() for before in range(3)),
        *(base64.urlsafe_b64encode(b"ab"[:before] + raw + b"cd").decode() for before in range(3)),
    ]
    for shape in shapes:
        assert search.found_in(b"before " + shape.encode() + b" after") == [name], shape
    assert search.found_in(b"nothing of the kind") == []
    assert all(len(form) >= 10 for form in forms(secret))


DEFECTS = """
import json, sys
from common.settings import Settings
from functions.app import build
from functions.wire import RawRequest
from sandbox.canaries import CANARIES

class Careless:
    def __init__(self):
        self.calls = 0
    async def identify(self, headers):
        self.calls += 1
        words = f"{list(CANARIES.values())}"
        try:
            raise KeyError(words)
        except KeyError as cause:
            if self.calls % 3 == 0:
                raise ExceptionGroup(words, [ValueError(words), RuntimeError(words.encode())]) from cause
            raise [ValueError, UnicodeDecodeError][self.calls % 3 - 1](
                *[(words,), ("utf-8", words.encode(), 0, 1, words)][self.calls % 3 - 1]
            ) from cause

app = build(Settings(environment="development", callers=("open",), documents_url=f"sqlite:///{sys.argv[1]}",
                     token_keys=sys.argv[2], log_level="DEBUG"), callers=Careless())
for number in range(6):
    request = RawRequest("POST", "/", {"content-type": "application/json"}, b'{"action": "actions"}')
    reply = app.loop.run(app.pipeline.handle(request))
    assert json.loads(reply.body)["error"]["code"] == "INTERNAL_ERROR"
    print(reply, file=sys.stderr)
app.close()
"""


def test_a_defects_text_stays_inside(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DEFECTS, str(tmp_path / "documents.db"), MASTER_KEY],
        capture_output=True,
        check=True,
        timeout=50,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )
    assert done.stdout.count(b'"internal_error"') == 6
    assert Search(CANARIES).found_in(done.stdout + done.stderr) == []
