"""The guide's examples, run in order against the service, as a reader would."""

import json
import re
from pathlib import Path

import pytest

from ops.client import Client
from ops.stack import Stack

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/guide.md").read_text()
EXAMPLES = re.findall(r"^api '(\{.*\})'(?: -H '(.*): (.*)')?$", GUIDE, re.MULTILINE)
PAGES = re.findall(r"^curl -s http://127\.0\.0\.1:8080(/\w+)$", GUIDE, re.MULTILINE)


def test_every_example_of_the_guide_works_in_the_order_of_the_guide(stack: Stack) -> None:
    client = Client(stack.api_url, stack.key)
    known: dict[str, str] = {}
    answered: dict[str, bool] = {}
    for example, header, value in EXAMPLES:
        # In the shell, '$NAME' leaves the quotes, takes the variable, and enters them again.
        request = json.loads(re.sub(r"'\$(\w+)'", lambda found: known[found[1]], example))
        action = request["action"]
        reply = client.post(request, {header: value} if header else None)
        if action == "teleport":
            assert reply.at("error.code") == "UNKNOWN_ACTION"
            continue
        assert reply.at("success") is True, (request, reply.body)
        if action == "connect":
            known["ACCOUNT"] = reply.at("result.account")
        if action == "lock":
            known["COMMAND"] = reply.at("result.command_id")
        if action in ("command_status", "charging_settings"):
            assert reply.at("result.state") == "confirmed"
        if header:
            assert reply.at("result.deduplicated") is answered.get(value, False)
            answered[value] = True
        if request.get("params", {}).get("dry_run"):
            assert reply.at("result.would_be_sent") is True
    client.close()
    assert len(EXAMPLES) == GUIDE.count("\napi '")
    assert answered


@pytest.mark.parametrize("page", PAGES)
def test_every_page_of_the_guide_is_there(stack: Stack, page: str) -> None:
    client = Client(stack.api_url, stack.key)
    assert client.get(page).status == 200
    client.close()


def test_every_code_and_setting_that_the_guide_names_exists() -> None:
    codes = set(re.findall(r"^### (\w+)$", (ROOT / "docs/errors.md").read_text(), re.MULTILINE))
    settings = set(re.findall(r"^\| `(\w+)`", (ROOT / "docs/configuration.md").read_text(), re.MULTILINE))
    named = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", GUIDE)) - {"RETRY_LATER", "REAUTHENTICATE"}
    assert named - codes - settings == set()
