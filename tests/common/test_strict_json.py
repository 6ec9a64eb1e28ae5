"""What two parsers could read in two ways is refused."""

from typing import Any

import pytest

from common.strict_json import has_surrogate, parse, parse_object


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1, "b": [2.5, null, true, "x"]}', {"a": 1, "b": [2.5, None, True, "x"]}),
        (b'{"a": {"a": 1}}', {"a": {"a": 1}}),
        ('{"n": 18446744073709551615, "m": -9223372036854775808}', {"n": 2**64 - 1, "m": -(2**63)}),
        ("{}", {}),
    ],
)
def test_an_object_is_read_as_any_parser_reads_it(text: str | bytes, value: dict[str, Any]) -> None:
    assert parse_object(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '"text"',
        "null",
        "{} {}",
        '{"a": 1, "a": 1}',
        '{"x": {"a": 1, "a": 2}}',
        '{"x": [{"a": 1, "\\u0061": 2}]}',
        '{"x": NaN}',
        '{"x": -Infinity}',
        '{"x": 1e999}',
        '{"x": 18446744073709551616}',
        '{"x": -9223372036854775809}',
        '{"x": ' + "9" * 5_000 + "}",
        '{"x": ' + "[" * 100_000 + "]" * 100_000 + "}",
        b'{"x": "\xff"}',
        b"\xef\xbb\xbf{}",
        '{"x": 1}'.encode("utf-16"),
    ],
)
def test_everything_else_is_refused(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"^(is not|must be|holds)") as refused:
        parse_object(text)
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


def test_any_value_may_stand_alone_where_it_is_asked_for() -> None:
    assert parse("[1, 2]") == [1, 2]


def test_nesting_is_counted_where_a_bound_is_given_and_not_in_strings() -> None:
    assert parse('[["[[["]]', max_depth=2) == [["[[["]]
    assert parse(r'["\"[[[", {}]', max_depth=2) == ['"[[[', {}]
    with pytest.raises(ValueError, match="nested deeper than 1 level"):
        parse('[["[[["]]', max_depth=1)


@pytest.mark.parametrize(
    ("text", "has"),
    [
        (r'{"x": "\ud800"}', True),
        (r'["a", {"\udfff": 1}]', True),
        (r'[["\ud83d\ude97", "ü", 1, null], {"a": "b"}]', False),
    ],
)
def test_half_of_a_surrogate_pair_is_found_at_any_depth(text: str, has: bool) -> None:
    assert has_surrogate(parse(text)) is has
