"""PNG images, for the pictures of cars and for slider captchas."""

import struct
import zlib
from collections.abc import Callable

Colour = tuple[int, int, int]


def png(width: int, height: int, colour: Callable[[int, int], Colour]) -> bytes:
    """An RGB image of ``width`` by ``height`` pixels; ``colour`` is asked for each (x, y)."""
    rows = (bytes(channel for x in range(width) for channel in colour(x, y)) for y in range(height))
    pixels = b"".join(b"\0" + row for row in rows)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(pixels)) + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
