"""Tests of the generated pages."""

import json
import re
from pathlib import Path

import pytest

from common import errors
from functions import openapi
from functions.actions.catalogue import CATALOGUE
from ops import docs

ROOT = Path(__file__).parents[2]


def test_no_page_is_stale() -> None:
    assert docs.stale(ROOT) == [], "run `make docs`"


def test_a_page_that_is_missing_or_edited_by_hand_is_stale_until_it_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert docs.main([], root=tmp_path) == 0
    assert docs.main(["--check"], root=tmp_path) == 0
    (tmp_path / "docs/errors.md").write_text("by hand")
    (tmp_path / "docs/actions.md").unlink()
    assert docs.main(["--check"], root=tmp_path) == 1
    assert "docs/actions.md, docs/errors.md" in capsys.readouterr().err
    assert (tmp_path / "docs/errors.md").read_text() == "by hand"
    assert docs.main([], root=tmp_path) == 0
    assert docs.main(["--check"], root=tmp_path) == 0


def test_every_error_has_the_heading_that_replies_link_to() -> None:
    headings = re.findall(r"^### (\w+)$", docs.errors_page(), re.MULTILINE)
    assert headings == [leaf.code for leaf in errors.BY_CODE.values()]


def test_every_action_is_shown_with_a_request_that_names_it() -> None:
    page = docs.actions_page()
    examples = [json.loads(body) for body in re.findall(r"```json\n(.*)\n```", page)]
    assert [example["action"] for example in examples] == [spec.name for spec in CATALOGUE]


def test_the_stored_openapi_document_is_the_one_that_is_served() -> None:
    assert json.loads(docs.openapi_page()) == openapi.document()


def test_no_cell_breaks_its_table() -> None:
    for page in (docs.actions_page(), docs.errors_page(), docs.configuration_page()):
        tables = re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE)
        assert tables
        for table in tables:
            assert len({len(re.findall(r"\|", row)) for row in table.splitlines()}) == 1
