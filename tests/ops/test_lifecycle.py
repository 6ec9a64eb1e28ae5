"""What leaves the store and what never does: the table, the buckets' rules, and the page that promises it."""

import ast
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from common.stores.documents import open_documents
from functions.idempotency import KEY_TTL_S
from functions.storage import OF_ACCOUNTS, PLAIN
from ops import lifecycle
from ops.backup_records import LEFT_OUT
from ops.retention import KEPT, KEPT_KEYS, OLD_VERSIONS_DAYS, SWEPT
from tests.support.fake_gcs import FakeGcs, running_fake_gcs

ROOT = Path(__file__).parents[2]
DAY_S = 86_400.0
NO_DOCUMENTS = {
    "opened": "the shared store",
    "snapshot": "the shared store",
    "stream": "the shared store",
    "docs": "a page that errors link to",
    "projects": "a trace's name in a log line",
}
"""What else in the code looks like a document's key."""
SHORT = {"caps", "claims", "confirmations", "connects", "lockouts", "quota", "slots", "stream_workers"}
NEVER = {"apikeys", "audit", "cardata", "identities", "links", "signals", "stream_owners", "streams", "tokens"}
"""Spelt out once more: to let one of them go must take two changes."""


@pytest.fixture(scope="module")
def gcs() -> Iterator[FakeGcs]:
    with running_fake_gcs() as server:
        yield server


def leave(rules: Mapping[str, Any], name: str, *, age: int, noncurrent: int | None = None) -> bool:
    """Whether the platform deletes an object: all conditions of any rule hold. ``noncurrent`` for an old version."""
    holds: dict[str, Callable[[Any], bool]] = {
        "age": lambda days: age >= days,
        "isLive": lambda live: live is (noncurrent is None),
        "daysSinceNoncurrentTime": lambda days: noncurrent is not None and noncurrent >= days,
        "matchesPrefix": lambda prefixes: any(name.startswith(prefix) for prefix in prefixes),
    }
    assert all(rule["action"] == {"type": "Delete"} and rule["condition"] for rule in rules["rule"])
    return any(all(holds[what](value) for what, value in rule["condition"].items()) for rule in rules["rule"])


# The table.


def first_segments(folders: Iterable[str]) -> set[str]:
    """Of every f-string in the code that looks like ``collection/...``, constants of its module filled in."""
    found = set()
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        tree = ast.parse(path.read_text())
        named = {
            target.id: statement.value.value
            for statement in tree.body
            if isinstance(statement, ast.Assign | ast.AnnAssign) and isinstance(statement.value, ast.Constant)
            for target in (statement.targets if isinstance(statement, ast.Assign) else [statement.target])
            if isinstance(target, ast.Name) and isinstance(statement.value.value, str)
        }
        for string in (node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)):
            text = "".join(_text(part, named) for part in string.values)
            found |= set(re.findall(r"^([a-z0-9_-]+)/", text))
    return found


def _text(part: ast.expr, named: Mapping[str, str]) -> str:
    if isinstance(part, ast.Constant):
        return str(part.value)
    assert isinstance(part, ast.FormattedValue)
    return named.get(part.value.id, "{}") if isinstance(part.value, ast.Name) else "{}"


def test_every_collection_that_the_code_writes_either_leaves_or_is_kept() -> None:
    written = first_segments(("functions", "common")) - set(NO_DOCUMENTS)
    classified = [row.collection for row in SWEPT] + list(KEPT) + list(KEPT_KEYS)
    assert written == set(classified), "say in ops/retention.py whether its documents leave, and when"
    assert len(classified) == len(set(classified))
    assert {*OF_ACCOUNTS, *PLAIN, *LEFT_OUT} <= set(classified)


def test_what_an_account_or_a_caller_or_an_auditor_lives_by_is_never_among_what_leaves() -> None:
    assert {row.collection for row in SWEPT} == SHORT | {"commands"}
    assert set(KEPT) == NEVER
    assert set(KEPT_KEYS) == {"keys"}


def test_everything_that_leaves_stays_far_longer_than_it_is_needed() -> None:
    for row in SWEPT:
        assert row.days * DAY_S >= max(3 * row.needed_s, 7 * DAY_S), row.collection


def test_a_command_outlives_every_claim_that_leads_to_it() -> None:
    days = {row.collection: row.days for row in SWEPT}
    assert days["commands"] > days["claims"] > KEY_TTL_S / DAY_S


# The rules.


def test_the_files_say_what_the_table_says(capsys: pytest.CaptureFixture[str]) -> None:
    for command, file in (("documents", "lifecycle.json"), ("keys", "lifecycle-keys.json")):
        assert lifecycle.main([command]) == 0
        printed = capsys.readouterr().out
        remedy = f"python -m ops.lifecycle {command} > ops/deploy/{file}"
        assert (ROOT / "ops/deploy" / file).read_text() == printed, remedy


async def test_of_the_objects_that_the_store_makes_only_what_may_leave_is_deleted(gcs: FakeGcs) -> None:
    bucket = gcs.new_bucket()
    documents = open_documents(f"gs://{bucket}/{lifecycle.PREFIX}", gcs_endpoint=gcs.url)
    outside = open_documents(f"gs://{bucket}", gcs_endpoint=gcs.url)
    named = [row.collection for row in SWEPT] + list(KEPT)
    try:
        for collection in [*named, *(f"{name}2" for name in named), *(f"x{name}" for name in named)]:
            await documents.create(f"{collection}/acc_{'Q' * 22}/one", {})
        await outside.create("claims/one", {})
        await outside.create(f"{lifecycle.PREFIX}2/claims/one", {})
        objects = await outside.list("")
    finally:
        await documents.aclose()
        await outside.aclose()
    assert len(objects) == 3 * len(named) + 2

    def left(age: int) -> set[str]:
        rules = lifecycle.of_documents()
        return {name.removeprefix("bmw/").split("/")[0] for name in objects if leave(rules, name, age=age)}

    assert (left(6), left(7), left(399)) == (set(), SHORT, SHORT)
    assert left(400) == left(100_000) == SHORT | {"commands"}


def test_old_versions_of_everything_leave_a_month_after_they_were_replaced_however_old_they_are() -> None:
    rules = lifecycle.of_documents()
    for name in ("bmw/tokens/acc_1", "bmw/audit/1/head", "bmw/commands/acc_1/cmd_1", "bmw/claims/acc_1/key-1"):
        assert not leave(rules, name, age=5_000, noncurrent=OLD_VERSIONS_DAYS - 1)
        assert leave(rules, name, age=5_000, noncurrent=OLD_VERSIONS_DAYS)
    assert OLD_VERSIONS_DAYS == 30


def test_a_key_in_use_is_never_deleted_and_a_deleted_one_that_was_kept_is() -> None:
    rules = lifecycle.of_keys()
    assert not any(leave(rules, f"bmw/keys/acc_{name}", age=100_000) for name in ("1", "claims", "commands"))
    assert leave(rules, "bmw/keys/acc_1", age=0, noncurrent=0)


@pytest.mark.parametrize(("prefix", "first"), [("cars/eu/", "cars/eu/caps/"), ("", "caps/"), ("/", "caps/")])
def test_rules_can_be_made_for_documents_elsewhere_in_a_bucket(
    prefix: str, first: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lifecycle.main(["documents", "--prefix", prefix]) == 0
    rules = json.loads(capsys.readouterr().out)
    assert rules["rule"][0]["condition"]["matchesPrefix"][0] == first


# How a bucket differs.


def compared(bucket: object, capsys: pytest.CaptureFixture[str], file: str = "lifecycle.json") -> list[str]:
    described = io.StringIO(json.dumps(bucket))
    assert lifecycle.main(["compare", str(ROOT / "ops/deploy" / file)], described=described) == 0
    return capsys.readouterr().out.splitlines()


def test_the_order_of_rules_names_and_prefixes_makes_no_difference(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rules = [
        {
            "condition": {
                name: value[::-1] if isinstance(value, list) else value
                for name, value in reversed(rule["condition"].items())
            },
            "action": rule["action"],
        }
        for rule in reversed(lifecycle.of_documents()["rule"])
    ]
    assert compared({"name": "b", "lifecycle_config": {"rule": rules}}, capsys) == []


@pytest.mark.parametrize("bucket", [{}, {"lifecycle_config": None}, {"lifecycle_config": {}}])
def test_a_bucket_without_rules_lacks_all_of_them(bucket: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    lines = compared(bucket, capsys)
    assert [line.split(" ")[0] for line in lines] == ["lacks"] * 3


def test_a_rule_that_differs_in_one_condition_is_lacking_and_there_in_its_place(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rules = {"rule": [{"action": {"type": "Delete"}, "condition": {"age": 1}}]}
    assert compared({"lifecycle_config": rules}, capsys, "lifecycle-keys.json") == [
        'lacks {"action": {"type": "Delete"}, "condition": {"isLive": false}}',
        'has {"action": {"type": "Delete"}, "condition": {"age": 1}}',
    ]


# The page.


def test_the_page_promises_what_the_table_says() -> None:
    page = (ROOT / "docs/deployment.md").read_text().partition("## What is kept how long")[2].partition("\n## ")[0]
    days = {
        name: int(number)
        for names, number in re.findall(r"^\| (`.+?`) \| .* \| (\d+) days ", page, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", names)
    }
    assert days == {row.collection: row.days for row in SWEPT}
    assert {name for name in KEPT if f"`{name}`" in page} == set(KEPT)
    assert f"{OLD_VERSIONS_DAYS} days" in page
