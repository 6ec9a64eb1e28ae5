"""Tests of what people see in a terminal."""

import json

import pytest

from ops.console import Style, log_line, pretty

NESTED = {
    "name": "iX xDrive50",
    "doors": {"left_front": "CLOSED", "right_front": "CLOSED"},
    "list": [1, 2, {"a": "x" * 30}],
    "empty": {},
}


@pytest.mark.parametrize("width", [10, 30, 60, 100, 1000])
def test_what_is_printed_is_still_the_same_json(width: int) -> None:
    assert json.loads(pretty(NESTED, width=width)) == NESTED


@pytest.mark.parametrize("width", [50, 60, 100])
def test_no_line_is_longer_than_asked_for_where_its_values_allow_it(width: int) -> None:
    assert max(len(line) for line in pretty(NESTED, width=width).splitlines()) <= width


def test_what_fits_on_a_line_stays_on_one() -> None:
    assert pretty({"a": {"b": 1}}) == '{"a": {"b": 1}}'


def test_a_long_reply_is_cut_and_says_by_how_much() -> None:
    full = pretty(list(range(100)), width=10).splitlines()
    cut = pretty(list(range(100)), width=10, max_lines=5).splitlines()
    assert cut[:4] == full[:4]
    assert cut[4] == f"... {len(full) - 4} more lines"
    assert len(cut) == 5


def test_there_is_no_colour_where_none_is_wanted() -> None:
    assert Style(coloured=False).bold("x") == Style(coloured=False).bad("x") == "x"


def test_colour_ends_where_the_text_ends() -> None:
    assert Style(coloured=True).good("x") == "\x1b[32mx\x1b[0m"


@pytest.mark.parametrize("line", ["plain text", "[1, 2]", '{"no": "message"}', '{"broken'])
def test_a_line_that_is_no_event_of_ours_is_shown_as_it_is(line: str) -> None:
    assert log_line(line) == line


def test_an_event_of_ours_is_shown_in_short_without_what_names_somebody() -> None:
    event = {
        "severity": "WARNING",
        "message": "request",
        "time": "2026-01-01T12:34:56.789Z",
        "httpRequest": {"status": 404},
        "duration_ms": 1.26,
        "action": "status",
        "code": "VEHICLE_NOT_FOUND",
        "caller": "f920201e2933",
        "vehicle": "0b237bd8aa14",
    }
    assert log_line(json.dumps(event)) == "12:34:56 WARNING  request  status VEHICLE_NOT_FOUND 404 1.3 ms"


def test_a_cached_answer_is_shown_as_one() -> None:
    event = {"severity": "INFO", "message": "request", "httpRequest": {"status": 200}, "duration_ms": 1, "cached": True}
    assert log_line(json.dumps(event)).endswith("200 1.0 ms cached")
