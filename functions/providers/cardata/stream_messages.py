"""What a message of the stream says. Pure."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import orjson

from functions.providers.cardata.signals import Signals, received

_VIN: Final = re.compile(r"[A-Z0-9]{17}")
_MAX_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Message:
    """Signals of one car."""

    vin: str
    signals: Signals


def parse(topic: str, payload: bytes, *, gcid: str, at: datetime) -> Message | None:
    """What came at ``at`` on ``{gcid}/{vin}``; ``None`` for what is no message, or of another car than it says."""
    owner, _, vin = topic.partition("/")
    if owner != gcid or not _VIN.fullmatch(vin) or len(payload) > _MAX_BYTES:
        return None
    try:
        document = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(document, dict) or document.get("vin") != vin or not isinstance(document.get("data"), dict):
        return None
    return Message(vin, received(document["data"], at=at, via="stream"))
