"""Tells when an HTTP/1.1 request has arrived whole, from the bytes that are there: no I/O, and no parser.

The server's parser reads a request once it is whole. Two readers that disagree on where a request ends are how
requests are smuggled, so what says of its end anything but one plain length is refused or is the connection's last
request: the parser sees what has arrived of it and then the end of the stream.
"""

import re
from dataclasses import dataclass

LARGEST_HEAD_BYTES = 65_536
LARGEST_BODY_BYTES = 65_536
"""No more than this of a body is gathered, in the form in which it is sent: an application's own limit is smaller."""

_LARGEST_PLAIN_HEAD_BYTES = 8_192
_LENGTH_FIELD = b"\r\ncontent-length: "
_LONGEST_SIZE_LINE_BYTES = 1_024
_FRAMING = re.compile(rb"\r\n(content-length|transfer-encoding|expect)[ \t]*:[ \t]*([^\r\n]*)", re.IGNORECASE)
_DIGITS = re.compile(rb"[0-9]{1,18}")
_HEX_DIGITS = re.compile(rb"[0-9a-fA-F]{1,8}")


class Refused(Exception):
    """The request cannot be read; ``status`` and ``reason`` are what to answer."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def is_plain_and_whole(received: bytes) -> bool:
    """Whether these bytes are exactly one request whose end nobody could mistake: most are, and this is cheap.

    One ``Content-Length`` that is met to the byte, and no word in the head that could say otherwise. False says
    nothing.
    """
    head_ends = received.find(b"\r\n\r\n")
    if not 0 < head_ends <= _LARGEST_PLAIN_HEAD_BYTES:
        return False
    head = received[:head_ends].lower()
    begins = head.find(_LENGTH_FIELD)
    if begins < 0 or head.count(b"content-length") != 1 or b"transfer-encoding" in head or b"\r\nexpect" in head:
        return False
    begins += len(_LENGTH_FIELD)
    value_ends = head.find(b"\r\n", begins)
    length = head[begins : value_ends if value_ends >= 0 else head_ends]
    return length.isdigit() and len(length) <= 5 and len(received) == head_ends + 4 + int(length)


@dataclass(frozen=True, slots=True)
class Extent:
    """What of the bytes is one request."""

    end: int
    """It is the bytes up to here."""
    last: bool
    """What follows is not another request: the connection must be closed after the reply."""


class Gathering:
    """One request while it arrives. Each byte is looked at about once, however small the pieces are."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._body_begins: int | None = None
        self._ends_at: int | None = None
        self._chunk_at: int | None = None
        self._is_last = False
        self._wants_go_ahead = False

    @property
    def is_empty(self) -> bool:
        """Nothing of it has arrived."""
        return not self._data

    @property
    def has_head(self) -> bool:
        """Request line and headers are there."""
        return self._body_begins is not None

    def add(self, received: bytes) -> Extent | None:
        """Take more bytes; where the request ends, once it is whole. Raises Refused."""
        searched = max(0, len(self._data) - 3)
        self._data += received
        if self._body_begins is None:
            head_ends = self._data.find(b"\r\n\r\n", searched)
            if (len(self._data) if head_ends < 0 else head_ends) > LARGEST_HEAD_BYTES:
                raise Refused(431, "Request Header Fields Too Large")
            if head_ends < 0:
                return None
            self._read_framing(head_ends)
        return self._extent()

    def split(self, extent: Extent) -> tuple[bytes, bytes]:
        """The request, and what has arrived behind it."""
        return bytes(self._data[: extent.end]), bytes(self._data[extent.end :])

    def as_it_is(self) -> Extent:
        """What has arrived, of a request that will not become whole."""
        return Extent(len(self._data), last=True)

    def take_go_ahead(self) -> bool:
        """Whether the client waits to be told to send the body; true once."""
        wanted, self._wants_go_ahead = self._wants_go_ahead, False
        return wanted

    def _read_framing(self, head_ends: int) -> None:
        self._body_begins = begins = head_ends + 4
        fields: dict[bytes, list[bytes]] = {b"content-length": [], b"transfer-encoding": [], b"expect": []}
        for name, value in _FRAMING.findall(self._data, 0, head_ends):
            fields[name.lower()].append(value.rstrip(b" \t").lower())
        lengths, encodings = fields[b"content-length"], fields[b"transfer-encoding"]
        self._wants_go_ahead = fields[b"expect"] == [b"100-continue"]
        if encodings == [b"chunked"] and not lengths:
            self._chunk_at, self._is_last = begins, True
        elif not encodings and not lengths:
            self._ends_at = begins
        elif not encodings and len(lengths) == 1 and _DIGITS.fullmatch(lengths[0]):
            length = int(lengths[0])
            # The application refuses it by what it says of itself, without its body.
            self._is_last = length > LARGEST_BODY_BYTES
            self._ends_at = begins if self._is_last else begins + length
        else:
            raise Refused(400, "Bad Request")

    def _extent(self) -> Extent | None:
        if self._chunk_at is not None:
            return self._chunked_extent()
        assert self._ends_at is not None  # noqa: S101 - the framing was read, and it is one or the other
        if self._is_last:
            return self.as_it_is()
        return Extent(self._ends_at, last=False) if len(self._data) >= self._ends_at else None

    def _chunked_extent(self) -> Extent | None:
        assert self._chunk_at is not None  # noqa: S101 - asked only where there are chunks
        assert self._body_begins is not None  # noqa: S101 - and behind the head
        if len(self._data) - self._body_begins > LARGEST_BODY_BYTES:
            return self.as_it_is()
        while (line_ends := self._data.find(b"\r\n", self._chunk_at)) >= 0:
            size = self._data[self._chunk_at : line_ends].partition(b";")[0].rstrip(b" \t")
            if not _HEX_DIGITS.fullmatch(size):
                return self.as_it_is()
            if not int(size, 16):
                trailers_end = self._data.find(b"\r\n\r\n", line_ends)
                return self.as_it_is() if trailers_end >= 0 else None
            following = line_ends + 2 + int(size, 16) + 2
            if following > len(self._data):
                return None
            self._chunk_at = following
        return self.as_it_is() if len(self._data) - self._chunk_at > _LONGEST_SIZE_LINE_BYTES else None
