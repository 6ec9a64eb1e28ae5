"""Trace contexts and request ids."""

import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.trace import (
    TraceContext,
    format_traceparent,
    new_request_id,
    new_trace,
    parse_cloud_trace,
    parse_traceparent,
    request_id,
    trace_context,
)

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
GOOD = f"00-{TRACE}-{SPAN}-01"

hex_ids = st.binary(min_size=16, max_size=16).filter(any).map(bytes.hex)
span_ids = st.binary(min_size=8, max_size=8).filter(any).map(bytes.hex)


def test_a_good_traceparent_is_read() -> None:
    assert parse_traceparent(GOOD) == TraceContext(TRACE, SPAN, sampled=True)


@pytest.mark.parametrize(("flags", "sampled"), [("00", False), ("01", True), ("02", False), ("03", True), ("ff", True)])
def test_only_the_lowest_flag_bit_means_sampled(flags: str, sampled: bool) -> None:
    context = parse_traceparent(f"00-{TRACE}-{SPAN}-{flags}")
    assert context is not None
    assert context.sampled is sampled


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "garbage",
        GOOD.upper(),
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"0g-{TRACE}-{SPAN}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}0-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}",
        f"{GOOD}-extra",
        f"{GOOD}\n",
        f" {GOOD}",
        f"{GOOD},{GOOD}",
        f"00-{chr(0x660) * 31}1-{SPAN}-01",  # digits, but not ASCII ones
    ],
)
def test_a_traceparent_that_breaks_the_grammar_is_refused(header: str | None) -> None:
    assert parse_traceparent(header) is None


def test_a_later_version_may_append_what_we_do_not_know() -> None:
    assert parse_traceparent(f"01-{TRACE}-{SPAN}-01-more") == TraceContext(TRACE, SPAN, sampled=True)
    assert parse_traceparent(f"01-{TRACE}-{SPAN}-01more") is None


@given(trace_id=hex_ids, span_id=span_ids, sampled=st.booleans())
def test_a_formatted_context_is_read_back_unchanged(trace_id: str, span_id: str, sampled: bool) -> None:
    context = TraceContext(trace_id, span_id, sampled)
    assert parse_traceparent(format_traceparent(context)) == context


@given(st.text(max_size=80))
def test_any_text_gives_a_context_that_is_valid_on_the_wire(header: str) -> None:
    context = trace_context(header, header)
    assert parse_traceparent(format_traceparent(context)) == context


def test_the_cloud_header_has_a_decimal_span() -> None:
    assert parse_cloud_trace(f"{TRACE}/{int(SPAN, 16)};o=1") == TraceContext(TRACE, SPAN, sampled=True)
    assert parse_cloud_trace(f"{TRACE.upper()}/1;o=0") == TraceContext(TRACE, "0" * 15 + "1", sampled=False)


@pytest.mark.parametrize("header", [TRACE, f"{TRACE};o=1", f"{TRACE}/0;o=1"])
def test_a_cloud_header_without_a_span_keeps_its_trace_and_gets_a_span_of_ours(header: str) -> None:
    context = parse_cloud_trace(header)
    assert context is not None
    assert context.trace_id == TRACE
    assert re.fullmatch(r"[0-9a-f]{16}", context.span_id)
    assert context.span_id != "0" * 16


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "x",
        "0" * 32 + "/1",
        f"{TRACE}/",
        f"{TRACE}/{1 << 64}",
        f"{TRACE}/1;o=",
        f"{TRACE}/1;o=1\n",
        f"{TRACE}/-1",
    ],
)
def test_a_cloud_header_that_breaks_the_grammar_is_refused(header: str | None) -> None:
    assert parse_cloud_trace(header) is None


def test_traceparent_wins_over_the_cloud_header_and_a_broken_one_falls_back_to_it() -> None:
    cloud = f"{'1' * 32}/5;o=1"
    assert trace_context(GOOD, cloud).trace_id == TRACE
    assert trace_context("broken", cloud) == TraceContext("1" * 32, "0" * 15 + "5", sampled=True)


def test_without_a_header_every_request_gets_a_trace_of_its_own_that_is_not_sampled() -> None:
    made = [trace_context(None, None) for _ in range(100)]
    assert len({context.trace_id for context in made}) == 100
    assert len({context.span_id for context in made}) == 100
    assert not any(context.sampled for context in made)
    assert new_trace() != new_trace()


@pytest.mark.parametrize("header", ["a", "A.b_c-9", "x" * 64, "4f1c2b9e-0f0f-4d3a-9f57-3b6d1d3f7a10"])
def test_a_decent_request_id_is_kept(header: str) -> None:
    assert request_id(header) == header


@pytest.mark.parametrize("header", [None, "", "x" * 65, "a b", "a\n", "ä", "a@b", 'a"b', "%41"])
def test_any_other_request_id_is_replaced_by_ours(header: str | None) -> None:
    assert re.fullmatch(r"req_[0-9a-f]{26}", request_id(header))


def test_our_request_ids_are_all_different_and_acceptable_to_ourselves() -> None:
    made = {new_request_id() for _ in range(1_000)}
    assert len(made) == 1_000
    assert all(request_id(one) == one for one in made)


def test_ids_of_two_workers_differ_after_a_fork() -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, new_request_id().encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 100).decode() != new_request_id()
