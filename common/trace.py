"""Which trace and which request this is: W3C ``traceparent``, Google's older header, ``X-Request-ID``.

A header that breaks its grammar is not repaired: a wrong trace id would tie strangers' requests together, so a new
one is made instead. What is read here is echoed and logged, never trusted for anything else.
"""

import os
import random
import re
from typing import NamedTuple

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_CLOUD_TRACE = re.compile(r"([0-9a-fA-F]{32})(?:/([0-9]{1,20}))?(?:;o=([0-9]))?", re.ASCII)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
# These ids need not be secret, and the system's generator lets go of the interpreter, which costs 8 us a call. A
# generator of our own, so that nobody else's seed makes two processes alike; nor does a fork.
_ids = random.Random()  # noqa: S311
os.register_at_fork(after_in_child=_ids.seed)
_random_bits = _ids.getrandbits
_NO_TRACE = "0" * 32
_NO_SPAN = "0" * 16


class TraceContext(NamedTuple):
    """Where in a trace this request stands."""

    trace_id: str
    """32 lower-case hex digits, not all zero."""
    span_id: str
    """16 lower-case hex digits, not all zero: the caller's span, or ours where the caller sent none."""
    sampled: bool


def trace_context(traceparent: str | None, cloud_trace: str | None = None) -> TraceContext:
    """The context named by ``traceparent``, else by ``X-Cloud-Trace-Context``, else a new one that is not sampled."""
    return parse_traceparent(traceparent) or parse_cloud_trace(cloud_trace) or new_trace()


def new_trace() -> TraceContext:
    """A trace of our own."""
    return TraceContext(f"{_random_bits(128):032x}", _new_span_id(), sampled=False)


def parse_traceparent(header: str | None) -> TraceContext | None:
    """What a W3C ``traceparent`` says; None where it is missing or breaks the grammar.

    Version ``00`` has exactly four parts. A later version may append more, which are ignored; ``ff`` is forbidden.
    """
    found = _TRACEPARENT.fullmatch(header or "")
    if found is None:
        return None
    version, trace_id, span_id, flags, rest = found.groups()
    if version == "ff" or (version == "00" and rest is not None) or trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None
    return TraceContext(trace_id, span_id, sampled=bool(int(flags, 16) & 1))


def parse_cloud_trace(header: str | None) -> TraceContext | None:
    """What ``X-Cloud-Trace-Context: TRACE_ID/SPAN_ID;o=OPTIONS`` says; the span is decimal there and may be missing."""
    found = _CLOUD_TRACE.fullmatch(header or "")
    if found is None:
        return None
    trace_id, span, options = found.groups()
    span_number = int(span or 0)
    if trace_id == _NO_TRACE or span_number >= 1 << 64:
        return None
    span_id = f"{span_number:016x}" if span_number else _new_span_id()
    return TraceContext(trace_id.lower(), span_id, sampled=options == "1")


def format_traceparent(context: TraceContext) -> str:
    """The ``traceparent`` header, version 00, of ``context``."""
    return f"00-{context.trace_id}-{context.span_id}-{context.sampled:02x}"


def request_id(header: str | None) -> str:
    """The caller's ``X-Request-ID`` where it is 1 to 64 letters, digits, dots, underscores and hyphens, else ours."""
    if header is not None and _REQUEST_ID.fullmatch(header):
        return header
    return new_request_id()


def new_request_id() -> str:
    """``req_`` and 26 hex digits: 104 random bits."""
    return f"req_{_random_bits(104):026x}"


def _new_span_id() -> str:
    return f"{_random_bits(64):016x}"
