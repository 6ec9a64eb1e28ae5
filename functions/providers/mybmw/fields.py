"""Reading somebody else's JSON field by field: what does not fit is noted, never raised and never guessed."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

MALFORMED = "the maker sent something that cannot be understood"
_SHOWN_CHARS = 64
_MAX_TEXT_CHARS = 200


@dataclass
class Notes:
    """What was met on the way, by dotted path of the snapshot."""

    unknown: dict[str, str] = field(default_factory=dict)
    """Values that are not understood, as the maker wrote them, cut to 64 characters."""
    unavailable: dict[str, str] = field(default_factory=dict)
    """Why a value is missing."""

    def malformed(self, path: str, value: object) -> None:
        """Note a value of the wrong type or range: it counts as missing."""
        self.strange(path, value)
        self.unavailable[path] = MALFORMED

    def strange(self, path: str, value: object) -> None:
        """Note a value that is kept although nothing is known of it."""
        self.unknown[path] = (value if isinstance(value, str) else _shown(value))[:_SHOWN_CHARS]

    def missing(self, path: str, reason: str) -> None:
        """Say why a value is missing, unless something better is known already."""
        self.unavailable.setdefault(path, reason)


class Fields:
    """One JSON object. Every method takes the object's key and the snapshot's path of the value.

    An absent key and a ``null`` both give ``None``; so does a value that does not fit, which is noted as well.
    """

    def __init__(self, data: dict[str, Any], notes: Notes) -> None:
        self._data = data
        self._notes = notes

    def __bool__(self) -> bool:
        return bool(self._data)

    def __contains__(self, key: str) -> bool:
        return key in self._data

    def keys(self) -> Iterable[str]:
        """The object's keys."""
        return self._data.keys()

    def part(self, key: str, path: str) -> "Fields":
        """An object within; an empty one where there is none."""
        value = self._data.get(key)
        if value is not None and not isinstance(value, dict):
            self._notes.malformed(path, value)
        return Fields(value if isinstance(value, dict) else {}, self._notes)

    def parts(self, key: str, path: str) -> tuple["Fields", ...] | None:
        """A list of objects; entries that are none are left out."""
        value = self._list(key, path)
        if value is None:
            return None
        for position, entry in enumerate(value):
            if not isinstance(entry, dict):
                self._notes.malformed(f"{path}.{position}", entry)
        return tuple(Fields(entry, self._notes) for entry in value if isinstance(entry, dict))

    def texts(self, key: str, path: str) -> tuple[str, ...]:
        """A list of texts; empty where there is none, and entries that are none are left out."""
        return tuple(text for text in self._list(key, path) or () if isinstance(text, str))

    def wholes(self, key: str, path: str) -> tuple[int, ...]:
        """A list of whole numbers; empty where there is none, and entries that are none are left out."""
        return tuple(number for number in self._list(key, path) or () if type(number) is int)

    def text(self, key: str, path: str) -> str | None:
        """A text that is not empty, of at most 200 characters."""
        value = self._data.get(key)
        if value is None or value == "":
            return None
        if isinstance(value, str) and len(value) <= _MAX_TEXT_CHARS:
            return value
        self._notes.malformed(path, value)
        return None

    def word(self, key: str, path: str, known: frozenset[str]) -> str | None:
        """A word of an enumeration, in upper case; one that is not among the known is kept and noted."""
        value = self.text(key, path)
        if value is None:
            return None
        word = value.upper()
        if word not in known:
            self._notes.strange(path, value)
        return word

    def flag(self, key: str, path: str) -> bool | None:
        """A boolean and nothing that only looks like one."""
        value = self._data.get(key)
        if value is None or isinstance(value, bool):
            return value
        self._notes.malformed(path, value)
        return None

    def number(self, key: str, path: str, least: float, most: float) -> float | None:
        """A finite number from ``least`` to ``most``."""
        value = self._data.get(key)
        if value is None:
            return None
        if isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most:
            return float(value)
        self._notes.malformed(path, value)
        return None

    def whole(self, key: str, path: str, least: int, most: int) -> int | None:
        """A number from ``least`` to ``most``, rounded."""
        value = self.number(key, path, least, most)
        return None if value is None else round(value)

    def moment(self, key: str, path: str) -> datetime | None:
        """An ISO 8601 time, UTC unless it says otherwise. The year 1 is the maker's way of saying never."""
        value = self.text(key, path)
        if value is None or value.startswith("0001-"):
            return None
        try:
            moment = datetime.fromisoformat(value)
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, OverflowError):
            self._notes.malformed(path, value)
            return None

    def clock(self, key: str, path: str) -> str | None:
        """An object of ``hour`` and ``minute`` as ``HH:MM``."""
        part = self.part(key, path)
        hour, minute = part.whole("hour", path, 0, 23), part.whole("minute", path, 0, 59)
        return None if hour is None or minute is None else f"{hour:02d}:{minute:02d}"

    def _list(self, key: str, path: str) -> list[Any] | None:
        value = self._data.get(key)
        if value is None or isinstance(value, list):
            return value
        self._notes.malformed(path, value)
        return None


def _shown(value: object) -> str:
    if isinstance(value, dict | list):
        return "{...}" if isinstance(value, dict) else "[...]"
    return json.dumps(value)
