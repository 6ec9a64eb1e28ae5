"""How the simulated gcloud shows what it found: ``--format json`` and ``value(...)``, ``--flatten``, ``--filter``."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from sandbox.gcloud_words import Usage


def shown(found: Any, flags: Mapping[str, str]) -> str:  # noqa: ANN401 - whatever a command answers
    """The text for standard output. Raises Usage for a format that this one does not know."""
    if found is None or isinstance(found, str):
        return found or ""
    how = flags.get("--format", "json")
    if how == "json":
        return json.dumps(found, indent=2) + "\n"
    if not (how.startswith("value(") and how.endswith(")")):
        raise Usage(f"the sandbox has no format {how}")
    rows = found if isinstance(found, list) else [found]
    for name, _, wanted in (part.partition("=") for part in filter(None, [flags.get("--filter")])):
        rows = [row for row in rows if _at(row, name) == wanted]
    if "--flatten" in flags:
        rows = [flat for row in rows for flat in _flattened(row, flags["--flatten"].removesuffix("[]"))]
    fields = how.removeprefix("value(").removesuffix(")").split(",")
    return "".join("\t".join(_text(_at(row, field)) for field in fields) + "\n" for row in rows)


def _flattened(row: Any, path: str) -> Iterator[Any]:  # noqa: ANN401 - any JSON
    """A copy of the row for each item of the lists at ``a[].b``."""
    first, _, rest = path.partition("[].")
    for item in _at(row, first) or []:
        yield from ({first: flat} for flat in _flattened(item, rest)) if rest else (_nested(first, item, row),)


def _nested(path: str, item: Any, row: Any) -> Any:  # noqa: ANN401 - any JSON
    name, _, rest = path.partition(".")
    return {**row, name: _nested(rest, item, row[name]) if rest else item}


def _at(row: Any, path: str) -> Any:  # noqa: ANN401 - any JSON
    for part in path.split("."):
        name, _, index = part.removesuffix("]").partition("[")
        row = row.get(name) if isinstance(row, dict) else None
        if index:
            row = row[int(index)] if isinstance(row, list) and int(index) < len(row) else None
    return row


def _text(value: Any) -> str:  # noqa: ANN401 - any JSON
    if isinstance(value, list):
        return ";".join(map(_text, value))
    return "" if value is None else str(value)
