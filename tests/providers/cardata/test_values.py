"""A value, or one of four kinds of nothing, and never a guess."""

from datetime import UTC, datetime
from typing import Any

import pytest

from functions.providers.cardata.values import Nothing, Reading, flag, moment, number, objects, position, whole, word
from tests.providers.cardata.harness import said

READERS = {
    "number": lambda signal: number(signal, "km", 0, 1_000),
    "whole": lambda signal: whole(signal, "km", 0, 1_000),
    "flag": flag,
    "word": word,
    "moment": moment,
    "objects": objects,
}


@pytest.mark.parametrize("reader", READERS)
def test_four_kinds_of_nothing_are_told_apart(reader: str) -> None:
    read: Any = READERS[reader]

    assert read(None) == Reading(None, Nothing.ABSENT, None)
    assert read(said(None)).nothing is Nothing.NULL
    for sentinel in ("INVALID", "-NA-", "-", "null", "ASN_isUnknown", "unknown", ""):
        assert read(said(sentinel)).nothing is Nothing.INVALID, sentinel
    for odd in (["x"], {"a": 1} if reader != "objects" else 5, "x" * 65):
        found = read(said(odd))
        assert (found.value, found.nothing) == (None, Nothing.MALFORMED), odd


@pytest.mark.parametrize(
    ("raw", "unit", "wanted", "expected"),
    [
        ("12.5", "km", "km", 12.5),
        (12.5, None, "km", 12.5),
        ("100", "mi", "km", 160.9344),
        ("2.5", "bar", "kpa", 250),
        ("36", "psi", "kpa", 248.2112),
        ("250", "kPa", "kpa", 250),
        ("2", "h", "min", 120),
        ("90", "s", "min", 1.5),
        ("1e2", "%", "%", 100),
        ("-0.0", "km", "km", 0),
        (" 7 ", "l", "l", 7),
    ],
)
def test_numbers_are_converted_to_the_wanted_unit(raw: object, unit: str, wanted: str, expected: float) -> None:
    assert number(said(raw, unit), wanted, 0, 1_000).value == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("raw", "unit"),
    [
        ("1001", "km"),
        ("-1", "km"),
        ("1,5", "km"),
        ("0x10", "km"),
        ("1_0", "km"),
        ("٣", "km"),
        ("nan", "km"),
        ("inf", "km"),
        (True, "km"),
        ("5", "furlong"),
        ("9" * 30, "km"),
        (float("1e308"), "km"),
    ],
)
def test_what_is_no_number_in_range_is_malformed(raw: object, unit: str) -> None:
    assert number(said(raw, unit), "km", 0, 1_000).nothing is Nothing.MALFORMED


@pytest.mark.parametrize("raw", [True, "true", "TRUE", "ASN_isTrue", "OPEN", "CONNECTED"])
def test_true_has_three_spellings_and_two_words(raw: object) -> None:
    assert flag(said(raw)).value is True


@pytest.mark.parametrize("raw", [False, "false", "ASN_isFalse", "CLOSED", "DISCONNECTED"])
def test_so_has_false(raw: object) -> None:
    assert flag(said(raw)).value is False


@pytest.mark.parametrize("raw", [0, 1, "0", "yes", "ajar"])
def test_what_only_looks_like_a_boolean_is_none(raw: object) -> None:
    assert flag(said(raw)).nothing is Nothing.MALFORMED


def test_words_are_upper_case_with_underscores() -> None:
    assert word(said("Selective-Locked")).value == "SELECTIVE_LOCKED"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("17.01.2027 00:00:00 UTC", datetime(2027, 1, 17, tzinfo=UTC)),
        ("17.01.2027", datetime(2027, 1, 17, tzinfo=UTC)),
        ("2027-01-17T10:00:00Z", datetime(2027, 1, 17, 10, tzinfo=UTC)),
        ("31.02.2027 00:00:00 UTC", None),
        ("01/17/2027", None),
    ],
)
def test_times_are_german_or_iso(raw: str, expected: datetime | None) -> None:
    assert moment(said(raw)).value == expected
    assert (moment(said(raw)).nothing is Nothing.MALFORMED) == (expected is None)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ('[{"id": 1}]', ({"id": 1},)),
        ("[]", ()),
        ('{"id": 1}', ({"id": 1},)),
        ("[1]", None),
        ("[{", None),
        ('"x"', None),
        ("[" * 5_000, None),
    ],
)
def test_json_stands_inside_texts(raw: str, expected: object) -> None:
    assert objects(said(raw)).value == expected


@pytest.mark.parametrize(
    ("halves", "expected", "nothing"),
    [
        ([48.1, "11.5"], (48.1, 11.5), None),
        (["INVALID", 11.5], None, Nothing.INVALID),
        ([91, 11.5], None, Nothing.MALFORMED),
        ([48, 181], None, Nothing.MALFORMED),
        (["north", 11.5], None, Nothing.MALFORMED),
    ],
)
def test_a_position_has_two_halves(halves: list[Any], expected: object, nothing: Nothing | None) -> None:
    found = position(said(halves))

    assert (found.value, found.nothing) == (expected, nothing)
    assert position(None).nothing is Nothing.ABSENT
