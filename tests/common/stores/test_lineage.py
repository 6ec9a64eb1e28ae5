"""What an object remembers of its ancestors."""

import orjson
import pytest

from common.stores.lineage import (
    LINEAGE_LENGTH,
    generation_of,
    may_have_forgotten,
    seal,
    since_write,
    unseal,
)


def history(length: int) -> tuple[str, ...]:
    """The lineage after ``length`` writes: generations 101, 102, ... by writes w1, w2, ..."""
    lineage: tuple[str, ...] = ()
    for number in range(1, length + 1):
        data = seal(f"w{number}", lineage, orjson.dumps({"n": number}))
        document = unseal("links/1", data, 100 + number)
        assert document.body == {"n": number}
        assert document.version == str(100 + number)
        lineage = document.lineage
    return lineage


def test_a_document_carries_its_own_version_before_those_of_its_ancestors() -> None:
    assert history(3) == ("103:w3", "102:w2", "101:w1")


def test_old_ancestors_are_forgotten() -> None:
    lineage = history(LINEAGE_LENGTH + 5)
    assert len(lineage) == LINEAGE_LENGTH
    assert lineage[0] == f"{100 + LINEAGE_LENGTH + 5}:w{LINEAGE_LENGTH + 5}"
    assert lineage[-1] == "106:w6"


def test_a_write_is_found_below_what_was_built_on_it() -> None:
    assert since_write(history(5), "w3") == ("103:w3", "102:w2", "101:w1")
    assert generation_of(since_write(history(5), "w3")) == "103"


def test_a_write_that_was_not_done_is_not_found() -> None:
    assert since_write(history(5), "w6") == ()
    assert since_write(history(12), "2") == ()
    assert since_write((), "w1") == ()


def test_a_short_lineage_forgets_nothing() -> None:
    assert not may_have_forgotten(history(LINEAGE_LENGTH - 1), "50")
    assert not may_have_forgotten((), "0")


def test_a_full_lineage_may_have_forgotten_what_it_does_not_hold() -> None:
    full = history(LINEAGE_LENGTH + 5)
    assert may_have_forgotten(full, "105")
    assert may_have_forgotten(full, "0")
    assert may_have_forgotten(full, "10")  # the beginning of another generation's number
    assert not may_have_forgotten(full, "106")


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"{}", b'{"write_id":"w1","lineage":null,"body":{}}', b'"text"'])
def test_an_object_of_somebody_else_is_no_document(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a document"):
        unseal("links/1", data, 1)
