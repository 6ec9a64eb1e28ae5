"""Requests to envelopes, remembering those that come again: whoever polls sends the same bytes every time.

Only what holds no login is remembered, so that no password stays in memory.
"""

import threading
from collections import OrderedDict

from functions import wire
from functions.contract import Envelope
from functions.wire import RawRequest

_MAX_REMEMBERED = 2_048
_MAX_BODY_BYTES = 512
"""So at most 1 MiB of bodies, and about as much of envelopes."""


class Decoder:
    """Decodes requests. Safe to use from any thread."""

    def __init__(self, max_body_bytes: int) -> None:
        self._max_body_bytes = max_body_bytes
        self._lock = threading.Lock()
        self._seen: OrderedDict[tuple[str | None, bytes], Envelope] = OrderedDict()

    def decode(self, request: RawRequest) -> Envelope:
        """As :func:`functions.wire.decode`, which it asks once for each body."""
        if request.too_large or request.broken or len(request.body) > min(_MAX_BODY_BYTES, self._max_body_bytes):
            return wire.decode(request, self._max_body_bytes)
        key = (request.headers.get("content-type"), request.body)
        seen = self._seen.get(key)
        if seen is None:
            seen = wire.decode(request, self._max_body_bytes)
            if seen.email is None and seen.hcaptcha is None and not seen.params:
                self._remember(key, seen)
        return seen

    def _remember(self, key: tuple[str | None, bytes], envelope: Envelope) -> None:
        with self._lock:
            self._seen[key] = envelope
            while len(self._seen) > _MAX_REMEMBERED:
                self._seen.popitem(last=False)
