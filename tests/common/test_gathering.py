"""Where a request ends, byte by byte, and that gunicorn's parser agrees."""

import itertools

import pytest
from gunicorn.config import Config  # type: ignore[import-untyped] # it ships no types
from gunicorn.http.parser import RequestParser  # type: ignore[import-untyped] # the same
from hypothesis import given
from hypothesis import strategies as st

from common.gathering import LARGEST_BODY_BYTES, LARGEST_HEAD_BYTES, Extent, Gathering, Refused, is_plain_and_whole

HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
NEXT = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"

WHOLE: dict[str, bytes] = {
    "no body": NEXT,
    "no body is announced": HEAD + b"\r\n",
    "a length": HEAD + b"Content-Length: 5\r\n\r\nhello",
    "a length in odd letters": HEAD + b"cOnTeNt-LeNgTh:5 \t\r\n\r\nhello",
    "a length of nothing": HEAD + b"Content-Length: 0\r\n\r\n",
    "a body like a request": HEAD + b"Content-Length: 41\r\n\r\n" + NEXT,
}
"""Requests behind which another may follow."""
WHOLE_AND_LAST: dict[str, bytes] = {
    "one chunk": CHUNKED + b"5\r\nhello\r\n0\r\n\r\n",
    "no chunk": CHUNKED + b"0\r\n\r\n",
    "an end inside a chunk": CHUNKED + b"5\r\n0\r\n\r\n\r\n0\r\n\r\n",
    "trailers": CHUNKED + b"1;a=b\r\nx\r\n0\r\nX: y\r\n\r\n",
    "upper case digits": CHUNKED + b"0A\r\n0123456789\r\n0\r\n\r\n",
}
AMBIGUOUS: dict[str, bytes] = {
    "two lengths": HEAD + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\n",
    "a length and chunks": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a list of lengths": HEAD + b"Content-Length: 5, 5\r\n\r\n",
    "a negative length": HEAD + b"Content-Length: -1\r\n\r\n",
    "a length with a sign": HEAD + b"Content-Length: +5\r\n\r\n",
    "a length of 20 digits": HEAD + b"Content-Length: 99999999999999999999\r\n\r\n",
    "no length": HEAD + b"Content-Length:\r\n\r\n",
    "another encoding": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    "two encodings": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
}
NOT_WAITED_FOR: dict[str, bytes] = {
    "a length beyond what is gathered": HEAD + b"Content-Length: %d\r\n\r\n" % (LARGEST_BODY_BYTES + 1),
    "a size that is none": CHUNKED + b"nonsense\r\n",
    "an empty size": CHUNKED + b"\r\n",
    "a signed size": CHUNKED + b"+5\r\n",
    "a size of nine digits": CHUNKED + b"000000005\r\n",
    "a size line without an end": CHUNKED + b"5;" + b"a" * 1_100,
    "chunks beyond what is gathered": CHUNKED + b"1\r\nx\r\n" * (LARGEST_BODY_BYTES // 6 + 1),
}


def gathered(pieces: list[bytes]) -> tuple[Gathering, Extent | None]:
    """The extent after the pieces; they are all needed."""
    gathering = Gathering()
    extent = None
    for piece in pieces:
        assert extent is None
        extent = gathering.add(piece)
    return gathering, extent


@pytest.mark.parametrize("request_", WHOLE.values(), ids=WHOLE.keys())
def test_a_request_ends_where_its_length_says(request_: bytes) -> None:
    gathering, extent = gathered([request_ + NEXT])
    assert extent == Extent(len(request_), last=False)
    assert gathering.split(extent) == (request_, NEXT)


@pytest.mark.parametrize("request_", WHOLE_AND_LAST.values(), ids=WHOLE_AND_LAST.keys())
def test_a_chunked_request_is_whole_at_its_last_chunk_and_the_last_one(request_: bytes) -> None:
    assert gathered([request_])[1] == Extent(len(request_), last=True)


@pytest.mark.parametrize("request_", [*WHOLE.values(), *WHOLE_AND_LAST.values()], ids=[*WHOLE, *WHOLE_AND_LAST])
def test_it_makes_no_difference_how_a_request_is_cut(request_: bytes) -> None:
    bytewise = [bytes([byte]) for byte in request_]
    assert gathered(bytewise)[1] == gathered([request_])[1]
    for at in range(1, len(request_)):
        assert gathered([request_[:at], request_[at:]])[1] == gathered([request_])[1]


@pytest.mark.parametrize("request_", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
def test_what_leaves_doubt_where_it_ends_is_refused(request_: bytes) -> None:
    with pytest.raises(Refused) as refused:
        Gathering().add(request_)
    assert refused.value.status == 400


@pytest.mark.parametrize("request_", NOT_WAITED_FOR.values(), ids=NOT_WAITED_FOR.keys())
def test_what_will_be_refused_anyway_is_the_last_and_not_waited_for(request_: bytes) -> None:
    assert gathered([request_])[1] == Extent(len(request_), last=True)


@pytest.mark.parametrize(
    "beginning", [HEAD, HEAD + b"Content-Length: 5\r\n\r\nhell", CHUNKED, CHUNKED + b"5\r\nhello\r\n0\r\n", b"\r\n"]
)
def test_what_may_go_on_is_waited_for(beginning: bytes) -> None:
    gathering, extent = gathered([beginning])
    assert extent is None
    assert gathering.as_it_is() == Extent(len(beginning), last=True)
    assert gathering.has_head is (b"\r\n\r\n" in beginning)


def test_a_head_may_be_large_but_not_without_an_end() -> None:
    fits = b"GET / HTTP/1.1\r\nX: ".ljust(LARGEST_HEAD_BYTES, b"a")
    assert gathered([fits])[1] is None
    for too_large in ([fits, b"a"], [fits + b"a\r\n\r\n"]):
        with pytest.raises(Refused) as refused:
            gathered(too_large)
        assert refused.value.status == 431


def test_a_client_that_waits_for_a_go_ahead_gets_one() -> None:
    waiting = HEAD + b"Expect: 100-Continue\r\nContent-Length: 5\r\n\r\n"
    gathering, extent = gathered([waiting])
    assert extent is None
    assert [gathering.take_go_ahead(), gathering.take_go_ahead()] == [True, False]
    assert gathering.add(b"hello") == Extent(len(waiting) + 5, last=False)
    assert gathered([HEAD + b"Content-Length: 5\r\n\r\n"])[0].take_go_ahead() is False


def test_many_small_chunks_one_by_one_cost_no_more_than_their_number() -> None:
    gathering = Gathering()
    gathering.add(CHUNKED)
    chunks = list(itertools.repeat(b"1\r\nx\r\n", LARGEST_BODY_BYTES // 6))
    assert [gathering.add(chunk) for chunk in chunks] == [None] * len(chunks)
    assert gathering.add(b"0\r\n\r\n") == gathering.as_it_is()


NAMES = st.sampled_from(
    ["Content-Length", "content-length", "Content-Length ", "Transfer-Encoding", "Content_Length", "X", "Expect"]
)
VALUES = st.sampled_from(["5", "0", "05", " 5 ", "41", "chunked", "Chunked", "5\r", "5\n", "5\nContent-Length: 3", ""])
BODIES = st.sampled_from([b"", b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"0\r\n\r\n", NEXT])


@given(st.lists(st.tuples(NAMES, VALUES), max_size=3), BODIES)
def test_where_another_request_follows_gunicorns_parser_ends_at_the_same_byte(
    fields: list[tuple[str, str]], body: bytes
) -> None:
    head = HEAD + b"".join(f"{name}: {value}\r\n".encode() for name, value in fields) + b"\r\n"
    sent = head + body + NEXT
    try:
        gathering, extent = gathered([sent])
    except Refused:
        return
    if extent is None or extent.last:
        return
    parser = RequestParser(Config(), [sent], ("127.0.0.1", 1))
    try:
        request = next(parser)
        request.body.read()
    except Exception:  # noqa: BLE001 - it refuses the request and closes the connection: nothing can follow
        return
    assert parser.unreader.take_buffered() == gathering.split(extent)[1]


PLAIN = HEAD + b"Content-Length: 5\r\n\r\nhello"
LINES = [
    b"Content-Length: 5",
    b"Content-Length: 4",
    b"Content-Length: +5",
    b"content-LENGTH:5",
    b"Content-Length : 5",
    b" Content-Length: 5",
    b"Content-Length: 5, 5",
    b"Content-Length: 00005",
    b"Content-Length: 000005",
    b"Content-Length: \xb2",
    b"Content-Length:",
    b"X: content-length",
    b"Transfer-Encoding: chunked",
    b"transfer-encoding : chunked",
    b"Expect: 100-continue",
    b"X: y",
    b"X: y\n z",
    b"",
]


def test_a_plain_request_is_known_at_once_and_no_other_bytes_are() -> None:
    assert is_plain_and_whole(PLAIN)
    for other in (PLAIN[:-1], PLAIN + b"x", PLAIN + PLAIN, b"\r\n\r\n" + PLAIN, b"", NEXT):
        assert not is_plain_and_whole(other)
    for odd in (*AMBIGUOUS.values(), *NOT_WAITED_FOR.values(), *WHOLE_AND_LAST.values()):
        assert not is_plain_and_whole(odd)
    padded = HEAD + b"X: " + b"y" * 9_000 + b"\r\nContent-Length: 5\r\n\r\nhello"
    assert not is_plain_and_whole(padded)


@given(st.lists(st.sampled_from(LINES), max_size=4), st.sampled_from([b"", b"hello", b"hell", b"hello\r\n\r\n", NEXT]))
def test_what_is_called_plain_is_what_the_careful_reader_calls_one_whole_request(
    lines: list[bytes], body: bytes
) -> None:
    received = HEAD + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body
    if is_plain_and_whole(received):
        assert Gathering().add(received) == Extent(len(received), last=False)
