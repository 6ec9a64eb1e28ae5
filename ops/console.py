"""What people see in a terminal: JSON that fits on a screen, log lines in short, colour only where it is wanted."""

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

WIDTH = 100


class Style:
    """ANSI colours, or none."""

    def __init__(self, *, coloured: bool) -> None:
        self._coloured = coloured

    @classmethod
    def of_stdout(cls) -> "Style":
        """Coloured where standard output is a terminal and ``NO_COLOR`` is not set."""
        return cls(coloured=sys.stdout.isatty() and not os.environ.get("NO_COLOR"))

    def bold(self, text: str) -> str:
        """A heading."""
        return self._paint("1", text)

    def dim(self, text: str) -> str:
        """Something less important."""
        return self._paint("2", text)

    def good(self, text: str) -> str:
        """Something that holds."""
        return self._paint("32", text)

    def bad(self, text: str) -> str:
        """Something that does not."""
        return self._paint("31", text)

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._coloured else text


def pretty(value: Any, *, width: int = WIDTH, max_lines: int | None = None) -> str:  # noqa: ANN401 - any JSON
    """JSON with as many members on a line as fit, cut after ``max_lines``."""
    lines = _lines(value, width, "")
    if max_lines is not None and len(lines) > max_lines:
        lines = [*lines[: max_lines - 1], f"... {len(lines) - max_lines + 1} more lines"]
    return "\n".join(lines)


def _lines(value: Any, width: int, before: str) -> list[str]:  # noqa: ANN401 - any JSON
    """``value`` in lines of ``width``; the first one begins with ``before``."""
    flat = before + json.dumps(value, ensure_ascii=False)
    if len(flat) <= width or not isinstance(value, dict | list) or not value:
        return [flat]
    members: list[tuple[str, Any]] = (
        [(f"{json.dumps(name, ensure_ascii=False)}: ", member) for name, member in value.items()]
        if isinstance(value, dict)
        else [("", member) for member in value]
    )
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    inside: list[str] = []
    fills = False
    for position, (name, member) in enumerate(members, start=1):
        # Room for the indent and for the comma that follows.
        own = _lines(member, width - 3, name)
        own[-1] += "," if position < len(members) else ""
        if fills and len(own) == 1 and len(inside[-1]) + 1 + len(own[0]) <= width - 2:
            inside[-1] += " " + own[0]
        else:
            inside += own
        fills = len(own) == 1
    return [before + opening, *("  " + line for line in inside), closing]


_SHOWN_IN_SHORT = ("action", "state", "breaker", "outcome", "reason", "code")


def log_line(line: str) -> str:
    """A line of the API's log in short; whatever is not one of our events stays as it is."""
    try:
        event = json.loads(line)
    except ValueError:
        return line
    if not isinstance(event, dict) or "message" not in event:
        return line
    words = [str(event.get("time", ""))[11:19], str(event.get("severity", "")).ljust(8), str(event["message"]).ljust(8)]
    words += [str(event[name]) for name in _SHOWN_IN_SHORT if event.get(name)]
    words += _of_request(event)
    return " ".join(words).rstrip()


def _of_request(event: Mapping[str, Any]) -> list[str]:
    request = event.get("httpRequest")
    if not isinstance(request, dict):
        return []
    return [
        str(request.get("status", "")),
        f"{event.get('duration_ms', 0):.1f} ms",
        "cached" * bool(event.get("cached")),
    ]
